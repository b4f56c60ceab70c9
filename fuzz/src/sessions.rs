//! Connections, and peers that say anything to them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use siphon_auth::{AuthMethod, AuthRequest, ConnectionMode, Keys};
use siphon_proto::v2::{Assembler, Framing, MessageHeader2, Protection, Revision, Tag};
use siphon_proto::{
    AuthAnswer, AuthEvent, Connection, ConnectionConfig, Event, Met, Payload, Policies, Policy,
    Transmit,
};
use siphon_wire::Encode as _;
use siphon_wire::buf::Rope;
use siphon_wire::crc32c::crc32c;
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec, EntityName, EntityType, Features};

use crate::Script;

/// When it begins: only differences to it are seen.
#[expect(clippy::disallowed_methods, reason = "no outcome depends on it")]
pub fn start() -> Instant {
    Instant::now()
}

/// An entity at its own address.
pub fn config(kind: EntityType, addr: EntityAddr, policy: Policy, seed: u64) -> ConnectionConfig {
    ConnectionConfig {
        policies: std::sync::Arc::new(Policies::new(policy)),
        cookie_seed: seed,
        initial_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(1),
        ..ConnectionConfig::new(EntityName::new(kind, 1), EntityAddrVec::from(addr))
    }
}

/// `v1:10.0.0.N:6800/N`.
pub fn addr_v1(number: u8) -> EntityAddr {
    addr(number).with_kind(AddrType::LEGACY)
}

/// `v2:10.0.0.N:6800/N`.
pub fn addr(number: u8) -> EntityAddr {
    EntityAddr::msgr2(([10, 0, 0, number], 6800).into(), u32::from(number))
}

/// Method `none`, but who begins with a `c` is challenged.
pub fn answer(event: AuthEvent) -> AuthAnswer {
    match event {
        AuthEvent::Begin { .. } | AuthEvent::BadMethod(_) => AuthAnswer::Request(AuthRequest {
            method: AuthMethod::NONE,
            preferred_modes: vec![ConnectionMode::CRC],
            payload: Bytes::new(),
        }),
        AuthEvent::Done { .. } => AuthAnswer::Trust(Keys::None),
        AuthEvent::ReplyMore(payload) => AuthAnswer::More(payload),
        AuthEvent::Request { request, .. } if request.payload.starts_with(b"c") => {
            AuthAnswer::More(request.payload)
        }
        AuthEvent::RequestMore(_) | AuthEvent::Request { .. } => AuthAnswer::Accept {
            global_id: 7,
            mode: ConnectionMode::CRC,
            payload: Bytes::new(),
            keys: Keys::None,
            identity: None,
        },
    }
}

/// Feeds a peer's bytes to one end, in pieces of the fuzzer's choice, and drains it after each.
pub fn converse(connection: Connection, now: Instant, data: &[u8]) {
    let banner = b"ceph v2\n\x10\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let crc = Protection::Crc { data: true };
    let framing = Framing { revision: Revision::Rev1, protection: crc };
    let well_formed = |input: &mut Script<'_>| frame(framing, input);
    converse_with(connection, None, banner, well_formed, now, data);
}

/// The same by msgr1, with a peer that may have a connection already.
pub fn converse_v1(connection: Connection, existing: Option<Connection>, data: &[u8]) {
    let connects = connection.has_events(); // it asks for a transport
    let mut hello = b"ceph v027".to_vec();
    let addrs = if connects { vec![addr_v1(2), addr_v1(1)] } else { vec![addr_v1(1)] };
    addrs.iter().for_each(|addr| hello.extend_from_slice(&addr.to_bytes(Features::NONE)));
    converse_with(connection, existing, &hello, message_v1, start(), data);
}

