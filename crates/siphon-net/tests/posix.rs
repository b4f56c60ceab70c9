//! What connections must withstand, on every stack.

#![allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]

mod common;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::{Event, Net, has_ipv6, pattern};
use rustix::net::sockopt::set_socket_linger;
use siphon_net::{
    Accepted, CongestionControl, FillBuf, ListenOptions, SCRATCH_BYTES, SendStatus, SocketId,
    SocketOptions, StackKind, Wait,
};
use siphon_wire::buf::{Rope, SegmentPool};

const LOOPBACK: &str = "127.0.0.1:0";

/// A socket of `net`, and the system's own at its other end.
fn with_stream(net: &mut Net) -> (SocketId, TcpStream) {
    with_stream_of(net, &SocketOptions::default())
}

fn with_stream_of(net: &mut Net, options: &SocketOptions) -> (SocketId, TcpStream) {
    let (listener, addr) = net.listen(LOOPBACK);
    let stream = TcpStream::connect(addr).unwrap();
    let accepted = net.accepted();
    let id = net.driver.adopt(accepted, options).unwrap();
    net.driver.close_listener(listener);
    (id, stream)
}

/// Sockets that send by BBR; where the system does not have it, the test says so.
fn bbr() -> Option<SocketOptions> {
    let bbr = CongestionControl::named("bbr").unwrap();
    match bbr.map_or(Ok(()), |bbr| bbr.check()) {
        Ok(()) => Some(SocketOptions { congestion_control: bbr, ..Default::default() }),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// Closes so that the peer gets a reset.
fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn a_send_beyond_the_buffers_completes_when_the_peer_reads() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let tiny = SocketOptions { send_buffer: 4096, ..Default::default() };
        let (cli, srv) = net.pair(LOOPBACK, &tiny);
        let bytes = pattern(1 << 20);
        let mut rope = Rope::new();
        // More slices than one system call takes, of uneven lengths.
        for part in bytes.chunks(211) {
            rope.push(part.to_vec().into());
        }
        assert_eq!(net.driver.send(cli, &mut rope), SendStatus::Pending);
        assert!(rope.is_empty());
        // The end follows what is still to be sent.
        net.driver.shutdown_write(cli).unwrap();
        assert!(net.recv_exactly(srv, bytes.len()) == bytes);
        net.sent(cli).unwrap();
        assert_eq!(net.recv(srv).unwrap(), b"");
        assert!(net.events.is_empty(), "{:?}", net.events);
    }
}

/// More than a turn's share goes on by itself, without the system telling again that it may.
#[test]
fn a_send_beyond_a_turn_goes_on_by_itself() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (cli, srv) = net.pair(LOOPBACK, &SocketOptions::default());
        let bytes = pattern(16 << 20);
        let status = net.send(cli, bytes.clone());
        assert_eq!(status, SendStatus::Pending, "no system buffers this much");
        assert!(net.recv_exactly(srv, bytes.len()) == bytes);
        net.sent(cli).unwrap();
    }
}

#[test]
fn both_directions_are_full_at_once() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (cli, srv) = net.pair(LOOPBACK, &SocketOptions::default());
        let bytes = pattern(16 << 20);
        let _ = net.send(cli, bytes.clone());
        let _ = net.send(srv, bytes.clone());
        assert!(net.recv_exactly(srv, bytes.len()) == bytes);
        assert!(net.recv_exactly(cli, bytes.len()) == bytes);
        net.sent(cli).unwrap();
        net.sent(srv).unwrap();
    }
}

#[test]
fn the_fill_is_filled_first_and_the_rest_is_beside() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (cli, srv) = net.pair(LOOPBACK, &SocketOptions::default());
        let pool = SegmentPool::new(0);
        // Far more than a scratch, and not whole pages.
        let (in_fill, beyond) = (8 * SCRATCH_BYTES + 77, 1000);
        let bytes = pattern(in_fill + beyond);
        let status = net.send(cli, bytes.clone());
        let mut fill = pool.take(in_fill);
        let mut rest = Vec::new();
        while fill.filled().len() + rest.len() < bytes.len() {
            net.driver.recv(srv, Some(fill));
            let (back, beside) = net.received(srv).unwrap();
            fill = back.expect("the buffer comes back");
            assert!(beside.is_empty() || fill.is_full());
            rest.extend_from_slice(&beside);
        }
        if status == SendStatus::Pending {
            net.sent(cli).unwrap();
        }
        assert!(fill.filled() == &bytes[..in_fill]);
        assert_eq!(rest, bytes[in_fill..]);

        // A full one and an error give it back all the same.
        net.driver.close(cli);
        net.driver.recv(srv, Some(fill));
        let (fill, beside) = net.received(srv).unwrap();
        assert!(fill.is_some_and(|fill| fill.is_full()) && beside.is_empty());
    }
}

