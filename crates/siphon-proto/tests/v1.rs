//! msgr1, end to end and against damage.

#![allow(clippy::disallowed_methods, reason = "a test begins at some time")]

mod common;

use common::{Pair, Side, message, pattern};
use proptest::prelude::*;
use siphon_proto::v2::{BannerError, FrameError};
use siphon_proto::{
    CloseReason, ConnectionConfig, Message, PeerIncompatible, PeerMisbehaved, Policy, Protocol,
    ProtocolError,
};
use siphon_wire::types::{EntityType, Features, Utime};

const PEERS: (Policy, Policy) = (Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER);

fn open_pair() -> Pair {
    let mut pair = Pair::v1(PEERS.0, PEERS.1).cephx("crc");
    pair.run();
    assert!(pair.client.ready.is_some() && pair.server.ready.is_some());
    pair
}

fn error_of(side: &Side) -> Option<&ProtocolError> {
    match &side.closed {
        Some(CloseReason::Error(error)) => Some(error),
        _ => None,
    }
}

fn parts(message: &Message) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let payload = &message.payload;
    (payload.front.to_vec(), payload.middle.to_vec(), payload.data.to_bytes().to_vec())
}

#[test]
fn a_session_opens_and_each_side_knows_the_other() {
    let mut pair = Pair::v1(Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER);
    pair.run();
    let (client, server) = (pair.client.ready.unwrap(), pair.server.ready.unwrap());
    assert_eq!((client.protocol, server.protocol), (Protocol::Msgr1, Protocol::Msgr1));
    assert_eq!((client.name.kind, server.name.kind), (EntityType::OSD, EntityType::CLIENT));
    assert!(client.policy.lossy && server.policy.lossy);
    let told: Vec<_> = server.addrs.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["v1:127.0.0.1:0/7"], "as the server saw it, with its nonce");
    assert!(client.features.contains(Features::MSG_AUTH | Features::CEPHX_V2));
}

#[test]
fn every_shape_of_message_survives_both_ways() {
    let lengths = [0, 1, 1000, 1024, 1025, 4096, 20_000, 70_000];
    for chunk in [usize::MAX, 1, 13] {
        let mut pair = open_pair();
        pair.chunk = chunk;
        let mut sent = Vec::new();
        for (tid, front) in lengths.iter().enumerate() {
            let (middle, data) = (lengths[(tid + 3) % 8], lengths[(tid + 5) % 8]);
            let parts = (pattern(*front, 1), pattern(middle, 2), pattern(data, 3));
            pair.client.send(message(tid as u64, &parts.0, &parts.1, &parts.2));
            pair.server.send(message(tid as u64, &parts.2, &parts.0, &parts.1));
            sent.push(parts);
        }
        pair.client.conn.keepalive(pair.now, Utime::new(1, 2));
        pair.run();
        let there: Vec<_> = pair.server.messages.iter().map(parts).collect();
        assert_eq!(there, sent);
        assert_eq!(pair.client.messages.len(), sent.len());
        assert_eq!(pair.client.keepalive_acks, 1);
        assert_eq!(pair.client.conn.unsent() + pair.server.conn.unsent(), 0, "acknowledged");
    }
}

/// What each side sends in a conversation with a message each way.
fn recorded(mut pair: Pair) -> (Vec<u8>, Vec<u8>) {
    pair.client.send(message(1, &pattern(100, 1), &pattern(10, 2), &pattern(400, 3)));
    pair.server.send(message(2, &pattern(100, 1), &pattern(10, 2), &pattern(400, 3)));
    pair.run();
    (pair.to_server, pair.to_client)
}

#[test]
fn every_flipped_bit_of_a_signed_conversation_is_noticed() {
    let (to_server, to_client) = recorded(Pair::v1(PEERS.0, PEERS.1).cephx("crc"));
    for (target, len) in [(true, to_server.len()), (false, to_client.len())] {
        for at in 0..len {
            let mut pair = Pair::v1(PEERS.0, PEERS.1).cephx("crc");
            let mut passed = 0;
            pair.meddle = Box::new(move |to_server, mut bytes| {
                if to_server == target {
                    let place = at.checked_sub(passed).and_then(|at| bytes.get_mut(at));
                    if let Some(byte) = place {
                        *byte ^= 1 << (at % 8);
                    }
                    passed += bytes.len();
                }
                bytes
            });
            recorded_in(&mut pair);
            for side in [&pair.server, &pair.client] {
                let right = (pattern(100, 1), pattern(10, 2), pattern(400, 3));
                assert!(side.messages.iter().all(|it| parts(it) == right), "byte {at}");
            }
        }
    }
}

fn recorded_in(pair: &mut Pair) {
    for (tid, side) in [(1, &mut pair.client), (2, &mut pair.server)] {
        side.send(message(tid, &pattern(100, 1), &pattern(10, 2), &pattern(400, 3)));
    }
    pair.run();
}

