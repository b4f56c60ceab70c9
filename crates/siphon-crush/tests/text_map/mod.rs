//! Crush maps in their text form, made by a seed, and what Ceph's own `crushtool` makes of them.
//!
//! This file stands here for every crate that tests with such maps; others include it by its path.
#![allow(dead_code, reason = "each crate that includes this file uses what it needs")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of a test's files, gone when the test ends.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Whether there is a program to test with. Where `CI` is set, that is not left open.
pub(crate) fn present(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing (package ceph-base)");
        println!("SKIPPED: {program} is missing (package ceph-base)");
    }
    found
}

/// Runs a program to its end, and returns what it wrote to standard output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.env("TZ", "UTC").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out
}

/// Numbers that look like chance, and follow from a seed (SplitMix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Tunables as text maps name them.
pub(crate) const TUNABLES: [(&str, [u32; 6]); 5] = [
    ("argonaut", [2, 5, 19, 0, 0, 0]),
    ("bobtail", [0, 0, 50, 1, 0, 0]),
    ("firefly", [0, 0, 50, 1, 1, 0]),
    ("hammer", [0, 0, 50, 1, 4, 0]),
    ("jewel", [0, 0, 50, 1, 1, 1]),
];

/// A cluster: racks of hosts of devices.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) seed: u64,
    pub(crate) racks: u64,
    pub(crate) hosts: u64,
    pub(crate) devices: u64,
    /// The algorithms of hosts, racks, and the root.
    pub(crate) algs: [&'static str; 3],
    /// A row of [`TUNABLES`].
    pub(crate) profile: usize,
    /// Whether devices have classes.
    pub(crate) classes: bool,
    /// Positions of replaced weights; 0 for none.
    pub(crate) positions: u64,
    /// Whether items are replaced too.
    pub(crate) ids: bool,
    /// Whether there are MSR rules, which take tools of Squid or later.
    pub(crate) msr: bool,
}

/// The rules of every map, in the order of their numbers, and how many devices are asked of each.
pub(crate) const RULES: [(&str, &str, &[u32]); 8] = [
    ("replicated", "take default; chooseleaf firstn 0 type host", &[3, 5]),
    ("replicated", "take default; choose firstn 2 type rack; chooseleaf firstn 2 type host", &[4]),
    (
        "erasure",
        "set_chooseleaf_tries 5; set_choose_tries 100; take default; \
         chooseleaf indep 0 type host",
        &[6],
    ),
    ("erasure", "take default; choose indep 3 type rack; choose indep 2 type osd", &[6]),
    ("replicated", "take default; choose firstn 0 type osd", &[3]),
    (
        "replicated",
        "set_choose_local_tries 3; set_choose_local_fallback_tries 4; set_chooseleaf_vary_r 2; \
         set_chooseleaf_stable 0; take default; chooseleaf firstn -1 type host",
        &[4],
    ),
    (
        "replicated",
        "take rack0; chooseleaf firstn 1 type host; emit; take default; \
         chooseleaf firstn -1 type rack",
        &[3],
    ),
    ("erasure", "take default; choose indep 0 type osd", &[5]),
];

/// Rules of maps with classes, which follow the others.
pub(crate) const CLASS_RULES: [(&str, &str, &[u32]); 2] = [
    (
        "replicated",
        "take default class ssd; chooseleaf firstn 1 type host; emit; \
         take default class hdd; chooseleaf firstn -1 type host",
        &[3],
    ),
    ("erasure", "take default class hdd; chooseleaf indep 0 type host", &[4]),
];

/// Rules of Squid, which follow the others.
pub(crate) const MSR_RULES: [(&str, &str, &[u32]); 5] = [
    ("msr_indep", "take default; choosemsr 4 type host; choosemsr 4 type osd", &[14, 16]),
    (
        "msr_indep",
        "take default; choosemsr 3 type rack; choosemsr 2 type host; \
      choosemsr 2 type osd",
        &[12, 9],
    ),
    ("msr_firstn", "take default; choosemsr 0 type host; choosemsr 1 type osd", &[3, 5]),
    (
        "msr_firstn",
        "set_msr_descents 7; set_msr_collision_tries 3; take default; \
      choosemsr 2 type rack; choosemsr 2 type osd",
        &[4],
    ),
    (
        "msr_indep",
        "take rack0; choosemsr 2 type host; choosemsr 1 type osd; emit; \
      take default; choosemsr 2 type osd",
        &[4],
    ),
];

