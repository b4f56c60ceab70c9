//! Maps that are cut short, changed at random, or made to hurt: they are refused or mapped, and nothing
//! else.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use siphon_crush::{
    Bucket, ChooseArg, ChooseArgs, CrushMap, Rule, RuleKind, Step, StepOp, Weights, Workspace,
};
use siphon_osdmap::{
    ApplyError, Incremental, MapFlags, OsdMap, OsdState, PgPool, PgWorkspace, PoolType, SnapSet,
    WEIGHT_IN,
};
use siphon_wire::types::{Epoch, Features, PgId, Release, SnapId};
use siphon_wire::{Decode, Encode};

const NEWEST: Features =
    Features(Features::ALL.0 | Features::CRUSH_MSR.0 | Features::SERVER_TENTACLE.0);

/// Racks, hosts and devices, with buckets of every algorithm and rules of every kind.
fn crush() -> CrushMap {
    let mut map = CrushMap::new();
    map.max_devices = 12;
    let one = 0x1_0000;
    let weights = [
        Weights::Uniform(one),
        Weights::List { items: vec![one; 3], sums: vec![one, 2 * one, 3 * one] },
        Weights::Tree(vec![0, one, 2 * one, one, 3 * one, one, one, 0]),
        Weights::Straw { items: vec![one; 3], straws: vec![one; 3] },
    ];
    for (host, weights) in weights.into_iter().enumerate() {
        let devices = (0..3).map(|device| host as i32 * 3 + device).collect();
        map.set_bucket(Bucket::new(-2 - host as i32, 1, devices, weights));
    }
    map.set_bucket(Bucket::new(-1, 11, vec![-2, -3, -4, -5], Weights::Straw2(vec![3 * one; 4])));
    let rules = [
        (RuleKind::REPLICATED, StepOp::CHOOSELEAF_FIRSTN),
        (RuleKind::ERASURE, StepOp::CHOOSELEAF_INDEP),
        (RuleKind::MSR_INDEP, StepOp::CHOOSE_MSR),
    ];
    for (id, (kind, op)) in rules.into_iter().enumerate() {
        let mut steps = vec![(StepOp::TAKE, -1, 0), (op, 0, 1)];
        if kind.is_msr() {
            steps.push((op, 1, 0));
        }
        steps.push((StepOp::EMIT, 0, 0));
        map.set_rule(id as u32, Rule::new(kind, steps.into_iter().map(Step::from).collect()));
    }
    map.type_names = [(0, "osd".into()), (1, "host".into()), (11, "root".into())].into();
    map.item_names = [(-1, "default".into()), (0, "osd.0".into())].into();
    map.class_names.insert(0, "ssd".into());
    map.device_classes.insert(0, 0);
    map.class_buckets.insert(-1, [(0, -2)].into());
    let arg = ChooseArg { weight_set: vec![vec![one; 4]; 2], ids: vec![7, 8, 9, 10] };
    map.choose_args.insert(-1, ChooseArgs { buckets: [(0, arg)].into() });
    map
}

fn map() -> OsdMap {
    let mut map = OsdMap { crush: Arc::new(crush()), epoch: Epoch(7), ..OsdMap::default() };
    map.set_max_osd(12);
    map.osd_state.fill(OsdState::EXISTS | OsdState::UP);
    map.osd_weight.fill(WEIGHT_IN);
    map.set_primary_affinity(3, 0x8000);
    map.require_osd_release = Release::TENTACLE;
    map.flags = MapFlags::RECOVERY_DELETES | MapFlags::PGLOG_HARDLIMIT;
    for (id, kind) in
        [PoolType::REPLICATED, PoolType::ERASURE, PoolType::ERASURE].iter().enumerate()
    {
        let mut pool = PgPool::new(*kind, 3, id as u8, 16);
        pool.nonprimary_shards = 0b10;
        map.pools.insert(id as i64, pool);
        map.pool_names.insert(id as i64, "pool".into());
    }
    let pg = PgId { pool: 0, seed: 3 };
    map.pg_temp.insert(pg, vec![1, 2, 3]);
    map.primary_temp.insert(pg, 2);
    map.pg_upmap.insert(PgId { pool: 1, seed: 1 }, vec![4, 5, 6]);
    map.pg_upmap_items.insert(PgId { pool: 1, seed: 2 }, vec![(1, 2)]);
    map.pg_upmap_primaries.insert(pg, 1);
    map.blocklist.insert("v1:10.0.0.1:0/7".parse().unwrap(), Default::default());
    map.range_blocklist.insert("v1:10.0.0.0:0/24".parse().unwrap(), Default::default());
    map
}

