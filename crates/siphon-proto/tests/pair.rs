//! Both sides of the protocol against each other.

#![allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Pair, client_config, message, pattern, server_config};
use proptest::prelude::*;
use siphon_proto::v2::{BannerFeatures, FrameError, Limits, Revision, SegmentName, Tag};
use siphon_proto::{
    CloseReason, EncodePayload, MessageHeader, OutMessage, Payload, PeerIncompatible,
    PeerMisbehaved, Policies, Policy, Protocol, ProtocolError,
};
use siphon_wire::types::{EntityName, EntityType, Features, Utime};

fn open_pair(client: Policy, server: Policy) -> Pair {
    let mut pair = Pair::with_policies(client, server);
    pair.run();
    assert!(pair.client.ready.is_some(), "{:?}", pair.client.closed);
    assert!(pair.server.ready.is_some(), "{:?}", pair.server.closed);
    pair
}

fn error(reason: &Option<CloseReason>) -> &ProtocolError {
    match reason {
        Some(CloseReason::Error(error)) => error,
        other => panic!("expected an error, the connection ended by {other:?}"),
    }
}

#[test]
fn a_session_opens_and_each_side_knows_the_other() {
    let pair = open_pair(Policy::LOSSLESS_CLIENT, Policy::STATELESS_SERVER);
    let server = pair.client.ready.unwrap();
    assert_eq!(server.name, EntityName::new(EntityType::OSD, 3));
    assert_eq!(server.protocol, Protocol::Msgr2(Revision::Rev1));
    assert!(server.policy.lossy, "a lossy server makes the session lossy");
    let client = pair.server.ready.unwrap();
    assert_eq!(client.name, EntityName::new(EntityType::CLIENT, 4100));
    assert_eq!(client.addrs.to_string(), "127.0.0.1:0/7", "learned from the server's hello");
    assert_eq!(pair.client.learned.unwrap().to_string(), common::client_addr().to_string());
}

#[test]
fn the_older_framing_is_spoken_if_either_side_lacks_the_newer() {
    for (client, server) in [(0, 1), (1, 0), (0, 0)] {
        let mut config = client_config(Policy::LOSSLESS_CLIENT);
        config.banner_features = BannerFeatures(client);
        let mut peer = server_config(Policy::STATEFUL_SERVER);
        peer.banner_features = BannerFeatures(server);
        let mut pair = Pair::new(config, peer);
        pair.client.send(message(1, b"front", b"", b"data"));
        pair.run();
        assert_eq!(pair.client.ready.as_ref().unwrap().protocol, Protocol::Msgr2(Revision::Rev0));
        assert_eq!(pair.server.messages[0].payload.data.to_bytes(), &b"data"[..]);
    }
}

#[test]
fn every_shape_of_message_survives_both_ways_in_both_revisions() {
    let lens = [0, 1, 7, 1024, 1025, 4096, 70_001];
    for features in [BannerFeatures::NONE, BannerFeatures::REVISION_1] {
        for chunk in [usize::MAX, 1 << 16, 1000] {
            let mut config = client_config(Policy::LOSSLESS_PEER);
            config.banner_features = features;
            let mut pair = Pair::new(config, server_config(Policy::LOSSLESS_PEER));
            pair.chunk = chunk;
            let mut expected = Vec::new();
            for (i, front) in lens.into_iter().enumerate() {
                for middle in [0, 5, 5000] {
                    for data in lens {
                        let parts = [pattern(front, 1), pattern(middle, 2), pattern(data, 3)];
                        pair.client.send(message(i as u64, &parts[0], &parts[1], &parts[2]));
                        pair.server.send(message(i as u64, &parts[0], &parts[1], &parts[2]));
                        expected.push(parts);
                    }
                }
            }
            pair.run();
            for side in [&pair.client, &pair.server] {
                assert_eq!(side.messages.len(), expected.len());
                for (message, parts) in side.messages.iter().zip(&expected) {
                    assert_eq!(message.payload.front, parts[0]);
                    assert_eq!(message.payload.middle, parts[1]);
                    assert_eq!(message.payload.data.to_bytes(), parts[2]);
                }
            }
            assert_eq!(pair.client.conn.unsent(), 0, "all is acknowledged");
        }
    }
}

