//! `siphon rados bench` and Ceph's `rados bench` in turn, against the same OSD.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use siphon_peers::{Cluster, ClusterOptions, Release, run};

use super::built;
use super::report::median;
use super::tools::children_cpu;

const POOL: &str = "bench";
/// Beyond the seconds of a run: connecting, and the last operations.
const SLACK: Duration = Duration::from_secs(60);

/// What is measured: verb, bytes of an object and of an operation.
const CELLS: [(&str, &str); 3] = [("write", "4096"), ("rand", "4096"), ("rand", "4194304")];
/// Seconds in which the objects to be read are written.
const FILL: &str = "4";

/// One run.
struct Run {
    /// Operations a second.
    rate: f64,
    /// Microseconds of the client's processor time, user and system, of an operation.
    cpu: f64,
}

/// Prints a table of medians; `rounds` of `seconds` each.
pub(super) fn run_rados(rounds: u32, seconds: u32) -> Result<()> {
    let siphon = built("siphon", "siphon")?;
    let options = ClusterOptions {
        // 4 MiB objects of a few seconds have room.
        config: vec!["memstore_device_bytes = 8589934592".to_owned()],
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(Release::Reef, &options)
        .context("no cluster to measure: `cargo xtask peers` as root on Debian gets Ceph")?;
    cluster.ceph(&["osd", "pool", "create", POOL, "32"])?;
    let conf = cluster.client_conf();
    let ours = || {
        let mut command = Command::new(&siphon);
        command.arg("rados").arg("-c").arg(&conf);
        command
    };
    let theirs = || cluster.program("rados");
    println!(
        "Ceph {}, one OSD in memory, depth 16, medians of {rounds} runs of {seconds} s each in turn",
        cluster.version()
    );
    println!("| work | theirs op/s | ours op/s | ratio | theirs CPU µs/op | ours | ratio |");
    println!("|---|---|---|---|---|---|---|");
    for (verb, bytes) in CELLS {
        if verb == "rand" {
            bench(theirs(), "write", bytes, FILL)?;
        }
        let mut pairs = Vec::new();
        for round in 0..rounds {
            let seconds = seconds.to_string();
            let one = |ours_turn: bool| {
                let command = if ours_turn { ours() } else { theirs() };
                let run = bench(command, verb, bytes, &seconds);
                if verb == "write" {
                    cleanup(theirs())?;
                }
                run
            };
            let first = one(round % 2 == 1)?;
            let second = one(round % 2 == 0)?;
            let pair = if round % 2 == 0 { (first, second) } else { (second, first) };
            eprintln!("  {verb} {bytes}: theirs {:.0}/s, ours {:.0}/s", pair.0.rate, pair.1.rate);
            pairs.push(pair);
        }
        let of = |part: fn(&(Run, Run)) -> f64| median(pairs.iter().map(part).collect());
        println!(
            "| {verb}, {bytes} bytes | {:.0} | {:.0} | {:.2} | {:.1} | {:.1} | {:.2} |",
            of(|it| it.0.rate),
            of(|it| it.1.rate),
            of(|it| it.1.rate / it.0.rate),
            of(|it| it.0.cpu),
            of(|it| it.1.cpu),
            of(|it| it.1.cpu / it.0.cpu),
        );
        if verb == "rand" {
            cleanup(theirs())?;
        }
    }
    Ok(())
}

fn cleanup(mut rados: Command) -> Result<()> {
    rados.args(["-p", POOL, "cleanup"]);
    run(rados, SLACK)?;
    Ok(())
}

fn bench(mut rados: Command, verb: &str, bytes: &str, seconds: &str) -> Result<Run> {
    rados.args(["-p", POOL, "-f", "json", "bench", seconds, verb, "-t", "16"]);
    if verb == "write" {
        // Ceph's tells of its cleaning up in the midst of the JSON.
        rados.args(["-b", bytes, "-O", bytes, "--no-cleanup"]);
    }
    let before = children_cpu()?;
    let output = run(rados, SLACK + Duration::from_secs(seconds.parse()?))?;
    let cpu = children_cpu()? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    // Ceph's says how many hints it has before that.
    let figures = text.find('{').map(|at| &text[at..]).unwrap_or_default();
    let figures: Value =
        serde_json::from_str(figures).with_context(|| format!("no JSON in: {text}"))?;
    let number = |name: &str| match &figures[name] {
        Value::String(text) => text.parse().ok(),
        value => value.as_f64(),
    };
    let ops = number("total_writes_made").or_else(|| number("total_reads_made"));
    let (Some(ops), Some(rate)) = (ops, number("average_iops")) else {
        bail!("neither operations nor their rate in: {figures}");
    };
    Ok(Run { rate, cpu: cpu * 1e6 / ops.max(1.0) })
}
