use std::fmt;

use bytes::Bytes;
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Features};

use super::{decode_front, front_only};
use crate::{TypedMessage, msg_type};

/// A manager's answer to an [`MMgrCommand`](super::MMgrCommand).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MMgrCommandReply {
    /// 0, or a negative errno.
    pub result: i32,
    /// What a person is told of the result.
    pub status: ByteString,
    /// What the command printed.
    pub output: Bytes,
}

impl TypedMessage for MMgrCommandReply {
    const TYPE: u16 = msg_type::MSG_MGR_COMMAND_REPLY;
    const NAME: &'static str = "mgr_command_reply";
    const VERSION: u16 = 1;
    /// Ceph leaves the field of this message at 0.
    const COMPAT_VERSION: u16 = 0;

    fn encode_payload(&self, features: Features, _header: &mut MessageHeader) -> Payload {
        let head = front_only(features, |enc| {
            enc.i32(self.result);
            enc.value(&self.status);
        });
        Payload { data: self.output.clone().into(), ..head }
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MMgrCommandReply", |dec| {
            Ok(Self { result: dec.i32()?, status: dec.value()?, output: payload.data.to_bytes() })
        })
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { result, status, .. } = self;
        write!(f, "mgr_command_reply(tid {}: {result} {status})", header.tid)
    }
}
