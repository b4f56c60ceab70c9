mod hit_set;
mod options;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

pub use hit_set::HitSetParams;
pub use options::{PoolOption, PoolOptionKey, PoolOptions};
use siphon_crush::hash::hash2;
use siphon_wire::types::{
    ByteString, EVersion, Epoch, ObjectLocator, PgId, ShardId, SnapId, Utime,
};
use siphon_wire::{Decode, Encode};

use crate::hash::{StrHash, mask_of, stable_mod};
use crate::{PoolFlags, SnapSet};

/// How a pool keeps its data (`pg_pool_t::TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolType(pub u8);

impl PoolType {
    /// In several copies.
    pub const REPLICATED: Self = Self(1);
    /// In shards of an erasure code.
    pub const ERASURE: Self = Self(3);
}

/// What a cache tier does (`pg_pool_t::cache_mode_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CacheMode(pub u8);

impl CacheMode {
    /// No caching.
    pub const NONE: Self = Self(0);
    /// What is written stays in the cache, and is flushed later.
    pub const WRITEBACK: Self = Self(1);
    /// What is not in the cache is sent on.
    pub const FORWARD: Self = Self(2);
    /// Reads are served, writes sent on.
    pub const READONLY: Self = Self(3);
    /// Reads are sent on, writes stay.
    pub const READFORWARD: Self = Self(4);
    /// Reads are passed through, writes stay.
    pub const READPROXY: Self = Self(5);
    /// What is not in the cache is passed through.
    pub const PROXY: Self = Self(6);
}

/// Whether numbers of placement groups are adjusted (`pg_pool_t::pg_autoscale_mode_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PgAutoscaleMode(pub u8);

impl PgAutoscaleMode {
    /// No.
    pub const OFF: Self = Self(0);
    /// It is only said when they should be.
    pub const WARN: Self = Self(1);
    /// Yes.
    pub const ON: Self = Self(2);
    /// Not known.
    pub const UNKNOWN: Self = Self(255);
}

/// A snapshot of a pool (`pool_snap_info_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PoolSnap {
    /// Its number.
    pub id: SnapId,
    /// When it was made.
    pub stamp: Utime,
    /// Its name.
    pub name: ByteString,
}

/// The last time that a pool got a placement group fewer (`pg_merge_meta_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[denc(version = 1, name = "pg_merge_meta_t")]
pub struct PgMergeMeta {
    /// The group that went.
    pub source: PgId,
    /// When it was ready.
    pub ready_epoch: Epoch,
    /// Its last epoch that started.
    pub last_epoch_started: Epoch,
    /// Its last epoch that was clean.
    pub last_epoch_clean: Epoch,
    /// Its last change.
    pub source_version: EVersion,
    /// The last change of the group that it went into.
    pub target_version: EVersion,
}

/// What a pool of a cluster that is stretched over sites asks of its placement groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct PeeringCrush {
    /// They need OSDs in so many buckets,
    pub bucket_count: u32,
    /// and are meant for so many,
    pub bucket_target: u32,
    /// of this type,
    pub bucket_barrier: u32,
    /// of which one is this bucket; [`ITEM_NONE`](siphon_crush::ITEM_NONE) for any.
    pub mandatory_member: i32,
}