fn converse_with(
    mut connection: Connection,
    mut existing: Option<Connection>,
    hello: &[u8],
    well_formed: impl Fn(&mut Script<'_>) -> Vec<u8>,
    now: Instant,
    data: &[u8],
) {
    let mut input = Script::new(data);
    let mut now = now;
    let mut ended = false;
    let mut transmit = Transmit::default();
    loop {
        while let Some(event) = connection.poll_event() {
            assert!(!ended, "{event:?} after the end");
            match event {
                Event::Auth(event) => connection.handle_auth(now, answer(event)),
                Event::Knock => {
                    let met = connection.meet(now, existing.as_mut());
                    if met == Met::TakenOver
                        && let Some(existing) = existing.take()
                    {
                        connection = existing;
                    }
                }
                Event::Connect(_) => connection.handle_connected(now),
                Event::Closed(_) => ended = true,
                _ => {}
            }
        }
        while connection.poll_transmit(now, &mut transmit, 64 << 10) {}
        let out = &transmit.out;
        assert!(out.len() <= 4096 + 64 * data.len(), "{} bytes of answers", out.len());
        if connection.has_events() {
            continue;
        }
        if ended || input.is_empty() {
            return;
        }
        match input.byte() {
            0xff => {
                now += Duration::from_secs(u64::from(input.byte()));
                connection.handle_timeout(now);
            }
            0xfe => connection.handle_eof(now),
            0xfd => {
                let bytes = well_formed(&mut input);
                connection.handle_recv(now, None, &bytes[..]);
            }
            0xfc => connection.handle_recv(now, None, &hello[..]),
            len => {
                let mut piece = input.take(1 + usize::from(len) * usize::from(len) / 16);
                let mut lent = (len % 2 == 0).then(|| connection.lend_buffer()).flatten();
                if let Some(buffer) = &mut lent {
                    let part = buffer.remaining().min(piece.len());
                    buffer.unfilled()[..part].copy_from_slice(&piece[..part]);
                    buffer.advance(part);
                    piece = &piece[part..];
                }
                connection.handle_recv(now, lent, &piece[..]);
            }
        }
    }
}

/// A frame whose checksums are right, whatever is in it: what no mutation finds.
fn frame(framing: Framing, input: &mut Script<'_>) -> Vec<u8> {
    let mut assembler = Assembler::new(framing);
    let mut out = Rope::new();
    match Tag::from_wire(input.byte()) {
        Some(Tag::MESSAGE) => {
            let header = MessageHeader2 {
                seq: u64::from(input.byte()),
                ack_seq: u64::from(input.byte()),
                ..MessageHeader2::default()
            };
            let mut part = || {
                let len = usize::from(input.byte());
                Bytes::copy_from_slice(input.take(len))
            };
            let payload = Payload { front: part().into(), middle: part(), data: part().into() };
            assembler.message(&header, &payload, &mut out);
        }
        Some(tag) => {
            let len = usize::from(input.byte());
            assembler.control(tag, input.take(len));
        }
        None => {}
    }
    assembler.flush(&mut out);
    out.to_bytes().to_vec()
}

/// A message of msgr1 whose checksums are right.
fn message_v1(input: &mut Script<'_>) -> Vec<u8> {
    const MSG: u8 = 7;
    const COMPLETE: u8 = 1;
    let mut out = vec![MSG];
    let mut header = [0; 49];
    header[0] = input.byte(); // its number
    let parts = [0, 1, 2].map(|at: usize| {
        let len = input.byte();
        header[22 + 4 * at] = len;
        let mut part = input.take(usize::from(len)).to_vec();
        part.resize(usize::from(len), 0);
        part
    });
    out.extend_from_slice(&header);
    out.extend_from_slice(&crc32c(0, &header).to_le_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    parts.iter().for_each(|part| out.extend_from_slice(&crc32c(0, part).to_le_bytes()));
    if input.byte() % 2 == 0 {
        out.extend_from_slice(&[0; 8]); // the signature, which peers without `MSG_AUTH` leave out
    }
    out.push(COMPLETE);
    out
}
