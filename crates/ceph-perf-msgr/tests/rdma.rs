//! Ceph's `ceph_perf_msgr_client` and `ceph_perf_msgr_server` with `ms_type = async+rdma`, against ours, on
//! the devices of the machine that `cargo xtask rdma-vm` boots.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use siphon_peers::{CephTree, Leash, PerfClient, free_ports, require, run};

/// Ceph does some two hundred messages a second there.
const TIMEOUT: Duration = Duration::from_secs(120);
const SIZES: [(u32, u32); 5] =
    [(64, 200), (4096, 200), (16 << 10, 60), (64 << 10, 30), (1 << 20, 6)];
const OPTIONS: [&str; 6] = [
    "--ms_type=async+rdma",
    "--ms_async_rdma_device_name=rxe0",
    "--ms_async_rdma_gid_idx=1",
    "--ms_async_rdma_receive_queue_len=256",
    "--ms_async_rdma_receive_buffers=1024",
    "--ms_async_rdma_send_buffers=64",
];

fn has_devices() -> bool {
    if std::env::var_os("SIPHON_RDMA_VM").is_some() {
        return true;
    }
    println!("SKIPPED: needs RDMA devices: cargo xtask rdma-vm --suite");
    false
}

fn free_addr() -> (SocketAddr, PathBuf) {
    let [port] = free_ports();
    let log = format!("ceph-perf-rdma-{}-{port}.log", std::process::id());
    (([127, 0, 0, 1], port).into(), std::env::temp_dir().join(log))
}

fn works(addr: SocketAddr) -> impl Iterator<Item = PerfClient> {
    SIZES.into_iter().map(move |(size, ops)| PerfClient { addr, jobs: 1, depth: 8, ops, size })
}

#[test]
fn our_client_is_answered_by_ceph_s_server() {
    if !has_devices() {
        return;
    }
    let Some(tree) = require(CephTree::open()) else { return };
    let (addr, log) = free_addr();
    let options = [&OPTIONS[..], &["--ms_async_op_threads=1"]].concat();
    let server = tree.perf_server(addr, 1, &options, &log).unwrap();
    for work in works(addr) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ceph_perf_msgr_client"));
        command.args(work.args()).args(OPTIONS);
        let output = run(command, TIMEOUT).unwrap_or_else(|error| panic!("{work:?}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout);
        let time = PerfClient::run_time(&text);
        println!("our client, {} B: {} in {time:?}", work.size, work.ops);
        assert!(time.is_some() && text.contains(&format!(" Total op {} ", work.ops)), "{text}");
    }
    assert!(server.is_running(), "{}", server.output());
    let _ = std::fs::remove_file(log);
}

#[test]
fn ceph_s_client_is_answered_by_our_server() {
    if !has_devices() {
        return;
    }
    let Some(tree) = require(CephTree::open()) else { return };
    let (addr, log) = free_addr();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ceph_perf_msgr_server"));
    command.args([addr.to_string().as_str(), "1", "0"]).args(OPTIONS);
    let server = Leash::start(command, &log).unwrap();
    server.wait_until_listening(addr, TIMEOUT).unwrap();
    for work in works(addr) {
        // It hangs in its own handshake now and then, whoever serves it.
        let time = (0..3).find_map(|_| tree.perf_client(work, &OPTIONS, TIMEOUT / 4).ok());
        println!("our server, {} B: {} in {time:?}", work.size, work.ops);
        assert!(time.is_some(), "{work:?}: {}", server.output());
    }
    assert!(server.is_running(), "{}", server.output());
    let _ = std::fs::remove_file(log);
}
