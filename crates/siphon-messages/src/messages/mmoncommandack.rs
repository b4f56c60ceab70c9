use bytes::Bytes;
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Features};

use super::{decode_front, paxos_version, put_paxos};
use crate::{TypedMessage, msg_type};

/// The monitors' answer to an [`MMonCommand`](super::MMonCommand).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MMonCommandAck {
    /// Of the map that the command was about, where it was about one.
    pub version: u64,
    /// 0, or a negative errno.
    pub result: i32,
    /// What a person is told of the result.
    pub status: ByteString,
    /// The command that is answered.
    pub cmd: Vec<ByteString>,
    /// What the command printed.
    pub output: Bytes,
}

impl TypedMessage for MMonCommandAck {
    const TYPE: u16 = msg_type::MSG_MON_COMMAND_ACK;
    const NAME: &'static str = "mon_command";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            put_paxos(enc, self.version);
            enc.i32(self.result);
            enc.value(&self.status);
            enc.value(&self.cmd);
        });
        payload.data = self.output.clone().into();
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MMonCommandAck", |dec| {
            Ok(Self {
                version: paxos_version(dec)?,
                result: dec.i32()?,
                status: dec.value()?,
                cmd: dec.value()?,
                output: payload.data.to_bytes(),
            })
        })
    }
}
