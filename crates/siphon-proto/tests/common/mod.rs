//! Two connections, a network of memory between them, and virtual time, in one object.

#![allow(dead_code, unreachable_pub)] // each test program uses its share

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use siphon_auth::{
    AuthClient as _, AuthEnv, AuthMethod, AuthRequest, AuthServer as _, AuthServerAnswer,
    ClientExchange, ConnectionMode, CryptoKey, KeyType, Keys, ModeList, Modes, PeerContext, Secret,
    ServerExchange, SharedSecret,
};
use siphon_proto::{
    AuthAnswer, AuthEvent, CloseReason, Connection, ConnectionConfig, Event, Message,
    MessageHeader, Met, OutMessage, Payload, PeerInfo, Policies, Policy, Transmit,
};
use siphon_wire::buf::SegmentPool;
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec, EntityName, EntityType, Utime};

/// The server's address.
pub fn server_addr() -> EntityAddr {
    "v2:127.0.0.1:6800/0".parse().unwrap()
}

/// The client's address as the server's socket has it.
pub fn client_addr() -> EntityAddr {
    "v2:127.0.0.1:40000/0".parse().unwrap()
}

/// A configuration that tests change in places.
pub fn config(name: EntityName, policy: Policy) -> ConnectionConfig {
    ConnectionConfig {
        nonce: 7,
        policies: Arc::new(Policies::new(policy)),
        cookie_seed: 0x0123_4567_89ab_cdef,
        pool: SegmentPool::new(1 << 20),
        ..ConnectionConfig::new(name, EntityAddrVec::default())
    }
}

pub fn client_config(policy: Policy) -> ConnectionConfig {
    config(EntityName::new(EntityType::CLIENT, 4100), policy)
}

pub fn server_config(policy: Policy) -> ConnectionConfig {
    ConnectionConfig {
        addrs: EntityAddrVec::from(server_addr()),
        ..config(EntityName::new(EntityType::OSD, 3), policy)
    }
}

/// One side, with what it has told its application.
pub struct Side {
    pub conn: Connection,
    pub ready: Option<PeerInfo>,
    pub messages: Vec<Message>,
    pub keepalive_acks: usize,
    pub learned: Option<EntityAddr>,
    /// Why the first link was lost, or the connection ended.
    pub closed: Option<CloseReason>,
    pub exchange: Exchange,
    /// The connection that who knocks has already, and what became of him.
    pub known: Option<Box<Connection>>,
    pub met: Option<Met>,
    now: Instant,
}

/// How a side authenticates.
pub enum Exchange {
    /// By method none.
    None,
    Client(Box<dyn ClientExchange>),
    Server(Box<dyn ServerExchange>),
}

/// Numbers that repeat from run to run.
#[derive(Debug)]
pub struct TestEnv(AtomicU64);

impl AuthEnv for TestEnv {
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

/// What both sides of a cephx conversation share; each draws numbers of its own.
pub fn shared_secret(seed: u64, modes: &str) -> SharedSecret {
    let secret = Secret::from(vec![9; 32]);
    let key = CryptoKey::new(KeyType::AES256K, Utime::default(), secret).unwrap();
    let modes = Modes::all(&modes.parse::<ModeList>().unwrap());
    SharedSecret::new(key, modes, Arc::new(TestEnv(AtomicU64::new(seed))))
}

/// The connecting side of cephx.
pub fn cephx_client(modes: &str) -> Exchange {
    cephx_client_named("client.a", modes)
}

/// The same with another name.
pub fn cephx_client_named(name: &str, modes: &str) -> Exchange {
    let client = shared_secret(3, modes).client(name.parse().unwrap(), EntityType::OSD);
    Exchange::Client(client.unwrap().begin(PeerContext::new(EntityType::OSD)).unwrap())
}

/// The accepting side.
pub fn cephx_server(modes: &str) -> Exchange {
    let server = shared_secret(5, modes).server(EntityType::OSD);
    Exchange::Server(server.begin(PeerContext::new(EntityType::CLIENT)))
}

impl Side {
    pub fn new(conn: Connection, now: Instant) -> Self {
        Self {
            conn,
            ready: None,
            messages: Vec::new(),
            keepalive_acks: 0,
            learned: None,
            closed: None,
            exchange: Exchange::None,
            known: None,
            met: None,
            now,
        }
    }

    pub fn send(&mut self, message: OutMessage) {
        self.conn.send(self.now, message);
    }

    /// Polls to the end, as the contract says; returns what is to be sent.
    pub fn drain(&mut self) -> Vec<u8> {
        while let Some(event) = self.conn.poll_event() {
            match event {
                Event::Auth(event) => {
                    let answer = self.exchange.answer(event);
                    self.conn.handle_auth(self.now, answer);
                }
                // There is one transport: what comes after it is not tried.
                Event::Connect(_) if self.closed.is_none() => self.conn.handle_connected(self.now),
                Event::Connect(_) | Event::RemoteReset => {}
                Event::Knock => {
                    self.met = Some(self.conn.meet(self.now, self.known.as_deref_mut()));
                }
                Event::LearnedAddr(addr) => self.learned = Some(addr),
                Event::Ready { peer, .. } => self.ready = Some(*peer),
                Event::Message(message) => self.messages.push(message),
                Event::KeepaliveAck(_) => self.keepalive_acks += 1,
                Event::LinkDown { reason, .. } | Event::Closed(reason) => {
                    self.closed.get_or_insert(reason);
                }
            }
        }
        let mut transmit = Transmit::default();
        while self.conn.poll_transmit(self.now, &mut transmit, 1 << 20) {}
        transmit.out.to_bytes().to_vec()
    }

