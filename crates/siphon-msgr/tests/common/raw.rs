//! A peer on a plain blocking socket: it follows the protocol as far as a test wants it to.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use siphon_auth::{AuthMethod, AuthNone, AuthRequest, ConnectionMode, Keys};
use siphon_proto::v2::{Assembler, Framing, MessageHeader2, Protection, Revision, Tag};
use siphon_proto::{
    AuthAnswer, AuthEvent, CloseReason, Connection, ConnectionConfig, Event, Message, Payload,
    PeerInfo, Policies, Policy, Transmit,
};
use siphon_wire::buf::Rope;
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityType, Utime};

use super::HUNG;

/// A connection of our own making.
pub struct Raw {
    pub stream: TcpStream,
    /// All that was written to the stream.
    pub sent: Vec<u8>,
    proto: Connection,
}

/// What a raw client says of itself.
pub fn client_config() -> ConnectionConfig {
    let name = EntityName::new(EntityType::CLIENT, 9);
    ConnectionConfig {
        nonce: 99,
        policies: Arc::new(Policies::new(Policy::LOSSLESS_CLIENT)),
        ready_timeout: 10 * HUNG,
        idle_timeout: 10 * HUNG,
        cookie_seed: 4711,
        ..ConnectionConfig::new(name, EntityAddrVec::default())
    }
}

/// What a raw server at this address says of itself.
pub fn server_config(addr: EntityAddr) -> ConnectionConfig {
    ConnectionConfig {
        name: EntityName::new(EntityType::OSD, 0),
        addrs: addr.into(),
        policies: Arc::new(Policies::new(Policy::STATELESS_SERVER)),
        ..client_config()
    }
}

/// A TCP connection whose reads and writes do not wait for ever.
pub fn tcp(addr: SocketAddr) -> TcpStream {
    limited(TcpStream::connect(addr).unwrap())
}

fn limited(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(HUNG)).unwrap();
    stream.set_write_timeout(Some(HUNG)).unwrap();
    stream
}

impl Raw {
    /// Connects; nothing is said yet.
    pub fn connect(config: ConnectionConfig, target: EntityAddr) -> Self {
        Self::to(config, tcp(target.socket_addr().unwrap()), target)
    }

    /// A client's side of an open socket, which looks for `target` there.
    pub fn to(config: ConnectionConfig, stream: TcpStream, target: EntityAddr) -> Self {
        let mut proto = Connection::connect(config, target, None, now());
        assert!(matches!(proto.poll_event(), Some(Event::Connect(_))));
        proto.handle_connected(now());
        Self { stream, sent: Vec::new(), proto }
    }

    /// Takes a connection; nothing is said yet.
    pub fn accept(config: ConnectionConfig, stream: TcpStream) -> Self {
        let peer_addr = EntityAddr::msgr2(stream.peer_addr().unwrap(), 0);
        let proto = Connection::accept(config, peer_addr, now());
        Self { stream: limited(stream), sent: Vec::new(), proto }
    }

    /// Where the peer sees us.
    pub fn local(&self) -> String {
        self.stream.local_addr().unwrap().to_string()
    }

    /// Opens a session.
    pub fn open(mut self) -> (Self, PeerInfo) {
        loop {
            match self.next().unwrap() {
                Event::Ready { peer, .. } => {
                    self.flush();
                    return (self, *peer);
                }
                Event::LearnedAddr(_) => {}
                other => panic!("no session yet: {other:?}"),
            }
        }
    }

    /// The next message.
    pub fn message(&mut self) -> Message {
        match self.next().unwrap() {
            Event::Message(message) => message,
            other => panic!("no message: {other:?}"),
        }
    }

    /// Asks for a sign of life.
    pub fn keepalive(&mut self, stamp: Utime) {
        self.proto.keepalive(now(), stamp);
        self.flush();
    }

