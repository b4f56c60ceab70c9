//! What becomes of a client whose monitors go, and of one that is not let in.

#![allow(clippy::disallowed_methods, reason = "waits for real clusters by the clock")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{HUNG, client, config};
use siphon_common::Context;
use siphon_monclient::{Command, CommandOutput, MonClient, MonError, MonTarget};
use siphon_peers::{CephMon, Cluster, ClusterOptions, MonOptions, MonProtocols, Release, require};
use siphon_wire::types::{EntityAddrVec, EntityType, Errno};

/// Three monitors that elect and notice the loss of each other in about a second.
fn three_monitors(release: Release) -> Option<Cluster> {
    let config = vec!["mon_lease = 1".to_owned()];
    let options = ClusterOptions { mons: 3, config, ..ClusterOptions::default() };
    require(Cluster::start(release, &options))
}

fn start(config: siphon_common::Config) -> MonClient {
    MonClient::builder(&Context::new(config)).start().unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < HUNG, "{what} does not come");
        thread::yield_now();
    }
}

fn key_count(mon: &MonClient) -> usize {
    let list = Command::new("config-key ls").json();
    let output = pollster::block_on(mon.command(list, Some(HUNG))).unwrap();
    let keys = output.json().unwrap();
    let ours = |key: &&serde_json::Value| key.as_str().unwrap().starts_with("siphon/");
    keys.as_array().unwrap().iter().filter(ours).count()
}

#[test]
fn commands_outlive_the_monitors_of_pacific_that_are_killed_one_by_one() {
    commands_outlive_the_monitors_of(Release::Pacific);
}

#[test]
fn commands_outlive_the_monitors_of_tentacle_that_are_killed_one_by_one() {
    commands_outlive_the_monitors_of(Release::Tentacle);
}

fn commands_outlive_the_monitors_of(release: Release) {
    const WORKERS: u32 = 4;
    let Some(mut cluster) = three_monitors(release) else { return };
    let mut config = config(&cluster);
    config.mon_client_hunt_interval = Duration::from_secs(1);
    let mon = client(config);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (mon, stop, sent) = (mon.clone(), Arc::clone(&stop), Arc::clone(&sent));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    let key = format!("siphon/{number}");
                    let set = Command::new("config-key set").arg("key", key).arg("val", "x");
                    let output = pollster::block_on(mon.command(set, Some(HUNG))).unwrap();
                    assert_eq!(output.code, 0, "{}", output.status);
                }
            })
        })
        .collect();
    let mut lost = 0;
    for round in 0..4 {
        let before = sent.load(Ordering::Relaxed);
        until("some commands", || sent.load(Ordering::Relaxed) > before + 20);
        // The monitor that we have: a session is lost each time.
        let Some(name) = mon.monitor() else { panic!("no session in round {round}") };
        let index = usize::from(name.as_bytes()[4] - b'a');
        cluster.end_mon(index, "KILL").unwrap();
        until("another monitor", || mon.monitor().is_some_and(|now| now != name));
        lost += 1;
        let before = sent.load(Ordering::Relaxed);
        until("commands without it", || sent.load(Ordering::Relaxed) > before + 20);
        cluster.restart_mon(index).unwrap();
        let status = || cluster.json(&["quorum_status"]).unwrap_or_default();
        until("its return", || status()["quorum_names"].as_array().map_or(0, Vec::len) == 3);
    }
    stop.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let sent = sent.load(Ordering::Relaxed) as usize;
    assert_eq!(key_count(&mon), sent, "every command was done");
    println!("{sent} commands, {lost} sessions lost");
    pollster::block_on(mon.shutdown());
}

