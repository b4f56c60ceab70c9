//! Who is told what, on which thread's behalf, and in which order.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use common::raw::{Raw, server_config};
use common::{HUNG, Seen, Witness, bound, context, message, messenger, next_reset, next_seen};
use siphon_msgr::{CloseReason, Connection, Dispatcher, SendError, Stack};
use siphon_proto::{
    ConnectionConfig, Message, MessageHeader, OutMessage, Payload, Policies, Policy, Priority,
};
use siphon_wire::types::{EntityAddrVec, EntityType};

/// One of a chain, which takes messages of one type and tells what it is asked.
struct Link {
    name: &'static str,
    takes: u16,
    fast: bool,
    ends_resets: bool,
    asked: Sender<(&'static str, &'static str)>,
}

impl Link {
    fn tell(&self, what: &'static str) {
        let _ = self.asked.send((self.name, what));
    }
}

impl Dispatcher for Link {
    fn can_fast_dispatch(&self, message: &Message) -> bool {
        self.fast && self.takes == message.header.msg_type
    }

    fn fast_dispatch(&self, _: &Connection, _: Message) {
        self.tell("fast");
    }

    fn dispatch(&self, _: &Connection, message: Message) -> Option<Message> {
        self.tell("dispatch");
        (self.fast || self.takes != message.header.msg_type).then_some(message)
    }

    fn handle_accept(&self, _: &Connection) {
        self.tell("accept");
    }

    fn handle_reset(&self, _: &Connection, _: &CloseReason) -> bool {
        self.tell("reset");
        self.ends_resets
    }
}

#[test]
fn the_first_of_the_chain_that_takes_a_message_gets_it() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (asked, told) = channel();
    let link = |name, takes, fast, ends_resets| {
        Arc::new(Link { name, takes, fast, ends_resets, asked: asked.clone() })
    };
    let osd = siphon_msgr::Messenger::builder(
        &context,
        &stack,
        siphon_wire::types::EntityName::new(EntityType::OSD, 0),
    )
    .dispatcher_tail(link("b", 2, false, true))
    .dispatcher_tail(link("c", 3, true, true))
    .dispatcher_tail(link("d", 3, true, true))
    .dispatcher_head(link("a", 1, false, false))
    .start()
    .unwrap();
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let client = common::client(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addrs);
    let next =
        |count: usize| -> Vec<_> { (0..count).map(|_| told.recv_timeout(HUNG).unwrap()).collect() };
    pollster::block_on(connection.attempt()).unwrap();
    let all = ["a", "b", "c", "d"];
    assert_eq!(next(4), all.map(|name| (name, "accept")), "news is for everyone");
    connection.send(message(2, 1)).unwrap();
    assert_eq!(next(2), [("a", "dispatch"), ("b", "dispatch")]);
    connection.send(message(1, 2)).unwrap();
    assert_eq!(next(1), [("a", "dispatch")]);
    connection.send(message(3, 3)).unwrap();
    assert_eq!(next(1), [("c", "fast")]);
    connection.send(message(4, 4)).unwrap();
    assert_eq!(next(4), all.map(|name| (name, "dispatch")), "nobody takes it, and all are asked");
    connection.mark_down();
    assert_eq!(next(2), [("a", "reset"), ("b", "reset")], "true ends the chain");
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
    drop(osd);
    drop(asked);
    assert!(told.try_iter().next().is_none(), "nobody was told anything else");
}

