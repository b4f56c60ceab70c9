use std::collections::BTreeMap;
use std::sync::Arc;

use siphon_crush::{CrushMap, ITEM_NONE};
use siphon_wire::types::{
    AddrType, ByteString, CephFsid, EntityAddr, EntityAddrVec, Epoch, PgId, Release, Utime,
};

use crate::{
    DEFAULT_PRIMARY_AFFINITY, MapFlags, OsdInfo, OsdState, OsdXinfo, PgPool, SnapSet, StretchMode,
};

/// Addresses of OSDs, by their numbers (`OSDMap::addrs_s`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsdAddrs {
    /// Where clients reach them.
    pub client: Vec<EntityAddrVec>,
    /// Where other OSDs reach them.
    pub cluster: Vec<EntityAddrVec>,
    /// Where other OSDs listen to their hearts, in the cluster's network.
    pub heartbeat_back: Vec<EntityAddrVec>,
    /// The same, in the clients' network.
    pub heartbeat_front: Vec<EntityAddrVec>,
}

/// The map of a cluster's OSDs (`OSDMap`).
///
/// Vectors are by the OSDs' numbers and have [`max_osd`](Self::max_osd) entries; one that a peer sent may
/// have fewer or more, and then what is missing is as for an OSD that does not exist.
///
/// Clones share the CRUSH map and the addresses.
///
/// ```
/// use siphon_osdmap::OsdMap;
/// use siphon_wire::types::{Epoch, Features};
/// use siphon_wire::{Decode, Encode};
/// let map = OsdMap { epoch: Epoch(7), ..OsdMap::default() };
/// let read = OsdMap::from_bytes(&map.to_bytes(Features::ALL))?;
/// assert_eq!(read.epoch, Epoch(7));
/// # Ok::<(), siphon_wire::DecodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct OsdMap {
    /// The cluster.
    pub fsid: CephFsid,
    /// Which version of the map.
    pub epoch: Epoch,
    /// When the first one was made.
    pub created: Utime,
    /// When this one was made.
    pub modified: Utime,
    /// Pools by their ids.
    pub pools: BTreeMap<i64, PgPool>,
    /// Their names.
    pub pool_names: BTreeMap<i64, ByteString>,
    /// The highest id that a pool ever had; -1 for none.
    pub pool_max: i32,
    /// What is set for the whole cluster.
    pub flags: MapFlags,
    /// One more than the highest OSD's number.
    pub max_osd: i32,
    /// What is known of OSDs.
    pub osd_state: Vec<OsdState>,
    /// How much of what is mapped to an OSD stays there, with 16 bits behind the point: [`WEIGHT_IN`](crate::WEIGHT_IN) for
    /// one that is in, 0 for one that is out.
    pub osd_weight: Vec<u32>,
    /// How likely an OSD becomes primary, with 16 bits behind the point; `None` if all are as likely.
    pub osd_primary_affinity: Option<Vec<u32>>,
    /// Addresses of OSDs.
    pub osd_addrs: Arc<OsdAddrs>,
    /// When OSDs were up.
    pub osd_info: Vec<OsdInfo>,
    /// More about OSDs.
    pub osd_xinfo: Vec<OsdXinfo>,
    /// Each OSD's own identifier.
    pub osd_uuid: Vec<CephFsid>,
    /// OSDs that serve a placement group for the time being, in place of those that it is mapped to. Of
    /// pools with [`EC_OPTIMIZATIONS`](crate::PoolFlags::EC_OPTIMIZATIONS) they stand in another order:
    /// first those of shards that may be primary.
    pub pg_temp: BTreeMap<PgId, Vec<i32>>,
    /// Primaries for the time being.
    pub primary_temp: BTreeMap<PgId, i32>,
    /// OSDs that placement groups are mapped to by hand.
    pub pg_upmap: BTreeMap<PgId, Vec<i32>>,
    /// OSDs that replace others in a placement group.
    pub pg_upmap_items: BTreeMap<PgId, Vec<(i32, i32)>>,
    /// Primaries by hand (Reef).
    pub pg_upmap_primaries: BTreeMap<PgId, i32>,
    /// The map by which data are placed.
    pub crush: Arc<CrushMap>,
    /// How often that changed.
    pub crush_version: i32,
    /// Profiles of erasure codes, by name.
    pub erasure_code_profiles: BTreeMap<ByteString, BTreeMap<ByteString, ByteString>>,
    /// Snapshots that this epoch removed, by pool.
    pub new_removed_snaps: BTreeMap<i64, SnapSet>,
    /// Snapshots whose removal was finished by this epoch.
    pub new_purged_snaps: BTreeMap<i64, SnapSet>,
    /// Snapshots whose removal goes on.
    pub removed_snaps_queue: BTreeMap<i64, SnapSet>,
    /// When an OSD came up or went down last.
    pub last_up_change: Utime,
    /// When an OSD was taken in or out last.
    pub last_in_change: Utime,
    /// Clients that are shut out, and until when.
    pub blocklist: BTreeMap<EntityAddr, Utime>,
    /// Networks that are shut out, and until when (Quincy).
    pub range_blocklist: BTreeMap<EntityAddr, Utime>,
    /// When the map was last marked.
    pub cluster_snapshot_epoch: Epoch,
    /// The mark.
    pub cluster_snapshot: ByteString,
    /// How full an OSD may be before it warns.
    pub nearfull_ratio: f32,
    /// How full an OSD may be before clients may not write.
    pub full_ratio: f32,
    /// How full an OSD may be before nothing is moved to it.
    pub backfillfull_ratio: f32,
    /// The oldest release that clients may be.
    pub require_min_compat_client: Release,
    /// The oldest release that OSDs may be.
    pub require_osd_release: Release,
    /// What is set for buckets of the CRUSH map: bits of [`OsdState`].
    pub crush_node_flags: BTreeMap<i32, OsdState>,
    /// What is set for classes of devices.
    pub device_class_flags: BTreeMap<i32, OsdState>,
    /// Whether the cluster is stretched over two sites, and how.
    pub stretch_mode: StretchMode,
    /// Whether OSDs may be Crimson.
    pub allow_crimson: bool,
    /// The checksum that came with the map: it says whether two have the same one.
    pub crc: Option<u32>,
}