/// Receives into `fill` until it is full, or the end or an error comes.
fn fill_up(net: &mut Net, id: SocketId, mut fill: FillBuf) -> io::Result<FillBuf> {
    loop {
        let before = fill.filled().len();
        net.driver.recv(id, Some(fill));
        net.wait(Wait::Poll); // where nothing is there, it says what is missing
        fill = net.received(id)?.0.expect("the buffer comes back");
        if fill.is_full() || fill.filled().len() == before {
            return Ok(fill);
        }
    }
}

/// Has the peer send a long segment, cut into pieces, to who waits for it already.
fn long_segment(net: &mut Net, id: SocketId, stream: &mut TcpStream, piece: usize) {
    const LEN: usize = 3 << 20;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pattern(LEN).chunks(piece).for_each(|bytes| stream.write_all(bytes).unwrap());
        });
        let fill = fill_up(net, id, SegmentPool::new(0).take(LEN)).unwrap();
        assert!(fill.filled() == pattern(LEN));
    });
}

/// Under BBR the posix stack waits for a good part of a long segment. However it is cut, nothing waits for
/// ever, and what is short and comes behind it is told of at once, be it at another worker.
#[test]
fn a_long_segment_under_bbr_comes_in_any_pieces_and_so_does_what_is_behind_it() {
    let Some(options) = bbr() else { return };
    for &kind in common::SYSTEM_STACKS {
        for piece in [1000, 100_000, 3 << 20] {
            let (mut net, mut other) = (Net::new(kind), Net::new(kind));
            let (id, mut stream) = with_stream_of(&mut net, &options);
            long_segment(&mut net, id, &mut stream, piece);
            stream.write_all(b"a").unwrap();
            assert_eq!(net.recv_exactly(id, 1), b"a");

            long_segment(&mut net, id, &mut stream, piece);
            let accepted = net.driver.detach(id).unwrap();
            let id = other.driver.adopt(accepted, &SocketOptions::default()).unwrap();
            stream.write_all(b"b").unwrap();
            assert_eq!(other.recv_exactly(id, 1), b"b", "its mark stayed behind");
        }
    }
}

#[test]
fn a_long_segment_under_bbr_may_end_in_its_midst() {
    let Some(options) = bbr() else { return };
    for &kind in common::SYSTEM_STACKS {
        for is_reset in [false, true] {
            let mut net = Net::new(kind);
            let (id, mut stream) = with_stream_of(&mut net, &options);
            let fill = SegmentPool::new(0).take(3 << 20);
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    stream.write_all(&[1; 20_000]).unwrap();
                    if is_reset {
                        reset(stream);
                    }
                });
                let end = fill_up(&mut net, id, fill);
                match is_reset {
                    true => assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset),
                    false => assert_eq!(end.unwrap().filled(), [1; 20_000]),
                }
            });
        }
    }
}

/// The system tells of the bytes and of the end at once. The read of the bytes is short, which says
/// that nothing is left, and yet the end must come: no event tells of it again.
#[test]
fn the_end_of_file_behind_a_short_read_comes() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (id, mut stream) = with_stream(&mut net);
        stream.write_all(b"last words").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(net.recv_exactly(id, 10), b"last words");
        assert_eq!(net.recv(id).unwrap(), b"");
        assert_eq!(net.recv(id).unwrap(), b"", "it stays at its end");
        // Half closed: the other direction works.
        assert_eq!(net.send(id, &b"heard"[..]), SendStatus::Complete);
        net.driver.close(id);
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "heard");
    }
}

#[test]
fn a_reset_ends_the_receive_and_the_sends() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (id, stream) = with_stream(&mut net);
        net.driver.recv(id, Some(SegmentPool::new(0).take(10)));
        reset(stream);
        let error = net.received(id).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        for _ in 0..2 {
            assert_eq!(net.send(id, &b"anyone?"[..]), SendStatus::Pending);
            assert_eq!(net.sent(id).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
        assert!(net.driver.peer_addr(id).is_err());
        assert!(net.driver.shutdown_write(id).is_err());
    }
}

