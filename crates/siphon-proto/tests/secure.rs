//! Secure mode and the signature of the handshake, against those who stand between the two sides.

#![allow(clippy::disallowed_methods, reason = "a test begins at some time")]

mod common;

use std::time::Duration;

use common::{Pair, Side, cephx_client_named, client_config, message, pattern, server_config};
use proptest::prelude::*;
use siphon_auth::ConnectionMode;
use siphon_proto::v2::{
    Assembler, AuthRequestFrame, BannerFeatures, Disassembler, Frame, FrameError, Framing, Limits,
    Protection, Revision, Tag,
};
use siphon_proto::{CloseReason, Message, Met, PeerMisbehaved, Policy, ProtocolError};
use siphon_wire::buf::{Rope, SegmentPool};
use siphon_wire::types::{Features, Utime};
use siphon_wire::{Decode as _, Encode as _};

const REVISIONS: [BannerFeatures; 2] = [BannerFeatures::NONE, BannerFeatures::REVISION_1];

/// Two sides that have not spoken yet.
fn pair(features: BannerFeatures, modes: &str) -> Pair {
    let mut client = client_config(Policy::LOSSLESS_PEER);
    client.banner_features = features;
    Pair::new(client, server_config(Policy::LOSSLESS_PEER)).cephx(modes)
}

fn open_pair(features: BannerFeatures) -> Pair {
    let mut pair = pair(features, "secure");
    pair.run();
    pair
}

fn error(side: &Side) -> Option<&ProtocolError> {
    match &side.closed {
        Some(CloseReason::Error(error)) => Some(error),
        _ => None,
    }
}

fn is_forged(side: &Side) -> bool {
    matches!(error(side), Some(ProtocolError::InvalidFrame(FrameError::Forged)))
}

fn parts(message: &Message) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let payload = &message.payload;
    (payload.front.to_vec(), payload.middle.to_vec(), payload.data.to_bytes().to_vec())
}

#[test]
fn every_shape_of_message_is_sealed_and_opened_in_both_revisions() {
    let lengths = [0, 1, 15, 16, 17, 47, 48, 49, 1000, 4096, 20_000, 70_000];
    for features in REVISIONS {
        for chunk in [usize::MAX, 1, 13] {
            let mut pair = open_pair(features);
            pair.chunk = chunk;
            let peer = pair.client.ready.as_ref().unwrap();
            assert_eq!(peer.mode, ConnectionMode::SECURE);
            let identity = pair.server.ready.as_ref().unwrap().identity.as_ref().unwrap();
            assert_eq!(identity.name.to_string(), "client.a");
            let mut sent = Vec::new();
            for (tid, front) in lengths.iter().enumerate() {
                let (middle, data) = (lengths[(tid + 5) % 8], lengths[(tid + 7) % lengths.len()]);
                let parts = (pattern(*front, 1), pattern(middle, 2), pattern(data, 3));
                pair.client.send(message(tid as u64, &parts.0, &parts.1, &parts.2));
                pair.server.send(message(tid as u64, &parts.2, &parts.0, &parts.1));
                sent.push(parts);
            }
            pair.client.conn.keepalive(pair.now, Utime::default());
            pair.run();
            let there: Vec<_> = pair.server.messages.iter().map(parts).collect();
            assert_eq!(there, sent);
            assert_eq!(pair.client.messages.len(), sent.len());
            assert_eq!(pair.client.keepalive_acks, 1);
            for found in &pair.server.messages {
                let data = found.payload.data.to_bytes();
                let page = data.len() < 4096 || (data.as_ptr() as usize).is_multiple_of(4096);
                assert!(page, "data of {} bytes, which fill a page, begin at one", data.len());
            }
        }
    }
}

#[test]
fn nothing_of_a_message_is_seen_on_the_wire() {
    for features in REVISIONS {
        let mut pair = open_pair(features);
        let secret = b"nobody may read this, nor where it is";
        pair.client.send(message(1, secret, secret, &secret.repeat(1000)));
        pair.run();
        assert_eq!(pair.server.messages.len(), 1);
        assert!(
            !pair.to_server.windows(16).any(|window| secret.windows(16).any(|it| it == window))
        );
    }
}

fn sent_parts(tid: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    (pattern(100, tid as u8), pattern(10, 2), pattern(400, tid as u8))
}

