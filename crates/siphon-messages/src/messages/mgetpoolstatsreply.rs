use std::collections::BTreeMap;
use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Features, Uuid};

use super::{decode_front, paxos_version, put_paxos};
use crate::mon::PoolStat;
use crate::{TypedMessage, msg_type};

/// The monitors' answer to an [`MGetPoolStats`](super::MGetPoolStats).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MGetPoolStatsReply {
    /// Of the statistics.
    pub version: u64,
    /// The cluster's id.
    pub fsid: Uuid,
    /// By the pools' names; those that do not exist are left out.
    pub pool_stats: BTreeMap<ByteString, PoolStat>,
    /// Whether every OSD says what each pool takes of it: then `store_stats` counts.
    pub per_pool: bool,
}

impl TypedMessage for MGetPoolStatsReply {
    const TYPE: u16 = msg_type::MSG_GETPOOLSTATSREPLY;
    const NAME: &'static str = "getpoolstats";
    const VERSION: u16 = 2;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            put_paxos(enc, self.version);
            enc.value(&self.fsid);
            enc.value(&self.pool_stats);
            enc.bool(self.per_pool);
        })
    }

    fn decode_payload(header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MGetPoolStatsReply", |dec| {
            let (version, fsid) = (paxos_version(dec)?, dec.value()?);
            let pool_stats = dec.value()?;
            let per_pool = header.version >= 2 && dec.bool()?;
            Ok(Self { version, fsid, pool_stats, per_pool })
        })
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_pool = if self.per_pool { " per_pool" } else { "" };
        write!(f, "getpoolstatsreply({}{per_pool} v{})", header.tid, self.version)
    }
}