#[test]
fn a_reset_ends_a_send_in_flight() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (id, stream) = with_stream(&mut net);
        assert_eq!(net.send(id, vec![0; 64 << 20]), SendStatus::Pending);
        reset(stream);
        net.sent(id).unwrap_err();
    }
}

#[test]
fn after_close_comes_nothing() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (id, mut stream) = with_stream(&mut net);
        stream.write_all(b"unread").unwrap();
        net.driver.recv(id, None);
        assert_eq!(net.send(id, vec![0; 64 << 20]), SendStatus::Pending);
        net.driver.close(id);

        net.driver.recv(id, None);
        net.driver.recv(id, None);
        assert_eq!(net.send(id, &b"late"[..]), SendStatus::Pending);
        assert_eq!(net.driver.local_addr(id).unwrap_err().kind(), io::ErrorKind::NotConnected);
        net.driver.close(id);

        // The next socket has its place but not its id, nor its completions.
        let (next, mut stream) = with_stream(&mut net);
        assert_ne!(next, id);
        stream.write_all(b"read").unwrap();
        assert_eq!(net.recv_exactly(next, 4), b"read");
        assert!(net.events.is_empty(), "{:?}", net.events);
    }
}

#[test]
fn ops_before_connected_start_then() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let listener = TcpListener::bind(LOOPBACK).unwrap();
        let id = net.connect(listener.local_addr().unwrap());
        net.driver.recv(id, None);
        assert_eq!(net.send(id, &b"early"[..]), SendStatus::Pending);
        net.driver.shutdown_write(id).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"answer").unwrap();
        net.connected(id).unwrap();
        net.sent(id).unwrap();
        assert_eq!(net.received(id).unwrap().1, b"answer");
        let mut early = String::new();
        stream.read_to_string(&mut early).unwrap();
        assert_eq!(early, "early");
    }
}

#[test]
fn an_end_asked_for_while_connecting_follows_alone() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let listener = TcpListener::bind(LOOPBACK).unwrap();
        let id = net.connect(listener.local_addr().unwrap());
        net.driver.shutdown_write(id).unwrap();
        net.connected(id).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    }
}

#[test]
fn ipv6_and_ipv4_have_a_port_each() {
    if !has_ipv6() {
        return;
    }
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (cli, srv) = net.pair("[::1]:0", &SocketOptions::default());
        assert!(net.driver.peer_addr(srv).unwrap().is_ipv6());
        assert_eq!(net.send(cli, &b"six"[..]), SendStatus::Complete);
        assert_eq!(net.recv_exactly(srv, 3), b"six");

        // Another process may have one of the ports, but hardly each.
        let both = (0..10).any(|_| {
            let (_, v6) = net.listen("[::]:0");
            let v4 = SocketAddr::from(([0, 0, 0, 0], v6.port()));
            net.driver.listen(v4, &ListenOptions::default()).is_ok()
        });
        assert!(both);
        let (_, v6) = net.listen("[::]:0");
        let dual = ListenOptions { ipv6_only: false, ..Default::default() };
        net.driver.listen(v6, &ListenOptions::default()).unwrap_err();
        let (_, dual) = net.driver.listen("[::]:0".parse().unwrap(), &dual).unwrap();
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], dual.port()))).unwrap();
        assert!(net.accepted().peer_addr().is_ipv6(), "mapped");
    }
}

#[test]
fn a_burst_of_connections_is_accepted_to_the_last() {
    // More than a listener accepts in one wait.
    const BURST: usize = 100;
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (_, addr) = net.listen(LOOPBACK);
        let streams: Vec<_> = (0..BURST).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut peers: Vec<_> = (0..BURST).map(|_| net.accepted().peer_addr()).collect();
        let mut ours: Vec<_> = streams.iter().map(|s| s.local_addr().unwrap()).collect();
        peers.sort();
        ours.sort();
        assert_eq!(peers, ours);
    }
}

#[test]
fn a_connection_of_another_stack_is_refused() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let addr: SocketAddr = LOOPBACK.parse().unwrap();
        let foreign = Accepted::new(addr, addr, "not a socket");
        let error = net.driver.adopt(foreign, &SocketOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

/// Each socket with something gets one turn in a wait, whatever the others have.
#[test]
fn every_readable_socket_is_served_in_one_wait() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let pairs: Vec<_> = (0..8).map(|_| with_stream(&mut net)).collect();
        // Once a socket is known to have more than a receive takes, no event tells of it again.
        for (_, stream) in &pairs {
            let mut stream = stream;
            stream.write_all(b"ab").unwrap();
        }
        for (id, _) in &pairs {
            net.driver.recv(*id, None);
        }
        let mut served = std::collections::BTreeSet::new();
        while served.len() < pairs.len() {
            net.wait(Wait::Forever);
            let mut in_this_wait = std::collections::BTreeSet::new();
            for event in net.events.drain(..) {
                let Event::Received { socket, .. } = event else { panic!("{event:?}") };
                assert!(in_this_wait.insert(socket), "served twice in one wait");
                served.insert(socket);
            }
        }
    }
}

