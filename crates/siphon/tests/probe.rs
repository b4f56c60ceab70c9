//! `siphon probe` against strangers of all kinds, our own messenger, and Ceph's own monitor.

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::BytesMut;
use common::{Listening, TIMEOUT, failure, siphon, stdout};
use serde_json::{Value, json};
use siphon_peers::{CephMon, MonOptions, MonProtocols, require};
use siphon_proto::v1::{self, ServerAddrs};
use siphon_proto::v2::{Banner, BannerFeatures};
use siphon_wire::types::EntityAddr;

/// What a probe finds at one address.
///
/// # Panics
/// The probe hangs.
fn found(mut command: Command) -> Value {
    command.arg("--json");
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(command.output().unwrap()));
    let output = receiver.recv_timeout(TIMEOUT).expect("it never hangs");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut targets: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let target = targets[0].take();
    assert_eq!(target["ceph"], target["addrs"][0]["ceph"], "{target}");
    assert_eq!(target["ceph"], output.status.success(), "{target}");
    assert!(output.status.code().is_some_and(|code| code < 2), "{target}");
    target["addrs"][0].clone()
}

/// A server for one connection, which does what a test wants.
struct Server {
    addr: SocketAddr,
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Server {
    fn start(act: impl FnOnce(TcpStream, Receiver<()>) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (end, ended) = channel();
        let thread = thread::spawn(move || act(listener.accept().unwrap().0, ended));
        Self { addr, end, thread }
    }

    /// What is found here, within a time.
    fn probed(self, timeout: &str) -> Value {
        let found = found(siphon(["probe", "--timeout", timeout, &self.addr.to_string()]));
        drop(self.end);
        self.thread.join().unwrap();
        found
    }

    /// Says these bytes, and then nothing until the probe is over.
    fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |mut socket, ended| {
            socket.write_all(&bytes).unwrap();
            let _ = ended.recv();
        })
    }
}

/// As long as no test waits for it to be over.
const LONG: &str = "60";
/// For those that are over when the time is.
const SHORT: &str = "3";

#[test]
fn silence_is_told() {
    let found = Server::saying("").probed(SHORT);
    assert_eq!(found["error"], "not Ceph: accepts connections and is silent");
}

#[test]
fn who_closes_at_once_is_told() {
    let found = Server::start(|socket, _| drop(socket)).probed(LONG);
    let expected = "not Ceph: accepts connections and closes them without a word";
    assert_eq!(found["error"], expected);
}

#[test]
fn who_speaks_first_is_known_by_it() {
    for (bytes, looks_like, says) in [
        (b"SSH-2.0-x\r\n".as_slice(), json!("an SSH server"), r"SSH-2.0-x\r\n"),
        (b"\xffgarbage\n", Value::Null, r"\xffgarbage\n"),
        (b"ceph v3\n", Value::Null, r"ceph v3\n"),
        (&[0; 500], Value::Null, &r"\x00".repeat(64)),
    ] {
        let found = Server::saying(bytes).probed(LONG);
        let expected = json!({
            "addr": found["addr"], "ceph": false, "says": says, "spoken_to": false,
            "looks_like": looks_like,
        });
        assert_eq!(found, expected);
    }
}

#[test]
fn who_waits_for_a_client_is_spoken_to() {
    for (answer, looks_like) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), "an HTTP server"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "a TLS server"),
    ] {
        let server = Server::start(move |mut socket, _| {
            let mut heard = [0; 8];
            socket.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"ceph v2\n");
            socket.write_all(answer).unwrap();
        });
        let found = server.probed(LONG);
        assert_eq!(found["looks_like"], looks_like, "{found}");
        assert_eq!(found["spoken_to"], true, "{found}");
    }
}

/// OpenSSL closes the connection without an alert if the first bytes are not TLS at all.
#[test]
fn who_hangs_up_on_strangers_is_spoken_to_in_tls() {
    for (answer, expected) in [
        (b"\x15\x03\x01\x00\x02\x02\x32".as_slice(), ["looks_like", "a TLS server"]),
        (b"", ["error", "not Ceph: closes connections without a word when spoken to"]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut heard = [0; 9];
            listener.accept().unwrap().0.read_exact(&mut heard).unwrap();
            let mut socket = listener.accept().unwrap().0;
            socket.read_exact(&mut heard).unwrap();
            assert_eq!(&heard[..3], b"\x16\x03\x01");
            socket.write_all(answer).unwrap();
        });
        let found = found(siphon(["probe", "--timeout", LONG, &addr.to_string()]));
        server.join().unwrap();
        assert_eq!(found[expected[0]], expected[1], "{found}");
    }
}

