//! Maps of real clusters through their changes: each epoch's map is read, the increment to the next one
//! makes it, and objects are where the cluster says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use siphon_osdmap::{Incremental, OsdMap, PgWorkspace};
use siphon_peers::{CephTree, Cluster, ClusterOptions, Release, require};
use siphon_wire::types::{ByteString, ObjectLocator};
use siphon_wire::{Decode, Encode};

/// What an administrator does to a map. (`osd.0` is there; others are added, and never run.)
const CHANGES: &str = "\
    osd set-require-min-compat-client luminous
    osd new 11111111-0000-4000-8000-000000000001
    osd new 11111111-0000-4000-8000-000000000002
    osd new 11111111-0000-4000-8000-000000000003
    osd crush add osd.1 1.5 host=a rack=r root=default
    osd crush add osd.2 0.5 host=b rack=r root=default
    osd crush set-device-class ssd osd.1
    osd crush rule create-replicated fast default osd ssd
    osd pool create data 32
    osd pool create more 13 13 replicated fast
    osd erasure-code-profile set two k=2 m=1 crush-failure-domain=osd
    osd pool create coded 8 8 erasure two
    osd pool application enable data rbd
    osd pool mksnap data one
    osd pool mksnap data two
    osd pool rmsnap data one
    osd pool set data compression_mode force
    osd pool set-quota data max_objects 1000
    osd in 1
    osd reweight 2 0.25
    osd out 1
    osd primary-affinity 0 0.5
    osd crush weight-set create-compat
    osd crush weight-set reweight-compat osd.1 0.75
    osd set noout
    osd set-group noup 2
    osd blocklist add 10.0.0.1:0/5
    osd blocklist add 10.0.0.2:0/5
    osd blocklist rm 10.0.0.1:0/5
    osd pool set data pg_num 64
    osd pool rename more less
    osd pool create doomed 1
    osd pool rm doomed doomed --yes-i-really-really-mean-it
    osd erasure-code-profile set gone k=3 m=1 crush-failure-domain=osd
    osd erasure-code-profile rm gone
    osd set-nearfull-ratio 0.8
    osd destroy 2 --yes-i-really-mean-it
    osd purge 3 --yes-i-really-mean-it
    osd down 0
    osd unset noout";

/// What was encoded of the maps, by the monitor's store.
struct Store {
    tree: CephTree,
    copy: PathBuf,
}

