use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use crate::front::Front;
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
    pub front: Front,
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

    fn clear(&mut self) {
        self.front.clear();
        self.middle = Bytes::new(); // an empty one may still hold memory
        self.data.reset();
    }
}

/// A message as it arrived: one word that moves from hand to hand, and what it consists of in memory
/// of its own, which a thread uses again for other messages.
///
/// ```
/// use siphon_proto::{Message, MessageHeader, Payload};
///
/// let header = MessageHeader { msg_type: 2, ..MessageHeader::default() };
/// let mut message = Message::new(header, Payload::default());
/// message.payload.front = siphon_proto::Front::copy_of(b"ping");
/// assert_eq!((message.header.msg_type, message.payload.len(), message.seq), (2, 4, 0));
/// ```
#[derive(Clone, Debug)]
pub struct Message {
    /// Invariant: there is some until it is dropped.
    parts: Option<Box<MessageParts>>,
}

/// What a [`Message`] consists of.
#[derive(Clone, Debug, Default)]
pub struct MessageParts {
    /// Its type, versions and transaction.
    pub header: MessageHeader,
    /// What it carries.
    pub payload: Payload,
    /// Its number within the session, from 1 on; 0 if it did not cross a session (local delivery).
    pub seq: u64,
    /// What it holds of its receiver's throttles, until it is dropped.
    pub grants: Grants,
    /// Bytes of the frame that it came in.
    pub wire_len: usize,
    /// When it arrived: of all that came by one receive it is the same. None if it did not cross a session.
    pub recv_stamp: Option<Instant>,
    /// When it began to wait to be sent.
    pub(crate) queued_at: Option<Instant>,
    /// What was taken for it of its sender's throttle.
    charge: Charge,
    /// What encodes the payload of a message to be sent, if that depends on the peer.
    deferred: Option<Arc<dyn EncodePayload>>,
}

/// Messages of which a thread keeps the memory: 256 bytes each, and 384 of a front.
const MAX_SPARE: usize = 1024;

thread_local! {
    /// Memory of messages that are gone: nothing is in it.
    #[expect(clippy::vec_box, reason = "it is the boxes that are kept")]
    static SPARE: RefCell<Vec<Box<MessageParts>>> = const { RefCell::new(Vec::new()) };
}

impl Message {
    /// A message that has not crossed a session.
    pub fn new(header: MessageHeader, payload: Payload) -> Self {
        let mut message = Self::default();
        message.header = header;
        message.payload = payload;
        message
    }
}

impl Default for Message {
    fn default() -> Self {
        // A thread that ends keeps nothing.
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        Self { parts: Some(spare.unwrap_or_default()) }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else {
            return;
        };
        // Before the list is borrowed: what is dropped here may be the application's.
        parts.clear();
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(parts);
            }
        });
    }
}

impl MessageParts {
    /// Bytes that a message takes beside its payload: itself, and the memory of a short front.
    pub const HELD: usize = size_of::<Self>() + Front::ROOM;

    fn clear(&mut self) {
        let Self {
            header,
            payload,
            seq,
            grants,
            wire_len,
            recv_stamp,
            queued_at,
            charge,
            deferred,
        } = self;
        *header = MessageHeader::default();
        payload.clear();
        *seq = 0;
        *grants = Grants::default();
        *wire_len = 0;
        *recv_stamp = None;
        *queued_at = None;
        *charge = Charge::default();
        *deferred = None;
    }
}

impl Deref for Message {
    type Target = MessageParts;

    #[inline]
    fn deref(&self) -> &MessageParts {
        self.parts.as_deref().expect(HAS_PARTS)
    }
}

impl DerefMut for Message {
    #[inline]
    fn deref_mut(&mut self) -> &mut MessageParts {
        self.parts.as_deref_mut().expect(HAS_PARTS)
    }
}

const HAS_PARTS: &str = "only its drop takes a message's parts";

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

/// What was taken of a throttle for a message to be sent. A clone has nothing, as one of [`Grants`].
#[derive(Debug, Default)]
struct Charge(u64);

