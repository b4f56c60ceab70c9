use bytes::Bytes;
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Features, Uuid};

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// A command to a daemon, answered by an [`MCommandReply`](super::MCommandReply) of the same `tid`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MCommand {
    /// The cluster that is meant.
    pub fsid: Uuid,
    /// One JSON object: `{"prefix": "version"}`.
    pub cmd: Vec<ByteString>,
    /// What the command takes besides: a file, as `-i` of Ceph's command line has it.
    pub input: Bytes,
}

impl TypedMessage for MCommand {
    const TYPE: u16 = msg_type::MSG_COMMAND;
    const NAME: &'static str = "command";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            enc.value(&self.fsid);
            enc.value(&self.cmd);
        });
        payload.data = self.input.clone().into();
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MCommand", |dec| {
            let (fsid, cmd) = (dec.value()?, dec.value()?);
            Ok(Self { fsid, cmd, input: payload.data.to_bytes() })
        })
    }
}
