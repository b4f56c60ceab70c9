//! Logs of the command: Ceph's options on the command line, and messages as Ceph tells them.

mod common;

use common::{Listening, failure, siphon, stdout_and_log};
use siphon_peers::{CephMon, MonOptions, require};

#[test]
fn each_message_has_a_line_at_debug_ms_1() {
    let echo = Listening::start(["echo", "ADDR"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ping.log");
    let mut ping = siphon(["ping", "mon"]);
    ping.arg(echo.addr.to_string()).arg("--debug-ms=1").arg("--log_to_stderr=false");
    ping.arg(format!("--log_file={}/$type.$id.log", folder.path().display()));
    let (_, log) = stdout_and_log(ping);
    assert_eq!(log, "");
    let text = std::fs::read_to_string(file.with_file_name("client.admin.log")).unwrap();
    let addr = format!("v2:{}/0", echo.addr);
    let sent = text.lines().find(|line| line.contains(" --> ")).unwrap();
    assert!(sent.contains(&format!("--> {addr} -- ping magic: 0")), "{text}");
    let received = text.lines().find(|line| line.contains(" <== ")).unwrap();
    assert!(received.contains(&format!("<== mon.0 {addr} 1 ==== ping magic: 0")), "{text}");
    assert!(received.contains(" msgr-worker-0  1 ms: -- "), "{text}");
    // Without the option there is none.
    let mut ping = siphon(["ping", "mon"]);
    ping.arg(echo.addr.to_string());
    assert_eq!(stdout_and_log(ping).1, "");
    // Nor has `--log` changed: the target stands for the subsystem.
    let mut ping = siphon(["ping", "mon"]);
    ping.arg(echo.addr.to_string()).arg("--log=siphon_msgr::message=trace");
    assert!(stdout_and_log(ping).1.contains(" trace siphon_msgr::message: -- "));
}

#[test]
fn a_log_that_cannot_be_opened_is_told_and_ends_nothing() {
    let echo = Listening::start(["echo", "ADDR"]);
    let mut ping = siphon(["ping", "mon"]);
    ping.arg(echo.addr.to_string()).args(["--log-file", "/nowhere/x.log", "--debug_ms", "1"]);
    let (answer, log) = stdout_and_log(ping);
    assert!(answer.contains("uptime_seconds"), "{answer}");
    assert!(log.contains("cannot open the log file /nowhere/x.log: No such file"), "{log}");
    assert!(log.contains(" --> ") && log.contains(" <== "), "{log}");
    let mut bad = siphon(["ping", "mon", "127.0.0.1:1"]);
    bad.arg("--debug_ms=high");
    assert!(
        failure(bad).contains("debug_ms = 'high': not a number; it takes a level from 0 to 99")
    );
}

/// By the clocks of the place, which the line says.
#[test]
fn lines_are_stamped_in_local_time() {
    let echo = Listening::start(["echo", "ADDR"]);
    for (zone, distance) in [("UTC0", "+0000"), ("XYZ-5:30", "+0530"), ("XYZ3:30", "-0330")] {
        let mut ping = siphon(["ping", "mon"]);
        ping.arg(echo.addr.to_string()).args(["--debug_ms", "1"]).env("TZ", zone);
        let log = stdout_and_log(ping).1;
        let line = log.lines().find(|line| line.contains(" --> ")).unwrap();
        let stamp = line.split(' ').next().unwrap();
        assert_eq!(stamp.len(), "2026-11-23T15:40:01.123+0000".len(), "{line}");
        assert!(stamp.ends_with(distance), "{zone}: {line}");
    }
}

/// The same words stand at the same places as in the log of Ceph's own client.
#[test]
fn lines_of_messages_are_found_by_who_greps_for_ceph_s() {
    let Some(mon) = require(CephMon::start(MonOptions::default())) else { return };
    let addr = mon.addr_v2().unwrap();
    let Some(mut theirs) = require(siphon_peers::ceph()) else { return };
    theirs.args([
        "-m",
        &format!("v2:{addr}"),
        "--debug_ms=1",
        "--log_to_stderr=true",
        "mon",
        "stat",
    ]);
    let theirs = theirs.output().unwrap();
    let theirs = String::from_utf8_lossy(&theirs.stderr).into_owned();
    let mut ours = siphon(["ping", "mon"]);
    ours.arg(addr.to_string()).arg("--debug_ms=1");
    let (_, ours) = stdout_and_log(ours);
    for (arrow, between) in [(" --> ", " -- "), (" <== ", " ==== ")] {
        for (text, words) in [(&theirs, "mon_"), (&ours, "ping magic: 0")] {
            let is_it = |line: &&str| line.contains(arrow) && line.contains(words);
            let line = text.lines().find(is_it).unwrap_or_else(|| panic!("{text}"));
            println!("{line}");
            let (before, behind) = line.split_once(arrow).unwrap();
            assert!(before.contains(" 1 ") && before.contains(" -- "), "{line}");
            let (peer, message) = behind.split_once(between).unwrap();
            assert!(peer.contains(&addr.to_string()), "{line}");
            assert!(message.starts_with(words), "{line}");
            assert!(line.contains(" con "), "{line}");
        }
    }
}
