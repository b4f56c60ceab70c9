//! What a cluster may be like: full, paused, without a pool, set against us.

mod common;

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use common::{
    HUNG, cluster, config, do_op, make_pool, objecter, objecter_with, rados, read, wait_until,
    write_full,
};
use serde_json::Value;
use siphon_messages::osd::{OsdFlags, OsdOp};
use siphon_monclient::Command;
use siphon_objecter::{Objecter, Op, OpError, OpFuture, OpReply, Target};
use siphon_osdmap::{MapFlags, PgWorkspace, PoolFlags};
use siphon_peers::{Cluster, Release};
use siphon_wire::types::{EntityType, Errno, ObjectLocator, PgId};

/// The result, if it is there.
fn now(future: &mut OpFuture) -> Option<Result<OpReply, OpError>> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// Has the cluster do something, and waits until our map is as new.
fn ceph(cluster: &Cluster, objecter: &Objecter, args: &[&str]) {
    cluster.ceph(args).unwrap();
    pollster::block_on(objecter.wait_for_latest_map(None)).unwrap();
}

fn paused(cluster: &Cluster, objecter: &Objecter, pool: i64) {
    do_op(objecter, write_full(pool, "paused", b"before")).unwrap();
    ceph(cluster, objecter, &["osd", "pause"]);
    assert!(objecter.map().flags.contains(MapFlags::PAUSEWR));
    let mut write = objecter.submit(write_full(pool, "paused", b"after"));
    let mut read_op = Op::read(Target::object(pool, "paused"), vec![OsdOp::read(0, 0)]);
    read_op.timeout = Some(Duration::from_millis(200));
    let error = do_op(objecter, read_op).unwrap_err();
    assert_eq!(error, OpError::TimedOut { after: Duration::from_millis(200) });
    assert_eq!(now(&mut write), None);
    // Nobody tells us but the monitors.
    cluster.ceph(&["osd", "unpause"]).unwrap();
    pollster::block_on(write).unwrap();
    assert_eq!(read(objecter, pool, "paused").unwrap(), "after");
}

#[expect(clippy::disallowed_methods, reason = "a watch is confirmed after a time")]
fn full(cluster: &Cluster, objecter: &Objecter, pool: i64) {
    do_op(objecter, write_full(pool, "full", b"before")).unwrap();
    cluster.ceph(&["osd", "pool", "set-quota", "states", "max_objects", "1"]).unwrap();
    let is_full = |objecter: &Objecter| {
        let map = pollster::block_on(objecter.wait_for_latest_map(None)).unwrap();
        map.pool(pool).unwrap().flags.contains(PoolFlags::FULL)
    };
    let op = Op::write(Target::object(pool, "full"), vec![]);
    let watch = pollster::block_on(objecter.watch(op, None)).unwrap();
    wait_until("the pool is full", || is_full(objecter));
    let since = Instant::now();
    wait_until("the watch is confirmed", || watch.check().unwrap() < since.elapsed());
    drop(watch);
    let mut waits = objecter.submit(write_full(pool, "more", b"after"));
    let mut tries = write_full(pool, "still more", b"never");
    tries.flags |= OsdFlags::FULL_TRY;
    assert_eq!(do_op(objecter, tries).unwrap_err().errno(), Errno::EDQUOT);
    let mut dropped = objecter.submit(write_full(pool, "given up", b"never"));
    assert_eq!((now(&mut waits), now(&mut dropped)), (None, None));
    drop(dropped);
    assert_eq!(read(objecter, pool, "full").unwrap(), "before");
    cluster.ceph(&["osd", "pool", "set-quota", "states", "max_objects", "0"]).unwrap();
    pollster::block_on(waits).unwrap();
    assert_eq!(rados(cluster, &["-p", "states", "get", "more", "-"], b""), b"after");
    for name in ["still more", "given up"] {
        assert_eq!(read(objecter, pool, name).unwrap_err().errno(), Errno::ENOENT);
    }
}