/// A pool (`pg_pool_t`).
///
/// Many fields are of use to OSDs and the manager only; they are kept so that a map comes out as it came
/// in.
#[derive(Clone, Debug, PartialEq)]
pub struct PgPool {
    /// Whether it has copies or shards.
    pub kind: PoolType,
    /// How many copies or shards: OSDs of a placement group.
    pub size: u8,
    /// With fewer of them, placement groups serve no one.
    pub min_size: u8,
    /// The rule of the CRUSH map by which it is placed.
    pub crush_rule: u8,
    /// How names of objects are hashed.
    pub object_hash: StrHash,
    /// Placement groups.
    pub pg_num: u32,
    /// Groups of them that are placed together, until they are split.
    pub pgp_num: u32,
    /// Placement groups that there will be when a merge is done.
    pub pg_num_pending: u32,
    /// Placement groups that there should be in the end.
    pub pg_num_target: u32,
    /// The same for `pgp_num`.
    pub pgp_num_target: u32,
    /// What is set.
    pub flags: PoolFlags,
    /// When it was made.
    pub create_time: Utime,
    /// When it was changed last, but for snapshots.
    pub last_change: Epoch,
    /// When clients had to send everything again last.
    pub last_force_op_resend: Epoch,
    /// The same, for clients before Nautilus.
    pub last_force_op_resend_prenautilus: Epoch,
    /// The same, for clients before Luminous.
    pub last_force_op_resend_preluminous: Epoch,
    /// The last snapshot's number, or that of the last removal.
    pub snap_seq: SnapId,
    /// When there was one last.
    pub snap_epoch: Epoch,
    /// Snapshots of the whole pool.
    pub snaps: BTreeMap<SnapId, PoolSnap>,
    /// Removed snapshots of clients, up to Mimic.
    pub removed_snaps: SnapSet,
    /// Not used.
    pub auid: u64,
    /// Bytes that may be stored; 0 for any number.
    pub quota_max_bytes: u64,
    /// Objects that may be stored; 0 for any number.
    pub quota_max_objects: u64,
    /// Pools that are cache tiers of this one.
    pub tiers: BTreeSet<u64>,
    /// The pool that this is a cache tier of; -1 for none.
    pub tier_of: i64,
    /// The pool that reads go to; -1 for this one.
    pub read_tier: i64,
    /// The pool that writes go to; -1 for this one.
    pub write_tier: i64,
    /// What it does as a cache tier.
    pub cache_mode: CacheMode,
    /// Not used.
    pub properties: BTreeMap<ByteString, ByteString>,
    /// How a cache tier remembers.
    pub hit_set_params: HitSetParams,
    /// Seconds that one hit set is for.
    pub hit_set_period: u32,
    /// Hit sets that are kept.
    pub hit_set_count: u32,
    /// Whether their names have times of Greenwich.
    pub use_gmt_hitset: bool,
    /// How much less each older hit set counts, in hundredths.
    pub hit_set_grade_decay_rate: u32,
    /// Hit sets that are looked through.
    pub hit_set_search_last_n: u32,
    /// Hit sets with an object before it is promoted on a read.
    pub min_read_recency_for_promote: u32,
    /// The same, on a write.
    pub min_write_recency_for_promote: u32,
    /// Bytes in a stripe of an erasure-coded pool: what is appended is a multiple.
    pub stripe_width: u32,
    /// Bytes that a cache tier should have at most.
    pub target_max_bytes: u64,
    /// Objects that a cache tier should have at most.
    pub target_max_objects: u64,
    /// From when on it flushes, in millionths of the target.
    pub cache_target_dirty_ratio_micro: u32,
    /// From when on it does so quickly.
    pub cache_target_dirty_high_ratio_micro: u32,
    /// From when on it evicts.
    pub cache_target_full_ratio_micro: u32,
    /// Seconds before it flushes an object.
    pub cache_min_flush_age: u32,
    /// Seconds before it evicts an object.
    pub cache_min_evict_age: u32,
    /// The name of its erasure code's profile.
    pub erasure_code_profile: ByteString,
    /// Objects that are expected; 0 if that is not known.
    pub expected_num_objects: u64,
    /// Whether reads go to all shards, and the first ones count.
    pub fast_read: bool,
    /// Options that were set.
    pub options: PoolOptions,
    /// What it is used for: `rbd`, `cephfs`, `rgw`, …, and what they noted of it.
    pub applications: BTreeMap<ByteString, BTreeMap<ByteString, ByteString>>,
    /// Whether the numbers of placement groups are adjusted.
    pub pg_autoscale_mode: PgAutoscaleMode,
    /// The last merge.
    pub last_pg_merge_meta: PgMergeMeta,
    /// What a stretched cluster asks.
    pub peering_crush: Option<PeeringCrush>,
    /// Shards that may not be primary, as a set of 128 bits: data shards but the first, of the faster
    /// erasure code of Tentacle.
    pub nonprimary_shards: u128,
}

