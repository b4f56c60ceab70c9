//! Admin sockets: ours with the real `ceph daemon`, and real daemons' with `siphon daemon`.

mod common;

use std::path::Path;

use common::{Listening, TIMEOUT, failure, siphon, stdout};
use serde_json::Value;
use siphon_peers::{CephMon, MonOptions, require, run};

/// What the real `ceph daemon SOCKET COMMAND` prints.
fn ceph_daemon(socket: &Path, command: &[&str]) -> String {
    let mut ceph = siphon_peers::ceph_with_key().unwrap();
    ceph.arg("daemon").arg(socket).args(command);
    String::from_utf8(run(ceph, TIMEOUT).unwrap().stdout).unwrap()
}

fn siphon_daemon(socket: &Path, command: &[&str]) -> String {
    let mut siphon = siphon(["daemon"]);
    siphon.arg(socket).args(command);
    stdout(siphon)
}

type Ask = fn(&Path, &[&str]) -> String;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_real_ceph_asks_ours_and_so_do_we() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("asok");
    let option = format!("admin_socket={}", socket.display());
    let echo = Listening::start(["echo", "ADDR", "--as", "osd.0", "-o", &option]);
    let addr = echo.addr.to_string();
    stdout(siphon(["perf", "client", &addr, "--ops", "1000", "--size", "4K"]));
    if require(siphon_peers::ceph_with_key()).is_some() {
        let asks: [(&str, Ask); 2] = [("ceph", ceph_daemon), ("siphon", siphon_daemon)];
        for (who, ask) in asks {
            let dump = json(&ask(&socket, &["perf", "dump"]));
            let workers = dump.as_object().unwrap();
            let sum = |counter: &str| -> u64 {
                workers.values().map(|worker| worker[counter].as_u64().unwrap()).sum()
            };
            assert_eq!(sum("msgr_recv_messages"), 1000, "{who}: {dump:#}");
            assert_eq!(sum("msgr_send_messages"), 1000, "{who}");
            let schema = json(&ask(&socket, &["perf", "schema"]));
            let bytes = &schema["AsyncMessenger::Worker-0"]["msgr_recv_bytes"];
            assert_eq!((&bytes["type"], &bytes["units"]), (&10.into(), &"bytes".into()), "{who}");
            let one = json(&ask(
                &socket,
                &["perf", "dump", "AsyncMessenger::Worker-0", "msgr_created_connections"],
            ));
            assert_eq!(one.as_object().unwrap().len(), 1, "{who}: {one}");
            let dump = json(&ask(&socket, &["messenger", "dump", "osd.0", "tcp_info=true"]));
            assert_eq!(dump["name"], "osd.0", "{who}: {dump:#}");
            assert!(ask(&socket, &["help"]).contains("dump perfcounters value"), "{who}");
            assert!(json(&ask(&socket, &["version"]))["version"].is_string(), "{who}");
        }
        config_and_log(&socket, folder.path());
        let reset = json(&ceph_daemon(&socket, &["perf", "reset", "all"]));
        assert_eq!(reset["success"], "perf reset all");
        // Whatever `--admin-daemon` asks is the same.
        let mut ceph = siphon_peers::ceph_with_key().unwrap();
        ceph.arg("--admin-daemon").arg(&socket).args(["perf", "dump", "-f", "json"]);
        let dump = json(&String::from_utf8(run(ceph, TIMEOUT).unwrap().stdout).unwrap());
        assert_eq!(dump["AsyncMessenger::Worker-0"]["msgr_recv_messages"], 0);
    }
    drop(echo);
    let error = failure(siphon(["daemon", socket.to_str().unwrap(), "help"]));
    assert!(error.contains("cannot connect to the admin socket"), "{error}");
}

/// Options are looked at and changed by the real `ceph daemon`, and the log is opened again.
fn config_and_log(socket: &Path, folder: &Path) {
    let ask = |words: &[&str]| json(&ceph_daemon(socket, words));
    assert_eq!(
        ask(&["config", "get", "ms_tcp_nodelay"]),
        serde_json::json!({ "ms_tcp_nodelay": "true" })
    );
    assert_eq!(ask(&["config", "set", "debug_ms", "1/5"])["success"], "");
    assert_eq!(ask(&["config", "get", "debug_ms"])["debug_ms"], "1/5");
    assert_eq!(ask(&["config", "show"])["debug_ms"], "1/5");
    let diff = &ask(&["config", "diff"])["diff"]["debug_ms"];
    assert_eq!((&diff["override"], &diff["final"]), (&"1/5".into(), &"1/5".into()), "{diff}");
    ask(&["config", "unset", "debug_ms"]);
    assert_eq!(ask(&["config", "diff", "get", "debug_ms"])["diff"], serde_json::json!({}));
    ask(&["injectargs", "--ms_tcp_rcvbuf=64K"]);
    assert_eq!(ask(&["config", "get", "ms_tcp_rcvbuf"])["ms_tcp_rcvbuf"], "65536");
    assert_eq!(ask(&["config", "help", "ms_tcp_nodelay"])["type"], "bool");
    for (words, expected) in [
        (&["config", "set", "ms_async_op_threads", "7"][..], "ERROR: (1) Operation not permitted"),
        (&["config", "set", "no_such_option", "7"], "ERROR: (2) No such file or directory"),
        (&["config", "set", "ms_tcp_nodelay", "perhaps"], "ERROR: (22) Invalid argument"),
    ] {
        let answer = ceph_daemon(socket, words);
        assert!(answer.starts_with(expected), "{words:?}: {answer}");
    }
    let file = folder.join("osd.log");
    ask(&["config", "set", "log_file", file.to_str().unwrap()]);
    ask(&["config", "set", "debug_asok", "10"]);
    ask(&["log", "dump"]);
    ask(&["log", "flush"]);
    assert!(file.exists(), "{}", file.display());
    std::fs::rename(&file, folder.join("osd.log.1")).unwrap();
    ask(&["log", "reopen"]);
    assert!(file.exists(), "opened again");
}

#[test]
fn we_ask_a_real_monitor() {
    let Some(mon) = require(CephMon::start(MonOptions::default())) else {
        return;
    };
    let socket = mon.admin_socket();
    let dump = json(&siphon_daemon(&socket, &["perf", "dump"]));
    assert!(dump["AsyncMessenger::Worker-0"]["msgr_created_connections"].is_u64(), "{dump:#}");
    let got = json(&siphon_daemon(&socket, &["config", "get", "ms_tcp_nodelay"]));
    assert_eq!(got["ms_tcp_nodelay"], "true");
    siphon_daemon(&socket, &["config", "set", "debug_ms", "1/5"]);
    let got = json(&siphon_daemon(&socket, &["config", "get", "debug_ms"]));
    assert_eq!(got["debug_ms"], "1/5");
    assert!(json(&siphon_daemon(&socket, &["config", "show"]))["ms_type"].is_string());
    assert!(json(&siphon_daemon(&socket, &["config", "diff"]))["diff"].is_object());
    siphon_daemon(&socket, &["log", "flush"]);
    assert!(siphon_daemon(&socket, &["help"]).contains("perf dump"));
    let path = socket.to_str().unwrap();
    let error = failure(siphon(["daemon", path, "config", "get", "no_such_option"]));
    assert!(error.contains("No such file or directory"), "{error}");
    let error = failure(siphon(["daemon", path, "config", "sit"]));
    assert!(error.contains("no such command; there is config"), "{error}");
}