/// A pool that goes while something waits for it, and one that comes with a newer map.
fn pools_come_and_go(cluster: &Cluster, objecter: &Objecter) {
    let pool = make_pool(cluster, objecter, "doomed", &["4"]);
    do_op(objecter, write_full(pool, "x", b"x")).unwrap();
    ceph(cluster, objecter, &["osd", "pause"]);
    let waits = objecter.submit(write_full(pool, "x", b"y"));
    let sure = "--yes-i-really-really-mean-it";
    cluster.ceph(&["osd", "pool", "rm", "doomed", "doomed", sure]).unwrap();
    assert_eq!(pollster::block_on(waits), Err(OpError::NoSuchPool { pool }));
    ceph(cluster, objecter, &["osd", "unpause"]);
    // Our map has neither of these: which does not exist is found out.
    let epoch = objecter.map().epoch;
    cluster.ceph(&["osd", "pool", "create", "young", "4"]).unwrap();
    let dump = cluster.json(&["osd", "pool", "ls", "detail"]).unwrap();
    let pools = dump.as_array().unwrap();
    let young = pools.iter().find(|pool| pool["pool_name"] == "young").unwrap();
    let id = young["pool_id"].as_i64().or(young["pool"].as_i64()).unwrap();
    do_op(objecter, write_full(id, "x", b"x")).unwrap();
    assert!(objecter.map().epoch > epoch);
    let error = do_op(objecter, write_full(id + 1, "x", b"x")).unwrap_err();
    assert_eq!(error, OpError::NoSuchPool { pool: id + 1 });
}

fn blocklisted(cluster: &Cluster, pool: i64) {
    let ours = objecter(cluster);
    do_op(&ours, write_full(pool, "listed", b"before")).unwrap();
    let addr = ours.mon().messenger().addrs().front();
    let addr = format!("{}/{}", addr.socket_addr().unwrap(), addr.nonce());
    let listed = cluster.ceph(&["osd", "blocklist", "add", &addr]);
    listed.or_else(|_| cluster.ceph(&["osd", "blacklist", "add", &addr])).unwrap();
    // An OSD acts on it once it has the map.
    wait_until("the client is shut out", || {
        do_op(&ours, write_full(pool, "listed", b"after")) == Err(OpError::Blocklisted)
    });
    assert_eq!(OpError::Blocklisted.errno(), Errno::ESHUTDOWN);
}

fn limits(cluster: &Cluster, pool: i64) {
    let mut config = config(cluster);
    (config.objecter_inflight_ops, config.objecter_inflight_op_bytes) = (4, 64 << 10);
    let objecter = objecter_with(config);
    // Reads of an object count with what they may bring.
    let data = vec![7; 48 << 10];
    let ops: Vec<OpFuture> = (0..200)
        .map(|n| match n % 2 {
            0 => objecter.submit(write_full(pool, "limits", &data)),
            _ => {
                let read = OsdOp::read(0, data.len() as u64);
                objecter.submit(Op::read(Target::object(pool, "limits"), vec![read]))
            }
        })
        .collect();
    for op in ops {
        pollster::block_on(op).unwrap();
    }
    // Room of another client is none here, and goes back there.
    let other = common::objecter(cluster);
    let budget = pollster::block_on(objecter.reserve(64 << 10)).unwrap();
    pollster::block_on(other.submit_within(budget, write_full(pool, "limits", b"x"))).unwrap();
    drop(pollster::block_on(objecter.reserve(64 << 10)).unwrap());
}

/// The messenger is at hand for everybody, and what others do with their connections is theirs.
fn connections_of_others(objecter: &Objecter, pool: i64) {
    let map = objecter.map();
    for osd in 0..3 {
        let addrs = map.client_addrs(osd).unwrap().clone();
        objecter.mon().messenger().connect_to(EntityType::OSD, addrs).mark_down();
    }
    for n in 0..20 {
        let mut op = write_full(pool, &format!("apart{n}"), b"x");
        op.timeout = Some(HUNG);
        do_op(objecter, op).unwrap();
    }
}