#[test]
fn without_a_quorum_questions_end_in_their_time_and_go_on_when_it_is_back() {
    let Some(mut cluster) = three_monitors(Release::Pacific) else { return };
    let mon = client(config(&cluster));
    cluster.end_mon(0, "KILL").unwrap();
    cluster.end_mon(1, "KILL").unwrap();
    let short = Duration::from_secs(3);
    // One that is left still answers what it knows, but can change nothing.
    let change = || Command::new("config-key set").arg("key", "siphon/key").arg("val", "x");
    let error = pollster::block_on(mon.command(change(), Some(short))).unwrap_err();
    let expected = matches!(error, MonError::TimedOut { .. } | MonError::NoMonitor { .. });
    assert!(expected, "{error}");

    let began = Instant::now();
    let (other, error) = loop {
        // The one that is left may take a while to notice that it is alone.
        assert!(began.elapsed() < HUNG, "it lets us in without a quorum");
        let (other, started) = (start(config(&cluster)), Instant::now());
        if let Err(error) = pollster::block_on(other.authenticate(short)) {
            assert!(started.elapsed() >= short, "it does not give up before its time");
            break (other, error);
        }
    };
    assert!(matches!(error, MonError::NoMonitor { .. }), "{error}");
    println!("{error}");
    assert!(error.to_string().contains("nobody listens"), "{error}");

    let waiting = {
        let mon = mon.clone();
        thread::spawn(move || pollster::block_on(mon.command(change(), Some(HUNG * 2))))
    };
    cluster.restart_mon(0).unwrap();
    let output = waiting.join().unwrap().unwrap();
    assert_eq!(output.code, 0, "{}", output.status);
    pollster::block_on(other.authenticate(HUNG)).unwrap();
}

#[test]
fn who_is_not_let_in_hears_why_at_once() {
    let Some(cluster) = three_monitors(Release::Pacific) else { return };
    let authenticate = |config| {
        let started = Instant::now();
        let error = pollster::block_on(start(config).authenticate(HUNG)).unwrap_err();
        assert!(started.elapsed() < HUNG / 2, "{error} after {:?}", started.elapsed());
        error
    };
    let mut wrong_key = config(&cluster);
    wrong_key.key = "AQAAAAAAAAAAABAAAQIDBAUGBwgJCgsMDQ4PEA==".to_owned();
    let error = authenticate(wrong_key);
    assert!(matches!(error, MonError::Denied { .. }), "{error}");
    assert_eq!(error.errno(), Errno::EACCES);
    assert!(error.to_string().contains("check the name"), "{error}");

    let mut wrong_cluster = config(&cluster);
    wrong_cluster.fsid = "8c1b24f6-0000-4000-8000-000000000000".to_owned();
    let error = authenticate(wrong_cluster);
    assert!(matches!(error, MonError::WrongFsid { .. }), "{error}");
    let fsid = cluster.ceph(&["fsid"]).unwrap();
    assert!(error.to_string().contains(fsid.trim()), "{error}");

    let mut no_key = config(&cluster);
    no_key.auth_client_required = "none".to_owned();
    no_key.ms_mon_client_mode = "crc".to_owned();
    let error = authenticate(no_key);
    assert!(matches!(error, MonError::Denied { .. }), "{error}");

    // Among the right monitors may be wrong addresses.
    let mut mixed = config(&cluster);
    mixed.mon_host = format!("127.0.0.1:1, {}, v1:127.0.0.1:2", cluster.mon_host());
    mixed.mon_client_hunt_parallel = 1;
    pollster::block_on(start(mixed).authenticate(HUNG)).unwrap();
}

#[test]
fn over_msgr1_it_is_messages_that_authenticate() {
    let Some(cluster) = three_monitors(Release::Pacific) else { return };
    let mut only_v1 = config(&cluster);
    only_v1.mon_host = format!("v1:{}", cluster.mon_v1());
    let mon = client(only_v1);
    assert!(mon.global_id() > 0);
    let output = pollster::block_on(mon.command(Command::new("fsid"), Some(HUNG))).unwrap();
    assert_eq!(output.text().trim(), mon.fsid().unwrap().to_string());
    until("the address of msgr2", || mon.monitor().is_some());

    let mut wrong_key = config(&cluster);
    wrong_key.mon_host = format!("v1:{}", cluster.mon_v1());
    wrong_key.key = "AQAAAAAAAAAAABAAAQIDBAUGBwgJCgsMDQ4PEA==".to_owned();
    let error = pollster::block_on(start(wrong_key).authenticate(HUNG)).unwrap_err();
    assert!(matches!(error, MonError::Denied { .. }), "{error}");
}

