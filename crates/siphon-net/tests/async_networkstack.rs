//! The scenarios of Ceph's test_async_networkstack, under its names.

#![allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]

mod common;
#[path = "common/stress.rs"]
mod stress;

use std::io;

use bytes::Bytes;
use common::{Net, pattern};
use siphon_net::{ListenError, ListenOptions, SendStatus, SocketOptions};
use siphon_wire::buf::Rope;

/// A connection between two workers, and one that a third accepts for them.
#[test]
fn simple_test() {
    for &kind in common::SYSTEM_STACKS {
        let (mut acceptor, mut server, mut client) =
            (Net::new(kind), Net::new(kind), Net::new(kind));
        let (listener, addr) = acceptor.listen("127.0.0.1:0");
        let cli = client.connect(addr);
        let accepted = acceptor.accepted();
        assert_eq!(accepted.local_addr(), addr);
        let peer = accepted.peer_addr();
        let srv = server.driver.adopt(accepted, &SocketOptions::default()).unwrap();
        client.connected(cli).unwrap();
        assert_eq!(client.driver.local_addr(cli).unwrap(), peer);
        assert_eq!(client.driver.peer_addr(cli).unwrap(), addr);
        assert_eq!(server.driver.peer_addr(srv).unwrap(), peer);

        let message = &b"this is a new message"[..];
        assert_eq!(client.send(cli, message), SendStatus::Complete);
        assert_eq!(server.recv_exactly(srv, message.len()), message);
        acceptor.driver.close_listener(listener);

        client.driver.shutdown_write(cli).unwrap();
        assert_eq!(client.send(cli, message), SendStatus::Pending);
        assert_eq!(client.sent(cli).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(server.recv(srv).unwrap(), b"", "the end of file");
        server.driver.close(srv);
        assert_eq!(client.recv(cli).unwrap(), b"", "the end of file");
    }
}

#[test]
fn connect_failed_test() {
    // Bound and not listening: nobody else can take the port meanwhile.
    let bound = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&bound, &std::net::SocketAddrV4::new([127, 0, 0, 1].into(), 0)).unwrap();
    let closed = rustix::net::getsockname(&bound).unwrap().try_into().unwrap();
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let id = net.connect(closed);
        // What is asked for before the outcome ends with it, without a completion.
        net.driver.recv(id, None);
        assert_eq!(net.send(id, &b"banner"[..]), SendStatus::Pending);
        assert_eq!(net.connected(id).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        net.wait(siphon_net::Wait::Poll);
        assert!(net.events.is_empty(), "{:?}", net.events);
        assert!(net.driver.shutdown_write(id).is_err());
        net.driver.close(id);

        // Nobody can connect to broadcast; the system says so at once, we in the completion.
        let id = net.connect("255.255.255.255:1".parse().unwrap());
        assert_eq!(net.connected(id).unwrap_err().kind(), io::ErrorKind::NetworkUnreachable);
        net.driver.close(id);
    }
}

#[test]
fn listen_test() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (first, addr) = net.listen("127.0.0.1:0");
        assert_ne!(addr.port(), 0);
        let error = net.driver.listen(addr, &ListenOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ListenError>());
        assert_eq!(inner.map(ListenError::addr), Some(addr));

        net.driver.close_listener(first);
        let (second, again) = net.driver.listen(addr, &ListenOptions::default()).unwrap();
        assert_eq!(again, addr);
        assert_ne!(second, first);
    }
}

#[test]
fn accept_and_close_test() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (listener, addr) = net.listen("127.0.0.1:0");

        // Accepted, and dropped without an owner.
        let cli = net.connect(addr);
        net.connected(cli).unwrap();
        drop(net.accepted());
        assert_eq!(net.recv(cli).unwrap(), b"", "the end of file");
        net.driver.close(cli);

        // Closed by the peer before it is accepted.
        let cli = net.connect(addr);
        net.connected(cli).unwrap();
        net.driver.close(cli);
        let srv = net.accept();
        assert_eq!(net.recv(srv).unwrap(), b"", "the end of file");
        net.driver.close(srv);

        net.driver.close_listener(listener);
        let cli = net.connect(addr);
        assert_eq!(net.connected(cli).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}

/// Two times a hundred parts of 10 KiB, with the reader taking what it gets.
#[test]
fn complex_test() {
    const PART: usize = 10_240;
    const PARTS: usize = 100;
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (cli, srv) = net.pair("127.0.0.1:0", &SocketOptions::default());
        let part = Bytes::from(pattern(PART));
        for _ in 0..2 {
            let mut rope = Rope::new();
            for _ in 0..PARTS {
                rope.push(part.clone());
            }
            let status = net.driver.send(cli, &mut rope);
            let all = net.recv_exactly(srv, PART * PARTS);
            assert!(all.chunks(PART).all(|got| got == part));
            if status == SendStatus::Pending {
                net.sent(cli).unwrap();
            }
        }
    }
}

/// Sixteen clients and as many echoing servers on two workers.
#[test]
fn stress_test() {
    for &kind in common::SYSTEM_STACKS {
        stress::run(kind);
    }
}
