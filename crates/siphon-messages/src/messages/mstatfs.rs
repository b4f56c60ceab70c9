use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{Features, Uuid};

use super::{decode_front, paxos_version, put_paxos};
use crate::{TypedMessage, msg_type};

/// Asks the monitors how much room there is; an [`MStatfsReply`](super::MStatfsReply) of the same
/// `tid` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MStatfs {
    /// The epoch of the OSD map that the answer shall know at least.
    pub version: u64,
    /// The cluster that is meant.
    pub fsid: Uuid,
    /// The pool that is meant, or the whole cluster.
    pub data_pool: Option<i64>,
}

impl TypedMessage for MStatfs {
    const TYPE: u16 = msg_type::CEPH_MSG_STATFS;
    const NAME: &'static str = "statfs";
    const VERSION: u16 = 2;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            put_paxos(enc, self.version);
            enc.value(&self.fsid);
            enc.value(&self.data_pool);
        })
    }

    fn decode_payload(header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MStatfs", |dec| {
            let (version, fsid) = (paxos_version(dec)?, dec.value()?);
            let data_pool = if header.version >= 2 { dec.value()? } else { None };
            Ok(Self { version, fsid, data_pool })
        })
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = self.data_pool.unwrap_or(-1);
        write!(f, "statfs({} pool {pool} v{})", header.tid, self.version)
    }
}
