//! `siphon perf` against Ceph's own benchmark tools.

mod common;

use std::fs;
use std::net::SocketAddr;

use common::{Listening, siphon, stdout};
use serde_json::Value;
use siphon_peers::{CephTree, PerfClient, free_ports, require};

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// Bytes of data, depth, jobs, and operations of each job.
const WORK: [(u32, u32, u32, u32); 8] = [
    (0, 32, 1, 300),
    (64, 1, 1, 100),
    (64, 128, 4, 400),
    (4 * KIB, 32, 4, 300),
    (64 * KIB, 128, 1, 200),
    (MIB, 32, 4, 40),
    (4 * MIB, 128, 1, 16),
    (64 * MIB, 1, 1, 2),
];

#[test]
fn siphon_perf_client_is_answered_by_ceph_s_server() {
    let Some(tree) = require(CephTree::open()) else { return };
    let [port] = free_ports();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let log = std::env::temp_dir().join(format!("siphon-{}-{port}.log", std::process::id()));
    let server = tree.perf_server(addr, 1, &["--ms_async_op_threads=1"], &log).unwrap();
    for (size, depth, jobs, ops) in WORK {
        for revision in [None, Some("--rev0")] {
            let mut command = siphon(["perf", "client", "--json"]);
            command.arg(addr.to_string()).args(revision);
            for (name, number) in
                [("--size", size), ("--depth", depth), ("--jobs", jobs), ("--ops", ops)]
            {
                command.args([name, &number.to_string()]);
            }
            let text = stdout(command);
            let report: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(report["ops"], jobs * ops, "{text}");
        }
    }
    assert!(server.is_running(), "{}", server.output());
    let _ = fs::remove_file(log);
}

#[test]
fn ceph_s_client_is_answered_by_siphon_perf_server() {
    let Some(tree) = require(CephTree::open()) else { return };
    let server = Listening::start(["perf", "server", "ADDR"]);
    for (size, depth, jobs, ops) in WORK.into_iter().filter(|&(_, _, jobs, _)| jobs == 1) {
        let work = PerfClient { addr: server.addr, jobs, depth, ops, size };
        let time =
            tree.perf_client_to_its_end(work).unwrap_or_else(|error| panic!("{work:?}: {error}"));
        assert!(!time.is_zero(), "{work:?}");
    }
}
