//! `siphon top` on real processes.

mod common;

use common::{Listening, failure, siphon, stdout};
use siphon_peers::{CephMon, MonOptions, require};

#[test]
fn ours_and_a_real_monitor_are_watched() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("osd.0.asok");
    let option = format!("admin_socket={}", socket.display());
    let echo = Listening::start(["echo", "ADDR", "--as", "osd.0", "-o", &option]);
    let addr = echo.addr.to_string();
    let mut load = siphon(["perf", "client", &addr, "--seconds", "20", "--depth", "4"]);
    let mut load = load.stdout(std::process::Stdio::null()).spawn().unwrap();
    let shown = loop {
        let shown =
            stdout(siphon(["top", "--once", "--interval", "0.2", socket.to_str().unwrap()]));
        if shown.contains("client.0") && !shown.contains("in 0 B/s") {
            break shown;
        }
        assert!(load.try_wait().unwrap().is_none(), "the load has ended: {shown}");
    };
    load.kill().unwrap();
    load.wait().unwrap();
    for part in ["1 processes", "osd.0", "wait us", "retrans", "crc"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    if let Some(mon) = require(CephMon::start(MonOptions::default())) {
        let theirs = mon.admin_socket();
        let both = [socket.to_str().unwrap(), theirs.to_str().unwrap()];
        let shown = stdout(siphon(["top", "--once", "--interval", "0.2", both[0], both[1]]));
        assert!(
            shown.contains("2 processes") && shown.contains("msgr_dispatch_throttler-mon"),
            "{shown}"
        );
    }
    let error = failure(siphon(["top", "--once", "--interval", "0.2", "/no/such/asok"]));
    assert!(error.contains("is the daemon running, and is this its admin_socket?"), "{error}");
    let error = failure(siphon(["top", socket.to_str().unwrap()]));
    assert!(error.contains("--once prints text"), "{error}");
}
