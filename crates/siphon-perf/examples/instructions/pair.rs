//! Two connections with nothing between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use siphon_auth::{
    AuthClient, AuthEnv, AuthNone, AuthServer, AuthServerAnswer, ClientExchange, CryptoKey,
    KeyType, ModeList, Modes, PeerContext, Secret, ServerExchange, SharedSecret,
};
use siphon_proto::{
    AuthAnswer, AuthEvent, Connection, ConnectionConfig, Event, MessageHeader, OutMessage, Payload,
    Policies, Policy, Transmit,
};
use siphon_wire::buf::SegmentPool;
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityType, Utime};

/// A client and a server.
pub(crate) struct Pair {
    now: Instant,
    client: Side,
    server: Side,
}

struct Side {
    connection: Connection,
    exchange: Exchange,
    messages: usize,
    transmit: Transmit,
}

enum Exchange {
    Client(Box<dyn ClientExchange>),
    Server(Box<dyn ServerExchange>),
}

/// Numbers that repeat from run to run.
#[derive(Debug)]
struct SameEnv(AtomicU64);

impl AuthEnv for SameEnv {
    fn now(&self) -> Utime {
        Utime::new(1_000_000, 0)
    }

    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let next = self.0.load(Ordering::Relaxed).wrapping_mul(6_364_136_223_846_793_005);
            self.0.store(next.wrapping_add(1), Ordering::Relaxed);
            *byte = (next >> 56) as u8;
        }
    }
}

fn secret(seed: u64) -> SharedSecret {
    let key = CryptoKey::new(KeyType::AES256K, Utime::default(), Secret::from(vec![9; 32]));
    let modes = Modes::all(&"secure".parse::<ModeList>().expect("a mode"));
    let env = Arc::new(SameEnv(AtomicU64::new(seed)));
    SharedSecret::new(key.expect("32 bytes are a key"), modes, env)
}

fn exchanges(secure: bool) -> (Exchange, Exchange) {
    let (to, from) = (PeerContext::new(EntityType::OSD), PeerContext::new(EntityType::CLIENT));
    let (client, server): (Box<dyn AuthClient>, Box<dyn AuthServer>) = match secure {
        true => {
            let name = "client.a".parse().expect("a name");
            let client = secret(3).client(name, EntityType::OSD).expect("a key of its own");
            (Box::new(client), Box::new(secret(5).server(EntityType::OSD)))
        }
        false => {
            let none = AuthNone::new(EntityName::new(EntityType::CLIENT, 4100), "a");
            (Box::new(none.clone()), Box::new(none))
        }
    };
    (Exchange::Client(client.begin(to).expect("it begins")), Exchange::Server(server.begin(from)))
}

fn config(name: EntityName) -> ConnectionConfig {
    ConnectionConfig {
        nonce: 7,
        policies: Arc::new(Policies::new(Policy::LOSSLESS_PEER)),
        cookie_seed: 1,
        pool: SegmentPool::new(16 << 20),
        ..ConnectionConfig::new(name, EntityAddrVec::default())
    }
}

impl Pair {
    /// With a session between them.
    #[allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]
    pub(crate) fn open(secure: bool) -> Self {
        let now = Instant::now();
        let addr = |text: &str| text.parse::<EntityAddr>().expect("an address");
        let (at, from) = (addr("v2:127.0.0.1:6800/0"), addr("v2:127.0.0.1:40000/0"));
        let client = config(EntityName::new(EntityType::CLIENT, 4100));
        let server = ConnectionConfig {
            addrs: EntityAddrVec::from(at),
            ..config(EntityName::new(EntityType::OSD, 3))
        };
        let client = Connection::connect(client, at, Some(EntityType::OSD), now);
        let server = Connection::accept(server, from, now);
        let (asks, answers) = exchanges(secure);
        let mut pair =
            Self { now, client: Side::new(client, asks), server: Side::new(server, answers) };
        pair.run();
        assert!(pair.client.connection.is_ready() && pair.server.connection.is_ready());
        pair
    }

