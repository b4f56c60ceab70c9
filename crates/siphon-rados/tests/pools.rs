//! Listings, snapshots and watches in real clusters, and each seen from the other side by `rados`.

mod common;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use common::{MODES, RELEASES, World, feed};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use siphon_rados::{
    Cluster, Command, Cursor, ListObject, Objects, Pool, SnapContext, Wait, WatchEvent,
};
use siphon_wire::types::{ByteString, Errno, SnapId};

#[path = "../examples/letters.rs"]
mod letters;

/// Objects that are listed: more than an OSD lists at once, in each of the 8 placement groups; and in the
/// second mode in some of 16.
const OBJECTS: [usize; 2] = [9_000, 3_000];
const GROUPS: [u32; 3] = [8, 16, 32];
const TIMEOUT: Duration = Duration::from_secs(120);

#[test]
fn of_pacific() {
    all(0);
}

#[test]
fn of_reef() {
    all(1);
}

#[test]
fn of_tentacle() {
    all(2);
}

fn all(release: usize) {
    let Some(world) = World::start(RELEASES[release]) else { return };
    println!("{}", world.peers.version());
    for (round, mode) in MODES.into_iter().enumerate() {
        let cluster = world.connect(mode);
        if round == 0 {
            letters::run(&cluster, "copies").wait().unwrap();
            pools(&world, &cluster);
        }
        for name in ["copies", "coded"] {
            let pool = cluster.pool(name).wait().unwrap().with_namespace(mode);
            pool_snapshots(&world, &pool);
            watches(&world, &pool);
        }
        selfmanaged_snapshots(&world, &cluster, mode);
        listings(&world, &cluster.pool("copies").wait().unwrap(), mode, round);
        cluster.shutdown().wait();
        let after = cluster.pool("copies").wait().unwrap().stat("x").wait();
        assert_eq!(after.unwrap_err().to_string(), "the client was shut down");
    }
}

fn pools(world: &World, cluster: &Cluster) {
    let pool = cluster.create_pool("ours").wait().unwrap();
    let again = cluster.create_pool("ours").wait().unwrap_err();
    assert_eq!(again.errno(), Errno::EEXIST);
    let listed = world.rados(&pool, &["lspools"]);
    let names: Vec<_> = cluster.pools().into_iter().map(|(_, name)| name.to_string()).collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), names);
    pool.write_full("object", Bytes::from_static(b"content")).wait().unwrap();
    assert!(cluster.stat().wait().unwrap().kb > 0);
    // Of 2 data shards, each of a stripe's 4 KiB; where overwrites are allowed, of any length.
    for (name, expected) in [("copies", None), ("coded", Some(8192)), ("overwrites", None)] {
        let pool = cluster.pool(name).wait().unwrap();
        assert_eq!(pool.required_alignment().unwrap(), expected, "{name}");
    }
    // The manager counts once a second here.
    let counted = || {
        let stats = cluster.pool_stats().wait().unwrap();
        stats.get(pool.name()).is_some_and(|usage| usage.stat.stats.sum.num_objects == 1)
    };
    while !counted() {}

    // One that came from elsewhere is found, and one that is gone is told.
    world.peers.ceph(&["osd", "pool", "create", "theirs", "8"]).unwrap();
    cluster.pool("theirs").wait().unwrap();
    cluster.delete_pool("ours").wait().unwrap();
    let gone = pool.read("object", 0, 0).wait().unwrap_err();
    assert_eq!(gone.errno(), Errno::ENOENT);
    assert!(gone.to_string().contains("no pool"), "{gone}");
    let theirs = cluster.pool("theirs").wait().unwrap();
    assert!(!world.rados(&theirs, &["lspools"]).contains("ours"));

    let refused =
        cluster.command(Command::new("osd pool get").arg("pool", "none").arg("var", "size"));
    let refused = refused.wait().unwrap_err();
    assert_eq!(refused.errno(), Errno::ENOENT);
    assert!(refused.to_string().contains("unrecognized pool 'none'"), "{refused}");
}

