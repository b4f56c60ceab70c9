use bytes::Bytes;
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::Features;

use super::{decode_front, paxos_version, put_paxos};
use crate::{TypedMessage, msg_type};

/// A step of authentication with a monitor, as a message: all of it over msgr1, and the renewal of
/// tickets over either protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MAuth {
    /// `CEPH_AUTH_*`; 0 in a session's first, whose payload offers methods.
    pub protocol: u32,
    /// The method's own bytes.
    pub auth_payload: Bytes,
    /// The newest monitor map that the sender has.
    pub monmap_epoch: u32,
}

impl TypedMessage for MAuth {
    const TYPE: u16 = msg_type::CEPH_MSG_AUTH;
    const NAME: &'static str = "auth";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            put_paxos(enc, 0);
            enc.u32(self.protocol);
            enc.value(&self.auth_payload);
            enc.u32(self.monmap_epoch);
        })
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MAuth", |dec| {
            paxos_version(dec)?;
            let (protocol, auth_payload) = (dec.u32()?, dec.value()?);
            let monmap_epoch = if dec.remaining() > 0 { dec.u32()? } else { 0 };
            Ok(Self { protocol, auth_payload, monmap_epoch })
        })
    }
}
