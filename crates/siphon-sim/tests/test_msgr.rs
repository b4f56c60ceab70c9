//! What Ceph's test_msgr asks of a messenger, by its names.

mod scenario;

use std::collections::BTreeSet;
use std::time::Duration;

use scenario::{LONG, Pair, SOON, WAYS};
use siphon_proto::Policy;
use siphon_sim::explore::{Kind, Plan, Summary, run};
use siphon_sim::net::{Direction, Fault};
use siphon_sim::world::{NodeOptions, World};
use siphon_wire::types::{EntityType, Features};

const SECOND: Duration = Duration::from_secs(1);

/// Two connect at once, and one of the links is held up at each byte of the handshake.
fn race(step: u64, way: Direction) {
    let mut pair = Pair::peers();
    pair.break_first(1, Fault::Stall(SECOND), way, step);
    pair.send(0, 5);
    pair.send(1, 5);
    pair.run(LONG);
    pair.assert_all_came(&format!("held up at byte {step} {way:?}"));
    assert_eq!(pair.told.each_ref().map(|told| told.resets + told.remote_resets), [0, 0]);
}

#[test]
fn connection_race_test() {
    let handshake = Pair::handshake(Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER);
    for (way, length) in WAYS.into_iter().zip(handshake) {
        (0..length).step_by(3).for_each(|step| race(step, way));
    }
}

/// The attempt that loses has exchanged banners, and no more, when the other wins.
#[test]
fn connection_race_reuse_banner_test() {
    for way in WAYS {
        (20..40).for_each(|step| race(step, way));
    }
}

/// The client is gone before SERVER_IDENT reaches it, and both have something to send.
fn missing_server_ident(back: u64) {
    let [_, length] = Pair::handshake(Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER);
    let mut pair = Pair::peers();
    pair.break_first(0, Fault::Cut, Direction::ToClient, length - back);
    pair.send(0, 3);
    pair.run(Duration::from_millis(20));
    pair.send(1, 3);
    pair.run(LONG);
    pair.assert_all_came(&format!("{back} bytes of SERVER_IDENT are missing"));
    assert_eq!(pair.told.each_ref().map(|told| told.remote_resets), [0, 0]);
}

#[test]
fn missing_server_iden_test() {
    missing_server_ident(1);
}

#[test]
fn missing_server_iden_test2() {
    (2..150).for_each(missing_server_ident);
}

#[test]
fn reconnect_test() {
    let mut pair = Pair::peers();
    pair.send(0, 2);
    pair.run(SECOND);
    for _ in 0..20 {
        pair.world.net.inject(Fault::Cut);
        pair.send(0, 2);
        pair.run(SOON);
        pair.assert_all_came("after one more fault");
    }
    assert!(pair.world.session_counts().resumed >= 20);
}

#[test]
fn reconnect_race_test() {
    for step in (0..400).step_by(7) {
        let mut pair = Pair::peers();
        pair.send(0, 1);
        pair.send(1, 1);
        pair.run(SECOND);
        pair.break_first(0, Fault::Stall(SECOND), Direction::ToServer, step);
        pair.world.net.inject(Fault::Cut);
        pair.send(0, 2);
        pair.send(1, 2);
        pair.run(LONG);
        pair.assert_all_came(&format!("held up at byte {step}"));
        assert_eq!(pair.world.session_counts().resets, 0);
    }
}

/// Request and answer, a keepalive, the loopback.
#[test]
fn simple_test() {
    let mut pair = Pair::new(Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER);
    let connection = pair.send(0, 1);
    pair.run(SECOND);
    let accepted = pair.accepted[1][0].clone();
    pair.send_on(1, &accepted, 1);
    connection.keepalive();
    let loopback = pair.world.messenger(pair.nodes[0]).loopback();
    pair.run(SECOND);
    pair.assert_all_came("in both directions");
    assert!(connection.last_keepalive_ack().is_some());
    assert!(loopback.is_connected());
    connection.mark_down();
    pair.world.shut_down().unwrap();
}

