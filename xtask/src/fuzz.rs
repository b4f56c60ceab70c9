//! Fuzzing: each target for a while, from its seeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::value_parser;

use crate::install;
use crate::root;
use crate::steps::{Steps, call};

/// What LLVM calls the only platform that we fuzz on; cargo-fuzz names folders by it.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Seconds for each target in a verification.
const BRIEFLY: u32 = 5;
/// Longest time for one input, in seconds. All targets take far less than one.
const INPUT_TIMEOUT: u32 = 10;
/// Most memory of a target, in MiB. They hold less than 50.
const MEMORY: u32 = 1024;

/// What to fuzz.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Time for each target, in seconds
    #[arg(long, default_value_t = 20, value_parser = value_parser!(u32).range(1..=86400))]
    seconds: u32,
    /// Also find what is wrong with memory (AddressSanitizer): about half as fast
    #[arg(long)]
    asan: bool,
    /// Run one target with one input, such as a finding
    #[arg(long, value_name = "FILE", requires = "targets")]
    replay: Option<PathBuf>,
    /// Targets, files in fuzz/fuzz_targets [default: all]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// Runs the targets that were asked for.
pub(crate) fn run(args: &Args) -> Result<()> {
    let all = targets()?;
    if let Some(unknown) = args.targets.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown}; there are {}", all.join(", "));
    }
    let cargo_fuzz = available()?;
    let targets = if args.targets.is_empty() { &all } else { &args.targets };
    let fuzzer = Fuzzer::new(args.asan);
    for target in targets {
        fuzzer.build(&cargo_fuzz, target)?;
    }
    if let (Some(input), [target]) = (&args.replay, &args.targets[..]) {
        return fuzzer.replay(target, input);
    } else if args.replay.is_some() {
        bail!("--replay takes one target");
    }
    println!("{:<20}{:>14}{:>14}{:>9}", "target", "executions", "a second", "new");
    for target in targets {
        println!("{}", fuzzer.fuzz(target, args.seconds)?);
    }
    Ok(())
}

/// Runs each target for a few seconds: enough to notice that one of them breaks at once.
pub(crate) fn briefly(steps: &mut Steps) -> Result<()> {
    if let Err(missing) = available() {
        return steps.skip(format!("nothing was fuzzed: {missing:#}"));
    }
    run(&Args { seconds: BRIEFLY, asan: false, replay: None, targets: Vec::new() })
}

/// cargo-fuzz, where targets can be built and it is or can be installed.
fn available() -> Result<PathBuf> {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))) {
        bail!("the targets are built for {PLATFORM} only");
    }
    install::cargo_fuzz()
}

/// All targets, by their files.
fn targets() -> Result<Vec<String>> {
    let dir = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if let (Some("rs"), Some(name)) = (
            path.extension().and_then(|extension| extension.to_str()),
            path.file_stem().and_then(|stem| stem.to_str()),
        ) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// How targets are built, and where they and what they find are.
struct Fuzzer {
    sanitizer: &'static str,
    /// Below `target/`: the build, collected inputs and findings.
    dir: PathBuf,
}

impl Fuzzer {
    fn new(asan: bool) -> Self {
        let (sanitizer, dir) = if asan { ("address", "fuzz-asan") } else { ("none", "fuzz") };
        Self { sanitizer, dir: root().join("target").join(dir) }
    }

    /// Builds with optimization and debug assertions, which is cargo-fuzz's default.
    fn build(&self, cargo_fuzz: &Path, target: &str) -> Result<()> {
        let mut command = Command::new(cargo_fuzz);
        command.args(["build", "--sanitizer", self.sanitizer, "--target", PLATFORM]);
        command.args(["--fuzz-dir", "fuzz", "--target-dir"]).arg(&self.dir).arg(target);
        // Coverage takes compiler flags that a stable compiler has, but lets nobody use.
        call(command.env("RUSTC_BOOTSTRAP", "1").current_dir(root()))
    }

    fn program(&self, target: &str) -> Command {
        let mut command = Command::new(self.dir.join(PLATFORM).join("release").join(target));
        command.arg(format!("-timeout={INPUT_TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY}"));
        command.current_dir(root());
        command
    }

    fn replay(&self, target: &str, input: &Path) -> Result<()> {
        let input = fs::canonicalize(input).with_context(|| input.display().to_string())?;
        call(self.program(target).arg(input))
    }

    /// Runs a target from its seeds and from what earlier runs collected.
    fn fuzz(&self, target: &str, seconds: u32) -> Result<Ran> {
        let collected = self.dir.join("corpus").join(target);
        let findings = self.dir.join("findings").join(target);
        for dir in [&collected, &findings] {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        let seeds = root().join("fuzz/corpus").join(target);
        let mut command = self.program(target);
        command.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
        command.arg(format!("-artifact_prefix={}/", findings.display())).arg(collected);
        // A target may begin from nothing.
        command.args(seeds.is_dir().then_some(seeds));
        let output = command.stdin(Stdio::null()).output().with_context(|| target.to_owned())?;
        let log = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ran::read(target, &log);
        }
        eprintln!("{}", end_of(&log));
        let asan = if self.sanitizer == "none" { "" } else { " --asan" };
        match finding(&log) {
            Some(file) => bail!(
                "{target} has a finding, which this replays:\n    \
                 cargo xtask fuzz{asan} {target} --replay {file}"
            ),
            None => bail!("{target}: {}", output.status),
        }
    }
}

/// What a run did, by libFuzzer's closing statistics.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    target: String,
    executions: u64,
    rate: u64,
    new: u64,
}