fn pool_snapshots(world: &World, pool: &Pool) {
    pool.write_full("object", Bytes::from_static(b"first")).wait().unwrap();
    let one = pool.create_snap("one").wait().unwrap();
    let listed = pool.clone().at_snap(one).objects().wait_each();
    assert!(listed.map(|it| it.unwrap().oid).any(|oid| oid == "object"), "OSDs list what there is");
    assert_eq!(pool.create_snap("one").wait().unwrap_err().errno(), Errno::EEXIST);
    pool.write_full("object", Bytes::from_static(b"second state")).wait().unwrap();
    world.rados(pool, &["mksnap", "two"]);
    pool.cluster().objecter().wait_for_latest_map(None).wait().unwrap();
    let two = pool.snap_by_name("two").unwrap();
    pool.remove("object").wait().unwrap();

    let listed = world.rados(pool, &["lssnap"]);
    let lines: Vec<_> = listed.lines().collect();
    assert!(lines[0].starts_with(&format!("{}\tone\t", one.0)), "{listed}");
    assert_eq!(lines.last(), Some(&"2 snaps"));
    let names: Vec<_> = pool.snaps().unwrap().into_iter().map(|snap| snap.name).collect();
    assert_eq!(names, ["one", "two"]);

    let at = |snap| pool.clone().at_snap(snap).read("object", 0, 0).wait().unwrap();
    assert_eq!(at(one), b"first");
    assert_eq!(at(two), b"second state");
    assert_eq!(pool.stat("object").wait().unwrap_err().errno(), Errno::ENOENT);
    let got = world.rados(pool, &["-s", "one", "get", "object", "-"]);
    assert!(got.ends_with("first"), "{got}");

    pool.rollback("object", one).wait().unwrap();
    assert_eq!(pool.read("object", 0, 0).wait().unwrap(), b"first");
    let states = pool.list_snaps("object").wait().unwrap();
    let shown = world.rados(pool, &["listsnaps", "object"]);
    for state in &states.clones {
        let id = match state.cloneid {
            SnapId::HEAD => "head".to_owned(),
            id => id.0.to_string(),
        };
        let line = shown.lines().find(|line| line.starts_with(&format!("{id}\t")));
        assert!(line.is_some_and(|line| line.contains(&format!("\t{}", state.size))), "{shown}");
    }
    assert_eq!(states.clones.len(), 3, "{states:?}");

    for name in ["one", "two"] {
        pool.remove_snap(name).wait().unwrap();
    }
    assert_eq!(pool.snaps().unwrap(), []);
    assert_eq!(pool.remove_snap("one").wait().unwrap_err().errno(), Errno::ENOENT);
    pool.remove("object").wait().unwrap();
}

fn selfmanaged_snapshots(world: &World, cluster: &Cluster, mode: &str) {
    let pool = cluster.create_pool(format!("selfmanaged {mode}")).wait().unwrap();
    pool.write_full("object", Bytes::from_static(b"before")).wait().unwrap();
    let first = pool.create_selfmanaged_snap().wait().unwrap();
    let second = pool.create_selfmanaged_snap().wait().unwrap();
    assert!(first < second && pool.has_selfmanaged_snaps().unwrap());
    let writer = |snaps: &[SnapId]| {
        let context = SnapContext { seq: second, snaps: snaps.to_vec() };
        pool.clone().with_snap_context(context)
    };
    let aware = writer(&[second, first]);
    aware.write_full("object", Bytes::from_static(b"after")).wait().unwrap();
    let at = |snap| pool.clone().at_snap(snap).read("object", 0, 0).wait();
    assert_eq!(at(first).unwrap(), b"before");
    assert_eq!(at(second).unwrap(), b"before");
    let states = pool.list_snaps("object").wait().unwrap();
    assert_eq!(states.clones[0].snaps, [first, second]);
    aware.rollback("object", first).wait().unwrap();
    assert_eq!(pool.read("object", 0, 0).wait().unwrap(), b"before");
    pool.remove_selfmanaged_snap(first).wait().unwrap();
    pool.remove_selfmanaged_snap(second).wait().unwrap();
    writer(&[]).write_full("object", Bytes::from_static(b"without")).wait().unwrap();
    // A pool has snapshots of one kind only.
    assert_eq!(pool.create_snap("named").wait().unwrap_err().errno(), Errno::EINVAL);
    let refused = world.rados_with(&pool, &["mksnap", "named"], b"");
    assert!(!refused.status.success());
}

