use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use siphon_wire::types::{
    ByteString, CephFsid, EntityAddr, EntityAddrVec, Epoch, Features, PgId, Release, Utime,
};

use crate::{MapFlags, OsdState, OsdXinfo, PgPool, SnapSet};

/// Whether a cluster is stretched over two sites, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StretchMode {
    /// Whether it is.
    pub enabled: bool,
    /// Sites.
    pub bucket_count: u32,
    /// 0, or how many sites there are left.
    pub degraded: u32,
    /// Whether a site is coming back.
    pub recovering: u32,
    /// The type of bucket that a site is.
    pub bucket: i32,
}

/// What changes from one epoch of the map to the next (`OSDMap::Incremental`).
///
/// What a field says is set or replaced; what is in none stays. [`OsdMap::apply`](crate::OsdMap::apply)
/// does it.
///
/// ```
/// use siphon_osdmap::{Incremental, OsdState};
/// use siphon_wire::types::{Epoch, Features};
/// use siphon_wire::{Decode, Encode};
///
/// let mut inc = Incremental { epoch: Epoch(8), ..Incremental::default() };
/// inc.new_state.insert(3, OsdState::UP); // changes from what it was: down
/// let bytes = inc.to_bytes(Features::ALL);
/// assert_eq!(Incremental::from_bytes(&bytes)?.new_state, inc.new_state);
/// # Ok::<(), siphon_wire::DecodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Incremental {
    /// The cluster.
    pub fsid: CephFsid,
    /// The epoch that it makes.
    pub epoch: Epoch,
    /// When that was made.
    pub modified: Utime,
    /// The highest id that a pool ever had; -1 if it stays.
    pub new_pool_max: i64,
    /// What is set for the whole cluster; `None` if it stays.
    pub new_flags: Option<MapFlags>,
    /// A full map, encoded, in place of everything else; empty for none.
    pub fullmap: Bytes,
    /// A CRUSH map, encoded; empty for none.
    pub crush: Bytes,
    /// One more than the highest OSD's number; -1 if it stays.
    pub new_max_osd: i32,
    /// Pools that are new or changed.
    pub new_pools: BTreeMap<i64, PgPool>,
    /// Names of pools that are new or changed.
    pub new_pool_names: BTreeMap<i64, ByteString>,
    /// Pools that are gone.
    pub old_pools: BTreeSet<i64>,
    /// OSDs that came up, with their addresses for clients.
    pub new_up_client: BTreeMap<i32, EntityAddrVec>,
    /// Their addresses for other OSDs.
    pub new_up_cluster: BTreeMap<i32, EntityAddrVec>,
    /// Their addresses for heartbeats, in the cluster's network.
    pub new_hb_back_up: BTreeMap<i32, EntityAddrVec>,
    /// The same, in the clients' network.
    pub new_hb_front_up: BTreeMap<i32, EntityAddrVec>,
    /// Bits of states that change; none means [`OsdState::UP`].
    pub new_state: BTreeMap<i32, OsdState>,
    /// Weights.
    pub new_weight: BTreeMap<i32, u32>,
    /// How likely OSDs become primary.
    pub new_primary_affinity: BTreeMap<i32, u32>,
    /// OSDs for the time being; an empty list ends it.
    pub new_pg_temp: BTreeMap<PgId, Vec<i32>>,
    /// Primaries for the time being; -1 ends it.
    pub new_primary_temp: BTreeMap<PgId, i32>,
    /// Profiles of erasure codes that are new.
    pub new_erasure_code_profiles: BTreeMap<ByteString, BTreeMap<ByteString, ByteString>>,
    /// Those that are gone.
    pub old_erasure_code_profiles: Vec<ByteString>,
    /// Placement groups that are mapped by hand.
    pub new_pg_upmap: BTreeMap<PgId, Vec<i32>>,
    /// Those that are not any more.
    pub old_pg_upmap: BTreeSet<PgId>,
    /// OSDs that replace others.
    pub new_pg_upmap_items: BTreeMap<PgId, Vec<(i32, i32)>>,
    /// Where none does any more.
    pub old_pg_upmap_items: BTreeSet<PgId>,
    /// Primaries by hand.
    pub new_pg_upmap_primary: BTreeMap<PgId, i32>,
    /// Where there is none any more.
    pub old_pg_upmap_primary: BTreeSet<PgId>,
    /// Snapshots that were removed, by pool.
    pub new_removed_snaps: BTreeMap<i64, SnapSet>,
    /// Snapshots whose removal is finished.
    pub new_purged_snaps: BTreeMap<i64, SnapSet>,
    /// When an OSD came up or went down; zero if none did.
    pub new_last_up_change: Utime,
    /// When an OSD was taken in or out; zero if none was.
    pub new_last_in_change: Utime,
    /// Through when OSDs are known to have been up.
    pub new_up_thru: BTreeMap<i32, Epoch>,
    /// Their last intervals that ended cleanly.
    pub new_last_clean_interval: BTreeMap<i32, (Epoch, Epoch)>,
    /// When OSDs were given up with their data.
    pub new_lost: BTreeMap<i32, Epoch>,
    /// Clients that are shut out, and until when.
    pub new_blocklist: BTreeMap<EntityAddr, Utime>,
    /// Clients that are not any more.
    pub old_blocklist: Vec<EntityAddr>,
    /// Networks that are shut out, and until when.
    pub new_range_blocklist: BTreeMap<EntityAddr, Utime>,
    /// Networks that are not any more.
    pub old_range_blocklist: Vec<EntityAddr>,
    /// A mark for the map; empty for none.
    pub cluster_snapshot: ByteString,
    /// OSDs' own identifiers.
    pub new_uuid: BTreeMap<i32, CephFsid>,
    /// More about OSDs.
    pub new_xinfo: BTreeMap<i32, OsdXinfo>,
    /// The features that the full map is encoded for, whose checksum is [`full_crc`](Self::full_crc).
    pub encode_features: Features,
    /// How full an OSD may be before it warns; below 0 if that stays.
    pub new_nearfull_ratio: f32,
    /// How full an OSD may be before clients may not write; below 0 if that stays.
    pub new_full_ratio: f32,
    /// How full an OSD may be before nothing is moved to it; below 0 if that stays.
    pub new_backfillfull_ratio: f32,
    /// The oldest release that clients may be; unknown if that stays.
    pub new_require_min_compat_client: Release,
    /// The oldest release that OSDs may be; 255 if that stays.
    pub new_require_osd_release: Release,
    /// What is set for buckets of the CRUSH map; nothing ends it.
    pub new_crush_node_flags: BTreeMap<i32, OsdState>,
    /// What is set for classes of devices; nothing ends it.
    pub new_device_class_flags: BTreeMap<i32, OsdState>,
    /// How the cluster is stretched, if that changes.
    pub new_stretch_mode: Option<StretchMode>,
    /// Whether OSDs may be Crimson: 0 if that stays, 1 for yes, 2 for no.
    pub mutate_allow_crimson: u8,
    /// The checksum of the full map that this makes; 0 if it is not known.
    pub full_crc: u32,
    /// The checksum that came with this.
    pub inc_crc: Option<u32>,
}