#[test]
fn simple_msgr2_test() {
    let mut pair = Pair::peers();
    let connection = pair.send(0, 1);
    pair.run(SECOND);
    pair.assert_all_came("over msgr2");
    let peer = connection.peer().unwrap();
    let newest = siphon_proto::Protocol::Msgr2(siphon_proto::v2::Revision::Rev1);
    assert_eq!(peer.protocol, newest);
    assert_eq!(peer.addrs, pair.world.addrs(pair.nodes[1]));
}

/// Who lacks what a server requires is told, and does not get in.
#[test]
fn feature_test() {
    let few = Policy { features_supported: Features::MSG_ADDR2, ..Policy::LOSSY_CLIENT };
    let demanding = Policy::STATELESS_SERVER.requiring(Features::SERVER_NAUTILUS);
    let mut pair = Pair::new(few, demanding);
    let connection = pair.send(0, 1);
    pair.run(SOON);
    assert!(!connection.is_connected());
    let fault = connection.last_fault().unwrap().to_string();
    assert!(fault.contains("requires features we lack"), "{fault}");
    assert!(pair.told[1].messages.is_empty());

    let mut pair = Pair::new(Policy::LOSSY_CLIENT, demanding);
    pair.send(0, 1);
    pair.run(SECOND);
    pair.assert_all_came("with all features");
}

/// An idle connection is given up after ms_connection_idle_timeout.
#[test]
fn timeout_test() {
    let mut pair = Pair::new(Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER);
    let connection = pair.send(0, 1);
    pair.run(Duration::from_secs(19));
    assert!(connection.is_connected());
    pair.run(Duration::from_secs(5));
    assert!(connection.close_reason().is_some());
    // Two ends wait for the same time; whoever is first tells the other by that.
    assert_eq!(pair.told.each_ref().map(|told| told.resets), [1, 1]);
}

/// A server that keeps sessions: a fault is not seen by anybody, a forgetful client is.
#[test]
fn stateful_test() {
    let mut pair = Pair::new(Policy::LOSSLESS_CLIENT, Policy::STATEFUL_SERVER);
    let first = pair.send(0, 1);
    pair.run(SECOND);
    pair.world.net.inject(Fault::Cut);
    pair.run(SOON);
    assert_eq!(pair.told[1].remote_resets + pair.told[1].resets, 0);
    assert!(first.is_connected());
    first.mark_down();
    pair.run(SECOND);
    pair.send(0, 1);
    pair.run(SECOND);
    assert_eq!(pair.told[1].remote_resets, 1);
    pair.assert_all_came("over two sessions");
}

#[test]
fn stateless_test() {
    let mut pair = Pair::new(Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER);
    pair.send(0, 1);
    pair.run(SECOND);
    pair.world.net.inject(Fault::Cut);
    pair.run(SECOND);
    assert_eq!(pair.told.each_ref().map(|told| told.resets), [1, 1]);
    pair.send(0, 1);
    pair.run(SECOND);
    pair.assert_all_came("over two connections");
}

/// Anonymous connections are nobody else's, and take no part in races.
#[test]
fn anon_test() {
    let mut world = World::new(7, Default::default());
    let server = world.add(NodeOptions::new(EntityType::OSD, 0, Policy::STATELESS_SERVER));
    let mut options = NodeOptions::new(EntityType::CLIENT, 1, Policy::LOSSY_CLIENT);
    options.listens = false;
    let client = world.add(options);
    let addrs = world.addrs(server);
    let registered = world.connect(client, server);
    let anonymous: Vec<_> = (0..3)
        .map(|_| world.messenger(client).connect_anonymously(EntityType::OSD, addrs.clone()))
        .collect();
    world.run_for(SECOND).unwrap();
    assert!(anonymous.iter().all(|connection| connection.is_connected()));
    assert_eq!(world.connections(server), 4);
    assert_eq!(world.connect(client, server), registered, "it is the one that is found");
    anonymous[0].mark_down();
    world.run_for(SECOND).unwrap();
    assert!(registered.is_connected() && anonymous[1].is_connected());
    assert_eq!(world.connections(server), 3);
    world.shut_down().unwrap();
}

