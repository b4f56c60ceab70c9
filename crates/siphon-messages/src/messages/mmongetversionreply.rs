use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::Features;

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// A monitor's answer to an [`MMonGetVersion`](super::MMonGetVersion).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MMonGetVersionReply {
    /// That of the question.
    pub handle: u64,
    /// The newest version.
    pub version: u64,
    /// The oldest version that the monitors still have; 0 if they don't say.
    pub oldest_version: u64,
}

impl TypedMessage for MMonGetVersionReply {
    const TYPE: u16 = msg_type::CEPH_MSG_MON_GET_VERSION_REPLY;
    const NAME: &'static str = "mon_get_version_reply";
    const VERSION: u16 = 2;
    /// Ceph leaves the field of this message at 0.
    const COMPAT_VERSION: u16 = 0;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            enc.u64(self.handle);
            enc.u64(self.version);
            enc.u64(self.oldest_version);
        })
    }

    fn decode_payload(header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MMonGetVersionReply", |dec| {
            let (handle, version) = (dec.u64()?, dec.u64()?);
            let oldest_version = if header.version >= 2 { dec.u64()? } else { 0 };
            Ok(Self { handle, version, oldest_version })
        })
    }

    fn print(&self, _header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mon_get_version_reply(handle={} version={})", self.handle, self.version)
    }
}
