use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use siphon_crush::CrushMap;
use siphon_wire::types::{CephFsid, EntityAddrVec, Epoch, Release, Utime};
use siphon_wire::{Decode, DecodeError, Decoder};

use crate::{DEFAULT_PRIMARY_AFFINITY, Incremental, MapFlags, OsdInfo, OsdMap, OsdState, OsdXinfo};

/// Most OSDs that an increment may make place for: a hundred times what clusters have. Each takes some
/// hundred bytes, which no bytes of the peer pay for.
const MAX_OSDS: i32 = 1 << 20;

/// Why an increment was not applied; the map is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApplyError {
    /// It is for another epoch: there may be others to be applied first.
    Epoch {
        /// The map's.
        map: Epoch,
        /// That which the increment makes.
        incremental: Epoch,
    },
    /// It is of another cluster.
    Fsid {
        /// The map's.
        map: CephFsid,
        /// The increment's.
        incremental: CephFsid,
    },
    /// It says something of an OSD that the map has no place for.
    NoSuchOsd {
        /// The OSD's number.
        osd: i32,
        /// How many the map has place for.
        max_osd: i32,
    },
    /// It makes place for more OSDs than we allow.
    TooManyOsds {
        /// How many.
        count: i32,
        /// How many we allow.
        limit: i32,
    },
    /// It has a map that cannot be read.
    Decode(DecodeError),
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch { map, incremental } => {
                write!(f, "an increment to epoch {incremental} does not fit a map of epoch {map}")
            }
            Self::Fsid { map, incremental } => {
                write!(f, "an increment of cluster {incremental} does not fit a map of {map}")
            }
            Self::NoSuchOsd { osd, max_osd } => {
                write!(f, "an increment speaks of osd.{osd}, the map has place for {max_osd}")
            }
            Self::TooManyOsds { count, limit } => {
                write!(f, "an increment makes place for {count} OSDs, of {limit} at most")
            }
            Self::Decode(_) => f.write_str("an increment has a map that cannot be read"),
        }
    }
}

impl std::error::Error for ApplyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Decode(error) => Some(error),
            _ => None,
        }
    }
}

impl From<DecodeError> for ApplyError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl OsdMap {
    /// Makes this map the one of the next epoch (`OSDMap::apply_incremental`).
    ///
    /// ```
    /// use siphon_osdmap::{ApplyError, Incremental, MapFlags, OsdMap};
    /// use siphon_wire::types::Epoch;
    /// let mut map = OsdMap::default();
    /// let mut inc = Incremental { epoch: Epoch(1), new_max_osd: 3, ..Incremental::default() };
    /// inc.new_flags = Some(MapFlags::NOOUT);
    /// map.apply(&inc)?;
    /// assert_eq!((map.epoch, map.max_osd), (Epoch(1), 3));
    /// assert!(matches!(map.apply(&inc), Err(ApplyError::Epoch { .. })));
    /// # Ok::<(), ApplyError>(())
    /// ```
    ///
    /// # Errors
    /// If the increment is of another cluster or epoch, or contradicts itself or the map; then the map is
    /// as it was.
    pub fn apply(&mut self, inc: &Incremental) -> Result<(), ApplyError> {
        if inc.epoch.0.checked_sub(1) != Some(self.epoch.0) {
            return Err(ApplyError::Epoch { map: self.epoch, incremental: inc.epoch });
        }
        if inc.epoch.0 != 1 && inc.fsid != self.fsid {
            return Err(ApplyError::Fsid { map: self.fsid, incremental: inc.fsid });
        }
        if !inc.fullmap.is_empty() {
            let map = Self::decode(&mut Decoder::new(&inc.fullmap))?;
            if map.epoch != inc.epoch {
                return Err(ApplyError::Epoch { map: map.epoch, incremental: inc.epoch });
            }
            if map.fsid != inc.fsid {
                return Err(ApplyError::Fsid { map: map.fsid, incremental: inc.fsid });
            }
            *self = map;
            return Ok(());
        }
        self.check_osds(inc)?;
        let crush = match &inc.crush {
            crush if crush.is_empty() => None,
            crush => Some(CrushMap::decode(&mut Decoder::new(crush))?),
        };
        // From here on nothing fails.
        self.fsid = inc.fsid;
        self.epoch = inc.epoch;
        self.modified = inc.modified;
        // What was known of the encoded map is not so of this one.
        self.crc = (inc.full_crc != 0).then_some(inc.full_crc);
        self.apply_flags(inc);
        if inc.new_max_osd >= 0 {
            self.set_max_osd(inc.new_max_osd);
        }
        self.apply_pools(inc);
        self.apply_snaps(inc);
        self.apply_weights(inc);
        self.apply_states(inc);
        self.apply_addrs(inc);
        self.apply_osd_details(inc);
        self.apply_mappings(inc);
        self.apply_blocklists(inc);
        self.apply_cluster(inc);
        if let Some(crush) = crush {
            self.replace_crush(crush);
        }
        Ok(())
    }