    /// Bytes arrive, first into a lent buffer if there is one.
    pub fn receive(&mut self, now: Instant, mut bytes: &[u8]) {
        let mut lent = self.conn.lend_buffer();
        if let Some(buffer) = &mut lent {
            let len = buffer.remaining().min(bytes.len());
            buffer.unfilled()[..len].copy_from_slice(&bytes[..len]);
            buffer.advance(len);
            bytes = &bytes[len..];
        }
        self.conn.handle_recv(now, lent, bytes);
    }
}

impl Exchange {
    fn answer(&mut self, event: AuthEvent) -> AuthAnswer {
        let answer = match (self, event) {
            (Self::None, event) => return none(event),
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

/// Method `none`.
fn none(event: AuthEvent) -> AuthAnswer {
    match event {
        AuthEvent::Begin { .. } => AuthAnswer::Request(AuthRequest {
            method: AuthMethod::NONE,
            preferred_modes: vec![ConnectionMode::CRC],
            payload: Bytes::new(),
        }),
        AuthEvent::Done { .. } => AuthAnswer::Trust(Keys::None),
        AuthEvent::Request { .. } => AuthAnswer::Accept {
            global_id: 0,
            mode: ConnectionMode::CRC,
            payload: Bytes::new(),
            keys: Keys::None,
            identity: None,
        },
        other => panic!("method none has no {other:?}"),
    }
}

/// A client and a server that talk.
pub struct Pair {
    pub client: Side,
    pub server: Side,
    pub now: Instant,
    /// Bytes are delivered in pieces of this size.
    pub chunk: usize,
    /// All that each side has sent.
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
    /// Somebody between them.
    pub meddle: Box<dyn FnMut(bool, Vec<u8>) -> Vec<u8>>,
}

impl Pair {
    pub fn new(client: ConnectionConfig, server: ConnectionConfig) -> Self {
        let now = Instant::now();
        let client = Connection::connect(client, server_addr(), Some(EntityType::OSD), now);
        let server = Connection::accept(server, client_addr(), now);
        Self {
            client: Side::new(client, now),
            server: Side::new(server, now),
            now,
            chunk: usize::MAX,
            to_server: Vec::new(),
            to_client: Vec::new(),
            meddle: Box::new(|_to_server, bytes| bytes),
        }
    }

    /// Both sides authenticate by cephx.
    pub fn cephx(mut self, modes: &str) -> Self {
        self.client.exchange = cephx_client(modes);
        self.server.exchange = cephx_server(modes);
        self
    }

    /// By msgr1.
    pub fn v1(client: Policy, server: Policy) -> Self {
        Self::v1_new(client_config(client), server_config(server))
    }

    /// By msgr1, to a server that listens for both protocols.
    pub fn v1_new(client: ConnectionConfig, mut server: ConnectionConfig) -> Self {
        let legacy = |addr: EntityAddr| addr.with_kind(AddrType::LEGACY);
        let target = legacy(server_addr());
        server.addrs = [server_addr(), target].into_iter().collect();
        let mut pair = Self::new(client.clone(), server.clone());
        let now = pair.now;
        let client = Connection::connect(client, target, Some(EntityType::OSD), now);
        let server = Connection::accept(server, legacy(client_addr()), now);
        (pair.client, pair.server) = (Side::new(client, now), Side::new(server, now));
        pair
    }

    pub fn with_policies(client: Policy, server: Policy) -> Self {
        Self::new(client_config(client), server_config(server))
    }

    /// Runs until neither side has anything to say.
    pub fn run(&mut self) {
        loop {
            let to_server = (self.meddle)(true, self.client.drain());
            let to_client = (self.meddle)(false, self.server.drain());
            if to_server.is_empty() && to_client.is_empty() {
                return;
            }
            to_server.chunks(self.chunk).for_each(|bytes| self.server.receive(self.now, bytes));
            to_client.chunks(self.chunk).for_each(|bytes| self.client.receive(self.now, bytes));
            self.to_server.extend_from_slice(&to_server);
            self.to_client.extend_from_slice(&to_client);
        }
    }
}

/// A message with these parts.
pub fn message(tid: u64, front: &[u8], middle: &[u8], data: &[u8]) -> OutMessage {
    let header =
        MessageHeader { msg_type: 42, tid, version: 8, compat_version: 3, ..Default::default() };
    OutMessage::new(
        header,
        Payload {
            front: Bytes::copy_from_slice(front).into(),
            middle: Bytes::copy_from_slice(middle),
            data: Bytes::copy_from_slice(data).into(),
        },
    )
}

/// Bytes that tell their place.
pub fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt).collect()
}
