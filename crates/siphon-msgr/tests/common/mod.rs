//! An OSD that tells what it gets, and clients.

#![allow(dead_code, unreachable_pub)] // each test program uses its share

pub mod log;
pub mod proxy;
pub mod raw;
pub mod stand_in;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use siphon_common::{Config, Context};
use siphon_msgr::{CloseReason, Connection, Dispatcher, Messenger, Stack};
use siphon_proto::{Message, MessageHeader, OutMessage, Payload, Policy};
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType};

/// The variable with options for all that tests start: another network stack.
const OPTIONS: &str = "SIPHON_TEST_OPTIONS";
/// The variable with the address of servers.
const IP: &str = "SIPHON_TEST_IP";
const LOOPBACK: &str = "127.0.0.1";

/// How long a test waits for what must come.
pub const HUNG: Duration = Duration::from_secs(30);

/// Tells what it gets.
pub struct Tell(pub Sender<u64>);

impl Dispatcher for Tell {
    fn can_fast_dispatch(&self, message: &Message) -> bool {
        message.header.msg_type == 42
    }

    fn fast_dispatch(&self, _: &Connection, message: Message) {
        let _ = self.0.send(message.header.tid);
    }

    fn dispatch(&self, _: &Connection, message: Message) -> Option<Message> {
        assert_ne!(message.header.tid, PANIC, "the message that a test wants a panic for");
        let _ = self.0.send(message.header.tid);
        None
    }

    fn handle_reset(&self, _: &Connection, reason: &CloseReason) -> bool {
        let _ =
            self.0.send(if matches!(reason, CloseReason::DispatcherPanicked) { PANIC } else { 0 });
        true
    }
}

/// A transaction id at which `Tell` panics in ordinary dispatch.
pub const PANIC: u64 = u64::MAX;

pub fn context(change: impl FnOnce(&mut Config)) -> Context {
    let mut config = Config::default();
    config.ms_bind_port_min = 0;
    config.ms_bind_port_max = 0;
    config.ms_async_op_threads = 2;
    for option in std::env::var(OPTIONS).unwrap_or_default().split_whitespace() {
        let (name, value) = option.split_once('=').expect("NAME=VALUE");
        config.set(name, value).unwrap();
    }
    change(&mut config);
    Context::new(config)
}

pub fn osd(context: &Context, stack: &Stack) -> (Messenger, Receiver<u64>) {
    let (sender, receiver) = channel();
    let osd = Messenger::builder(context, stack, EntityName::new(EntityType::OSD, 0))
        .default_policy(Policy::STATELESS_SERVER)
        .dispatcher_tail(Arc::new(Tell(sender)))
        .start()
        .unwrap();
    (osd, receiver)
}

pub fn client(context: &Context, stack: &Stack) -> Messenger {
    let name = EntityName::new(EntityType::CLIENT, 1);
    let builder = Messenger::builder(context, stack, name).default_policy(Policy::LOSSLESS_CLIENT);
    builder.start().unwrap()
}

pub fn message(msg_type: u16, tid: u64) -> OutMessage {
    OutMessage::new(MessageHeader { msg_type, tid, ..Default::default() }, Payload::default())
}

/// The next message, past the ends of connections.
pub fn next_message(received: &Receiver<u64>) -> u64 {
    loop {
        match received.recv_timeout(HUNG).unwrap() {
            0 => {}
            tid => return tid,
        }
    }
}

/// Where servers are: RDMA-CM needs an address of a device.
pub fn ip() -> String {
    std::env::var(IP).ok().filter(|ip| !ip.is_empty()).unwrap_or_else(|| LOOPBACK.to_owned())
}

/// Binds to these addresses; where servers are elsewhere than at the loopback interface, to what is at
/// 127.0.0.1 there, and to no other.
pub fn bound(osd: &Messenger, addrs: &[&str]) -> EntityAddrVec {
    let ip = ip();
    let addrs: Vec<_> = addrs
        .iter()
        .filter(|addr| ip == LOOPBACK || addr.contains(LOOPBACK))
        .map(|addr| addr.replace(LOOPBACK, &ip).parse().unwrap())
        .collect();
    osd.bind(&addrs).unwrap()
}

/// What a dispatcher is told, in the order in which it is.
#[derive(Debug)]
pub enum Seen {
    Connect,
    Accept(Connection),
    FastConnect,
    FastAccept,
    Message(u64),
    FastMessage(u64),
    Reset(CloseReason),
    RemoteReset,
    Refused,
}

/// Tells all that it is told. Messages of type 42 are for fast dispatch.
pub struct Witness(pub Sender<Seen>);

impl Witness {
    pub fn new() -> (Arc<Self>, Receiver<Seen>) {
        let (sender, seen) = channel();
        (Arc::new(Self(sender)), seen)
    }

    fn tell(&self, seen: Seen) {
        let _ = self.0.send(seen); // a test may have seen enough
    }
}

impl Dispatcher for Witness {
    fn can_fast_dispatch(&self, message: &Message) -> bool {
        message.header.msg_type == 42
    }

    fn fast_dispatch(&self, _: &Connection, message: Message) {
        self.tell(Seen::FastMessage(message.header.tid));
    }

    fn dispatch(&self, _: &Connection, message: Message) -> Option<Message> {
        self.tell(Seen::Message(message.header.tid));
        None
    }

    fn handle_connect(&self, _: &Connection) {
        self.tell(Seen::Connect);
    }

    fn handle_accept(&self, connection: &Connection) {
        self.tell(Seen::Accept(connection.clone()));
    }

    fn handle_fast_connect(&self, _: &Connection) {
        self.tell(Seen::FastConnect);
    }

    fn handle_fast_accept(&self, _: &Connection) {
        self.tell(Seen::FastAccept);
    }

    fn handle_reset(&self, _: &Connection, reason: &CloseReason) -> bool {
        self.tell(Seen::Reset(reason.clone()));
        true
    }

    fn handle_remote_reset(&self, _: &Connection) {
        self.tell(Seen::RemoteReset);
    }

    fn handle_refused(&self, _: &Connection) {
        self.tell(Seen::Refused);
    }
}

/// The next thing seen that `pick` wants.
pub fn next_seen<T>(seen: &Receiver<Seen>, mut pick: impl FnMut(Seen) -> Option<T>) -> T {
    loop {
        if let Some(picked) = pick(seen.recv_timeout(HUNG).expect("it is told in time")) {
            return picked;
        }
    }
}

/// Why the next connection to end ended.
pub fn next_reset(seen: &Receiver<Seen>) -> CloseReason {
    next_seen(seen, |seen| match seen {
        Seen::Reset(reason) => Some(reason),
        _ => None,
    })
}

/// Why the connection lost the link that it has or had, once it has.
#[expect(clippy::disallowed_methods, reason = "a test that hangs has to end")]
pub fn next_fault(connection: &Connection) -> CloseReason {
    let hung = std::time::Instant::now() + HUNG;
    loop {
        if let Some(fault) = connection.last_fault() {
            return fault;
        }
        assert!(std::time::Instant::now() < hung, "{connection} has no fault");
        std::thread::yield_now();
    }
}

/// A messenger with these dispatchers, the first of the chain first.
pub fn messenger(
    context: &Context,
    stack: &Stack,
    kind: EntityType,
    policy: Policy,
    chain: &[Arc<dyn Dispatcher>],
) -> Messenger {
    let mut builder =
        Messenger::builder(context, stack, EntityName::new(kind, 0)).default_policy(policy);
    for dispatcher in chain {
        builder = builder.dispatcher_tail(Arc::clone(dispatcher));
    }
    builder.start().unwrap()
}
