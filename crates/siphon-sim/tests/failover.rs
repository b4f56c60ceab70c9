//! What Crimson's test of its messenger asks of failover, by its names. Where that breaks a
//! connection at a step of the protocol, it is broken here at every byte of it, in both ways.

mod scenario;

use std::time::Duration;

use scenario::{BREAKS, LONG, Pair, SOON, WAYS, at_every_byte};
use siphon_proto::Policy;
use siphon_sim::net::{Direction, Fault};

const SECOND: Duration = Duration::from_secs(1);
/// The banner: nobody knows yet who is there.
const EARLY: u64 = 26;

const LOSSY: (Policy, Policy) = (Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER);
const LOSSLESS: (Policy, Policy) = (Policy::LOSSLESS_CLIENT, Policy::STATEFUL_SERVER);
const PEERS: (Policy, Policy) = (Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER);

/// Nothing was open at the client yet: it tries again, and nothing is lost even though it is lossy.
fn lossy_before_it_is_open(range: impl Fn(u64) -> std::ops::Range<u64>) {
    at_every_byte(LOSSY.0, LOSSY.1, range, |pair, what| {
        pair.assert_all_came(what);
        assert_eq!(pair.told[0].resets, 0, "{what}");
        assert!(pair.connection.as_ref().unwrap().is_connected(), "{what}");
    });
}

/// A lossless session has everything, whatever byte it broke at, and is the same as before.
fn lossless(policies: (Policy, Policy), range: impl Fn(u64) -> std::ops::Range<u64>) {
    at_every_byte(policies.0, policies.1, range, |pair, what| {
        pair.assert_all_came(what);
        for told in &pair.told {
            assert_eq!((told.resets, told.remote_resets), (0, 0), "{what}");
        }
        assert!(pair.connection.as_ref().unwrap().close_reason().is_none(), "{what}");
    });
}

#[test]
fn lossy_early_connect_fault() {
    lossy_before_it_is_open(|_| 0..EARLY);
}

#[test]
fn lossy_connect_fault() {
    lossy_before_it_is_open(|handshake| EARLY..handshake.saturating_sub(1));
}

/// Of an open session, what was under way is lost, and both are told.
#[test]
fn lossy_connected_fault() {
    for fault in BREAKS {
        let mut pair = Pair::new(LOSSY.0, LOSSY.1);
        let connection = pair.send(0, 3);
        pair.run(SECOND);
        pair.assert_all_came("before the fault");
        let conn = pair.world.net.connections()[0].id;
        pair.world.net.inject_on(conn, Direction::ToServer, fault);
        pair.run(SECOND);
        pair.send_on(0, &connection, 0);
        pair.run(LONG);
        assert_eq!(pair.told.each_ref().map(|told| told.resets), [1, 1], "{fault:?}");
        assert!(connection.close_reason().is_some());
        // Whoever asks again has a new one.
        assert_ne!(pair.send(0, 1), connection);
        pair.run(SECOND);
        pair.assert_all_came("after the fault");
    }
}

/// The accepting side hears nothing of who did not get as far as a session.
#[test]
fn lossy_early_accept_fault() {
    at_every_byte(
        LOSSY.0,
        LOSSY.1,
        |_| 0..EARLY,
        |pair, what| {
            assert_eq!((pair.told[1].accepts, pair.told[1].resets), (1, 0), "{what}");
        },
    );
}

#[test]
fn lossy_accept_fault() {
    let handshake = Pair::handshake(LOSSY.0, LOSSY.1);
    for after in EARLY..handshake[0] - 1 {
        let mut pair = Pair::new(LOSSY.0, LOSSY.1);
        pair.break_first(0, Fault::Cut, Direction::ToServer, after);
        pair.send(0, 3);
        pair.run(SOON);
        assert_eq!((pair.told[1].accepts, pair.told[1].resets), (1, 0), "byte {after}");
        pair.assert_all_came("accepted once");
    }
}