    /// Sends so many messages to the server, until all of them are acknowledged.
    pub(crate) fn exchange(&mut self, count: usize, header: MessageHeader, payload: &Payload) {
        self.server.messages = 0;
        for _ in 0..count {
            self.client.connection.send(self.now, OutMessage::new(header, payload.clone()));
        }
        self.run();
        assert_eq!(self.server.messages, count);
        assert_eq!(self.client.connection.unsent(), 0);
    }

    fn run(&mut self) {
        loop {
            let sent = self.client.drain(self.now) | self.server.drain(self.now);
            if !sent {
                return;
            }
            self.client.deliver(&mut self.server, self.now);
            self.server.deliver(&mut self.client, self.now);
        }
    }
}

impl Side {
    fn new(connection: Connection, exchange: Exchange) -> Self {
        Self { connection, exchange, messages: 0, transmit: Transmit::default() }
    }

    /// Polls to the end; says whether there is something to be sent.
    fn drain(&mut self, now: Instant) -> bool {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Auth(event) => {
                    let answer = self.exchange.answer(event);
                    self.connection.handle_auth(now, answer);
                }
                Event::Connect(_) => self.connection.handle_connected(now),
                Event::Knock => drop(self.connection.meet(now, None)),
                Event::Message(_) => self.messages += 1,
                Event::LinkDown { reason, .. } => panic!("the link ended: {reason}"),
                _ => {}
            }
        }
        while self.connection.poll_transmit(now, &mut self.transmit, 1 << 20) {}
        self.transmit.waits.clear();
        !self.transmit.out.is_empty()
    }

    /// Moves what is to be sent to the other side, as a driver would.
    fn deliver(&mut self, to: &mut Self, now: Instant) {
        for segment in self.transmit.out.segments() {
            let mut bytes = &segment[..];
            let mut lent = to.connection.lend_buffer();
            if let Some(buffer) = &mut lent {
                let (head, rest) = bytes.split_at(buffer.remaining().min(bytes.len()));
                buffer.unfilled()[..head.len()].copy_from_slice(head);
                buffer.advance(head.len());
                bytes = rest;
            }
            to.connection.handle_recv(now, lent, bytes);
        }
        self.transmit.out.clear();
    }
}

impl Exchange {
    fn answer(&mut self, event: AuthEvent) -> AuthAnswer {
        let answer = match (self, event) {
            (Self::Client(it), AuthEvent::Begin { .. }) => it.request().map(AuthAnswer::Request),
            (Self::Client(it), AuthEvent::BadMethod(refusal)) => {
                it.bad_method(refusal).map(AuthAnswer::Request)
            }
            (Self::Client(it), AuthEvent::ReplyMore(payload)) => {
                it.reply_more(&payload).map(AuthAnswer::More)
            }
            (Self::Client(it), AuthEvent::Done { global_id, mode, payload }) => {
                it.done(global_id, mode, &payload).map(AuthAnswer::Trust)
            }
            (Self::Server(it), AuthEvent::Request { request, .. }) => {
                return server_answer(it.request(&request));
            }
            (Self::Server(it), AuthEvent::RequestMore(payload)) => {
                return server_answer(it.request_more(&payload));
            }
            (_, other) => panic!("out of turn: {other:?}"),
        };
        answer.unwrap_or_else(AuthAnswer::Reject)
    }
}

fn server_answer(answer: AuthServerAnswer) -> AuthAnswer {
    match answer {
        AuthServerAnswer::Done { global_id, mode, payload, keys, identity } => {
            AuthAnswer::Accept { global_id, mode, payload, keys, identity }
        }
        AuthServerAnswer::More(payload) => AuthAnswer::More(payload),
        AuthServerAnswer::BadMethod(refusal) => AuthAnswer::Refuse(refusal),
    }
}
