use bytes::Bytes;
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Features};

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// A monitor's answer to an [`MAuth`](super::MAuth).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MAuthReply {
    /// `CEPH_AUTH_*`.
    pub protocol: u32,
    /// 0, or a negative errno.
    pub result: i32,
    /// The global id that the client has from now on.
    pub global_id: u64,
    /// The method's own bytes.
    pub auth_payload: Bytes,
    /// What the monitor says of the result.
    pub result_msg: ByteString,
}

impl TypedMessage for MAuthReply {
    const TYPE: u16 = msg_type::CEPH_MSG_AUTH_REPLY;
    const NAME: &'static str = "auth_reply";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            enc.u32(self.protocol);
            enc.i32(self.result);
            enc.u64(self.global_id);
            enc.value(&self.auth_payload);
            enc.value(&self.result_msg);
        })
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MAuthReply", |dec| {
            Ok(Self {
                protocol: dec.u32()?,
                result: dec.i32()?,
                global_id: dec.u64()?,
                auth_payload: dec.value()?,
                result_msg: dec.value()?,
            })
        })
    }
}
