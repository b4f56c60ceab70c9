//! What signals do: SIGINT and SIGTERM end in good order, SIGHUP does not end a server. And that colours are
//! for terminals.

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use common::{Listening, siphon, stdout};
use serde_json::Value;
use siphon_common::admin_socket;

/// More operations than any test has time for.
const ENDLESS: &str = "1000000000000";

fn signal(name: &str, pid: u32) {
    let kill = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(kill.success(), "{name}");
}

/// A command of ours with an admin socket.
struct Running {
    child: Child,
    folder: tempfile::TempDir,
}

impl Running {
    fn start<const N: usize>(args: [&str; N]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = siphon(args);
        command.arg(format!("--admin_socket={}", folder.path().join("asok").display()));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Self { child: command.spawn().unwrap(), folder }
    }

    /// Waits until so many messages have come, so that something is measured.
    fn has_received(&mut self, count: u64) {
        while received(&self.folder.path().join("asok")).is_none_or(|messages| messages < count) {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended by itself");
        }
    }

    fn end(mut self, name: &str) -> (ExitStatus, String) {
        signal(name, self.child.id());
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let status = self.child.wait().unwrap();
        let left = self.folder.path().read_dir().unwrap().count();
        assert_eq!(left, 0, "the admin socket is left behind");
        (status, text)
    }
}

/// The messages that all workers of a process received.
fn received(socket: &Path) -> Option<u64> {
    let dump = admin_socket::ask(socket, &["perf", "dump"], Some("json")).ok()?;
    let dump: Value = serde_json::from_slice(&dump).ok()?;
    let loggers = dump.as_object()?.values();
    Some(loggers.filter_map(|logger| logger["msgr_recv_messages"].as_u64()).sum())
}

#[test]
fn a_measurement_that_is_interrupted_reports_what_it_has() {
    for (name, extra) in [("INT", "--rev0"), ("TERM", "--baseline")] {
        let mut perf = Running::start(["perf", "--ops", ENDLESS, "--json", extra]);
        perf.has_received(1000);
        let (status, text) = perf.end(name);
        assert_eq!(status.code(), Some(130), "{name}: {text}");
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["interrupted"], true, "{report}");
        assert!(report["ops"].as_u64().is_some_and(|ops| ops > 100), "{report}");
        assert!(report["ratio_to_raw"].is_null(), "no round of both was done: {report}");
    }
    // Who is not interrupted does not speak of it.
    let whole = stdout(siphon(["perf", "--ops", "100", "--json"]));
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert!(whole["interrupted"].is_null() && whole["ops"] == 100, "{whole}");
}

#[test]
fn a_server_outlives_its_clients_and_a_hangup_and_ends_well() {
    let [port] = siphon_peers::free_ports();
    let addr = format!("127.0.0.1:{port}");
    let mut server = Running::start(["perf", "server", &addr]);
    let mut lines = BufReader::new(server.child.stdout.as_mut().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.contains("until interrupted"), "{line}");

    let mut client = Running::start(["perf", "client", &addr, "--ops", ENDLESS]);
    client.has_received(1000);
    let (status, text) = client.end("INT");
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(text.contains("interrupted  ") && text.contains("operations  "), "{text}");

    signal("HUP", server.child.id());
    stdout(siphon(["perf", "client", &addr, "--ops", "100"]));
    let (status, text) = server.end("TERM");
    assert_eq!(status.code(), Some(0), "{text}");
    let counted = text.strip_prefix("interrupted: ").and_then(|text| text.split_once(' '));
    let counted = counted.expect("it tells what came").0.parse::<u64>().unwrap();
    assert!(counted > 1100 && text.contains("over 2 connections"), "{text}");
}

#[test]
fn top_gives_the_terminal_back() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("osd.0.asok");
    let option = format!("admin_socket={}", socket.display());
    let _echo = Listening::start(["echo", "ADDR", "--as", "osd.0", "-o", &option]);
    // A terminal without a size has no place for anything.
    let siphon = env!("CARGO_BIN_EXE_siphon");
    let top = format!("stty rows 24 cols 80 && exec {siphon} top {}", socket.display());
    // Whoever is asked for keys has to have some coming: an open input.
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--flush", "--command", &top, "/dev/null"]);
    script.env("TERM", "xterm-256color").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = script.spawn().unwrap();
    let mut shown = Vec::new();
    let mut output = script.stdout.take().unwrap();
    let has = |shown: &[u8], text: &str| shown.windows(text.len()).any(|it| it == text.as_bytes());
    while !has(&shown, "osd.0") {
        let mut bytes = [0; 4096];
        let length = output.read(&mut bytes).unwrap();
        assert!(length > 0, "it ended by itself: {}", String::from_utf8_lossy(&shown));
        shown.extend(&bytes[..length]);
    }
    let children = format!("/proc/{0}/task/{0}/children", script.id());
    let children = std::fs::read_to_string(children).unwrap();
    signal("INT", children.trim().parse().unwrap());
    output.read_to_end(&mut shown).unwrap();
    assert_eq!(script.wait().unwrap().code(), Some(0));
    assert!(has(&shown, "\u{1b}[?1049l"), "{}", String::from_utf8_lossy(&shown));
}

#[test]
fn colours_are_for_terminals_and_for_who_wants_them() {
    let help = format!("{} perf --help", env!("CARGO_BIN_EXE_siphon"));
    let on_a_terminal = |without: bool| {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &help, "/dev/null"]);
        script.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        if without {
            script.env("NO_COLOR", "1");
        }
        stdout(script)
    };
    assert!(on_a_terminal(false).contains("\u{1b}["));
    assert!(!on_a_terminal(true).contains("\u{1b}["));
    assert!(!stdout(siphon(["perf", "--help"])).contains('\u{1b}'));
}

/// A pipe into `head` was told of as a fault of ours.
#[test]
fn a_reader_that_ends_before_is_no_fault() {
    let mut command = siphon(["completions", "bash"]); // more than a pipe holds
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_version_is_one_line_and_tells_more_when_asked() {
    let line = stdout(siphon(["--version"]));
    assert_eq!(line.lines().count(), 1, "{line}");
    let all = stdout(siphon(["version"]));
    assert!(all.starts_with(&line), "{line}{all}");
    for part in
        ["compiler:       rustc", "msgr2.1, msgr2.0, msgr1", "posix         usable", "  rdma  "]
    {
        assert!(all.contains(part), "{part}: {all}");
    }
}