#[test]
fn long_data_arrives_page_aligned_in_one_piece() {
    let mut pair = open_pair(Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER);
    pair.chunk = 100_000;
    let data = pattern(3 << 20, 9);
    pair.client.send(message(1, b"", b"", &data));
    pair.run();
    let payload = &pair.server.messages[0].payload;
    assert_eq!(payload.data.segments().len(), 1);
    assert_eq!(payload.data.segments()[0].as_ptr() as usize % 4096, 0);
    assert_eq!(payload.data.to_bytes(), data);
}

#[test]
fn a_conversation_may_arrive_in_single_bytes() {
    let mut pair = Pair::with_policies(Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER);
    pair.chunk = 1;
    pair.client.send(message(1, b"front", b"middle", b"data"));
    pair.client.conn.keepalive(pair.now, Utime::default());
    pair.run();
    assert_eq!(pair.server.messages.len(), 1);
    assert_eq!(pair.client.keepalive_acks, 1);
}

#[test]
fn what_is_sent_before_the_session_opens_is_sent_then_in_order() {
    let mut pair = Pair::with_policies(Policy::LOSSLESS_CLIENT, Policy::STATEFUL_SERVER);
    (1..=100).for_each(|tid| pair.client.send(message(tid, b"", b"", b"")));
    pair.run();
    let tids: Vec<u64> = pair.server.messages.iter().map(|m| m.header.tid).collect();
    assert_eq!(tids, (1..=100).collect::<Vec<_>>());
    let seqs: Vec<u64> = pair.server.messages.iter().map(|m| m.seq).collect();
    assert_eq!(seqs, (1..=100).collect::<Vec<_>>());
}

#[test]
fn a_deferred_payload_is_encoded_for_the_features_of_the_peer() {
    #[derive(Debug)]
    struct Body;
    impl EncodePayload for Body {
        fn encode_payload(
            &self,
            features: Features,
            header: &mut MessageHeader,
            payload: &mut Payload,
        ) {
            header.version = 5;
            payload.front.set(&features.0.to_le_bytes());
        }
    }
    let mut config = client_config(Policy::LOSSY_CLIENT);
    let few = Features(Features::MSG_ADDR2.0 | 1);
    config.policies =
        Arc::new(Policies::new(Policy { features_supported: few, ..Policy::LOSSY_CLIENT }));
    let mut pair = Pair::new(config, server_config(Policy::STATELESS_SERVER));
    pair.client.send(OutMessage::deferred(MessageHeader::default(), Arc::new(Body)));
    pair.run();
    let message = &pair.server.messages[0];
    assert_eq!(message.payload.front, few.0.to_le_bytes()[..]);
    assert_eq!(message.header.version, 5);
}

#[test]
fn a_client_that_lacks_features_is_told_which() {
    let wanted = Features::SERVER_NAUTILUS;
    let mut config = client_config(Policy::LOSSY_CLIENT);
    let few = Features::MSG_ADDR2;
    config.policies =
        Arc::new(Policies::new(Policy { features_supported: few, ..Policy::LOSSY_CLIENT }));
    let server = server_config(Policy::STATELESS_SERVER.requiring(wanted));
    let mut pair = Pair::new(config, server);
    pair.run();
    let expected =
        ProtocolError::PeerIncompatible(PeerIncompatible::WeLackFeatures(few.missing(wanted)));
    assert_eq!(error(&pair.client.closed), &expected);
    assert_eq!(pair.server.closed, None, "the client may try again");
    pair.server.conn.handle_eof(pair.now);
    pair.run();
    assert!(matches!(
        error(&pair.server.closed),
        ProtocolError::PeerIncompatible(PeerIncompatible::PeerLacksFeatures(_))
    ));
}

