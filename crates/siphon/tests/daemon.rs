//! Admin sockets: ours with the real `ceph daemon`, and real daemons' with `siphon daemon`.

mod common;

use std::path::Path;

use common::{Listening, TIMEOUT, failure, siphon, stdout};
use serde_json::Value;
use siphon_peers::{CephMon, Cluster, ClusterOptions, MonOptions, Release, require, run};

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
                workers.values().filter_map(|worker| worker[counter].as_u64()).sum()
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
    assert_eq!(ask(&["config", "help", "ms_tcp_nodelay"])["option"]["type"], "bool");
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

/// A daemon by its name had its socket in /var/run/ceph, whatever its configuration says.
#[test]
fn a_daemon_is_found_by_its_name_where_its_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name);
    let conf = inside("little.conf");
    let of = |name: &str| format!("admin_socket = {}\n", inside(name).display());
    let (osd, client) = (of("$cluster-$name.asok"), of("$name.$pid.asok"));
    std::fs::write(&conf, format!("[osd]\n{osd}[client]\n{client}")).unwrap();
    let conf = conf.to_str().unwrap();
    let osd = Listening::start(["echo", "ADDR", "--as", "osd.0", "-c", conf, "-n", "osd.0"]);
    let client = Listening::start(["echo", "ADDR", "--as", "client.x", "-c", conf, "--id", "x"]);
    assert!(inside("little-osd.0.asok").exists(), "{}", osd.output());
    let client_by_pid = format!("client.x.{}", client.pid());
    for name in ["osd.0", &client_by_pid] {
        let told = json(&stdout(siphon(["-c", conf, "daemon", name, "version"])));
        assert!(told["version"].as_str().unwrap().starts_with("siphon"), "{told}");
        if require(siphon_peers::ceph_with_key()).is_some() {
            let mut ceph = siphon_peers::ceph_with_key().unwrap();
            ceph.args(["-c", conf, "daemon", name, "version"]);
            let theirs = String::from_utf8(run(ceph, TIMEOUT).unwrap().stdout).unwrap();
            assert_eq!(json(&theirs), told, "{name}");
        }
    }
    // A format stands where Ceph's `ceph` takes it.
    for words in [["perf", "dump", "-f", "json"], ["-f", "json", "perf", "dump"]] {
        let mut command = siphon(["-c", conf, "daemon", "osd.0"]);
        command.args(words);
        assert_eq!(stdout(command).lines().count(), 1, "{words:?}");
    }
    let error = failure(siphon(["-c", conf, "daemon", "osd.1", "version"]));
    let socket = inside("little-osd.1.asok").display().to_string();
    assert!(error.contains(&socket) && error.contains("is the daemon running"), "{error}");
    let error = failure(siphon(["-c", conf, "daemon", "disk.1", "version"]));
    assert!(error.contains("name a daemon as osd.0, or its socket with a / in it"), "{error}");
}

#[test]
fn a_process_that_hangs_is_given_up_when_it_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("hangs.asok");
    let _hangs = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let socket = socket.to_str().unwrap();
    let error = failure(siphon(["daemon", "--timeout", "0.2", socket, "version"]));
    assert!(error.contains("has not answered within 0.2 s"), "{error}");
    let error = failure(siphon(["daemon", "--timeout", "0", socket, "version"]));
    assert!(error.contains("--timeout 0: not a time to wait"), "{error}");
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

/// Every daemon of a release is asked by us and by its own `ceph`, and so are we by that `ceph`.
fn both_ways(release: Release) {
    let Some(cluster) = require(Cluster::start(release, &ClusterOptions::default())) else {
        return;
    };
    // A socket's path may not be long.
    let short = tempfile::tempdir().unwrap();
    let link = short.path().join("run");
    std::os::unix::fs::symlink(cluster.folder().join("run"), &link).unwrap();
    for name in ["mon.a", "mgr.x", "osd.0"] {
        a_daemon_of_theirs(name, &link.join(format!("ceph-{name}.asok")), release);
    }
    // What stands still we tell as their own tool does.
    let file = "ceph-osd.0.asok";
    for words in [&["perf", "schema"][..], &["config", "show"], &["config", "diff"], &["help"]] {
        let ours = json(&siphon_daemon(&link.join(file), words));
        assert_eq!(ours, json(&ceph_of(&cluster, "daemon", file, words)), "{words:?}");
    }
    let socket = link.join("ours.asok");
    let option = format!("admin_socket={}", socket.display());
    let log = short.path().join("ours.log");
    let log_file = format!("log_file={}", log.display());
    let echo = Listening::start(["echo", "ADDR", "--as", "osd.9", "-o", &option, "-o", &log_file]);
    stdout(siphon(["perf", "client", &echo.addr.to_string(), "--ops", "100"]));
    ours_by_theirs(&|words| ceph_of(&cluster, "daemon", "ours.asok", words), &log);
    // Of the throttle that each messenger has, what it counts and how that is told is theirs.
    let throttle = |socket: &str, name: &str| {
        let schema = json(&ceph_of(&cluster, "daemon", socket, &["perf", "schema"]));
        let mut schema = schema[format!("throttle-msgr_dispatch_throttler-{name}")].clone();
        // Newer releases have better words for it.
        schema["val"].as_object_mut().unwrap().remove("description");
        schema
    };
    options_are_told_alike(
        &|socket, words| json(&ceph_of(&cluster, "daemon", socket, words)),
        file,
    );
    let theirs = throttle(file, "client");
    assert_eq!(throttle("ours.asok", "osd.9"), theirs);
    let show = json(&ceph_of(&cluster, "--admin-daemon", "ours.asok", &["config", "show"]));
    assert_eq!(show["ms_type"], "async+posix");
}

