//! What an application can rely on.

mod common;

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use bytes::Bytes;
use common::{HUNG, bound, client, context, message, next_message, osd};
use siphon_msgr::{CloseReason, Connection, Dispatcher, Inbox, InboxEvent, Messenger, Stack};
use siphon_proto::{Message, MessageHeader, OutMessage, Payload, Policy, Priority};
use siphon_wire::buf::Rope;
use siphon_wire::types::{EntityName, EntityType};

/// Sends every message back.
struct Echo {
    threads: Mutex<HashSet<ThreadId>>,
}

impl Dispatcher for Echo {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        self.threads.lock().unwrap().insert(std::thread::current().id());
        connection.send(message).unwrap();
    }
}

fn echo(context: &siphon_common::Context, stack: &Stack) -> (Messenger, Arc<Echo>) {
    let echo = Arc::new(Echo { threads: Mutex::default() });
    let messenger = Messenger::builder(context, stack, EntityName::new(EntityType::OSD, 0))
        .default_policy(Policy::STATELESS_SERVER)
        .dispatcher_tail(Arc::clone(&echo) as Arc<dyn Dispatcher>)
        .start()
        .unwrap();
    (messenger, echo)
}

/// Bytes that tell their place.
fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ (i >> 16) as u8 ^ salt).collect()
}

/// Data cut into pieces of odd lengths, none of them aligned.
fn unaligned(len: usize) -> Rope {
    let bytes = Bytes::from(pattern(len + 1, 5)).slice(1..);
    let cuts: Vec<usize> = (0..len).step_by(997).chain([len]).collect();
    cuts.windows(2).map(|cut| bytes.slice(cut[0]..cut[1])).collect()
}

#[test]
fn messages_of_every_shape_survive_both_directions_byte_for_byte() {
    for crc_data in [true, false] {
        let context = context(|config| config.ms_crc_data = crc_data);
        let stack = Stack::new(&context).unwrap();
        let (server, _echo) = echo(&context, &stack);
        let addrs = bound(&server, &["v2:127.0.0.1:0/0", "v2:[::1]:0/0"]);
        for addr in addrs.iter() {
            let (dispatcher, mut inbox) = Inbox::new();
            let client =
                Messenger::builder(&context, &stack, EntityName::new(EntityType::CLIENT, 1))
                    .default_policy(Policy::LOSSLESS_CLIENT)
                    .dispatcher_tail(dispatcher)
                    .start()
                    .unwrap();
            let connection = client.connect_to(EntityType::OSD, (*addr).into());
            let shapes = [
                (pattern(200, 1), Vec::new(), Rope::new()),
                (pattern(200, 1), pattern(33, 2), Bytes::from(pattern(4096, 3)).into()),
                (Vec::new(), Vec::new(), Rope::new()),
                (Vec::new(), pattern(70_000, 2), Rope::new()),
                (Vec::new(), Vec::new(), Bytes::from(pattern(64 << 20, 4)).into()),
                (pattern(1, 1), Vec::new(), unaligned(1_000_003)),
            ];
            for (tid, (front, middle, data)) in shapes.into_iter().enumerate() {
                let payload = Payload { front: front.into(), middle: middle.into(), data };
                let header = MessageHeader {
                    msg_type: 4711,
                    tid: tid as u64,
                    priority: Priority::LOW,
                    version: 3,
                    compat_version: 2,
                    data_off: 0xabc,
                };
                connection.send(OutMessage::new(header, payload.clone())).unwrap();
                let Some(InboxEvent::Message(_, back)) = pollster::block_on(inbox.next()) else {
                    panic!("message {tid} did not come back");
                };
                assert_eq!(back.header, header);
                assert_eq!(back.payload.front, payload.front);
                assert_eq!(back.payload.middle, payload.middle);
                assert!(back.payload.data == payload.data, "the data of message {tid} differs");
            }
            pollster::block_on(client.shutdown());
        }
        pollster::block_on(server.shutdown());
    }
}

#[test]
fn a_shutdown_sends_what_waits() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (osd, received) = osd(&context, &stack);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let client = client(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addrs);
    let data = Bytes::from(pattern(64 << 10, 1));
    for tid in 1..=1000 {
        let header = MessageHeader { msg_type: 42, tid, ..Default::default() };
        let payload = Payload { data: data.clone().into(), ..Default::default() };
        connection.send(OutMessage::new(header, payload)).unwrap();
    }
    pollster::block_on(client.shutdown());
    assert!(matches!(connection.close_reason(), Some(CloseReason::Shutdown)));
    (1..=1000).for_each(|tid| assert_eq!(next_message(&received), tid));
    pollster::block_on(osd.shutdown());
}

#[test]
fn accepted_connections_are_spread_over_the_workers() {
    let context = context(|config| config.ms_async_op_threads = 4);
    // The clients' own connections are on other workers, and leave the choice alone.
    let [stack, client_stack] = [(); 2].map(|()| Stack::new(&context).unwrap());
    let (server, echo) = echo(&context, &stack);
    let addrs = bound(&server, &["v2:127.0.0.1:0/0"]);
    let (sender, received) = channel();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            Messenger::builder(&context, &client_stack, EntityName::new(EntityType::CLIENT, 1))
                .dispatcher_tail(Arc::new(common::Tell(sender.clone())))
                .start()
                .unwrap()
        })
        .collect();
    for client in &clients {
        client.connect_to(EntityType::OSD, addrs.clone()).send(message(42, 1)).unwrap();
    }
    clients.iter().for_each(|_| assert_eq!(next_message(&received), 1));
    assert_eq!(echo.threads.lock().unwrap().len(), 4);
    clients.iter().for_each(|client| pollster::block_on(client.shutdown()));
    pollster::block_on(server.shutdown());
}

