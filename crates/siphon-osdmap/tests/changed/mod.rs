//! Changes to a map that placement depends on, by a seed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use siphon_crush::ITEM_NONE;
use siphon_osdmap::{
    MapFlags, OsdMap, OsdState, PgPool, PoolFlags, PoolOption, PoolOptionKey, PoolType, SnapSet,
    WEIGHT_IN,
};
use siphon_wire::types::{Features, PgId, Release, SnapId, Utime};
use siphon_wire::{Decode, Encode};

use crate::text_map::{Chance, Cluster};

pub(crate) fn read(path: &Path) -> OsdMap {
    OsdMap::from_bytes(&Bytes::from(fs::read(path).unwrap())).unwrap()
}

pub(crate) fn write(path: &Path, map: &OsdMap, features: Features) {
    fs::write(path, map.to_bytes(features)).unwrap();
}

/// Pools for every rule, OSDs in every state, and placement groups that are set by hand.
pub(crate) fn change(mut map: OsdMap, cluster: &Cluster) -> OsdMap {
    let mut chance = Chance(cluster.seed ^ 4);
    change_osds(&mut map, &mut chance);
    add_pools(&mut map, cluster, &mut chance);
    move_choose_args(&mut map, &mut chance);
    set_by_hand(&mut map, &mut chance);
    map.flags = MapFlags::NOOUT | MapFlags::SORTBITWISE;
    map.require_min_compat_client = Release::LUMINOUS;
    map.blocklist.insert("v1:10.0.0.1:0/7".parse().unwrap(), Utime::new(2_000_000_000, 5));
    map.erasure_code_profiles.insert("fast".into(), [("k".into(), "2".into())].into());
    let snaps: SnapSet = [(SnapId(3), 4)].into_iter().collect();
    map.removed_snaps_queue.insert(1, snaps);
    map.crush_node_flags.insert(-1, OsdState::NOOUT);
    map.full_ratio = 0.95;
    map
}

fn change_osds(map: &mut OsdMap, chance: &mut Chance) {
    let addrs = Arc::make_mut(&mut map.osd_addrs);
    for osd in 0..map.osd_state.len() {
        map.osd_state[osd] = match chance.below(16) {
            0 => OsdState::NONE,
            1 => OsdState::EXISTS,
            _ => OsdState::EXISTS | OsdState::UP,
        };
        map.osd_weight[osd] = match chance.below(12) {
            0 => 0,
            1 => chance.below(u64::from(WEIGHT_IN)) as u32,
            _ => WEIGHT_IN,
        };
        let (v2, v1) = (6800 + 2 * osd, 6801 + 2 * osd);
        let text = format!("[v2:10.0.0.2:{v2}/{osd},v1:10.0.0.2:{v1}/{osd}]");
        addrs.client[osd] = text.parse().unwrap();
        map.osd_xinfo[osd].features = Features::PACIFIC;
        map.osd_info[osd].up_from.0 = osd as u32;
    }
    if chance.below(2) == 0 {
        for osd in 0..map.max_osd {
            if chance.below(3) == 0 {
                map.set_primary_affinity(osd, chance.below(0x1_0001) as u32);
            }
        }
    }
}

fn add_pools(map: &mut OsdMap, cluster: &Cluster, chance: &mut Chance) {
    map.pools.clear();
    map.pool_names.clear();
    for (rule, (kind, _, sizes)) in cluster.rules().into_iter().enumerate() {
        for size in sizes {
            let id = map.pools.len() as i64 + 1;
            let replicated = matches!(kind, "replicated" | "msr_firstn");
            let kind = if replicated { PoolType::REPLICATED } else { PoolType::ERASURE };
            let pg_num = 1500 + chance.below(4000) as u32;
            let mut pool = PgPool::new(kind, *size as u8, rule as u8, pg_num);
            if chance.below(2) == 0 {
                pool.pgp_num = 1 + chance.below(u64::from(pg_num)) as u32;
            }
            if chance.below(3) == 0 {
                pool.flags = PoolFlags::NONE;
            }
            let mode = PoolOptionKey::from_name("compression_mode").unwrap();
            pool.options.0.insert(mode, PoolOption::Text("force".into()));
            pool.applications.insert("rbd".into(), Default::default());
            map.pools.insert(id, pool);
            map.pool_names.insert(id, format!("pool{id}").into());
            map.pool_max = id as i32;
        }
    }
}

/// Replaced weights are for all pools, or for one.
fn move_choose_args(map: &mut OsdMap, chance: &mut Chance) {
    let crush = Arc::make_mut(&mut map.crush);
    if let Some(args) = crush.choose_args.remove(&0) {
        let pool = if chance.below(2) == 0 { -1 } else { 2 };
        crush.choose_args.insert(pool, args);
    }
}

