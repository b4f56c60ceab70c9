//! `siphon config`, and Ceph's options on the command line.

mod common;

use common::{failure, siphon, stdout};
use serde_json::Value;
use siphon_peers::require;

/// A folder with a file `test.conf`, and its path.
fn conf(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.conf").display().to_string();
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn config(args: &[&str]) -> std::process::Command {
    let mut command = siphon([]);
    for variable in ["CEPH_CONF", "CEPH_ARGS", "CEPH_KEYRING"] {
        command.env_remove(variable);
    }
    command.arg("config").args(args);
    command
}

#[test]
fn what_counts_is_shown_and_where_it_comes_from() {
    let (_folder, path) = conf(
        "[global]\nms tcp rcvbuf = 64K\nrun_dir = /run/$cluster\n[client.x]\ndebug ms = 1/5\n",
    );
    let value = stdout(config(&["show", "run_dir", "-c", &path]));
    assert_eq!(value, "/run/test\n");
    let mut command = config(&["diff", "-c", &path, "--id=x", "--no-ms-crc-data"]);
    command.env("CEPH_ARGS", "--ms_max_backoff 7");
    let text = stdout(command);
    for wanted in [
        "debug_ms = 1/5\n  default   0/0\n  file      1/5  (",
        "test.conf line 5)",
        "ms_crc_data = false\n  default   true\n  cmdline   false\n",
        "ms_max_backoff = 7.000000\n  default   15.000000\n  env       7  (environment)\n",
        "run_dir = /run/test\n  default   /var/run/ceph\n  file      /run/$cluster  (",
    ] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    let json: Value =
        serde_json::from_str(&stdout(config(&["diff", "--json", "-c", &path]))).unwrap();
    assert_eq!(json["ms_tcp_rcvbuf"]["file"], "65536");
    assert_eq!(json["ms_tcp_rcvbuf"]["final"], "65536");
    let json: Value =
        serde_json::from_str(&stdout(config(&["show", "--json", "-c", &path]))).unwrap();
    assert_eq!((&json["name"], &json["cluster"]), (&"client.admin".into(), &"test".into()));
}

#[test]
fn help_tells_of_each_option_and_why_another_has_no_effect() {
    let text = stdout(config(&["help", "ms-bind-port-max"]));
    for wanted in ["0 to 65535", "Default: 7300", "runtime: true", "Nautilus", "7568"] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    assert!(failure(config(&["help", "osd_data"])).contains("no effect here: it is for OSDs"));
    let text = failure(config(&["help", "ms_asnyc_op_threads"]));
    assert!(text.contains("did you mean 'ms_async_op_threads'?"), "{text}");
    let all: Value = serde_json::from_str(&stdout(config(&["help", "--json"]))).unwrap();
    assert!(all.as_array().unwrap().iter().any(|it| it["name"] == "debug_ms"));
}

#[test]
fn a_check_names_each_mistake_by_its_line() {
    let (_folder, path) =
        conf("[global]\nms_tpye = x\nmon_host = a\n[osd0]\nms_bind_port_min = x\n");
    let mut command = config(&["check", &path]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("line 2: ") && lines[0].contains("'ms_type'"), "{text}");
    assert!(lines[1].contains("line 5: ") && lines[2].contains("line 5: "), "{text}");
    let (_folder, path) = conf("[global]\nmon host = a\nosd pool default size = 2\n");
    assert!(stdout(config(&["check", &path])).contains("nothing is wrong"));
    let (_folder, path) = conf("[global]\nmon host");
    assert!(
        failure(config(&["check", &path])).contains("line 2: neither [section] nor name = value")
    );
}

#[test]
fn a_lookup_is_ceph_conf_s() {
    let (_folder, path) = conf("[osd]\nkeyring = /k/$name\n[osd.1]\nhost = b\n[x]\nhost = c\n");
    let cases: [&[&str]; 4] = [&["keyring"], &["host"], &["host", "-s", "x"], &["nothing"]];
    for case in cases {
        let mut ours = config(&["lookup", "-c", &path, "-n", "osd.1"]);
        ours.args(case);
        let Some(mut theirs) = require(siphon_peers::ceph_conf()) else { return };
        theirs.args(["-c", &path, "-n", "osd.1", "--lookup"]).args(case);
        let (ours, theirs) = (ours.output().unwrap(), theirs.output().unwrap());
        assert_eq!(ours.stdout, theirs.stdout, "{case:?}");
        assert_eq!(ours.status.code(), theirs.status.code(), "{case:?}");
    }
}

#[test]
fn every_command_takes_the_options_of_ceph() {
    let mut command = siphon([]);
    command.args(["--ms_async_op_threads=99", "ping", "mon", "127.0.0.1:1"]);
    assert!(failure(command).contains("ms_async_op_threads = '99': out of range"));
    let mut command = siphon([]);
    command.args(["ping", "mon", "127.0.0.1:1", "--ms-asinc-op-threads=9"]);
    assert!(failure(command).contains("did you mean 'ms_async_op_threads'?"));
    let mut command = siphon([]);
    command.args(["status", "-c", "/nowhere/ceph.conf"]);
    let text = failure(command);
    assert!(text.contains("no configuration file of /nowhere/ceph.conf can be opened"), "{text}");
}
