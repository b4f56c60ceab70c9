//! How long maps take: mapping a million placement groups, beside Ceph's own `osdmaptool` where there is
//! one, and reading a map of 10,000 OSDs and an increment to it.
//!
//! ```text
//! cargo run --release -p siphon-osdmap --example speed
//! ```
//!
//! Times are of the CPU, of this process and of the tool; the tool's is less what it takes to read the map
//! and map nothing. On a shared machine the ratios are what counts.
#![allow(clippy::disallowed_methods, reason = "measures")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use siphon_crush::{Bucket, CrushMap, Rule, RuleKind, Step, StepOp, Weights};
use siphon_osdmap::{
    Incremental, MapFlags, OsdMap, OsdState, PgPool, PgWorkspace, PoolType, WEIGHT_IN,
};
use siphon_wire::types::{Epoch, Features, PgId};
use siphon_wire::{Decode, Encode};

/// Placement groups that are mapped.
const MAPPED: u32 = 1 << 20;
const RUNS: usize = 5;

fn main() {
    let folder = tempfile::tempdir().expect("a folder for maps");
    println!("{:<33}{:<10}{:<13}ratio", "cluster", "ours", "osdmaptool");
    for (name, osds, hosts, racks, even) in [
        ("100 OSDs, 10 hosts, equal", 100, 10, 1, true),
        ("100 OSDs, 10 hosts, unequal", 100, 10, 1, false),
        ("1000 OSDs, 50 hosts, 5 racks", 1000, 50, 5, false),
        ("10000 OSDs, 500 hosts, 20 racks", 10_000, 500, 20, false),
    ] {
        let map = cluster(osds, hosts, racks, even);
        let ours = best(|| map_all(&map));
        let path = folder.path().join("map");
        fs::write(&path, map.to_bytes(Features::ALL)).expect("a map is written");
        let theirs = osdmaptool(&path);
        let ratio = theirs.map_or("-".to_owned(), |theirs| format!("{:.2}", ours / theirs));
        let theirs = theirs.map_or("-".to_owned(), |theirs| format!("{theirs:.3} s"));
        println!("{name:<33}{:<10}{theirs:<13}{ratio}", format!("{ours:.3} s"));
    }
    let map = cluster(10_000, 500, 20, false);
    let bytes = map.to_bytes(Features::ALL);
    // The system counts the time of a thread in ticks, which are longer than this.
    let decode = fastest(|| drop(OsdMap::from_bytes(&bytes).expect("our own map")));
    println!("a map of 10,000 OSDs, {} KiB, is read in {decode:.2?}", bytes.len() >> 10);
    let encode = fastest(|| drop(map.to_bytes(Features::ALL)));
    println!("and written in {encode:.2?}");
    increments(&map);
}

/// Reads and applies increments, with and without a new CRUSH map.
fn increments(map: &OsdMap) {
    let mut inc = Incremental { epoch: Epoch(map.epoch.0 + 1), ..Incremental::default() };
    for osd in 0..100 {
        inc.new_state.insert(osd, OsdState::UP);
        inc.new_weight.insert(osd, 0);
        let addrs = format!("[v2:10.1.0.1:{0}/1,v1:10.1.0.1:{0}/1]", 6800 + osd);
        inc.new_up_client.insert(osd + 100, addrs.parse().expect("an address"));
        inc.new_pg_temp.insert(PgId { pool: 1, seed: osd as u32 }, vec![1, 2, 3]);
    }
    let plain = inc.to_bytes(Features::ALL);
    inc.crush = map.crush.to_bytes(Features::ALL);
    let with_crush = inc.to_bytes(Features::ALL);
    for (name, bytes) in [("an increment", plain), ("one with a CRUSH map", with_crush)] {
        let (mut read, mut applied) = (Duration::MAX, Duration::MAX);
        for _ in 0..RUNS {
            let mut map = map.clone();
            // Of the map's own, as they are after its first increment.
            Arc::make_mut(&mut map.osd_addrs);
            let started = Instant::now();
            let inc = Incremental::from_bytes(&bytes).expect("our own increment");
            read = read.min(started.elapsed());
            let started = Instant::now();
            map.apply(&inc).expect("it fits");
            applied = applied.min(started.elapsed());
        }
        let size = bytes.len() >> 10;
        println!("{name}, {size} KiB, is read in {read:.2?}, and applied in {applied:.2?}");
    }
}

