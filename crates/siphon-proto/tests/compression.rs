//! Compressed frames, end to end.

#![allow(clippy::disallowed_methods, reason = "a test begins at some time")]

mod common;

use common::{Pair, Side, client_config, message, pattern, server_config};
use siphon_proto::v2::compression::{Algorithm, CompressionError, CompressionOptions, Mode};
use siphon_proto::v2::{BannerFeatures, FrameError, SegmentName, Tag};
use siphon_proto::{CloseReason, ConnectionConfig, Message, Policy, ProtocolError};

fn options(algorithm: Algorithm) -> CompressionOptions {
    CompressionOptions {
        mode: Mode::Force,
        algorithms: vec![algorithm],
        min_size: 64,
        secure: true,
        anybody: true,
    }
}

/// Both sides' configurations, which compress as these say.
fn configs(
    revision: BannerFeatures,
    client: CompressionOptions,
    server: CompressionOptions,
) -> (ConnectionConfig, ConnectionConfig) {
    let features = BannerFeatures(revision.0 | BannerFeatures::COMPRESSION.0);
    let mut ours = client_config(Policy::LOSSLESS_PEER);
    let mut theirs = server_config(Policy::LOSSLESS_PEER);
    (ours.banner_features, theirs.banner_features) = (features, features);
    (ours.compression, theirs.compression) = (client, server);
    (ours, theirs)
}

fn parts(message: &Message) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let payload = &message.payload;
    (payload.front.to_vec(), payload.middle.to_vec(), payload.data.to_bytes().to_vec())
}

fn error(side: &Side) -> Option<&ProtocolError> {
    match &side.closed {
        Some(CloseReason::Error(error)) => Some(error),
        _ => None,
    }
}

#[test]
fn every_algorithm_carries_every_shape_in_every_mode() {
    let lengths = [0, 1, 40, 41, 48, 300, 4096, 70_000];
    for algorithm in Algorithm::ALL {
        for revision in [BannerFeatures::NONE, BannerFeatures::REVISION_1] {
            for modes in ["crc", "secure"] {
                let (client, server) = configs(revision, options(algorithm), options(algorithm));
                let mut pair = Pair::new(client, server).cephx(modes);
                pair.chunk = 1000;
                pair.run();
                let handshake = pair.to_server.len();
                assert_eq!(pair.client.ready.as_ref().unwrap().compression, Some(algorithm));
                assert_eq!(pair.server.ready.as_ref().unwrap().compression, Some(algorithm));
                let mut sent = Vec::new();
                for (tid, length) in lengths.iter().enumerate() {
                    // What repeats, and what does not.
                    let (middle, data) = (lengths[(tid + 3) % 8], lengths[(tid + 5) % 8]);
                    let parts = (vec![7; *length], pattern(middle, 2), b"siphon ".repeat(data / 7));
                    pair.client.send(message(tid as u64, &parts.0, &parts.1, &parts.2));
                    pair.server.send(message(tid as u64, &parts.1, &parts.2, &parts.0));
                    sent.push(parts);
                }
                pair.run();
                let there: Vec<_> = pair.server.messages.iter().map(parts).collect();
                assert_eq!(there, sent, "{algorithm} {modes}");
                assert_eq!(pair.client.messages.len(), sent.len());
                let plain: usize = sent.iter().map(|it| it.0.len() + it.1.len() + it.2.len()).sum();
                let wire = pair.to_server.len() - handshake;
                assert!(wire < plain * 6 / 10, "{algorithm}: {wire} bytes for {plain}");
            }
        }
    }
}

#[test]
fn whoever_did_not_agree_gets_and_takes_nothing_compressed() {
    let (yes, no) = (options(Algorithm::Zstd), CompressionOptions::default());
    let (client, server) = configs(BannerFeatures::REVISION_1, yes.clone(), no.clone());
    let mut pair = Pair::new(client, server);
    pair.run();
    assert_eq!(pair.client.ready.as_ref().unwrap().compression, None);
    // A client that compresses all the same: what it says to one that agreed, another hears.
    let (client, server) = configs(BannerFeatures::REVISION_1, yes.clone(), yes.clone());
    let mut agreed = Pair::new(client, server);
    agreed.client.send(message(1, &[7; 5000], &[], &[]));
    agreed.run();
    assert_eq!(agreed.server.messages.len(), 1);
    let (client, server) = configs(BannerFeatures::REVISION_1, yes, no);
    let mut other = Pair::new(client, server);
    other.server.receive(other.now, &agreed.to_server);
    other.server.drain();
    other.server.receive(other.now, &[]);
    other.server.drain();
    let Some(ProtocolError::InvalidFrame(FrameError::CompressedUnasked { .. })) =
        error(&other.server)
    else {
        panic!("{:?}", other.server.closed);
    };
    assert!(other.server.messages.is_empty());
}

#[test]
fn a_bomb_is_refused_before_it_goes_off() {
    for algorithm in Algorithm::ALL {
        let options = options(algorithm);
        let (client, mut server) = configs(BannerFeatures::REVISION_1, options.clone(), options);
        server.limits.data = 1 << 20;
        let mut pair = Pair::new(client, server);
        pair.run();
        // On the wire it is far below what the server takes.
        pair.client.send(message(1, &[], &[], &vec![0; 4 << 20]));
        pair.run();
        let Some(ProtocolError::InvalidFrame(FrameError::Compression { tag, segment, error })) =
            error(&pair.server)
        else {
            panic!("{algorithm}: {:?}", pair.server.closed);
        };
        assert_eq!((*tag, *segment), (Tag::MESSAGE, SegmentName::Data));
        assert!(matches!(error, CompressionError::TooLong { limit: 1048576, .. }), "{error}");
        assert!(pair.server.messages.is_empty());
    }
}
