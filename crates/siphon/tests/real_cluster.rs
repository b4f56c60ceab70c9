//! Commands about a whole cluster, beside those of Ceph's own `ceph`.

mod common;

use std::process::{Command, Output};

use common::siphon;
use serde_json::Value;
use siphon_peers::{Cluster, ClusterOptions, Release, require};

/// `siphon`, as `client.admin` of this cluster.
fn asking(cluster: &Cluster, args: &[&str]) -> Command {
    let mut command = siphon([]);
    command.args(args).arg("-c").arg(cluster.client_conf());
    command
}

/// A run to its end, whichever that is.
fn ran(mut command: Command) -> Output {
    command.env_remove("CEPH_CONF").output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn printed(cluster: &Cluster, args: &[&str]) -> String {
    let output = ran(asking(cluster, args));
    assert_eq!(code(&output), 0, "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn json(cluster: &Cluster, args: &[&str]) -> Value {
    serde_json::from_str(&printed(cluster, &[args, &["-f", "json"]].concat())).unwrap()
}

/// How often two answers are compared that may differ by when they were asked for.
const ATTEMPTS: usize = 20;

/// Lines without what changes from one moment to the next.
fn lasting(text: &str) -> Vec<&str> {
    let fleeting = |line: &&str| {
        ["since", "age", "usage", "pgs", "objects", "TOTAL", "osd.0"]
            .iter()
            .any(|word| line.contains(word))
    };
    text.trim().lines().map(str::trim_end).filter(|line| !fleeting(line)).collect()
}

fn compare(release: Release) {
    let Some(cluster) = require(Cluster::start(release, &ClusterOptions::default())) else {
        return;
    };
    for (ours, cephs) in [
        (&["status"][..], &["status"][..]),
        (&["health"], &["health"]),
        (&["health", "detail"], &["health", "detail"]),
        (&["osd", "df"], &["osd", "df"]),
        (&["command", r#"{"prefix": "osd pool ls"}"#], &["osd", "pool", "ls"]),
        (&["command", r#"{"prefix": "mon versions"}"#], &["mon", "versions"]),
    ] {
        // What the cluster says changes while its first seconds pass: between the two as well.
        let both = || (printed(&cluster, ours), cluster.ceph(cephs).unwrap());
        let same = |(ours, cephs): &(String, String)| lasting(ours) == lasting(cephs);
        let (ours, cephs) = (0..ATTEMPTS).map(|_| both()).find(same).unwrap_or_else(both);
        assert_eq!(lasting(&ours), lasting(&cephs));
    }
    let tree = printed(&cluster, &["osd", "tree"]);
    assert_eq!(tree.trim(), cluster.ceph(&["osd", "tree"]).unwrap().trim());
    assert!(!printed(&cluster, &["osd", "tree", "down"]).contains("osd.0"));
    let status = json(&cluster, &["status"]);
    assert_eq!(status["fsid"], cluster.ceph(&["fsid"]).unwrap().trim());
    assert_eq!(json(&cluster, &["osd", "tree"])["nodes"][0]["name"], "default");
}

fn ask_each_daemon(release: Release) {
    let Some(cluster) = require(Cluster::start(release, &ClusterOptions::default())) else {
        return;
    };
    let command = |target: &str, command: &str| {
        let target = format!("--target={target}");
        ran(asking(&cluster, &["command", command, &target]))
    };
    let answered = |target: &str, question: &str| {
        let output = command(target, question);
        assert_eq!(code(&output), 0, "{target}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(answered("mon.a", r#"{"prefix": "mon_status"}"#).contains(r#""name":"#));
    assert!(answered("mgr", r#"{"prefix": "pg dump_pools_json"}"#).contains('['));
    assert!(answered("mgr.x", r#"{"prefix": "version"}"#).contains(cluster.version()));
    assert!(answered("osd.0", r#"{"prefix": "version"}"#).contains(cluster.version()));
    let create = r#"{"prefix": "osd pool create", "pool": "p", "pg_num": 1}"#;
    let output = command("mon", create);
    assert_eq!((code(&output), text(&output.stdout)), (0, String::new()));
    assert_eq!(text(&output.stderr), "pool 'p' created\n");
    let pool = json(&cluster, &["command", r#"{"prefix": "osd pool stats"}"#, "--target=mgr"]);
    let pg = format!("{}.0", pool[0]["pool_id"]);
    let query = format!(r#"{{"prefix": "query", "pgid": "{pg}"}}"#);
    assert!(answered(&format!("pg.{pg}"), &query).contains("peer_info"));
    // Whom it is for says which group is meant.
    assert!(answered(&format!("pg.{pg}"), r#"{"prefix": "query"}"#).contains("peer_info"));

    for (target, question, expected, words) in [
        ("mon", r#"{"prefix": "osd pool get", "pool": "x", "var": "size"}"#, 2, "Error ENOENT: "),
        ("mon", r#"{"prefix": "no such command"}"#, 22, "Error EINVAL: "),
        ("mon.z", r#"{"prefix": "mon_status"}"#, 2, "there is no monitor mon.z; there are: mon.a"),
        ("mgr.z", r#"{"prefix": "version"}"#, 1, "mgr.z is not the active manager, mgr.x is"),
        ("osd.7", r#"{"prefix": "version"}"#, 2, "there is no osd.7"),
        ("mon", "status", 1, "a command is a JSON object"),
        ("mds.a", r#"{"prefix": "version"}"#, 2, "none of mon, mon.NAME"),
    ] {
        let output = command(target, question);
        assert_eq!(code(&output), expected, "{target} {question}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }

    // What goes in by a file comes out again.
    let folder = tempfile::tempdir().unwrap();
    let (map, back) = (folder.path().join("map"), folder.path().join("back"));
    let get = ["command", r#"{"prefix": "osd getcrushmap"}"#, "-o", map.to_str().unwrap()];
    printed(&cluster, &get);
    printed(
        &cluster,
        &["command", r#"{"prefix": "osd setcrushmap"}"#, "-i", map.to_str().unwrap()],
    );
    printed(&cluster, &[&get[..3], &[back.to_str().unwrap()]].concat());
    assert_eq!(std::fs::read(map).unwrap(), std::fs::read(back).unwrap());
}

#[test]
fn nautilus_is_told_as_its_own_tools_tell() {
    compare(Release::Nautilus);
}

#[test]
fn pacific_is_told_as_its_own_tools_tell() {
    compare(Release::Pacific);
}

#[test]
fn reef_is_told_as_its_own_tools_tell() {
    compare(Release::Reef);
}

#[test]
fn tentacle_is_told_as_its_own_tools_tell() {
    compare(Release::Tentacle);
}

#[test]
fn every_daemon_takes_commands() {
    ask_each_daemon(Release::Pacific);
    ask_each_daemon(Release::Tentacle);
}

#[test]
fn who_is_not_let_in_is_told_what_to_do() {
    let Some(cluster) = require(Cluster::start(Release::Pacific, &ClusterOptions::default()))
    else {
        return;
    };
    let host = cluster.mon_host();
    let keyring = cluster.keyring().display().to_string();
    let run = |args: &[&str]| {
        let mut command = siphon([]);
        command.arg("health").args(args).env_remove("CEPH_CONF").env("HOME", "/nowhere");
        let output = ran(command);
        (code(&output), text(&output.stderr))
    };
    let sets = ["-c", "/dev/null", "-m", &host, "-k", &keyring];
    assert_eq!(run(&sets).0, 0);
    for (more, expected, words) in [
        (&["--set", "key=AQAAAAAAAAAAABAAAQIDBAUGBwgJCgsMDQ4PEA=="][..], 13, "check the name"),
        (&["--set", "fsid=8c1b24f6-0000-4000-8000-000000000000"], 22, "correct fsid or mon_host"),
        (&["-m", "127.0.0.1:1", "--connect-timeout", "0.3"], 110, "nobody listens"),
        (&["-m", "127.0.0.1:1", "--client_mount_timeout", "1"], 110, "let us in within 1s"),
        (&["-n", "client.nobody"], 1, "has no key for client.nobody"),
        (&["--set", "mon_hots=x"], 1, "did you mean 'mon_host'"),
        (&["-m", "", "--set", "mon_dns_srv_name="], 1, "no monitors are known"),
        (&["--id", "admin", "-k", "/nowhere/keyring"], 13, "does not let us in"),
    ] {
        // What is said more than once is an error of its own: what comes last stands for both.
        let kept = sets.chunks(2).filter(|set| !more.contains(&set[0])).flatten().copied();
        let args: Vec<_> = kept.chain(more.iter().copied()).collect();
        let (code, stderr) = run(&args);
        assert_eq!(code, expected, "{more:?}: {stderr}");
        assert!(stderr.contains(words), "{more:?}: {stderr}");
    }
}

#[test]
fn sessions_tell_what_each_daemon_speaks() {
    let Some(cluster) = require(Cluster::start(Release::Pacific, &ClusterOptions::default()))
    else {
        return;
    };
    let mut command = siphon(["sessions", "--json"]);
    command.arg(format!("v2:{}", cluster.mon_v2())).arg("-k").arg(cluster.keyring());
    let output = ran(command);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sessions = report["sessions"].as_array().unwrap();
    let names: Vec<_> = sessions.iter().map(|session| session["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["mon.a", "mgr.x", "osd.0"]);
    for session in sessions {
        assert!(session["version"].as_str().unwrap().contains(cluster.version()), "{session}");
    }
}