#[test]
fn a_wrong_kind_of_daemon_and_a_wrong_address_are_named() {
    let mut config = server_config(Policy::STATELESS_SERVER);
    config.name = EntityName::new(EntityType::MON, 0);
    let mut pair = Pair::new(client_config(Policy::LOSSY_CLIENT), config);
    pair.run();
    assert_eq!(
        error(&pair.client.closed).to_string(),
        "the peer is incompatible: expected a osd, it is a mon"
    );

    let mut config = server_config(Policy::STATELESS_SERVER);
    config.addrs = "v2:127.0.0.1:6801/0".parse().unwrap();
    let mut pair = Pair::new(client_config(Policy::LOSSY_CLIENT), config);
    pair.run();
    assert!(matches!(
        error(&pair.server.closed),
        ProtocolError::PeerIncompatible(PeerIncompatible::WrongTarget { .. })
    ));
}

#[test]
fn a_handshake_and_a_silence_have_their_times() {
    let mut pair = Pair::with_policies(Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER);
    let deadline = pair.server.conn.poll_timeout().unwrap();
    assert_eq!(deadline, pair.now + Duration::from_secs(10));
    pair.server.conn.handle_timeout(deadline - Duration::from_millis(1));
    pair.server.drain();
    assert_eq!(pair.server.closed, None);
    pair.server.conn.handle_timeout(deadline);
    pair.server.drain();
    assert_eq!(error(&pair.server.closed), &ProtocolError::ReadyTimeout);

    let mut pair = open_pair(Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER);
    pair.now += Duration::from_secs(800);
    pair.client.conn.keepalive(pair.now, Utime::default());
    pair.run();
    let deadline = pair.server.conn.poll_timeout().unwrap();
    assert_eq!(deadline, pair.now + Duration::from_secs(900), "any byte is a sign of life");
    pair.server.conn.handle_timeout(deadline);
    pair.server.drain();
    assert_eq!(error(&pair.server.closed), &ProtocolError::IdleTimeout);
}

#[test]
fn nothing_but_a_hello_is_taken_before_a_hello() {
    let mut pair = Pair::with_policies(Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER);
    let banner = pair.client.drain();
    pair.server.receive(pair.now, &banner);
    let mut frame = vec![Tag::AUTH_REQUEST.to_wire(), 1, 0, 0, 1, 0];
    frame.resize(28, 0);
    frame.extend_from_slice(&siphon_wire::crc32c::crc32c(0, &frame).to_le_bytes());
    pair.server.receive(pair.now, &frame);
    pair.server.drain();
    assert_eq!(
        error(&pair.server.closed),
        &ProtocolError::InvalidFrame(FrameError::SegmentTooLong {
            tag: Tag::AUTH_REQUEST,
            segment: SegmentName::Control,
            length: 65536,
            limit: Limits::BEFORE_HELLO.control,
        })
    );
}

#[test]
fn bytes_behind_an_unanswered_step_of_authentication_are_bounded() {
    let mut pair = Pair::with_policies(Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER);
    let banner = pair.client.drain();
    pair.server.receive(pair.now, &banner);
    let back = pair.server.drain();
    pair.client.receive(pair.now, &back);
    let mut request = pair.client.drain(); // hello and authentication
    request.resize(request.len() + (64 << 10) + 1, 0);
    pair.server.receive(pair.now, &request);
    pair.server.drain();
    assert!(matches!(
        error(&pair.server.closed),
        ProtocolError::PeerMisbehaved(PeerMisbehaved::UnansweredFlood { .. })
    ));
}

/// A conversation of both sides, as bytes towards the server.
fn recorded(features: BannerFeatures) -> Vec<u8> {
    let mut config = client_config(Policy::LOSSLESS_PEER);
    config.banner_features = features;
    let mut pair = Pair::new(config, server_config(Policy::LOSSLESS_PEER));
    pair.run();
    pair.client.send(message(1, &pattern(100, 1), &pattern(10, 2), &pattern(3000, 3)));
    pair.client.conn.keepalive(pair.now, Utime::default());
    pair.run();
    pair.to_server
}