impl Clone for Charge {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Encodes a payload once the peer's features are known.
pub trait EncodePayload: fmt::Debug + Send + Sync {
    /// Fills `payload`, which is empty, for a peer with `features`; may lower the versions in `header` to
    /// what it encoded.
    fn encode_payload(&self, features: Features, header: &mut MessageHeader, payload: &mut Payload);
}

/// A message to be sent: as a [`Message`], of which the payload may still have to be encoded.
#[derive(Clone, Debug)]
pub struct OutMessage(Message);

impl OutMessage {
    /// A message whose payload is the same for every peer.
    pub fn new(header: MessageHeader, payload: Payload) -> Self {
        Self(Message::new(header, payload))
    }

    /// A message whose payload depends on the peer's features.
    pub fn deferred(header: MessageHeader, body: Arc<dyn EncodePayload>) -> Self {
        let mut message = Message::default();
        message.header = header;
        message.deferred = Some(body);
        Self(message)
    }

    /// Its type, versions and transaction.
    pub fn header(&self) -> &MessageHeader {
        &self.0.header
    }

    /// The same, to be changed.
    pub fn header_mut(&mut self) -> &mut MessageHeader {
        &mut self.0.header
    }

    /// What it carries, unless that is encoded once the peer's features are known.
    pub fn payload(&self) -> Option<&Payload> {
        self.0.deferred.is_none().then_some(&self.0.payload)
    }

    /// What was taken for it of the throttle that [`Connection::set_outgoing`](crate::Connection::set_outgoing)
    /// told of ([`Throttle::try_get`](crate::Throttle::try_get)).
    pub fn set_charge(&mut self, got: u64) {
        self.0.charge = Charge(got);
    }

    /// The same: 0 unless it was set.
    pub fn charge(&self) -> u64 {
        self.0.charge.0
    }

    /// It waits to be sent from now on.
    pub(crate) fn queued(&mut self, now: Instant) {
        self.0.queued_at = Some(now);
    }

    /// It is sent: since when it waited, if this is the first time.
    pub(crate) fn take_queued(&mut self) -> Option<Instant> {
        self.0.queued_at.take()
    }

    /// Encodes what is not encoded yet, for a peer with `features`.
    pub(crate) fn with_payload<T>(
        &self,
        features: Features,
        take: impl FnOnce(MessageHeader, &Payload) -> T,
    ) -> T {
        let mut header = self.0.header;
        match &self.0.deferred {
            None => take(header, &self.0.payload),
            Some(body) => {
                let mut payload = Payload::default();
                body.encode_payload(features, &mut header, &mut payload);
                take(header, &payload)
            }
        }
    }

    /// The message as a peer with `features` would receive it, without what it holds of throttles.
    pub fn deliver(self, features: Features) -> Message {
        let Self(mut message) = self;
        (message.grants, message.charge) = Default::default();
        if let Some(body) = message.deferred.take() {
            let MessageParts { header, payload, .. } = &mut *message;
            body.encode_payload(features, header, payload);
        }
        message
    }
}

impl From<Message> for OutMessage {
    fn from(mut message: Message) -> Self {
        (message.seq, message.wire_len, message.recv_stamp) = (0, 0, None);
        (message.grants, message.charge) = Default::default();
        Self(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_one_that_is_gone_is_used_again_with_that_of_its_front() {
        assert_eq!(size_of::<MessageParts>(), 256, "as the documents say");
        let mut message = Message::default();
        message.payload.front.set(&[7; 300]);
        let places = |message: &Message| (&raw const **message, message.payload.front.as_ptr());
        let before = places(&message);
        drop(message);
        let mut message = Message::default();
        assert!(message.payload.is_empty());
        assert_eq!(places(&message), before);
        message.payload.front.set(&[8; Front::ROOM]);
        assert_eq!(places(&message), before);
    }

    #[test]
    fn one_that_is_gone_holds_nothing_that_others_have() {
        let owner: Arc<[u8]> = vec![7; 2000].into();
        let shared = || Bytes::from_owner(Arc::clone(&owner));
        let mut message = Message::default();
        message.payload.front = shared().into();
        message.payload.middle = shared();
        bytes::Buf::advance(&mut message.payload.middle, owner.len()); // empty, and still there
        message.payload.data = [shared(), shared()].into_iter().collect();
        assert_eq!(Arc::strong_count(&owner), 5);
        drop(message);
        assert_eq!(Arc::strong_count(&owner), 1);
        assert!(Message::default().payload.is_empty());
    }
}