    /// Whether all OSDs that the increment speaks of have a place.
    fn check_osds(&self, inc: &Incremental) -> Result<(), ApplyError> {
        if inc.new_max_osd > MAX_OSDS {
            return Err(ApplyError::TooManyOsds { count: inc.new_max_osd, limit: MAX_OSDS });
        }
        let max_osd = if inc.new_max_osd >= 0 { inc.new_max_osd } else { self.max_osd };
        fn ends<T>(map: &BTreeMap<i32, T>) -> [Option<i32>; 2] {
            [map.keys().next().copied(), map.keys().next_back().copied()]
        }
        let spoken_of = [
            ends(&inc.new_weight),
            ends(&inc.new_primary_affinity),
            ends(&inc.new_state),
            ends(&inc.new_up_client),
            ends(&inc.new_up_cluster),
            ends(&inc.new_up_thru),
            ends(&inc.new_last_clean_interval),
            ends(&inc.new_lost),
            ends(&inc.new_xinfo),
            ends(&inc.new_uuid),
        ];
        let known = |osd: &i32| (0..max_osd).contains(osd);
        match spoken_of.into_iter().flatten().flatten().find(|osd| !known(osd)) {
            Some(osd) => Err(ApplyError::NoSuchOsd { osd, max_osd }),
            None => Ok(()),
        }
    }

    fn apply_flags(&mut self, inc: &Incremental) {
        let Some(flags) = inc.new_flags else { return };
        self.flags = flags;
        let release = if flags.contains(MapFlags::REQUIRE_KRAKEN) {
            Release::KRAKEN
        } else if flags.contains(MapFlags::REQUIRE_JEWEL) {
            Release::JEWEL
        } else {
            return;
        };
        self.require_osd_release = self.require_osd_release.max(release);
    }

    fn apply_pools(&mut self, inc: &Incremental) {
        if inc.new_pool_max != -1 {
            // It is an i32 in full maps, and so it is in Ceph.
            self.pool_max = inc.new_pool_max as i32;
        }
        for (id, pool) in &inc.new_pools {
            let mut pool = pool.clone();
            pool.last_change = self.epoch;
            self.pools.insert(*id, pool);
        }
        for (id, name) in &inc.new_pool_names {
            self.pool_names.insert(*id, name.clone());
        }
        for id in &inc.old_pools {
            self.pools.remove(id);
            self.pool_names.remove(id);
        }
        for name in &inc.old_erasure_code_profiles {
            self.erasure_code_profiles.remove(name);
        }
        for (name, profile) in &inc.new_erasure_code_profiles {
            self.erasure_code_profiles.insert(name.clone(), profile.clone());
        }
    }

    fn apply_snaps(&mut self, inc: &Incremental) {
        self.new_removed_snaps.clone_from(&inc.new_removed_snaps);
        self.new_purged_snaps.clone_from(&inc.new_purged_snaps);
        for (pool, snaps) in &inc.new_removed_snaps {
            self.removed_snaps_queue.entry(*pool).or_default().union(snaps);
        }
        for (pool, snaps) in &inc.new_purged_snaps {
            if let Some(queue) = self.removed_snaps_queue.get_mut(pool) {
                queue.subtract(snaps);
                if queue.is_empty() {
                    self.removed_snaps_queue.remove(pool);
                }
            }
        }
    }