/// A map of nothing, at epoch 0.
impl Default for OsdMap {
    fn default() -> Self {
        Self {
            fsid: CephFsid::default(),
            epoch: Epoch::default(),
            created: Utime::default(),
            modified: Utime::default(),
            pools: BTreeMap::new(),
            pool_names: BTreeMap::new(),
            pool_max: -1,
            flags: MapFlags::NONE,
            max_osd: 0,
            osd_state: Vec::new(),
            osd_weight: Vec::new(),
            osd_primary_affinity: None,
            osd_addrs: Arc::default(),
            osd_info: Vec::new(),
            osd_xinfo: Vec::new(),
            osd_uuid: Vec::new(),
            pg_temp: BTreeMap::new(),
            primary_temp: BTreeMap::new(),
            pg_upmap: BTreeMap::new(),
            pg_upmap_items: BTreeMap::new(),
            pg_upmap_primaries: BTreeMap::new(),
            crush: Arc::default(),
            crush_version: 1,
            erasure_code_profiles: BTreeMap::new(),
            new_removed_snaps: BTreeMap::new(),
            new_purged_snaps: BTreeMap::new(),
            removed_snaps_queue: BTreeMap::new(),
            last_up_change: Utime::default(),
            last_in_change: Utime::default(),
            blocklist: BTreeMap::new(),
            range_blocklist: BTreeMap::new(),
            cluster_snapshot_epoch: Epoch::default(),
            cluster_snapshot: ByteString::new(),
            nearfull_ratio: 0.0,
            full_ratio: 0.0,
            backfillfull_ratio: 0.0,
            require_min_compat_client: Release::UNKNOWN,
            require_osd_release: Release::UNKNOWN,
            crush_node_flags: BTreeMap::new(),
            device_class_flags: BTreeMap::new(),
            stretch_mode: StretchMode::default(),
            allow_crimson: false,
            crc: None,
        }
    }
}