/// Changes nothing.
impl Default for Incremental {
    fn default() -> Self {
        Self {
            fsid: CephFsid::default(),
            epoch: Epoch::default(),
            modified: Utime::default(),
            new_pool_max: -1,
            new_flags: None,
            fullmap: Bytes::new(),
            crush: Bytes::new(),
            new_max_osd: -1,
            new_pools: BTreeMap::new(),
            new_pool_names: BTreeMap::new(),
            old_pools: BTreeSet::new(),
            new_up_client: BTreeMap::new(),
            new_up_cluster: BTreeMap::new(),
            new_hb_back_up: BTreeMap::new(),
            new_hb_front_up: BTreeMap::new(),
            new_state: BTreeMap::new(),
            new_weight: BTreeMap::new(),
            new_primary_affinity: BTreeMap::new(),
            new_pg_temp: BTreeMap::new(),
            new_primary_temp: BTreeMap::new(),
            new_erasure_code_profiles: BTreeMap::new(),
            old_erasure_code_profiles: Vec::new(),
            new_pg_upmap: BTreeMap::new(),
            old_pg_upmap: BTreeSet::new(),
            new_pg_upmap_items: BTreeMap::new(),
            old_pg_upmap_items: BTreeSet::new(),
            new_pg_upmap_primary: BTreeMap::new(),
            old_pg_upmap_primary: BTreeSet::new(),
            new_removed_snaps: BTreeMap::new(),
            new_purged_snaps: BTreeMap::new(),
            new_last_up_change: Utime::default(),
            new_last_in_change: Utime::default(),
            new_up_thru: BTreeMap::new(),
            new_last_clean_interval: BTreeMap::new(),
            new_lost: BTreeMap::new(),
            new_blocklist: BTreeMap::new(),
            old_blocklist: Vec::new(),
            new_range_blocklist: BTreeMap::new(),
            old_range_blocklist: Vec::new(),
            cluster_snapshot: ByteString::new(),
            new_uuid: BTreeMap::new(),
            new_xinfo: BTreeMap::new(),
            encode_features: Features::NONE,
            new_nearfull_ratio: -1.0,
            new_full_ratio: -1.0,
            new_backfillfull_ratio: -1.0,
            new_require_min_compat_client: Release::UNKNOWN,
            new_require_osd_release: Self::SAME_RELEASE,
            new_crush_node_flags: BTreeMap::new(),
            new_device_class_flags: BTreeMap::new(),
            new_stretch_mode: None,
            mutate_allow_crimson: 0,
            full_crc: 0,
            inc_crc: None,
        }
    }
}

impl Incremental {
    /// What stands for "stays" where a release is meant.
    pub(crate) const SAME_RELEASE: Release = Release(0xff);
}
