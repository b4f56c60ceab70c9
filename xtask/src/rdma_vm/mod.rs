//! A virtual machine with RDMA devices, for tests on machines that have none.
//!
//! It runs Debian's kernel in qemu, on the files of the host: those can be read, and what is written
//! goes to memory and is lost, except below folders that are shared. So a program that was built here
//! runs there as it is, as root, in the same folder with the same arguments and variables.
//!
//! ```text
//! rxe0 10.77.0.1 ── veth ── 10.77.0.2 rxe1     RoCE v2: GID index 1, or by rdma_cm
//! siw0 10.77.1.1 ── veth ── 10.77.1.2 siw1     iWARP: by rdma_cm only
//! ```
//!
//! All four are in one network namespace, so that one process can be both ends, and what goes from one
//! to its twin crosses the veth (`rxe0v`, `rxe1v`, `siw0v`, `siw1v`). For RoCE that takes a source
//! address: without one the kernel takes the destination itself, which is local.

mod bench;
mod boot;
mod cache;
mod cpio;
mod debian;
mod image;
mod job;
mod relay;
mod suite;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::value_parser;

use crate::install;
use boot::{Ended, Machine};
use cache::Cache;
use image::Image;
use job::Job;

pub(crate) use suite::step;

/// How long a command may take, boot included, unless --timeout says so.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);
/// The job did not end in time, as timeout(1) has it.
const TIMED_OUT: u8 = 124;
/// The machine could not be had, or failed.
const FAILED: u8 = 125;
/// Folders that can be shared; each takes a device of the machine.
const MAX_SHARES: usize = 8;

/// What to run in the machine.
#[derive(clap::Args)]
#[command(
    after_help = "The exit code is the command's; 124 if it did not end in time; 125 if the \
    machine cannot be had or failed: the end of its console is then on stderr. In the machine \
    SIPHON_RDMA_VM is 1. What was built once is in ~/.cache/siphon/rdma-vm: remove that for \
    Debian's newest kernel."
)]
pub(crate) struct Args {
    /// CPUs of the machine [default: as many as here]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// Memory of the machine, in MiB or with the suffix M or G; it holds all that is written, too
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = memory)]
    mem: u32,
    /// Seconds until the machine is ended, from its start [default: 300; for --suite 1800]
    #[arg(long, value_name = "S", value_parser = value_parser!(u32).range(1..=86400))]
    timeout: Option<u32>,
    /// A folder in which what is written stays; may be given again
    #[arg(long, value_name = "DIR")]
    rw: Vec<PathBuf>,
    /// How the CPUs are made [default: kvm where it works]
    #[arg(long)]
    accel: Option<Accel>,
    /// Install and build what is needed, and run nothing
    #[arg(long, conflicts_with_all = ["command", "suite", "bench"])]
    prepare: bool,
    /// Run the tests that need RDMA devices, as `cargo xtask test` does
    #[arg(long, conflicts_with_all = ["command", "bench"])]
    suite: bool,
    /// Measure perftest, Ceph's async+rdma and `siphon perf` in turn, and print how they compare; each
    /// step has a limit of its own, and --timeout none
    #[arg(long, conflicts_with = "command")]
    bench: bool,
    /// Rounds of --bench
    #[arg(long, value_name = "N", default_value_t = 5, requires = "bench",
        conflicts_with = "command",
        value_parser = value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true,
        required_unless_present_any = ["prepare", "suite", "bench"])]
    command: Vec<OsString>,
}

/// How qemu makes CPUs.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Accel {
    /// The CPU's own virtualization
    Kvm,
    /// Emulation: works everywhere, ten times slower and more
    Tcg,
}

/// Runs what was asked for, and returns how it ended.
pub(crate) fn run(args: &Args) -> ExitCode {
    run_in(args).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(FAILED)
    })
}

fn run_in(args: &Args) -> Result<ExitCode> {
    if args.bench && bench::is_inside() {
        bench::measure(args.rounds)?;
        return Ok(ExitCode::SUCCESS);
    }
    let machine = args.machine()?;
    let cache = Cache::open()?;
    let missing = missing(&cache)?;
    ensure!(missing.is_empty(), "{}", missing.join("; "));
    let image = Image::open(&cache)?;
    if args.prepare {
        return Ok(ExitCode::SUCCESS);
    }
    if args.suite {
        suite::run(&cache, &image, &machine)?;
        return Ok(ExitCode::SUCCESS);
    }
    let dir = env::current_dir().context("the current folder")?;
    if args.bench {
        bench::run_bench(&cache, &image, machine, args.rounds)?;
        return Ok(ExitCode::SUCCESS);
    }
    let job = Job { command: &args.command, dir: &dir, environment: env::vars_os().collect() };
    Ok(match machine.run(&cache, &image, &job)? {
        Ended::Job { code } => ExitCode::from(code),
        ended => {
            eprintln!("error: {ended}");
            ExitCode::from(if matches!(ended, Ended::TimedOut { .. }) { TIMED_OUT } else { FAILED })
        }
    })
}

