//! Placement as Ceph's own `osdmaptool` has it, of maps that we change in every way that counts, and
//! write; and what it reads of them.
//!
//! Where there is no such program (Debian's package ceph-base), the tests say that they skip; in
//! continuous integration, where `CI` is set, that is a failure.

mod changed;
#[path = "../../siphon-crush/tests/text_map/mod.rs"]
mod text_map;

use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use changed::{change, read, write};
use siphon_osdmap::{OsdMap, PgOsds, PgWorkspace};
use siphon_peers::{CephTree, Release, require};
use siphon_wire::types::{Features, ObjectLocator, PgId};
use siphon_wire::{Decode, Encode};
use text_map::{Cluster, Folder, devices, present, run};

fn osdmaptool() -> Command {
    Command::new("osdmaptool")
}

/// A map of a cluster, in `folder`, with all changes.
fn prepare(cluster: &Cluster, folder: &Folder) -> OsdMap {
    let crush = cluster.compile(Command::new("crushtool"), folder);
    let path = folder.file("map");
    let count = cluster.device_count().to_string();
    run(osdmaptool().arg(&path).args(["--createsimple", &count, "--with-default-pool"]));
    run(osdmaptool().arg(&path).arg("--import-crush").arg(&crush));
    let map = change(read(&path), cluster);
    write(&path, &map, Features::ALL);
    map
}

/// Reads `([1,2], p1)`: OSDs, and the primary.
fn osds(text: &str) -> (Vec<i32>, Option<i32>) {
    let (list, primary) = text.trim_matches(['(', ')']).split_once(", p").unwrap();
    let primary = primary.parse::<i32>().unwrap();
    (devices(list), (primary >= 0).then_some(primary))
}

/// Compares every placement group that a dump tells of; returns how many there are.
fn compare(map: &OsdMap, dump: &str, told: &dyn std::fmt::Debug) -> usize {
    let mut work = PgWorkspace::new();
    let mut count = 0;
    for line in dump.lines().filter(|line| line.contains(" acting (")) {
        let (pg, rest) = line.split_once(" raw ").unwrap();
        let (_, rest) = rest.split_once(" up ").unwrap();
        let (up, acting) = rest.split_once(" acting ").unwrap();
        let pg: PgId = pg.parse().unwrap();
        let ((up, up_primary), (acting, acting_primary)) = (osds(up), osds(acting));
        let theirs = PgOsds { up: &up, up_primary, acting: &acting, acting_primary };
        assert_eq!(map.map_pg(pg, &mut work), theirs, "{pg} in {told:?}");
        count += 1;
    }
    count
}

fn dump_of(mut tool: Command, path: &Path) -> String {
    run(tool.arg(path).arg("--test-map-pgs-dump-all"))
}

#[test]
fn placement_groups_are_where_ceph_has_them() {
    if !present("osdmaptool") {
        return;
    }
    let mut count = 0;
    for seed in 0..20 {
        let cluster = Cluster::of_seed(seed);
        let folder = Folder::new();
        let map = prepare(&cluster, &folder);
        let groups: u32 = map.pools.values().map(|pool| pool.pg_num).sum();
        let found = compare(&map, &dump_of(osdmaptool(), &folder.file("map")), &cluster);
        assert_eq!(found, groups as usize);
        count += found;
    }
    println!("{count} placement groups of 20 maps are where osdmaptool has them");
}

#[test]
fn balanced_placement_groups_are_where_ceph_has_them() {
    if !present("osdmaptool") {
        return;
    }
    let (mut count, mut items) = (0, 0);
    for seed in [0, 6, 12, 18, 24] {
        let cluster = Cluster { racks: 4, hosts: 4, devices: 5, ..Cluster::of_seed(seed) };
        let folder = Folder::new();
        let map = changed::sound(prepare(&cluster, &folder));
        let path = folder.file("map");
        write(&path, &map, Features::ALL);
        let by = ["--upmap-max", "60", "--upmap-deviation", "1", "--save"];
        run(osdmaptool().arg(&path).arg("--upmap").arg(folder.file("commands")).args(by));
        let map = read(&path);
        items += map.pg_upmap_items.len();
        count += compare(&map, &dump_of(osdmaptool(), &path), &cluster);
    }
    assert!(items > 100, "{items} groups were moved");
    println!("{count} placement groups of 5 maps with {items} upmap items are as osdmaptool's");
}

