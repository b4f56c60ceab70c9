//! Instructions that fixed pieces of work take, held against those that are stored.
//!
//! Unlike times they are the same in each run and on a busy machine, so a change of some percent is
//! one of the code. They depend on the compiler, and on what the processor has for checksums and
//! ciphers: the file says by what it was counted, and is compared with nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::install;
use crate::root;
use crate::steps::{Steps, call, cargo, output};

/// Where the counts are stored.
const STORED: &str = "crates/siphon-perf/instructions.json";
const EXAMPLE: &str = "instructions";
/// What may be more or less without anybody being told, as a part of one: where the compiler puts
/// things moves by as much when nothing of a piece of work was changed.
const TOLERANCE: f64 = 0.02;
const BLESS: &str = "cargo xtask bench --bless";

/// Counts, and by what they were counted.
#[derive(Debug, PartialEq)]
struct Counts {
    rustc: String,
    cpu: String,
    /// Instructions of one turn of each piece of work.
    works: Vec<(String, f64)>,
}

/// What a comparison says of one piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Faster,
    Slower,
    /// It is not among those that are stored.
    New,
}

/// A step of the verification. What cannot be compared here is skipped, which in CI is an error.
pub(crate) fn step(steps: &mut Steps) -> Result<()> {
    if let Some(reason) = install::valgrind()?.pop() {
        return steps.skip(reason);
    }
    let (stored, counted) = (load()?, count()?);
    match stored.incomparable(&counted) {
        Some(reason) => steps.skip(reason),
        None => compare(&stored, &counted),
    }
}

/// What `cargo xtask bench` does without `--peer`.
pub(super) fn run(bless: bool) -> Result<()> {
    if let Some(reason) = install::valgrind()?.pop() {
        bail!("{reason}");
    }
    let counted = count()?;
    if bless {
        let text = serde_json::to_string_pretty(&counted.json())? + "\n";
        fs::write(path(), text).with_context(|| format!("cannot write {STORED}"))?;
        counted.works.iter().for_each(|(name, count)| println!("{name:<22} {count:>12.1}"));
        println!("stored in {STORED}");
        return Ok(());
    }
    let stored = load()?;
    if let Some(reason) = stored.incomparable(&counted) {
        counted.works.iter().for_each(|(name, count)| println!("{name:<22} {count:>12.1}"));
        println!("NOT COMPARED: {reason}");
        return Ok(());
    }
    compare(&stored, &counted)
}

fn path() -> PathBuf {
    root().join(STORED)
}

fn load() -> Result<Counts> {
    let text =
        fs::read_to_string(path()).with_context(|| format!("{STORED}: `{BLESS}` makes it"))?;
    let json: Value = serde_json::from_str(&text).with_context(|| STORED.to_owned())?;
    Counts::from_json(&json)
        .with_context(|| format!("{STORED} is damaged: `{BLESS}` makes it anew"))
}

/// Builds and runs all pieces of work below callgrind.
fn count() -> Result<Counts> {
    let build =
        ["build", "--release", "--locked", "--quiet", "-p", "siphon-perf", "--example", EXAMPLE];
    call(&mut cargo(&build))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let folder = root().join(target).join("release/examples");
    let text = |command: &mut Command| -> Result<String> {
        Ok(String::from_utf8_lossy(&output(command)?).trim().to_owned())
    };
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let rustc = text(Command::new(rustc).arg("--version"))?;
    let cpu = text(valgrind(&folder, &["-q", "--tool=none"]).arg("--cpu"))?;
    let list = text(Command::new(folder.join(EXAMPLE)).arg("--list"))?;
    let mut works = Vec::new();
    for line in list.lines() {
        let (name, times) = line.split_once(' ').with_context(|| format!("--list: {line}"))?;
        let times: f64 = times.parse()?;
        works.push((name.to_owned(), callgrind(&folder, name)? / times));
    }
    Ok(Counts { rustc, cpu, works })
}

/// The program below valgrind, the same in every folder and shell: its environment and its path lie
/// on the stack, whose place decides which of its loops a copy takes.
fn valgrind(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("valgrind");
    command.args(args).arg(format!("./{EXAMPLE}")).current_dir(folder).env_clear();
    command
}

/// Instructions within the function `measured` of one piece of work.
fn callgrind(folder: &Path, name: &str) -> Result<f64> {
    let mut command = valgrind(
        folder,
        &[
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=*instructions*measured*",
        ],
    );
    command.arg(name);
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let collected = log.lines().find_map(|line| line.split_once("Collected :"));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    match count.filter(|count| output.status.success() && *count > 0.0) {
        Some(count) => Ok(count),
        None => bail!("{command:?}: {}; it says:\n{log}", output.status),
    }
}

