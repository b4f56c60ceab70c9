//! Compression over a link of 1 Gbit/s: two network namespaces, and the kernel's own shaping.

mod common;

use common::{TIMEOUT, siphon};
use siphon_peers::{Hosts, Leash, require, run};

const ROUNDS: usize = 5;
/// What compresses 1 MiB of a log in less time than it saves there. zlib, which takes 5 ms, does not.
const ALGORITHMS: [&str; 3] = ["snappy", "lz4", "zstd"];

/// Servers with and without compression, measured in turn: a message of 1 MiB is there and answered
/// sooner if it is compressed first.
#[test]
fn compression_costs_less_time_than_it_saves() {
    let Some(hosts) = require(Hosts::with_rate("1gbit")) else {
        return;
    };
    let plain = Side::start(&hosts, 7001, None);
    let packed: Vec<_> =
        (7002..).zip(ALGORITHMS).map(|(port, it)| Side::start(&hosts, port, Some(it))).collect();
    let mut ratios = vec![Vec::new(); ALGORITHMS.len()];
    for _ in 0..ROUNDS {
        let without = plain.latency_us(&hosts);
        for (side, ratios) in packed.iter().zip(&mut ratios) {
            ratios.push(side.latency_us(&hosts) / without);
        }
    }
    for (algorithm, mut ratios) in ALGORITHMS.into_iter().zip(ratios) {
        ratios.sort_by(f64::total_cmp);
        println!("{algorithm}: {ratios:.3?} of the time without");
        assert!(ratios[ROUNDS / 2] < 1.0, "{algorithm}: {ratios:?}");
    }
}

/// A server, and how its client calls it.
struct Side {
    addr: String,
    compress: Vec<&'static str>,
    _server: Leash,
}

impl Side {
    fn start(hosts: &Hosts, port: u16, algorithm: Option<&'static str>) -> Self {
        let addr = format!("{}:{port}", hosts.addrs()[0]);
        let compress: Vec<_> = algorithm.iter().flat_map(|it| ["--compress", *it]).collect();
        let mut command = siphon(["perf", "server", &addr]);
        command.args(&compress);
        let log = format!("siphon-gigabit-{}-{port}.log", std::process::id());
        let log = std::env::temp_dir().join(log);
        let server = Leash::start(hosts.on(0, &command), &log).unwrap();
        server.wait_until("ready", TIMEOUT, || server.output().contains("answering")).unwrap();
        let _ = std::fs::remove_file(log); // it is open
        Self { addr, compress, _server: server }
    }

    /// From a request of 1 MiB to its answer, in the median.
    fn latency_us(&self, hosts: &Hosts) -> f64 {
        let args = ["perf", "client", &self.addr, "--size", "1M", "--depth", "1", "--ops", "100"];
        let mut command = siphon(args);
        command.args(["--data", "log", "--json"]).args(&self.compress);
        let output = run(hosts.on(1, &command), TIMEOUT).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json["latency_us"]["p50"].as_f64().unwrap()
    }
}