    fn apply_weights(&mut self, inc: &Incremental) {
        let never = Utime::default();
        if inc.new_last_up_change != never {
            self.last_up_change = inc.new_last_up_change;
        }
        if inc.new_last_in_change != never {
            self.last_in_change = inc.new_last_in_change;
        }
        for (osd, weight) in &inc.new_weight {
            set(&mut self.osd_weight, *osd, *weight);
            if *weight > 0 {
                // `set_weight` says that it exists, too.
                change(&mut self.osd_state, *osd, |state| {
                    *state = (*state | OsdState::EXISTS) & !(OsdState::AUTOOUT | OsdState::NEW);
                });
                change(&mut self.osd_xinfo, *osd, |xinfo| xinfo.old_weight = 0);
            }
        }
        for (osd, affinity) in &inc.new_primary_affinity {
            self.set_primary_affinity(*osd, *affinity);
        }
    }

    fn apply_states(&mut self, inc: &Incremental) {
        for (osd, bits) in &inc.new_state {
            let bits = if *bits == OsdState::NONE { OsdState::UP } else { *bits };
            let before = self.osd_state.get(*osd as usize).copied().unwrap_or_default();
            let both = before & bits;
            if both.contains(OsdState::UP) {
                let (epoch, modified) = (self.epoch, self.modified);
                change(&mut self.osd_info, *osd, |info| info.down_at = epoch);
                change(&mut self.osd_xinfo, *osd, |xinfo| xinfo.down_stamp = modified);
            }
            if both.contains(OsdState::EXISTS) {
                self.forget_osd(*osd);
            } else {
                set(&mut self.osd_state, *osd, OsdState(before.0 ^ bits.0));
            }
        }
    }

    /// Takes back all that is known of an OSD that does not exist any more.
    fn forget_osd(&mut self, osd: i32) {
        set(&mut self.osd_uuid, osd, CephFsid::default());
        set(&mut self.osd_info, osd, OsdInfo::default());
        set(&mut self.osd_xinfo, osd, OsdXinfo::default());
        self.set_primary_affinity(osd, DEFAULT_PRIMARY_AFFINITY);
        let addrs = Arc::make_mut(&mut self.osd_addrs);
        set(&mut addrs.client, osd, EntityAddrVec::new());
        set(&mut addrs.cluster, osd, EntityAddrVec::new());
        set(&mut addrs.heartbeat_front, osd, EntityAddrVec::new());
        set(&mut addrs.heartbeat_back, osd, EntityAddrVec::new());
        set(&mut self.osd_state, osd, OsdState::NONE);
    }

    fn apply_addrs(&mut self, inc: &Incremental) {
        if inc.new_up_client.is_empty() && inc.new_up_cluster.is_empty() {
            return;
        }
        let addrs = Arc::make_mut(&mut self.osd_addrs);
        let of =
            |map: &BTreeMap<i32, EntityAddrVec>, osd| map.get(osd).cloned().unwrap_or_default();
        for (osd, client) in &inc.new_up_client {
            change(&mut self.osd_state, *osd, |state| {
                *state = (*state | OsdState::EXISTS | OsdState::UP) & !OsdState::STOP;
            });
            set(&mut addrs.client, *osd, client.clone());
            set(&mut addrs.heartbeat_back, *osd, of(&inc.new_hb_back_up, osd));
            set(&mut addrs.heartbeat_front, *osd, of(&inc.new_hb_front_up, osd));
            let epoch = self.epoch;
            change(&mut self.osd_info, *osd, |info| info.up_from = epoch);
        }
        for (osd, cluster) in &inc.new_up_cluster {
            set(&mut addrs.cluster, *osd, cluster.clone());
        }
    }

    fn apply_osd_details(&mut self, inc: &Incremental) {
        for (osd, epoch) in &inc.new_up_thru {
            change(&mut self.osd_info, *osd, |info| info.up_thru = *epoch);
        }
        for (osd, (begin, end)) in &inc.new_last_clean_interval {
            change(&mut self.osd_info, *osd, |info| {
                info.last_clean_begin = *begin;
                info.last_clean_end = *end;
            });
        }
        for (osd, epoch) in &inc.new_lost {
            change(&mut self.osd_info, *osd, |info| info.lost_at = *epoch);
        }
        for (osd, xinfo) in &inc.new_xinfo {
            set(&mut self.osd_xinfo, *osd, *xinfo);
        }
        for (osd, uuid) in &inc.new_uuid {
            set(&mut self.osd_uuid, *osd, *uuid);
        }
    }

