//! Speeds over soft RoCE, all in one boot and in turn: what perftest, Ceph and we reach.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use siphon_peers::{CephTree, Leash, PerfClient, free_ports, run};

use super::boot::{Ended, Machine};
use super::cache::Cache;
use super::image::Image;
use super::job::{IN_GUEST, Job};
use crate::root;
use crate::steps::{call, cargo};

/// For one step, of which the longest takes some seconds.
const STEP_LIMIT: Duration = Duration::from_secs(60);
/// For the boot, beside all steps.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Ceph's client hangs in its own handshake now and then; each attempt has its share of the limit.
const CEPH_ATTEMPTS: u32 = 3;
/// Ceph does from two hundred to a thousand a second.
const CEPH_OPS: u32 = 1000;
const CEPH: [&str; 7] = [
    "--ms_type=async+rdma",
    "--ms_async_rdma_device_name=rxe0",
    "--ms_async_rdma_gid_idx=1",
    "--ms_async_rdma_receive_queue_len=256",
    "--ms_async_rdma_receive_buffers=1024",
    "--ms_async_rdma_send_buffers=64",
    "--ms_async_op_threads=1",
];

/// What is measured, in this order in each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// `ib_send_lat`: its typical time one way.
    Latency,
    /// `ib_send_bw` with so many bytes.
    Bandwidth(u32),
    /// Ceph's own async+rdma: 4 KiB at depth 16.
    Ceph,
    /// `siphon perf`: 4 KiB at depth 1, its median latency.
    SiphonLatency,
    /// `siphon perf` with so many bytes at depth 16.
    Siphon(u32),
}

const STEPS: [Step; 7] = [
    Step::Latency,
    Step::Bandwidth(4 << 10),
    Step::Bandwidth(64 << 10),
    Step::Ceph,
    Step::SiphonLatency,
    Step::Siphon(4 << 10),
    Step::Siphon(64 << 10),
];

/// How two steps shall stand to each other.
struct Ratio {
    of: Step,
    to: Step,
    target: Target,
}

#[derive(Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

const RATIOS: [Ratio; 4] = [
    Ratio { of: Step::Siphon(4 << 10), to: Step::Ceph, target: Target::AtLeast(20.0) },
    Ratio { of: Step::Siphon(4 << 10), to: Step::Bandwidth(4 << 10), target: Target::AtLeast(0.5) },
    Ratio {
        of: Step::Siphon(64 << 10),
        to: Step::Bandwidth(64 << 10),
        target: Target::AtLeast(0.7),
    },
    Ratio { of: Step::SiphonLatency, to: Step::Latency, target: Target::AtMost(4.0) },
];

/// What one round measured; a step that failed is not in it.
type Round = BTreeMap<Step, f64>;

/// Outside of the machine: builds what is measured, and has the same command run in there.
pub(super) fn run_bench(cache: &Cache, image: &Image, machine: Machine, rounds: u32) -> Result<()> {
    call(&mut cargo(&["build", "--release", "--locked", "--package", "siphon"]))?;
    CephTree::open().context("Ceph's own tools cannot be had: `cargo xtask peers` gets them")?;
    let xtask = env::current_exe().context("this program")?.into_os_string();
    let words = ["rdma-vm", "--bench", "--rounds", &rounds.to_string()].map(OsString::from);
    let command: Vec<OsString> = std::iter::once(xtask).chain(words).collect();
    let job = Job { command: &command, dir: root(), environment: env::vars_os().collect() };
    let limit = BOOT_LIMIT + STEP_LIMIT * rounds * STEPS.len() as u32;
    match (Machine { limit, ..machine }).run(cache, image, &job)? {
        Ended::Job { code: 0 } => Ok(()),
        Ended::Job { .. } => bail!("not everything could be measured"),
        ended => bail!("{ended}"),
    }
}

/// Whether this is the machine.
pub(super) fn is_inside() -> bool {
    env::var_os(IN_GUEST).is_some()
}