fn set_by_hand(map: &mut OsdMap, chance: &mut Chance) {
    let osds = map.max_osd as u64;
    for (id, pool) in &map.pools {
        for seed in 0..pool.pg_num {
            let pg = PgId { pool: *id as u64, seed };
            let mut osd = || chance.below(osds) as i32;
            let some = [osd(), osd(), osd(), osd()];
            let size = usize::from(pool.size);
            // Erasure-coded groups may have gaps.
            let gap = |place: usize| !pool.is_replicated() && place == 1;
            let list = || -> Vec<i32> {
                let each =
                    |at| if gap(at) { ITEM_NONE } else { (some[0] + at as i32) % osds as i32 };
                (0..size).map(each).collect()
            };
            match chance.below(40) {
                0 => drop(map.pg_temp.insert(pg, list())),
                1 => drop(map.primary_temp.insert(pg, some[0])),
                2 => drop(map.pg_upmap.insert(pg, list())),
                3..8 => {
                    let items = vec![(some[0], some[1]), (some[2], some[3])];
                    map.pg_upmap_items.insert(pg, items);
                }
                _ => {}
            }
        }
    }
}

/// A cluster in which nothing is amiss, as the balancer wants it, with three pools.
pub(crate) fn sound(mut map: OsdMap) -> OsdMap {
    map.osd_state.fill(OsdState::EXISTS | OsdState::UP);
    map.osd_weight.fill(WEIGHT_IN);
    map.osd_primary_affinity = None;
    map.pools.retain(|id, _| [1, 2, 4].contains(id));
    map.pool_names.retain(|id, _| [1, 2, 4].contains(id));
    map.pools.values_mut().for_each(|pool| {
        (pool.pg_num, pool.pgp_num, pool.pg_num_pending) = (512, 512, 512);
    });
    map.pg_temp.clear();
    map.primary_temp.clear();
    map.pg_upmap.clear();
    map.pg_upmap_items.clear();
    Arc::make_mut(&mut map.crush).choose_args.clear();
    map
}

/// What newer releases have besides: primaries by hand, and erasure-coded pools some of whose shards may
/// not be primary.
pub(crate) fn for_tentacle(mut map: OsdMap, cluster: &Cluster) -> OsdMap {
    let mut chance = Chance(cluster.seed ^ 5);
    map.require_osd_release = Release::TENTACLE;
    map.flags |= MapFlags::RECOVERY_DELETES | MapFlags::PGLOG_HARDLIMIT;
    let osds = map.max_osd as u64;
    for (id, pool) in &mut map.pools {
        if !pool.is_replicated() {
            pool.flags |= PoolFlags::EC_OVERWRITES | PoolFlags::EC_OPTIMIZATIONS;
            pool.nonprimary_shards = 0b110;
        }
        for seed in 0..pool.pg_num {
            if chance.below(10) == 0 {
                let pg = PgId { pool: *id as u64, seed };
                map.pg_upmap_primaries.insert(pg, chance.below(osds) as i32);
            }
        }
    }
    map
}

/// Compares what a dump says of pools and OSDs.
pub(crate) fn compare_json(map: &OsdMap, json: &Value) {
    assert_eq!(json["epoch"], map.epoch.0);
    assert_eq!(json["max_osd"], map.max_osd);
    assert_eq!(json["pool_max"], map.pool_max);
    let pools = json["pools"].as_array().unwrap();
    assert_eq!(pools.len(), map.pools.len());
    for (told, (id, pool)) in pools.iter().zip(&map.pools) {
        assert_eq!(told["pool"], *id);
        assert_eq!(told["pool_name"], map.pool_names[id].to_string());
        assert_eq!(told["type"], pool.kind.0);
        assert_eq!(told["size"], pool.size);
        assert_eq!(told["pg_num"], pool.pg_num);
        assert_eq!(told["pg_placement_num"], pool.pgp_num);
        assert_eq!(told["flags"], pool.flags.0);
        assert_eq!(told["options"]["compression_mode"], "force");
    }
    let osds = json["osds"].as_array().unwrap();
    assert_eq!(osds.len(), map.osds().count());
    for (told, osd) in osds.iter().zip(map.osds()) {
        assert_eq!(told["osd"], osd);
        assert_eq!(told["up"] == 1, map.is_up(osd));
        assert_eq!(told["in"] == 1, map.is_in(osd));
        let weight = f64::from(map.weight(osd)) / f64::from(WEIGHT_IN);
        assert!((told["weight"].as_f64().unwrap() - weight).abs() < 1e-6);
        let addrs = told["public_addrs"]["addrvec"].as_array().unwrap();
        let ours = map.client_addrs(osd).unwrap();
        assert_eq!(addrs.len(), ours.len());
        let port = ours.msgr2().unwrap().port();
        assert!(addrs[0]["addr"].as_str().unwrap().ends_with(&format!(":{port}")));
    }
    assert_eq!(json["pg_temp"].as_array().unwrap().len(), map.pg_temp.len());
    assert_eq!(json["pg_upmap_items"].as_array().unwrap().len(), map.pg_upmap_items.len());
    assert_eq!(json["blocklist"].as_object().unwrap().len(), map.blocklist.len());
}
