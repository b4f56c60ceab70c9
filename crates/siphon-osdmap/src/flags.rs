use crate::osd::bits;
use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

use siphon_wire::{Decode, Encode};

bits! {
    /// What is set for a whole cluster (`CEPH_OSDMAP_*`, `include/rados.h`).
    ///
    /// ```
    /// use siphon_osdmap::MapFlags;
    /// let flags = MapFlags::NOOUT | MapFlags::PAUSERD;
    /// assert_eq!(flags.names().collect::<Vec<_>>(), ["pauserd", "noout"]);
    /// ```
    MapFlags(u32) {
        /// Some OSD is nearly full; not used since Mimic.
        0 NEARFULL "nearfull";
        /// Clients may not write; not used since Mimic, where pools are full.
        1 FULL "full";
        /// Clients may not read.
        2 PAUSERD "pauserd";
        /// Clients may not write.
        3 PAUSEWR "pausewr";
        /// Nothing is recovered.
        4 PAUSEREC "pauserec";
        /// OSDs may not come up.
        5 NOUP "noup";
        /// OSDs are not marked down.
        6 NODOWN "nodown";
        /// OSDs are not taken out by themselves.
        7 NOOUT "noout";
        /// OSDs are not taken in by themselves.
        8 NOIN "noin";
        /// Nothing is backfilled.
        9 NOBACKFILL "nobackfill";
        /// Nothing is recovered or backfilled.
        10 NORECOVER "norecover";
        /// Nothing is scrubbed.
        11 NOSCRUB "noscrub";
        /// Nothing is scrubbed deeply.
        12 NODEEP_SCRUB "nodeep-scrub";
        /// Cache tiers are left alone.
        13 NOTIERAGENT "notieragent";
        /// Only what is degraded is backfilled.
        14 NOREBALANCE "norebalance";
        /// Objects are sorted by the bits of their hashes, reversed: always, since Jewel.
        15 SORTBITWISE "sortbitwise";
        /// OSDs must be Jewel or newer.
        16 REQUIRE_JEWEL "require_jewel_osds";
        /// OSDs must be Kraken or newer.
        17 REQUIRE_KRAKEN "require_kraken_osds";
        /// OSDs must be Luminous or newer.
        18 REQUIRE_LUMINOUS "require_luminous_osds";
        /// Deletions are recovered, too.
        19 RECOVERY_DELETES "recovery_deletes";
        /// Snapshots have no directories of their own any more.
        20 PURGED_SNAPDIRS "purged_snapdirs";
        /// Snapshots are not trimmed.
        21 NOSNAPTRIM "nosnaptrim";
        /// Logs of placement groups have a maximum.
        22 PGLOG_HARDLIMIT "pglog_hardlimit";
        /// Numbers of placement groups are left alone.
        23 NOAUTOSCALE "noautoscale";
    }
}

impl MapFlags {
    /// What said which release OSDs must have, before there was a number for it.
    pub(crate) const LEGACY_REQUIRE: Self =
        Self(Self::REQUIRE_JEWEL.0 | Self::REQUIRE_KRAKEN.0 | Self::REQUIRE_LUMINOUS.0);
}

bits! {
    /// What is set for a pool (`pg_pool_t::FLAG_*`, `osd/osd_types.h`).
    ///
    /// ```
    /// use siphon_osdmap::{PgPool, PoolFlags};
    /// let mut pool = PgPool::default();
    /// pool.flags |= PoolFlags::FULL;
    /// assert_eq!(pool.flags.to_string(), "hashpspool,full");
    /// ```
    PoolFlags(u64) {
        /// Seeds of placement groups are hashed with the pool's id, so that pools don't overlap.
        0 HASHPSPOOL "hashpspool";
        /// Clients may not write.
        1 FULL "full";
        /// Objects of this erasure-coded pool can be overwritten.
        2 EC_OVERWRITES "ec_overwrites";
        /// Clones of objects may be missing, as the pool is or was a cache tier.
        3 INCOMPLETE_CLONES "incomplete_clones";
        /// The pool may not be deleted.
        4 NODELETE "nodelete";
        /// The numbers of placement groups may not change.
        5 NOPGCHANGE "nopgchange";
        /// The number of copies may not change.
        6 NOSIZECHANGE "nosizechange";
        /// What is written will not be needed soon.
        7 WRITE_FADVISE_DONTNEED "write_fadvise_dontneed";
        /// The pool is not scrubbed.
        8 NOSCRUB "noscrub";
        /// The pool is not scrubbed deeply.
        9 NODEEP_SCRUB "nodeep-scrub";
        /// The pool is full because its quota is used up.
        10 FULL_QUOTA "full_quota";
        /// The pool is nearly full.
        11 NEARFULL "nearfull";
        /// Nothing is moved to the pool.
        12 BACKFILLFULL "backfillfull";
        /// Clients manage snapshots.
        13 SELFMANAGED_SNAPS "selfmanaged_snaps";
        /// The pool has snapshots of its own.
        14 POOL_SNAPS "pool_snaps";
        /// First placement groups are being created.
        15 CREATING "creating";
        /// Every operation of clients fails with EIO.
        16 EIO "eio";
        /// The pool will be large.
        17 BULK "bulk";
        /// The pool is for Crimson.
        18 CRIMSON "crimson";
        /// The pool's erasure code is the faster one of Tentacle.
        19 EC_OPTIMIZATIONS "ec_optimizations";
        /// Clients may read from all shards.
        20 CLIENT_SPLIT_READS "split_reads";
        /// Objects of this erasure-coded pool can have an omap.
        21 OMAP "supports_omap";
    }
}