#[test]
fn tickets_are_renewed_as_long_as_the_session_lasts() {
    const TTL: u64 = 4;
    let config_lines = vec![
        format!("auth_service_ticket_ttl = {TTL}"),
        format!("auth_mon_ticket_ttl = {}", 2 * TTL),
    ];
    let options = ClusterOptions { config: config_lines, ..ClusterOptions::default() };
    let Some(cluster) = require(Cluster::start(Release::Pacific, &options)) else { return };
    let mon = client(config(&cluster));
    let dump = Command::new("osd dump").json();
    let dump = pollster::block_on(mon.command(dump, Some(HUNG))).unwrap().json().unwrap();
    let addrs = dump["osds"][0]["public_addrs"]["addrvec"].as_array().unwrap();
    let addr = addrs.iter().find(|addr| addr["type"] == "v2").unwrap();
    let addr = format!("v2:{}/{}", addr["addr"].as_str().unwrap(), addr["nonce"]);
    let osd: EntityAddrVec = addr.parse().unwrap();
    let (name, number) = (mon.messenger().name(), mon.global_id());
    let started = Instant::now();
    // Tickets of the beginning would have ended several times.
    while started.elapsed() < Duration::from_secs(4 * TTL) {
        let connection = mon.messenger().connect_anonymously(EntityType::OSD, osd.clone());
        // On a machine that is busy a ticket may end before another comes: the next attempt has it.
        until("a session with the OSD", || connection.is_connected());
        connection.mark_down();
        pollster::block_on(mon.command(Command::new("status"), Some(HUNG))).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!((mon.messenger().name(), mon.global_id()), (name, number), "the session lasted");
}

#[test]
fn without_keys_either_protocol_will_do() {
    for protocols in [MonProtocols::V1, MonProtocols::V2] {
        let options = MonOptions { protocols, ..MonOptions::default() };
        let Some(mut peer) = require(CephMon::start(options)) else { return };
        let mut config = siphon_common::Config::default();
        config.auth_client_required = "none".to_owned();
        config.mon_host = match protocols {
            MonProtocols::V1 => format!("v1:{}", peer.addr_v1().unwrap()),
            _ => format!("v2:{}", peer.addr_v2().unwrap()),
        };
        let mon = client(config);
        assert!(mon.global_id() > 0);
        assert_eq!(mon.fsid().unwrap().to_string(), peer.fsid());
        let ask = |output: Result<CommandOutput, MonError>| output.unwrap().text();
        let fsid = ask(pollster::block_on(mon.command(Command::new("fsid"), Some(HUNG))));
        assert_eq!(fsid.trim(), peer.fsid());
        let told = mon.tell_mon(MonTarget::Rank(0), Command::new("mon_status"), Some(HUNG));
        assert!(ask(pollster::block_on(told)).contains(peer.fsid()));
        // OSDs know by our number what they have done for us, and whose watches and locks they have:
        // it stays, whichever monitor lets us in next.
        let (name, number) = (mon.messenger().name(), mon.global_id());
        peer.kill().unwrap();
        until("the loss of the session", || mon.monitor().is_none());
        peer.restart().unwrap();
        pollster::block_on(mon.command(Command::new("fsid"), Some(HUNG))).unwrap();
        assert_eq!((mon.messenger().name(), mon.global_id()), (name, number));
        pollster::block_on(mon.shutdown());
    }
}

#[test]
fn a_manager_that_ends_is_waited_for() {
    let Some(mut cluster) = require(Cluster::start(Release::Pacific, &ClusterOptions::default()))
    else {
        return;
    };
    let mon = client(config(&cluster));
    let df = || mon.mgr_command(Command::new("osd df").json(), Some(HUNG));
    assert_eq!(pollster::block_on(df()).unwrap().code, 0);
    let before = mon.mgrmap().unwrap().active_gid;
    for _ in 0..2 {
        cluster.end_mgr("KILL").unwrap();
        let waiting = {
            let mon = mon.clone();
            let df = Command::new("osd df").json();
            thread::spawn(move || pollster::block_on(mon.mgr_command(df, Some(HUNG))))
        };
        cluster.restart_mgr().unwrap();
        waiting.join().unwrap().unwrap();
        until("what the manager knows of the OSD", || {
            let output = pollster::block_on(df()).unwrap();
            output.json().is_some_and(|known| known["nodes"][0]["name"] == "osd.0")
        });
    }
    assert_ne!(mon.mgrmap().unwrap().active_gid, before, "it is another one");
}
