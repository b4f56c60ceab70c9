//! How connections, messengers and stacks end, and what an end may not take with it.

mod common;

use std::cell::RefCell;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::log::Log;
use common::raw::{Raw, server_config};
use common::{
    HUNG, Seen, Witness, bound, client, context, message, messenger, next_message, next_reset,
    next_seen, osd,
};
use futures_util::FutureExt;
use siphon_msgr::{CloseReason, Connection, Dispatcher, Inbox, InboxEvent, Messenger, Stack};
use siphon_proto::{
    EncodePayload, Message, MessageHeader, OutMessage, Payload, Policy, ProtocolError,
};
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType, Features};

/// Longer than any of these shutdowns takes.
const AGES: Duration = Duration::from_secs(3600);

fn with_data(tid: u64, data: &Bytes) -> OutMessage {
    let header = MessageHeader { msg_type: 1, tid, ..Default::default() };
    OutMessage::new(header, Payload { data: data.clone().into(), ..Default::default() })
}

/// A listener that the operating system alone answers, until a test takes it up.
fn listener() -> (TcpListener, EntityAddrVec) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("v2:{}/0", listener.local_addr().unwrap()).parse().unwrap();
    (listener, addr)
}

fn session(listener: &TcpListener, addrs: &EntityAddrVec) -> Raw {
    Raw::accept(server_config(addrs[0]), listener.accept().unwrap().0).open().0
}

#[test]
fn a_shutdown_waits_for_a_receiver_that_is_slow_to_dispatch() {
    /// Takes one message for each token that it is given.
    struct Slow(Mutex<Receiver<()>>, Sender<u64>);

    impl Dispatcher for Slow {
        fn dispatch(&self, _: &Connection, message: Message) -> Option<Message> {
            self.0.lock().unwrap().recv().unwrap();
            self.1.send(message.header.tid).unwrap();
            None
        }
    }

    for policy in [Policy::STATELESS_SERVER, Policy::STATEFUL_SERVER] {
        let context = context(|config| config.ms_dispatch_throttle_bytes = 100_000);
        let stack = Stack::new(&context).unwrap();
        let (tokens, wait) = channel();
        let (sender, received) = channel();
        let slow = Arc::new(Slow(Mutex::new(wait), sender));
        let osd = messenger(&context, &stack, EntityType::OSD, policy, &[slow]);
        let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
        let client = client(&context, &stack);
        let connection = client.connect_to(EntityType::OSD, addrs);
        let data = Bytes::from(vec![7; 64 << 10]);
        (1..=1000).for_each(|tid| connection.send(with_data(tid, &data)).unwrap());
        let mut shutdown = pin!(client.shutdown_within(AGES));
        assert!(shutdown.as_mut().now_or_never().is_none(), "64 MB are not under way at once");
        for tid in 1..=1000 {
            tokens.send(()).unwrap();
            assert_eq!(received.recv_timeout(HUNG), Ok(tid));
        }
        pollster::block_on(shutdown);
        pollster::block_on(osd.shutdown());
    }
}

#[test]
fn a_shutdown_while_connecting_connects_and_sends_what_waits() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let client = client(&context, &stack);
    let (listener, addrs) = listener();
    let connection = client.connect_to(EntityType::OSD, addrs.clone());
    (1..=10).for_each(|tid| connection.send(message(1, tid)).unwrap());
    let mut shutdown = pin!(client.shutdown_within(AGES));
    assert!(shutdown.as_mut().now_or_never().is_none(), "nobody has said a word yet");
    let mut raw = session(&listener, &addrs);
    (1..=10).for_each(|tid| assert_eq!(raw.message().header.tid, tid));
    let end = raw.end();
    assert_eq!(end.to_string(), "the peer closed the connection while a session was open");
    drop(raw);
    pollster::block_on(shutdown);
    assert!(matches!(connection.close_reason(), Some(CloseReason::Shutdown)));
}

#[test]
fn a_shutdown_leaves_a_peer_that_does_not_read_and_says_so() {
    let log = Log::of_process();
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let client = client(&context, &stack);
    let (listener, addrs) = listener();
    let connection = client.connect_to(EntityType::OSD, addrs.clone());
    let data = Bytes::from(vec![7; 64 << 20]);
    let raw = session(&listener, &addrs);
    connection.send(with_data(1, &data)).unwrap();
    pollster::block_on(client.shutdown_within(Duration::from_millis(20)));
    assert!(matches!(connection.close_reason(), Some(CloseReason::Shutdown)));
    let addr = addrs[0].socket_addr().unwrap();
    log.take_line(&format!("left at the end of the shutdown's time peer=osd.0 v2:{addr}"));
    drop(raw);
}