impl Ran {
    fn read(target: &str, log: &str) -> Result<Self> {
        let number = |name: &str| {
            let line = log.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.trim_start_matches(':').trim().parse().ok());
            number.with_context(|| format!("{target} does not tell its {name}"))
        };
        Ok(Self {
            target: target.to_owned(),
            executions: number("stat::number_of_executed_units")?,
            rate: number("stat::average_exec_per_sec")?,
            new: number("stat::new_units_added")?,
        })
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { target, executions, rate, new } = self;
        write!(f, "{target:<20}{executions:>14}{rate:>14}{new:>9}")
    }
}

/// The file of the input that broke a target.
fn finding(log: &str) -> Option<&str> {
    log.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, file)| file)
}

/// What is told of a finding: from the panic on, or the last lines.
fn end_of(log: &str) -> &str {
    const MAX: usize = 4000;
    let from = log.find("panicked at").or_else(|| log.find("ERROR:"));
    let from = from.and_then(|at| log[..at].rfind('\n')).map_or(0, |at| at + 1);
    let end = &log[from..];
    let cut = end.char_indices().nth(MAX).map_or(end.len(), |(at, _)| at);
    &end[..cut]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_built_and_has_seeds_of_a_bounded_size() {
        let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        let targets = targets().unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            let path = format!("\"fuzz_targets/{target}.rs\"");
            assert!(manifest.contains(&path), "{target} has no line in fuzz/Cargo.toml");
            let Ok(seeds) = fs::read_dir(root().join("fuzz/corpus").join(&target)) else {
                continue;
            };
            let sizes: Vec<u64> =
                seeds.map(|seed| seed.unwrap().metadata().unwrap().len()).collect();
            assert!(sizes.len() < 50, "{target} has {} seeds", sizes.len());
            assert!(sizes.iter().sum::<u64>() < 64 << 10, "{target}'s seeds are long");
        }
    }

    #[test]
    fn a_run_is_read_from_its_statistics() {
        let log = "#9\tDONE\nDone 9 runs in 3 second(s)\nstat::number_of_executed_units: 9\n\
            stat::average_exec_per_sec:     3\nstat::new_units_added:          2\n";
        let ran = Ran { target: "frames".to_owned(), executions: 9, rate: 3, new: 2 };
        assert_eq!(Ran::read("frames", log).unwrap(), ran);
        assert!(Ran::read("frames", "").is_err());
    }

    #[test]
    fn a_finding_is_read_from_the_log() {
        let log = "INFO: Seed: 1\n#7 NEW\n\nthread '<unnamed>' panicked at fuzz_targets/a.rs:1:\nno\n\
            artifact_prefix='x/'; Test unit written to x/crash-1f\nBase64: AA==\n";
        assert_eq!(finding(log), Some("x/crash-1f"));
        assert!(end_of(log).starts_with("thread '<unnamed>' panicked"));
        assert_eq!(end_of("nothing to tell"), "nothing to tell");
    }
}
