use std::fmt;

use bytes::Bytes;
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Features, Uuid};

use super::{decode_front, front_only};
use crate::{TypedMessage, msg_type};

/// A command to the modules of a manager of Octopus or newer; an
/// [`MMgrCommandReply`](super::MMgrCommandReply) of the same `tid` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MMgrCommand {
    /// The cluster that is meant.
    pub fsid: Uuid,
    /// One JSON object: `{"prefix": "pg dump", "format": "json"}`.
    pub cmd: Vec<ByteString>,
    /// What the command takes besides: a file, as `-i` of Ceph's command line has it.
    pub input: Bytes,
}

impl TypedMessage for MMgrCommand {
    const TYPE: u16 = msg_type::MSG_MGR_COMMAND;
    const NAME: &'static str = "mgr_command";
    const VERSION: u16 = 1;
    /// Ceph leaves the field of this message at 0.
    const COMPAT_VERSION: u16 = 0;

    fn encode_payload(&self, features: Features, _header: &mut MessageHeader) -> Payload {
        let head = front_only(features, |enc| {
            enc.value(&self.fsid);
            enc.value(&self.cmd);
        });
        Payload { data: self.input.clone().into(), ..head }
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MMgrCommand", |dec| {
            let (fsid, cmd) = (dec.value()?, dec.value()?);
            Ok(Self { fsid, cmd, input: payload.data.to_bytes() })
        })
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cmd: Vec<_> = self.cmd.iter().map(ToString::to_string).collect();
        write!(f, "mgr_command(tid {}: {})", header.tid, cmd.join(" "))
    }
}