#[test]
fn a_silent_session_is_closed_and_its_user_told_why() {
    let context = context(|config| config.ms_connection_idle_timeout = Duration::from_millis(20));
    let stack = Stack::new(&context).unwrap();
    let (witness, seen) = Witness::new();
    let client = messenger(&context, &stack, EntityType::CLIENT, Policy::LOSSY_CLIENT, &[witness]);
    let (listener, addrs) = listener();
    let connection = client.connect_to(EntityType::OSD, addrs.clone());
    let raw = session(&listener, &addrs);
    let reason = next_reset(&seen);
    assert!(matches!(reason, CloseReason::Protocol(ProtocolError::IdleTimeout)), "{reason}");
    assert_eq!(reason.to_string(), "the peer was silent for too long (ms_connection_idle_timeout)");
    assert!(
        connection.send(message(1, 1)).unwrap_err().to_string().contains("silent for too long")
    );
    drop(raw);
    pollster::block_on(client.shutdown());
}

/// Tells when the thread that has it ends.
struct Tombstone(Sender<()>);

impl Drop for Tombstone {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

thread_local! {
    static TOMBSTONE: RefCell<Option<Tombstone>> = const { RefCell::new(None) };
}

/// Leaves a tombstone on each worker that dispatches; has one of its own for its own end.
struct Mortal {
    of_threads: Sender<()>,
    _own: Tombstone,
}

impl Dispatcher for Mortal {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let stone = Tombstone(self.of_threads.clone());
        TOMBSTONE.with_borrow_mut(|known| {
            known.get_or_insert(stone);
        });
        let _ = connection.send(message);
    }
}

#[test]
fn the_last_clone_of_a_stack_ends_its_threads() {
    let context = context(|config| config.ms_async_op_threads = 1);
    let stack = Stack::new(&context).unwrap();
    let (of_threads, ended) = channel();
    let (own, _gone) = channel();
    let mortal = Arc::new(Mortal { of_threads, _own: Tombstone(own) });
    let osd = messenger(&context, &stack, EntityType::OSD, Policy::STATELESS_SERVER, &[mortal]);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let (client, received) = common::osd(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addrs);
    connection.send(message(42, 1)).unwrap();
    assert_eq!(next_message(&received), 1);
    while ended.try_recv().is_ok() {} // stones that were not needed
    drop(stack);
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
    drop((client, osd));
    assert!(ended.try_recv().is_err(), "a connection's handle keeps them");
    drop(connection);
    assert_eq!(ended.try_recv(), Ok(()), "the worker was joined");
}

/// Who dropped a messenger without a shutdown had a server that nothing could end: it listened for
/// as long as the process ran.
#[test]
fn a_messenger_that_is_dropped_stops_listening_and_ends_with_its_last_connection() {
    let context = context(|config| config.ms_async_op_threads = 1);
    let stack = Stack::new(&context).unwrap();
    let (of_threads, _ended) = channel();
    let (own, gone) = channel();
    let mortal = Arc::new(Mortal { of_threads, _own: Tombstone(own) });
    let osd = messenger(&context, &stack, EntityType::OSD, Policy::STATELESS_SERVER, &[mortal]);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let loopback = osd.loopback();
    let clone = osd.clone();
    drop(osd);
    let (client, received) = common::osd(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addrs.clone());
    connection.send(message(42, 1)).unwrap();
    assert_eq!(next_message(&received), 1, "a clone is left");
    drop(clone);
    // The loopback is the messenger's own; its end tells that all of this has happened.
    assert!(pollster::block_on(loopback.flushed()).is_err());
    drop(loopback);
    connection.send(message(42, 2)).unwrap();
    assert_eq!(next_message(&received), 2, "what is open goes on");
    let other = common::client(&context, &stack);
    let late = other.connect_to(EntityType::OSD, addrs);
    let reason = pollster::block_on(late.attempt()).unwrap_err();
    assert!(matches!(reason, CloseReason::Refused { .. }), "{reason}");
    assert!(gone.try_recv().is_err());
    connection.mark_down();
    assert_eq!(gone.recv_timeout(HUNG), Ok(()), "nothing is left of it");
    pollster::block_on(client.shutdown());
    pollster::block_on(other.shutdown());
}

