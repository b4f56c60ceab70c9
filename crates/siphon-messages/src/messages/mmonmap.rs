use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::Features;

use super::decode_front;
use crate::mon::MonMap;
use crate::{TypedMessage, msg_type};

/// The map of the cluster's monitors, as a monitor sends it to who asked or subscribed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MMonMap {
    /// The map.
    pub monmap: MonMap,
}

impl TypedMessage for MMonMap {
    const TYPE: u16 = msg_type::CEPH_MSG_MON_MAP;
    const NAME: &'static str = "mon_map";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;
    const BY_FEATURES: bool = true;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| enc.length_prefixed(|enc| enc.value(&self.monmap)))
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MMonMap", |dec| {
            dec.length_prefixed(|dec| Ok(Self { monmap: dec.value()? }))
        })
    }
}