/// Installs what is missing; returns why the machine cannot be had here.
fn missing(cache: &Cache) -> Result<Vec<String>> {
    if env::consts::ARCH != "x86_64" {
        return Ok(vec!["the RDMA machine is made for x86_64 only".to_owned()]);
    }
    let mut missing = install::rdma_vm()?;
    if !Image::is_built(cache) && !install::is_root()? {
        missing.push("building the RDMA machine takes root".to_owned());
    }
    Ok(missing)
}

impl Args {
    fn machine(&self) -> Result<Machine> {
        if self.rw.len() > MAX_SHARES {
            bail!("at most {MAX_SHARES} folders can be shared with --rw");
        }
        let shares = self.rw.iter().map(|dir| {
            let path = dir.canonicalize().with_context(|| format!("--rw {}", dir.display()))?;
            ensure!(path.is_dir(), "--rw {}: not a folder", dir.display());
            Ok(path)
        });
        Ok(Machine {
            cpus: self.cpus.unwrap_or_else(cpus_here),
            memory: self.mem,
            limit: match self.timeout {
                Some(seconds) => Duration::from_secs(seconds.into()),
                None if self.suite => suite::LIMIT,
                None => COMMAND_LIMIT,
            },
            shares: shares.collect::<Result<_>>()?,
            accel: self.accel.unwrap_or_else(Accel::best),
        })
    }
}

/// As many CPUs as this machine has.
fn cpus_here() -> u32 {
    available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1))
}

/// Parses a size of memory into MiB.
fn memory(text: &str) -> Result<u32, String> {
    /// Linux with these modules boots in less; what it runs does not.
    const LEAST: u32 = 256;
    let (digits, unit) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let number = digits.parse::<u32>().map_err(|error| error.to_string())?;
    match number.checked_mul(unit) {
        Some(mib) if mib >= LEAST => Ok(mib),
        Some(_) => Err(format!("the machine needs {LEAST}M at least")),
        None => Err("that is too much".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from([&["rdma-vm"], words].concat()).map(|line| line.args)
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let args =
            parse(&["--cpus", "3", "--mem", "2G", "--", "ls", "--cpus", "-l", "--"]).unwrap();
        assert_eq!(args.command, ["ls", "--cpus", "-l", "--"]);
        let machine = args.machine().unwrap();
        assert_eq!((machine.cpus, machine.memory), (3, 2048));
        let args = parse(&["ls", "--timeout", "7"]).unwrap();
        assert_eq!(args.command, ["ls", "--timeout", "7"]);
        assert_eq!(args.machine().unwrap().limit, COMMAND_LIMIT);
        assert_eq!(parse(&["--suite"]).unwrap().machine().unwrap().limit, suite::LIMIT);
    }

    #[test]
    fn a_command_is_needed_unless_there_is_none_to_run() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--prepare"]).unwrap().prepare);
        assert!(parse(&["--suite", "--timeout", "9"]).unwrap().suite);
        assert!(parse(&["--prepare", "ls"]).is_err());
        assert!(parse(&["--suite", "ls"]).is_err());
        assert!(parse(&["--suite", "--prepare"]).is_err());
        assert_eq!(parse(&["--bench", "--rounds", "3"]).unwrap().rounds, 3);
        for wrong in [&["--bench", "ls"][..], &["--bench", "--suite"], &["--rounds", "3", "ls"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!(memory("512"), Ok(512));
        assert_eq!(memory("512M"), Ok(512));
        assert_eq!(memory("8g"), Ok(8192));
        for wrong in ["", "G", "-1", "1T", "4G,x=y", "255", "5000000G"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
        for wrong in [["--cpus", "0"], ["--timeout", "0"], ["--accel", "hvf"]] {
            assert!(parse(&[&wrong[..], &["ls"]].concat()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn shared_folders_have_to_be_there() {
        let args = parse(&["--rw", "/usr", "--rw", "/proc/self/../self", "ls"]).unwrap();
        let shares = args.machine().unwrap().shares;
        assert_eq!(shares[0], PathBuf::from("/usr"));
        assert!(!shares[1].ends_with("self"), "{shares:?}");
        for wrong in ["/no/such/folder", "/etc/passwd"] {
            assert!(parse(&["--rw", wrong, "ls"]).unwrap().machine().is_err());
        }
        let many = ["--rw=/usr"; MAX_SHARES + 1];
        assert!(parse(&[&many[..], &["ls"]].concat()).unwrap().machine().is_err());
    }
}
