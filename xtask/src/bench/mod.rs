//! Instruction counts; and the benchmark tools of Ceph and ours in turn, within one run.

pub(crate) mod instructions;
mod rados;
mod report;
mod tools;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::value_parser;
use siphon_peers::CephTree;

use self::report::Cell;
use self::tools::{Tools, Work};
use crate::root;
use crate::steps::{call, cargo};

/// How long a run is to take: long beside what either tool's clock leaves out at its ends.
const RUN: Duration = Duration::from_millis(2500);
/// A run that took this long tells a rate well enough to choose the number of messages by.
const TRIAL: Duration = Duration::from_millis(250);
/// Runs to find that number. Each is twice [`TRIAL`] by the rate of the one before.
const MAX_TRIALS: u32 = 3;
/// Messages of the first of them, or as many as have this many bytes.
const FIRST_OPS: u32 = 20_000;
const FIRST_BYTES: u32 = 512 << 20;
/// A run of a calibrated number of messages that takes longer hangs: Ceph's client does so in its
/// handshake now and then.
const HANG_TIMEOUT: Duration = Duration::from_secs(15);
/// What a run may take longer for each message of a number that the user chose: far more than any
/// needs, sleep included.
const PER_MESSAGE: Duration = Duration::from_millis(1);

/// Bytes of data and depth, if no other are asked for.
const CELLS: [(u32, u32); 5] =
    [(64, 128), (4 << 10, 32), (4 << 10, 128), (64 << 10, 16), (4 << 20, 4)];
/// What of one cell is not given.
const DEFAULT_SIZE: u32 = 4 << 10;
const DEFAULT_DEPTH: u32 = 32;

/// Seconds of a run against a cluster.
const RADOS_SECONDS: u32 = 5;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure our benchmark tools in turn with Ceph's own ceph_perf_msgr_server and _client of 18.2.7,
    /// instead of counting instructions
    #[arg(long)]
    peer: bool,
    /// Measure `siphon rados bench` in turn with Ceph's own, against an OSD of 18.2.7 in memory
    #[arg(long, conflicts_with = "peer")]
    rados: bool,
    /// Operate a messenger under load (options changed, counters dumped, the log opened again, a million
    /// commands in all), and tell what that costs; takes half an hour
    #[arg(long, conflicts_with_all = ["peer", "rados"])]
    operated: bool,
    /// Store the instructions that are counted now
    #[arg(long, conflicts_with = "peer")]
    bless: bool,
    /// Bytes of data of a message: one cell instead of the fixed set [default: 4096]
    #[arg(long, requires = "peer", value_parser = value_parser!(u32).range(..=64 << 20))]
    size: Option<u32>,
    /// Messages in flight of each job: one cell instead of the fixed set [default: 32]
    #[arg(long, requires = "peer", value_parser = value_parser!(u32).range(1..=4096))]
    depth: Option<u32>,
    /// Clients, each with a connection
    #[arg(long, requires = "peer", default_value_t = 1, value_parser = value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Messages of each job and run, for both [default: as many as each does in 2.5 s]
    #[arg(long, requires = "peer", value_parser = value_parser!(u32).range(1..))]
    ops: Option<u32>,
    /// Runs of each side, in turn, of --peer and --rados
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Leave Ceph's tools their sleep of 0 µs a message
    #[arg(long, requires = "peer")]
    keep_sleep: bool,
    /// Print one JSON object on stdout
    #[arg(long, requires = "peer")]
    json: bool,
}

pub(crate) fn run_bench(args: &Args) -> Result<()> {
    if args.rados {
        return rados::run_rados(args.rounds, RADOS_SECONDS);
    }
    if args.operated {
        return operated(&[]);
    }
    if !args.peer {
        return instructions::run(args.bless);
    }
    let (theirs, ours) = (theirs(args.keep_sleep)?, ours()?);
    let works = works(args);
    let mut cells = Vec::new();
    for (index, &work) in works.iter().enumerate() {
        eprintln!("cell {} of {}: {work}", index + 1, works.len());
        cells.push(measure(args, work, &theirs, &ours)?);
    }
    if args.json {
        println!("{}", report::json(args, &cells));
    } else {
        report::print(args, &cells);
    }
    Ok(())
}

/// What the verification runs of it: that nothing is lost.
pub(crate) fn operated_briefly() -> Result<()> {
    operated(&["--commands", "3000", "--rate", "0", "--round", "0.5"])
}

fn operated(args: &[&str]) -> Result<()> {
    let run = ["run", "--release", "--locked", "--quiet", "-p", "siphon-perf", "--example"];
    call(cargo(&run).args(["operated", "--"]).args(args))
}

