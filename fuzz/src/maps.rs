//! Small maps with something of everything.

use std::sync::Arc;

use siphon_crush::{
    Bucket, ChooseArg, ChooseArgs, CrushMap, Rule, RuleKind, Step, StepOp, Weights,
};
use siphon_osdmap::{Incremental, OsdMap, OsdState, PgPool, PoolFlags, PoolType, WEIGHT_IN};
use siphon_wire::types::{Epoch, Features, PgId, Release};

/// What makes every field be written.
pub const NEWEST: Features =
    Features(Features::ALL.0 | Features::CRUSH_MSR.0 | Features::SERVER_TENTACLE.0);

const ONE: u32 = siphon_crush::WEIGHT_ONE;

/// Buckets of every algorithm, and rules of every kind.
pub fn crush() -> CrushMap {
    let mut map = CrushMap::new();
    map.max_devices = 8;
    let hosts = [
        Weights::Uniform(ONE),
        Weights::List { items: vec![ONE; 2], sums: vec![ONE, 2 * ONE] },
        Weights::Tree(vec![0, ONE, 2 * ONE, ONE]),
        Weights::Straw { items: vec![ONE; 2], straws: vec![ONE; 2] },
    ];
    for (host, weights) in (0..).zip(hosts) {
        map.set_bucket(Bucket::new(-2 - host, 1, vec![2 * host, 2 * host + 1], weights));
    }
    map.set_bucket(Bucket::new(-1, 11, vec![-2, -3, -4, -5], Weights::Straw2(vec![2 * ONE; 4])));
    let mut rule = |id, kind, steps: &[(StepOp, i32, i32)]| {
        map.set_rule(id, Rule::new(kind, steps.iter().copied().map(Step::from).collect()));
    };
    let (take, emit) = ((StepOp::TAKE, -1, 0), (StepOp::EMIT, 0, 0));
    rule(0, RuleKind::REPLICATED, &[take, (StepOp::CHOOSELEAF_FIRSTN, 0, 1), emit]);
    let tries = (StepOp::SET_CHOOSE_TRIES, 9, 0);
    rule(1, RuleKind::ERASURE, &[tries, take, (StepOp::CHOOSELEAF_INDEP, 0, 1), emit]);
    let hosts = (StepOp::CHOOSE_MSR, 2, 1);
    rule(2, RuleKind::MSR_INDEP, &[take, hosts, (StepOp::CHOOSE_MSR, 2, 0), emit]);
    map.type_names = [(0, "osd".into()), (1, "host".into()), (11, "root".into())].into();
    map.item_names = [(-1, "default".into()), (0, "osd.0".into())].into();
    map.class_names.insert(0, "ssd".into());
    map.device_classes.insert(0, 0);
    map.class_buckets.insert(-1, [(0, -2)].into());
    let arg = ChooseArg { weight_set: vec![vec![ONE; 4]; 2], ids: vec![7, 8, 9, 10] };
    map.choose_args.insert(-1, ChooseArgs { buckets: [(0, arg)].into() });
    map
}

/// Three pools, and placement groups that are set by hand.
pub fn osdmap() -> OsdMap {
    let mut map = OsdMap { crush: Arc::new(crush()), epoch: Epoch(7), ..OsdMap::default() };
    map.set_max_osd(8);
    map.osd_state.fill(OsdState::EXISTS | OsdState::UP);
    map.osd_weight.fill(WEIGHT_IN);
    map.set_primary_affinity(3, 0x8000);
    map.require_osd_release = Release::TENTACLE;
    let kinds = [PoolType::REPLICATED, PoolType::ERASURE, PoolType::ERASURE];
    for (id, kind) in (0..).zip(kinds) {
        let mut pool = PgPool::new(kind, 3, id, 12);
        if id == 2 {
            pool.flags |= PoolFlags::EC_OPTIMIZATIONS;
            pool.nonprimary_shards = 0b10;
        }
        map.pools.insert(id.into(), pool);
    }
    let pg = |pool, seed| PgId { pool, seed };
    map.pg_temp.insert(pg(2, 3), vec![1, 2, 3]);
    map.primary_temp.insert(pg(0, 3), 2);
    map.pg_upmap.insert(pg(1, 1), vec![4, 5, 6]);
    map.pg_upmap_items.insert(pg(1, 2), vec![(1, 2)]);
    map.pg_upmap_primaries.insert(pg(0, 3), 1);
    map
}

/// What [`osdmap`] can become.
pub fn incremental() -> Incremental {
    let mut inc = Incremental { epoch: Epoch(8), ..Incremental::default() };
    inc.new_state.insert(2, OsdState::UP);
    inc.new_weight.insert(3, 0);
    inc.new_pools.insert(5, PgPool::new(PoolType::REPLICATED, 3, 0, 16));
    inc.new_pg_temp.insert(PgId { pool: 2, seed: 3 }, Vec::new());
    inc
}
