use bytes::Bytes;
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Features, Uuid};

use super::{decode_front, paxos_version, put_paxos};
use crate::{TypedMessage, msg_type};

/// A command to the monitors, answered by an [`MMonCommandAck`](super::MMonCommandAck) of the same
/// `tid`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MMonCommand {
    /// The cluster that is meant.
    pub fsid: Uuid,
    /// One JSON object: `{"prefix": "osd dump", "format": "json"}`.
    pub cmd: Vec<ByteString>,
    /// What the command takes besides: a file, as `-i` of Ceph's command line has it.
    pub input: Bytes,
}

impl TypedMessage for MMonCommand {
    const TYPE: u16 = msg_type::MSG_MON_COMMAND;
    const NAME: &'static str = "mon_command";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            put_paxos(enc, 0);
            enc.value(&self.fsid);
            enc.value(&self.cmd);
        });
        payload.data = self.input.clone().into();
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MMonCommand", |dec| {
            paxos_version(dec)?;
            let (fsid, cmd) = (dec.value()?, dec.value()?);
            Ok(Self { fsid, cmd, input: payload.data.to_bytes() })
        })
    }
}
