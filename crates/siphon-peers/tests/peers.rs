//! The peers themselves: they start, answer, come back and end.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use siphon_peers::{
    CephMon, CephTree, Cluster, ClusterOptions, MonOptions, MonProtocols, PeerError, PerfClient,
    Release, free_ports, require, run,
};

const TIMEOUT: Duration = Duration::from_secs(60);

fn ping(mon: &CephMon) -> Result<String, PeerError> {
    let mut ping = mon.ceph()?;
    ping.args(["ping", "mon.a"]);
    Ok(String::from_utf8_lossy(&run(ping, TIMEOUT)?.stdout).into_owned())
}

#[test]
fn a_monitor_answers_comes_back_and_leaves_nothing() {
    let options = MonOptions { debug_ms: 1, ..MonOptions::default() };
    let Some(mut mon) = require(CephMon::start(options)) else { return };
    let (v2, v1) = (mon.addr_v2().unwrap(), mon.addr_v1().unwrap());
    for addr in [v2, v1] {
        TcpStream::connect(addr).unwrap();
    }
    assert!(mon.admin("mon_status").unwrap().contains(mon.fsid()));
    let Some(answer) = require(ping(&mon)) else { return };
    assert!(answer.contains(&v2.to_string()), "{answer}");
    mon.admin("log flush").unwrap(); // a thread of its own writes it out
    assert!(mon.log().contains("ping magic: 0"), "debug_ms has no effect");

    let first = mon.process().pid();
    mon.kill().unwrap();
    assert!(!mon.process().is_running() && TcpStream::connect(v2).is_err());
    mon.restart().unwrap();
    assert_ne!(mon.process().pid(), first);
    assert!(require(ping(&mon)).unwrap().contains("leader"));

    let dir = mon.config_file().parent().unwrap().to_owned();
    let pid = mon.process().pid();
    drop(mon);
    assert!(!dir.exists() && TcpStream::connect(v2).is_err());
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
}

#[test]
fn a_monitor_speaks_one_protocol_only() {
    for protocols in [MonProtocols::V1, MonProtocols::V2] {
        let options = MonOptions { protocols, ..MonOptions::default() };
        let Some(mon) = require(CephMon::start(options)) else { return };
        assert_eq!(mon.addr_v1().is_some(), protocols == MonProtocols::V1);
        assert_eq!(mon.addr_v2().is_some(), protocols == MonProtocols::V2);
        let Some(answer) = require(ping(&mon)) else { return };
        assert!(answer.contains("leader"), "{answer}");
    }
}

#[test]
fn ceph_s_benchmark_answers_every_message_with_and_without_its_sleep() {
    let Some(tree) = require(CephTree::open()) else { return };
    let Some(quick) = require(tree.without_idle_sleep()) else { return };
    for tree in [tree, quick] {
        let [port] = free_ports();
        let addr = ([127, 0, 0, 1], port).into();
        let log = std::env::temp_dir().join(format!("siphon-peers-{port}.log"));
        let server = tree.perf_server(addr, 1, &["--ms_async_op_threads=1"], &log).unwrap();
        let work = PerfClient { addr, jobs: 1, depth: 8, ops: 500, size: 4096 };
        let time = tree.perf_client_to_its_end(work);
        drop(server);
        let _ = fs::remove_file(log);
        assert!(time.unwrap() > Duration::ZERO);
    }
}

#[test]
fn a_cluster_has_as_many_osds_as_are_wanted_and_they_come_back() {
    let options = ClusterOptions { osds: 3, ..ClusterOptions::default() };
    let Some(mut cluster) = require(Cluster::start(Release::Reef, &options)) else { return };
    let profile = ["erasure-code-profile", "set", "p", "k=2", "m=1", "crush-failure-domain=osd"];
    cluster.ceph(&[&["osd"], &profile[..]].concat()).unwrap();
    let pool = ["osd", "pool", "create", "coded", "8", "8", "erasure", "p"];
    cluster.ceph(&pool).unwrap();
    let rados = |cluster: &Cluster, args: &[&str]| {
        let mut rados = cluster.program("rados");
        rados.args(["-p", "coded"]).args(args);
        String::from_utf8(run(rados, TIMEOUT).unwrap().stdout).unwrap()
    };
    rados(&cluster, &["setxattr", "object", "name", "value"]);
    let up = |cluster: &Cluster| cluster.json(&["osd", "stat"]).unwrap()["num_up_osds"].clone();
    assert_eq!(up(&cluster), 3);
    cluster.end_osd(1, "TERM").unwrap();
    cluster.ceph(&["osd", "down", "1"]).unwrap();
    assert_eq!(up(&cluster), 2);
    cluster.restart_osd(1).unwrap();
    assert_eq!(rados(&cluster, &["getxattr", "object", "name"]), "value");
    assert!(std::fs::read_to_string(cluster.client_conf()).unwrap().contains("mon_host"));
}

#[test]
fn a_cluster_has_as_many_monitors_as_are_wanted_and_they_come_back() {
    let options = ClusterOptions { mons: 3, ..ClusterOptions::default() };
    let Some(mut cluster) = require(Cluster::start(Release::Pacific, &options)) else { return };
    let quorum = |cluster: &Cluster| {
        let status = cluster.json(&["quorum_status"]).unwrap_or_default();
        status["quorum_names"].as_array().map_or(0, Vec::len)
    };
    let wait_for = |cluster: &Cluster, count| {
        const MAX_LOOKS: u32 = 300; // each starts a program
        let seen = (0..MAX_LOOKS).any(|_| quorum(cluster) == count);
        assert!(seen, "{}", cluster.logs());
    };
    wait_for(&cluster, 3);
    cluster.end_mon(2, "KILL").unwrap();
    wait_for(&cluster, 2);
    cluster.restart_mon(2).unwrap();
    wait_for(&cluster, 3);
}

#[test]
fn a_cluster_of_each_release_is_healthy() {
    for release in Release::ALL {
        let options = ClusterOptions::default();
        let Some(cluster) = require(Cluster::start(release, &options)) else { continue };
        println!("{release} {} runs", cluster.version());
        let status = cluster.json(&["status"]).unwrap();
        assert_eq!(status["quorum_names"], serde_json::json!(["a"]), "{status}");
        assert_eq!(cluster.json(&["osd", "dump"]).unwrap()["osds"][0]["up"], 1);
        assert!(std::fs::read_to_string(cluster.keyring()).unwrap().contains("[client.admin]"));
    }
}
