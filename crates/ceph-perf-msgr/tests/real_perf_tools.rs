//! Ceph's own `ceph_perf_msgr_client` and `ceph_perf_msgr_server` against the programs of the same
//! names here.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use siphon_peers::{AUTH_NONE, CephTree, Leash, PerfClient, free_ports, require, run};

const TIMEOUT: Duration = Duration::from_secs(60);
const MIB: u32 = 1 << 20;

/// Sizes of data, and how many messages each job sends of it: enough to pass the largest depth
/// where that is cheap, so that the window moves.
const SIZES: [(u32, u32); 6] =
    [(0, 300), (64, 300), (4096, 300), (64 << 10, 150), (MIB, 16), (4 * MIB, 4)];
const DEPTHS: [u32; 3] = [1, 32, 128];
const JOBS: [u32; 2] = [1, 4];

fn workloads(addr: SocketAddr) -> impl Iterator<Item = PerfClient> {
    let depths = |size| DEPTHS.into_iter().map(move |depth| (size, depth));
    let works = SIZES.into_iter().flat_map(depths);
    works.flat_map(move |((size, ops), depth)| {
        JOBS.into_iter().map(move |jobs| PerfClient { addr, jobs, depth, ops, size })
    })
}

fn free_addr() -> (SocketAddr, PathBuf) {
    let [port] = free_ports();
    let log = format!("ceph-perf-msgr-{}-{port}.log", std::process::id());
    (([127, 0, 0, 1], port).into(), std::env::temp_dir().join(log))
}

fn our_server() -> (SocketAddr, Leash, PathBuf) {
    let (addr, log) = free_addr();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ceph_perf_msgr_server"));
    command.args([addr.to_string().as_str(), "1", "0"]);
    let leash = Leash::start(command, &log).unwrap();
    leash.wait_until_listening(addr, TIMEOUT).unwrap();
    (addr, leash, log)
}

/// Runs our client; it ends with an error unless every message was answered.
fn our_client(work: PerfClient) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ceph_perf_msgr_client"));
    command.args(work.args());
    let output = run(command, TIMEOUT).unwrap_or_else(|error| panic!("{work:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(PerfClient::run_time(&text).is_some(), "{work:?}: {text}");
    let total = format!(" Total op {} ", u64::from(work.jobs) * u64::from(work.ops));
    assert!(text.contains(&total), "{work:?}: {text}");
}

#[test]
fn our_client_is_answered_by_ceph_s_server() {
    let Some(tree) = require(CephTree::open()) else { return };
    let (addr, log) = free_addr();
    let server = tree.perf_server(addr, 1, &["--ms_async_op_threads=1"], &log).unwrap();
    workloads(addr).for_each(our_client);
    assert!(server.is_running(), "{}", server.output());
    let _ = fs::remove_file(log);
}

/// Ceph's client ends when its last `depth` messages are sent, answered or not; before that it waits
/// for an answer to go on. So what our server says at the next run counts as well: it still works.
#[test]
fn ceph_s_client_is_answered_by_our_server() {
    let Some(tree) = require(CephTree::open()) else { return };
    let (addr, server, log) = our_server();
    for work in workloads(addr) {
        let time =
            tree.perf_client_to_its_end(work).unwrap_or_else(|error| panic!("{work:?}: {error}"));
        assert!(time > Duration::ZERO, "{work:?}");
    }
    assert!(server.is_running(), "{}", server.output());
    let _ = fs::remove_file(log);
}

/// The largest message that the issue names, one at a time, in both directions of the roles.
#[test]
fn a_message_of_64_mib_passes_in_both_roles() {
    let Some(tree) = require(CephTree::open()) else { return };
    let work = |addr| PerfClient { addr, jobs: 1, depth: 1, ops: 3, size: 64 * MIB };
    let (addr, server, log) = our_server();
    tree.perf_client_to_its_end(work(addr)).unwrap();
    drop(server);
    let _ = fs::remove_file(log);

    let (addr, log) = free_addr();
    let server = tree.perf_server(addr, 1, &[], &log).unwrap();
    our_client(work(addr));
    drop(server);
    let _ = fs::remove_file(log);
}

#[test]
fn ceph_s_options_are_taken_as_ceph_s_tools_take_them() {
    let (addr, server, log) = our_server();
    let work = PerfClient { addr, jobs: 1, depth: 4, ops: 20, size: 4096 };
    let mut command = Command::new(env!("CARGO_BIN_EXE_ceph_perf_msgr_client"));
    command.args(work.args()).args(AUTH_NONE).arg("--ms_async_op_threads=1");
    let output = run(command, TIMEOUT).unwrap_or_else(|error| panic!("{error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" Total op 20 "), "{text}");
    drop(server);
    let _ = fs::remove_file(log);
}
