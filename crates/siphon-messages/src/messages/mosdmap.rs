use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{Epoch, Features, SnapId, Uuid};

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// Epochs of the OSD map, in full or as what changed; from a monitor that was subscribed to, or from
/// an OSD that has a newer map than who asked it.
///
/// The maps are as the sender encoded them, and share the message's memory: `siphon_osdmap` reads them.
///
/// ```
/// use siphon_messages::{MOSDMap, TypedMessage};
/// use siphon_wire::types::{Epoch, Features};
/// let mut maps = MOSDMap::default();
/// maps.incremental_maps.insert(Epoch(8), bytes::Bytes::from_static(b"what changed"));
/// maps.maps.insert(Epoch(7), bytes::Bytes::from_static(b"all of it"));
/// assert_eq!((maps.first(), maps.last()), (Epoch(7), Epoch(8)));
/// assert_eq!(MOSDMap::from_message(&maps.to_message(Features::ALL))?, maps);
/// # Ok::<(), siphon_messages::MessageError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MOSDMap {
    /// The cluster's id.
    pub fsid: Uuid,
    /// What changed from the epoch before to this one, encoded.
    pub incremental_maps: BTreeMap<Epoch, Bytes>,
    /// Full maps, encoded.
    pub maps: BTreeMap<Epoch, Bytes>,
    /// The oldest epoch that the sender has; 0 if it doesn't say.
    pub oldest_map: Epoch,
    /// The newest epoch that the sender has; 0 if it doesn't say.
    pub newest_map: Epoch,
    /// Snapshots that were removed in epochs that are left out here, by pool: where each run of ids
    /// begins, and how many it has. No release since Octopus sends any.
    pub gap_removed_snaps: BTreeMap<i64, BTreeMap<SnapId, u64>>,
}

impl MOSDMap {
    /// The first epoch in it; 0 if it has none.
    pub fn first(&self) -> Epoch {
        self.epochs().min().unwrap_or_default()
    }

    /// The last epoch in it; 0 if it has none.
    pub fn last(&self) -> Epoch {
        self.epochs().max().unwrap_or_default()
    }

    fn epochs(&self) -> impl Iterator<Item = Epoch> {
        self.incremental_maps.keys().chain(self.maps.keys()).copied()
    }
}

impl TypedMessage for MOSDMap {
    const TYPE: u16 = msg_type::CEPH_MSG_OSD_MAP;
    const NAME: &'static str = "osdmap";
    const VERSION: u16 = 4;
    const COMPAT_VERSION: u16 = 3;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            enc.value(&self.fsid);
            enc.value(&self.incremental_maps);
            enc.value(&self.maps);
            enc.value(&self.oldest_map);
            enc.value(&self.newest_map);
            enc.value(&self.gap_removed_snaps);
        })
    }

    fn decode_payload(header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MOSDMap", |dec| {
            let (fsid, incremental_maps, maps) = (dec.value()?, dec.value()?, dec.value()?);
            let mut map = Self { fsid, incremental_maps, maps, ..Self::default() };
            if header.version >= 2 {
                map.oldest_map = dec.value()?;
                map.newest_map = dec.value()?;
            }
            if header.version >= 4 {
                map.gap_removed_snaps = dec.value()?;
            }
            // A newer version appends.
            dec.skip(if header.version > Self::VERSION { dec.remaining() } else { 0 })?;
            Ok(map)
        })
    }

    fn print(&self, _header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "osd_map({}..{}", self.first().0, self.last().0)?;
        if self.oldest_map.0 != 0 || self.newest_map.0 != 0 {
            write!(f, " src has {}..{}", self.oldest_map.0, self.newest_map.0)?;
        }
        f.write_str(")")
    }
}
