//! What waits to be sent is bounded, and given back wherever it comes to its end.

mod common;

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Wake, Waker};
use std::time::Instant;

use bytes::Bytes;
use common::{HUNG, bound, context, next_message, osd};
use siphon_common::Context;
use siphon_msgr::{Connection, Messenger, SendError, Stack};
use siphon_net::StackKind;
use siphon_proto::{MessageHeader, OutMessage, Payload, Policy};
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType};

const BOUND: u64 = 20_000;

fn client(context: &Context, stack: &Stack, policy: Policy) -> Messenger {
    Messenger::builder(context, stack, EntityName::new(EntityType::CLIENT, 1))
        .default_policy(policy)
        .send_bound(BOUND)
        .start()
        .unwrap()
}

fn message(tid: u64) -> OutMessage {
    let data = Bytes::from(vec![tid as u8; 1000]).into();
    let header = MessageHeader { msg_type: 42, tid, ..Default::default() };
    OutMessage::new(header, Payload { data, ..Payload::default() })
}

/// A connection with a peer that says nothing, so that all that is sent waits.
fn connect_to_nobody(client: &Messenger) -> (Connection, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addrs: EntityAddrVec = format!("v2:{}/0", silent.local_addr().unwrap()).parse().unwrap();
    (client.connect_to(EntityType::OSD, addrs), silent)
}

/// Tells whether it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// A message that waits for room.
fn waiting(connection: &Connection) -> (impl Future<Output = Result<(), SendError>>, Arc<Woken>) {
    let woken = Arc::new(Woken::default());
    let mut sending = Box::pin(connection.send_async(message(1000)));
    let waker = Waker::from(Arc::clone(&woken));
    assert!(sending.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_pending());
    (sending, woken)
}

/// Sends until there is no room.
fn fill(connection: &Connection) -> u64 {
    let full = (1..).find(|tid| match connection.send(message(*tid)) {
        Ok(()) => false,
        Err(SendError::Full(_)) => true,
        Err(other) => panic!("{other}"),
    });
    full.unwrap() - 1
}

#[expect(clippy::disallowed_methods, reason = "a test that hangs has to end")]
fn wait_until(is_so: impl Fn() -> bool, what: &str) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < HUNG, "{what}");
        std::thread::yield_now();
    }
}

/// Waits until nothing is held against the bound.
fn wait_for_room(connection: &Connection) {
    wait_until(|| connection.outgoing_bytes() == 0, "all is given back");
}

#[test]
fn whoever_waits_for_room_learns_of_the_end() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let client = client(&context, &stack, Policy::LOSSLESS_CLIENT);
    let (connection, _silent) = connect_to_nobody(&client);
    let sent = fill(&connection);
    assert!((10..=20).contains(&sent), "{sent} messages of 1,000 bytes and what they take");
    assert!(connection.outgoing_bytes() <= BOUND);
    let waiting = [(); 3].map(|()| waiting(&connection));
    connection.mark_down();
    for (sending, woken) in waiting {
        wait_until(|| woken.0.load(Ordering::Acquire), "whoever waits is woken");
        assert!(matches!(pollster::block_on(sending), Err(SendError::Closed(_))));
    }
    assert_eq!(connection.outgoing_bytes(), 0);
    pollster::block_on(client.shutdown());
}

/// Its worker ended, by itself or before it had taken the connection.
#[test]
fn nobody_waits_for_a_worker_that_has_ended() {
    let context = context(|_| {});
    let driver = StackKind::Posix.driver().unwrap();
    let (stack, mut workers) = Stack::stepped(vec![driver]);
    let client = client(&context, &stack, Policy::LOSSLESS_CLIENT);
    let addrs: EntityAddrVec = "v2:127.0.0.1:1/0".parse().unwrap();
    let taken = client.connect_to(EntityType::OSD, addrs.clone());
    workers[0].step().unwrap();
    let untaken = client.connect_to(EntityType::MON, addrs);
    // What is on its way to the worker, nobody gives back.
    fill(&taken);
    let (sending, woken) = waiting(&taken);
    drop(workers);
    assert!(woken.0.load(Ordering::Acquire), "whoever waits is woken");
    assert!(matches!(pollster::block_on(sending), Err(SendError::Closed(_))));
    for connection in [taken, untaken] {
        let sent = (0..1000).map(|tid| pollster::block_on(connection.send_async(message(tid))));
        let end = sent.into_iter().find_map(Result::err);
        assert!(matches!(end, Some(SendError::Closed(_))), "{end:?}");
        assert!(matches!(connection.send(message(1)), Err(SendError::Closed(_))));
    }
}

#[test]
fn all_is_given_back_once_it_is_sent_or_acknowledged() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (osd, received) = osd(&context, &stack);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0", "v1:127.0.0.1:0/0"]);
    let legacy = addrs.legacy().map(EntityAddrVec::from);
    let lossless = client(&context, &stack, Policy::LOSSLESS_CLIENT);
    let lossy = client(&context, &stack, Policy::LOSSY_CLIENT);
    for client in [&lossless, &lossy] {
        for addrs in [Some(addrs.clone()), legacy.clone()].into_iter().flatten() {
            let connection = client.connect_to(EntityType::OSD, addrs);
            for tid in 1..=300 {
                pollster::block_on(connection.send_async(message(tid))).unwrap();
            }
            (1..=300).for_each(|tid| assert_eq!(next_message(&received), tid));
            wait_for_room(&connection);
            connection.mark_down();
        }
        let ourselves = client.loopback();
        for tid in 1..=100 {
            pollster::block_on(ourselves.send_async(message(tid))).unwrap();
        }
        wait_for_room(&ourselves);
    }
    for messenger in [lossless, lossy, osd] {
        pollster::block_on(messenger.shutdown());
    }
}

#[test]
fn a_message_that_was_not_sent_holds_nothing() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let client = client(&context, &stack, Policy::LOSSLESS_CLIENT);
    let (connection, _silent) = connect_to_nobody(&client);
    fill(&connection);
    let held = connection.outgoing_bytes();
    drop(waiting(&connection));
    assert!(matches!(connection.send(message(1)), Err(SendError::Full(_))));
    assert_eq!(connection.outgoing_bytes(), held);
    connection.mark_down();
    pollster::block_on(client.shutdown());
}
