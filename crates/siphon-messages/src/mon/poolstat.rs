use std::collections::BTreeMap;

use siphon_wire::types::ByteString;
use siphon_wire::{Decode, Encode};

/// What a pool holds, and what was done to it (`pool_stat_t`).
///
/// ```
/// use siphon_messages::mon::PoolStat;
/// use siphon_wire::{Decode, Encode, types::Features};
/// let mut stat = PoolStat::default();
/// stat.stats.sum.num_objects = 3;
/// assert_eq!(PoolStat::from_bytes(&stat.to_bytes(Features::ALL))?, stat);
/// # Ok::<(), siphon_wire::DecodeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 7, compat = 5, name = "pool_stat_t")]
pub struct PoolStat {
    /// Its objects.
    pub stats: ObjectStatCollection,
    /// Entries of its placement groups' logs.
    pub log_size: i64,
    /// The same, as far as they are on disk.
    pub ondisk_log_size: i64,
    /// Copies, or shards, that its placement groups should have now.
    #[denc(since = 6)]
    pub up: i32,
    /// Copies, or shards, that serve its placement groups.
    #[denc(since = 6)]
    pub acting: i32,
    /// What it takes of the OSDs' stores.
    #[denc(since = 7)]
    pub store_stats: StoreStatfs,
    /// Of how many OSDs that is the sum.
    #[denc(since = 7)]
    pub num_store_stats: i32,
}

/// Objects, by category (`object_stat_collection_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 2, compat = 2, name = "object_stat_collection_t")]
pub struct ObjectStatCollection {
    /// All of them.
    pub sum: ObjectStatSum,
    /// By category: there are none any more.
    pub cat_sum: BTreeMap<ByteString, ObjectStatSum>,
}

/// What a store has, and how it is used, in bytes (`store_statfs_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "store_statfs_t")]
pub struct StoreStatfs {
    /// All there is.
    pub total: u64,
    /// What is free.
    pub available: u64,
    /// What the store keeps for itself.
    pub internally_reserved: u64,
    /// What is taken.
    pub allocated: i64,
    /// What users stored.
    pub data_stored: i64,
    /// What was compressed, as it is stored.
    pub data_compressed: i64,
    /// What is taken by what was compressed.
    pub data_compressed_allocated: i64,
    /// What was compressed, as it was before.
    pub data_compressed_original: i64,
    /// What omaps take, about.
    pub omap_allocated: i64,
    /// What the store's own data take, about.
    pub internal_metadata: i64,
}

/// Counts of objects, and of what was done to them (`object_stat_sum_t`); versions 15 to 20 are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 20, compat = 14, name = "object_stat_sum_t")]
pub struct ObjectStatSum {
    /// Bytes of their data.
    pub num_bytes: i64,
    /// How many there are.
    pub num_objects: i64,
    /// Of those, clones for snapshots.
    pub num_object_clones: i64,
    /// Copies, or shards, that there should be.
    pub num_object_copies: i64,
    /// Objects that their primary OSD does not have.
    pub num_objects_missing_on_primary: i64,
    /// Copies that are missing.
    pub num_objects_degraded: i64,
    /// Objects of which no OSD that is up has the newest version.
    pub num_objects_unfound: i64,
    /// Reads.
    pub num_rd: i64,
    /// What was read, in KiB.
    pub num_rd_kb: i64,
    /// Writes.
    pub num_wr: i64,
    /// What was written, in KiB.
    pub num_wr_kb: i64,
    /// Errors that scrubs found.
    pub num_scrub_errors: i64,
    /// Objects that were recovered.
    pub num_objects_recovered: i64,
    /// Bytes that were recovered.
    pub num_bytes_recovered: i64,
    /// Keys of omaps that were recovered.
    pub num_keys_recovered: i64,
    /// Errors that shallow scrubs found.
    pub num_shallow_scrub_errors: i64,
    /// Errors that deep scrubs found.
    pub num_deep_scrub_errors: i64,
    /// In a cache tier: objects that were not flushed.
    pub num_objects_dirty: i64,
    /// In a cache tier: objects that are known not to exist.
    pub num_whiteouts: i64,
    /// Objects with an omap.
    pub num_objects_omap: i64,
    /// Objects that keep hit sets.
    pub num_objects_hit_set_archive: i64,
    /// Copies that are on other OSDs than they should be.
    pub num_objects_misplaced: i64,
    /// Bytes that keep hit sets.
    pub num_bytes_hit_set_archive: i64,
    /// In a cache tier: flushes.
    pub num_flush: i64,
    /// In a cache tier: what was flushed, in KiB.
    pub num_flush_kb: i64,
    /// In a cache tier: evictions.
    pub num_evict: i64,
    /// In a cache tier: what was evicted, in KiB.
    pub num_evict_kb: i64,
    /// In a cache tier: promotions.
    pub num_promote: i64,
    /// In a cache tier: placement groups that flush quickly.
    pub num_flush_mode_high: i32,
    /// In a cache tier: placement groups that flush slowly.
    pub num_flush_mode_low: i32,
    /// In a cache tier: placement groups that evict some.
    pub num_evict_mode_some: i32,
    /// In a cache tier: placement groups that evict all they can.
    pub num_evict_mode_full: i32,
    /// In a cache tier: objects that are pinned.
    pub num_objects_pinned: i64,
    /// Copies that an OSD does not have.
    pub num_objects_missing: i64,
    /// Objects with snapshots as they were before Luminous, at most.
    #[denc(since = 16)]
    pub num_legacy_snapsets: i64,
    /// Objects whose omap is too large.
    #[denc(since = 17)]
    pub num_large_omap_objects: i64,
    /// Objects that refer to others.
    #[denc(since = 18)]
    pub num_objects_manifest: i64,
    /// Bytes of omaps, as the last deep scrubs found.
    #[denc(since = 19)]
    pub num_omap_bytes: i64,
    /// Keys of omaps, as the last deep scrubs found.
    #[denc(since = 19)]
    pub num_omap_keys: i64,
    /// Copies that were repaired.
    #[denc(since = 20)]
    pub num_objects_repaired: i64,
}
