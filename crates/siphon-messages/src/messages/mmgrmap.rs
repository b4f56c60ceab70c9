use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::Features;

use super::decode_front;
use crate::mon::MgrMap;
use crate::{TypedMessage, msg_type};

/// The map of managers, as a monitor sends it to who subscribed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MMgrMap {
    /// The map.
    pub map: MgrMap,
}

impl TypedMessage for MMgrMap {
    const TYPE: u16 = msg_type::MSG_MGR_MAP;
    const NAME: &'static str = "mgrmap";
    const VERSION: u16 = 1;
    /// Ceph leaves the field of this message at 0.
    const COMPAT_VERSION: u16 = 0;
    const BY_FEATURES: bool = true;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| enc.value(&self.map))
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MMgrMap", |dec| Ok(Self { map: dec.value()? }))
    }

    fn print(&self, _header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mgrmap(e {})", self.map.epoch.0)
    }
}