/// Ours and Ceph's, where Ceph's is another word for what Siphon takes as well.
const OTHER_TYPES: [(&str, &str); 4] =
    [("uint", "int"), ("uint", "secs"), ("str", "uuid"), ("size", "uint")];

/// docs/configuration.md says why.
const OTHER_DEFAULTS: [&str; 2] = ["exporter_addr", "keyring"];

/// What `config help` and `config diff` tell has Ceph's form, and its types.
fn options_are_told_alike(ask: &dyn Fn(&str, &[&str]) -> Value, theirs: &str) {
    let both = ["ours.asok", theirs];
    let all = both.map(|socket| ask(socket, &["config", "help"])["options"].clone());
    let of = |all: &Value, name: &str| {
        all.as_array().unwrap().iter().find(|option| option["name"] == name).cloned()
    };
    let one = ["ms_tcp_nodelay", "ms_type"];
    for (socket, (all, name)) in both.iter().zip(all.iter().zip(one)) {
        assert_eq!(ask(socket, &["config", "help", name])["option"], of(all, name).unwrap());
    }
    let mut compared = 0;
    for ours in all[0].as_array().unwrap() {
        let name = ours["name"].as_str().unwrap();
        let Some(theirs) = of(&all[1], name) else { continue }; // it is another release's, or our own
        compared += 1;
        let keys = |option: &Value| {
            let keys = option.as_object().unwrap().keys().filter(|key| *key != "since");
            keys.cloned().collect::<Vec<_>>()
        };
        let [our_type, their_type] = [ours, &theirs].map(|it| it["type"].as_str().unwrap());
        assert!(
            our_type == their_type || OTHER_TYPES.contains(&(our_type, their_type)),
            "{name}: {our_type}, {their_type}"
        );
        assert_eq!(ours["level"], theirs["level"], "{name}");
        if our_type == their_type {
            assert_eq!(keys(ours), keys(&theirs), "{name}");
            if !OTHER_DEFAULTS.contains(&name) {
                assert_eq!(ours["default"], theirs["default"], "{name}");
                assert_eq!(ours["daemon_default"], theirs["daemon_default"], "{name}");
            }
        }
    }
    assert!(compared > 60, "{compared}");
    for (name, value) in [("ms_tcp_nodelay", "0"), ("ms_max_backoff", "7"), ("debug_ms", "3")] {
        let [ours, theirs] = both.map(|socket| {
            ask(socket, &["config", "set", name, value]);
            ask(socket, &["config", "diff"])["diff"][name].clone()
        });
        for key in ["default", "override", "final"] {
            assert_eq!(ours[key], theirs[key], "{name} {key}");
        }
        both.iter().for_each(|socket| drop(ask(socket, &["config", "unset", name])));
    }
}

/// What `ceph` of the cluster's release prints to a command at a socket in the cluster's folder of sockets.
fn ceph_of(cluster: &Cluster, how: &str, socket: &str, words: &[&str]) -> String {
    let mut ceph = cluster.program("ceph");
    ceph.arg(how).arg(cluster.inside(&format!("run/{socket}"))).args(words);
    String::from_utf8(run(ceph, TIMEOUT).unwrap().stdout).unwrap()
}