fn incremental() -> Incremental {
    let mut inc = Incremental { epoch: Epoch(8), ..Incremental::default() };
    inc.crush = crush().to_bytes(NEWEST);
    inc.new_state.insert(2, OsdState::UP);
    inc.new_weight.insert(3, 0);
    inc.new_pools.insert(5, PgPool::new(PoolType::REPLICATED, 3, 0, 16));
    inc.new_up_client.insert(1, "v1:10.0.0.1:6800/7".parse().unwrap());
    let snaps: SnapSet = [(SnapId(1), 2)].into_iter().collect();
    inc.new_removed_snaps.insert(0, snaps.clone());
    inc.new_purged_snaps.insert(0, snaps);
    inc.new_stretch_mode = Some(Default::default());
    inc.encode_features = NEWEST;
    inc
}

/// Maps some placement groups of every pool.
fn map_some(map: &OsdMap) {
    let mut work = PgWorkspace::with_max_draws(1 << 12);
    for (id, pool) in &map.pools {
        for seed in [0, 1, 2, 3, u32::MAX, pool.pg_num] {
            let pg = PgId { pool: id.cast_unsigned(), seed };
            map.map_pg(pg, &mut work);
            map.primary_shard(pg, &mut work);
            pool.pg_num_divisor(pg);
        }
    }
}

#[test]
fn every_truncation_is_an_error() {
    let whole = map().to_bytes(NEWEST);
    assert_eq!(OsdMap::from_bytes(&whole).unwrap().to_bytes(NEWEST), whole);
    for cut in 0..whole.len() {
        let error = OsdMap::from_bytes(&whole.slice(..cut)).unwrap_err();
        assert!(error.offset <= cut, "{error}");
    }
    let whole = incremental().to_bytes(NEWEST);
    assert_eq!(Incremental::from_bytes(&whole).unwrap().to_bytes(NEWEST), whole);
    for cut in 0..whole.len() {
        Incremental::from_bytes(&whole.slice(..cut)).unwrap_err();
    }
}

#[test]
fn truncations_of_crush_maps_are_errors_or_older_maps() {
    let whole = crush().to_bytes(NEWEST);
    assert_eq!(CrushMap::from_bytes(&whole).unwrap(), crush());
    let older = (0..whole.len()).filter(|cut| CrushMap::from_bytes(&whole.slice(..*cut)).is_ok());
    // Without tunables of MSR rules, weight sets, classes, and each of the tunables before.
    assert_eq!(older.count(), 9);
}

#[test]
fn a_changed_byte_does_not_pass_the_checksum() {
    let whole = map().to_bytes(NEWEST);
    for at in 6..whole.len() {
        let mut changed = whole.to_vec();
        changed[at] ^= 0x10;
        OsdMap::from_bytes(&changed.into()).unwrap_err();
    }
}

/// The fuzzer's: a name without a length was written as what tells that the number has 64 bits, and what
/// followed was taken for its length.
#[test]
fn empty_names_are_no_names() {
    let mut map = crush();
    let named = map.clone();
    map.item_names.insert(-9, Default::default());
    assert_eq!(CrushMap::from_bytes(&map.to_bytes(NEWEST)).unwrap(), named);
    // Numbers of 64 bits, as a release of old wrote them.
    let mut bytes = Vec::new();
    for number in [0x1_0000_u32, 0, 0, 0, 1, 7, 0, 3] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(*b"osd\0\0\0\0\0\0\0\0");
    let map = CrushMap::from_bytes(&bytes.into()).unwrap();
    assert_eq!(map.type_names, [(7, "osd".into())].into());
}

#[test]
fn cycles_and_tries_without_end_come_to_one() {
    let mut map = crush();
    map.set_bucket(Bucket::new(-2, 1, vec![-3], Weights::Straw2(vec![1])));
    map.set_bucket(Bucket::new(-3, 2, vec![-2], Weights::Straw2(vec![1])));
    map.set_bucket(Bucket::new(-1, 2, vec![-3], Weights::Straw2(vec![1])));
    map.tunables.choose_total_tries = u32::MAX - 1;
    map.tunables.msr_descents = u32::MAX;
    map.tunables.msr_collision_tries = u32::MAX;
    let mut work = Workspace::with_max_draws(10_000);
    for rule in 0..3 {
        for count in [0, 1, i32::MAX, i32::MIN, -1] {
            for kind in [0, 1, 2, 9] {
                let mut changed = map.clone();
                let mut steps = map.rule(rule).unwrap().clone();
                for step in steps.steps.iter_mut().skip(1) {
                    (step.arg1, step.arg2) = (count, kind);
                }
                changed.set_rule(rule, steps);
                let found = changed.do_rule(rule, 5, 4, &[WEIGHT_IN; 12], None, &mut work);
                assert!(found.len() <= 4);
            }
        }
    }
}