#[test]
fn messages_of_a_connection_stay_in_order_in_both_kinds_of_dispatch() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (witness, seen) = Witness::new();
    let osd = messenger(&context, &stack, EntityType::OSD, Policy::STATELESS_SERVER, &[witness]);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let client = common::client(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addrs);
    for tid in 0..3000 {
        let msg_type = if tid % 3 == 0 { 42 } else { 1 };
        connection.send(message(msg_type, tid)).unwrap();
    }
    pollster::block_on(client.shutdown());
    let (mut fast, mut ordinary) = (Vec::new(), Vec::new());
    let mut connected = Vec::new();
    while fast.len() + ordinary.len() < 3000 {
        match seen.recv_timeout(HUNG).unwrap() {
            Seen::FastMessage(tid) => fast.push(tid),
            Seen::Message(tid) => ordinary.push(tid),
            Seen::FastAccept => {
                assert!(fast.is_empty(), "the worker is told before any message");
                connected.push("fast accept");
            }
            Seen::Accept(_) => {
                assert!(ordinary.is_empty(), "the dispatch thread is told before any message");
                connected.push("accept");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(fast.iter().copied().eq((0..3000).filter(|tid| tid % 3 == 0)), "{fast:?}");
    assert!(ordinary.iter().copied().eq((0..3000).filter(|tid| tid % 3 != 0)), "{ordinary:?}");
    assert_eq!(connected, ["fast accept", "accept"]);
    pollster::block_on(osd.shutdown());
}

/// Takes messages in ordinary dispatch, waiting for leave before each.
struct Gate {
    entered: Sender<u64>,
    leave: Mutex<Receiver<()>>,
    witness: Arc<Witness>,
}

impl Gate {
    fn new() -> (Arc<Self>, Receiver<u64>, Sender<()>, Receiver<Seen>) {
        let (entered, has_entered) = channel();
        let (give_leave, leave) = channel();
        let (witness, seen) = Witness::new();
        let gate = Self { entered, leave: Mutex::new(leave), witness };
        (Arc::new(gate), has_entered, give_leave, seen)
    }
}

impl Dispatcher for Gate {
    fn can_fast_dispatch(&self, message: &Message) -> bool {
        self.witness.can_fast_dispatch(message)
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        self.witness.fast_dispatch(connection, message);
    }

    fn dispatch(&self, connection: &Connection, message: Message) -> Option<Message> {
        self.entered.send(message.header.tid).unwrap();
        self.leave.lock().unwrap().recv().unwrap();
        self.witness.dispatch(connection, message)
    }

    fn handle_accept(&self, connection: &Connection) {
        self.witness.handle_accept(connection);
    }

    fn handle_reset(&self, connection: &Connection, reason: &CloseReason) -> bool {
        self.witness.handle_reset(connection, reason)
    }
}

fn of_priority(msg_type: u16, tid: u64, priority: Priority) -> OutMessage {
    let header = MessageHeader { msg_type, tid, priority, ..Default::default() };
    OutMessage::new(header, Payload::default())
}

#[test]
fn the_dispatch_thread_takes_urgent_messages_first_and_the_end_last() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (gate, entered, leave, seen) = Gate::new();
    let osd = messenger(&context, &stack, EntityType::OSD, Policy::STATELESS_SERVER, &[gate]);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let client = common::client(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addrs);
    connection.send(message(1, 100)).unwrap();
    assert_eq!(entered.recv_timeout(HUNG), Ok(100));
    // What comes while the thread is busy waits; each is flushed, so that none overtakes before.
    for (tid, priority) in [
        (1, Priority::LOW),
        (2, Priority::DEFAULT),
        (3, Priority::HIGHEST),
        (4, Priority::LOW),
        (5, Priority::HIGH),
        (6, Priority::DEFAULT),
    ] {
        connection.send(of_priority(1, tid, priority)).unwrap();
        pollster::block_on(connection.flushed()).unwrap();
    }
    // By the time its worker sees this one, all others are in the queue; then comes the end.
    connection.send(of_priority(42, 7, Priority::LOW)).unwrap();
    next_seen(&seen, |seen| matches!(seen, Seen::FastMessage(7)).then_some(()));
    connection.mark_down();
    (0..7).for_each(|_| leave.send(()).unwrap());
    let mut order = Vec::new();
    let reason = next_seen(&seen, |seen| match seen {
        Seen::Message(tid) => {
            order.push(tid);
            None
        }
        Seen::Reset(reason) => Some(reason),
        _ => None,
    });
    assert_eq!(order, [100, 3, 5, 2, 6, 1, 4]);
    assert!(matches!(reason, CloseReason::PeerClosed { .. }), "{reason}");
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
}

#[test]
fn urgent_messages_are_sent_first() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("v2:{}/0", listener.local_addr().unwrap());
    let client = common::client(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addr.parse().unwrap());
    // They wait for the session, which does not open before the handshake below.
    for (tid, priority) in
        [(1, Priority::LOW), (2, Priority::DEFAULT), (3, Priority::HIGH), (4, Priority::LOW)]
    {
        connection.send(of_priority(1, tid, priority)).unwrap();
    }
    let stream = listener.accept().unwrap().0;
    let (mut raw, peer) = Raw::accept(server_config(addr.parse().unwrap()), stream).open();
    assert_eq!(peer.name, client.name());
    let order: Vec<u64> = (0..4).map(|_| raw.message().header.tid).collect();
    assert_eq!(order, [3, 2, 1, 4]);
    connection.mark_down();
    raw.end();
    pollster::block_on(client.shutdown());
}