/// A replicated pool of no placement groups.
impl Default for PgPool {
    fn default() -> Self {
        Self {
            kind: PoolType::REPLICATED,
            size: 0,
            min_size: 0,
            crush_rule: 0,
            object_hash: StrHash::RJENKINS,
            pg_num: 0,
            pgp_num: 0,
            pg_num_pending: 0,
            pg_num_target: 0,
            pgp_num_target: 0,
            flags: PoolFlags::HASHPSPOOL,
            create_time: Utime::default(),
            last_change: Epoch::default(),
            last_force_op_resend: Epoch::default(),
            last_force_op_resend_prenautilus: Epoch::default(),
            last_force_op_resend_preluminous: Epoch::default(),
            snap_seq: SnapId::default(),
            snap_epoch: Epoch::default(),
            snaps: BTreeMap::new(),
            removed_snaps: SnapSet::new(),
            auid: 0,
            quota_max_bytes: 0,
            quota_max_objects: 0,
            tiers: BTreeSet::new(),
            tier_of: -1,
            read_tier: -1,
            write_tier: -1,
            cache_mode: CacheMode::NONE,
            properties: BTreeMap::new(),
            hit_set_params: HitSetParams::None,
            hit_set_period: 0,
            hit_set_count: 0,
            use_gmt_hitset: true,
            hit_set_grade_decay_rate: 0,
            hit_set_search_last_n: 0,
            min_read_recency_for_promote: 0,
            min_write_recency_for_promote: 0,
            stripe_width: 0,
            target_max_bytes: 0,
            target_max_objects: 0,
            cache_target_dirty_ratio_micro: 0,
            cache_target_dirty_high_ratio_micro: 0,
            cache_target_full_ratio_micro: 0,
            cache_min_flush_age: 0,
            cache_min_evict_age: 0,
            erasure_code_profile: ByteString::new(),
            expected_num_objects: 0,
            fast_read: false,
            options: PoolOptions::default(),
            applications: BTreeMap::new(),
            pg_autoscale_mode: PgAutoscaleMode::UNKNOWN,
            last_pg_merge_meta: PgMergeMeta::default(),
            peering_crush: None,
            nonprimary_shards: 0,
        }
    }
}

/// What stands between a namespace and a name where both are hashed.
const NAMESPACE_END: u8 = 0o37;

impl PgPool {
    /// A pool of `pg_num` placement groups, each of `size` OSDs.
    ///
    /// ```
    /// use siphon_osdmap::{PgPool, PoolType};
    /// let pool = PgPool::new(PoolType::REPLICATED, 3, 0, 128);
    /// assert_eq!((pool.min_size, pool.pgp_num), (2, 128));
    /// ```
    pub fn new(kind: PoolType, size: u8, crush_rule: u8, pg_num: u32) -> Self {
        Self {
            kind,
            size,
            min_size: size - size / 2,
            crush_rule,
            pg_num,
            pgp_num: pg_num,
            pg_num_pending: pg_num,
            pg_num_target: pg_num,
            pgp_num_target: pg_num,
            ..Self::default()
        }
    }

    /// Whether it keeps copies.
    pub fn is_replicated(&self) -> bool {
        self.kind == PoolType::REPLICATED
    }

    /// Whether it is erasure-coded: then an OSD's place among others says which shard it has.
    pub fn is_erasure(&self) -> bool {
        self.kind == PoolType::ERASURE
    }

    /// Whether OSDs move up where one is missing, which shards can't (`can_shift_osds`).
    #[inline]
    pub(crate) fn can_shift(&self) -> bool {
        self.kind != PoolType::ERASURE
    }

    /// What an object's name hashes to, in a namespace (`pg_pool_t::hash_key`). `key` is the locator's key,
    /// or, without one, the object's name.
    ///
    /// ```
    /// use siphon_osdmap::{PgPool, PoolType};
    /// let pool = PgPool::new(PoolType::REPLICATED, 3, 0, 32);
    /// assert_ne!(pool.hash_key(b"foo", b""), pool.hash_key(b"foo", b"ns"));
    /// ```
    pub fn hash_key(&self, key: &[u8], namespace: &[u8]) -> u32 {
        if namespace.is_empty() {
            self.object_hash.hash(&[key])
        } else {
            self.object_hash.hash(&[namespace, &[NAMESPACE_END], key])
        }
    }

    /// The hash of an object by its locator: that of its key or name, or the locator's own.
    pub fn hash_object(&self, object: &[u8], locator: &ObjectLocator) -> u32 {
        match u32::try_from(locator.hash) {
            Ok(hash) => hash,
            // Ceph takes the lower half of what is no hash, too.
            Err(_) if locator.hash >= 0 => locator.hash as u32,
            Err(_) if locator.key.is_empty() => self.hash_key(object, &locator.namespace),
            Err(_) => self.hash_key(&locator.key, &locator.namespace),
        }
    }