#[test]
fn the_workers_may_be_the_last_to_hold_anything() {
    let context = context(|_| {});
    let (own, gone) = channel();
    let (listener, addrs) = listener();
    let raw = {
        let (of_threads, _) = channel();
        let mortal = Arc::new(Mortal { of_threads, _own: Tombstone(own) });
        let stack = Stack::new(&context).unwrap();
        let client =
            messenger(&context, &stack, EntityType::CLIENT, Policy::LOSSY_CLIENT, &[mortal]);
        let connection = client.connect_to(EntityType::OSD, addrs.clone());
        let raw = session(&listener, &addrs);
        pollster::block_on(connection.attempt()).unwrap();
        raw
    };
    assert!(gone.try_recv().is_err(), "the connection is open");
    drop(raw);
    assert_eq!(gone.recv_timeout(HUNG), Ok(()));
}

#[test]
fn a_dropped_future_loses_nothing() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (dispatcher, mut inbox) = Inbox::new();
    let client =
        messenger(&context, &stack, EntityType::CLIENT, Policy::LOSSY_CLIENT, &[dispatcher]);
    let (listener, addrs) = listener();
    let connection = client.connect_to(EntityType::OSD, addrs.clone());
    // Nobody answers yet, so that none of these is done before it is dropped.
    assert!(connection.attempt().now_or_never().is_none());
    let data = Bytes::from(vec![7; 1 << 20]);
    (1..=5).for_each(|tid| connection.send(with_data(tid, &data)).unwrap());
    assert!(connection.flushed().now_or_never().is_none());
    assert!(inbox.next().now_or_never().is_none());
    let mut raw = session(&listener, &addrs);
    assert_eq!(pollster::block_on(connection.attempt()).unwrap().name.kind, EntityType::OSD);
    for tid in 1..=5 {
        let message = raw.message();
        assert_eq!((message.header.tid, message.payload.data.len()), (tid, 1 << 20));
    }
    pollster::block_on(connection.flushed()).unwrap();
    raw.send(with_data(6, &data));
    let Some(InboxEvent::Message(from, answer)) = pollster::block_on(inbox.next()) else {
        panic!("the answer is lost");
    };
    assert_eq!((from, answer.header.tid), (connection, 6));
    let mut shutdown = Box::pin(client.shutdown());
    assert!(shutdown.as_mut().now_or_never().is_none(), "the peer is still there");
    drop(shutdown);
    raw.end();
    drop(raw);
    pollster::block_on(client.shutdown());
}

/// Panics at message 3.
struct Unlucky(Arc<Witness>);

impl Dispatcher for Unlucky {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        assert_ne!(message.header.tid, 3, "the message that a test wants a panic for");
        self.0.fast_dispatch(connection, message);
    }

    fn handle_reset(&self, connection: &Connection, reason: &CloseReason) -> bool {
        self.0.handle_reset(connection, reason)
    }
}

#[test]
fn a_panic_in_fast_dispatch_ends_its_connection_and_nothing_else() {
    let context = context(|config| config.ms_async_op_threads = 1);
    let stack = Stack::new(&context).unwrap();
    let (witness, seen) = Witness::new();
    let unlucky = Arc::new(Unlucky(witness));
    let osd = messenger(&context, &stack, EntityType::OSD, Policy::STATELESS_SERVER, &[unlucky]);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let (of_client, told) = Witness::new();
    let client =
        messenger(&context, &stack, EntityType::CLIENT, Policy::LOSSY_CLIENT, &[of_client]);
    let connection = client.connect_to(EntityType::OSD, addrs.clone());
    (1..=100).for_each(|tid| connection.send(message(42, tid)).unwrap());
    next_reset(&told);
    let lucky = common::client(&context, &stack);
    lucky.connect_to(EntityType::OSD, addrs).send(message(42, 200)).unwrap();
    let mut order = Vec::new();
    let reason = next_seen(&seen, |seen| match seen {
        Seen::FastMessage(tid) => {
            order.push(tid);
            None
        }
        Seen::Reset(reason) => Some(reason),
        _ => None,
    });
    assert!(matches!(reason, CloseReason::DispatcherPanicked), "{reason}");
    order.retain(|tid| *tid != 200);
    assert_eq!(order, [1, 2], "nothing comes behind what was lost");
    for messenger in [client, lucky, osd] {
        pollster::block_on(messenger.shutdown());
    }
}

/// Cannot be encoded.
#[derive(Debug)]
struct Cursed;

