//! The driver's contract, in the scenarios that the real stacks pass.

mod common;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use common::{A, B, Got, Pair, Peer, net, pair, pattern, settle};
use siphon_net::{
    EventCenter, Handler, ListenOptions, SendStatus, SocketOptions, Wait, Worker, mailbox,
};
use siphon_wire::buf::SegmentPool;

#[test]
fn simple_test() {
    let net = net(1);
    let (mut acceptor, mut server, mut client) =
        (Peer::new(&net, A), Peer::new(&net, A), Peer::new(&net, B));
    let (listener, addr) = acceptor.listen(SocketAddr::new(A, 0));
    let cli = client.connect(addr);
    let accepted = acceptor.accepted();
    assert_eq!(accepted.local_addr(), addr);
    let peer = accepted.peer_addr();
    let srv = server.driver.adopt(accepted, &SocketOptions::default()).unwrap();
    client.connected(cli).unwrap();
    assert_eq!(client.driver.local_addr(cli).unwrap(), peer);
    assert_eq!(client.driver.peer_addr(cli).unwrap(), addr);
    assert_eq!(server.driver.peer_addr(srv).unwrap(), peer);
    assert_eq!(acceptor.driver.peer_addr(srv).unwrap_err().kind(), io::ErrorKind::NotConnected);

    let message = b"this is a new message";
    assert_eq!(client.send(cli, message), SendStatus::Complete);
    assert_eq!(server.recv_exactly(srv, message.len()), message);
    acceptor.driver.close_listener(listener);

    client.driver.shutdown_write(cli).unwrap();
    assert_eq!(client.send(cli, message), SendStatus::Pending);
    assert_eq!(client.sent(cli).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(server.recv(srv).unwrap(), b"", "the end of file");
    server.driver.close(srv);
    assert_eq!(client.recv(cli).unwrap(), b"", "the end of file");
    client.driver.close(cli);
    settle(&net, &mut [&mut client, &mut server, &mut acceptor]);
    assert!(net.connections().is_empty(), "{:?}", net.trace());
}

#[test]
fn connect_failed_test() {
    let net = net(2);
    let mut client = Peer::new(&net, B);
    let id = client.connect(SocketAddr::new(A, 1));
    client.driver.recv(id, None);
    assert_eq!(client.send(id, b"banner"), SendStatus::Pending);
    assert_eq!(client.connected(id).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    settle(&net, &mut [&mut client]);
    assert!(client.got.is_empty(), "{:?}", client.got);
    assert!(client.driver.shutdown_write(id).is_err());
    client.driver.close(id);

    let id = client.connect("255.255.255.255:1".parse().unwrap());
    assert_eq!(client.connected(id).unwrap_err().kind(), io::ErrorKind::NetworkUnreachable);
    client.driver.close(id);
    assert!(net.connections().is_empty());
}

#[test]
fn listen_test() {
    let net = net(3);
    let mut server = Peer::new(&net, A);
    let (first, addr) = server.listen(SocketAddr::new(A, 0));
    assert_ne!(addr.port(), 0);
    let error = server.driver.listen(addr, &ListenOptions::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    let elsewhere = server.driver.listen(SocketAddr::new(B, 0), &ListenOptions::default());
    assert_eq!(elsewhere.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    server.driver.close_listener(first);
    let (second, again) = server.listen(addr);
    assert_eq!(again, addr);
    assert_ne!(second, first);
}

#[test]
fn accept_and_close_test() {
    let net = net(4);
    let (mut server, mut client) = (Peer::new(&net, A), Peer::new(&net, B));
    let (listener, addr) = server.listen(SocketAddr::new(A, 6800));

    let cli = client.connect(addr);
    client.connected(cli).unwrap();
    drop(server.accepted());
    assert_eq!(client.recv(cli).unwrap(), b"", "the end of file");
    client.driver.close(cli);

    let cli = client.connect(addr);
    client.connected(cli).unwrap();
    client.driver.close(cli);
    let srv = server.accept();
    assert_eq!(server.recv(srv).unwrap(), b"", "the end of file");
    server.driver.close(srv);

    // Not delivered when the listener closes.
    let cli = client.connect(addr);
    client.connected(cli).unwrap();
    server.driver.close_listener(listener);
    assert_eq!(client.recv(cli).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    client.driver.close(cli);
    let cli = client.connect(addr);
    assert_eq!(client.connected(cli).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

/// A megabyte through buffers that are smaller, into the reader's own memory or not.
#[test]
fn complex_test() {
    const TOTAL: usize = 1 << 20;
    let Pair { mut client, mut server, cli, srv, .. } = pair(&net(5));
    let data = pattern(TOTAL);
    let pool = SegmentPool::new(0);
    for last in [false, true] {
        assert_eq!(client.send(cli, &data), SendStatus::Pending);
        if last {
            client.driver.shutdown_write(cli).unwrap();
        }
        let mut all = Vec::new();
        while all.len() < TOTAL {
            let bytes = server.recv_into(srv, Some(pool.take(10_000))).unwrap();
            assert!(!bytes.is_empty());
            all.extend(bytes);
        }
        assert!(all == data);
        client.sent(cli).unwrap();
    }
    assert_eq!(server.recv(srv).unwrap(), b"", "what was asked for while sending");
}

#[test]
fn a_close_with_bytes_unread_resets_the_peer() {
    let Pair { net, mut client, mut server, cli, srv, .. } = pair(&net(6));
    assert_eq!(client.send(cli, b"unread"), SendStatus::Complete);
    settle(&net, &mut [&mut client, &mut server]);
    server.driver.close(srv);
    assert_eq!(client.recv(cli).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(client.send(cli, b"more"), SendStatus::Pending);
    assert!(client.sent(cli).is_err());
}

#[test]
fn after_a_close_there_is_silence() {
    let Pair { net, mut client, mut server, cli, srv, .. } = pair(&net(7));
    client.driver.recv(cli, None);
    assert_eq!(client.send(cli, &pattern(1 << 20)), SendStatus::Pending);
    assert_eq!(server.send(srv, b"hello"), SendStatus::Complete);
    // The completion is due, and is not told.
    net.advance_to(net.now() + Duration::from_secs(1));
    assert!(net.has_work(client.id));
    client.driver.close(cli);
    client.driver.recv(cli, None);
    assert_eq!(client.send(cli, b"late"), SendStatus::Complete);
    settle(&net, &mut [&mut client, &mut server]);
    assert!(client.got.is_empty(), "{:?}", client.got);
}

#[test]
fn a_detached_socket_takes_its_bytes_along() {
    let Pair { net, mut client, mut server, cli, srv, .. } = pair(&net(8));
    let mut other = Peer::new(&net, A);
    let mut stranger = Peer::new(&net, B);
    assert_eq!(client.send(cli, b"along"), SendStatus::Complete);
    settle(&net, &mut [&mut client, &mut server]);
    server.driver.recv(srv, None);
    assert_eq!(server.driver.detach(srv).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    settle(&net, &mut [&mut server]);
    let Some(Got::Received(_, Ok(count), _)) = server.got.pop_front() else { panic!("no bytes") };
    let accepted = server.driver.detach(srv).unwrap();
    assert_eq!(server.driver.local_addr(srv).unwrap_err().kind(), io::ErrorKind::NotConnected);
    let moved = other.driver.adopt(accepted, &SocketOptions::default()).unwrap();
    assert_eq!(client.send(cli, b"and on"), SendStatus::Complete);
    assert_eq!(other.recv_exactly(moved, 11 - count), &b"alongand on"[count..]);

    // At once on, and back.
    let accepted = other.driver.detach(moved).unwrap();
    let back = server.driver.adopt(accepted, &SocketOptions::default()).unwrap();
    let accepted = server.driver.detach(back).unwrap();
    assert_eq!(client.send(cli, b"still"), SendStatus::Complete);
    settle(&net, &mut [&mut client, &mut server, &mut other]);
    let moved = other.driver.adopt(accepted, &SocketOptions::default()).unwrap();
    assert_eq!(other.recv_exactly(moved, 5), b"still");

    let accepted = other.driver.detach(moved).unwrap();
    let refused = stranger.driver.adopt(accepted, &SocketOptions::default());
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(client.recv(cli).unwrap(), b"", "dropped by the stranger");
}

#[test]
#[should_panic(expected = "one receive at a time")]
fn a_second_receive_is_a_bug() {
    let Pair { mut client, cli, .. } = pair(&net(9));
    client.driver.recv(cli, None);
    client.driver.recv(cli, None);
}

#[test]
fn a_waker_is_work_until_the_next_wait() {
    let net = net(10);
    let mut peer = Peer::new(&net, A);
    assert!(!net.has_work(peer.id));
    peer.driver.waker().wake();
    assert!(net.has_work(peer.id));
    peer.wait();
    assert!(!net.has_work(peer.id));
}

/// Counts mail until it has its fill.
struct Count(u32);

impl Handler for Count {
    type Mail = ();
    fn handle_completion(&mut self, _: std::time::Instant, _: siphon_net::Completion<'_>) {}
    fn handle_timer(&mut self, _: std::time::Instant, _: u64) {}
    fn handle_mail(&mut self, _: std::time::Instant, (): ()) {
        self.0 += 1;
    }
    fn drain(&mut self, _: &mut EventCenter) {}
    fn is_done(&self) -> bool {
        self.0 == 100
    }
}

/// Ceph's dispatch test. Mail wakes only a worker that sleeps, and one that is stepped never does
/// between its steps: who schedules workers steps each until none applies anything.
#[test]
fn dispatch_test() {
    let net = net(11);
    let (sender, mailbox) = mailbox();
    let mut worker = Worker::new(EventCenter::new(net.driver(A)), mailbox, Count(0));
    while !worker.handler().is_done() {
        sender.send(());
        assert_eq!(worker.step(Wait::Forever).unwrap(), 1);
        assert_eq!(worker.step(Wait::Forever).unwrap(), 0);
    }
}
