//! Peers that are wrong, broken or silent: whoever runs the messenger is told who did what, and
//! everybody else is served.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{HUNG, bound, client, context, message, next_message, osd};
use siphon_msgr::{BindError, CloseReason, Messenger, Stack};
use siphon_proto::v2::{BannerError, BannerFeatures};
use siphon_proto::{PeerIncompatible, Policy, ProtocolError};
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType, Features};

/// A server's address as a socket address.
fn socket_addr(addrs: &EntityAddrVec) -> std::net::SocketAddr {
    addrs[0].socket_addr().unwrap()
}

/// A listener that answers each peer by `bytes`, then reads until the peer leaves.
fn listener(bytes: &'static [u8]) -> EntityAddrVec {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("v2:{}/0", listener.local_addr().unwrap()).parse().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(bytes);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    addr
}

/// Why a client's connection to these bytes ends.
fn ends_by(bytes: &'static [u8], ready_timeout: Duration) -> CloseReason {
    let context = context(|config| config.ms_connection_ready_timeout = ready_timeout);
    let stack = Stack::new(&context).unwrap();
    let client = client(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, listener(bytes));
    let reason = pollster::block_on(connection.attempt()).unwrap_err();
    pollster::block_on(client.shutdown());
    reason
}

#[test]
fn a_client_is_told_what_it_has_reached() {
    let protocol = |reason| match reason {
        CloseReason::Protocol(error) => error,
        other => panic!("{other}"),
    };
    let http = protocol(ends_by(b"HTTP/1.1 400 Bad Request\r\n", HUNG));
    assert!(
        http.to_string().contains("not a Ceph messenger: it begins with \"HTTP/1.1\""),
        "{http}"
    );
    let v1 = protocol(ends_by(b"ceph v027", HUNG));
    assert_eq!(v1, ProtocolError::Banner(BannerError::V1Peer));
    let needs = b"ceph v2\n\x10\x00\x09\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0";
    let lack = protocol(ends_by(needs, HUNG));
    assert_eq!(lack, ProtocolError::Banner(BannerError::WeLack(BannerFeatures(8))));
    let silent = protocol(ends_by(b"", Duration::from_millis(50)));
    assert_eq!(silent, ProtocolError::ReadyTimeout);
}

#[test]
fn a_closed_port_and_a_wrong_daemon_are_told() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let client = client(&context, &stack);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let connection = client.connect_to(EntityType::OSD, format!("v2:{closed}/0").parse().unwrap());
    let reason = pollster::block_on(connection.attempt()).unwrap_err();
    assert!(matches!(reason, CloseReason::Refused { .. }), "{reason}");

    let (osd, _received) = osd(&context, &stack);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let connection = client.connect_to(EntityType::MON, addrs);
    let reason = pollster::block_on(connection.attempt()).unwrap_err();
    assert!(reason.to_string().contains("expected a mon, it is a osd"), "{reason}");

    let nowhere = client.connect_to(EntityType::OSD, "v1:127.0.0.1:0/0".parse().unwrap());
    let reason = pollster::block_on(nowhere.attempt()).unwrap_err();
    assert!(matches!(reason, CloseReason::NoUsableAddress { .. }), "{reason}");
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
}

#[test]
fn missing_features_are_named() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let osd = Messenger::builder(&context, &stack, EntityName::new(EntityType::OSD, 0))
        .default_policy(Policy::STATELESS_SERVER.requiring(Features::SERVER_NAUTILUS))
        .start()
        .unwrap();
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let few = Policy { features_supported: Features::MSG_ADDR2, ..Policy::LOSSY_CLIENT };
    let client = Messenger::builder(&context, &stack, EntityName::new(EntityType::CLIENT, 1))
        .default_policy(few)
        .start()
        .unwrap();
    let connection = client.connect_to(EntityType::OSD, addrs);
    let reason = pollster::block_on(connection.attempt()).unwrap_err();
    assert!(
        matches!(
            &reason,
            CloseReason::Protocol(ProtocolError::PeerIncompatible(
                PeerIncompatible::WeLackFeatures(missing)
            )) if *missing == Features::MSG_ADDR2.missing(Features::SERVER_NAUTILUS)
        ),
        "{reason}"
    );
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
}

