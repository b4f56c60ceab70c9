use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::Features;

use super::MCommandReply;
use crate::{TypedMessage, msg_type};

/// A manager's answer to an [`MMgrCommand`](super::MMgrCommand): an [`MCommandReply`] of another type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MMgrCommandReply(pub MCommandReply);

impl TypedMessage for MMgrCommandReply {
    const TYPE: u16 = msg_type::MSG_MGR_COMMAND_REPLY;
    const NAME: &'static str = "mgr_command_reply";
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
        MCommandReply::decode_payload(header, payload).map(Self)
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MCommandReply { result, status, .. } = &self.0;
        write!(f, "mgr_command_reply(tid {}: {result} {status})", header.tid)
    }
}
