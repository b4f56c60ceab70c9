//! What only the uring stack can get wrong: memory that the kernel still has, buffers that somebody
//! keeps, and what is under way when it is told to end.

#![allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]

mod common;

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

use bytes::Bytes;
use common::{Event, HUNG, Net, pattern};
use siphon_net::{
    Accepted, Completion, SendStatus, SocketId, SocketOptions, StackKind, UringDriver, Wait,
};
use siphon_wire::buf::{Rope, SegmentPool};

const LOOPBACK: &str = "127.0.0.1:0";

/// Where there is no io_uring, a test has nothing to test, and says so.
fn uring() -> Option<Net> {
    match UringDriver::new() {
        Ok(driver) => Some(Net { driver: Box::new(driver), events: Default::default() }),
        Err(error) => {
            eprintln!("SKIPPED: no io_uring on this machine: {error}");
            None
        }
    }
}

/// A socket of `net`, and the system's own at its other end.
fn with_stream(net: &mut Net) -> (SocketId, TcpStream) {
    let (listener, addr) = net.listen(LOOPBACK);
    let stream = TcpStream::connect(addr).unwrap();
    let id = net.accept();
    net.driver.close_listener(listener);
    (id, stream)
}

/// Receives, and keeps what comes as the stack gave it.
fn recv_keeping(net: &mut Net, id: SocketId, kept: &mut Vec<Bytes>) {
    let before = kept.len();
    net.driver.recv(id, None);
    while kept.len() == before {
        net.driver
            .wait(Wait::Forever, &mut |_, completion| {
                if let Completion::Received { result, mut bytes, .. } = completion {
                    result.unwrap();
                    kept.push(bytes.take_bytes(bytes.len()));
                }
            })
            .unwrap();
    }
}

/// Sockets are closed with a receive into a ring's buffer, one into a segment's own, and a send under
/// way, in the turn in which that was asked for or later. Their descriptors are used again at once, and
/// their memory as soon as anybody may have it: whoever comes next must not see a byte of theirs.
#[test]
fn what_is_under_way_at_a_close_touches_nobody_else() {
    let Some(mut net) = uring() else { return };
    let pool = SegmentPool::new(64 << 20);
    for round in 0..200 {
        let (id, mut stream) = with_stream(&mut net);
        let fill = (round % 2 == 0).then(|| pool.take(1 << 20));
        net.driver.recv(id, fill);
        let _ = net.send(id, vec![round as u8; 8 << 20]);
        if round % 3 == 0 {
            net.wait(Wait::Poll);
        }
        if round % 5 == 0 {
            stream.write_all(&[0xee; 100_000]).unwrap();
        }
        net.driver.close(id);
        // The same memory for somebody else, and the lowest free descriptor.
        let mut other = pool.take(1 << 20);
        other.unfilled().fill(round as u8);
        let (next, mut peer) = with_stream(&mut net);
        peer.write_all(b"for the next one").unwrap();
        assert_eq!(net.recv_exactly(next, 16), b"for the next one");
        assert!(other.unfilled().iter().all(|byte| *byte == round as u8));
        net.driver.close(next);
        assert!(net.events.is_empty(), "{:?}", net.events);
    }
}

#[test]
fn a_driver_ends_with_everything_under_way() {
    for _ in 0..20 {
        let Some(mut net) = uring() else { return };
        let (_listener, addr) = net.listen(LOOPBACK);
        let unaccepted = TcpStream::connect(addr).unwrap();
        let connecting = TcpListener::bind(LOOPBACK).unwrap();
        net.connect(connecting.local_addr().unwrap());
        let pool = SegmentPool::new(0);
        let mut streams = Vec::new();
        for fill in [None, Some(pool.take(1 << 20))] {
            let (id, stream) = with_stream(&mut net);
            net.driver.recv(id, fill);
            let _ = net.send(id, vec![1; 16 << 20]);
            streams.push(stream);
        }
        drop(net);
        for mut stream in streams {
            // It ends, and what comes before is what was sent.
            let mut got = Vec::new();
            let _ = stream.read_to_end(&mut got); // or is reset
            assert!(got.iter().all(|byte| *byte == 1));
        }
        drop(unaccepted);
    }
}