/// Ends its connection as soon as a message says so.
struct Decisive(Arc<Witness>);

impl Dispatcher for Decisive {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        if message.header.tid == 3 {
            connection.mark_down();
        }
        self.0.fast_dispatch(connection, message);
    }

    fn handle_reset(&self, connection: &Connection, reason: &CloseReason) -> bool {
        self.0.handle_reset(connection, reason)
    }
}

/// Messages that had come in the same read were still dispatched after a mark_down.
#[test]
fn nothing_comes_of_a_connection_after_its_mark_down_in_fast_dispatch() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (witness, seen) = Witness::new();
    let decisive = Arc::new(Decisive(witness));
    let osd = messenger(&context, &stack, EntityType::OSD, Policy::STATELESS_SERVER, &[decisive]);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let (of_client, told) = Witness::new();
    let client =
        messenger(&context, &stack, EntityType::CLIENT, Policy::LOSSY_CLIENT, &[of_client]);
    let connection = client.connect_to(EntityType::OSD, addrs);
    // The end may come before all are sent.
    for tid in 1..=100 {
        match connection.send(message(42, tid)) {
            Ok(()) => {}
            Err(SendError::Closed(_)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    let reason = next_reset(&told);
    assert!(
        matches!(reason, CloseReason::PeerClosed { .. } | CloseReason::Transport { .. }),
        "{reason}"
    );
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
    let seen: Vec<String> = seen.try_iter().map(|seen| format!("{seen:?}")).collect();
    assert_eq!(seen, ["FastMessage(1)", "FastMessage(2)", "FastMessage(3)"]);
}

/// What waited for the dispatch thread was still dispatched after a mark_down; Ceph discards it.
#[test]
fn what_waits_for_dispatch_is_discarded_by_a_mark_down() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (gate, entered, leave, seen) = Gate::new();
    let osd = messenger(&context, &stack, EntityType::OSD, Policy::STATELESS_SERVER, &[gate]);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let (client, other) = (common::client(&context, &stack), common::client(&context, &stack));
    let connection = client.connect_to(EntityType::OSD, addrs.clone());
    (1..=5).for_each(|tid| connection.send(message(1, tid)).unwrap());
    assert_eq!(entered.recv_timeout(HUNG), Ok(1));
    connection.send(message(42, 6)).unwrap();
    let accepted = next_seen(&seen, |seen| match seen {
        Seen::Accept(connection) => Some(connection),
        _ => None,
    });
    next_seen(&seen, |seen| matches!(seen, Seen::FastMessage(6)).then_some(()));
    let unconcerned = other.connect_to(EntityType::OSD, addrs);
    unconcerned.send(message(1, 7)).unwrap();
    accepted.mark_down();
    assert!(accepted.send(message(1, 8)).is_err());
    (0..2).for_each(|_| leave.send(()).unwrap());
    assert_eq!(entered.recv_timeout(HUNG), Ok(7), "the other connection's is next");
    for messenger in [client, other, osd] {
        pollster::block_on(messenger.shutdown());
    }
    let told: Vec<String> = seen
        .try_iter()
        .filter(|seen| !matches!(seen, Seen::Accept(_)))
        .map(|seen| format!("{seen:?}"))
        .take(2)
        .collect();
    assert_eq!(told, ["Message(1)", "Message(7)"], "and no reset between them");
}

#[test]
fn a_disposable_connection_waits_for_no_acknowledgement() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("v2:{}/0", listener.local_addr().unwrap());
    let client = common::client(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addr.parse().unwrap());
    let stream = listener.accept().unwrap().0;
    let config = ConnectionConfig {
        policies: Arc::new(Policies::new(Policy::STATEFUL_SERVER)),
        ..server_config(addr.parse().unwrap())
    };
    let (mut raw, peer) = Raw::accept(config, stream).open();
    assert!(!peer.policy.lossy);
    connection.send(message(1, 1)).unwrap();
    // The acknowledgement would be sent by the raw peer's next call, which comes too late.
    assert_eq!(raw.message().header.tid, 1);
    connection.mark_disposable();
    pollster::block_on(connection.flushed()).unwrap();
    connection.mark_down();
    pollster::block_on(client.shutdown());
}

