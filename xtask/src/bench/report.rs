use std::fs;

use serde_json::{Value, json};
use siphon_peers::TREE_RELEASE;

use super::Args;
use super::tools::{Run, Work};

/// What one cell gave.
pub(super) struct Cell {
    work: Work,
    /// Messages of each job and run.
    pub(super) their_ops: u32,
    pub(super) our_ops: u32,
    /// Each round's: theirs, ours.
    pub(super) pairs: Vec<(Run, Run)>,
}

/// One side of a cell: medians over the rounds.
struct Side {
    /// Messages a second.
    rate: f64,
    /// Bytes of data a second, in one direction.
    bandwidth: f64,
    /// Seconds of processor time a message.
    client_cpu: f64,
    server_cpu: f64,
    cpu: f64,
}

impl Side {
    fn new(work: Work, runs: &[Run]) -> Self {
        let of = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
        let rate = of(Run::rate);
        Self {
            rate,
            bandwidth: rate * f64::from(work.size),
            client_cpu: of(|run| run.client_cpu / run.ops),
            server_cpu: of(|run| run.server_cpu / run.ops),
            cpu: of(|run| (run.client_cpu + run.server_cpu) / run.ops),
        }
    }
}

impl Cell {
    pub(super) fn new(work: Work, their_ops: u32, our_ops: u32) -> Self {
        Self { work, their_ops, our_ops, pairs: Vec::new() }
    }

    fn runs(&self) -> [Vec<Run>; 2] {
        let (theirs, ours) = self.pairs.iter().copied().unzip();
        [theirs, ours]
    }

    /// Our rate over theirs: the median, the least and the most of the rounds.
    fn ratio(&self) -> [f64; 3] {
        let ratios: Vec<f64> =
            self.pairs.iter().map(|(theirs, ours)| ours.rate() / theirs.rate()).collect();
        let by = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick).unwrap_or(0.0);
        let (least, most) = (by(f64::min), by(f64::max));
        [median(ratios), least, most]
    }

    fn json(&self) -> Value {
        let Work { size, depth, jobs } = self.work;
        let [theirs, ours] = self.runs();
        let [ratio, least, most] = self.ratio();
        json!({
            "size_bytes": size, "depth": depth, "jobs": jobs,
            "theirs": self.side_json(self.their_ops, &theirs),
            "ours": self.side_json(self.our_ops, &ours),
            "ratio": ratio, "ratio_min": least, "ratio_max": most,
        })
    }

    fn side_json(&self, ops: u32, runs: &[Run]) -> Value {
        let side = Side::new(self.work, runs);
        json!({
            "ops": u64::from(ops) * u64::from(self.work.jobs),
            "seconds": runs.iter().map(|run| run.elapsed.as_secs_f64()).collect::<Vec<_>>(),
            "ops_per_second": side.rate,
            "bytes_per_second": side.bandwidth,
            "cpu_us_per_op": {
                "client": side.client_cpu * 1e6,
                "server": side.server_cpu * 1e6,
                "both": side.cpu * 1e6,
            },
        })
    }
}

/// The whole as one object. Rates and times are medians over the rounds, `ops` those of one run.
pub(super) fn json(args: &Args, cells: &[Cell]) -> Value {
    let (processors, kernel) = machine();
    json!({
        "peer": format!("ceph {TREE_RELEASE}"),
        "peer_sleeps": args.keep_sleep,
        "rounds": args.rounds,
        "processors": processors,
        "kernel": kernel,
        "cells": cells.iter().map(Cell::json).collect::<Vec<_>>(),
    })
}

pub(super) fn print(args: &Args, cells: &[Cell]) {
    let (processors, kernel) = machine();
    println!(
        "ceph_perf_msgr_server and _client of Ceph {TREE_RELEASE} and of Siphon in turn, medians of {} rounds.",
        args.rounds
    );
    println!("{processors} processors, Linux {kernel}. Others may use them too: the ratios count.");
    if args.keep_sleep {
        println!(
            "Ceph's tools sleep 0 us for each message, which takes about 60 us (--keep-sleep)."
        );
    } else {
        println!("Ceph's tools run with a preload that takes out their sleep of 0 us a message.");
    }
    println!("CPU is the time of client and server together, for each message.\n");
    println!("{:>20} {:^31} {:^31}", "", "Ceph", "Siphon");
    let side = format!("{:>10} {:>9} {:>10}", "op/s", "MiB/s", "CPU us/op");
    println!(
        "{:>8} {:>5} {:>5} {side} {side} {:>6}  min to max",
        "bytes", "depth", "jobs", "ratio"
    );
    for cell in cells {
        let Work { size, depth, jobs } = cell.work;
        let [theirs, ours] = cell.runs().map(|runs| columns(&Side::new(cell.work, &runs)));
        let [ratio, least, most] = cell.ratio();
        println!(
            "{size:>8} {depth:>5} {jobs:>5} {theirs} {ours} {ratio:>6.2}  {least:.2} to {most:.2}"
        );
    }
}

fn columns(side: &Side) -> String {
    let mib = side.bandwidth / f64::from(1 << 20);
    format!("{:>10.0} {mib:>9.1} {:>10.2}", side.rate, side.cpu * 1e6)
}

fn machine() -> (usize, String) {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (processors, kernel.trim().to_owned())
}

/// The middle one, or what is between the middle two.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.get(middle.wrapping_sub(1))) {
        (Some(high), Some(low)) if values.len().is_multiple_of(2) => low.midpoint(*high),
        (Some(value), _) => *value,
        (None, _) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), 3.0);
        assert_eq!(median(vec![5.0]), 5.0);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn ratios_are_those_of_pairs_whatever_the_numbers_of_messages() {
        let run = |ops, seconds| Run {
            ops,
            elapsed: Duration::from_secs(seconds),
            client_cpu: 1.0,
            server_cpu: 3.0,
        };
        let mut cell = Cell::new(Work { size: 1 << 20, depth: 4, jobs: 2 }, 50, 400);
        cell.pairs = vec![
            (run(100.0, 1), run(800.0, 2)),
            (run(100.0, 2), run(800.0, 8)),
            (run(100.0, 4), run(800.0, 4)),
        ];
        assert_eq!(cell.ratio(), [4.0, 2.0, 8.0]);
        let json = cell.json();
        assert_eq!(json["theirs"]["ops"], 100);
        assert_eq!(json["theirs"]["ops_per_second"], 50.0);
        assert_eq!(json["ours"]["bytes_per_second"], 200.0 * 1024.0 * 1024.0);
        assert_eq!(json["ours"]["cpu_us_per_op"]["both"], 5000.0);
        assert_eq!(json["ours"]["seconds"], json!([2.0, 8.0, 4.0]));
    }
}
