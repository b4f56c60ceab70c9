use std::fmt;

use bytes::Bytes;
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{Epoch, Features, Uuid};

use super::{decode_front, paxos_version, put_paxos};
use crate::{TypedMessage, msg_type};

/// The monitors' answer to an [`MPoolOp`](super::MPoolOp).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MPoolOpReply {
    /// Of the OSD map.
    pub version: u64,
    /// The cluster's id.
    pub fsid: Uuid,
    /// 0, or a negative errno.
    pub reply_code: i32,
    /// The epoch of the OSD map that has what was done.
    pub epoch: Epoch,
    /// The snapshot's number, 8 bytes, where one was asked for; empty otherwise.
    pub response_data: Bytes,
}

impl TypedMessage for MPoolOpReply {
    const TYPE: u16 = msg_type::CEPH_MSG_POOLOP_REPLY;
    const NAME: &'static str = "poolopreply";
    const VERSION: u16 = 1;
    /// Ceph leaves the field of this message at 0.
    const COMPAT_VERSION: u16 = 0;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            put_paxos(enc, self.version);
            enc.value(&self.fsid);
            enc.i32(self.reply_code);
            enc.value(&self.epoch);
            enc.bool(!self.response_data.is_empty());
            if !self.response_data.is_empty() {
                enc.value(&self.response_data);
            }
        })
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MPoolOpReply", |dec| {
            let version = paxos_version(dec)?;
            let (fsid, reply_code, epoch) = (dec.value()?, dec.i32()?, dec.value()?);
            let response_data = if dec.bool()? { dec.bytes()? } else { Bytes::new() };
            Ok(Self { version, fsid, reply_code, epoch, response_data })
        })
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reply_code, version, .. } = self;
        write!(f, "pool_op_reply(tid {} {reply_code} v{version})", header.tid)
    }
}