/// In the machine: measures, and prints what came out.
pub(super) fn measure(rounds: u32) -> Result<()> {
    let mut measured = Vec::new();
    let mut failed = Vec::new();
    for number in 1..=rounds {
        let mut round = Round::new();
        for step in STEPS {
            match step.run() {
                Ok(value) => {
                    eprintln!("round {number} of {rounds}: {step}: {value:.0} {}", step.unit());
                    round.insert(step, value);
                }
                Err(error) => {
                    let text = format!("round {number}: {step}: {error:#}");
                    eprintln!("FAILED in {text}");
                    failed.push(text);
                }
            }
        }
        measured.push(round);
    }
    print!("{}", table(&measured));
    ensure!(failed.is_empty(), "{} steps failed:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latency => f.write_str("ib_send_lat 4 KiB, typical, one way"),
            Self::Bandwidth(size) => write!(f, "ib_send_bw {} KiB", size >> 10),
            Self::Ceph => f.write_str("Ceph's async+rdma 4 KiB, depth 16"),
            Self::SiphonLatency => f.write_str("siphon perf 4 KiB, depth 1, p50, both ways"),
            Self::Siphon(size) => write!(f, "siphon perf {} KiB, depth 16", size >> 10),
        }
    }
}

impl Step {
    fn unit(self) -> &'static str {
        match self {
            Self::Latency | Self::SiphonLatency => "us",
            Self::Bandwidth(_) => "msg/s",
            Self::Ceph | Self::Siphon(_) => "op/s",
        }
    }

    fn run(self) -> Result<f64> {
        match self {
            Self::Latency => perftest("ib_send_lat", 4 << 10, 5000),
            Self::Bandwidth(size) => perftest("ib_send_bw", size, (80 << 20) / size + 2000),
            Self::Ceph => ceph(),
            Self::SiphonLatency => {
                let report = siphon(4 << 10, 1)?;
                report["latency_us"]["p50"].as_f64().context("no p50")
            }
            Self::Siphon(size) => {
                let report = siphon(size, 16)?;
                report["ops_per_second"].as_f64().context("no rate")
            }
        }
    }
}

/// A pair of perftest's, which ends after so many messages.
fn perftest(program: &str, size: u32, count: u32) -> Result<f64> {
    let [port] = free_ports();
    let command = || {
        let numbers = [("-s", size), ("-n", count), ("-p", port.into())];
        let mut command = Command::new(program);
        command.args(["-d", "rxe0", "-x", "1"]);
        for (name, number) in numbers {
            command.args([name, &number.to_string()]);
        }
        command
    };
    let log = env::temp_dir().join(format!("{program}-{port}.log"));
    let server = Leash::start(command(), &log)?;
    // A connection would be taken for the client's, so the table of sockets tells.
    server.wait_until("listening", STEP_LIMIT, || listens(port))?;
    let mut client = command();
    client.arg("127.0.0.1");
    let text = run(client, STEP_LIMIT).map(|output| output.stdout);
    let text = text.with_context(|| format!("the server says: {}", server.output()))?;
    let text = String::from_utf8_lossy(&text);
    let value = match program {
        "ib_send_lat" => column(&text, "t_typical[usec]"),
        _ => column(&text, "MsgRate[Mpps]").map(|rate| rate * 1e6),
    };
    value.with_context(|| format!("no figure in: {text}"))
}

/// Whether a socket of TCP listens at the port.
fn listens(port: u16) -> bool {
    /// `TCP_LISTEN`, in the table's fourth column.
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    tables.iter().flatten().flat_map(|table| table.lines()).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().unwrap_or_default();
        local.ends_with(&port) && words.nth(1) == Some(LISTEN)
    })
}

/// The figure below a title, in perftest's only line of figures. Titles are parted by tabs or several
/// blanks, since one of them may be in a title, as in `BW peak[MB/sec]`.
fn column(text: &str, title: &str) -> Option<f64> {
    let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with("#bytes"));
    let titles = lines.next()?.replace("BW ", "BW_").replace("% percentile", "%_percentile");
    let at = titles.split_whitespace().position(|it| it == title)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

