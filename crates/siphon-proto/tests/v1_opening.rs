//! How a session of msgr1 is opened, with one side played byte by byte.

#![allow(clippy::disallowed_methods, reason = "a test begins at some time")]

mod common;

use std::time::Instant;

use bytes::{BufMut, Bytes};
use common::{Pair, client_config, server_addr};
use siphon_auth::{AuthMethod, AuthRequest, ConnectionMode, Keys};
use siphon_proto::{
    AuthAnswer, AuthEvent, CloseReason, Connection, ConnectionConfig, Event, PeerIncompatible,
    PeerMisbehaved, Policy, ProtocolError, Transmit,
};
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec, EntityType, Features};
use siphon_wire::{Decode as _, Encode as _};

/// `CEPH_MSGR_TAG_*` of Ceph's `include/msgr.h`.
mod tag {
    pub(crate) const RESETSESSION: u8 = 2;
    pub(crate) const RETRY_SESSION: u8 = 4;
    pub(crate) const RETRY_GLOBAL: u8 = 5;
    pub(crate) const BADPROTOVER: u8 = 10;
    pub(crate) const FEATURES: u8 = 12;
    pub(crate) const SEQ: u8 = 13;
    pub(crate) const CHALLENGE_AUTHORIZER: u8 = 16;
}

/// Banner and addresses of the server.
const HELLO: usize = 9 + 2 * 136;
/// Banner and address of a client.
const CLIENT_HELLO: usize = 9 + 136;
const CONNECT: usize = 33;
/// Of the protocol between a client and an OSD.
const VERSION: u32 = 24;

/// A side whose application answers when the test says so.
struct Played {
    conn: Connection,
    now: Instant,
    ready: bool,
    closed: Option<CloseReason>,
}

impl Played {
    fn client(config: ConnectionConfig) -> Self {
        let now = Instant::now();
        let target = server_addr().with_kind(AddrType::LEGACY);
        let mut conn = Connection::connect(config, target, Some(EntityType::OSD), now);
        assert!(matches!(conn.poll_event(), Some(Event::Connect(_))));
        conn.handle_connected(now);
        let mut client = Self { conn, now, ready: false, closed: None };
        client.transmit();
        let mut server = Pair::v1(Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER).server;
        let hello = server.drain();
        assert_eq!(hello.len(), HELLO);
        client.receive(&hello);
        client
    }

    fn server(policy: Policy) -> Self {
        let pair = Pair::v1(Policy::LOSSLESS_PEER, policy);
        let mut server = Self { conn: pair.server.conn, now: pair.now, ready: false, closed: None };
        server.transmit();
        let mut client = pair.client;
        let mut hello = client.drain();
        hello.extend_from_slice(&EntityAddr::default().to_bytes(Features::NONE));
        assert_eq!(hello.len(), CLIENT_HELLO);
        server.receive(&hello);
        server
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.conn.handle_recv(self.now, None, bytes);
    }

    fn answer(&mut self, answer: AuthAnswer) {
        self.conn.handle_auth(self.now, answer);
    }

    /// What the application is asked, if it is.
    fn asked(&mut self) -> Option<AuthEvent> {
        while let Some(event) = self.conn.poll_event() {
            match event {
                Event::Auth(event) => return Some(event),
                Event::Ready { .. } => self.ready = true,
                Event::LinkDown { reason, .. } | Event::Closed(reason) => {
                    self.closed.get_or_insert(reason);
                }
                _ => {}
            }
        }
        None
    }

    fn transmit(&mut self) -> Vec<u8> {
        let mut transmit = Transmit::default();
        while self.conn.poll_transmit(self.now, &mut transmit, 1 << 20) {}
        transmit.out.to_bytes().to_vec()
    }

    /// Authenticates a client by an authorizer; returns what it asks for.
    fn begin(&mut self, authorizer: &'static [u8]) -> Asked {
        assert!(matches!(self.asked(), Some(AuthEvent::Begin { .. })));
        self.answer(request(authorizer));
        assert!(self.asked().is_none());
        let bytes = self.transmit();
        Asked::parse(&bytes[136..]) // behind its address
    }