/// The entry of an OSD in a vector, if it has one.
#[inline]
fn entry<T>(entries: &[T], osd: i32) -> Option<&T> {
    entries.get(usize::try_from(osd).ok()?)
}

impl OsdMap {
    /// What is known of an OSD: nothing, if it is not in the map.
    #[inline]
    pub fn state(&self, osd: i32) -> OsdState {
        if osd >= self.max_osd {
            return OsdState::NONE;
        }
        entry(&self.osd_state, osd).copied().unwrap_or_default()
    }

    /// Whether there is such an OSD.
    #[inline]
    pub fn exists(&self, osd: i32) -> bool {
        self.state(osd).contains(OsdState::EXISTS)
    }

    /// Whether an OSD runs.
    #[inline]
    pub fn is_up(&self, osd: i32) -> bool {
        self.state(osd).contains(OsdState::EXISTS | OsdState::UP)
    }

    /// The weight of an OSD; 0 if it is out or does not exist.
    #[inline]
    pub fn weight(&self, osd: i32) -> u32 {
        if self.exists(osd) { entry(&self.osd_weight, osd).copied().unwrap_or(0) } else { 0 }
    }

    /// Whether data are mapped to an OSD.
    pub fn is_in(&self, osd: i32) -> bool {
        self.weight(osd) > 0
    }

    /// How likely an OSD becomes primary, of [`DEFAULT_PRIMARY_AFFINITY`].
    #[inline]
    pub fn primary_affinity(&self, osd: i32) -> u32 {
        let affinities = self.osd_primary_affinity.as_deref().unwrap_or_default();
        entry(affinities, osd).copied().unwrap_or(DEFAULT_PRIMARY_AFFINITY)
    }

    /// Where clients reach an OSD.
    ///
    /// ```
    /// use siphon_osdmap::OsdMap;
    /// assert_eq!(OsdMap::default().client_addrs(0), None);
    /// ```
    pub fn client_addrs(&self, osd: i32) -> Option<&EntityAddrVec> {
        entry(&self.osd_addrs.client, osd).filter(|_| self.exists(osd))
    }

    /// When an OSD was up.
    pub fn info(&self, osd: i32) -> Option<&OsdInfo> {
        entry(&self.osd_info, osd).filter(|_| self.exists(osd))
    }

    /// More about an OSD.
    pub fn xinfo(&self, osd: i32) -> Option<&OsdXinfo> {
        entry(&self.osd_xinfo, osd).filter(|_| self.exists(osd))
    }

    /// The OSDs that exist.
    pub fn osds(&self) -> impl Iterator<Item = i32> {
        let count = self.osd_state.len().min(usize::try_from(self.max_osd).unwrap_or(0));
        // No more than `max_osd`.
        (0..count as i32).filter(|osd| self.exists(*osd))
    }

    /// A pool.
    #[inline]
    pub fn pool(&self, id: i64) -> Option<&PgPool> {
        self.pools.get(&id)
    }

    /// The pool of a name.
    pub fn pool_by_name(&self, name: &[u8]) -> Option<i64> {
        self.pool_names.iter().find(|(_, found)| ***found == *name).map(|(id, _)| *id)
    }

    /// The profile of an erasure-coded pool.
    pub fn erasure_code_profile(&self, pool: &PgPool) -> Option<&BTreeMap<ByteString, ByteString>> {
        self.erasure_code_profiles.get(&pool.erasure_code_profile)
    }

    /// Until when one of a client's addresses is shut out, if it is.
    ///
    /// An address is shut out by itself, by its host (port and nonce 0), or by its network.
    ///
    /// ```
    /// use siphon_osdmap::OsdMap;
    /// use siphon_wire::types::{Release, Utime};
    /// let mut map = OsdMap { require_osd_release: Release::REEF, ..OsdMap::default() };
    /// map.blocklist.insert("any:10.0.0.1:0/7".parse()?, Utime::new(2_000_000_000, 0));
    /// let client = "v2:10.0.0.1:0/7".parse()?;
    /// assert_eq!(map.blocklisted(&client), Some(Utime::new(2_000_000_000, 0)));
    /// # Ok::<(), siphon_wire::types::ParseError>(())
    /// ```
    pub fn blocklisted(&self, addrs: &EntityAddrVec) -> Option<Utime> {
        addrs.iter().filter_map(|addr| self.blocklisted_addr(addr)).max()
    }