impl EncodePayload for Cursed {
    fn encode_payload(&self, _: Features, _: &mut MessageHeader, _: &mut Payload) {
        panic!("the encoding that a test wants a panic for");
    }
}

/// A payload's encoding is the application's code and runs on the worker: its panic ended the
/// worker, and whoever had a connection there waited for ever.
#[test]
fn a_panic_while_encoding_ends_its_connection_and_nothing_else() {
    let context = context(|config| config.ms_async_op_threads = 1);
    let stack = Stack::new(&context).unwrap();
    let (osd, received) = osd(&context, &stack);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let (witness, seen) = Witness::new();
    let client = messenger(&context, &stack, EntityType::CLIENT, Policy::LOSSY_CLIENT, &[witness]);
    let cursed = || OutMessage::deferred(MessageHeader::default(), Arc::new(Cursed));
    for connection in [client.connect_to(EntityType::OSD, addrs.clone()), client.loopback()] {
        pollster::block_on(connection.attempt()).unwrap();
        connection.send(cursed()).unwrap();
        let reason = next_reset(&seen);
        assert!(matches!(reason, CloseReason::Panicked), "{reason}");
        assert!(matches!(connection.close_reason(), Some(CloseReason::Panicked)));
    }
    client.connect_to(EntityType::OSD, addrs).send(message(42, 8)).unwrap();
    assert_eq!(next_message(&received), 8);
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
}

#[test]
fn after_its_shutdown_a_messenger_takes_nothing_and_hangs_nobody() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (osd, _received) = osd(&context, &stack);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let (dispatcher, mut inbox) = Inbox::new();
    let client = Messenger::builder(&context, &stack, EntityName::new(EntityType::CLIENT, 1))
        .dispatcher_tail(dispatcher)
        .start()
        .unwrap();
    let open = client.connect_to(EntityType::OSD, addrs.clone());
    pollster::block_on(open.attempt()).unwrap();
    pollster::block_on(client.shutdown());
    pollster::block_on(client.shutdown());
    let late = client.connect_to(EntityType::OSD, addrs);
    for connection in [open, late, client.loopback()] {
        assert!(matches!(pollster::block_on(connection.attempt()), Err(CloseReason::Shutdown)));
        assert!(matches!(pollster::block_on(connection.flushed()), Err(CloseReason::Shutdown)));
        assert!(connection.send(message(1, 1)).is_err());
    }
    let error = client.bind(&["v2:127.0.0.1:0/0".parse().unwrap()]).unwrap_err();
    assert!(error.to_string().contains("shut down"), "{error}");
    drop(client);
    assert!(pollster::block_on(inbox.next()).is_none(), "nobody is left who could send");
    pollster::block_on(osd.shutdown());
}

#[test]
fn each_attempt_that_fails_is_told_to_dispatchers() {
    struct Faults(Sender<CloseReason>);

    impl Dispatcher for Faults {
        fn handle_fault(&self, connection: &Connection, reason: &CloseReason) {
            assert!(connection.close_reason().is_none(), "it goes on");
            let _ = self.0.send(reason.clone());
        }
    }

    let context = context(|config| config.ms_initial_backoff = Duration::from_millis(1));
    let stack = Stack::new(&context).unwrap();
    let (sender, faults) = channel();
    let faulty = Arc::new(Faults(sender));
    let client = messenger(&context, &stack, EntityType::CLIENT, Policy::LOSSY_CLIENT, &[faulty]);
    let (listener, addrs) = listener();
    drop(listener);
    let connection = client.connect_to(EntityType::OSD, addrs);
    for _ in 0..3 {
        let reason = faults.recv_timeout(HUNG).unwrap();
        assert!(matches!(reason, CloseReason::Refused { .. }), "{reason}");
    }
    connection.mark_down();
    pollster::block_on(client.shutdown());
}

#[test]
fn a_name_that_is_given_later_is_that_of_later_connections() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (witness, seen) = Witness::new();
    let (kind, policy) = (EntityType::OSD, Policy::STATELESS_SERVER);
    let osd = messenger(&context, &stack, kind, policy, &[witness]);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let client = client(&context, &stack);
    for number in [1, 4151] {
        client.set_name(EntityName::client(number));
        let connection = client.connect_anonymously(EntityType::OSD, addrs.clone());
        pollster::block_on(connection.ready()).unwrap();
        let accepted = next_seen(&seen, |seen| match seen {
            Seen::Accept(accepted) => Some(accepted),
            _ => None,
        });
        assert_eq!(accepted.peer().unwrap().name, EntityName::client(number));
    }
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
}