#[test]
#[should_panic(expected = "one send at a time")]
fn a_second_send_in_flight_is_a_bug() {
    let mut net = Net::new(StackKind::Posix);
    let (id, _stream) = with_stream(&mut net);
    let _ = net.send(id, vec![0; 64 << 20]);
    let _ = net.send(id, &b"more"[..]);
}

#[test]
fn a_wake_ends_the_wait_before_and_during_it() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let waker = net.driver.waker();
        // Before: each wake is an edge, also when the one before it was never looked at.
        for _ in 0..3 {
            waker.wake_by_ref();
            waker.wake_by_ref();
            net.wait(Wait::Forever);
        }
        // During, or just before, or just after the last: the waker's thread goes on by our answer.
        let (awake, woken) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            for _ in 0..1000 {
                waker.wake_by_ref();
                woken.recv().unwrap();
            }
        });
        for _ in 0..1000 {
            net.wait(Wait::Forever);
            awake.send(()).unwrap();
        }
        thread.join().unwrap();
        assert!(net.events.is_empty());
    }
}

/// What the first worker did not read, the second does.
#[test]
fn a_detached_socket_goes_on_at_another_worker_with_what_had_arrived() {
    for &kind in common::SYSTEM_STACKS {
        let (mut first, mut second) = (Net::new(kind), Net::new(kind));
        let (id, mut stream) = with_stream(&mut first);
        stream.write_all(b"first").unwrap();
        assert_eq!(first.recv(id).unwrap(), b"first");
        stream.write_all(b"second").unwrap();

        let accepted = first.driver.detach(id).unwrap();
        assert_eq!(accepted.peer_addr(), stream.local_addr().unwrap());
        assert_eq!(accepted.local_addr(), stream.peer_addr().unwrap());
        assert_eq!(first.driver.local_addr(id).unwrap_err().kind(), io::ErrorKind::NotConnected);
        assert_eq!(first.driver.detach(id).unwrap_err().kind(), io::ErrorKind::NotConnected);

        let id = second.driver.adopt(accepted, &SocketOptions::default()).unwrap();
        assert_eq!(second.recv_exactly(id, 6), b"second");
        assert_eq!(second.send(id, b"back".to_vec()), SendStatus::Complete);
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"back");
        first.wait(Wait::Poll);
        assert!(first.events.is_empty(), "{:?}", first.events);
    }
}

#[test]
fn a_socket_at_work_cannot_be_detached() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (id, mut stream) = with_stream(&mut net);
        net.driver.recv(id, None);
        assert_eq!(net.driver.detach(id).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.write_all(b"still here").unwrap();
        assert_eq!(net.received(id).unwrap().1, b"still here");
        net.driver.detach(id).unwrap();
    }
}

/// Who polls and finds nothing has time to spare as well, and takes no more at once for it.
#[test]
fn a_wait_that_finds_nothing_was_one() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (id, mut stream) = with_stream(&mut net);
        net.driver.recv(id, None);
        if kind == StackKind::Posix {
            let mut poll = || {
                net.driver.wait(Wait::Poll, &mut |_, completion| panic!("{completion:?}")).unwrap();
                net.driver.waited()
            };
            assert!((0..1000).any(|_| poll()), "the socket tells once that it is writable");
            assert!((0..50).all(|_| poll()));
        }
        // What is there when a wait begins comes in one receive of what a worker with time to spare takes.
        let bytes = pattern(64 << 10);
        stream.write_all(&bytes).unwrap();
        let mut first = 0;
        while first == 0 {
            let take = &mut |_: std::time::Instant, completion: siphon_net::Completion<'_>| {
                if let siphon_net::Completion::Received { result, .. } = completion {
                    first = result.unwrap();
                }
            };
            net.driver.wait(Wait::Forever, take).unwrap();
        }
        if kind == StackKind::Posix {
            assert!(first <= 40 << 10, "{first} bytes at once");
        }
    }
}