/// After a fault a peer with nothing to send rests, until it has.
#[test]
fn client_standby_test() {
    let mut pair = Pair::peers();
    let connection = pair.send(0, 1);
    pair.run(SECOND);
    pair.world.net.inject(Fault::Cut);
    pair.run(SOON);
    assert!(!connection.is_connected() && connection.close_reason().is_none());
    assert_eq!(pair.world.session_counts().standbys, 2);
    pair.send_on(0, &connection, 1);
    pair.run(SECOND);
    assert!(connection.is_connected());
    pair.assert_all_came("after standing by");
    assert_eq!(pair.told[1].resets + pair.told[1].remote_resets, 0);
}

/// Method none, towards a monitor and towards another daemon: both ends know who is there.
#[test]
fn auth_test() {
    for kind in [EntityType::MON, EntityType::OSD] {
        let mut world = World::new(7, Default::default());
        let server = world.add(NodeOptions::new(kind, 3, Policy::STATELESS_SERVER));
        let mut options = NodeOptions::new(EntityType::CLIENT, 4, Policy::LOSSY_CLIENT);
        options.listens = false;
        let client = world.add(options);
        let connection = world.connect(client, server);
        world.run_for(SECOND).unwrap();
        assert_eq!(connection.peer().unwrap().name.to_string(), format!("{kind}.3"));
        world.shut_down().unwrap();
    }
}

/// Messages of every way of dispatch, one after the other.
#[test]
fn message_test() {
    let mut pair = Pair::peers();
    pair.send(0, 500);
    pair.send(1, 500);
    pair.run(SOON);
    pair.assert_all_came("in both directions");
}

fn synthetic(seeds: std::ops::Range<u64>, without: &[Kind]) -> Summary {
    let without: BTreeSet<Kind> = without.iter().copied().collect();
    let mut all = Summary::default();
    for seed in seeds {
        let plan = Plan { without: without.clone(), ..Plan::new(seed) };
        all += run(&plan).unwrap_or_else(|failure| panic!("{plan}: {}", failure.what));
    }
    all
}

const FAULTS: [Kind; 6] =
    [Kind::Cut, Kind::Close, Kind::HalfOpen, Kind::Stall, Kind::Refuse, Kind::Partition];

#[test]
fn synthetic_stress_test() {
    let summary = synthetic(0..40, &[&FAULTS[..], &[Kind::Restart, Kind::MarkDown]].concat());
    assert!(summary.faults.total() == 0 && summary.messages > 1000, "{summary}");
}

/// Applications end their connections among it.
#[test]
fn synthetic_stress_test1() {
    let summary = synthetic(40..80, &[&FAULTS[..], &[Kind::Restart]].concat());
    assert_eq!(summary.faults.total(), 0, "{summary}");
}

#[test]
fn synthetic_inject_test() {
    let summary = synthetic(80..120, &[Kind::Restart, Kind::MarkDown]);
    assert!(summary.sessions.resets == 0 && summary.sessions.replayed > 0, "{summary}");
}

#[test]
fn synthetic_inject_test2() {
    assert!(synthetic(120..160, &[Kind::Large]).faults.total() > 100);
}

#[test]
fn synthetic_inject_test3() {
    assert!(synthetic(160..200, &[Kind::Restart]).sessions.resumed > 100);
}

#[test]
fn synthetic_inject_test4() {
    assert!(synthetic(200..240, &[]).faults.crashes > 10);
}

#[test]
fn synthetic_inject_test5() {
    let only_partitions: Vec<_> =
        FAULTS.into_iter().filter(|kind| *kind != Kind::Partition).collect();
    assert!(synthetic(240..280, &only_partitions).faults.partitions > 10);
}

/// Both mark down again and again, while both send.
#[test]
fn markdown_test() {
    let mut pair = Pair::peers();
    for round in 0..50 {
        pair.send(0, 3);
        pair.send(1, 3);
        pair.run(Duration::from_micros(round * 97));
        pair.connect((round % 2) as usize).mark_down();
    }
    pair.run(LONG);
    let before = pair.told.each_ref().map(|told| told.messages.len());
    pair.send(0, 2);
    pair.send(1, 2);
    pair.run(LONG);
    for (told, before) in pair.told.iter().zip(before) {
        assert!(told.messages.len() >= before + 2, "nobody is stuck");
        assert_eq!(told.resets, 0, "a peer's mark_down ends no lossless session");
    }
}
