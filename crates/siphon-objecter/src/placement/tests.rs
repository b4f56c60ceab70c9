use std::collections::BTreeSet;
use std::sync::Arc;

use siphon_crush::{Bucket, CrushMap, Rule, RuleKind, Step, StepOp, Weights};
use siphon_osdmap::{OsdState, PoolType, WEIGHT_IN};

use super::*;

/// Three hosts with an OSD each, and a pool with a copy on each.
fn map() -> OsdMap {
    let mut crush = CrushMap::new();
    crush.max_devices = 3;
    crush.type_names = [(0, "osd".into()), (1, "host".into()), (11, "root".into())].into();
    crush.item_names = [(-1, "default".into())].into();
    for osd in 0..3 {
        let id = -2 - osd;
        crush.item_names.insert(id, format!("host{osd}").into());
        crush.set_bucket(Bucket::new(id, 1, vec![osd], Weights::Straw2(vec![0x10000])));
    }
    let weights = Weights::Straw2(vec![0x10000; 3]);
    crush.set_bucket(Bucket::new(-1, 11, vec![-2, -3, -4], weights));
    let steps = [(StepOp::TAKE, -1, 0), (StepOp::CHOOSELEAF_FIRSTN, 0, 1), (StepOp::EMIT, 0, 0)];
    crush.set_rule(0, Rule::new(RuleKind::REPLICATED, steps.map(Step::from).to_vec()));
    let mut map = OsdMap { epoch: Epoch(1), crush: Arc::new(crush), ..OsdMap::default() };
    map.set_max_osd(3);
    map.osd_state.fill(OsdState::EXISTS | OsdState::UP);
    map.osd_weight.fill(WEIGHT_IN);
    map.pools.insert(1, PgPool::new(PoolType::REPLICATED, 3, 0, 32));
    map
}

/// Where reads of the pool's groups go: how many to the primary, and all.
fn reads(map: &OsdMap, flags: OsdFlags, here: &str, salt: u32) -> (usize, Vec<i32>) {
    let location = [("host".into(), here.into())];
    let mut cache = PgCache::default();
    let mut view = View { map, cache: &mut cache, location: &location, salt };
    let mut primaries = 0;
    let osds = (0..32_i64).map(|hash| {
        let locator = ObjectLocator { hash, ..ObjectLocator::new(1) };
        let aim = Aim { pool: 1, oid: b"", locator: &locator, flags, lasting: false };
        let mut place = Placement::default();
        assert_eq!(place.recalc(aim, &mut view), Recalc::Resend);
        assert_eq!(place.recalc(aim, &mut view), Recalc::Same);
        primaries += usize::from(place.osd == place.interval.unwrap().acting_primary);
        place.osd.unwrap()
    });
    let osds = osds.collect();
    (primaries, osds)
}

#[test]
fn reads_may_go_to_copies_and_nothing_else_may() {
    let map = map();
    let read = OsdFlags::READ;
    assert_eq!(reads(&map, read, "host1", 1).0, 32);
    for replicas in [OsdFlags::BALANCE_READS, OsdFlags::LOCALIZE_READS] {
        assert_eq!(reads(&map, OsdFlags::WRITE | replicas, "host1", 1).0, 32);
        assert_eq!(reads(&map, read | OsdFlags::WRITE | replicas, "host1", 1).0, 32);
    }
    let (_, near) = reads(&map, read | OsdFlags::LOCALIZE_READS, "host1", 1);
    assert_eq!(near, [1; 32]);
    assert_eq!(reads(&map, read | OsdFlags::LOCALIZE_READS, "elsewhere", 1).0, 32);
    let (primaries, balanced) = reads(&map, read | OsdFlags::BALANCE_READS, "host1", 1);
    assert!((3..30).contains(&primaries), "{primaries}");
    assert_eq!(balanced.iter().collect::<BTreeSet<_>>().len(), 3);
    assert_ne!(balanced, reads(&map, read | OsdFlags::BALANCE_READS, "host1", 2).1);
}

#[test]
fn a_copy_that_was_asked_is_asked_again_when_any_of_them_changes() {
    let mut map = map();
    let locator = ObjectLocator { hash: 3, ..ObjectLocator::new(1) };
    let mut cache = PgCache::default();
    let here = [("host".into(), "host1".into())];
    for (flags, again) in [
        (OsdFlags::READ | OsdFlags::LOCALIZE_READS, Recalc::Resend),
        (OsdFlags::READ, Recalc::Same),
    ] {
        let pg = PgId { pool: 1, seed: 3 };
        map.pg_temp.insert(pg, vec![0, 1, 2]);
        map.epoch.0 += 1;
        let aim = Aim { pool: 1, oid: b"", locator: &locator, flags, lasting: false };
        let mut place = Placement::default();
        let mut view = View { map: &map, cache: &mut cache, location: &here, salt: 1 };
        place.recalc(aim, &mut view);
        // The primary stays.
        map.pg_temp.insert(pg, vec![0, 1]);
        map.epoch.0 += 1;
        let mut view = View { map: &map, cache: &mut cache, location: &here, salt: 1 };
        assert_eq!(place.recalc(aim, &mut view), again, "{flags}");
    }
}
