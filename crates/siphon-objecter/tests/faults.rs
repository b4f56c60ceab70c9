//! Writes that assert versions, appends and a watch, while OSDs are killed, restarted, marked out and in,
//! monitors are killed one by one, and the number of placement groups is doubled: nothing is lost, done twice
//! or out of order.
//!
//! `SIPHON_FAULTS_WRITES` and `SIPHON_FAULTS_APPENDS` say how many; 100000 and 1000 take several minutes.

#![expect(clippy::disallowed_methods, reason = "waits for real clusters by the clock")]

mod common;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{cluster_with, do_op, make_pool, objecter, rados, read, wait_until, write_full};
use futures_channel::oneshot;
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use siphon_messages::osd::{OsdOp, OsdOpCode};
use siphon_objecter::{Objecter, Op, OpReply, Target, Watch, WatchEvent};
use siphon_peers::{Cluster, Release};
use siphon_wire::types::Version;

const OBJECTS: u64 = 64;
const OSDS: u32 = 4;
const MONS: u32 = 3;

fn amount(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn content(object: u64, number: u64) -> Vec<u8> {
    format!("{object} {number} ").into_bytes().repeat(64)
}

/// The next content of an object, if its version is this one.
fn overwrite(pool: i64, object: u64, number: u64, version: Version) -> Op {
    let mut assert = OsdOp::new(OsdOpCode::ASSERT_VER);
    assert.args[8..16].copy_from_slice(&version.0.to_le_bytes());
    let mut op = write_full(pool, &format!("object{object}"), &content(object, number));
    op.ops.insert(0, assert);
    op
}

async fn write_on(
    objecter: &Objecter,
    pool: i64,
    object: u64,
    goes_on: impl Fn() -> bool,
) -> (u64, u64) {
    let first = write_full(pool, &format!("object{object}"), &content(object, 0));
    let mut version = objecter.submit(first).await.unwrap().version;
    let mut number = 0;
    while goes_on() {
        number += 1;
        let reply = objecter.submit(overwrite(pool, object, number, version)).await;
        let reply: OpReply = reply.unwrap_or_else(|error| panic!("{object}, {number}: {error}"));
        assert!(reply.version > version);
        version = reply.version;
    }
    (object, number)
}

/// What is appended: a stripe of the erasure code, which takes no less.
fn appendix(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(1024)
}

/// All at once: their order is that of submission.
fn append(objecter: &Objecter, pool: i64, count: u64, pace: impl Fn()) {
    let mut open = std::collections::VecDeque::new();
    for number in 0..count {
        let data = Bytes::from(appendix(number));
        let append = OsdOp::extent(OsdOpCode::APPEND, 0, data.len() as u64);
        let op = OsdOp { data: data.into(), ..append };
        open.push_back(objecter.submit(Op::write(Target::object(pool, "appended"), vec![op])));
        if open.len() >= 16 {
            pollster::block_on(open.pop_front().unwrap()).unwrap();
            pace();
        }
    }
    open.into_iter().for_each(|op| drop(pollster::block_on(op).unwrap()));
}

fn is_up(cluster: &Cluster, osd: u32, up: u64) -> bool {
    let map = cluster.json(&["osd", "dump"]).unwrap();
    let osds = map["osds"].as_array().unwrap();
    osds.iter().any(|found| found["osd"] == osd && found["up"] == up)
}

fn is_clean(cluster: &Cluster) -> bool {
    // `9 pgs: 9 active+clean; …`: no other state.
    let stat = cluster.ceph(&["pg", "stat"]).unwrap();
    let states = stat.split_once("pgs: ").and_then(|(_, rest)| rest.split_once(';'));
    states.is_some_and(|(states, _)| !states.contains(',') && states.ends_with("active+clean"))
}

/// One thing after the other; each ends with a cluster that is whole.
fn disturb(cluster: &mut Cluster, round: u32) {
    let osd = round % OSDS;
    let id = osd.to_string();
    // One monitor after the other, and with it what we were told by it.
    let mon = (round % MONS) as usize;
    cluster.end_mon(mon, "KILL").unwrap();
    match round % 5 {
        0 | 3 => {
            // On TERM an OSD says good-bye; its data are kept.
            cluster.end_osd(osd, "TERM").unwrap();
            wait_until("it is down", || is_up(cluster, osd, 0));
            cluster.restart_osd(osd).unwrap();
        }
        1 => {
            // Killed, it says nothing, others have to notice, and its data are gone.
            cluster.end_osd(osd, "KILL").unwrap();
            wait_until("it is down", || is_up(cluster, osd, 0));
            cluster.restart_osd(osd).unwrap();
        }
        2 => {
            cluster.ceph(&["osd", "out", &id]).unwrap();
            std::thread::sleep(Duration::from_secs(1));
            cluster.ceph(&["osd", "in", &id]).unwrap();
        }
        _ => {
            // It finds out, and comes back by itself.
            cluster.ceph(&["osd", "down", &id]).unwrap();
        }
    }
    cluster.restart_mon(mon).unwrap();
    wait_until("it is up", || is_up(cluster, osd, 1));
    wait_until("all is clean", || is_clean(cluster));
}

/// Counts what comes; a watch that is lost says so. It is over at the latest when the sender is dropped, as where
/// the test fails.
fn follow(mut watch: Watch, heard: &AtomicU64, mut over: oneshot::Receiver<()>) {
    pollster::block_on(async {
        while let Either::Left((Some(event), _)) = select(pin!(watch.next()), &mut over).await {
            match event {
                WatchEvent::Notify(notification) if notification.payload == "end" => {
                    watch.acknowledge(&notification, &Bytes::new()).await.unwrap();
                    return;
                }
                WatchEvent::Notify(notification) => {
                    watch.acknowledge(&notification, &Bytes::new()).await.unwrap();
                    heard.fetch_add(1, Ordering::Relaxed);
                }
                WatchEvent::Lost(error) => {
                    return println!("the watch says that it is lost: {error}");
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

/// Ends the writing, also where the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn all(release: Release, coded: bool) {
    let config = [
        "mon_osd_min_down_reporters = 1",
        "osd_heartbeat_grace = 4",
        "osd_heartbeat_interval = 1",
        "mon_max_pg_per_osd = 1000",
    ];
    let Some(mut cluster) = cluster_with(release, MONS, OSDS, &config) else { return };
    let objecter = objecter(&cluster);
    let pool = if coded {
        let profile = ["osd", "erasure-code-profile", "set", "p", "k=2", "m=1"];
        cluster.ceph(&[&profile[..], &["crush-failure-domain=osd"]].concat()).unwrap();
        make_pool(&cluster, &objecter, "pool", &["8", "8", "erasure", "p"])
    } else {
        let pool = make_pool(&cluster, &objecter, "pool", &["8"]);
        cluster.ceph(&["osd", "pool", "set", "pool", "size", "3"]).unwrap();
        pool
    };
    cluster.ceph(&["osd", "pool", "set", "pool", "min_size", "2"]).unwrap();
    let autoscale = ["osd", "pool", "set", "pool", "pg_autoscale_mode", "off"];
    let _ = cluster.ceph(&autoscale); // where there is such a thing
    do_op(&objecter, write_full(pool, "watched", b"x")).unwrap();
    let watching = Op::write(Target::object(pool, "watched"), vec![]);
    let watch = pollster::block_on(objecter.watch(watching, None)).unwrap();

    let writes = amount("SIPHON_FAULTS_WRITES", 4_000);
    let appends = amount("SIPHON_FAULTS_APPENDS", 400);
    let (written, heard, disturbed) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    let last = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // Until there were as many as wanted, and everything has happened.
            let goes_on = || {
                written.fetch_add(1, Ordering::Relaxed) < writes
                    || !disturbed.load(Ordering::Relaxed)
            };
            let objects = (0..OBJECTS).map(|object| write_on(&objecter, pool, object, goes_on));
            let all = objects.collect::<FuturesUnordered<_>>().collect::<Vec<_>>();
            pollster::block_on(all)
        });
        let appender = scope.spawn(|| {
            // Over the whole time.
            let pace = || {
                if !disturbed.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(30));
                }
            };
            append(&objecter, pool, appends, pace);
        });
        let (_over, is_over) = oneshot::channel();
        let follower = scope.spawn(|| follow(watch, &heard, is_over));
        let ends = Ends(&disturbed);
        let mut round = 0;
        while round < 5 || written.load(Ordering::Relaxed) < writes {
            if round == 2 {
                cluster.ceph(&["osd", "pool", "set", "pool", "pg_num", "16"]).unwrap();
                cluster.ceph(&["osd", "pool", "set", "pool", "pgp_num", "16"]).unwrap();
            }
            disturb(&mut cluster, round);
            let notify = Op::read(Target::object(pool, "watched"), vec![]);
            let timeout = Some(Duration::from_secs(20));
            let payload = Bytes::from_static(b"round");
            pollster::block_on(objecter.notify(notify, &payload, timeout)).unwrap();
            round += 1;
        }
        drop(ends);
        let last = writer.join().unwrap();
        appender.join().unwrap();
        let notify = Op::read(Target::object(pool, "watched"), vec![]);
        pollster::block_on(objecter.notify(notify, &Bytes::from_static(b"end"), None)).unwrap();
        follower.join().unwrap();
        println!(
            "{}: {} writes, {appends} appends, {round} rounds, {} of {round} notifications heard, {:?}",
            cluster.version(),
            written.load(Ordering::Relaxed),
            heard.load(Ordering::Relaxed),
            started.elapsed(),
        );
        last
    });

    assert_eq!(last.len() as u64, OBJECTS);
    for (object, number) in last {
        let name = format!("object{object}");
        let found = read(&objecter, pool, &name).unwrap();
        assert_eq!(found, content(object, number), "{name}");
        if object % 8 == 0 {
            assert_eq!(rados(&cluster, &["-p", "pool", "get", &name, "-"], b""), found);
        }
    }
    let appended = read(&objecter, pool, "appended").unwrap();
    let wanted: Vec<u8> = (0..appends).flat_map(appendix).collect();
    assert!(appended == wanted, "appends are lost, repeated or out of order");
}

#[test]
fn pacific_in_copies() {
    all(Release::Pacific, false);
}

#[test]
fn reef_coded() {
    all(Release::Reef, true);
}

#[test]
fn tentacle_in_copies() {
    all(Release::Tentacle, false);
}