    /// The answer to it.
    pub fn keepalive_ack(&mut self) -> Utime {
        match self.next().unwrap() {
            Event::KeepaliveAck(stamp) => stamp,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// Goes on until the peer ends it, and says how.
    pub fn end(&mut self) -> CloseReason {
        loop {
            match self.next() {
                Ok(_) => {}
                Err(reason) => return reason,
            }
        }
    }

    /// Queues a message, which is sent at the next opportunity.
    pub fn send(&mut self, message: impl Into<siphon_proto::OutMessage>) {
        self.proto.send(now(), message.into());
        self.flush();
    }

    /// Sends bytes behind the protocol's back.
    pub fn write(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        self.stream.write_all(bytes).unwrap();
    }

    fn next(&mut self) -> Result<Event, CloseReason> {
        let mut buffer = [0; 64 << 10];
        loop {
            self.flush();
            match self.proto.poll_event() {
                Some(Event::Auth(event)) => self.proto.handle_auth(now(), answer(event)),
                Some(Event::Closed(reason) | Event::LinkDown { reason, .. }) => return Err(reason),
                Some(Event::Knock) => drop(self.proto.meet(now(), None)),
                Some(event) => return Ok(event),
                None => match self.stream.read(&mut buffer) {
                    Ok(0) => self.proto.handle_eof(now()),
                    Ok(len) => self.proto.handle_recv(now(), None, &buffer[..len]),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                        self.proto.handle_eof(now());
                    }
                    Err(error) => panic!("the peer neither speaks nor leaves: {error}"),
                },
            }
        }
    }

    fn flush(&mut self) {
        let mut transmit = Transmit::default();
        while self.proto.poll_transmit(now(), &mut transmit, usize::MAX) {}
        let bytes = transmit.out.to_bytes();
        let _ = self.stream.write_all(&bytes); // the peer may have hung up
        self.sent.extend_from_slice(&bytes);
    }
}

#[expect(clippy::disallowed_methods, reason = "a socket's time is the system's")]
fn now() -> Instant {
    Instant::now()
}

/// Method `none`.
fn answer(event: AuthEvent) -> AuthAnswer {
    use siphon_auth::{AuthClient, PeerContext};
    let name = EntityName::new(EntityType::CLIENT, 9);
    match event {
        AuthEvent::Begin { peer_type } => {
            let mut exchange = AuthNone::new(name, "9").begin(PeerContext::new(peer_type)).unwrap();
            AuthAnswer::Request(exchange.request().unwrap())
        }
        AuthEvent::Done { .. } => AuthAnswer::Trust(Keys::None),
        AuthEvent::Request { request: AuthRequest { method, .. }, .. } => {
            assert_eq!(method, AuthMethod::NONE);
            AuthAnswer::Accept {
                global_id: 0,
                mode: ConnectionMode::CRC,
                payload: Bytes::new(),
                keys: Keys::None,
                identity: None,
            }
        }
        other => panic!("method none has no {other:?}"),
    }
}

/// Frames for the peer to read.
pub fn frames(revision: Revision, build: impl FnOnce(&mut Assembler, &mut Rope)) -> Vec<u8> {
    let protection = Protection::Crc { data: true };
    let mut assembler = Assembler::new(Framing { revision, protection });
    let mut out = Rope::new();
    build(&mut assembler, &mut out);
    assembler.flush(&mut out);
    out.to_bytes().to_vec()
}

/// A control frame.
pub fn control(tag: Tag, payload: &[u8]) -> Vec<u8> {
    frames(Revision::Rev1, |assembler, _| assembler.control(tag, payload))
}

/// The first message of a session, of a front, a middle and data.
pub fn message_frame(revision: Revision) -> Vec<u8> {
    let payload = Payload {
        front: Bytes::from_static(b"front").into(),
        middle: Bytes::from_static(b"middle"),
        data: Bytes::from_static(b"data").into(),
    };
    let header = MessageHeader2 { seq: 1, ..Default::default() };
    frames(revision, |assembler, out| assembler.message(&header, &payload, out))
}

/// A preamble of these lengths with a right checksum.
pub fn preamble(tag: u8, lengths: &[u32]) -> Vec<u8> {
    let mut bytes = vec![tag, lengths.len() as u8];
    for at in 0..4 {
        bytes.extend_from_slice(&lengths.get(at).copied().unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&[8, 0]);
    }
    bytes.resize(28, 0);
    let crc = siphon_wire::crc32c::crc32c(0, &bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}