fn a_daemon_of_theirs(name: &str, socket: &Path, release: Release) {
    let ours = |words: &[&str]| json(&siphon_daemon(socket, words));
    for (words, told) in
        [(&["config", "show"][..], "ms_type"), (&["help"], "perf dump"), (&["version"], "version")]
    {
        assert!(ours(words)[told].is_string(), "{name}: {words:?}");
    }
    assert!(
        siphon_daemon(socket, &["config", "help", "ms_type"]).contains("\"ms_type\""),
        "{name}"
    );
    let schema = ours(&["perf", "schema"]);
    assert_eq!(schema["AsyncMessenger::Worker-0"]["msgr_recv_bytes"]["type"], 10, "{name}");
    let dump = ours(&["perf", "dump"]);
    let worker = &dump["AsyncMessenger::Worker-0"];
    assert!(worker["msgr_created_connections"].is_u64(), "{name}: {dump:#}");
    let one = ours(&["perf", "dump", "AsyncMessenger::Worker-0", "msgr_recv_bytes"]);
    assert_eq!(one["AsyncMessenger::Worker-0"].as_object().unwrap().len(), 1, "{name}: {one:#}");
    ours(&["config", "set", "debug_ms", "1/5"]);
    assert_eq!(ours(&["config", "get", "debug_ms"])["debug_ms"], "1/5", "{name}");
    let diff = &ours(&["config", "diff"])["diff"]["debug_ms"];
    assert_eq!((&diff["override"], &diff["final"]), (&"1/5".into(), &"1/5".into()), "{name}");
    let got = ours(&["config", "diff", "get", "debug_ms"]);
    assert_eq!(&got["diff"]["debug_ms"], diff, "{name}");
    ours(&["config", "unset", "debug_ms"]);
    assert_ne!(ours(&["config", "get", "debug_ms"])["debug_ms"], "1/5", "{name}");
    for words in [&["log", "flush"][..], &["log", "reopen"], &["perf", "histogram", "dump"]] {
        siphon_daemon(socket, words);
    }
    if release == Release::Tentacle {
        let names = ours(&["messenger", "dump"]);
        let names = names["messengers"].as_array().unwrap();
        assert!(!names.is_empty(), "{name}");
        for messenger in names {
            // With what is true or false as Ceph wants it, in each way to say it.
            for wanted in [&[][..], &["tcp_info=true"], &["--tcp-info"]] {
                let dump = [&["messenger", "dump", messenger.as_str().unwrap()], wanted].concat();
                let dump = ours(&dump);
                assert_eq!(dump["name"], *messenger, "{name}: {dump:#}");
                assert!(dump["messenger"]["connections"].is_array(), "{name}: {dump:#}");
            }
        }
    }
}

/// All that a daemon's `ceph` is asked most, of ours.
fn ours_by_theirs(ask: &dyn Fn(&[&str]) -> String, log: &Path) {
    let asked = |words: &[&str]| json(&ask(words));
    let dump = asked(&["perf", "dump"]);
    let workers = dump.as_object().unwrap().values();
    let received: u64 = workers.filter_map(|it| it["msgr_recv_messages"].as_u64()).sum();
    assert_eq!(received, 100, "{dump:#}");
    let schema = asked(&["perf", "schema"]);
    assert_eq!(schema["AsyncMessenger::Worker-0"]["msgr_recv_bytes"]["units"], "bytes");
    let show = asked(&["config", "show"]);
    assert_eq!((&show["name"], &show["ms_type"]), (&"client.admin".into(), &"async+posix".into()));
    assert_eq!(asked(&["config", "set", "debug_ms", "1/5"])["success"], "");
    assert_eq!(asked(&["config", "get", "debug_ms"])["debug_ms"], "1/5");
    let diff = &asked(&["config", "diff"])["diff"]["debug_ms"];
    assert_eq!(
        (&diff["default"], &diff["override"], &diff["final"]),
        (&"0/0".into(), &"1/5".into(), &"1/5".into())
    );
    asked(&["config", "unset", "debug_ms"]);
    assert_eq!(asked(&["config", "help", "ms_type"])["option"]["name"], "ms_type");
    assert!(asked(&["help"])["log flush"].is_string());
    assert!(asked(&["version"])["version"].is_string());
    asked(&["log", "flush"]);
    std::fs::rename(log, log.with_extension("moved")).unwrap();
    asked(&["log", "reopen"]);
    assert!(log.exists(), "opened again");
    assert_eq!(asked(&["messenger", "dump"])["messengers"], serde_json::json!(["osd.9"]));
    let dump = asked(&["messenger", "dump", "osd.9"]);
    assert!(dump["messenger"]["connections"].is_array(), "{dump:#}");
    asked(&["perf", "histogram", "dump"]);
}

#[test]
fn pacific_and_we_ask_each_other() {
    both_ways(Release::Pacific);
}

#[test]
fn tentacle_and_we_ask_each_other() {
    both_ways(Release::Tentacle);
}
