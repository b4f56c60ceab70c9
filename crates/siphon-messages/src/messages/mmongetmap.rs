use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::Features;

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// Asks a monitor for its map, which comes as an [`MMonMap`](super::MMonMap).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MMonGetMap;

impl TypedMessage for MMonGetMap {
    const TYPE: u16 = msg_type::CEPH_MSG_MON_GET_MAP;
    const NAME: &'static str = "mon_getmap";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, _: Features, _: &mut MessageHeader, _: &mut Payload) {}

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MMonGetMap", |_| Ok(Self))
    }
}
