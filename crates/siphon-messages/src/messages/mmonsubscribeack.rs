use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{Features, Uuid};

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// Accepts a subscription of a peer without `MON_STATEFUL_SUB`, who has to renew it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MMonSubscribeAck {
    /// After how many seconds to renew the subscription.
    pub interval: u32,
    /// The cluster's id.
    pub fsid: Uuid,
}

impl TypedMessage for MMonSubscribeAck {
    const TYPE: u16 = msg_type::CEPH_MSG_MON_SUBSCRIBE_ACK;
    const NAME: &'static str = "mon_subscribe_ack";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            enc.u32(self.interval);
            enc.value(&self.fsid);
        })
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MMonSubscribeAck", |dec| {
            Ok(Self { interval: dec.u32()?, fsid: dec.value()? })
        })
    }

    fn print(&self, _header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mon_subscribe_ack({}s)", self.interval)
    }
}
