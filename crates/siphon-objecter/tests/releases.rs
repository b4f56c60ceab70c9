//! Operations in clusters of every release, seen from the other side by the release's own `rados`.

mod common;

use bytes::Bytes;
use common::{cluster, do_op, make_pool, objecter, rados, read, wait_until, write_full};
use siphon_messages::osd::{OsdOp, OsdOpCode};
use siphon_monclient::Command;
use siphon_objecter::{Objecter, Op, OpError, SnapContext, Target};
use siphon_peers::{Cluster, Release};
use siphon_wire::types::{Errno, PgId, SnapId};

fn objects(cluster: &Cluster, objecter: &Objecter, pool: i64, name: &str) {
    let version = do_op(objecter, write_full(pool, "ours", b"from us")).unwrap().version;
    assert!(version.0 > 0);
    assert_eq!(rados(cluster, &["-p", name, "get", "ours", "-"], b""), b"from us");
    rados(cluster, &["-p", name, "put", "theirs", "-"], b"from them");
    assert_eq!(read(objecter, pool, "theirs").unwrap(), "from them");
    let error = read(objecter, pool, "nobody's").unwrap_err();
    assert_eq!(error.errno(), Errno::ENOENT);
    assert_eq!(error.reply().unwrap().ops.len(), 1);

    // Elsewhere by namespace and by key.
    let mut elsewhere = write_full(pool, "ours", b"in a namespace");
    elsewhere.target = elsewhere.target.in_namespace("ns");
    do_op(objecter, elsewhere).unwrap();
    let got = rados(cluster, &["-p", name, "-N", "ns", "get", "ours", "-"], b"");
    assert_eq!(got, b"in a namespace");
    let mut keyed = write_full(pool, "keyed", b"by a key");
    keyed.target = keyed.target.with_key("the key");
    do_op(objecter, keyed).unwrap();
    let got =
        rados(cluster, &["-p", name, "--object-locator", "the key", "get", "keyed", "-"], b"");
    assert_eq!(got, b"by a key");

    // Names of any bytes, and long ones.
    let odd: Bytes = [&b"a\0b/\xff "[..], &[b'x'; 1000]].concat().into();
    let target = Target::object(pool, odd);
    let data = Bytes::from_static(b"odd");
    let write = Op::write(target.clone(), vec![OsdOp::write_full(data.clone().into())]);
    do_op(objecter, write).unwrap();
    let back = do_op(objecter, Op::read(target, vec![OsdOp::read(0, 0)])).unwrap();
    assert_eq!(back.ops[0].data, data[..]);
}

/// Several operations are done together, or none of them.
fn together(objecter: &Objecter, pool: i64) {
    let target = Target::object(pool, "together");
    let data = |text: &'static [u8]| Bytes::from_static(text).into();
    let both = vec![OsdOp::write_full(data(b"12345")), OsdOp::write(5, data(b"67"))];
    do_op(objecter, Op::write(target.clone(), both)).unwrap();
    let reads = vec![OsdOp::read(0, 3), OsdOp::new(OsdOpCode::STAT), OsdOp::read(3, 100)];
    let reply = do_op(objecter, Op::read(target.clone(), reads)).unwrap();
    assert_eq!(reply.ops[0].data, b"123"[..]);
    assert_eq!(reply.ops[1].data.to_bytes()[..8], 7_u64.to_le_bytes());
    assert_eq!(reply.ops[2].data, b"4567"[..]);

    let mut assert = OsdOp::new(OsdOpCode::ASSERT_VER);
    assert.args[8..16].copy_from_slice(&1_000_000_u64.to_le_bytes());
    let neither = vec![assert, OsdOp::write_full(data(b"never"))];
    let error = do_op(objecter, Op::write(target, neither)).unwrap_err();
    assert_eq!(error.errno(), Errno::EOVERFLOW); // the version is below the one asserted
    assert_eq!(read(objecter, pool, "together").unwrap(), "1234567");
}

/// What is under way is told as Ceph's objecter tells it.
fn counted(objecter: &Objecter, pool: i64) {
    let dump = || objecter.mon().context().perf().dump(None, None);
    let before = dump();
    let target = Target::object(pool, "counted");
    let write = vec![OsdOp::write_full(Bytes::from(vec![7; 1000]).into())];
    do_op(objecter, Op::write(target.clone(), write)).unwrap();
    do_op(objecter, Op::read(target, vec![OsdOp::read(0, 500)])).unwrap();
    let after = dump();
    let grown = |throttle: &str, counter: &str| {
        let of = |dump: &serde_json::Value| dump[throttle][counter].as_u64().unwrap();
        of(&after) - of(&before)
    };
    let ops = "throttle-objecter_ops";
    assert_eq!(
        (grown(ops, "get"), grown(ops, "put"), grown(ops, "get_or_fail_success")),
        (2, 2, 2)
    );
    assert_eq!((&after[ops]["val"], &after[ops]["max"]), (&0.into(), &1024.into()), "{after:#}");
    let bytes = "throttle-objecter_bytes";
    assert_eq!((grown(bytes, "get_sum"), grown(bytes, "put_sum")), (1500, 1500), "{after:#}");
}

