//! Clients of a cluster have the admin socket that they are told to have.

mod common;

use std::net::TcpListener;

use common::{TIMEOUT, failure, siphon};
use siphon_common::admin_socket::{ask, request};
use siphon_peers::Leash;

/// A command, with `ADDR` where the monitor is.
fn command(words: &[&str], monitor: &str) -> std::process::Command {
    let mut command = siphon([]);
    command.args(words.iter().map(|word| if *word == "ADDR" { monitor } else { word }));
    command
}

const CLIENTS: [&[&str]; 6] = [
    &["probe", "ADDR", "--timeout", "60"],
    &["status", "-m", "ADDR", "--key", "AQAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA=="],
    &["rados", "lspools", "-m", "ADDR", "--key", "AQAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA=="],
    &["ping", "mon", "ADDR", "--timeout", "60"],
    &["monmap", "ADDR", "--timeout", "60"],
    &["sessions", "ADDR", "--auth", "none", "--timeout", "60"],
];

/// A monitor that says nothing keeps each of them long enough to be asked.
#[test]
fn clients_answer_at_their_admin_sockets() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let monitor = format!("v2:{}", silent.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    for words in CLIENTS {
        let socket = folder.path().join(format!("{}.asok", words[0]));
        let mut client = command(words, &monitor);
        client.arg("--admin_socket").arg(&socket).arg("--no-config-file");
        let client = Leash::start(client, folder.path().join("out")).unwrap();
        let answers = || request(&socket, "0").is_ok_and(|answer| answer == b"2");
        client.wait_until("answering", TIMEOUT, answers).unwrap();
        let got = ask(&socket, &["config", "get", "admin_socket"], None).unwrap();
        assert!(String::from_utf8_lossy(&got).contains(words[0]), "{words:?}");
    }
}

/// An option of every client on a host must not keep one from its work.
#[test]
fn a_socket_that_cannot_be_had_is_told_of_and_stops_no_client() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let monitor = format!("v2:{}", silent.local_addr().unwrap());
    let mut client = command(&["ping", "mon", "ADDR", "--timeout", "0.1"], &monitor);
    client.args(["--admin_socket", "/no/such/folder/asok", "--pid_file", "/no/such/pid"]);
    let told = failure(client);
    for part in [
        "cannot listen at the admin socket /no/such/folder/asok",
        "make the folder /no/such/folder",
        "pid_file has no effect",
        "siphon: ",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
