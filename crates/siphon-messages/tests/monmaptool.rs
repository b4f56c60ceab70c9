//! Maps that Ceph's own `monmaptool` makes, and ours as it reads them.
//!
//! Where there is no such program (Debian's package ceph-common), the tests say that they skip;
//! in continuous integration, where `CI` is set, that is a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use siphon_messages::mon::{ElectionStrategy, MonFeatures, MonMap, Release};
use siphon_wire::types::{Epoch, Features, Utime};
use siphon_wire::{Decode, Encode};

/// A map's file, gone when the test ends.
struct MapFile(PathBuf);

impl MapFile {
    fn new(test: &str) -> Self {
        let name = format!("siphon-monmap-{test}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn read(&self) -> MonMap {
        MonMap::from_bytes(&Bytes::from(fs::read(&self.0).unwrap())).unwrap()
    }

    fn write(&self, map: &MonMap, features: Features) {
        fs::write(&self.0, map.to_bytes(features)).unwrap();
    }

    /// What `monmaptool --print` says, but for the line that names the file.
    fn print(&self) -> String {
        let text = monmaptool(&["--print"], &self.0);
        let lines = text.lines().filter(|line| !line.starts_with("monmaptool: "));
        lines.map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for MapFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether there is a `monmaptool` to test with.
fn present() -> bool {
    let found = Command::new("monmaptool").arg("--version").output().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "monmaptool is missing (package ceph-common)");
        println!("monmaptool is missing (package ceph-common): skipped");
    }
    found
}

fn monmaptool(args: &[&str], map: &Path) -> String {
    let mut command = Command::new("monmaptool");
    let output = command.env("TZ", "UTC").args(args).arg(map).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

const FSID: &str = "12345678-9abc-def0-1234-56789abcdef0";
const A: &str = "[v2:127.0.0.1:3300,v1:127.0.0.1:6789]";
const B: &str = "[v2:[::1]:3300,v1:[::1]:6789]";

#[test]
fn cephs_maps_are_read_to_the_last_bit() {
    if !present() {
        return;
    }
    let file = MapFile::new("read");
    let args = ["--create", "--fsid", FSID, "--addv", "a", A, "--addv", "b", B, "--add", "c"];
    let features = ["10.0.0.1:6789", "--set-min-mon-release", "pacific", "--enable-all-features"];
    monmaptool(&[&args[..], &features[..]].concat(), &file.0);

    let map = file.read();
    assert_eq!(map.to_string(), file.print());
    assert_eq!(&map.to_bytes(Features::ALL)[..], fs::read(&file.0).unwrap());
    assert_eq!(map.fsid.to_string(), FSID);
    assert_eq!(map.min_mon_release, Release::PACIFIC);
    let names: Vec<_> = map.by_rank().map(|(_, mon)| mon.name.to_string()).collect();
    assert_eq!(names, ["c", "a", "b"]);

    let listed = monmaptool(&["--feature-list", "parseable"], &file.0);
    for (feature, name) in map.persistent_features.iter() {
        let (name, bit) = (name.unwrap(), feature.0);
        assert!(listed.contains(&format!("{name}({bit})")), "{name}({bit}) in {listed}");
    }
}

#[test]
fn maps_without_features_have_ranks_by_address() {
    if !present() {
        return;
    }
    let file = MapFile::new("plain");
    let mons = ["--add", "z", "10.0.0.1:6789", "--add", "y", "10.0.0.2:6789"];
    monmaptool(&[&["--create"][..], &mons[..]].concat(), &file.0);
    let map = file.read();
    assert_eq!(map.to_string(), file.print());
    assert_eq!(&map.to_bytes(Features::ALL)[..], fs::read(&file.0).unwrap());

    // What peers before Nautilus get has no ranks: they come from the addresses.
    file.write(&map, Features::NONE | Features::MONNAMES);
    assert_eq!(file.read().ranks, map.ranks);
    assert_eq!(file.print(), file.read().to_string());
}

#[test]
fn ceph_reads_our_maps() {
    if !present() {
        return;
    }
    let mut map = MonMap {
        epoch: Epoch(7),
        fsid: FSID.parse().unwrap(),
        last_changed: Utime::new(1_700_000_000, 123_456_000),
        created: Utime::new(1_600_000_000, 1_000),
        persistent_features: MonFeatures::NAUTILUS | MonFeatures::PINGING,
        min_mon_release: Release::PACIFIC,
        strategy: ElectionStrategy::CONNECTIVITY,
        disallowed_leaders: ["b".into(), "d".into()].into(),
        stretch_mode_enabled: true,
        tiebreaker_mon: "d".into(),
        ..MonMap::default()
    };
    map.add("d", "v1:10.0.0.4:6789/0".parse().unwrap());
    map.add("a", A.parse().unwrap());
    map.add("b", B.parse().unwrap());
    let location = [("host".into(), "h1".into()), ("datacenter".into(), "x".into())];
    map.mons.get_mut(&b"a"[..].into()).unwrap().crush_location = location.into();

    let file = MapFile::new("write");
    file.write(&map, Features::ALL);
    assert_eq!(file.print(), map.to_string());
    // And in each older form, as far as it reaches.
    let luminous = Features(Features::ALL.0 & !(1 << 2));
    let kraken = Features::MONNAMES | Features::MONENC;
    let forms = [(1, Features::NONE), (2, Features::MONNAMES), (5, kraken), (5, luminous)];
    for (version, features) in forms {
        file.write(&map, features);
        assert_eq!(fs::read(&file.0).unwrap()[0], version);
        assert_eq!(file.print(), file.read().to_string(), "{features:?}");
    }
}