/// An application keeps everything that it gets. Others still get theirs, and the stack does not give
/// away more than it may.
#[test]
fn who_keeps_what_arrived_starves_nobody() {
    const ROUNDS: usize = 600;
    const PART: usize = 30_000;
    let Some(mut net) = uring() else { return };
    let (keeper, mut stream) = with_stream(&mut net);
    let (other, mut other_stream) = with_stream(&mut net);
    let bytes = pattern(PART * ROUNDS);
    let mut kept = Vec::new();
    for (round, part) in bytes.chunks(PART).enumerate() {
        stream.write_all(part).unwrap();
        while kept.iter().map(Bytes::len).sum::<usize>() < (round + 1) * PART {
            recv_keeping(&mut net, keeper, &mut kept);
        }
        other_stream.write_all(b"ping").unwrap();
        assert_eq!(net.recv_exactly(other, 4), b"ping");
    }
    assert!(kept.concat() == bytes);
    // What is given back is used again.
    drop(kept);
    stream.write_all(&bytes[..PART]).unwrap();
    assert!(net.recv_exactly(keeper, PART) == bytes[..PART]);
}

/// More sockets than there are buffers receive more than one holds, and the application keeps all of it.
#[test]
fn many_of_whom_everything_is_kept_starve_nobody() {
    const SOCKETS: usize = 200;
    const PART: usize = 160 << 10;
    let Some(mut net) = uring() else { return };
    let (sockets, mut streams): (Vec<_>, Vec<_>) =
        (0..SOCKETS).map(|_| with_stream(&mut net)).unzip();
    let bytes = pattern(PART);
    let mut wanting: HashSet<_> = sockets.into_iter().collect();
    for stream in &mut streams {
        stream.write_all(&bytes).unwrap();
    }
    let mut kept: HashMap<SocketId, (usize, Vec<Bytes>)> = HashMap::new();
    let mut complete = 0;
    let hung = Instant::now() + HUNG;
    while complete < SOCKETS {
        assert!(Instant::now() < hung, "hung; {complete} are complete");
        for id in wanting.drain() {
            net.driver.recv(id, None);
        }
        net.driver
            .wait(Wait::Until(hung), &mut |_, completion| {
                if let Completion::Received { socket, result, mut bytes, .. } = completion {
                    result.unwrap();
                    let (len, parts) = kept.entry(socket).or_default();
                    *len += bytes.len();
                    parts.push(bytes.take_bytes(bytes.len()));
                    wanting.insert(socket);
                    if *len == PART {
                        wanting.remove(&socket);
                        complete += 1;
                    }
                }
            })
            .unwrap();
    }
    assert!(kept.values().all(|(_, parts)| parts.concat() == bytes));
}

/// Nobody reads: the peer must come to feel it, however much it has.
#[test]
fn a_socket_that_is_not_read_holds_the_peer_back() {
    const FAR_TOO_MUCH: usize = 256 << 20;
    let Some(mut net) = uring() else { return };
    let (id, mut stream) = with_stream(&mut net);
    stream.write_all(b"first").unwrap();
    // The kernel has a receive from now on.
    assert_eq!(net.recv_exactly(id, 5), b"first");
    stream.set_nonblocking(true).unwrap();
    let chunk = pattern(64 << 10);
    let (mut written, mut refused) = (0, 0);
    while refused < 50 {
        match stream.write(&chunk[written % chunk.len()..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                net.wait(Wait::Poll);
            }
            Err(error) => panic!("{error}"),
        }
        assert!(written < FAR_TOO_MUCH, "the peer writes on and on");
    }
    // Nothing of it is lost.
    let all = net.recv_exactly(id, written);
    assert!(all.chunks(chunk.len()).all(|part| *part == chunk[..part.len()]));
}

