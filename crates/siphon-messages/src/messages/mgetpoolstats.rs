use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Features, Uuid};

use super::{decode_front, paxos_version, put_paxos};
use crate::{TypedMessage, msg_type};

/// Asks the monitors what pools hold; an [`MGetPoolStatsReply`](super::MGetPoolStatsReply) of the
/// same `tid` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MGetPoolStats {
    /// The epoch of the OSD map that the answer shall know at least.
    pub version: u64,
    /// The cluster that is meant.
    pub fsid: Uuid,
    /// The pools' names.
    pub pools: Vec<ByteString>,
}

impl TypedMessage for MGetPoolStats {
    const TYPE: u16 = msg_type::MSG_GETPOOLSTATS;
    const NAME: &'static str = "getpoolstats";
    const VERSION: u16 = 1;
    /// Ceph leaves the field of this message at 0.
    const COMPAT_VERSION: u16 = 0;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            put_paxos(enc, self.version);
            enc.value(&self.fsid);
            enc.value(&self.pools);
        })
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MGetPoolStats", |dec| {
            let (version, fsid) = (paxos_version(dec)?, dec.value()?);
            Ok(Self { version, fsid, pools: dec.value()? })
        })
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools: Vec<_> = self.pools.iter().map(ToString::to_string).collect();
        write!(f, "getpoolstats({} [{}] v{})", header.tid, pools.join(","), self.version)
    }
}
