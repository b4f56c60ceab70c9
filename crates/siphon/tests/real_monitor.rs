//! `siphon ping`, `siphon monmap` and `siphon echo` against Ceph's own monitor and command line.

mod common;

use std::process::Command;

use common::{Listening, failure, siphon, stdout, stdout_and_log};
use serde_json::Value;
use siphon_peers::{CephMon, MonOptions, MonProtocols, ceph, require};

fn monitor(protocols: MonProtocols) -> Option<CephMon> {
    let options = MonOptions { protocols, debug_ms: 20, ..MonOptions::default() };
    let mon = require(CephMon::start(options))?;
    require(mon.wait_until_it_serves())?;
    Some(mon)
}

/// `siphon` with a question for this monitor.
fn asked<const N: usize>(mon: &CephMon, args: [&str; N]) -> Command {
    let mut command = siphon(args);
    command.arg(mon.addr_v2().or(mon.addr_v1()).unwrap().to_string());
    command
}

/// What the monitor has logged so far; a thread of its own writes it out, in its own time.
fn flushed_log(mon: &CephMon) -> String {
    mon.admin("log flush").unwrap();
    mon.log()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_real_monitor_answers_in_both_revisions() {
    let Some(mon) = monitor(MonProtocols::Both) else { return };
    for rev0 in [false, true] {
        let seen = flushed_log(&mon).len();
        let mut ping = asked(&mon, ["ping", "mon"]);
        ping.args(rev0.then_some("--rev0"));
        let answer = json(&stdout(ping));
        let status = &answer["mon_status"];
        assert_eq!(status["name"], "a", "{answer}");
        assert_eq!(status["state"], "leader", "{answer}");
        assert_eq!(status["monmap"]["fsid"], mon.fsid(), "{answer}");
        assert!(answer["health"]["status"].as_str().unwrap().starts_with("HEALTH_"), "{answer}");

        // The monitor's own view of what it agreed to: `rev1=` is in each line of a connection.
        let log = flushed_log(&mon);
        let log = &log[seen..];
        let (wanted, other) = if rev0 { (" rev1=0", " rev1=1") } else { (" rev1=1", " rev1=0") };
        assert!(log.contains(wanted), "no connection with{wanted}");
        assert!(log.contains("ping magic: 0"), "no ping in the log");
        let ready: Vec<_> = log.lines().filter(|line| line.contains("s=READY")).collect();
        assert!(!ready.is_empty());
        assert!(!ready.iter().any(|line| line.contains(other)), "{}", ready.join("\n"));
    }
}

#[test]
fn the_map_of_monitors_is_the_one_that_ceph_shows() {
    let Some(mon) = monitor(MonProtocols::Both) else { return };
    let Some(mut dump) = require(mon.ceph()) else { return };
    dump.args(["mon", "dump", "-f", "json"]);
    let theirs = json(&stdout(dump));
    let mut dump = mon.ceph().unwrap();
    dump.args(["mon", "dump"]);
    let their_text = stdout(dump);
    for revision in [None, Some("--rev0")] {
        let mut command = asked(&mon, ["monmap", "--json"]);
        command.args(revision);
        let ours = json(&stdout(command));
        for field in [
            "epoch",
            "fsid",
            "modified",
            "created",
            "min_mon_release",
            "min_mon_release_name",
            "election_strategy",
            "stretch_mode",
            "tiebreaker_mon",
            "features",
        ] {
            assert_eq!(ours[field], theirs[field], "{field}");
        }
        assert_eq!(ours["fsid"], mon.fsid());
        let (our_mons, their_mons) =
            (ours["mons"].as_array().unwrap(), theirs["mons"].as_array().unwrap());
        assert_eq!((our_mons.len(), their_mons.len()), (1, 1));
        for (ours, theirs) in our_mons.iter().zip(their_mons) {
            for field in ["rank", "name", "public_addrs", "priority", "weight"] {
                assert_eq!(ours[field], theirs[field], "{field}");
            }
        }

        let mut command = asked(&mon, ["monmap"]);
        command.args(revision);
        let our_text = stdout(command);
        assert_eq!(our_text.lines().count(), their_text.trim_end().lines().count());
        for (ours, theirs) in our_text.lines().zip(their_text.lines()) {
            // The monitor writes the time of its zone, we write UTC.
            let time = theirs.starts_with("last_changed ") || theirs.starts_with("created ");
            if !time || theirs.ends_with("+0000") {
                assert_eq!(ours, theirs);
            }
        }
    }
}

#[test]
fn a_monitor_of_msgr1_only_is_named_as_such() {
    let Some(mon) = monitor(MonProtocols::V1) else { return };
    for args in [["ping", "mon"].as_slice(), ["monmap"].as_slice()] {
        let mut command = siphon([]);
        command.args(args).arg(mon.addr_v1().unwrap().to_string());
        let said = failure(command);
        assert!(said.contains("msgr1"), "{said}");
    }
}

#[test]
fn a_monitor_that_is_gone_refuses() {
    let Some(mut mon) = monitor(MonProtocols::V2) else { return };
    stdout(asked(&mon, ["ping", "mon"]));
    mon.kill().unwrap();
    let said = failure(asked(&mon, ["ping", "mon"]));
    assert!(said.contains("refused"), "{said}");
    assert!(said.contains(&mon.addr_v2().unwrap().to_string()), "{said}");
    mon.restart().unwrap();
    mon.wait_until_it_serves().unwrap();
    stdout(asked(&mon, ["ping", "mon"]));
}

#[test]
fn ceph_s_ping_is_answered_by_an_echo() {
    let Some(mut ping) = require(ceph()) else { return };
    let echo = Listening::start(["echo", "ADDR", "--as", "mon.a"]);
    ping.args(["-m", &format!("v2:{}", echo.addr), "ping", "mon.noname-a"]);
    let (answer, log) = stdout_and_log(ping);
    let answer = json(&answer);
    assert_eq!(answer["name"], "mon.a", "{log}");
    assert!(answer["software"].as_str().unwrap().starts_with("siphon "), "{answer}");
    assert!(answer["asked_by"].as_str().unwrap().starts_with("client."), "{answer}");
}
