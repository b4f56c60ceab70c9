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
    for part in ["1 process,", "osd.0", "wait us", "retrans", "crc"] {
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

/// A process that hangs kept `top` from the others, and from its keys, for a minute.
#[test]
fn who_does_not_answer_is_named_and_the_others_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name).display().to_string();
    let _hangs = std::os::unix::net::UnixListener::bind(inside("hangs.asok")).unwrap();
    let option = format!("admin_socket={}", inside("lives.asok"));
    let _echo = Listening::start(["echo", "ADDR", "--as", "osd.0", "-o", &option]);
    let sockets = [inside("hangs.asok"), inside("lives.asok")].join(" ");
    let drawn = on_a_terminal(&format!("top {sockets}"), "q", 0);
    let shown = words(parts(&drawn).0);
    for part in ["1 process,", "lives", "hangs has not answered for 0."] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

/// What is drawn, with a blank for each sequence that moves the cursor or the like.
fn words(drawn: &str) -> String {
    let texts = drawn.split("\x1b[").map(|part| {
        part.trim_start_matches(|it: char| it.is_ascii_digit() || ";?".contains(it)).get(1..)
    });
    texts.flatten().collect::<Vec<_>>().join(" ")
}

/// What `siphon` with these arguments draws on a terminal of 80 columns and 24 rows, and prints at its end,
/// which has this exit code.
fn on_a_terminal(args: &str, keys: &str, code: i32) -> String {
    use std::io::Write as _;
    let command = format!("stty rows 24 cols 80; {} {args}", env!("CARGO_BIN_EXE_siphon"));
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").env_remove("SIPHON_LOG");
    let (stdin, stdout) = (std::process::Stdio::piped(), std::process::Stdio::piped());
    let mut script = script.stdin(stdin).stdout(stdout).spawn().unwrap();
    let mut input = script.stdin.take().unwrap();
    input.write_all(keys.as_bytes()).unwrap();
    let mut drawn = Vec::new();
    std::io::Read::read_to_end(&mut script.stdout.take().unwrap(), &mut drawn).unwrap();
    drop(input); // to it, an end would be another key
    let drawn = String::from_utf8_lossy(&drawn).into_owned();
    assert_eq!(script.wait().unwrap().code(), Some(code), "{drawn}");
    drawn
}

/// What is drawn, and what is printed when the terminal is as before.
fn parts(drawn: &str) -> (&str, &str) {
    const BACK: &str = "\x1b[?1049l";
    drawn.rsplit_once(BACK).unwrap_or_else(|| panic!("no terminal was left: {drawn}"))
}

#[test]
fn perf_is_watched_while_it_measures() {
    let drawn = on_a_terminal("perf --watch --seconds 2.5 --size 4K --depth 4", "c", 0);
    let (shown, printed) = parts(&drawn);
    for part in ["[Workers]", "Connections", "client.0", "retrans"] {
        assert!(shown.contains(part), "{part}: {drawn}");
    }
    assert!(printed.contains("op/s"), "{printed}");
    // A measurement that would take long ends with what it has.
    let drawn = on_a_terminal("perf --watch --seconds 600 --json", "q", 130);
    let (_, printed) = parts(&drawn);
    let at = printed.find('{').unwrap_or_else(|| panic!("no JSON: {printed}"));
    let report: serde_json::Value =
        serde_json::Deserializer::from_str(&printed[at..]).into_iter().next().unwrap().unwrap();
    assert!(report["seconds"].as_f64().is_none_or(|it| it < 600.0), "{report}");
    // A server is watched until somebody has seen enough.
    on_a_terminal("perf server 127.0.0.1:0 --watch", "q", 0);
    let error = failure(siphon(["perf", "--watch", "--seconds", "0.1"]));
    assert!(error.contains("--watch: the output is no terminal. Leave --watch out"), "{error}");
}
