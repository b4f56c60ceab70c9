use std::collections::BTreeMap;
use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::types::{ByteString, Features};
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// Subscribes to maps that a monitor publishes.
///
/// ```
/// use siphon_messages::{MMonSubscribe, SubscribeItem, TypedMessage};
/// let subscribe = MMonSubscribe {
///     what: [("monmap".into(), SubscribeItem::from_version(3))].into(),
///     ..MMonSubscribe::default()
/// };
/// let message = subscribe.to_message(siphon_wire::types::Features::ALL);
/// assert_eq!(MMonSubscribe::from_message(&message)?, subscribe);
/// # Ok::<(), siphon_messages::MessageError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MMonSubscribe {
    /// What is wanted (`monmap`, `osdmap`, `mgrmap`, …), and from which version on.
    pub what: BTreeMap<ByteString, SubscribeItem>,
    /// The subscriber's host name; empty from peers before Luminous.
    pub hostname: ByteString,
}

/// One subscription (`ceph_mon_subscribe_item`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeItem {
    /// The first version that is wanted; 0 for the current one.
    pub start: u64,
    /// `CEPH_SUBSCRIBE_*`.
    pub flags: u8,
}

impl SubscribeItem {
    /// `CEPH_SUBSCRIBE_ONETIME`: the subscription ends with the first answer.
    pub const ONETIME: u8 = 1;

    /// All versions from `start` on.
    pub const fn from_version(start: u64) -> Self {
        Self { start, flags: 0 }
    }

    /// The first version from `start` on, and no other.
    pub const fn once(start: u64) -> Self {
        Self { start, flags: Self::ONETIME }
    }

    /// Whether the subscription ends with the first answer.
    pub const fn is_once(self) -> bool {
        self.flags & Self::ONETIME != 0
    }
}

impl TypedMessage for MMonSubscribe {
    const TYPE: u16 = msg_type::CEPH_MSG_MON_SUBSCRIBE;
    const NAME: &'static str = "mon_subscribe";
    const VERSION: u16 = 3;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            enc.value(&self.what);
            enc.value(&self.hostname);
        })
    }

    fn decode_payload(header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MMonSubscribe", |dec| {
            if header.version < 2 {
                let old: BTreeMap<ByteString, OldItem> = dec.value()?;
                let what = old.into_iter().map(|(name, item)| (name, item.into())).collect();
                return Ok(Self { what, hostname: ByteString::new() });
            }
            let what = dec.value()?;
            let hostname = if header.version >= 3 { dec.value()? } else { ByteString::new() };
            // A newer version appends.
            dec.skip(if header.version > Self::VERSION { dec.remaining() } else { 0 })?;
            Ok(Self { what, hostname })
        })
    }

    fn print(&self, _header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mon_subscribe({")?;
        for (n, (name, item)) in self.what.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let plus = if item.is_once() { "" } else { "+" };
            write!(f, "{comma}{name}={}{plus}", item.start)?;
        }
        f.write_str("})")
    }
}

impl Encode for SubscribeItem {
    fn encode(&self, enc: &mut Encoder) {
        enc.u64(self.start);
        enc.u8(self.flags);
    }
}

impl Decode for SubscribeItem {
    const MIN_SIZE: usize = 9;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { start: dec.u64()?, flags: dec.u8()? })
    }
}

/// How peers without `SUBSCRIBE2` subscribe (`ceph_mon_subscribe_item_old`).
struct OldItem {
    /// The last version that the subscriber has; 0 if none.
    have: u64,
    once: bool,
}

impl Decode for OldItem {
    const MIN_SIZE: usize = 17;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let _unused = dec.u64()?;
        Ok(Self { have: dec.u64()?, once: dec.bool()? })
    }
}

impl From<OldItem> for SubscribeItem {
    fn from(old: OldItem) -> Self {
        let start = if old.have == 0 { 0 } else { old.have.saturating_add(1) };
        if old.once { Self::once(start) } else { Self::from_version(start) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn decode(version: u16, front: &'static [u8]) -> Result<MMonSubscribe, DecodeError> {
        let header = MessageHeader { version, ..MMonSubscribe::header() };
        let payload = Payload { front: Bytes::from_static(front).into(), ..Payload::default() };
        MMonSubscribe::decode_payload(&header, &payload)
    }

    #[test]
    fn version_3_ends_with_the_host_name() {
        let wire = b"\x01\0\0\0\x06\0\0\0osdmap\x07\0\0\0\0\0\0\0\x01\x02\0\0\0h1";
        let subscribe = decode(3, wire).unwrap();
        assert_eq!(subscribe.what[&ByteString::from("osdmap")], SubscribeItem::once(7));
        assert_eq!(subscribe.hostname, "h1");
        assert_eq!(&subscribe.to_message(Features::ALL).payload.front[..], wire);
    }

    #[test]
    fn older_versions() {
        let front = b"\x01\0\0\0\x01\0\0\0m\x07\0\0\0\0\0\0\0\0";
        let item = |front, version| *decode(version, front).unwrap().what.values().next().unwrap();
        assert_eq!(item(front, 2), SubscribeItem::from_version(7));
        let front = b"\x01\0\0\0\x01\0\0\0m\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x01";
        assert_eq!(item(front, 1), SubscribeItem::once(8));
        assert_eq!(item(front, 0), SubscribeItem::once(8));
    }
}