/// Both open a session and send something.
fn converse(pair: &mut Pair) {
    for (tid, side) in [(1, &mut pair.client), (2, &mut pair.server)] {
        let (front, middle, data) = sent_parts(tid);
        side.send(message(tid, &front, &middle, &data));
    }
    pair.run();
}

/// A conversation, as what each side sent.
fn recorded(features: BannerFeatures) -> (Vec<u8>, Vec<u8>) {
    let mut pair = pair(features, "secure");
    converse(&mut pair);
    assert_eq!((pair.server.messages.len(), pair.client.messages.len()), (1, 1));
    (pair.to_server, pair.to_client)
}

/// Plays bytes to a fresh side, which says and does what it did when they were recorded.
fn play(features: BannerFeatures, to_server: bool, bytes: &[u8]) -> Side {
    let pair = pair(features, "secure");
    let (mut side, now) = (if to_server { pair.server } else { pair.client }, pair.now);
    side.drain();
    side.receive(now, bytes);
    side.drain();
    // What was held back behind a step of authentication.
    side.receive(now, &[]);
    side.drain();
    side
}

#[test]
fn every_flipped_bit_ends_the_connection_and_delivers_nothing_changed() {
    for features in REVISIONS {
        let (to_server, to_client) = recorded(features);
        for (target, len) in [(true, to_server.len()), (false, to_client.len())] {
            let mut first_forged = None;
            let mut waiting = 0;
            for at in 0..len {
                let mut pair = pair(features, "secure");
                pair.meddle = flip(target, at);
                converse(&mut pair);
                let damaged = if target { &mut pair.server } else { &mut pair.client };
                let may_wait = features == BannerFeatures::NONE && damaged.closed.is_none();
                if may_wait && first_forged.is_some() {
                    // A length that lies, of revision 0, waits for its end: more comes.
                    waiting += 1;
                    for _ in 0..16 {
                        damaged.receive(pair.now, &pattern(4096, 3));
                        damaged.drain();
                    }
                }
                let (damaged, other) = match target {
                    true => (&pair.server, &pair.client),
                    false => (&pair.client, &pair.server),
                };
                if is_forged(damaged) {
                    first_forged.get_or_insert(at);
                }
                // What is sealed is forged; in revision 0 a length that lies may wait for its end.
                let waits = features == BannerFeatures::NONE && damaged.closed.is_none();
                let in_the_open = first_forged.is_none();
                assert!(is_forged(damaged) || waits || in_the_open, "{at}: {:?}", damaged.closed);
                // In the open a checksum, a rule or the signature tells one of them, and no session
                // is open for both.
                let told = damaged.closed.is_some() || other.closed.is_some();
                assert!(told || waits, "byte {at} of {len} to the server: {target}");
                let both_open = damaged.ready.is_some() && other.ready.is_some();
                assert!(!(in_the_open && both_open), "byte {at}");
                for (side, sent) in [(&pair.server, 1), (&pair.client, 2)] {
                    let unchanged = |it: &Message| parts(it) == sent_parts(sent);
                    assert!(side.messages.iter().all(unchanged), "byte {at}");
                }
                assert!(!in_the_open || damaged.messages.is_empty(), "byte {at}");
            }
            assert!(first_forged.is_some_and(|at| at < len - 600), "{first_forged:?} of {len}");
            assert!(waiting * 4 < len, "{waiting} of {len}: only lengths can wait");
        }
    }
}

/// Flips a bit of the byte at this place of one direction.
fn flip(target: bool, at: usize) -> Box<dyn FnMut(bool, Vec<u8>) -> Vec<u8>> {
    let mut passed = 0;
    Box::new(move |to_server, mut bytes| {
        if to_server == target {
            if let Some(byte) = at.checked_sub(passed).and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1 << (at % 8);
            }
            passed += bytes.len();
        }
        bytes
    })
}

#[test]
fn a_cut_delivers_no_half() {
    for features in REVISIONS {
        let (to_server, _) = recorded(features);
        for len in (0..to_server.len()).step_by(3) {
            let mut side = play(features, true, &to_server[..len]);
            assert!(error(&side).is_none(), "{len}: a prefix is no error");
            assert!(side.messages.iter().all(|it| parts(it) == sent_parts(1)), "{len}");
            assert!(side.messages.is_empty() || len + 300 > to_server.len(), "{len}: too early");
            side.conn.handle_eof(std::time::Instant::now());
            side.drain();
            assert!(side.closed.is_some());
        }
    }
}