    fn error(&mut self) -> ProtocolError {
        assert!(self.asked().is_none());
        match self.closed.take() {
            Some(CloseReason::Error(error)) => error,
            other => panic!("{other:?}"),
        }
    }
}

fn request(authorizer: &'static [u8]) -> AuthAnswer {
    AuthAnswer::Request(AuthRequest {
        method: AuthMethod::CEPHX,
        preferred_modes: vec![ConnectionMode::CRC],
        payload: Bytes::from_static(authorizer),
    })
}

/// What a client says of the session that it wants.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    connect_seq: u32,
    authorizer: Vec<u8>,
}

impl Asked {
    fn parse(bytes: &[u8]) -> Self {
        let connect_seq = u32::from_le_bytes(bytes[16..20].try_into().unwrap());
        Self { connect_seq, authorizer: bytes[CONNECT..].to_vec() }
    }
}

fn connect(features: Features, kind: EntityType, version: u32, connect_seq: u32) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64_le(features.0);
    out.put_u32_le(u32::from(kind.0));
    out.put_u32_le(1); // global_seq
    out.put_u32_le(connect_seq);
    out.put_u32_le(version);
    out.put_u32_le(AuthMethod::NONE.0);
    out.put_u32_le(0); // no authorizer
    out.put_u8(0);
    out
}

fn reply(tag: u8, global_seq: u32, connect_seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.put_u64_le(Features::ALL.0);
    out.put_u32_le(global_seq);
    out.put_u32_le(connect_seq);
    out.put_u32_le(VERSION);
    out.put_u32_le(payload.len() as u32);
    out.put_u8(0);
    out.extend_from_slice(payload);
    out
}

/// An OSD that stood by for us, and never had a session with us, wants us to count from 1
/// (`handle_connect_message_2` of `ProtocolV1.cc`). We took that for a fault, and came again as new.
#[test]
fn a_new_client_counts_from_where_the_server_wants_it() {
    let mut client = Played::client(client_config(Policy::LOSSLESS_PEER));
    assert_eq!(client.begin(b"a").connect_seq, 0);
    client.receive(&reply(tag::RETRY_SESSION, 0, 1, &[]));
    assert!(client.asked().is_none());
    let again = Asked { connect_seq: 1, authorizer: b"a".to_vec() };
    assert_eq!(Asked::parse(&client.transmit()), again);
    // It ends that session meanwhile, and knows of none now.
    client.receive(&reply(tag::RESETSESSION, 0, 0, &[]));
    assert!(client.asked().is_none());
    assert_eq!(Asked::parse(&client.transmit()).connect_seq, 0);
    client.receive(&reply(tag::RETRY_SESSION, 0, 3, &[]));
    client.asked();
    client.transmit();
    client.receive(&[&reply(tag::SEQ, 9, 4, b"proof")[..], &[0; 8]].concat());
    assert!(matches!(client.asked(), Some(AuthEvent::Done { .. })));
    client.answer(AuthAnswer::Trust(Keys::None));
    assert!(client.asked().is_none());
    assert!(client.ready, "{:?}", client.closed);
    assert_eq!(client.transmit(), [0; 8], "the last message that it has");
}

#[test]
fn a_server_that_wants_no_higher_number_is_refused() {
    let mut client = Played::client(client_config(Policy::LOSSLESS_PEER));
    client.begin(b"a");
    client.receive(&reply(tag::RETRY_SESSION, 0, 0, &[]));
    let error = client.error();
    let is_unexpected =
        matches!(error, ProtocolError::PeerMisbehaved(PeerMisbehaved::UnexpectedFrame { .. }));
    assert!(is_unexpected, "{error:?}");
}

