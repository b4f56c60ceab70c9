use bytes::Bytes;
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Features};

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// A daemon's answer to an [`MCommand`](super::MCommand).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MCommandReply {
    /// 0, or a negative errno.
    pub result: i32,
    /// What a person is told of the result.
    pub status: ByteString,
    /// What the command printed.
    pub output: Bytes,
}

impl TypedMessage for MCommandReply {
    const TYPE: u16 = msg_type::MSG_COMMAND_REPLY;
    const NAME: &'static str = "command_reply";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            enc.i32(self.result);
            enc.value(&self.status);
        });
        payload.data = self.output.clone().into();
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MCommandReply", |dec| {
            Ok(Self { result: dec.i32()?, status: dec.value()?, output: payload.data.to_bytes() })
        })
    }
}
