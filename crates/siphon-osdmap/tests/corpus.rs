//! Our maps against the encodings of Ceph's own daemons: see `corpus_walk`.

#[path = "../../siphon-wire/tests/corpus_walk/mod.rs"]
mod corpus_walk;

use std::collections::BTreeMap;

use corpus_walk::{Exact, check, row, row_by};
use siphon_crush::CrushMap;
use siphon_osdmap::{
    HitSetParams, Incremental, OsdInfo, OsdMap, OsdXinfo, PgMergeMeta, PgPool, PoolOptions,
    PoolSnap,
};
use siphon_wire::types::PgId;
use siphon_wire::{Decode, Encode};

#[test]
fn maps_are_as_ceph_encodes_them() {
    check(&[
        row::<OsdMap>("OSDMap", Exact::Since(18, 0)),
        // It says what it was encoded for.
        row_by("OSDMap::Incremental", Exact::Since(18, 0), |bytes, _| {
            let inc = Incremental::from_bytes(bytes)?;
            Ok(inc.to_bytes(inc.encode_features))
        }),
        row::<CrushMap>("CrushWrapper", Exact::Always),
        row::<PgPool>("pg_pool_t", Exact::Always),
        row::<PoolOptions>("pool_opts_t", Exact::Always),
        row::<PoolSnap>("pool_snap_info_t", Exact::Always),
        row::<HitSetParams>("HitSet::Params", Exact::Always),
        row::<PgMergeMeta>("pg_merge_meta_t", Exact::Always),
        row::<OsdInfo>("osd_info_t", Exact::Always),
        row::<OsdXinfo>("osd_xinfo_t", Exact::Always),
        row::<BTreeMap<PgId, Vec<i32>>>("PGTempMap", Exact::Always),
    ]);
}