/// The server has a session that the client does not know of: it ends there, and only there.
#[test]
fn lossy_establishing_fault() {
    let [_, length] = Pair::handshake(LOSSY.0, LOSSY.1);
    let mut pair = Pair::new(LOSSY.0, LOSSY.1);
    pair.break_first(0, Fault::Cut, Direction::ToClient, length - 1);
    pair.send(0, 3);
    pair.run(SOON);
    assert_eq!((pair.told[1].accepts, pair.told[1].resets), (2, 1));
    assert_eq!(pair.told[0].resets, 0);
    pair.assert_all_came("over the second");
}

#[test]
fn lossy_accepted_fault() {
    let mut pair = Pair::new(LOSSY.0, LOSSY.1);
    pair.send(0, 1);
    pair.run(SECOND);
    pair.accepted[1][0].mark_down();
    pair.run(LONG);
    assert_eq!(pair.told.each_ref().map(|told| told.resets), [1, 0]);
}

#[test]
fn lossless_connect_fault() {
    lossless(LOSSLESS, |handshake| 0..handshake);
}

#[test]
fn lossless_connected_fault() {
    lossless(LOSSLESS, |handshake| handshake..handshake + 300);
}

/// Broken again while it recovers.
#[test]
fn lossless_connected_fault2() {
    let handshake = Pair::handshake(LOSSLESS.0, LOSSLESS.1);
    for after in 0..handshake[0] + 100 {
        let mut pair = Pair::new(LOSSLESS.0, LOSSLESS.1);
        pair.break_first(0, Fault::Cut, Direction::ToServer, handshake[0] + 50);
        pair.break_first(0, Fault::Cut, Direction::ToServer, handshake[0] + 50);
        let [from, to] = pair.nodes.map(|id| pair.world.ip(id));
        let plan =
            siphon_sim::net::FaultPlan { fault: Fault::Cut, direction: Direction::ToClient, after };
        pair.world.net.on_connect(from, to, 1, plan);
        pair.send(0, 5);
        pair.run(LONG);
        pair.assert_all_came(&format!("the second breaks after byte {after}"));
    }
}

/// Every byte of SESSION_RECONNECT and its answer.
#[test]
fn lossless_reconnect_fault() {
    let handshake = Pair::handshake(LOSSLESS.0, LOSSLESS.1);
    for (way, length) in WAYS.into_iter().zip(handshake) {
        for after in 0..length + 60 {
            let mut pair = Pair::new(LOSSLESS.0, LOSSLESS.1);
            pair.send(0, 2);
            pair.run(SECOND);
            pair.break_first(0, Fault::Cut, way, after);
            let conn = pair.world.net.connections()[0].id;
            pair.send(0, 2);
            let accepted = pair.accepted[1][0].clone();
            pair.send_on(1, &accepted, 2);
            pair.world.net.inject_on(conn, Direction::ToClient, Fault::Cut);
            pair.run(LONG);
            pair.assert_all_came(&format!("reconnect breaks after byte {after} {way:?}"));
            assert!(pair.world.session_counts().resumed >= 2);
            assert_eq!(pair.world.session_counts().resets, 0);
        }
    }
}

/// At the accepting side: a session appears once, whatever happened before.
#[test]
fn lossless_accept_fault() {
    at_every_byte(
        LOSSLESS.0,
        LOSSLESS.1,
        |handshake| 0..handshake,
        |pair, what| {
            pair.assert_all_came(what);
            let first = pair.accepted[1][0].clone();
            assert!(pair.accepted[1].iter().all(|accepted| *accepted == first), "{what}");
        },
    );
}

/// SERVER_IDENT is lost: the client comes again under the same cookie, and finds its session.
#[test]
fn lossless_establishing_fault() {
    let [_, length] = Pair::handshake(LOSSLESS.0, LOSSLESS.1);
    let mut pair = Pair::new(LOSSLESS.0, LOSSLESS.1);
    pair.break_first(0, Fault::Cut, Direction::ToClient, length - 1);
    pair.send(0, 3);
    pair.run(SOON);
    pair.assert_all_came("over the second link");
    assert_eq!((pair.told[1].accepts, pair.told[0].connects), (2, 1));
    assert_eq!(pair.accepted[1][0], pair.accepted[1][1]);
}