impl Store {
    /// A copy of the store, which its owner keeps open.
    fn copy_of(cluster: &Cluster, tree: CephTree, folder: &Path) -> Self {
        let store = cluster.keyring().with_file_name("mon.a").join("store.db");
        let copy = folder.join("store.db");
        fs::create_dir_all(&copy).unwrap();
        for file in fs::read_dir(store).unwrap().flatten() {
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
        Self { tree, copy }
    }

    fn get(&self, key: &str) -> Option<Bytes> {
        let out = self.copy.with_file_name("value");
        let _ = fs::remove_file(&out);
        let mut tool: Command = self.tree.command("ceph-kvstore-tool");
        tool.arg("rocksdb").arg(&self.copy).args(["get", "osdmap", key, "out"]).arg(&out);
        tool.output().unwrap();
        fs::read(&out).ok().map(Bytes::from)
    }
}

/// Has a cluster of a release change its map, and follows. Returns how many epochs were followed.
fn follow(release: Release, exact: bool) {
    let options = ClusterOptions {
        config: vec!["mon_allow_pool_delete = true".into()],
        ..Default::default()
    };
    let Some(cluster) = require(Cluster::start(release, &options)) else { return };
    for change in CHANGES.lines() {
        let args: Vec<_> = change.split_whitespace().collect();
        cluster.ceph(&args).unwrap_or_else(|error| panic!("{change}: {error}"));
    }
    let pool = cluster.json(&["osd", "pool", "get", "data", "pg_num"]).unwrap();
    let pool = pool["pool_id"].as_i64().unwrap();
    let items = ["osd", "pg-upmap-items", &format!("{pool}.1"), "0", "1"];
    cluster.ceph(&items).unwrap();
    let temp = ["osd", "pg-temp", &format!("{pool}.2"), "0"];
    cluster.ceph(&temp).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let tree = require(CephTree::of(release)).unwrap();
    let store = Store::copy_of(&cluster, tree, folder.path());
    let (mut followed, mut before, mut written) = (0, None::<OsdMap>, 0);
    for epoch in 1.. {
        let Some(full) = store.get(&format!("full_{epoch}")) else { break };
        let later = OsdMap::from_bytes(&full).unwrap();
        if let Some(mut map) = before.take() {
            let inc = store.get(&epoch.to_string()).unwrap();
            let inc = Incremental::from_bytes(&inc).unwrap();
            map.apply(&inc).unwrap();
            assert_eq!(map.crc, later.crc, "{epoch}");
            assert_eq!(map, later, "{epoch}");
            followed += 1;
            let same = later.to_bytes(inc.encode_features) == full;
            assert!(same || !exact, "{epoch} is written otherwise");
            written += u32::from(same);
        }
        before = Some(later);
    }
    println!(
        "{}: {followed} increments followed, {written} maps written as they were",
        cluster.version()
    );
    assert!(followed > 40);
    check_objects(&cluster, &before.unwrap());
}

/// Compares where objects are with what `ceph osd map` says.
fn check_objects(cluster: &Cluster, stored: &OsdMap) {
    let mut work = PgWorkspace::new();
    for (id, name) in &stored.pool_names {
        for (object, namespace) in [("foo", ""), ("rbd_directory", ""), ("foo", "ns"), ("x.y", "z")]
        {
            let name = name.to_string();
            let mut args = vec!["osd", "map", &name, object];
            args.extend(Some(namespace).filter(|namespace| !namespace.is_empty()));
            let told = cluster.json(&args).unwrap();
            // The OSD that was marked down is back by now: a map of the same epoch is needed.
            let epoch = told["epoch"].as_u64().unwrap();
            let map = if epoch == u64::from(stored.epoch.0) {
                stored.clone()
            } else {
                get(cluster, epoch)
            };
            let locator =
                ObjectLocator { namespace: ByteString::from(namespace), ..ObjectLocator::new(*id) };
            let raw = map.map_object(object.as_bytes(), &locator).unwrap();
            let osds = map.map_pg(raw, &mut work);
            let list =
                |key: &str| -> Vec<i32> { serde_json::from_value(told[key].clone()).unwrap() };
            assert_eq!(map.actual_pg(raw).unwrap().to_string(), told["pgid"], "{name}/{object}");
            assert_eq!(
                (osds.up, osds.acting),
                (&list("up")[..], &list("acting")[..]),
                "{name}/{object}"
            );
            let primary = told["acting_primary"].as_i64().unwrap();
            assert_eq!(osds.acting_primary.map_or(-1, i64::from), primary, "{name}/{object}");
        }
    }
}

/// The map of an epoch.
fn get(cluster: &Cluster, epoch: u64) -> OsdMap {
    let keyring = cluster.keyring();
    let folder = keyring.parent().unwrap();
    let inside = Path::new("/tmp").join(folder.file_name().unwrap()).join("map");
    let inside = inside.to_string_lossy().into_owned();
    cluster.ceph(&["osd", "getmap", &epoch.to_string(), "-o", &inside]).unwrap();
    OsdMap::from_bytes(&Bytes::from(fs::read(folder.join("map")).unwrap())).unwrap()
}

#[test]
fn pacific() {
    // It has the same features as Reef, and writes no primaries by hand.
    follow(Release::Pacific, false);
}

#[test]
fn reef() {
    follow(Release::Reef, true);
}

#[test]
fn tentacle() {
    follow(Release::Tentacle, true);
}
