use std::fmt;
use std::sync::Arc;

use crate::throttle::Grant;
use bytes::Bytes;
use siphon_wire::buf::Rope;
use siphon_wire::types::Features;

/// How urgent a message is (`CEPH_MSG_PRIO_*` of Ceph's `include/msgr.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub u16);

impl Priority {
    /// `CEPH_MSG_PRIO_LOW`.
    pub const LOW: Self = Self(64);
    /// `CEPH_MSG_PRIO_DEFAULT`.
    pub const DEFAULT: Self = Self(127);
    /// `CEPH_MSG_PRIO_HIGH`; above it, priority is strict.
    pub const HIGH: Self = Self(196);
    /// `CEPH_MSG_PRIO_HIGHEST`.
    pub const HIGHEST: Self = Self(255);
}

impl Default for Priority {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a message says of itself, apart from its sequence number, which belongs to the session
/// that carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageHeader {
    /// Message type (`CEPH_MSG_*`, `MSG_*`).
    pub msg_type: u16,
    /// Transaction id, by which an answer finds its request; 0 if unused.
    pub tid: u64,
    /// How urgent it is.
    pub priority: Priority,
    /// Version of the payload's encoding.
    pub version: u16,
    /// Oldest version that a decoder must understand.
    pub compat_version: u16,
    /// Offset within its object of the data segment, for page alignment.
    pub data_off: u16,
}

/// The three parts that a message carries.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    /// The encoded fields.
    pub front: Bytes,
    /// Rarely used: large metadata.
    pub middle: Bytes,
    /// Bulk data.
    pub data: Rope,
}

impl Payload {
    /// Bytes of all three parts.
    pub fn len(&self) -> usize {
        self.front.len() + self.middle.len() + self.data.len()
    }

    /// Whether all three parts are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A message as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Its type, versions and transaction.
    pub header: MessageHeader,
    /// What it carries.
    pub payload: Payload,
    /// Its number within the session, from 1 on; 0 if it did not cross a session (local delivery).
    pub seq: u64,
    /// What it holds of its receiver's throttles, until it is dropped.
    pub grants: Grants,
}

/// What a message holds of throttles: bytes, and one message. A clone of it holds nothing: what was
/// let pass is given back once.
#[derive(Debug, Default)]
pub struct Grants {
    /// Of a throttle of bytes.
    pub bytes: Grant,
    /// Of a throttle of messages.
    pub messages: Grant,
}

impl Clone for Grants {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Encodes a payload once the peer's features are known.
pub trait EncodePayload: fmt::Debug + Send + Sync {
    /// The payload for a peer with `features`; may lower the versions in `header` to what it
    /// encoded.
    fn encode_payload(&self, features: Features, header: &mut MessageHeader) -> Payload;
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct OutMessage {
    /// Its type, versions and transaction.
    pub header: MessageHeader,
    /// What it carries.
    pub payload: OutPayload,
    /// What it holds of its sender's throttle, until it is sent, and on a lossless session
    /// acknowledged.
    pub grants: Grants,
}

/// The payload of an [`OutMessage`].
#[derive(Clone, Debug)]
pub enum OutPayload {
    /// Bytes that are the same for every peer.
    Encoded(Payload),
    /// To be encoded for the features of the peer that the session has then.
    Deferred(Arc<dyn EncodePayload>),
}

impl OutMessage {
    /// A message whose payload is the same for every peer.
    pub fn new(header: MessageHeader, payload: Payload) -> Self {
        Self { header, payload: OutPayload::Encoded(payload), grants: Grants::default() }
    }

    /// A message whose payload depends on the peer's features.
    pub fn deferred(header: MessageHeader, body: Arc<dyn EncodePayload>) -> Self {
        Self { header, payload: OutPayload::Deferred(body), grants: Grants::default() }
    }
}

impl From<Message> for OutMessage {
    fn from(message: Message) -> Self {
        Self::new(message.header, message.payload)
    }
}