fn snapshots(cluster: &Cluster, objecter: &Objecter, pool: i64, name: &str) {
    pollster::block_on(async {
        let taken = objecter.create_pool_snap(pool, "first").await;
        taken.unwrap();
        let error = objecter.create_pool_snap(999, "first").await.unwrap_err();
        assert_eq!(error.errno(), Errno::ENOENT);
    });
    let map = objecter.map();
    let (seq, snaps) = map.pool(pool).unwrap().snap_context();
    let snap = map.pool(pool).unwrap().snap_by_name(b"first").unwrap();
    assert_eq!((seq, &snaps[..]), (snap, &[snap][..]));
    let mut write = write_full(pool, "ours", b"after the snapshot");
    write.snapc = SnapContext { seq, snaps };
    do_op(objecter, write).unwrap();
    let mut old = Op::read(Target::object(pool, "ours"), vec![OsdOp::read(0, 0)]);
    old.snapid = snap;
    assert_eq!(do_op(objecter, old).unwrap().ops[0].data, b"from us"[..]);
    let got = rados(cluster, &["-p", name, "-s", "first", "get", "ours", "-"], b"");
    assert!(got.ends_with(b"\nfrom us"), "a line, and the data");
    pollster::block_on(objecter.delete_pool_snap(pool, "first")).unwrap();
    assert!(objecter.map().pool(pool).unwrap().snaps.is_empty());
}

fn own_snapshots(objecter: &Objecter, pool: i64) {
    let first = pollster::block_on(objecter.allocate_selfmanaged_snap(pool)).unwrap();
    let second = pollster::block_on(objecter.allocate_selfmanaged_snap(pool)).unwrap();
    assert!(second > first && first > SnapId(0));
    do_op(objecter, write_full(pool, "own", b"before")).unwrap();
    let mut write = write_full(pool, "own", b"after");
    write.snapc = SnapContext { seq: second, snaps: vec![second, first] };
    do_op(objecter, write).unwrap();
    let mut old = Op::read(Target::object(pool, "own"), vec![OsdOp::read(0, 0)]);
    old.snapid = first;
    assert_eq!(do_op(objecter, old).unwrap().ops[0].data, b"before"[..]);
    pollster::block_on(objecter.delete_selfmanaged_snap(pool, first)).unwrap();
}

fn commands(objecter: &Objecter, pool: i64) {
    let version = Command::new("version");
    let output = pollster::block_on(objecter.osd_command(0, &version, None)).unwrap();
    assert_eq!(output.code, 0);
    assert!(output.json().unwrap()["version"].is_string(), "{}", output.text());
    let pg = PgId { pool: pool as u64, seed: 0 };
    let query = Command::new("query").arg("pgid", pg.to_string());
    let output = pollster::block_on(objecter.pg_command(pg, &query, None)).unwrap();
    assert!(output.code == 0 && output.json().is_some(), "{output:?}");
    let nobody = pollster::block_on(objecter.osd_command(77, &version, None));
    assert_eq!(nobody, Err(OpError::NoSuchOsd { osd: 77 }));
    let wrong = Command::new("no such command");
    assert_ne!(pollster::block_on(objecter.osd_command(0, &wrong, None)).unwrap().code, 0);
}

fn bad_requests(objecter: &Objecter, pool: i64) {
    let error = do_op(objecter, write_full(999, "x", b"")).unwrap_err();
    assert_eq!(error, OpError::NoSuchPool { pool: 999 });
    let nothing = Op::read(Target::object(pool, "x"), vec![]);
    assert_eq!(do_op(objecter, nothing).unwrap_err().errno(), Errno::EINVAL);
    // Longer than OSDs take (osd_max_write_size is 90 MiB), and than a message can be.
    let data = Bytes::from(vec![0; 91 << 20]);
    let write =
        |data: Bytes| Op::write(Target::object(pool, "long"), vec![OsdOp::write_full(data.into())]);
    assert_eq!(do_op(objecter, write(data)).unwrap_err().errno(), Errno::EMSGSIZE);
    let error = do_op(objecter, write(vec![0; (128 << 20) + 1].into())).unwrap_err();
    assert!(matches!(error, OpError::TooLong { .. }));
    let far = vec![OsdOp::write(200 << 30, Bytes::from_static(b"x").into())];
    let error = do_op(objecter, Op::write(Target::object(pool, "far"), far)).unwrap_err();
    assert_eq!(error.errno(), Errno::EFBIG);
    let name = "n".repeat(5000);
    let error = do_op(objecter, write_full(pool, &name, b"x")).unwrap_err();
    assert_eq!(error.errno(), Errno::ENAMETOOLONG);
}

fn all(release: Release) {
    let Some(cluster) = cluster(release, 3, &[]) else { return };
    println!("{}", cluster.version());
    let objecter = objecter(&cluster);
    let pool = make_pool(&cluster, &objecter, "copies", &["8"]);
    cluster.ceph(&["osd", "pool", "set", "copies", "size", "3"]).unwrap();
    objects(&cluster, &objecter, pool, "copies");
    together(&objecter, pool);
    counted(&objecter, pool);
    snapshots(&cluster, &objecter, pool, "copies");
    commands(&objecter, pool);
    bad_requests(&objecter, pool);
    let own = make_pool(&cluster, &objecter, "own", &["4"]);
    own_snapshots(&objecter, own);

    let profile = ["osd", "erasure-code-profile", "set", "p", "k=2", "m=1"];
    cluster.ceph(&[&profile[..], &["crush-failure-domain=osd"]].concat()).unwrap();
    let coded = make_pool(&cluster, &objecter, "coded", &["4", "4", "erasure", "p"]);
    objects(&cluster, &objecter, coded, "coded");
    // The manager tells the monitors of it after a while.
    let stat = || pollster::block_on(objecter.pool_stat("coded")).unwrap();
    wait_until("the monitors know what is in the pool", || {
        stat().is_some_and(|stat| stat.stats.sum.num_objects == 5)
    });
    assert!(pollster::block_on(objecter.pool_stat("nowhere")).unwrap().is_none());
    assert!(pollster::block_on(objecter.statfs(None)).unwrap().kb > 0);
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