#[test]
fn frames_that_are_repeated_left_out_or_in_another_order_are_forged() {
    for features in REVISIONS {
        let orders: [&[usize]; 6] = [&[0, 0], &[1], &[0, 2], &[1, 0], &[2, 1, 0], &[0, 1, 0]];
        for order in orders {
            let mut pair = open_pair(features);
            let frames: Vec<_> = (0..3)
                .map(|tid| {
                    pair.client.send(message(tid, &pattern(80, 1), &[], &pattern(500, tid as u8)));
                    pair.client.drain()
                })
                .collect();
            for index in order {
                pair.server.receive(pair.now, &frames[*index]);
                pair.server.drain();
            }
            assert!(is_forged(&pair.server), "{order:?}: {:?}", pair.server.closed);
            let in_order = order.iter().zip(0..).take_while(|(found, at)| **found == *at).count();
            assert_eq!(pair.server.messages.len(), in_order, "{order:?}");
        }
    }
}

#[test]
fn what_one_side_sent_is_not_taken_from_the_other() {
    for features in REVISIONS {
        let mut pair = open_pair(features);
        pair.client.send(message(1, b"to the server", &[], &[]));
        let reflected = pair.client.drain();
        pair.client.receive(pair.now, &reflected);
        pair.client.drain();
        assert!(is_forged(&pair.client), "{:?}", pair.client.closed);
        assert!(pair.client.messages.is_empty());
    }
}

/// Passes frames of the open part on, after `change`; checksums are made anew.
fn rewrite(bytes: &[u8], change: impl Fn(Tag, &[u8]) -> Vec<u8>) -> Vec<u8> {
    let framing = Framing { revision: Revision::Rev1, protection: Protection::Crc { data: true } };
    let mut disassembler = Disassembler::new(framing, Limits::HANDSHAKE, SegmentPool::new(0));
    let (mut assembler, mut out) = (Assembler::new(framing), Rope::new());
    let mut input = bytes.into();
    while let Ok(Some(Frame::Control { tag, payload })) = disassembler.feed(&mut input) {
        assembler.control(tag, &change(tag, &payload));
    }
    assembler.flush(&mut out);
    out.to_bytes().to_vec()
}

#[test]
fn a_lowered_revision_is_noticed() {
    for modes in ["crc", "secure"] {
        let mut pair = pair(BannerFeatures::REVISION_1, modes);
        pair.meddle = Box::new(|_, mut bytes| {
            if bytes.starts_with(b"ceph v2\n") {
                bytes[10] &= !1; // supported: revision 1
            }
            bytes
        });
        pair.run();
        assert_signature_differs(&pair);
    }
}

/// One of them sees it, and neither has a session.
fn assert_signature_differs(pair: &Pair) {
    let sides = [&pair.client, &pair.server];
    let signature = ProtocolError::PeerMisbehaved(PeerMisbehaved::BadSignature);
    let seen = sides.iter().any(|side| error(side) == Some(&signature));
    assert!(seen, "{:?}, {:?}", pair.client.closed, pair.server.closed);
    assert!(sides.iter().all(|side| side.ready.is_none()));
}

#[test]
fn a_lowered_mode_is_noticed() {
    let mut pair = pair(BannerFeatures::REVISION_1, "secure crc");
    pair.meddle = Box::new(|to_server, bytes| {
        if !to_server || bytes.first() != Some(&Tag::AUTH_REQUEST.to_wire()) {
            return bytes;
        }
        rewrite(&bytes, |tag, payload| {
            assert_eq!(tag, Tag::AUTH_REQUEST);
            let mut request = AuthRequestFrame::from_bytes(&payload.to_vec().into()).unwrap();
            request.preferred_modes.retain(|mode| *mode != ConnectionMode::SECURE);
            request.to_bytes(Features::ALL).to_vec()
        })
    });
    pair.run();
    assert_signature_differs(&pair);
}