/// How many reads an OSD has done of all that clients asked it.
fn reads_done(objecter: &Objecter, osd: i32) -> u64 {
    let dump = Command::new("perf dump");
    let dump = pollster::block_on(objecter.osd_command(osd, &dump, None)).unwrap();
    let dump: Value = serde_json::from_str(&dump.text()).unwrap();
    dump["osd"]["op_r"].as_u64().unwrap()
}

/// Objects of a pool with all its copies, read where `flag` allows another than the primary; by how many
/// reads each OSD answered.
fn read_by(objecter: &Objecter, pool: i64, flag: OsdFlags, objects: u64) -> [u64; 3] {
    let done = || [0, 1, 2].map(|osd| reads_done(objecter, osd));
    let before = done();
    for n in 0..objects {
        let name = format!("copy{n}");
        let mut op = Op::read(Target::object(pool, name.as_str()), vec![OsdOp::read(0, 0)]);
        op.flags |= flag;
        assert_eq!(do_op(objecter, op).unwrap().ops[0].data, *name.as_bytes());
    }
    let after = done();
    [0, 1, 2].map(|osd| after[osd] - before[osd])
}

fn reads_of_copies(cluster: &Cluster, objecter: &Objecter, pool: i64, release: Release) {
    const OBJECTS: u64 = 40;
    cluster.ceph(&["osd", "pool", "set", "states", "size", "3"]).unwrap();
    // By a host of its own, osd.1 is the nearest copy to who is there.
    cluster.ceph(&["osd", "crush", "set", "osd.1", "1.0", "root=default", "host=near"]).unwrap();
    let all_copies = |objecter: &Objecter| {
        let map = pollster::block_on(objecter.wait_for_latest_map(None)).unwrap();
        let (pg_num, mut work) = (map.pool(pool).unwrap().pg_num, PgWorkspace::new());
        (0..pg_num).all(|seed| {
            let pg = PgId { pool: pool.cast_unsigned(), seed };
            let osds = map.map_pg(pg, &mut work);
            osds.acting.len() == 3 && osds.acting == osds.up
        })
    };
    wait_until("all copies are there", || all_copies(objecter));
    wait_until("they are clean", || {
        cluster.ceph(&["pg", "stat"]).unwrap().contains("active+clean;")
    });
    let mut config = config(cluster);
    config.crush_location = "root=default host=near".to_owned();
    let near = objecter_with(config);
    assert!(all_copies(&near));
    let (mut primaries, mut work) = ([0; 3], PgWorkspace::new());
    for n in 0..OBJECTS {
        let name = format!("copy{n}");
        do_op(objecter, write_full(pool, &name, name.as_bytes())).unwrap();
        let map = objecter.map();
        let locator = ObjectLocator::new(pool);
        let pg =
            map.map_object(name.as_bytes(), &locator).and_then(|raw| map.actual_pg(raw)).unwrap();
        let osds = map.map_pg(pg, &mut work);
        assert_eq!(osds.acting.len(), 3, "{osds:?}");
        primaries[osds.acting_primary.unwrap() as usize] += 1;
    }
    if release == Release::Nautilus {
        // It tells no counters to whom is not on its host.
        for flag in [OsdFlags::BALANCE_READS, OsdFlags::LOCALIZE_READS] {
            let name = "copy0";
            let mut op = Op::read(Target::object(pool, name), vec![OsdOp::read(0, 0)]);
            op.flags |= flag;
            assert_eq!(do_op(&near, op).unwrap().ops[0].data, *name.as_bytes());
        }
        return;
    }
    assert_eq!(read_by(&near, pool, OsdFlags::NONE, OBJECTS), primaries);
    // A copy is read unless its object was the last to be written in its placement group: of that the OSD
    // is not sure, and has the primary asked.
    wait_until("the nearest copy is read, whichever is the primary's", || {
        let by = read_by(&near, pool, OsdFlags::LOCALIZE_READS, OBJECTS);
        by[1] > primaries[1] && by[0] <= primaries[0] && by[2] <= primaries[2]
    });
    wait_until("others than the primaries are read", || {
        let by = read_by(&near, pool, OsdFlags::BALANCE_READS, OBJECTS);
        (0..3).any(|osd| by[osd] > primaries[osd])
    });
}