#[test]
fn a_message_with_new_checksums_and_an_old_signature_is_refused() {
    let mut pair = open_pair();
    pair.client.send(message(1, b"pay bob", &[], &[]));
    let mut bytes = pair.client.drain();
    let at = bytes.windows(7).position(|window| window == b"pay bob").unwrap();
    bytes[at..at + 7].copy_from_slice(b"pay eve");
    // front_crc is the first of the footer, right behind the front.
    let crc = siphon_wire::crc32c::crc32c(0, b"pay eve").to_le_bytes();
    bytes[at + 7..at + 11].copy_from_slice(&crc);
    pair.server.receive(pair.now, &bytes);
    pair.server.drain();
    let signature = PeerMisbehaved::BadMessageSignature { seq: 1 };
    assert_eq!(error_of(&pair.server), Some(&ProtocolError::PeerMisbehaved(signature)));
    assert!(pair.server.messages.is_empty());
}

/// Data was let in unseen if somebody on the way had said that it has no checksum.
#[test]
fn a_signed_checksum_of_data_cannot_be_waived_on_the_way() {
    const NOCRC: u8 = 2;
    let mut pair = open_pair();
    pair.client.send(message(1, &[], &[], b"pay bob"));
    let mut bytes = pair.client.drain();
    let at = bytes.windows(7).position(|window| window == b"pay bob").unwrap();
    bytes[at..at + 7].copy_from_slice(b"pay eve");
    bytes[at + 7 + 20] |= NOCRC; // the last byte of the footer
    pair.server.receive(pair.now, &bytes);
    pair.server.drain();
    let error = error_of(&pair.server);
    let is_crc = matches!(error, Some(ProtocolError::InvalidFrame(FrameError::SegmentCrc { .. })));
    assert!(is_crc && pair.server.messages.is_empty(), "{error:?}");
}

/// Who has no checksums for data (`ms_crc_data`) signs none.
#[test]
fn a_signed_message_whose_sender_made_no_checksum_is_taken() {
    let client = ConnectionConfig { crc_data: false, ..common::client_config(PEERS.0) };
    let mut pair = Pair::v1_new(client, common::server_config(PEERS.1)).cephx("crc");
    pair.client.send(message(1, &[], &[], b"pay bob"));
    pair.run();
    assert_eq!(pair.server.messages.len(), 1, "{:?}", pair.server.closed);
}

#[test]
fn a_cut_delivers_no_half() {
    let (to_server, _) = recorded(Pair::v1(PEERS.0, PEERS.1));
    for len in 0..to_server.len() {
        let mut pair = Pair::v1(PEERS.0, PEERS.1);
        pair.server.receive(pair.now, &to_server[..len]);
        pair.server.drain();
        assert!(error_of(&pair.server).is_none(), "{len}: {:?}", error_of(&pair.server));
        pair.server.conn.handle_eof(pair.now);
        pair.server.drain();
        assert!(pair.server.closed.is_some() && pair.server.messages.len() <= 1);
    }
}

#[test]
fn strangers_and_lengths_that_lie_are_told_apart() {
    let played = |bytes: &[u8]| {
        let mut pair = Pair::v1(PEERS.0, PEERS.1);
        pair.server.receive(pair.now, bytes);
        pair.server.drain();
        error_of(&pair.server).cloned().expect("the connection ends")
    };
    assert_eq!(played(b"ceph v2\n"), ProtocolError::Banner(BannerError::V2Peer));
    let found = *b"GET \0\0\0\0";
    assert_eq!(played(b"GET "), ProtocolError::Banner(BannerError::NotCeph { found }));
    let (to_server, _) = recorded(Pair::v1(PEERS.0, PEERS.1));
    // The length of the authorizer, in the last four bytes but one of the connect message.
    let mut long = to_server.clone();
    long[9 + 136 + 28..9 + 136 + 32].copy_from_slice(&(64 * 1024 + 1u32).to_le_bytes());
    let error = played(&long);
    assert!(matches!(error, ProtocolError::InvalidFrame(FrameError::SegmentTooLong { .. })));
    // The version of the protocol between a client and an OSD is 24.
    let mut other = to_server;
    other[9 + 136 + 20] = 23;
    let mut pair = Pair::v1(PEERS.0, PEERS.1);
    pair.server.receive(pair.now, &other[..9 + 136 + 33]);
    pair.server.drain();
    pair.server.conn.handle_eof(pair.now);
    pair.server.drain();
    let version = PeerIncompatible::ProtocolVersion { ours: 24, theirs: 23 };
    assert_eq!(error_of(&pair.server), Some(&ProtocolError::PeerIncompatible(version)));
}

proptest! {
    #[test]
    fn no_bytes_make_either_side_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cut in 0usize..1500,
    ) {
        let (to_server, to_client) = recorded(Pair::v1(PEERS.0, PEERS.1));
        for (is_server, mut played) in [(true, to_server), (false, to_client)] {
            played.truncate(cut);
            played.extend_from_slice(&bytes);
            let mut pair = Pair::v1(PEERS.0, PEERS.1);
            let side = if is_server { &mut pair.server } else { &mut pair.client };
            side.drain();
            side.receive(pair.now, &played);
            side.drain();
        }
    }
}