/// A server never connects: what it has to say waits for the client.
#[test]
fn lossless_accepted_fault() {
    let mut pair = Pair::new(LOSSLESS.0, LOSSLESS.1);
    pair.send(0, 1);
    pair.run(SECOND);
    let accepted = pair.accepted[1][0].clone();
    pair.world.net.inject(Fault::Cut);
    pair.send_on(1, &accepted, 3);
    pair.run(LONG);
    pair.assert_all_came("after the client came back");
    assert_eq!(pair.told[1].connects, 0);
}

#[test]
fn lossless_reaccept_fault() {
    let handshake = Pair::handshake(LOSSLESS.0, LOSSLESS.1);
    for after in 0..handshake[1] + 60 {
        let mut pair = Pair::new(LOSSLESS.0, LOSSLESS.1);
        pair.send(0, 1);
        pair.run(SECOND);
        let accepted = pair.accepted[1][0].clone();
        pair.break_first(0, Fault::Close, Direction::ToClient, after);
        pair.world.net.inject(Fault::Cut);
        pair.send_on(1, &accepted, 3);
        pair.run(LONG);
        pair.assert_all_came(&format!("reaccept breaks after byte {after}"));
        assert_eq!(pair.told[1].resets + pair.told[1].remote_resets, 0);
    }
}

#[test]
fn peer_connect_fault() {
    lossless(PEERS, |handshake| 0..handshake);
}

#[test]
fn peer_accept_fault() {
    at_every_byte(
        PEERS.0,
        PEERS.1,
        |handshake| 0..handshake,
        |pair, what| {
            pair.assert_all_came(what);
            assert_eq!(pair.told[1].resets, 0, "{what}");
        },
    );
}

#[test]
fn peer_establishing_fault() {
    let [_, length] = Pair::handshake(PEERS.0, PEERS.1);
    for back in 1..40 {
        let mut pair = Pair::new(PEERS.0, PEERS.1);
        pair.break_first(0, Fault::Cut, Direction::ToClient, length - back);
        pair.send(0, 3);
        pair.run(LONG);
        pair.assert_all_came(&format!("{back} bytes before the end"));
    }
}

/// Whoever connected has something to send, and connects again.
#[test]
fn peer_connected_fault_reconnect() {
    lossless(PEERS, |handshake| handshake..handshake + 300);
}

/// Whoever accepted has something to send, and is the one that connects now.
#[test]
fn peer_connected_fault_reaccept() {
    let mut pair = Pair::peers();
    pair.send(0, 2);
    pair.run(SECOND);
    pair.world.net.inject(Fault::Cut);
    pair.run(SECOND);
    assert!(!pair.connection.as_ref().unwrap().is_connected(), "there is nothing to send");
    pair.send(1, 2);
    pair.run(LONG);
    pair.assert_all_came("in the other direction");
    assert_eq!((pair.told[1].connects, pair.told[0].accepts), (1, 1));
}

/// Both connect at the same moment; the attempt of the lower address, the first node's, wins.
fn race() -> Pair {
    let mut pair = Pair::peers();
    pair.send(0, 3);
    pair.send(1, 3);
    pair.run(LONG);
    pair.assert_all_came("after a race");
    let counts = pair.world.session_counts();
    assert_eq!(counts.resets, 0, "{counts}");
    let left = pair.world.net.connections().iter().filter(|conn| conn.live).count();
    assert!(left <= 1, "one link serves both");
    pair
}

#[test]
fn racing_connect_win() {
    let pair = race();
    assert_eq!((pair.told[0].connects, pair.told[1].accepts), (1, 1));
    assert_eq!(pair.told[0].resets, 0);
}

#[test]
fn racing_connect_lose() {
    let pair = race();
    assert_eq!((pair.told[1].connects, pair.told[0].accepts), (0, 0));
    assert_eq!(pair.told[1].resets, 0);
}

