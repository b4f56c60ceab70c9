//! What the tools show of themselves to who operates them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use siphon_common::admin_socket::ask;
use siphon_peers::{Leash, PeerError, PerfClient, free_ports, run};

const TIMEOUT: Duration = Duration::from_secs(60);
const SERVER: &str = env!("CARGO_BIN_EXE_ceph_perf_msgr_server");
const CLIENT: &str = env!("CARGO_BIN_EXE_ceph_perf_msgr_client");

fn tool(program: &str, args: &[String], folder: &Path, name: &str) -> Command {
    let path = |suffix: &str| folder.join(format!("{name}.{suffix}")).display().to_string();
    let mut command = Command::new(program);
    command.args(args).env_remove("SIPHON_LOG");
    command.args(["--admin_socket", &path("asok"), "--log_file", &path("log")]);
    command.arg(format!("--pid-file={}", path("pid"))).arg("--debug_ms=1");
    command
}

fn received(socket: &Path) -> Option<u64> {
    let dump = ask(socket, &["perf", "dump"], None).ok()?;
    let dump: Value = serde_json::from_slice(&dump).ok()?;
    let workers = dump.as_object()?.values();
    Some(workers.filter_map(|worker| worker["msgr_recv_messages"].as_u64()).sum())
}

/// These three options were taken and had no effect.
#[test]
fn both_tools_have_the_socket_the_log_and_the_pid_file_that_they_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(name);
    let [port] = free_ports();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let args = [addr.to_string(), "1".to_owned(), "0".to_owned()];
    let server = tool(SERVER, &args, folder.path(), "server");
    let mut server = Leash::start(server, in_folder("server.out")).unwrap();
    server.wait_until_listening(addr, TIMEOUT).unwrap();
    let pid = fs::read_to_string(in_folder("server.pid")).unwrap();
    assert_eq!(pid.trim(), server.pid().to_string());

    // A second one on the same files changes nothing of the first.
    match run(tool(SERVER, &args, folder.path(), "server"), TIMEOUT) {
        Err(PeerError::Failed { output, .. }) => {
            assert!(output.contains("runs and has the pid file"), "{output}");
        }
        other => panic!("{other:?}"),
    }

    let endless = PerfClient { addr, jobs: 1, depth: 4, ops: u32::MAX, size: 64 };
    let client = tool(CLIENT, &endless.args(), folder.path(), "client");
    let client = Leash::start(client, in_folder("client.out")).unwrap();
    for name in ["client.asok", "server.asok"] {
        let counts = || received(&in_folder(name)).is_some_and(|messages| messages > 100);
        client.wait_until("counted at its admin socket", TIMEOUT, counts).unwrap();
    }
    assert!(in_folder("client.pid").exists());
    let logged = || fs::read_to_string(in_folder("client.log")).unwrap_or_default();
    client.wait_until("logging", TIMEOUT, || logged().contains(" 1 ms: -- ")).unwrap();
    let told = ask(in_folder("server.asok"), &["git_version"], None).unwrap();
    assert!(String::from_utf8_lossy(&told).contains("git_version"));
    drop(client);

    server.signal("TERM").unwrap();
    for name in ["server.asok", "server.pid"] {
        assert!(!in_folder(name).exists(), "{name}");
    }
    assert!(fs::read_to_string(in_folder("server.log")).unwrap().contains(" 1 ms: "));
}