    fn blocklisted_addr(&self, addr: &EntityAddr) -> Option<Utime> {
        if self.blocklist.is_empty() && self.range_blocklist.is_empty() {
            return None;
        }
        // The type of all entries (`OSDMap::is_blocklisted`).
        let nautilus = self.require_osd_release >= Release::NAUTILUS;
        let own = addr.with_kind(if nautilus { AddrType::ANY } else { AddrType::LEGACY });
        let host = own.with_port(0).with_nonce(0);
        let own = [&own, &host].into_iter().filter_map(|key| self.blocklist.get(key));
        let ranges = self.range_blocklist.iter();
        let ranges = ranges.filter(|(range, _)| covers(range, addr)).map(|(_, until)| until);
        own.chain(ranges).max().copied()
    }

    /// Whether reads are stopped, for the whole cluster.
    pub fn pauses_reads(&self) -> bool {
        self.flags.contains(MapFlags::PAUSERD)
    }

    /// Whether writes are stopped, for the whole cluster.
    pub fn pauses_writes(&self) -> bool {
        self.flags.contains(MapFlags::PAUSEWR) || self.flags.contains(MapFlags::FULL)
    }

    /// Makes place for so many OSDs: new ones do not exist, and those beyond are gone.
    ///
    /// # Panics
    /// If the number is below 0.
    pub fn set_max_osd(&mut self, count: i32) {
        let len = usize::try_from(count).expect("a number of OSDs is 0 or more");
        self.max_osd = count;
        self.osd_state.resize(len, OsdState::NONE);
        self.osd_weight.resize(len, 0);
        self.osd_info.resize(len, OsdInfo::default());
        self.osd_xinfo.resize(len, OsdXinfo::default());
        self.osd_uuid.resize(len, CephFsid::default());
        if let Some(affinities) = &mut self.osd_primary_affinity {
            affinities.resize(len, DEFAULT_PRIMARY_AFFINITY);
        }
        let addrs = Arc::make_mut(&mut self.osd_addrs);
        for list in [
            &mut addrs.client,
            &mut addrs.cluster,
            &mut addrs.heartbeat_back,
            &mut addrs.heartbeat_front,
        ] {
            list.resize(len, EntityAddrVec::new());
        }
    }

    /// Sets how likely an OSD becomes primary.
    pub fn set_primary_affinity(&mut self, osd: i32, affinity: u32) {
        let len = self.osd_state.len();
        let affinities =
            self.osd_primary_affinity.get_or_insert_with(|| vec![DEFAULT_PRIMARY_AFFINITY; len]);
        if let Some(entry) = usize::try_from(osd).ok().and_then(|osd| affinities.get_mut(osd)) {
            *entry = affinity;
        }
    }

    /// Whether a number is that of an OSD, not the mark of a gap.
    pub(crate) fn is_osd(&self, osd: i32) -> bool {
        osd != ITEM_NONE && (0..self.max_osd).contains(&osd)
    }
}

/// Whether an address is in a network, whose nonce has the length of its prefix in bits.
fn covers(range: &EntityAddr, addr: &EntityAddr) -> bool {
    use std::net::IpAddr;
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let (Some(range_ip), Some(ip)) = (range.ip(), addr.ip()) else { return false };
    let ((network, longest), (host, length)) = (bits(range_ip), bits(ip));
    if length != longest || range.nonce() > longest {
        return false;
    }
    // Over 128 bits, a prefix of length 0 shifts everything out.
    let differ = (network ^ host).checked_shr(128 - range.nonce()).unwrap_or(0);
    differ == 0
}