/// What a pool before another one takes for it: first in the cache, then in the pool itself.
fn cache_tier(cluster: &Cluster, objecter: &Objecter) {
    let base = make_pool(cluster, objecter, "base", &["4"]);
    make_pool(cluster, objecter, "cache", &["4"]);
    let sure = "--yes-i-really-mean-it";
    cluster.ceph(&["osd", "tier", "add", "base", "cache"]).unwrap();
    for (name, value) in
        [("hit_set_type", "bloom"), ("hit_set_count", "1"), ("hit_set_period", "600")]
    {
        cluster.ceph(&["osd", "pool", "set", "cache", name, value]).unwrap();
    }
    do_op(objecter, write_full(base, "early", b"in the pool")).unwrap();
    cluster.ceph(&["osd", "tier", "cache-mode", "cache", "writeback"]).unwrap();
    // Our map is older than the overlay: the base pool's OSD tells us that, or does it for the cache.
    cluster.ceph(&["osd", "tier", "set-overlay", "base", "cache"]).unwrap();
    pollster::block_on(objecter.wait_for_latest_map(None)).unwrap();
    do_op(objecter, write_full(base, "late", b"in the cache")).unwrap();
    let list = |pool| {
        let listed = rados(cluster, &["-p", pool, "ls"], b"");
        let mut names: Vec<_> =
            String::from_utf8(listed).unwrap().lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    let (cached, below) = (list("cache"), list("base"));
    assert!(cached.contains(&"late".to_owned()), "{cached:?}, {below:?}");
    assert_eq!(read(objecter, base, "early").unwrap(), "in the pool");
    assert_eq!(read(objecter, base, "late").unwrap(), "in the cache");
    // While something is under way, the cache goes.
    cluster.ceph(&["osd", "tier", "cache-mode", "cache", "proxy", sure]).unwrap();
    rados(cluster, &["-p", "cache", "cache-flush-evict-all"], b"");
    ceph(cluster, objecter, &["osd", "pause"]);
    let waits = objecter.submit(write_full(base, "last", b"after the cache"));
    cluster.ceph(&["osd", "tier", "remove-overlay", "base"]).unwrap();
    cluster.ceph(&["osd", "unpause"]).unwrap();
    pollster::block_on(waits).unwrap();
    assert_eq!(list("base"), ["early", "last", "late"]);
    assert_eq!(read(objecter, base, "late").unwrap(), "in the cache");
}

fn shut_down(cluster: &Cluster, pool: i64) {
    let objecter = objecter(cluster);
    ceph(cluster, &objecter, &["osd", "pause"]);
    let waits = objecter.submit(write_full(pool, "never", b"x"));
    drop(objecter);
    assert_eq!(pollster::block_on(waits), Err(OpError::Shutdown));
    cluster.ceph(&["osd", "unpause"]).unwrap();
}

fn all(release: Release) {
    let config = ["mon_allow_pool_delete = true"];
    let Some(cluster) = cluster(release, 3, &config) else { return };
    let objecter = objecter(&cluster);
    let pool = make_pool(&cluster, &objecter, "states", &["8"]);
    full(&cluster, &objecter, pool);
    paused(&cluster, &objecter, pool);
    pools_come_and_go(&cluster, &objecter);
    limits(&cluster, pool);
    connections_of_others(&objecter, pool);
    reads_of_copies(&cluster, &objecter, pool, release);
    cache_tier(&cluster, &objecter);
    shut_down(&cluster, pool);
    blocklisted(&cluster, pool);
}

#[test]
fn nautilus() {
    all(Release::Nautilus);
}

#[test]
fn pacific() {
    all(Release::Pacific);
}

#[test]
fn reef() {
    all(Release::Reef);
}

#[test]
fn tentacle() {
    all(Release::Tentacle);
}