#[test]
fn policies_are_by_the_type_of_the_peer() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (witness, seen) = Witness::new();
    let osd = siphon_msgr::Messenger::builder(
        &context,
        &stack,
        siphon_wire::types::EntityName::new(EntityType::OSD, 0),
    )
    .default_policy(Policy::STATELESS_SERVER)
    .policy(EntityType::OSD, Policy::LOSSLESS_PEER)
    .policy(EntityType::MDS, Policy::LOSSY_CLIENT)
    .policy(EntityType::MDS, Policy::STATEFUL_SERVER)
    .dispatcher_tail(witness)
    .start()
    .unwrap();
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    for (kind, expected) in [
        (EntityType::CLIENT, Policy::STATELESS_SERVER),
        (EntityType::OSD, Policy::LOSSLESS_PEER),
        (EntityType::MDS, Policy::STATEFUL_SERVER),
    ] {
        let client = messenger(&context, &stack, kind, Policy::LOSSLESS_CLIENT, &[]);
        let connection = client.connect_to(EntityType::OSD, addrs.clone());
        let lossy = pollster::block_on(connection.attempt()).unwrap().policy.lossy;
        assert_eq!(lossy, expected.lossy, "the server has its say to a {kind}");
        let accepted = next_seen(&seen, |seen| match seen {
            Seen::Accept(connection) => Some(connection),
            _ => None,
        });
        assert_eq!(accepted.peer().unwrap().policy, expected);
        assert_eq!(accepted.peer().unwrap().name, client.name());
        pollster::block_on(client.shutdown());
    }
    pollster::block_on(osd.shutdown());
}

#[test]
fn of_an_address_vector_the_v2_address_is_used() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (osd, received) = common::osd(&context, &stack);
    let v2 = bound(&osd, &["v2:127.0.0.1:0/0"])[0];
    let addrs: EntityAddrVec = vec!["v1:127.0.0.1:1/0".parse().unwrap(), v2].into();
    let client = common::client(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addrs.clone());
    assert_eq!(connection.peer_addrs(), addrs, "as asked for, until it says so itself");
    connection.send(message(42, 5)).unwrap();
    assert_eq!(common::next_message(&received), 5);
    assert_eq!(connection.peer_addrs(), EntityAddrVec::from(v2));
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
}

#[test]
fn the_loopback_dispatches_in_order_as_a_peer_would() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (witness, seen) = Witness::new();
    let osd = messenger(&context, &stack, EntityType::OSD, Policy::LOSSLESS_PEER, &[witness]);
    let loopback = osd.loopback();
    for tid in 0..500 {
        loopback.send(message(if tid % 2 == 0 { 42 } else { 1 }, tid)).unwrap();
    }
    pollster::block_on(loopback.flushed()).unwrap();
    assert_eq!(pollster::block_on(loopback.attempt()).unwrap().name, osd.name());
    pollster::block_on(osd.shutdown());
    let (mut fast, mut ordinary) = (Vec::new(), Vec::new());
    for seen in seen.try_iter() {
        match seen {
            Seen::FastMessage(tid) => fast.push(tid),
            Seen::Message(tid) => ordinary.push(tid),
            other => panic!("{other:?}"),
        }
    }
    assert!(fast.into_iter().eq((0..500).step_by(2)));
    assert!(ordinary.into_iter().eq((1..500).step_by(2)));
}

#[test]
fn messengers_share_a_stack_and_stacks_a_process() {
    let context = context(|_| {});
    let stacks = [Stack::new(&context).unwrap(), Stack::new(&context).unwrap()];
    let osds: Vec<_> = (0..6)
        .map(|at| {
            let (osd, received) = common::osd(&context, &stacks[at % 2]);
            let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
            (osd, received, addrs)
        })
        .collect();
    for stack in &stacks {
        let client = common::client(&context, stack);
        for (at, (_, received, addrs)) in osds.iter().enumerate() {
            let tid = at as u64 + 1;
            client.connect_to(EntityType::OSD, addrs.clone()).send(message(42, tid)).unwrap();
            assert_eq!(common::next_message(received), tid);
        }
        pollster::block_on(client.shutdown());
    }
    osds.iter().for_each(|(osd, ..)| pollster::block_on(osd.shutdown()));
}