#[test]
fn half_a_banner_is_none() {
    for half in ["c", "ceph v", "ceph v2\n\x10"] {
        let found = Server::saying(half).probed(SHORT);
        assert_eq!(found["says"], half.as_bytes().escape_ascii().to_string(), "{found}");
        assert_eq!(found["error"], "it says nothing more before the timeout");
    }
    let found = Server::start(|mut socket, _| socket.write_all(b"ceph v2\n").unwrap()).probed(LONG);
    assert_eq!(found["error"], "it closes the connection");
}

/// Each byte would be in time, but all of them are not.
#[test]
fn a_byte_now_and_then_buys_no_time() {
    let drip = |bytes: Vec<u8>| {
        Server::start(move |mut socket, ended| {
            for byte in bytes {
                let is_over = ended.recv_timeout(Duration::from_millis(300));
                if is_over != Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                    || socket.write_all(&[byte]).is_err()
                {
                    return;
                }
            }
            panic!("heard all of it");
        })
    };
    // A banner as long as it may be, and 272 bytes of addresses: minutes, at this rate.
    let mut v2 = b"ceph v2\n\x00\x01".to_vec();
    v2.resize(266, 0);
    let found = drip(v2).probed(SHORT);
    assert_eq!(found["error"], "it says nothing more before the timeout", "{found}");
    let v1 = [v1::BANNER.as_slice(), &[0; ServerAddrs::LEN]].concat();
    let found = drip(v1).probed("6");
    assert_eq!(found["error"], "it says nothing more before the timeout", "{found}");
}

#[test]
fn a_banner_alone_is_not_ceph() {
    let mut bytes = BytesMut::new();
    let banner = Banner { supported: BannerFeatures::COMPRESSION, required: BannerFeatures::NONE };
    banner.encode(&mut bytes);
    let found = Server::saying(bytes).probed(SHORT);
    assert_eq!(found["ceph"], false, "{found}");
    assert_eq!(found["protocol"], "msgr2.0", "{found}");
    assert_eq!(found["banner_supported"], json!(["compression"]), "{found}");
    assert_eq!(found["daemon"], Value::Null, "{found}");
    assert_eq!(found["error"], "it says nothing more before the timeout");

    let mut bytes = BytesMut::from(v1::BANNER.as_slice());
    let server = EntityAddr::legacy("10.0.0.1:6789".parse().unwrap(), 7);
    ServerAddrs { server, client: server }.encode(&mut bytes);
    let found = Server::saying(bytes).probed(SHORT);
    assert_eq!(found["ceph"], false, "{found}");
    assert_eq!(found["protocol"], "msgr1", "{found}");
    assert_eq!(found["own_addr"], "v1:10.0.0.1:6789/7", "{found}");
    assert_eq!(found["error"], "it says nothing more before the timeout");
}

#[test]
fn a_damaged_handshake_ends_at_once() {
    let mut banner = BytesMut::new();
    Banner::default().encode(&mut banner);
    let required = BannerFeatures(1 << 40);
    let mut strict = BytesMut::new();
    Banner { supported: required, required }.encode(&mut strict);
    let endless_reply = {
        let mut bytes = [v1::BANNER.as_slice(), &[0; ServerAddrs::LEN]].concat();
        let mut reply = BytesMut::new();
        let tag = v1::tag::BADAUTHORIZER;
        v1::ConnectReply { tag, authorizer_len: u32::MAX, ..Default::default() }.encode(&mut reply);
        bytes.extend_from_slice(&reply);
        bytes
    };
    for (bytes, error) in [
        ([&banner[..], &[0; 64]].concat(), "unknown tag 0"),
        (strict.to_vec(), "0x10000000000"),
        (b"ceph v2\n\xff\xff".to_vec(), "payload of 65535 bytes"),
        (b"ceph v026".to_vec(), "another version"),
        (endless_reply, "authorizer of 4294967295 bytes"),
    ] {
        let found = Server::saying(bytes).probed(LONG);
        let said = found["error"].as_str().unwrap();
        assert!(said.contains(error), "{said}, not {error}");
        assert_eq!(found["ceph"], false, "{found}");
    }
}