/// A daemon that has a session with us hands our link to it, and forgets that it challenged us
/// (`replace` and `reset_security` of `ProtocolV1.cc`). No exchange answers two challenges: no
/// lossless session came back.
#[test]
fn a_challenge_after_a_retry_begins_another_exchange() {
    let mut client = Played::client(client_config(Policy::LOSSLESS_PEER));
    client.begin(b"a");
    client.receive(&reply(tag::CHALLENGE_AUTHORIZER, 0, 0, b"c1"));
    let Some(AuthEvent::ReplyMore(challenge)) = client.asked() else { panic!("no challenge") };
    assert_eq!(challenge, &b"c1"[..]);
    client.answer(AuthAnswer::More(Bytes::from_static(b"a+c1")));
    assert_eq!(Asked::parse(&client.transmit()).authorizer, b"a+c1");
    client.receive(&reply(tag::RETRY_GLOBAL, 5, 0, b"proof"));
    assert!(client.asked().is_none());
    assert_eq!(Asked::parse(&client.transmit()).authorizer, b"a+c1", "its challenge stands");
    client.receive(&reply(tag::CHALLENGE_AUTHORIZER, 0, 0, b"c2"));
    assert!(matches!(client.asked(), Some(AuthEvent::Begin { .. })));
    client.answer(request(b"b"));
    let Some(AuthEvent::ReplyMore(challenge)) = client.asked() else { panic!("no challenge") };
    assert_eq!(challenge, &b"c2"[..]);
    assert_eq!(client.transmit(), b"", "nothing goes out without the answer");
    client.answer(AuthAnswer::More(Bytes::from_static(b"b+c2")));
    assert_eq!(Asked::parse(&client.transmit()).authorizer, b"b+c2");
}

/// What wants to go on was not asked for its features, and nobody before it had authenticated.
#[test]
fn features_are_required_of_everybody_and_first() {
    let server = || Played::server(Policy::LOSSLESS_PEER.requiring(Features::MSG_AUTH));
    for connect_seq in [0, 3] {
        let mut server = server();
        let lacking = Features(Features::ALL.0 & !Features::MSG_AUTH.0);
        server.receive(&connect(lacking, EntityType::CLIENT, VERSION, connect_seq));
        assert!(server.asked().is_none(), "{connect_seq}");
        let answer = server.transmit();
        assert_eq!(answer[0], tag::FEATURES);
        let theirs = Features(u64::from_le_bytes(answer[1..9].try_into().unwrap()));
        assert!(theirs.contains(Features::MSG_AUTH));
        server.receive(&connect(Features::ALL, EntityType::CLIENT, VERSION, connect_seq));
        assert!(matches!(server.asked(), Some(AuthEvent::Request { .. })));
    }
}

/// It could be asked who it is as one kind, and be let in as another.
#[test]
fn a_client_stays_what_it_said_it_is() {
    let mut server = Played::server(Policy::LOSSLESS_PEER);
    server.receive(&connect(Features::ALL, EntityType::CLIENT, VERSION + 1, 0));
    assert!(server.asked().is_none());
    assert_eq!(server.transmit()[0], tag::BADPROTOVER);
    server.receive(&connect(Features::ALL, EntityType::MDS, VERSION, 0));
    let (expected, found) = (EntityType::CLIENT, EntityType::MDS);
    let other = PeerIncompatible::WrongEntityType { expected, found };
    assert_eq!(server.error(), ProtocolError::PeerIncompatible(other));
}

/// All messengers of a host that listen for msgr2 alone were one to the daemons that they reached by
/// msgr1, and took each other's sessions.
#[test]
fn a_messenger_without_a_legacy_address_is_still_told_from_others() {
    let own: EntityAddr = "v2:127.0.0.1:6900/55".parse().unwrap();
    let config = ConnectionConfig {
        addrs: EntityAddrVec::from(own),
        ..client_config(Policy::LOSSLESS_PEER)
    };
    let mut client = Played::client(config);
    let told = client.transmit();
    let told = EntityAddr::from_bytes(&Bytes::from(told)).unwrap();
    assert_eq!(told.with_kind(AddrType::LEGACY), own.with_kind(AddrType::LEGACY));
}
