//! Maps of real clusters through their changes: each epoch's map is read, the increment to the next one
//! makes it, and objects are where the cluster says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use siphon_osdmap::{Incremental, OsdMap, PgWorkspace};
use siphon_peers::{CephTree, Cluster, ClusterOptions, Release, require};
use siphon_wire::types::{ByteString, EntityAddr, EntityAddrVec, ObjectLocator};
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
    osd blocklist add 10.0.0.3
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
    root: PathBuf,
    /// A folder in the tree that the cluster runs in.
    folder: PathBuf,
    copy: String,
}

impl Store {
    /// A copy of the store, whose owner keeps it open: a file may come or go meanwhile.
    fn copy_of(cluster: &Cluster, tree: &CephTree) -> Self {
        let folder = cluster.keyring().parent().unwrap().to_owned();
        for attempt in 0..20 {
            let store = Self {
                root: tree.root().to_owned(),
                folder: folder.clone(),
                copy: format!("copy{attempt}"),
            };
            let copy = folder.join(&store.copy);
            fs::create_dir(&copy).unwrap();
            let files = fs::read_dir(folder.join("mon.a/store.db")).unwrap().flatten();
            let copied = files
                .map(|file| fs::copy(file.path(), copy.join(file.file_name())))
                .collect::<Result<Vec<_>, _>>();
            if copied.is_ok() && store.get("full_1").is_some() {
                return store;
            }
        }
        panic!("no copy of the monitor's store can be read");
    }

    fn get(&self, key: &str) -> Option<Bytes> {
        let out = self.folder.join("value");
        let _ = fs::remove_file(&out);
        let inside = |path: &Path| Path::new("/").join(path.strip_prefix(&self.root).unwrap());
        let mut tool = Command::new("chroot");
        tool.arg(&self.root).args(["ceph-kvstore-tool", "rocksdb"]);
        tool.arg(inside(&self.folder.join(&self.copy)));
        tool.args(["get", "osdmap", key, "out"]).arg(inside(&out));
        tool.env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin").output().unwrap();
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
        let change = if release == Release::Nautilus {
            &change.replace("blocklist", "blacklist")
        } else {
            change
        };
        let args: Vec<_> = change.split_whitespace().collect();
        cluster.ceph(&args).unwrap_or_else(|error| panic!("{change}: {error}"));
    }
    let pool = cluster.json(&["osd", "pool", "get", "data", "pg_num"]).unwrap();
    let pool = pool["pool_id"].as_i64().unwrap();
    let items = ["osd", "pg-upmap-items", &format!("{pool}.1"), "0", "1"];
    cluster.ceph(&items).unwrap();
    let temp = ["osd", "pg-temp", &format!("{pool}.2"), "0"];
    cluster.ceph(&temp).unwrap();

    if release > Release::Pacific {
        for range in ["10.1.0.0/22", "2001:db8::/112"] {
            cluster.ceph(&["osd", "blocklist", "range", "add", range]).unwrap();
        }
    }

    let tree = require(CephTree::of(release)).unwrap();
    let store = Store::copy_of(&cluster, &tree);
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
            let features = (later.encoding_features(), inc.encode_features);
            assert!(features.0 == features.1 || !exact, "{features:#?}");
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
    let last = before.unwrap();
    check_blocklist(&last, release);
    check_objects(&cluster, &last);
}

fn check_blocklist(map: &OsdMap, release: Release) {
    let listed =
        |addr: &str| map.blocklisted(&EntityAddrVec::from(addr.parse::<EntityAddr>().unwrap()));
    assert!(listed("v1:10.0.0.2:0/5").is_some() && listed("v2:10.0.0.2:0/5").is_some());
    assert!(listed("v1:10.0.0.1:0/5").is_none() && listed("v1:10.0.0.2:0/6").is_none());
    // All of a host.
    assert!(listed("v1:10.0.0.3:5000/77").is_some());
    let in_range = ["v1:10.1.3.255:9/9", "v2:10.1.0.0:1/1", "v2:[2001:db8::ff]:1/1"];
    let out_of_range = ["v1:10.1.4.0:9/9", "v2:10.0.255.255:1/1", "v2:[2001:db8::1:0]:1/1"];
    let ranges = release > Release::Pacific;
    assert!(in_range.iter().all(|addr| listed(addr).is_some() == ranges));
    assert!(out_of_range.iter().all(|addr| listed(addr).is_none()));
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
fn nautilus() {
    follow(Release::Nautilus, false);
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