impl Counts {
    fn json(&self) -> Value {
        let works: Map<String, Value> = self
            .works
            .iter()
            .map(|(name, count)| (name.clone(), json!((count * 10.0).round() / 10.0)))
            .collect();
        json!({ "rustc": self.rustc, "cpu": self.cpu, "instructions": works })
    }

    fn from_json(json: &Value) -> Option<Self> {
        let text = |name: &str| Some(json.get(name)?.as_str()?.to_owned());
        let works = json.get("instructions")?.as_object()?;
        let works = works.iter().map(|(name, count)| Some((name.clone(), count.as_f64()?)));
        Some(Self {
            rustc: text("rustc")?,
            cpu: text("cpu")?,
            works: works.collect::<Option<_>>()?,
        })
    }

    /// Why other counts cannot be held against these.
    fn incomparable(&self, other: &Self) -> Option<String> {
        for (what, ours, theirs) in
            [("compiler", &self.rustc, &other.rustc), ("processor", &self.cpu, &other.cpu)]
        {
            if ours != theirs {
                return Some(format!(
                    "{STORED} was counted with another {what} ({ours}, here {theirs}): on the machine that \
                     gates, `{BLESS}` stores new counts"
                ));
            }
        }
        None
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.works.iter().find(|(known, _)| known == name).map(|(_, count)| *count)
    }
}

fn verdict(stored: Option<f64>, counted: f64) -> Verdict {
    match stored {
        None => Verdict::New,
        Some(stored) if counted > stored * (1.0 + TOLERANCE) => Verdict::Slower,
        Some(stored) if counted < stored * (1.0 - TOLERANCE) => Verdict::Faster,
        Some(_) => Verdict::Same,
    }
}

/// Prints all, and fails where something became slower, or is not known.
fn compare(stored: &Counts, counted: &Counts) -> Result<()> {
    println!("{:<22} {:>12} {:>12}", "instructions", "stored", "now");
    let mut failures = Vec::new();
    let mut faster = false;
    for (name, now) in &counted.works {
        let before = stored.get(name);
        let verdict = verdict(before, *now);
        let change = before
            .map_or(String::new(), |before| format!("{:+.2} %", (now / before - 1.0) * 100.0));
        let before = before.map_or_else(|| "–".to_owned(), |before| format!("{before:.1}"));
        let note = match verdict {
            Verdict::Same => "",
            Verdict::Faster => "  faster",
            Verdict::Slower => "  SLOWER",
            Verdict::New => "  NEW",
        };
        println!("{name:<22} {before:>12} {now:>12.1} {change:>9}{note}");
        faster |= verdict == Verdict::Faster;
        if matches!(verdict, Verdict::Slower | Verdict::New) {
            failures.push(name.as_str());
        }
    }
    let gone = stored.works.iter().map(|(name, _)| name.as_str());
    failures.extend(gone.filter(|name| counted.get(name).is_none()));
    if !failures.is_empty() {
        bail!(
            "more instructions than are stored, by over {} %, or other work: {}. If that is what it should \
             take, `{BLESS}` stores it in {STORED}, and the commit says why",
            TOLERANCE * 100.0,
            failures.join(", ")
        );
    }
    if faster {
        println!("Some of it became faster: `{BLESS}` stores that, so that it stays.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(works: &[(&str, f64)]) -> Counts {
        let works = works.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Counts { rustc: "rustc 1".into(), cpu: "x86_64 aes".into(), works }
    }

    #[test]
    fn more_instructions_fail_and_fewer_do_not() {
        let stored = counts(&[("a", 1000.0), ("b", 50.0)]);
        for (now, taken) in [(1019.0, true), (1021.0, false), (900.0, true)] {
            assert_eq!(
                compare(&stored, &counts(&[("a", now), ("b", 50.0)])).is_ok(),
                taken,
                "{now}"
            );
        }
        let error = compare(&stored, &counts(&[("a", 2000.0), ("b", 50.0)])).unwrap_err();
        assert!(error.to_string().contains("cargo xtask bench --bless"), "{error}");
        assert!(compare(&stored, &counts(&[("a", 1000.0)])).is_err(), "work that is gone");
        let more = counts(&[("a", 1000.0), ("b", 50.0), ("c", 1.0)]);
        assert!(compare(&stored, &more).is_err(), "work that is new");
    }

    #[test]
    fn what_is_stored_is_read_again_and_compared_with_its_like_only() {
        let stored = counts(&[("a", 1000.5)]);
        assert_eq!(Counts::from_json(&stored.json()), Some(counts(&[("a", 1000.5)])));
        assert_eq!(stored.incomparable(&counts(&[])), None);
        let other = Counts { rustc: "rustc 2".into(), ..counts(&[]) };
        assert!(stored.incomparable(&other).unwrap().contains("another compiler"));
    }

    #[test]
    fn the_stored_counts_can_be_read() {
        assert!(load().unwrap().works.len() > 10);
    }
}
