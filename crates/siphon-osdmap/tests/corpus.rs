//! Our maps against the encodings of Ceph's own daemons: see `corpus_walk`.

#[path = "../../siphon-wire/tests/corpus_walk/mod.rs"]
mod corpus_walk;

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use bytes::Bytes;

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

/// All objects of a type in a release.
fn objects<T: Decode>(release: &Path, name: &str) -> Vec<T> {
    let files = fs::read_dir(release.join(name)).into_iter().flatten().flatten();
    let decode = |bytes: Vec<u8>| T::from_bytes(&Bytes::from(bytes)).unwrap();
    files.map(|file| decode(fs::read(file.path()).unwrap())).collect()
}

#[test]
fn increments_lead_to_the_full_maps_of_their_epochs() {
    let Some(folder) = env::var_os("SIPHON_CORPUS") else {
        println!("SIPHON_CORPUS is not set: Ceph's own encodings were not checked");
        return;
    };
    let mut count = 0;
    for release in fs::read_dir(folder).unwrap() {
        let release = release.unwrap().path();
        let maps: Vec<OsdMap> = objects(&release, "OSDMap");
        for inc in objects::<Incremental>(&release, "OSDMap::Incremental") {
            for before in &maps {
                let mut map = before.clone();
                if map.apply(&inc).is_err() {
                    continue;
                }
                let same = |later: &&OsdMap| {
                    (later.fsid, later.epoch, later.modified) == (map.fsid, map.epoch, map.modified)
                };
                let Some(later) = maps.iter().find(same) else { continue };
                assert_eq!(OsdMap { crc: later.crc, ..map }, *later);
                count += 1;
            }
        }
    }
    println!("{count} increments lead to the full maps of their epochs");
    assert!(count >= 3);
}