fn theirs(keep_sleep: bool) -> Result<Tools> {
    let tree = CephTree::open().context(
        "Ceph's own tools cannot be had: run `cargo xtask peers` as root on Debian, or let \
         SIPHON_PEERS_DIR name the folder of a checkout that has them (target/peers)",
    )?;
    if keep_sleep {
        return Ok(Tools::Ceph(tree));
    }
    let quick = tree.without_idle_sleep();
    let quick = quick.context("cannot take the sleep out of Ceph's tools; --keep-sleep leaves it");
    Ok(Tools::Ceph(quick?))
}

fn ours() -> Result<Tools> {
    Ok(Tools::Ours {
        server: built("ceph-perf-msgr", "ceph_perf_msgr_server")?,
        client: built("ceph-perf-msgr", "ceph_perf_msgr_client")?,
    })
}

/// A program of ours, built as it is shipped.
fn built(package: &str, program: &str) -> Result<PathBuf> {
    call(&mut cargo(&["build", "--release", "--locked", "--package", package]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(root().join(target).join("release").join(program))
}

fn works(args: &Args) -> Vec<Work> {
    let work = |(size, depth)| Work { size, depth, jobs: args.jobs };
    match (args.size, args.depth) {
        (None, None) => CELLS.into_iter().map(work).collect(),
        (size, depth) => {
            vec![work((size.unwrap_or(DEFAULT_SIZE), depth.unwrap_or(DEFAULT_DEPTH)))]
        }
    }
}

/// Runs both sides in turn, so that both have the same luck with the machine, and each as often
/// before the other as after it.
fn measure(args: &Args, work: Work, theirs: &Tools, ours: &Tools) -> Result<Cell> {
    let choose = |tools| match args.ops {
        Some(ops) => Ok(ops),
        None => calibrate(tools, work),
    };
    let timeout = HANG_TIMEOUT + PER_MESSAGE * args.ops.unwrap_or(0).saturating_mul(args.jobs);
    let mut cell = Cell::new(work, choose(theirs)?, choose(ours)?);
    let run_theirs = |ops| theirs.run(work, ops, timeout);
    let run_ours = |ops| ours.run(work, ops, timeout);
    for round in 1..=args.rounds {
        let (their_run, our_run) = if round % 2 == 1 {
            let their_run = run_theirs(cell.their_ops)?;
            (their_run, run_ours(cell.our_ops)?)
        } else {
            let our_run = run_ours(cell.our_ops)?;
            (run_theirs(cell.their_ops)?, our_run)
        };
        eprintln!(
            "  round {round} of {}: theirs {:.0}/s, ours {:.0}/s",
            args.rounds,
            their_run.rate(),
            our_run.rate()
        );
        cell.pairs.push((their_run, our_run));
    }
    Ok(cell)
}

/// How many messages of each job take these tools about [`RUN`].
fn calibrate(tools: &Tools, work: Work) -> Result<u32> {
    let first = (FIRST_BYTES / work.size.max(1)).clamp(1, FIRST_OPS) / work.jobs;
    let mut ops = first.max(2 * work.depth);
    for trial in 1..=MAX_TRIALS {
        let elapsed = tools.run(work, ops, HANG_TIMEOUT)?.elapsed;
        if elapsed >= TRIAL || trial == MAX_TRIALS {
            return Ok(scaled(ops, elapsed, RUN));
        }
        ops = scaled(ops, elapsed, 2 * TRIAL);
    }
    Ok(ops)
}

/// As many as take `wanted`, if `ops` took `elapsed`. A clock that shows next to nothing tells no
/// rate: no more than a hundred times as many.
fn scaled(ops: u32, elapsed: Duration, wanted: Duration) -> u32 {
    let times = wanted.as_secs_f64() / elapsed.as_secs_f64().max(1e-6);
    // Saturates.
    (f64::from(ops) * times.min(100.0)).ceil().max(1.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        <Cli as clap::Parser>::try_parse_from(words).map(|cli| cli.args)
    }

    #[test]
    fn one_option_of_a_cell_is_enough_to_choose_it() {
        let chosen = |line| {
            let works = works(&parse(line).unwrap());
            works.iter().map(|work| (work.size, work.depth, work.jobs)).collect::<Vec<_>>()
        };
        assert_eq!(chosen("--peer --size 64"), [(64, 32, 1)]);
        assert_eq!(chosen("--peer --depth 8 --jobs 2"), [(4096, 8, 2)]);
        assert_eq!(chosen("--peer --jobs 4").len(), CELLS.len());
        for line in [
            "--depth 0",
            "--jobs 0",
            "--ops 0",
            "--rounds 0",
            "--peer --rados",
            "--size 99999999999",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn operations_grow_with_the_time_that_is_wanted() {
        let (half, two) = (Duration::from_millis(500), Duration::from_secs(2));
        assert_eq!(scaled(1000, half, two), 4000);
        assert_eq!(scaled(1000, two, half), 250);
        assert_eq!(scaled(1000, Duration::ZERO, two), 100_000);
        assert_eq!(scaled(u32::MAX, half, two), u32::MAX);
    }
}