    fn apply_mappings(&mut self, inc: &Incremental) {
        for (pg, osds) in &inc.new_pg_temp {
            if osds.is_empty() {
                self.pg_temp.remove(pg);
            } else {
                self.pg_temp.insert(*pg, osds.clone());
            }
        }
        for (pg, osd) in &inc.new_primary_temp {
            if *osd == -1 {
                self.primary_temp.remove(pg);
            } else {
                self.primary_temp.insert(*pg, *osd);
            }
        }
        replace(&mut self.pg_upmap, &inc.new_pg_upmap, &inc.old_pg_upmap);
        replace(&mut self.pg_upmap_items, &inc.new_pg_upmap_items, &inc.old_pg_upmap_items);
        replace(&mut self.pg_upmap_primaries, &inc.new_pg_upmap_primary, &inc.old_pg_upmap_primary);
    }

    fn apply_blocklists(&mut self, inc: &Incremental) {
        for (list, new, old) in [
            (&mut self.blocklist, &inc.new_blocklist, &inc.old_blocklist),
            (&mut self.range_blocklist, &inc.new_range_blocklist, &inc.old_range_blocklist),
        ] {
            for (addr, until) in new {
                // As in Ceph, one that is there already keeps its time.
                list.entry(*addr).or_insert(*until);
            }
            for addr in old {
                list.remove(addr);
            }
        }
    }

    fn apply_cluster(&mut self, inc: &Incremental) {
        for (flags, new) in [
            (&mut self.crush_node_flags, &inc.new_crush_node_flags),
            (&mut self.device_class_flags, &inc.new_device_class_flags),
        ] {
            for (key, bits) in new {
                if *bits == OsdState::NONE {
                    flags.remove(key);
                } else {
                    flags.insert(*key, *bits);
                }
            }
        }
        self.cluster_snapshot = inc.cluster_snapshot.clone();
        let marked = !inc.cluster_snapshot.is_empty();
        self.cluster_snapshot_epoch = if marked { inc.epoch } else { Epoch::default() };
        for (ratio, new) in [
            (&mut self.nearfull_ratio, inc.new_nearfull_ratio),
            (&mut self.backfillfull_ratio, inc.new_backfillfull_ratio),
            (&mut self.full_ratio, inc.new_full_ratio),
        ] {
            if new >= 0.0 {
                *ratio = new;
            }
        }
        // Numbers from 128 on are none, in Ceph below 0.
        let stays = |release: Release| release.0 > i8::MAX as u8;
        let client = inc.new_require_min_compat_client;
        if client > Release::UNKNOWN && !stays(client) {
            self.require_min_compat_client = client;
        }
        if !stays(inc.new_require_osd_release) {
            self.require_osd_release = inc.new_require_osd_release;
            if self.require_osd_release >= Release::LUMINOUS {
                self.flags = self.flags & !MapFlags::LEGACY_REQUIRE | MapFlags::RECOVERY_DELETES;
            }
            if self.require_osd_release >= Release::NAUTILUS {
                self.flags |= MapFlags::PGLOG_HARDLIMIT;
            }
        }
        if let Some(mode) = inc.new_stretch_mode {
            self.stretch_mode = mode;
        }
        match inc.mutate_allow_crimson {
            1 => self.allow_crimson = true,
            2 => self.allow_crimson = false,
            _ => {}
        }
    }

    fn replace_crush(&mut self, crush: CrushMap) {
        if self.require_osd_release >= Release::LUMINOUS {
            self.crush_version = self.crush_version.wrapping_add(1);
        }
        self.device_class_flags.retain(|class, _| crush.class_names.contains_key(class));
        self.crush = Arc::new(crush);
    }
}

fn replace<K: Ord + Copy, V: Clone>(
    map: &mut BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    old: &std::collections::BTreeSet<K>,
) {
    map.extend(new.iter().map(|(key, value)| (*key, value.clone())));
    for key in old {
        map.remove(key);
    }
}

/// Sets the entry of an OSD; a map's vectors may be shorter than it says.
fn set<T>(entries: &mut [T], osd: i32, value: T) {
    change(entries, osd, |entry| *entry = value);
}

fn change<T>(entries: &mut [T], osd: i32, body: impl FnOnce(&mut T)) {
    if let Some(entry) = usize::try_from(osd).ok().and_then(|osd| entries.get_mut(osd)) {
        body(entry);
    }
}