impl Cluster {
    /// One of a row of clusters that differ in everything.
    pub(crate) fn of_seed(seed: u64) -> Self {
        const ALGS: [&str; 5] = ["straw2", "uniform", "list", "tree", "straw"];
        let mut chance = Chance(seed);
        let mut pick = || ALGS[chance.below(5) as usize];
        let algs = if seed.is_multiple_of(3) { ["straw2"; 3] } else { [pick(), pick(), pick()] };
        let straw2 = algs == ["straw2"; 3];
        Self {
            seed,
            racks: 2 + chance.below(5),
            hosts: 1 + chance.below(6),
            devices: 1 + chance.below(9),
            algs,
            profile: (seed % 5) as usize,
            classes: straw2 && seed.is_multiple_of(2),
            positions: if straw2 && seed % 6 > 2 { 1 + seed % 3 } else { 0 },
            ids: straw2 && seed % 9 == 6,
            msr: false,
        }
    }

    pub(crate) fn device_count(&self) -> u64 {
        self.racks * self.hosts * self.devices
    }

    /// Each rule's number, type, and how many devices are asked of it.
    pub(crate) fn rules(&self) -> Vec<(&'static str, &'static str, &'static [u32])> {
        let mut rules = RULES.to_vec();
        if self.classes {
            rules.extend(CLASS_RULES);
        }
        if self.msr {
            rules.extend(MSR_RULES);
        }
        rules
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let names = [
            "choose_local_tries",
            "choose_local_fallback_tries",
            "choose_total_tries",
            "chooseleaf_descend_once",
            "chooseleaf_vary_r",
            "chooseleaf_stable",
        ];
        for (name, value) in names.iter().zip(TUNABLES[self.profile].1) {
            let _ = writeln!(text, "tunable {name} {value}");
        }
        let _ = writeln!(text, "tunable straw_calc_version 1\ntunable allowed_bucket_algs 62");
        for device in 0..self.device_count() {
            let class = match device % 3 {
                _ if !self.classes => "",
                0 => " class ssd",
                _ => " class hdd",
            };
            let _ = writeln!(text, "device {device} osd.{device}{class}");
        }
        text += "type 0 osd\ntype 1 host\ntype 3 rack\ntype 10 root\n";
        self.buckets(&mut text);
        for (id, (kind, steps, _)) in self.rules().into_iter().enumerate() {
            let _ = writeln!(text, "rule rule{id} {{\n id {id}\n type {kind}");
            if !self.msr {
                text += " min_size 1\n max_size 20\n";
            }
            for step in steps.split("; ") {
                let _ = writeln!(text, " step {step}");
            }
            text += " step emit\n}\n";
        }
        if self.positions > 0 {
            self.choose_args(&mut text);
        }
        text
    }