/// Plays bytes to a fresh server; returns it, and the offset at which it ended, if it did.
fn play(features: BannerFeatures, bytes: &[u8]) -> (common::Side, Option<usize>) {
    let mut config = server_config(Policy::LOSSLESS_PEER);
    config.banner_features = features;
    let mut server = Pair::new(client_config(Policy::LOSSLESS_PEER), config).server;
    let now = std::time::Instant::now();
    for (at, byte) in bytes.iter().enumerate() {
        server.receive(now, std::slice::from_ref(byte));
        server.drain();
        if server.closed.is_some() {
            return (server, Some(at));
        }
    }
    (server, None)
}

#[test]
fn an_end_at_every_byte_is_seen_as_one_and_nothing_half_is_delivered() {
    for features in [BannerFeatures::NONE, BannerFeatures::REVISION_1] {
        let bytes = recorded(features);
        let (whole, ended) = play(features, &bytes);
        assert_eq!((whole.messages.len(), ended), (1, None));
        for len in (0..bytes.len()).step_by(7).chain(bytes.len() - 40..bytes.len()) {
            let (mut server, ended) = play(features, &bytes[..len]);
            assert_eq!(ended, None, "a prefix is no error");
            server.conn.handle_eof(std::time::Instant::now());
            server.drain();
            assert!(matches!(server.closed, Some(CloseReason::PeerClosed { .. })));
        }
    }
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_matters() {
    for features in [BannerFeatures::NONE, BannerFeatures::REVISION_1] {
        let bytes = recorded(features);
        let message_at = bytes.len() - 3400;
        // Behind the banner every byte is covered by a checksum, but for revision 0's late flags.
        for at in (26..message_at).step_by(3).chain((message_at..bytes.len()).step_by(17)) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let (server, ended) = play(features, &damaged);
            let late_flags = features == BannerFeatures::NONE && server.messages.len() == 1;
            assert!(ended.is_some() || late_flags, "byte {at} of {}", bytes.len());
            if let Some(CloseReason::Error(error)) = &server.closed {
                assert!(matches!(error, ProtocolError::InvalidFrame(_)), "byte {at}: {error}");
            }
        }
    }
}

#[test]
fn an_aborted_frame_is_dropped_and_the_next_one_is_taken() {
    for (features, abort) in [(BannerFeatures::NONE, 0x01), (BannerFeatures::REVISION_1, 0xe1)] {
        let bytes = recorded(features);
        let epilogue = if features == BannerFeatures::NONE { 17 } else { 13 };
        // The keepalive is the last frame: its length tells where the message ends.
        let keepalive = if features == BannerFeatures::NONE { 32 + 8 + 17 } else { 32 + 8 + 4 };
        let message_end = [bytes.len() - keepalive, bytes.len()]
            .into_iter()
            .find(|end| {
                let late = bytes[end - epilogue];
                late == if features == BannerFeatures::NONE { 0 } else { 0x0e }
            })
            .unwrap();
        let mut aborted = bytes.clone();
        aborted[message_end - epilogue] = abort;
        let (server, ended) = play(features, &aborted);
        assert_eq!((server.messages.len(), ended), (0, None));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_server_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cut in 0usize..2000,
    ) {
        play(BannerFeatures::REVISION_1, &bytes);
        let mut bytes_after = recorded(BannerFeatures::REVISION_1);
        bytes_after.truncate(cut);
        bytes_after.extend_from_slice(&bytes);
        play(BannerFeatures::REVISION_1, &bytes_after);
    }
}

#[test]
fn a_deferred_payload_beyond_the_limits_ends_the_connection_and_says_so() {
    #[derive(Debug)]
    struct Huge;
    impl EncodePayload for Huge {
        fn encode_payload(&self, _: Features, _: &mut MessageHeader, payload: &mut Payload) {
            payload.front = vec![0; 11].into();
        }
    }
    let mut config = client_config(Policy::LOSSY_CLIENT);
    config.limits.front = 10;
    let mut pair = Pair::new(config, server_config(Policy::STATELESS_SERVER));
    pair.client.send(OutMessage::deferred(MessageHeader::default(), Arc::new(Huge)));
    pair.run();
    pair.client.drain();
    assert_eq!(
        error(&pair.client.closed).to_string(),
        "a message of ours cannot be sent: the message's front has 11 bytes, at most 10 are allowed"
    );
    assert!(pair.server.messages.is_empty());
}
