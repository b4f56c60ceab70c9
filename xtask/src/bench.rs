use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use siphon_peers::{CephTree, Leash, PerfClient, free_ports, run};

use crate::root;
use crate::steps::{call, cargo};

/// Longest that one run of a client may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);
/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Against Ceph's own ceph_perf_msgr_server and _client of 18.2.7
    #[arg(long)]
    peer: bool,
    /// Only this many bytes of data, instead of the fixed set
    #[arg(long, requires = "depth")]
    size: Option<u32>,
    /// Only this depth, instead of the fixed set
    #[arg(long, requires = "size")]
    depth: Option<u32>,
    /// Connections
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// Messages of each job and run [default: by the size]
    #[arg(long)]
    ops: Option<u32>,
    /// Runs of each side, in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Bytes of data, depth, and messages of each job: about a second and a half of Ceph's time.
const CELLS: [(u32, u32, u32); 5] = [
    (64, 128, 120_000),
    (4 << 10, 32, 80_000),
    (4 << 10, 128, 80_000),
    (64 << 10, 16, 20_000),
    (4 << 20, 4, 800),
];

/// A pair of server and client, of one make.
enum Side {
    Ceph(CephTree),
    Ours { server: PathBuf, client: PathBuf },
}

/// What one cell gave: messages a second of each round.
struct Cell {
    size: u32,
    depth: u32,
    ops: u32,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

pub(crate) fn run_bench(args: &Args) -> Result<()> {
    if !args.peer {
        bail!(
            "say against what: --peer runs Ceph's own tools (siphon perf --baseline holds us against plain TCP)"
        );
    }
    let tree =
        CephTree::open().context("Ceph's tools are needed: cargo xtask peers unpacks them")?;
    let tree = tree.without_idle_sleep()?;
    call(&mut cargo(&["build", "--release", "--locked", "--package", "ceph-perf-msgr"]))?;
    let built = root().join("target/release");
    let ours = Side::Ours {
        server: built.join("ceph_perf_msgr_server"),
        client: built.join("ceph_perf_msgr_client"),
    };
    let theirs = Side::Ceph(tree);
    let mut cells = Vec::new();
    for (size, depth, ops) in work(args) {
        cells.push(measure(args, size, depth, ops, &ours, &theirs)?);
    }
    if args.json {
        let cells: Vec<_> = cells.iter().map(|cell| cell.to_json(args.jobs)).collect();
        println!("{}", json!({ "peer": "ceph 18.2.7", "rounds": args.rounds, "cells": cells }));
    } else {
        print(args, &cells);
    }
    Ok(())
}

fn work(args: &Args) -> Vec<(u32, u32, u32)> {
    match (args.size, args.depth) {
        (Some(size), Some(depth)) => {
            let like = CELLS.iter().find(|(of, ..)| *of >= size).unwrap_or(&CELLS[CELLS.len() - 1]);
            vec![(size, depth, args.ops.unwrap_or(like.2))]
        }
        _ => CELLS
            .iter()
            .map(|(size, depth, ops)| (*size, *depth, args.ops.unwrap_or(*ops)))
            .collect(),
    }
}

/// Runs both sides in turn, so that both have the same luck with the machine.
fn measure(
    args: &Args,
    size: u32,
    depth: u32,
    ops: u32,
    ours: &Side,
    theirs: &Side,
) -> Result<Cell> {
    let mut cell = Cell { size, depth, ops, ours: Vec::new(), theirs: Vec::new() };
    for round in 1..=args.rounds {
        eprintln!("{size} bytes, depth {depth}: round {round} of {}", args.rounds);
        cell.theirs.push(theirs.rate(args.jobs, depth, ops, size)?);
        cell.ours.push(ours.rate(args.jobs, depth, ops, size)?);
    }
    Ok(cell)
}

impl Side {
    /// Messages a second of one run, with a server of its own.
    fn rate(&self, jobs: u32, depth: u32, ops: u32, size: u32) -> Result<f64> {
        let [port] = free_ports();
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let log = std::env::temp_dir().join(format!("siphon-bench-{port}.log"));
        let work = PerfClient { addr, jobs, depth, ops, size };
        let server = self.serve(addr, &log)?;
        let time = self.drive(work)?;
        drop(server);
        let _ = fs::remove_file(log); // a log that is not there is as good
        Ok(f64::from(ops) * f64::from(jobs) / time.as_secs_f64())
    }

    fn serve(&self, addr: SocketAddr, log: &PathBuf) -> Result<Leash> {
        match self {
            Self::Ceph(tree) => Ok(tree.perf_server(addr, 1, &[], log)?),
            Self::Ours { server, .. } => {
                let mut command = Command::new(server);
                command.args([&addr.to_string(), "1", "0"]);
                let leash = Leash::start(command, log)?;
                leash.wait_until_listening(addr, RUN_TIMEOUT)?;
                Ok(leash)
            }
        }
    }

    fn drive(&self, work: PerfClient) -> Result<Duration> {
        match self {
            Self::Ceph(tree) => Ok(tree.perf_client_to_its_end(work)?),
            Self::Ours { client, .. } => {
                let mut command = Command::new(client);
                command.args(work.args());
                let output = run(command, RUN_TIMEOUT)?;
                let text = String::from_utf8_lossy(&output.stdout);
                PerfClient::run_time(&text).with_context(|| format!("no closing line in: {text}"))
            }
        }
    }
}

impl Cell {
    /// Our rate over theirs: the median, the least and the most of the rounds.
    fn ratio(&self) -> [f64; 3] {
        let pairs = self.ours.iter().zip(&self.theirs);
        let ratios: Vec<f64> = pairs.map(|(ours, theirs)| ours / theirs).collect();
        let by = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick).unwrap_or(0.0);
        [median(&ratios), by(f64::min), by(f64::max)]
    }

    fn to_json(&self, jobs: u32) -> Value {
        let [ratio, least, most] = self.ratio();
        let Self { size, depth, ops, ours, theirs } = self;
        json!({
            "size_bytes": size, "depth": depth, "jobs": jobs, "ops": ops,
            "ours_ops_per_second": ours, "theirs_ops_per_second": theirs,
            "ratio": ratio, "ratio_min": least, "ratio_max": most,
        })
    }
}

fn print(args: &Args, cells: &[Cell]) {
    println!(
        "Ceph 18.2.7's ceph_perf_msgr pair and ours in turn, medians of {} rounds.",
        args.rounds
    );
    println!("Their needless sleep of 0 us a message is taken out by a preload.\n");
    println!(
        "{:>9} {:>6} {:>5} {:>13} {:>13} {:>7}  (min to max)",
        "bytes", "depth", "jobs", "theirs op/s", "ours op/s", "ratio"
    );
    for cell in cells {
        let [ratio, least, most] = cell.ratio();
        println!(
            "{:>9} {:>6} {:>5} {:>13.0} {:>13.0} {ratio:>7.2}  ({least:.2} to {most:.2})",
            cell.size,
            cell.depth,
            args.jobs,
            median(&cell.theirs),
            median(&cell.ours),
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