/// Tells the news of connections.
struct News(Sender<&'static str>);

impl Dispatcher for News {
    fn handle_connect(&self, _: &Connection) {
        self.0.send("connect").unwrap();
    }

    fn handle_accept(&self, _: &Connection) {
        self.0.send("accept").unwrap();
    }

    fn handle_reset(&self, _: &Connection, _: &CloseReason) -> bool {
        self.0.send("reset").unwrap();
        true
    }

    fn handle_remote_reset(&self, _: &Connection) {
        self.0.send("remote reset").unwrap();
    }

    fn handle_refused(&self, _: &Connection) {
        self.0.send("refused").unwrap();
    }

    fn handle_keepalive_ack(&self, _: &Connection) {
        self.0.send("keepalive ack").unwrap();
    }
}

fn with_news(
    context: &siphon_common::Context,
    stack: &Stack,
    kind: EntityType,
    policy: Policy,
) -> (Messenger, Receiver<&'static str>) {
    let (sender, news) = channel();
    let messenger = Messenger::builder(context, stack, EntityName::new(kind, 3))
        .default_policy(policy)
        .nonce(7)
        .dispatcher_tail(Arc::new(News(sender)))
        .start()
        .unwrap();
    (messenger, news)
}

#[test]
fn applications_hear_of_their_connections() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (server, of_server) = with_news(&context, &stack, EntityType::OSD, Policy::STATEFUL_SERVER);
    let addrs = bound(&server, &["v2:127.0.0.1:0/0"]);
    assert_eq!(addrs[0].nonce(), 7);
    let lossless = Policy::LOSSLESS_CLIENT;
    let (client, of_client) = with_news(&context, &stack, EntityType::CLIENT, lossless);
    let connection = client.connect_to(EntityType::OSD, addrs.clone());
    assert_eq!(of_client.recv_timeout(HUNG), Ok("connect"));
    assert_eq!(of_server.recv_timeout(HUNG), Ok("accept"));
    assert_eq!(connection, client.connect_to(EntityType::OSD, addrs.clone()), "there is one");
    let learned = format!("{}:0/7", common::ip());
    assert_eq!(client.addrs().to_string(), learned, "learned from the server");
    connection.keepalive();
    assert_eq!(of_client.recv_timeout(HUNG), Ok("keepalive ack"));
    assert!(connection.last_keepalive_ack().is_some());

    // The same client, under the same address, has forgotten its session, which the server kept.
    connection.mark_down();
    let (again, of_again) = with_news(&context, &stack, EntityType::CLIENT, lossless);
    let second = again.connect_to(EntityType::OSD, addrs.clone());
    assert_eq!(of_again.recv_timeout(HUNG), Ok("connect"));
    let mut news: Vec<_> = (0..2).map(|_| of_server.recv_timeout(HUNG).unwrap()).collect();
    news.sort_unstable();
    assert_eq!(news, ["accept", "remote reset"]);

    second.mark_down();
    let closed = std::net::TcpListener::bind((common::ip(), 0)).unwrap().local_addr().unwrap();
    let nobody = again.connect_to(EntityType::OSD, format!("v2:{closed}/0").parse().unwrap());
    assert_eq!(of_again.recv_timeout(HUNG), Ok("refused"));
    assert_eq!(of_again.recv_timeout(HUNG), Ok("refused"), "it tries again");
    nobody.mark_down();
    for messenger in [client, again, server] {
        pollster::block_on(messenger.shutdown());
    }
}

#[test]
fn a_slow_dispatcher_stops_the_reading_and_loses_nothing() {
    /// Takes one message for each token that it is given.
    struct Slow(Mutex<Receiver<()>>, Sender<u64>);

    impl Dispatcher for Slow {
        fn dispatch(&self, _: &Connection, message: Message) -> Option<Message> {
            self.0.lock().unwrap().recv().unwrap();
            self.1.send(message.header.tid).unwrap();
            None
        }
    }

    let context = context(|config| config.ms_dispatch_throttle_bytes = 100_000);
    let stack = Stack::new(&context).unwrap();
    let (tokens, wait) = channel();
    let (sender, received) = channel();
    let osd = Messenger::builder(&context, &stack, EntityName::new(EntityType::OSD, 0))
        .default_policy(Policy::STATELESS_SERVER)
        .dispatcher_tail(Arc::new(Slow(Mutex::new(wait), sender)))
        .start()
        .unwrap();
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let client = client(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addrs);
    let data = Bytes::from(pattern(100_000, 1));
    for tid in 1..=300 {
        let header = MessageHeader { tid, ..Default::default() };
        let payload = Payload { data: data.clone().into(), ..Default::default() };
        connection.send(OutMessage::new(header, payload)).unwrap();
    }
    for tid in 1..=300 {
        tokens.send(()).unwrap();
        assert_eq!(received.recv_timeout(HUNG), Ok(tid));
    }
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
}
