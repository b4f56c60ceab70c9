//! Watches and notifications, among ourselves and with Ceph's own.

mod common;

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use common::{HUNG, cluster, do_op, make_pool, objecter, wait_until, write_full};
use futures_util::StreamExt as _;
use siphon_messages::osd::{OsdOp, OsdOpCode};
use siphon_objecter::{Objecter, Op, OpError, Target, Watch, WatchEvent};
use siphon_peers::{Cluster, Release};
use siphon_wire::types::Errno;

fn watch(objecter: &Objecter, pool: i64, name: &str) -> Result<Watch, OpError> {
    let op = Op::write(Target::object(pool, name), vec![]);
    pollster::block_on(objecter.watch(op, None))
}

/// Takes the next notification, which has to be of this, and answers it.
async fn answer(watch: &mut Watch, wanted: &str, with: &'static str) {
    let event = watch.next().await.unwrap();
    let WatchEvent::Notify(notification) = event else { panic!("{event:?}") };
    assert_eq!(notification.payload, wanted);
    watch.acknowledge(&notification, &Bytes::from_static(with.as_bytes())).await.unwrap();
}

async fn notify(
    objecter: &Objecter,
    pool: i64,
    text: &'static str,
    timeout: u64,
) -> (Vec<Bytes>, usize) {
    let op = Op::read(Target::object(pool, "watched"), vec![]);
    let timeout = Some(Duration::from_secs(timeout));
    let reply = objecter.notify(op, &Bytes::from_static(text.as_bytes()), timeout).await.unwrap();
    assert_eq!(reply.error.is_some(), !reply.missed.is_empty(), "{reply:?}");
    (reply.answers.into_values().collect(), reply.missed.len())
}

fn watchers(cluster: &Cluster, pool: &str) -> usize {
    let list = cluster.program("rados").args(["-p", pool, "listwatchers", "watched"]).output();
    String::from_utf8(list.unwrap().stdout).unwrap().lines().count()
}

fn among_ourselves(cluster: &Cluster, one: &Objecter, pool: i64) {
    let other = objecter(cluster);
    do_op(one, write_full(pool, "watched", b"x")).unwrap();
    let error = watch(one, pool, "nobody's").unwrap_err();
    assert_eq!(error.errno(), Errno::ENOENT);
    let (mut first, mut second) =
        (watch(one, pool, "watched").unwrap(), watch(&other, pool, "watched").unwrap());
    assert_eq!(watchers(cluster, "pool"), 2);
    assert!(first.check().unwrap() < HUNG);
    pollster::block_on(async {
        let (said, (), ()) = futures_util::future::join3(
            notify(&other, pool, "hello", 60),
            answer(&mut first, "hello", "first"),
            answer(&mut second, "hello", "second"),
        )
        .await;
        assert_eq!(said.1, 0);
        let mut said = said.0;
        said.sort();
        assert_eq!(said, ["first", "second"]);
    });
    pollster::block_on(second.unwatch()).unwrap();
    assert_eq!(watchers(cluster, "pool"), 1);
    // One that does not answer is missed.
    let (answers, missed) = pollster::block_on(notify(&other, pool, "unanswered", 1));
    assert_eq!((answers.len(), missed), (0, 1));
    drop(first);
    wait_until("the watch is gone", || watchers(cluster, "pool") == 0);
    assert_eq!(pollster::block_on(notify(&other, pool, "nobody", 60)), (vec![], 0));
}

/// Ceph's own `rados` notifies us, and we notify it.
fn with_cephs_own(cluster: &Cluster, pool: i64) {
    // It lasts without the objecter that it was made by.
    let mut ours = watch(&common::objecter(cluster), pool, "watched").unwrap();
    let mut notifier = cluster.program("rados");
    notifier.args(["-p", "pool", "notify", "watched", "from rados"]);
    let child = notifier.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let event = pollster::block_on(ours.next()).unwrap();
    let WatchEvent::Notify(notification) = event else { panic!("{event:?}") };
    // It sends a text within a text.
    let text = String::from_utf8_lossy(&notification.payload).into_owned();
    assert!(text.contains("from rados"), "{text:?}");
    pollster::block_on(ours.acknowledge(&notification, &Bytes::new())).unwrap();
    assert!(child.unwrap().wait().unwrap().success());
    drop(ours);
}

fn lives_on(cluster: &mut Cluster, objecter: &Objecter, pool: i64) {
    let mut ours = watch(objecter, pool, "watched").unwrap();
    let primary = |cluster: &Cluster| {
        let map = cluster.json(&["osd", "map", "pool", "watched"]).unwrap();
        map["acting_primary"].as_u64().unwrap() as u32
    };
    let gone = primary(cluster);
    cluster.end_osd(gone, "KILL").unwrap();
    wait_until("another OSD is the primary", || primary(cluster) != gone);
    // By its own word it is still there, and it is.
    pollster::block_on(async {
        let (said, ()) = futures_util::future::join(
            notify(objecter, pool, "elsewhere", 60),
            answer(&mut ours, "elsewhere", "still here"),
        )
        .await;
        assert_eq!(said, (vec![Bytes::from_static(b"still here")], 0));
    });
    assert!(ours.check().is_ok());

    let delete = Op::write(Target::object(pool, "watched"), vec![OsdOp::new(OsdOpCode::DELETE)]);
    do_op(objecter, delete).unwrap();
    let event = pollster::block_on(ours.next()).unwrap();
    assert_eq!(event, WatchEvent::Lost(OpError::WatchLost { errno: Errno::ENOTCONN }));
    assert_eq!(pollster::block_on(ours.next()), None);
    assert!(ours.check().is_err());
}

fn all(release: Release) {
    let config = ["mon_osd_min_down_reporters = 1", "osd_heartbeat_grace = 5"];
    let Some(mut cluster) = cluster(release, 3, &config) else { return };
    let objecter = objecter(&cluster);
    let pool = make_pool(&cluster, &objecter, "pool", &["8"]);
    cluster.ceph(&["osd", "pool", "set", "pool", "size", "3"]).unwrap();
    cluster.ceph(&["osd", "pool", "set", "pool", "min_size", "1"]).unwrap();
    among_ourselves(&cluster, &objecter, pool);
    with_cephs_own(&cluster, pool);
    lives_on(&mut cluster, &objecter, pool);
}

#[test]
fn pacific() {
    all(Release::Pacific);
}

#[test]
fn tentacle() {
    all(Release::Tentacle);
}
