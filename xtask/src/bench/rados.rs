//! `siphon rados bench` in turn with Ceph's `rados bench`, or with the crate `rados`, against the same OSD.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use siphon_peers::{Cluster, ClusterOptions, Release, run};

use super::built;
use super::report::median;
use super::tools::children_cpu;
use crate::root;
use crate::steps::{call, cargo};

const POOL: &str = "bench";
const DEPTH: &str = "16";
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

/// An OSD in memory, and the pool that is worked in.
fn cluster() -> Result<Cluster> {
    let options = ClusterOptions {
        // 4 MiB objects of a few seconds have room.
        config: vec!["memstore_device_bytes = 8589934592".to_owned()],
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(Release::Reef, &options)
        .context("no cluster to measure: `cargo xtask peers` as root on Debian gets Ceph")?;
    cluster.ceph(&["osd", "pool", "create", POOL, "32"])?;
    Ok(cluster)
}

/// Prints a table of medians; `rounds` of `seconds` each.
pub(super) fn run_rados(rounds: u32, seconds: u32) -> Result<()> {
    let siphon = built("siphon", "siphon")?;
    let cluster = cluster()?;
    let conf = cluster.client_conf();
    let ours = || {
        let mut command = Command::new(&siphon);
        command.arg("rados").arg("-c").arg(&conf);
        command
    };
    let theirs = || cluster.program("rados");
    println!(
        "Ceph {}, one OSD in memory, depth {DEPTH}, medians of {rounds} runs of {seconds} s each in turn",
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
        print_row(&format!("{verb}, {bytes} bytes"), &pairs);
        if verb == "rand" {
            cleanup(theirs())?;
        }
    }
    Ok(())
}

/// Threads of the runtime that the crate runs on: as many as this machine has processors, which is tokio's
/// own choice, and one, where a thread wakes no other.
fn crate_threads() -> Result<Vec<String>> {
    let all = std::thread::available_parallelism()?.to_string();
    Ok(if all == "1" { vec![all] } else { vec![all, "1".to_owned()] })
}

/// The same work by the crate `rados` of crates.io and by `siphon rados bench`, in turn.
pub(super) fn run_crate(rounds: u32, seconds: u32) -> Result<()> {
    let (siphon, theirs) = (built("siphon", "siphon")?, built_crate()?);
    let cluster = cluster()?;
    let conf = cluster.client_conf();
    let ours = || {
        let mut command = Command::new(&siphon);
        command.arg("rados").arg("-c").arg(&conf);
        command
    };
    println!(
        "Ceph {}, one OSD in memory, depth {DEPTH}, 4096 bytes, medians of {rounds} runs of {seconds} s each in turn",
        cluster.version()
    );
    println!(
        "| work | its threads | crate op/s | ours op/s | ratio | crate CPU µs/op | ours | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let seconds = seconds.to_string();
    for (verb, threads) in ["write", "rand"]
        .into_iter()
        .flat_map(|verb| crate_threads().into_iter().flatten().map(move |n| (verb, n)))
    {
        let there = match verb {
            "rand" => Some(fill(ours())?),
            _ => None,
        };
        let crates = || {
            let mut command = Command::new(&theirs);
            command.arg(&conf).args([POOL, &seconds, DEPTH, "4096", &threads, verb]);
            match &there {
                Some((prefix, count)) => command.args([prefix, &count.to_string()]),
                // Those that `cleanup` takes away.
                None => command.arg("benchmark_data_crate_object"),
            };
            measured(command, &seconds, |figures| {
                let number = |name: &str| figures[name].as_f64();
                Some((number("total")?, number("average_iops")?))
            })
        };
        let mut pairs = Vec::new();
        for round in 0..rounds {
            let one = |ours_turn: bool| {
                let run = if ours_turn { bench(ours(), verb, "4096", &seconds) } else { crates() };
                if verb == "write" {
                    let mut rados = ours();
                    rados.args(["-p", POOL, "cleanup", "--prefix", "benchmark_data"]);
                    siphon_peers::run(rados, SLACK)?;
                }
                run
            };
            let (first, second) = (one(round % 2 == 1)?, one(round % 2 == 0)?);
            let pair = if round % 2 == 0 { (first, second) } else { (second, first) };
            eprintln!("  {verb}: the crate {:.0}/s, ours {:.0}/s", pair.0.rate, pair.1.rate);
            pairs.push(pair);
        }
        print_row(&format!("{verb} | {threads}"), &pairs);
        if there.is_some() {
            cleanup(ours())?;
        }
    }
    Ok(())
}

/// Writes what is read then: the objects' common name, and how many there are.
fn fill(mut rados: Command) -> Result<(String, u64)> {
    rados.args(["-p", POOL, "-f", "json", "bench", FILL, "write", "-t", DEPTH]);
    rados.args(["-b", "4096", "-O", "4096", "--no-cleanup"]);
    let output = run(rados, SLACK)?;
    let figures: Value = serde_json::from_slice(&output.stdout)?;
    let (prefix, count) = (&figures["object_prefix"], &figures["total_writes_made"]);
    match (prefix.as_str(), count.as_u64()) {
        (Some(prefix), Some(count)) => Ok((format!("{prefix}_object"), count)),
        _ => bail!("neither a prefix nor a count in: {figures}"),
    }
}

/// The program that works by the crate: a workspace of its own, which is built only for this.
fn built_crate() -> Result<PathBuf> {
    let target = root().join("target").join("crate-rados");
    let mut build = cargo(&["build", "--release", "--locked", "--manifest-path"]);
    build.arg(root().join("xtask/crate-rados/Cargo.toml")).env("CARGO_TARGET_DIR", &target);
    call(&mut build)?;
    Ok(target.join("release").join("crate-rados"))
}

fn print_row(work: &str, pairs: &[(Run, Run)]) {
    let of = |part: fn(&(Run, Run)) -> f64| median(pairs.iter().map(part).collect());
    println!(
        "| {work} | {:.0} | {:.0} | {:.2} | {:.1} | {:.1} | {:.2} |",
        of(|it| it.0.rate),
        of(|it| it.1.rate),
        of(|it| it.1.rate / it.0.rate),
        of(|it| it.0.cpu),
        of(|it| it.1.cpu),
        of(|it| it.1.cpu / it.0.cpu),
    );
}

fn cleanup(mut rados: Command) -> Result<()> {
    rados.args(["-p", POOL, "cleanup"]);
    run(rados, SLACK)?;
    Ok(())
}

fn bench(mut rados: Command, verb: &str, bytes: &str, seconds: &str) -> Result<Run> {
    rados.args(["-p", POOL, "-f", "json", "bench", seconds, verb, "-t", DEPTH]);
    if verb == "write" {
        // Ceph's tells of its cleaning up in the midst of the JSON.
        rados.args(["-b", bytes, "-O", bytes, "--no-cleanup"]);
    }
    measured(rados, seconds, |figures| {
        let number = |name: &str| match &figures[name] {
            Value::String(text) => text.parse().ok(),
            value => value.as_f64(),
        };
        let ops = number("total_writes_made").or_else(|| number("total_reads_made"));
        Some((ops?, number("average_iops")?))
    })
}

/// Runs a client for some seconds, of whose JSON `read` knows the operations and their rate.
fn measured(
    client: Command,
    seconds: &str,
    read: impl Fn(&Value) -> Option<(f64, f64)>,
) -> Result<Run> {
    let before = children_cpu()?;
    let output = run(client, SLACK + Duration::from_secs(seconds.parse()?))?;
    let cpu = children_cpu()? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    // Ceph's says how many hints it has before that.
    let figures = text.find('{').map(|at| &text[at..]).unwrap_or_default();
    let figures: Value =
        serde_json::from_str(figures).with_context(|| format!("no JSON in: {text}"))?;
    let Some((ops, rate)) = read(&figures) else {
        bail!("neither operations nor their rate in: {figures}");
    };
    Ok(Run { rate, cpu: cpu * 1e6 / ops.max(1.0) })
}