fn reconnect_race(close: Fault) -> Pair {
    let mut pair = race();
    pair.world.net.inject(close);
    pair.send(0, 3);
    pair.send(1, 3);
    pair.run(LONG);
    pair.assert_all_came("after a race to reconnect");
    assert_eq!(pair.world.session_counts().resets, 0);
    pair
}

#[test]
fn racing_reconnect_win() {
    let pair = reconnect_race(Fault::Cut);
    assert!(pair.world.session_counts().resumed >= 2);
}

#[test]
fn racing_reconnect_lose() {
    let pair = reconnect_race(Fault::Close);
    assert_eq!(pair.told[1].resets + pair.told[1].remote_resets, 0);
}

/// One has forgotten the session and connects anew, while the other wants to go on with it.
fn connect_against_reconnect(forgetful: usize) {
    let mut pair = Pair::peers();
    pair.send(0, 1);
    pair.run(SECOND);
    let forgotten = pair.connect(forgetful);
    forgotten.mark_down();
    pair.run(Duration::ZERO);
    pair.told = Default::default();
    let (mut expected, mut others): (Vec<u64>, Vec<u64>) = Default::default();
    let mine = pair.send(forgetful, 2);
    let theirs = pair.send(1 - forgetful, 2);
    pair.run(LONG);
    expected.extend(pair.told[1 - forgetful].messages.iter().rev().take(2).rev());
    others.extend(pair.told[forgetful].messages.iter());
    assert_eq!(expected.len(), 2, "what the new session sent has come");
    assert!(others.windows(2).all(|pair| pair[0] < pair[1]), "{others:?}");
    assert!(mine.close_reason().is_none() && theirs.close_reason().is_none());
}

#[test]
fn racing_connect_reconnect_win() {
    connect_against_reconnect(0);
}

#[test]
fn racing_connect_reconnect_lose() {
    connect_against_reconnect(1);
}

/// A link that is silent and of which nobody is told: the connecting side gives it up by itself.
fn stale(policies: (Policy, Policy), way: Direction, after: u64) {
    let mut pair = Pair::new(policies.0, policies.1);
    pair.break_first(0, Fault::HalfOpen, way, after);
    pair.send(0, 3);
    pair.run(LONG);
    pair.world.net.end_faults(); // what is left of the stale link is torn down
    pair.run(LONG);
    let what = format!("silent after byte {after} {way:?}");
    pair.assert_all_came(&what);
    assert_eq!(pair.told[0].resets + pair.told[1].resets, 0, "{what}");
}

#[test]
fn stale_connect() {
    let handshake = Pair::handshake(PEERS.0, PEERS.1);
    (0..handshake[1] - 1).step_by(7).for_each(|after| stale(PEERS, Direction::ToClient, after));
}

#[test]
fn stale_accept() {
    let handshake = Pair::handshake(PEERS.0, PEERS.1);
    (0..handshake[0] - 1).step_by(7).for_each(|after| stale(PEERS, Direction::ToServer, after));
}

#[test]
fn stale_establishing() {
    let handshake = Pair::handshake(PEERS.0, PEERS.1);
    (1..30).for_each(|back| stale(PEERS, Direction::ToClient, handshake[1] - back));
}

/// An open link falls silent under messages: who waits for acknowledgements comes again by another,
/// while the peer still has the first.
#[test]
fn stale_reconnect() {
    let handshake = Pair::handshake(PEERS.0, PEERS.1);
    (0..200).step_by(9).for_each(|more| stale(PEERS, Direction::ToServer, handshake[0] + more));
}

#[test]
fn stale_reaccept() {
    let handshake = Pair::handshake(LOSSLESS.0, LOSSLESS.1);
    (0..200).step_by(9).for_each(|more| stale(LOSSLESS, Direction::ToServer, handshake[0] + more));
}

