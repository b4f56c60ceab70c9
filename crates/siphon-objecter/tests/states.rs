//! What a cluster may be like: full, paused, without a pool, set against us.

mod common;

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{
    cluster, config, do_op, make_pool, objecter, objecter_with, rados, read, wait_until, write_full,
};
use siphon_messages::osd::{OsdFlags, OsdOp};
use siphon_objecter::{Objecter, Op, OpError, OpFuture, OpReply, Target};
use siphon_osdmap::{MapFlags, PoolFlags};
use siphon_peers::{Cluster, Release};
use siphon_wire::types::Errno;

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

fn full(cluster: &Cluster, objecter: &Objecter, pool: i64) {
    do_op(objecter, write_full(pool, "full", b"before")).unwrap();
    cluster.ceph(&["osd", "pool", "set-quota", "states", "max_objects", "1"]).unwrap();
    let is_full = |objecter: &Objecter| {
        let map = pollster::block_on(objecter.wait_for_latest_map(None)).unwrap();
        map.pool(pool).unwrap().flags.contains(PoolFlags::FULL)
    };
    wait_until("the pool is full", || is_full(objecter));
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
}

fn reads_of_copies(cluster: &Cluster, objecter: &Objecter, pool: i64) {
    cluster.ceph(&["osd", "pool", "set", "states", "size", "3"]).unwrap();
    wait_until("all copies are there", || {
        cluster.ceph(&["pg", "stat"]).unwrap().contains("active+clean;")
    });
    for flag in [OsdFlags::BALANCE_READS, OsdFlags::LOCALIZE_READS] {
        for n in 0..40 {
            let name = format!("copy{n}");
            do_op(objecter, write_full(pool, &name, name.as_bytes())).unwrap();
            let mut op = Op::read(Target::object(pool, name.as_str()), vec![OsdOp::read(0, 0)]);
            op.flags |= flag;
            assert_eq!(do_op(objecter, op).unwrap().ops[0].data, *name.as_bytes());
        }
    }
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
    reads_of_copies(&cluster, &objecter, pool);
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