    /// The placement group that a full hash belongs to (`pg_pool_t::raw_pg_to_pg`).
    #[inline]
    pub fn pg_of_hash(&self, raw: PgId) -> PgId {
        PgId { seed: stable_mod(raw.seed, self.pg_num, mask_of(self.pg_num)), ..raw }
    }

    /// The number that a placement group is mapped by (`pg_pool_t::raw_pg_to_pps`).
    #[inline]
    pub fn placement_seed(&self, raw: PgId) -> u32 {
        let seed = stable_mod(raw.seed, self.pgp_num, mask_of(self.pgp_num));
        // Ceph takes the lower half of the pool's id.
        let pool = raw.pool as u32;
        if self.flags.contains(PoolFlags::HASHPSPOOL) {
            hash2(seed, pool)
        } else {
            seed.wrapping_add(pool)
        }
    }

    /// A pool whose placement groups are not of one size: the share of one, as a divisor of the whole
    /// (`pg_pool_t::get_pg_num_divisor`).
    pub fn pg_num_divisor(&self, pg: PgId) -> u32 {
        let mask = mask_of(self.pg_num);
        let half = mask >> 1;
        if self.pg_num == mask.wrapping_add(1) {
            self.pg_num
        } else if pg.seed & half < self.pg_num & half {
            mask.wrapping_add(1)
        } else {
            half + 1
        }
    }

    /// Whether a placement group is about to be merged into another, or to take one up.
    pub fn is_pending_merge(&self, pg: PgId) -> bool {
        use crate::PgSplit as _;
        if self.pg_num_pending >= self.pg_num {
            return false;
        }
        let source = (self.pg_num_pending..self.pg_num).contains(&pg.seed);
        source || pg.children(self.pg_num_pending, self.pg_num).next().is_some()
    }

    /// Whether a shard may not be primary (`pg_pool_t::is_nonprimary_shard`).
    #[inline]
    pub fn is_nonprimary_shard(&self, shard: usize) -> bool {
        shard < 128 && self.nonprimary_shards >> shard & 1 == 1
    }

    /// Whether temporary OSDs of its placement groups stand in another order than their shards: those
    /// first that may be primary.
    pub(crate) fn has_primaries_first(&self) -> bool {
        self.flags.contains(PoolFlags::EC_OPTIMIZATIONS) && self.nonprimary_shards != 0
    }

    /// For each shard, where its OSD stands among those that stand in the order of
    /// [`has_primaries_first`](Self::has_primaries_first).
    pub(crate) fn places_primaries_first(&self) -> impl Iterator<Item = usize> {
        let size = usize::from(self.size);
        let nonprimary = (0..size).filter(|shard| self.is_nonprimary_shard(*shard)).count();
        let mut next = [0, size - nonprimary];
        (0..size).map(move |shard| {
            let place = &mut next[usize::from(self.is_nonprimary_shard(shard))];
            *place += 1;
            *place - 1
        })
    }

    /// The shard of an OSD's place in a placement group.
    pub fn shard(&self, place: usize) -> ShardId {
        match i8::try_from(place) {
            Ok(shard) if self.is_erasure() => ShardId(shard),
            _ => ShardId::NO_SHARD,
        }
    }

    /// The snapshots of the pool, newest first, for what is written to it (`get_snap_context`).
    ///
    /// ```
    /// use siphon_osdmap::{PgPool, PoolSnap};
    /// use siphon_wire::types::SnapId;
    /// let mut pool = PgPool { snap_seq: SnapId(3), ..PgPool::default() };
    /// for (id, name) in [(SnapId(1), "old"), (SnapId(3), "new")] {
    ///     pool.snaps.insert(id, PoolSnap { id, name: name.into(), ..PoolSnap::default() });
    /// }
    /// assert_eq!(pool.snap_context(), (SnapId(3), vec![SnapId(3), SnapId(1)]));
    /// assert_eq!(pool.snap_by_name(b"old"), Some(SnapId(1)));
    /// ```
    pub fn snap_context(&self) -> (SnapId, Vec<SnapId>) {
        (self.snap_seq, self.snaps.keys().rev().copied().collect())
    }

    /// The snapshot of a name.
    pub fn snap_by_name(&self, name: &[u8]) -> Option<SnapId> {
        self.snaps.values().find(|snap| *snap.name == *name).map(|snap| snap.id)
    }
}