#[test]
fn five_hundred_connections_are_served() {
    const CONNECTIONS: usize = 500;
    const ROUNDS: usize = 4;
    let Some(mut net) = uring() else { return };
    let (_, addr) = net.listen(LOOPBACK);
    let mut clients = Vec::new();
    let mut servers: HashMap<SocketId, Vec<u8>> = HashMap::new();
    for _ in 0..CONNECTIONS {
        clients.push(net.connect(addr));
    }
    for _ in 0..CONNECTIONS {
        let id = net.accept();
        servers.insert(id, Vec::new());
    }
    for &id in &clients {
        net.connected(id).unwrap();
    }
    for round in 0..ROUNDS {
        for &id in servers.keys() {
            net.driver.recv(id, None);
        }
        let mut pending = 0;
        for &id in &clients {
            // More of them in a turn than are sent at once.
            pending += usize::from(net.send(id, pattern(1000)) == SendStatus::Pending);
        }
        let mut complete = 0;
        while complete < CONNECTIONS || pending > 0 {
            let event = net.until(Ok);
            match event {
                Event::Sent { result, .. } => {
                    result.unwrap();
                    pending -= 1;
                }
                Event::Received { socket, bytes, .. } => {
                    let got = servers.get_mut(&socket).unwrap();
                    got.extend_from_slice(&bytes);
                    match got.len() == 1000 * (round + 1) {
                        true => complete += 1,
                        false => net.driver.recv(socket, None),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let expected = pattern(1000).repeat(ROUNDS);
    assert!(servers.values().all(|got| *got == expected));
}

/// A link moves to another worker while its peer sends, again and again, at any moment: not a byte may
/// stay behind, come twice, or overtake another.
#[test]
fn a_socket_that_moves_while_its_peer_sends_loses_nothing() {
    const BYTES: usize = 24 << 20;
    let (Some(first), Some(second)) = (uring(), uring()) else { return };
    let mut nets = [first, second];
    let (mut id, mut stream) = with_stream(&mut nets[0]);
    let bytes = pattern(BYTES);
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        for part in sent.chunks(7_777) {
            stream.write_all(part).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    });
    let pool = SegmentPool::new(0);
    let (mut at, mut moves, mut all) = (0, 0, Vec::new());
    loop {
        let fill = (moves % 7 == 3).then(|| pool.take(20_000));
        nets[at].driver.recv(id, fill);
        let (fill, beside) = nets[at].received(id).unwrap();
        let got = all.len();
        all.extend_from_slice(fill.as_ref().map_or(&[], |fill| fill.filled()));
        all.extend_from_slice(&beside);
        if all.len() == got {
            break;
        }
        let accepted: Accepted = nets[at].driver.detach(id).unwrap();
        assert!(nets[at].events.is_empty());
        at = 1 - at;
        moves += 1;
        id = nets[at].driver.adopt(accepted, &SocketOptions::default()).unwrap();
    }
    assert!(all == bytes, "{} of {BYTES} bytes after {moves} moves", all.len());
    assert!(moves > 20, "it moved {moves} times");
    // The way back is there still.
    let mut stream = sender.join().unwrap();
    assert_eq!(nets[at].send(id, &b"got it"[..]), SendStatus::Complete);
    nets[at].driver.shutdown_write(id).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "got it");
}

/// Receives with and without a buffer of their own in any order, as messages of all lengths make them:
/// the kernel is told to end what it does, and what it took meanwhile comes first.
#[test]
fn short_and_long_segments_alternate() {
    const BYTES: usize = 16 << 20;
    let Some(mut net) = uring() else { return };
    let (cli, srv) = net.pair(LOOPBACK, &SocketOptions::default());
    let pool = SegmentPool::new(1 << 20);
    let bytes = pattern(BYTES);
    assert_eq!(net.send(cli, bytes.clone()), SendStatus::Pending);
    let mut all = Vec::new();
    let mut random = 1_u64;
    while all.len() < BYTES {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Long rows of the one, so that the socket is left to the kernel, and single ones.
        let long = (random >> 33).is_multiple_of(40);
        let fill = long.then(|| pool.take(16_384 + (random >> 40) as usize % 300_000));
        net.driver.recv(srv, fill);
        let (fill, beside) = net.received(srv).unwrap();
        if let Some(fill) = &fill {
            assert!(fill.is_full() || beside.is_empty());
            all.extend_from_slice(fill.filled());
        }
        all.extend_from_slice(&beside);
    }
    assert!(all == bytes);
    net.sent(cli).unwrap();
}

/// Both ends of a connection end at any moment, in any way.
#[test]
fn ends_race_with_what_is_under_way() {
    let Some(mut net) = uring() else { return };
    let (_, addr) = net.listen(LOOPBACK);
    for round in 0..300 {
        let cli = net.connect(addr);
        let srv = net.accept();
        net.driver.recv(srv, None);
        let _ = net.send(cli, vec![7; 1 + round * 1000]);
        match round % 4 {
            0 => net.driver.close(cli),
            1 => drop(net.driver.shutdown_write(cli)),
            2 => net.wait(Wait::Poll),
            _ => {}
        }
        if round % 3 == 0 {
            net.driver.close(srv);
        } else {
            net.wait(Wait::Poll);
            net.driver.close(srv);
        }
        net.driver.close(cli);
        net.wait(Wait::Poll);
        net.events.clear();
    }
    // Nothing of all that is left: neither completions nor descriptors.
    net.wait(Wait::Poll);
    assert!(net.events.is_empty(), "{:?}", net.events);
}

/// A wait that ends by its limit, with everything under way that only a wake or a peer would end.
#[test]
fn a_limit_ends_a_wait() {
    let Some(mut net) = uring() else { return };
    let (id, _stream) = with_stream(&mut net);
    net.driver.recv(id, None);
    net.wait(Wait::Poll);
    let limit = Instant::now() + std::time::Duration::from_millis(20);
    while Instant::now() < limit {
        net.wait(Wait::Until(limit));
        assert!(net.events.is_empty());
    }
    let mut rope = Rope::new();
    assert_eq!(net.driver.send(id, &mut rope), SendStatus::Complete, "nothing is sent at once");
    assert_eq!(StackKind::Uring.to_string(), "async+uring");
}