#[test]
fn objects_are_where_ceph_has_them() {
    if !present("osdmaptool") {
        return;
    }
    let folder = Folder::new();
    let map = prepare(&Cluster::of_seed(3), &folder);
    let mut work = PgWorkspace::new();
    let long = "x".repeat(300);
    for name in ["foo", "a", "rbd_directory", "0123456789a", "0123456789ab", "gr\u{fc}n", &long] {
        for pool in map.pools.keys().take(3) {
            let path = folder.file("map");
            let args = ["--test-map-object", name, "--pool", &pool.to_string()];
            let text = run(osdmaptool().arg(path).args(args));
            let line = text.lines().find(|line| line.contains(" -> ")).unwrap();
            let mut parts = line.rsplit(" -> ");
            let (acting, pg) = (parts.next().unwrap(), parts.next().unwrap());
            let raw = map.map_object(name.as_bytes(), &ObjectLocator::new(*pool)).unwrap();
            assert_eq!(map.actual_pg(raw).unwrap().to_string(), pg, "{name}");
            assert_eq!(map.map_pg(raw, &mut work).acting, devices(acting), "{name}");
        }
    }
}

#[test]
fn a_newer_ceph_has_placement_groups_where_we_have_them() {
    let Some(tree) = require(CephTree::of(Release::Tentacle)) else { return };
    if !present("osdmaptool") {
        return;
    }
    let mut count = 0;
    for seed in [1, 4, 7, 12] {
        let cluster = Cluster::of_seed(seed);
        let folder = Folder::new();
        let map = changed::for_tentacle(prepare(&cluster, &folder), &cluster);
        let path = folder.file("newer");
        write(&path, &map, Features::ALL | Features::CRUSH_MSR | Features::SERVER_TENTACLE);
        count += compare(&map, &dump_of(tree.command("osdmaptool"), &path), &cluster);
    }
    println!("{count} placement groups of 4 maps are where {}'s tool has them", Release::Tentacle);
}

#[test]
fn ceph_reads_what_we_write() {
    if !present("osdmaptool") {
        return;
    }
    for seed in [2, 5, 12] {
        let folder = Folder::new();
        let map = prepare(&Cluster::of_seed(seed), &folder);
        let path = folder.file("map");
        let text = run(osdmaptool().arg(&path).arg("--print"));
        assert!(text.contains(&format!("epoch {}\n", map.epoch)), "{text}");
        assert!(text.contains(&format!("flags {}\n", map.flags)), "{text}");
        let json = run(osdmaptool().arg(&path).args(["--dump", "json"]));
        let json = &json[json.find('{').unwrap()..];
        changed::compare_json(&map, &serde_json::from_str(json).unwrap());

        // Ceph writes what it read of it again, with its own crush map.
        let crush = folder.file("crush");
        run(osdmaptool().arg(&path).arg("--export-crush").arg(&crush));
        assert_eq!(fs::read(&crush).unwrap(), map.crush.to_bytes(Features::ALL));
        run(osdmaptool().arg(&path).arg("--import-crush").arg(&crush));
        let theirs = read(&path);
        let expected = OsdMap {
            epoch: theirs.epoch,
            modified: theirs.modified,
            crush_version: theirs.crush_version,
            crc: theirs.crc,
            ..map
        };
        assert_eq!(theirs, expected);
    }
}

#[test]
fn what_is_written_for_older_peers_is_read() {
    if !present("osdmaptool") {
        return;
    }
    let folder = Folder::new();
    let map = prepare(&Cluster::of_seed(4), &folder);
    let path = folder.file("older");
    let without = |bits: u64| Features(Features::ALL.0 & !bits);
    let older = [without(1 << 2), without(1 << 28), without(1 << 21 | 1 << 28 | 1 << 59)];
    for features in older {
        write(&path, &map, features);
        assert!(dump_of(osdmaptool(), &path).contains(" acting ("), "{features}");
        let again = OsdMap::from_bytes(&Bytes::from(fs::read(&path).unwrap())).unwrap();
        assert_eq!((again.epoch, again.pools.len()), (map.epoch, map.pools.len()), "{features}");
        assert_eq!(again.to_bytes(features), fs::read(&path).unwrap(), "{features}");
    }
}