#[test]
fn a_lowered_method_is_refused() {
    let mut pair = pair(BannerFeatures::REVISION_1, "secure crc");
    pair.meddle = Box::new(|to_server, bytes| {
        if !to_server || bytes.first() != Some(&Tag::AUTH_REQUEST.to_wire()) {
            return bytes;
        }
        rewrite(&bytes, |_, payload| {
            let mut request = AuthRequestFrame::from_bytes(&payload.to_vec().into()).unwrap();
            request.method = siphon_auth::AuthMethod::NONE;
            request.to_bytes(Features::ALL).to_vec()
        })
    });
    pair.run();
    assert!(matches!(error(&pair.client), Some(ProtocolError::AuthRejected(_))));
    assert!(pair.client.ready.is_none() && pair.server.ready.is_none());
}

#[test]
fn a_key_that_has_sealed_enough_gives_way_before_a_nonce_repeats() {
    for features in REVISIONS {
        let mut pair = pair(features, "secure");
        let mut config = client_config(Policy::LOSSLESS_PEER);
        (config.banner_features, config.rekey_after) = (features, 500);
        let fresh = Pair::new(config, server_config(Policy::LOSSLESS_PEER)).cephx("secure");
        (pair.client, pair.now) = (fresh.client, fresh.now);
        pair.run();
        for tid in 0..1000 {
            pair.client.send(message(tid, b"front", &[], b"data"));
        }
        pair.run();
        assert!(pair.client.conn.poll_timeout().is_some_and(|at| at <= pair.now), "at once");
        pair.client.conn.handle_timeout(pair.now);
        pair.client.drain();
        assert_eq!(error(&pair.client), Some(&ProtocolError::NoncesExhausted));
        let arrived = pair.server.messages.len();
        assert!((100..500).contains(&arrived), "{arrived}");
        assert_eq!(pair.client.conn.unsent(), 1000 - arrived, "the others are kept");
    }
}

/// Addresses and cookies are what a peer says of itself; the name it proves.
#[test]
fn a_session_is_not_given_to_another_name() {
    let config = || client_config(Policy::LOSSLESS_PEER);
    let pair = || Pair::new(config(), server_config(Policy::LOSSLESS_PEER)).cephx("secure");
    for (name, met) in [("client.a", Met::TakenOver), ("client.b", Met::Superseded)] {
        let mut first = pair();
        first.run();
        assert!(first.server.ready.is_some());
        let mut second = pair();
        second.client.exchange = cephx_client_named(name, "secure");
        second.server.known = Some(Box::new(first.server.conn));
        second.run();
        assert_eq!(second.server.met, Some(met), "{name}");
    }
}

/// Each of the peer's frames wants an answer, which takes a nonce; and the peer acknowledges nothing.
#[test]
fn a_peer_cannot_use_up_the_last_nonces() {
    for features in REVISIONS {
        let mut config = client_config(Policy::LOSSLESS_PEER);
        (config.banner_features, config.rekey_after) = (features, 1); // which is too few to begin with
        let mut theirs = server_config(Policy::LOSSLESS_PEER);
        theirs.banner_features = features;
        let mut pair = Pair::new(config, theirs).cephx("secure");
        pair.run();
        assert!(pair.client.ready.is_some());
        for tid in 0..1000 {
            pair.client.send(message(tid, b"front", &[], b"data"));
        }
        pair.client.drain(); // nobody gets it
        let limit = pair.client.conn.poll_timeout().unwrap();
        for round in 0..1000 {
            let now = pair.now + Duration::from_millis(round);
            pair.server.conn.keepalive(now, stamp(round));
            pair.server.send(message(round, b"front", &[], b"data"));
            let bytes = pair.server.drain();
            pair.client.receive(now, &bytes);
            pair.client.drain();
        }
        assert_eq!(pair.client.messages.len(), 1000);
        assert_eq!(pair.client.conn.poll_timeout(), Some(limit), "it ends, whatever comes");
        pair.client.conn.handle_timeout(limit);
        pair.client.drain();
        assert_eq!(error(&pair.client), Some(&ProtocolError::NoncesExhausted));
    }
}

fn stamp(round: u64) -> Utime {
    Utime::new(1, round as u32)
}

proptest! {
    #[test]
    fn no_bytes_behind_a_sealed_handshake_make_a_side_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cut in 0usize..2000,
    ) {
        for features in REVISIONS {
            let mut played = recorded(features).0;
            played.truncate(cut);
            played.extend_from_slice(&bytes);
            play(features, true, &played);
        }
    }
}
