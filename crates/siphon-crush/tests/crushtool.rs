//! Mappings as Ceph's own `crushtool` makes them, of maps with every algorithm and kind of rule.
//!
//! Where there is no such program (Debian's package ceph-base), the tests say that they skip; in
//! continuous integration, where `CI` is set, that is a failure.

mod text_map;

use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use siphon_crush::{CrushMap, Workspace};
use siphon_peers::{CephTree, Release, require};
use siphon_wire::types::Features;
use siphon_wire::{Decode, Encode};
use text_map::{Chance, Cluster, Folder, mappings, present, run};

/// Numbers that each rule of each map is given.
const NUMBERS: u32 = 1500;

fn crushtool() -> Command {
    Command::new("crushtool")
}

fn read(path: &Path) -> CrushMap {
    CrushMap::from_bytes(&Bytes::from(fs::read(path).unwrap())).unwrap()
}

/// Some devices that are out, or half so.
fn reweighted(cluster: &Cluster) -> Vec<(usize, f64)> {
    let mut chance = Chance(cluster.seed ^ 3);
    let devices = cluster.device_count();
    let picks = 0..devices / 5;
    picks.map(|_| (chance.below(devices) as usize, chance.below(4) as f64 / 4.0)).collect()
}

/// Compares every rule of a map; returns how many mappings there were.
fn compare(cluster: &Cluster, tool: impl Fn() -> Command, folder: &Folder) -> usize {
    let path = cluster.compile(tool(), folder);
    let map = read(&path);
    let given = if cluster.seed.is_multiple_of(2) { reweighted(cluster) } else { Vec::new() };
    let mut weights = vec![0x1_0000; map.max_devices as usize];
    given.iter().for_each(|(device, weight)| weights[*device] = (weight * 65536.0) as u32);
    let mut work = Workspace::new();
    let mut count = 0;
    for (rule, (_, steps, sizes)) in cluster.rules().into_iter().enumerate() {
        for size in sizes {
            let theirs = mappings(tool(), &path, rule, *size, NUMBERS, &given);
            assert_eq!(theirs.len(), NUMBERS as usize, "{steps}");
            for (x, theirs) in theirs.iter().enumerate() {
                let args = map.choose_args_of(0);
                let (rule, size) = (rule as u32, *size as usize);
                let ours = map.do_rule(rule, x as u32, size, &weights, args, &mut work);
                assert_eq!(ours, theirs, "{steps} for {x} in {cluster:?}");
            }
            count += theirs.len();
        }
    }
    count
}

#[test]
fn mappings_are_cephs() {
    if !present("crushtool") {
        return;
    }
    let mut count = 0;
    for seed in 0..30 {
        count += compare(&Cluster::of_seed(seed), crushtool, &Folder::new());
    }
    println!("{count} mappings of 30 maps are as crushtool's");
}

/// Ceph takes weights for signed numbers of 32 bits: one of 32768 or more draws straws that are longer than
/// all others.
#[test]
fn mappings_of_huge_buckets_are_cephs() {
    if !present("crushtool") {
        return;
    }
    let folder = Folder::new();
    let cluster = Cluster { racks: 5, positions: 0, profile: 4, ..Cluster::of_seed(0) };
    let mut text = cluster.text();
    // The sum is one of 32 bits: there can be one such item in a bucket.
    for (rack, weight) in [(0, "40000.000"), (1, "20000.500")] {
        let item = format!(" item rack{rack} weight ");
        let at = text.find(&item).unwrap() + item.len();
        let end = at + text[at..].find('\n').unwrap();
        text.replace_range(at..end, weight);
    }
    let map = text_map::compile(&text, crushtool(), &folder);
    let theirs = mappings(crushtool(), &map, 0, 3, NUMBERS, &[]);
    let (map, mut work) = (read(&map), Workspace::new());
    let weights = vec![0x1_0000; map.max_devices as usize];
    assert!(map.bucket(-1).unwrap().item_weight(0).unwrap().cast_signed() < 0);
    for (x, theirs) in theirs.iter().enumerate() {
        assert_eq!(map.do_rule(0, x as u32, 3, &weights, None, &mut work), theirs, "{x}");
    }
}

#[test]
fn mappings_of_rules_that_retry_over_steps_are_cephs() {
    let Some(tree) = require(CephTree::of(Release::Tentacle)) else { return };
    let mut count = 0;
    for seed in 0..8 {
        let cluster = Cluster::of_seed(seed);
        // Weight sets are for straw2 only.
        let positions = if cluster.algs == ["straw2"; 3] { 3 } else { 0 };
        let cluster = Cluster { msr: true, hosts: 3, positions, ..cluster };
        count += compare(&cluster, || tree.command("crushtool"), &Folder::new());
    }
    println!("{count} mappings of 8 maps are as crushtool's of {}", Release::Tentacle);
}

#[test]
fn built_maps_come_out_as_they_went_in() {
    if !present("crushtool") {
        return;
    }
    let folder = Folder::new();
    let path = folder.file("built");
    let layers = [["host", "straw2", "4"], ["rack", "tree", "3"], ["root", "list", "0"]];
    let mut build = crushtool();
    build.args(["--build", "--num_osds", "60", "-o"]).arg(&path).args(layers.concat());
    run(&mut build);
    let map = read(&path);
    assert_eq!(&map.to_bytes(Features::ALL)[..], fs::read(&path).unwrap());
    assert_eq!(map.item_name(-1).unwrap(), &"host0");
    assert_eq!(map.roots().len(), 1);
    assert_eq!(map.devices_below(map.roots()[0]).len(), 60);

    // And what is ours is Ceph's again, in text.
    let ours = folder.file("ours");
    fs::write(&ours, map.to_bytes(Features::ALL)).unwrap();
    let text = |path: &Path| run(crushtool().arg("-d").arg(path));
    assert_eq!(text(&ours), text(&path));
}

#[test]
fn text_maps_come_out_as_they_went_in() {
    if !present("crushtool") {
        return;
    }
    for seed in 0..30 {
        let folder = Folder::new();
        let path = Cluster::of_seed(seed).compile(crushtool(), &folder);
        let map = read(&path);
        assert_eq!(&map.to_bytes(Features::ALL)[..], fs::read(&path).unwrap(), "{seed}");
        if !map.class_names.is_empty() {
            let class = map.class_by_name(b"ssd").unwrap();
            let shadow = map.shadow(-1, class).unwrap();
            assert_eq!(map.item_name(shadow).unwrap(), &"default~ssd");
            let of_class = |device: &i32| *map.class_of(*device).unwrap() == "ssd";
            assert!(map.devices_below(shadow).iter().all(of_class));
            assert!(map.is_shadow(shadow) && !map.is_shadow(-1));
        }
    }
}