#[test]
fn an_address_in_use_and_a_full_range_are_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hold = TcpListener::bind(taken).unwrap();
    let context = context(|config| {
        config.ms_bind_port_min = taken.port();
        config.ms_bind_port_max = taken.port();
        config.ms_bind_retry_count = 2;
        config.ms_bind_retry_delay = Duration::ZERO;
    });
    let stack = Stack::new(&context).unwrap();
    let (osd, _received) = osd(&context, &stack);
    let error = osd.bind(&[format!("v2:{taken}/0").parse().unwrap()]).unwrap_err();
    assert!(error.to_string().contains("another process listens there"), "{error}");
    let error = osd.bind(&["v2:127.0.0.1:0/0".parse().unwrap()]).unwrap_err();
    assert!(
        matches!(error, BindError::NoFreePort { min, tries: 3, .. } if min == taken.port()),
        "{error}"
    );
    drop(hold);
    osd.bind(&["v2:127.0.0.1:0/0".parse().unwrap()]).unwrap();
    pollster::block_on(osd.shutdown());
}

/// Everything that a server logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A server's handshake frame with these first bytes, and a right checksum.
fn preamble(tag: u8, segments: u8, length: u32) -> Vec<u8> {
    let mut frame = vec![tag, segments];
    frame.extend_from_slice(&length.to_le_bytes());
    frame.resize(28, 0);
    frame.extend_from_slice(&siphon_wire::crc32c::crc32c(0, &frame).to_le_bytes());
    frame
}

#[test]
fn a_server_tells_who_did_what_and_goes_on() {
    let log = Log::default();
    let writer = log.clone();
    let logging = siphon_common::logging::subscriber("warn", move || writer.clone()).unwrap();
    tracing::subscriber::set_global_default(logging).unwrap();
    let context = context(|config| config.ms_connection_ready_timeout = Duration::from_millis(200));
    let stack = Stack::new(&context).unwrap();
    let (osd, received) = osd(&context, &stack);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let banner = b"ceph v2\n\x10\x00\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let after_banner = |bytes: Vec<u8>| [banner.clone(), bytes].concat();
    let mut damaged = preamble(1, 1, 30);
    damaged[2] ^= 1;
    let bad = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not a Ceph messenger"),
        (b"\x16\x03\x01\x02\0\x01\0".to_vec(), "not a Ceph messenger"),
        (vec![0; 64], "not a Ceph messenger"),
        (b"ceph v027".to_vec(), "speaks msgr1 only"),
        (after_banner(preamble(99, 1, 0)), "unknown tag 99"),
        (after_banner(preamble(1, 1, 1 << 30)), "announces 1073741824 bytes"),
        (after_banner(preamble(17, 4, 41)), "announces 41 bytes of header"),
        (after_banner(preamble(1, 2, 0)), "HELLO with 2 segments"),
        (after_banner(damaged), "the preamble's crc"),
        (after_banner([preamble(1, 1, 4), vec![0; 8]].concat()), "the crc of HELLO's payload"),
        (after_banner(preamble(8, 1, 0)), "CLIENT_IDENT while exchanging hellos"),
        (Vec::new(), "did not finish the handshake in time"),
        (b"c".to_vec(), "did not finish the handshake in time"),
    ];
    for (bytes, expected) in &bad {
        let mut peer = TcpStream::connect(socket_addr(&addrs)).unwrap();
        peer.set_read_timeout(Some(HUNG)).unwrap();
        let local = peer.local_addr().unwrap().to_string();
        peer.write_all(bytes).unwrap();
        // It is hung up on, whatever it is told before.
        let _ = peer.read_to_end(&mut Vec::new());
        let text = loop {
            let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
            if let Some(line) = text.lines().find(|line| line.contains(&local)) {
                break line.to_owned();
            }
            std::thread::yield_now();
        };
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // A thousand who say nothing, and one who has something to say.
    let silent: Vec<_> =
        (0..1000).map(|_| TcpStream::connect(socket_addr(&addrs)).unwrap()).collect();
    let client = client(&context, &stack);
    client.connect_to(EntityType::OSD, addrs).send(message(42, 7)).unwrap();
    assert_eq!(next_message(&received), 7);
    drop(silent);
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
}