/// A cluster with one replicated pool.
fn cluster(osds: i32, hosts: i32, racks: i32, even: bool) -> OsdMap {
    let mut crush = CrushMap::new();
    crush.max_devices = osds;
    crush.type_names = [(0, "osd".into()), (1, "host".into()), (3, "rack".into())].into();
    crush.type_names.insert(11, "root".into());
    let weight = |osd: i32| if even { WEIGHT_IN } else { WEIGHT_IN + 997 * (osd as u32 % 100) };
    let mut rack_items = vec![Vec::new(); racks as usize];
    for host in 0..hosts {
        let items: Vec<i32> = (0..osds / hosts).map(|n| host * (osds / hosts) + n).collect();
        let weights = items.iter().map(|osd| weight(*osd)).collect();
        let bucket = Bucket::new(-2 - racks - host, 1, items, Weights::Straw2(weights));
        rack_items[(host % racks) as usize].push((bucket.id, bucket.weight));
        crush.item_names.insert(bucket.id, format!("host{host}").into());
        crush.set_bucket(bucket);
    }
    let mut root = Vec::new();
    for (rack, items) in rack_items.into_iter().enumerate() {
        let (items, weights) = items.into_iter().unzip();
        let bucket = Bucket::new(-2 - rack as i32, 3, items, Weights::Straw2(weights));
        root.push((bucket.id, bucket.weight));
        crush.item_names.insert(bucket.id, format!("rack{rack}").into());
        crush.set_bucket(bucket);
    }
    let (items, weights) = root.into_iter().unzip();
    crush.set_bucket(Bucket::new(-1, 11, items, Weights::Straw2(weights)));
    crush.item_names.insert(-1, "default".into());
    for osd in 0..osds {
        crush.item_names.insert(osd, format!("osd.{osd}").into());
        crush.device_classes.insert(osd, 0);
    }
    crush.class_names.insert(0, "hdd".into());
    let steps = [(StepOp::TAKE, -1, 0), (StepOp::CHOOSELEAF_FIRSTN, 0, 1), (StepOp::EMIT, 0, 0)];
    crush.set_rule(0, Rule::new(RuleKind::REPLICATED, steps.map(Step::from).to_vec()));

    let mut map =
        OsdMap { crush: Arc::new(crush), flags: MapFlags::SORTBITWISE, ..OsdMap::default() };
    map.set_max_osd(osds);
    map.osd_state.fill(OsdState::EXISTS | OsdState::UP);
    map.osd_weight.fill(WEIGHT_IN);
    let addrs = Arc::make_mut(&mut map.osd_addrs);
    for lists in [
        &mut addrs.client,
        &mut addrs.cluster,
        &mut addrs.heartbeat_back,
        &mut addrs.heartbeat_front,
    ] {
        for (osd, entry) in lists.iter_mut().enumerate() {
            let port = 6800 + 2 * (osd % 1000);
            let text = format!("[v2:10.0.0.1:{port}/1,v1:10.0.0.1:{}/1]", port + 1);
            *entry = text.parse().expect("an address");
        }
    }
    map.pools.insert(1, PgPool::new(PoolType::REPLICATED, 3, 0, MAPPED));
    map.pool_names.insert(1, "data".into());
    map
}

fn map_all(map: &OsdMap) {
    let mut work = PgWorkspace::new();
    let mut sum = 0_i64;
    for seed in 0..MAPPED {
        let osds = map.map_pg(PgId { pool: 1, seed }, &mut work);
        sum += osds.acting.iter().map(|osd| i64::from(*osd)).sum::<i64>();
    }
    std::hint::black_box(sum);
}

/// The time of the fastest of some runs.
fn fastest(mut body: impl FnMut()) -> Duration {
    let times = (0..RUNS).map(|_| {
        let started = Instant::now();
        body();
        started.elapsed()
    });
    times.min().unwrap_or_default()
}

/// Seconds of CPU that the best of some runs takes.
fn best(mut body: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..RUNS {
        let before = own_cpu();
        body();
        best = best.min(own_cpu() - before);
    }
    best
}

/// Seconds of CPU of this thread, which Linux counts in nanoseconds.
fn own_cpu() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux' /proc");
    let nanoseconds = text.split_whitespace().next().and_then(|first| first.parse::<f64>().ok());
    nanoseconds.expect("nanoseconds on the CPU") / 1e9
}

/// Seconds of CPU that Ceph's tool takes for the groups of a map.
fn osdmaptool(map: &Path) -> Option<f64> {
    let run = |args: &[&str]| {
        let program = "import resource, subprocess, sys\n\
            subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)\n\
            used = resource.getrusage(resource.RUSAGE_CHILDREN)\n\
            print(used.ru_utime + used.ru_stime)";
        let mut command = Command::new("python3");
        command.args(["-c", program, "osdmaptool"]).arg(map).args(args);
        String::from_utf8(command.output().ok()?.stdout).ok()?.trim().parse::<f64>().ok()
    };
    let best = |args: &[&str]| (0..3).filter_map(|_| run(args)).min_by(f64::total_cmp);
    let read = best(&["--print"])?;
    Some(best(&["--test-map-pgs"])? - read)
}
