use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::Features;

use super::MCommand;
use crate::{TypedMessage, msg_type};

/// A command to the modules of a manager of Octopus or newer: an [`MCommand`] of another type. An
/// [`MMgrCommandReply`](super::MMgrCommandReply) of the same `tid` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MMgrCommand(pub MCommand);

impl TypedMessage for MMgrCommand {
    const TYPE: u16 = msg_type::MSG_MGR_COMMAND;
    const NAME: &'static str = "mgr_command";
    const VERSION: u16 = 1;
    /// Ceph leaves the field of this message at 0.
    const COMPAT_VERSION: u16 = 0;

    fn encode_payload(
        &self,
        features: Features,
        header: &mut MessageHeader,
        payload: &mut Payload,
    ) {
        self.0.encode_payload(features, header, payload)
    }

    fn decode_payload(header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        MCommand::decode_payload(header, payload).map(Self)
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cmd: Vec<_> = self.0.cmd.iter().map(ToString::to_string).collect();
        write!(f, "mgr_command(tid {}: {})", header.tid, cmd.join(" "))
    }
}