fn watches(world: &World, pool: &Pool) {
    let missing = pool.watch("board", None).wait().unwrap_err();
    assert_eq!(missing.errno(), Errno::ENOENT);
    pool.create("board", true).wait().unwrap();
    let mut watch = pool.watch("board", None).wait().unwrap();
    let watchers = pool.list_watchers("board").wait().unwrap();
    let me = i64::try_from(pool.cluster().global_id()).unwrap();
    assert_eq!((watchers.len(), watchers[0].name.num), (1, me));
    let shown = world.rados(pool, &["listwatchers", "board"]);
    let line = format!("client.{me} cookie={}", watch.cookie());
    assert!(shown.contains(&line), "{shown}");

    // Ours to us.
    let notified = pool.notify("board", Bytes::from_static(b"news"), Some(TIMEOUT));
    let heard = async {
        let event = watch.next().await;
        let Some(WatchEvent::Notify(notice)) = event else { panic!("{event:?}") };
        assert_eq!((&notice.payload[..], notice.notifier), (&b"news"[..], me.cast_unsigned()));
        watch.acknowledge(&notice, &Bytes::from_static(b"seen")).await.unwrap();
    };
    let (reply, ()) = futures_util::future::join(notified, heard).wait();
    let reply = reply.unwrap();
    let answers: Vec<_> = reply.answers.into_values().collect();
    assert_eq!((&answers[..], reply.missed.len()), (&[Bytes::from_static(b"seen")][..], 0));

    // Theirs to us.
    let theirs = world.command(pool, &["notify", "board", "hello"]);
    let notifier = std::thread::spawn(move || feed(theirs, b""));
    let event = watch.next().wait();
    let Some(WatchEvent::Notify(notice)) = event else { panic!("{event:?}") };
    assert_eq!(&notice.payload[..], b"\x05\0\0\0hello");
    watch.acknowledge(&notice, &Bytes::from_static(b"heard")).wait().unwrap();
    let output = notifier.join().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("|heard|"), "{output:?}");
    watch.unwatch().wait().unwrap();
    assert_eq!(pool.list_watchers("board").wait().unwrap().len(), 0);

    // Ours to them: their tool watches until its input ends.
    let mut theirs = world.command(pool, &["watch", "board"]);
    theirs.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watcher = theirs.spawn().unwrap();
    while pool.list_watchers("board").wait().unwrap().is_empty() {
        assert!(watcher.try_wait().unwrap().is_none(), "rados watch ended");
    }
    let reply = pool.notify("board", Bytes::from_static(b"to rados"), Some(TIMEOUT));
    let reply = reply.wait().unwrap();
    // It answers with what it heard.
    assert_eq!(reply.answers.into_values().collect::<Vec<_>>(), ["to rados"]);
    drop(watcher.stdin.take());
    let output = watcher.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("NOTIFY"), "{output:?}");
    pool.remove("board").wait().unwrap();
}

fn names(objects: Objects) -> Vec<ListObject> {
    objects.wait_each().map(|object| object.unwrap()).collect()
}

fn listings(world: &World, pool: &Pool, mode: &str, round: usize) {
    let (count, groups, split) = (OBJECTS[round], GROUPS[round], GROUPS[round + 1]);
    let many = format!("many {mode}");
    let pool = pool.clone().with_namespace(many.as_str());
    let expected: BTreeSet<ByteString> = (0..count).map(|n| format!("object {n}").into()).collect();
    let mut under_way = FuturesUnordered::new();
    for name in &expected {
        under_way.push(pool.create(name.clone(), true));
        if under_way.len() >= 64 {
            under_way.next().wait().unwrap().unwrap();
        }
    }
    while let Some(done) = under_way.next().wait() {
        done.unwrap();
    }
    let other = pool.clone().with_namespace(format!("few {mode}")).with_locator("key");
    other.create("with a key", true).wait().unwrap();

    let once = |listed: Vec<ListObject>| {
        let count = listed.len();
        let listed: BTreeSet<_> = listed.into_iter().map(|object| object.oid).collect();
        assert_eq!(count, listed.len(), "an object is listed twice");
        listed
    };
    assert_eq!(once(names(pool.objects())), expected);
    let theirs = world.rados(&pool, &["ls"]);
    assert_eq!(theirs.lines().map(ByteString::from).collect::<BTreeSet<_>>(), expected);
    let few = names(other.objects());
    assert_eq!((few.len(), &few[0].locator), (1, &"key".into()));
    let all = names(pool.clone().with_all_namespaces().objects());
    assert_eq!(all.iter().filter(|object| object.nspace == *many).count(), count);
    assert!(all.contains(&few[0]));

    // Group by group it is the same.
    let by_group = (0..groups).flat_map(|seed| names(pool.objects_of_pg(seed).unwrap())).collect();
    assert_eq!(once(by_group), expected);
    let no_group = pool.objects_of_pg(1000).unwrap_err();
    assert!(no_group.to_string().contains(&format!("the pool has {groups}")), "{no_group}");

    // From anywhere on, by a text that can be kept.
    let mut objects = pool.objects();
    let mut head: Vec<_> =
        objects.by_ref().take(1500).map(Result::unwrap).collect::<Vec<_>>().wait();
    let kept = objects.cursor().to_string();
    drop(objects);
    head.extend(names(pool.objects_from(kept.parse().unwrap())));
    assert_eq!(once(head), expected);
    assert_eq!(names(pool.objects_from(Cursor::end())), []);

    // While the pool's placement groups are split.
    let mut objects = pool.objects();
    let mut listed: Vec<_> =
        objects.by_ref().take(1500).map(Result::unwrap).collect::<Vec<_>>().wait();
    world.peers.ceph(&["osd", "pool", "set", "copies", "pg_num", &split.to_string()]).unwrap();
    let objecter = pool.cluster().objecter();
    loop {
        let map = objecter.wait_for_latest_map(None).wait().unwrap();
        if map.pool(pool.id()).unwrap().pg_num == split {
            break;
        }
    }
    listed.extend(names(objects));
    assert_eq!(once(listed), expected);
}
