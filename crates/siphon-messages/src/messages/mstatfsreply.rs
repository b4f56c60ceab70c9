use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{Features, Uuid};

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// The monitors' answer to an [`MStatfs`](super::MStatfs): the room there is (`ceph_statfs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MStatfsReply {
    /// The cluster's id.
    pub fsid: Uuid,
    /// The epoch of the OSD map that it is of.
    pub version: u64,
    /// All there is, in KiB.
    pub kb: u64,
    /// What is used, in KiB.
    pub kb_used: u64,
    /// What is left, in KiB.
    pub kb_avail: u64,
    /// How many objects there are.
    pub num_objects: u64,
}

impl TypedMessage for MStatfsReply {
    const TYPE: u16 = msg_type::CEPH_MSG_STATFS_REPLY;
    const NAME: &'static str = "statfs_reply";
    const VERSION: u16 = 1;
    /// Ceph leaves the field of this message at 0.
    const COMPAT_VERSION: u16 = 0;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            enc.value(&self.fsid);
            for number in [self.version, self.kb, self.kb_used, self.kb_avail, self.num_objects] {
                enc.u64(number);
            }
        })
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MStatfsReply", |dec| {
            Ok(Self {
                fsid: dec.value()?,
                version: dec.u64()?,
                kb: dec.u64()?,
                kb_used: dec.u64()?,
                kb_avail: dec.u64()?,
                num_objects: dec.u64()?,
            })
        })
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "statfs_reply({})", header.tid)
    }
}
