//! What was charged for messages is given back, once, whatever becomes of them.

#![allow(clippy::disallowed_methods, reason = "a test begins at some time")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Pair, client_config, message, server_config};
use siphon_proto::v2::{BannerFeatures, Limits};
use siphon_proto::{EncodePayload, MessageHeader, OutMessage, Payload, Policy, Throttle, Transmit};
use siphon_wire::types::Features;

/// A throttle to which what the client sends is charged.
fn charged(pair: &mut Pair) -> Throttle {
    let throttle = Throttle::new("", 1 << 20);
    pair.client.conn.set_outgoing(throttle.clone());
    throttle
}

fn send(pair: &mut Pair, throttle: &Throttle, mut message: OutMessage) {
    message.set_charge(throttle.try_get(100).expect("there is room"));
    pair.client.conn.send(pair.now, message);
}

#[test]
fn what_is_sent_or_acknowledged_is_given_back() {
    let pairs = [
        Pair::with_policies(Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER),
        Pair::with_policies(Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER),
        Pair::v1(Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER),
    ];
    for mut pair in pairs {
        let throttle = charged(&mut pair);
        (1..=50).for_each(|tid| send(&mut pair, &throttle, message(tid, b"front", b"", b"data")));
        assert_eq!(throttle.current(), 5000, "none is sent yet");
        pair.run();
        assert_eq!((pair.server.messages.len(), throttle.current()), (50, 0));
    }
}

#[test]
fn what_will_never_be_sent_is_given_back() {
    // The session becomes lossy with messages that were sent and not acknowledged.
    let mut pair = Pair::with_policies(Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER);
    pair.run();
    let throttle = charged(&mut pair);
    send(&mut pair, &throttle, message(1, b"", b"", b"sent"));
    pair.client.drain();
    assert_eq!(throttle.current(), 100, "it may have to be sent again");
    pair.client.conn.mark_disposable();
    assert_eq!(throttle.current(), 0);

    // The connection ends with some that wait, takes no more, and is dropped.
    let mut pair = Pair::with_policies(Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER);
    let throttle = charged(&mut pair);
    send(&mut pair, &throttle, message(1, b"", b"", b"waits"));
    pair.client.conn.close();
    send(&mut pair, &throttle, message(2, b"", b"", b"comes too late"));
    assert_eq!(throttle.current(), 100);
    drop(pair);
    assert_eq!(throttle.current(), 0);
}

/// A payload that turns out too long.
#[derive(Debug)]
struct TooLong;

impl EncodePayload for TooLong {
    fn encode_payload(&self, _: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front = vec![0; 1000].into();
    }
}

#[test]
fn a_message_that_cannot_be_encoded_keeps_nothing() {
    for policy in [Policy::LOSSY_CLIENT, Policy::LOSSLESS_CLIENT] {
        let limits = Limits { front: 999, ..Limits::SESSION };
        let config = siphon_proto::ConnectionConfig { limits, ..client_config(policy) };
        let mut pair = Pair::new(config, server_config(Policy::STATELESS_SERVER));
        pair.run();
        let throttle = charged(&mut pair);
        let deferred = OutMessage::deferred(MessageHeader::default(), Arc::new(TooLong));
        send(&mut pair, &throttle, deferred);
        pair.run();
        assert!(pair.client.conn.is_closed());
        drop(pair);
        assert_eq!(throttle.current(), 0);
    }
}

#[test]
fn a_clone_has_no_charge() {
    let mut original = message(1, b"", b"", b"");
    original.set_charge(100);
    assert_eq!((original.clone().charge(), original.charge()), (0, 100));
    assert_eq!(OutMessage::from(original.deliver(Features::ALL)).charge(), 0);
}

/// A train of sealed messages without payload gathers in one buffer after the other, and ends in time.
#[test]
fn a_train_of_sealed_messages_is_bounded() {
    let mut config = client_config(Policy::LOSSLESS_PEER);
    config.banner_features = BannerFeatures::REVISION_1;
    let mut pair = Pair::new(config, server_config(Policy::LOSSLESS_PEER)).cephx("secure");
    pair.run();
    for tid in 1..=20_000 {
        let header = MessageHeader { tid, ..MessageHeader::default() };
        pair.client.conn.send(pair.now, OutMessage::new(header, Payload::default()));
    }
    let mut transmit = Transmit::default();
    assert!(pair.client.conn.poll_transmit(pair.now, &mut transmit, 64 << 10));
    assert!(transmit.more && transmit.out.len() < 256 << 10, "{} bytes", transmit.out.len());
    let longest = transmit.out.segments().iter().map(Bytes::len).max();
    assert!(longest <= Some(64 << 10), "{longest:?} bytes in one buffer");
    assert!(transmit.messages > 600);
}