fn ceph() -> Result<f64> {
    let tree = CephTree::open()?;
    let mut hung = None;
    for _ in 0..CEPH_ATTEMPTS {
        let [port] = free_ports();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = env::temp_dir().join(format!("ceph-{port}.log"));
        let server = tree.perf_server(addr, 1, &CEPH, &log)?;
        let work = PerfClient { addr, jobs: 1, depth: 16, ops: CEPH_OPS, size: 4 << 10 };
        // Its client hangs nearly always with one worker thread, and has three by default.
        let options = &CEPH[..CEPH.len() - 1];
        match tree.perf_client(work, options, STEP_LIMIT / (CEPH_ATTEMPTS + 1)) {
            Ok(time) => return Ok(f64::from(CEPH_OPS) / time.as_secs_f64()),
            Err(error) => hung = Some((error, server.output())),
        }
    }
    let (error, said) = hung.context("no attempt")?;
    Err(error).with_context(|| format!("{CEPH_ATTEMPTS} times; the server says: {said}"))
}

/// Both sides are in one process, each with a worker on a processor of its own, as perftest and Ceph's tool
/// have a process for each. Where they may move, the system puts both that poll on one.
fn siphon(size: u32, depth: u32) -> Result<Value> {
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let program: PathBuf = root().join(target).join("release/siphon");
    let mut command = Command::new(program);
    command.args(["perf", "--stack", "rdma", "--device", "rxe0", "--workers", "2", "--json"]);
    command.args(["-o", "ms_async_affinity_cores=0,1"]);
    command.args(["--seconds", "2", "--size", &size.to_string(), "--depth", &depth.to_string()]);
    Ok(serde_json::from_slice(&run(command, STEP_LIMIT)?.stdout)?)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Medians of all steps, and of the ratios within each round, with what they should be.
fn table(rounds: &[Round]) -> String {
    let shown = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "failed".to_owned(), |value| format!("{value:.digits$}"))
    };
    let mut text = format!("\nmedians of {} rounds in one boot:\n", rounds.len());
    for step in STEPS {
        let values = rounds.iter().filter_map(|round| round.get(&step).copied()).collect();
        let value = shown(median(values), 0);
        text += &format!("  {:44} {value:>9} {}\n", step.to_string(), step.unit());
    }
    text += "ratios within each round, their medians:\n";
    for Ratio { of, to, target } in RATIOS {
        let ratio = |round: &Round| Some(round.get(&of)? / round.get(&to)?);
        let value = median(rounds.iter().filter_map(ratio).collect());
        let (bound, number, is_met) = match target {
            Target::AtLeast(number) => ("at least", number, value.is_some_and(|it| it >= number)),
            Target::AtMost(number) => ("at most", number, value.is_some_and(|it| it <= number)),
        };
        let verdict = if is_met { "met" } else { "MISSED" };
        let value = shown(value, 2);
        text += &format!("  {of} / {to}\n{value:>56}   target {bound} {number}: {verdict}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perftest_s_figures_are_found_by_their_titles() {
        let bandwidth = "\
 #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
 4096       20000            131.04             60.77  \t\t   0.015558
-----";
        assert_eq!(column(bandwidth, "MsgRate[Mpps]"), Some(0.015558));
        let latency = "local\n \
 #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec] 
 4096    5000          21.35          21324.90      2759.10  \t       2411.26     \t1578.07\t\t4795.17 \t\t7583.71
";
        assert_eq!(column(latency, "t_typical[usec]"), Some(2759.10));
        assert_eq!(column("nothing", "t_typical[usec]"), None);
    }

    #[test]
    fn a_socket_that_listens_is_seen_without_a_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listens(port));
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nothing has connected");
    }

    #[test]
    fn a_step_that_failed_is_named_and_the_ratios_are_those_of_rounds() {
        let round = |latency: f64, ours: Option<f64>| {
            let mut round: Round = STEPS.into_iter().map(|step| (step, 100.0)).collect();
            round.insert(Step::Latency, latency);
            round.remove(&Step::SiphonLatency);
            round.extend(ours.map(|ours| (Step::SiphonLatency, ours)));
            round.remove(&Step::Ceph);
            round
        };
        let text = table(&[round(10.0, Some(20.0)), round(1000.0, Some(3000.0)), round(1.0, None)]);
        assert!(text.contains("depth 16               failed op/s"), "{text}");
        assert!(text.contains("3.00   target at most 4: met"), "{text}");
        assert!(text.contains("failed   target at least 20: MISSED"), "{text}");
        assert!(text.contains("1.00   target at least 0.5: met"), "{text}");
    }
}