/// More than a handshake takes is not listened to.
#[test]
fn who_talks_without_end_is_not_listened_to() {
    let server = Server::start(|mut socket, _| {
        let mut bytes = v1::BANNER.to_vec();
        bytes.resize(64 << 10, 0);
        let mut said = 0;
        let error = loop {
            match socket.write(&bytes[(said % (64 << 10))..]) {
                Ok(len) => said += len,
                Err(error) => break error,
            }
        };
        let hung_up = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind());
        assert!(hung_up, "{error}");
    });
    let found = server.probed(LONG);
    assert_eq!(found["error"], "it answers 0, which means nothing", "{found}");
}

#[test]
fn our_own_messenger_needs_no_key() {
    let echo = Listening::start(["echo", "ADDR", "--as", "osd.3"]);
    let found = found(siphon(["probe", &echo.addr.to_string()]));
    assert_eq!(found["ceph"], true, "{found}");
    assert_eq!(found["daemon"], "osd", "{found}");
    assert_eq!(found["methods"], json!(["none"]), "{found}");
    assert_eq!(found["with_none"], json!({ "global_id": 0, "mode": "crc" }), "{found}");
    assert_eq!(found["at_least_release"], "quincy", "{found}");
}

#[test]
fn the_command_line_says_what_is_wrong() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = failure(siphon(["probe", &nobody.to_string()]));
    assert!(text.contains("refused"), "{text}");
    for args in [["probe", "host:x"], ["probe", "--timeout=-1"], ["probe", "--timeout=1e300"]] {
        let text = failure(siphon(args));
        assert!(text.contains("--help"), "{text}");
    }
    let text = failure(siphon(["probe", "no-such-host.invalid:3300"]));
    assert!(text.contains("host"), "{text}");
}

#[test]
fn one_stranger_fails_the_probe_of_many() {
    let echo = Listening::start(["echo", "ADDR"]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let both = format!("[v2:{},v2:{nobody}]", echo.addr);
    for args in [[&echo.addr.to_string(), &nobody.to_string()].as_slice(), &[&both]] {
        let mut command = siphon(["probe"]);
        command.args(args);
        let text = failure(command);
        assert!(text.contains(&format!("{}  msgr2.1", echo.addr)), "{text}");
        let complaint = format!("not what speaks Ceph: {}", args[args.len() - 1]);
        assert!(text.contains(&complaint), "{text}");
    }
    let wrong = failure(siphon(["probe", &format!("v1:{}", echo.addr)]));
    assert!(wrong.contains("msgr2.1, and not v1 as was said"), "{wrong}");
}

#[test]
fn a_real_monitor_tells_both_protocols() {
    let options = MonOptions { protocols: MonProtocols::Both, ..MonOptions::default() };
    let Some(mon) = require(CephMon::start(options)) else { return };
    let (v2, v1) = (mon.addr_v2().unwrap(), mon.addr_v1().unwrap());

    let msgr2 = found(siphon(["probe", &v2.to_string()]));
    assert_eq!(msgr2["ceph"], true, "{msgr2}");
    assert_eq!(msgr2["protocol"], "msgr2.1", "{msgr2}");
    assert_eq!(msgr2["daemon"], "mon", "{msgr2}");
    assert_eq!(msgr2["methods"], json!(["none"]), "{msgr2}");
    assert_eq!(msgr2["modes"], json!(["secure", "crc"]), "{msgr2}");
    let sees_us_at = msgr2["sees_us_at"].as_str().unwrap();
    assert!(sees_us_at.starts_with("v2:127.0.0.1:"), "{msgr2}");

    let msgr1 = found(siphon(["probe", &v1.to_string()]));
    assert_eq!(msgr1["ceph"], true, "{msgr1}");
    assert_eq!(msgr1["protocol"], "msgr1", "{msgr1}");
    assert_eq!(msgr1["daemon"], "mon", "{msgr1}");
    assert_eq!(msgr1["own_addr"], format!("v1:{v1}/0"), "{msgr1}");
    let features = msgr1["features"].as_array().unwrap();
    assert!(features.contains(&json!("SERVER_PACIFIC")), "{msgr1}");
    assert_ne!(msgr1["at_least_release"], Value::Null, "{msgr1}");

    let text = stdout(siphon(["probe", &format!("[v2:{v2},v1:{v1}]")]));
    assert!(text.contains(&format!("{v2}  msgr2.1")), "{text}");
    assert!(text.contains(&format!("{v1}  msgr1")), "{text}");
    for (protocol, addr) in [("v1", v2), ("v2", v1)] {
        let said = failure(siphon(["probe", &format!("{protocol}:{addr}")]));
        assert!(said.contains(&format!("and not {protocol} as was said")), "{said}");
    }
}