#[test]
fn rules_of_many_steps_do_not_exhaust_the_stack() {
    let mut map = crush();
    let mut steps = vec![Step::from((StepOp::TAKE, -1, 0))];
    steps.extend(vec![Step::from((StepOp::CHOOSE_MSR, 1, 1)); 100_000]);
    steps.push((StepOp::EMIT, 0, 0).into());
    map.set_rule(0, Rule::new(RuleKind::MSR_INDEP, steps));
    let mut work = Workspace::new();
    let found = map.do_rule(0, 5, 3, &[WEIGHT_IN; 12], None, &mut work);
    assert!(found.iter().all(|device| *device == siphon_crush::ITEM_NONE));
}

#[test]
fn increments_that_do_not_fit_leave_the_map_as_it_was() {
    let before = map();
    let of = |change: &dyn Fn(&mut Incremental)| {
        let mut inc = incremental();
        change(&mut inc);
        let mut map = before.clone();
        let error = map.apply(&inc).unwrap_err();
        assert_eq!(map, before);
        error
    };
    let error = of(&|inc| inc.epoch = Epoch(9));
    assert_eq!(error, ApplyError::Epoch { map: Epoch(7), incremental: Epoch(9) });
    assert!(matches!(of(&|inc| inc.fsid.0[0] = 1), ApplyError::Fsid { .. }));
    let error = of(&|inc| inc.new_state = [(12, OsdState::UP)].into());
    assert_eq!(error, ApplyError::NoSuchOsd { osd: 12, max_osd: 12 });
    let error = of(&|inc| inc.new_weight = [(-1, 0)].into());
    assert_eq!(error, ApplyError::NoSuchOsd { osd: -1, max_osd: 12 });
    assert!(matches!(of(&|inc| inc.new_max_osd = i32::MAX), ApplyError::TooManyOsds { .. }));
    assert!(matches!(of(&|inc| inc.crush = Bytes::from_static(b"x")), ApplyError::Decode(_)));
    assert!(matches!(of(&|inc| inc.fullmap = Bytes::from_static(b"x")), ApplyError::Decode(_)));
    // A whole map in its place has to be the next one: whoever applies goes on until it is.
    let error = of(&|inc| inc.fullmap = before.to_bytes(Features::ALL));
    assert_eq!(error, ApplyError::Epoch { map: Epoch(7), incremental: Epoch(8) });
    let mut map = before.clone();
    map.apply(&incremental()).unwrap();
    assert_eq!((map.epoch, map.is_up(2), map.is_in(3)), (Epoch(8), false, false));
    assert!(map.removed_snaps_queue.is_empty());
}

/// Changes to the bytes of a map, of which one tells where, and one what.
fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6)
        .prop_map(|changes| changes.into_iter().map(|(at, to)| (at.index(1 << 16), to)).collect())
}

/// The bytes with changes, and as version 7, which has no checksum.
fn changed(whole: &[u8], changes: &[(usize, u8)]) -> Bytes {
    let mut bytes = whole.to_vec();
    for (at, to) in changes {
        let at = at % bytes.len();
        bytes[at] = *to;
    }
    bytes[0] = 7;
    bytes.into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn changed_maps_are_refused_or_mapped(changes in changes()) {
        if let Ok(map) = OsdMap::from_bytes(&changed(&map().to_bytes(NEWEST), &changes)) {
            map_some(&map);
            let written = map.to_bytes(NEWEST);
            let again = OsdMap::from_bytes(&written).unwrap();
            prop_assert_eq!(again.to_bytes(NEWEST), written);
        }
    }

    #[test]
    fn changed_increments_are_refused_or_applied(changes in changes()) {
        let bytes = changed(&incremental().to_bytes(NEWEST), &changes);
        if let Ok(inc) = Incremental::from_bytes(&bytes) {
            let mut map = map();
            if map.apply(&inc).is_ok() {
                map_some(&map);
            }
        }
    }

    #[test]
    fn changed_crush_maps_are_refused_or_mapped(changes in changes(), x in any::<u32>()) {
        let mut bytes = crush().to_bytes(NEWEST).to_vec();
        for (at, to) in &changes {
            let at = at % bytes.len();
            bytes[at] = *to;
        }
        if let Ok(map) = CrushMap::from_bytes(&bytes.into()) {
            let mut work = Workspace::with_max_draws(1 << 12);
            for rule in 0..3 {
                let args = map.choose_args_of(0);
                map.do_rule(rule, x, 4, &[WEIGHT_IN; 12], args, &mut work);
            }
            map.roots();
            map.location(0);
            map.devices_below(-1);
        }
    }
}