#[test]
fn lossy_client() {
    let mut pair = Pair::new(LOSSY.0, LOSSY.1);
    let first = pair.send(0, 1);
    pair.run(SECOND);
    first.mark_down();
    pair.run(SECOND);
    assert_eq!(pair.told.each_ref().map(|told| told.resets), [0, 1], "only the peer is told");
    let second = pair.send(0, 1);
    assert_ne!(first, second);
    pair.run(SECOND);
    pair.assert_all_came("over two connections");
}

#[test]
fn stateless_server() {
    let mut pair = Pair::new(LOSSY.0, LOSSY.1);
    pair.send(0, 1);
    pair.run(SECOND);
    pair.accepted[1][0].mark_down();
    pair.run(SECOND);
    assert_eq!(pair.told.each_ref().map(|told| told.resets), [1, 0]);
    pair.send(0, 1);
    pair.run(SECOND);
    pair.assert_all_came("over two connections");
    assert_ne!(pair.accepted[1][0], pair.accepted[1][1]);
}

/// The client forgets: the server, which kept the session, is told when the client is back.
#[test]
fn lossless_client() {
    let mut pair = Pair::new(LOSSLESS.0, LOSSLESS.1);
    let first = pair.send(0, 1);
    pair.run(SECOND);
    first.mark_down();
    pair.run(SECOND);
    assert_eq!(pair.told[1].resets, 0, "it waits for the client");
    assert!(!pair.accepted[1][0].is_connected());
    pair.send(0, 1);
    pair.run(SECOND);
    assert_eq!(pair.told.each_ref().map(|told| told.remote_resets), [0, 1]);
    pair.assert_all_came("over two sessions");
}

/// The server forgets: the client is told, and goes on with a new session.
#[test]
fn stateful_server() {
    let mut pair = Pair::new(LOSSLESS.0, LOSSLESS.1);
    let connection = pair.send(0, 1);
    pair.run(SECOND);
    pair.accepted[1][0].mark_down();
    pair.run(LONG);
    assert_eq!(pair.told.each_ref().map(|told| told.remote_resets), [1, 0]);
    assert!(connection.is_connected());
    pair.send_on(0, &connection, 1);
    pair.run(SECOND);
    pair.assert_all_came("over two sessions");
}

/// Equals that may be restarted under their address: either end may forget, and is found again.
fn reuse(forgetful: usize) {
    let mut pair = Pair::new(Policy::LOSSLESS_PEER_REUSE, Policy::LOSSLESS_PEER_REUSE);
    pair.send(0, 1);
    pair.run(SECOND);
    pair.connect(forgetful).mark_down();
    pair.run(SECOND);
    pair.send(forgetful, 1);
    pair.run(LONG);
    assert_eq!(pair.told[1 - forgetful].remote_resets, 1);
    assert_eq!(pair.told[1 - forgetful].messages.len(), 1 + usize::from(forgetful == 0));
    pair.send(1 - forgetful, 1);
    pair.run(LONG);
    assert_eq!(pair.told[1 - forgetful].resets, 0);
}

#[test]
fn peer_reuse_connector() {
    reuse(0);
}

#[test]
fn peer_reuse_acceptor() {
    reuse(1);
}

#[test]
fn lossless_peer_connector() {
    let mut pair = Pair::peers();
    pair.send(0, 1);
    pair.run(SECOND);
    pair.connect(0).mark_down();
    pair.run(SECOND);
    assert_eq!(pair.told[1].resets, 0, "a peer waits");
    pair.send(0, 1);
    pair.run(LONG);
    pair.assert_all_came("over two sessions");
    assert_eq!(pair.told[1].remote_resets, 0, "its policy does not check for resets");
}

#[test]
fn lossless_peer_acceptor() {
    let mut pair = Pair::peers();
    let connection = pair.send(0, 1);
    pair.run(SECOND);
    pair.accepted[1][0].mark_down();
    pair.run(SECOND);
    pair.send_on(0, &connection, 1);
    pair.run(LONG);
    assert_eq!(pair.told[0].remote_resets, 1, "nobody there knows the session");
    pair.send_on(0, &connection, 1);
    pair.run(LONG);
    assert_eq!(pair.told[1].messages.last(), Some(&3));
}