    fn buckets(&self, text: &mut String) {
        let mut chance = Chance(self.seed ^ 1);
        let (mut device, mut root) = (0, String::new());
        for rack in 0..self.racks {
            let mut hosts = String::new();
            let mut rack_weight = 0;
            for host in 0..self.hosts {
                let name = format!("host{rack}x{host}");
                let id = -2 - (rack * self.hosts + host) as i64;
                let _ = writeln!(text, "host {name} {{\n id {id}\n alg {}\n hash 0", self.algs[0]);
                let mut weight = 0;
                let uniform = 1 + chance.below(3);
                for _ in 0..self.devices {
                    // Quarters; a few devices weigh nothing.
                    let own = match self.algs[0] {
                        "uniform" => 4 * uniform,
                        _ if chance.below(12) == 0 => 0,
                        _ => 1 + chance.below(40),
                    };
                    let _ = writeln!(text, " item osd.{device} weight {}", quarters(own));
                    weight += own;
                    device += 1;
                }
                *text += "}\n";
                // Items of uniform buckets weigh the same, whatever they hold.
                let weight = if self.algs[1] == "uniform" { 40 } else { weight };
                let _ = writeln!(hosts, " item {name} weight {}", quarters(weight));
                rack_weight += weight;
            }
            let id = -100 - rack as i64;
            let alg = self.algs[1];
            let _ = writeln!(text, "rack rack{rack} {{\n id {id}\n alg {alg}\n hash 0\n{hosts}}}");
            let weight = if self.algs[2] == "uniform" { 40 } else { rack_weight };
            let _ = writeln!(root, " item rack{rack} weight {}", quarters(weight));
        }
        let alg = self.algs[2];
        let _ = writeln!(text, "root default {{\n id -1\n alg {alg}\n hash 0\n{root}}}");
    }

    /// Other weights for the root and every second host, and other numbers for the root's items.
    fn choose_args(&self, text: &mut String) {
        let mut chance = Chance(self.seed ^ 2);
        // `crushtool --test` maps as for pool 0.
        *text += "choose_args 0 {\n";
        let mut sets = |count: u64, id: i64, ids: bool| {
            let _ = writeln!(text, " {{\n  bucket_id {id}\n  weight_set [");
            for _ in 0..self.positions {
                let weights: Vec<_> = (0..count).map(|_| quarters(chance.below(30))).collect();
                let _ = writeln!(text, "   [ {} ]", weights.join(" "));
            }
            *text += "  ]\n";
            if ids {
                let ids: Vec<_> = (0..count).map(|n| (-1000 - n as i64).to_string()).collect();
                let _ = writeln!(text, "  ids [ {} ]", ids.join(" "));
            }
            *text += " }\n";
        };
        sets(self.racks, -1, self.ids);
        for host in (0..self.racks * self.hosts).step_by(2) {
            sets(self.devices, -2 - host as i64, false);
        }
        *text += "}\n";
    }

    /// Compiles the map with a `crushtool` into `folder`.
    pub(crate) fn compile(&self, crushtool: Command, folder: &Folder) -> PathBuf {
        compile(&self.text(), crushtool, folder)
    }
}

/// Compiles a map in its text form with a `crushtool` into `folder`.
pub(crate) fn compile(text: &str, mut crushtool: Command, folder: &Folder) -> PathBuf {
    let (source, map) = (folder.file("map.txt"), folder.file("map.crush"));
    std::fs::write(&source, text).unwrap();
    crushtool.args(["--enable-unsafe-tunables", "-c"]).arg(&source).arg("-o").arg(&map);
    run(&mut crushtool);
    map
}

fn quarters(count: u64) -> String {
    format!("{}.{:02}0", count / 4, count % 4 * 25)
}

/// What `crushtool --test --show-mappings` says of a rule: for each number from 0, the devices.
pub(crate) fn mappings(
    mut crushtool: Command,
    map: &Path,
    rule: usize,
    size: u32,
    count: u32,
    weights: &[(usize, f64)],
) -> Vec<Vec<i32>> {
    crushtool.arg("-i").arg(map).args(["--test", "--show-mappings"]);
    crushtool.args(["--rule", &rule.to_string(), "--num-rep", &size.to_string()]);
    crushtool.args(["--min-x", "0", "--max-x", &(count - 1).to_string()]);
    for (device, weight) in weights {
        crushtool.args(["--weight", &device.to_string(), &weight.to_string()]);
    }
    let text = run(&mut crushtool);
    let lines = text.lines().filter(|line| line.starts_with("CRUSH rule"));
    lines.map(|line| devices(line.rsplit(' ').next().unwrap())).collect()
}

/// Reads `[1,2,3]`.
pub(crate) fn devices(text: &str) -> Vec<i32> {
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    inner.split(',').filter(|one| !one.is_empty()).map(|one| one.parse().unwrap()).collect()
}
