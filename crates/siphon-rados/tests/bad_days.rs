//! What an application sees when a pool is full, when OSDs are gone, and when nobody lets it in: an error
//! that says what is wrong, and no wait without end.

mod common;

use bytes::Bytes;
use common::{OSDS, RELEASES, World};
use siphon_messages::osd::OsdFlags;
use siphon_osdmap::PoolFlags;
use siphon_rados::{Cluster, ConnectError, Wait, WriteOp};
use siphon_wire::types::Errno;

/// In seconds: what waits for something that does not come waits as long.
const TIMEOUT: &str = "2";

#[test]
fn errors_say_what_is_wrong() {
    let Some(mut world) = World::start(RELEASES[1]) else { return };
    let builder = Cluster::builder().conf_file(world.peers.client_conf());
    nobody_lets_us_in(builder.clone());
    let cluster = builder.set("rados_osd_op_timeout", TIMEOUT).connect().wait().unwrap();
    a_full_pool(&world, &cluster);
    no_osds(&mut world, &cluster);
    cluster.shutdown().wait();
}

fn nobody_lets_us_in(builder: siphon_rados::ClusterBuilder) {
    let stranger = builder.clone().name("client.stranger".parse().unwrap()).connect().wait();
    let error = stranger.unwrap_err();
    assert!(matches!(error, ConnectError::Start(_)), "{error:?}");
    assert_eq!(error.to_string(), "no key for client.stranger");

    let mistyped = builder.clone().set("ms_typ", "async+posix").connect().wait().unwrap_err();
    assert!(mistyped.to_string().contains("ms_type"), "the nearest one is named: {mistyped}");

    let other = builder.set("fsid", "00000000-0000-4000-8000-000000000000").connect().wait();
    let error = other.unwrap_err().to_string();
    assert!(error.contains("correct fsid or mon_host"), "{error}");
}

fn a_full_pool(world: &World, cluster: &Cluster) {
    let pool = cluster.pool("copies").wait().unwrap();
    pool.write_full("first", Bytes::from_static(b"fits")).wait().unwrap();
    world.peers.ceph(&["osd", "pool", "set-quota", "copies", "max_objects", "1"]).unwrap();
    let is_full = || {
        let map = cluster.objecter().wait_for_latest_map(None).wait().unwrap();
        map.pool(pool.id()).unwrap().flags.contains(PoolFlags::FULL_QUOTA)
    };
    while !is_full() {}
    // Who does not say otherwise waits for room, as with librados.
    let waits = pool.write_full("second", Bytes::from_static(b"does not")).wait().unwrap_err();
    assert_eq!(waits.errno(), Errno::ETIMEDOUT);
    let mut op = WriteOp::new();
    op.write_full(Bytes::from_static(b"does not")).set_flags(OsdFlags::FULL_TRY);
    assert_eq!(pool.operate("second", op).wait().unwrap_err().errno(), Errno::EDQUOT);
    // What makes room goes, and what reads.
    let mut op = WriteOp::new();
    op.remove().set_flags(OsdFlags::FULL_TRY);
    assert_eq!(pool.read("first", 0, 0).wait().unwrap(), b"fits");
    pool.operate("first", op).wait().unwrap();
    world.peers.ceph(&["osd", "pool", "set-quota", "copies", "max_objects", "0"]).unwrap();
    while is_full() {}
    pool.write_full("second", Bytes::from_static(b"fits now")).wait().unwrap();
}

fn no_osds(world: &mut World, cluster: &Cluster) {
    let pool = cluster.pool("copies").wait().unwrap();
    for id in 0..OSDS {
        world.peers.end_osd(id, "KILL").unwrap();
    }
    let error = pool.read("second", 0, 0).wait().unwrap_err();
    assert_eq!(error.errno(), Errno::ETIMEDOUT);
    assert!(error.to_string().starts_with("no answer within 2 s"), "{error}");
    let error = pool.objects().wait_each().next().unwrap().unwrap_err();
    assert_eq!(error.errno(), Errno::ETIMEDOUT);
    // The monitors still answer.
    assert!(cluster.stat().wait().unwrap().kb > 0);
    assert_eq!(cluster.pool("none").wait().unwrap_err().errno(), Errno::ENOENT);
}
