use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::error::Missing;
use crate::scratch::Scratch;
use crate::{CephTree, Leash, PeerError, Release, free_ports, is_root, run};

const TOOL_TIMEOUT: Duration = Duration::from_secs(60);
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// A port can be taken between choosing and binding it.
const MAX_STARTS: u32 = 3;

/// Daemons besides OSDs, and what their keys may do.
const DAEMONS: [(&str, &[&str]); 3] = [
    ("mon.", &["mon=allow *"]),
    ("client.admin", &["mon=allow *", "osd=allow *", "mgr=allow *"]),
    ("mgr.x", &["mon=allow profile mgr", "osd=allow *"]),
];
const OSD_CAPS: &[&str] = &["mon=allow profile osd", "mgr=allow profile osd", "osd=allow *"];

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many monitors it has, at most 5: `mon.a`, `mon.b`, …
    pub mons: u32,
    /// How many OSDs it has.
    pub osds: u32,
    /// The kind of all keys and tickets, from 20.2.4 on: `aes` or `aes256k`. Older releases know no
    /// choice.
    pub key_type: Option<&'static str>,
    /// Further lines of the configuration's `[global]`, such as `auth_service_ticket_ttl = 5`.
    pub config: Vec<String>,
}

/// One monitor, one OSD, and nothing further.
impl Default for ClusterOptions {
    fn default() -> Self {
        Self { mons: 1, osds: 1, key_type: None, config: Vec::new() }
    }
}

/// A throw-away cluster on 127.0.0.1, with cephx: monitors, a manager and OSDs in memory, of the
/// release that is wanted, each with an address of msgr1 and one of msgr2.
///
/// All its files are in a folder of its own, within the tree of the release: the daemons run by
/// chroot, which takes root. When dropped, they end and the folder is removed.
///
/// ```no_run
/// use siphon_peers::{Cluster, ClusterOptions, Release};
///
/// let cluster = Cluster::start(Release::Reef, &ClusterOptions::default())?;
/// println!("{} at {}", cluster.version(), cluster.mon_v2());
/// println!("{}", cluster.ceph(&["status"])?);
/// # Ok::<(), siphon_peers::PeerError>(())
/// ```
#[derive(Debug)]
pub struct Cluster {
    // Before `dir`: the daemons end before their files go. A manager before the monitors it talks to.
    mgr: Leash,
    osds: Vec<Leash>,
    mons: Vec<Leash>,
    files: Files,
    version: String,
    addrs: Vec<MonAddrs>,
}

/// A monitor's name, and where it is.
#[derive(Clone, Debug)]
struct MonAddrs {
    name: String,
    v2: SocketAddr,
    v1: SocketAddr,
}

const MAX_MONS: usize = 5;

impl MonAddrs {
    fn of(options: &ClusterOptions) -> Vec<Self> {
        let ports: [u16; 2 * MAX_MONS] = free_ports();
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let named = ["a", "b", "c", "d", "e"].into_iter().zip(ports.chunks(2));
        let named = named.map(|(name, ports)| Self {
            name: name.to_owned(),
            v2: at(ports[0]),
            v1: at(ports[1]),
        });
        named.take(options.mons as usize).collect()
    }
}

impl std::fmt::Display for MonAddrs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[v2:{},v1:{}]", self.v2, self.v1)
    }
}

impl Cluster {
    /// Makes a cluster and starts it; returns when its OSDs are up and its manager active, which takes
    /// a few seconds.
    ///
    /// # Errors
    /// [`PeerError::Unavailable`] if this machine cannot have the release, or we are not root; any
    /// other if it does not start.
    pub fn start(release: Release, options: &ClusterOptions) -> Result<Self, PeerError> {
        let tree = CephTree::of(release)?;
        if !is_root() {
            return Err(Missing::Root("a cluster runs by chroot").into());
        }
        let mut attempts = 1;
        loop {
            match Self::try_start(&tree, options) {
                Err(PeerError::TimedOut { .. } | PeerError::Failed { .. })
                    if attempts < MAX_STARTS =>
                {
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    fn try_start(tree: &CephTree, options: &ClusterOptions) -> Result<Self, PeerError> {
        let addrs = MonAddrs::of(options);
        let dir = Scratch::new(Some(&tree.root().join("tmp")), "siphon")?;
        let name = dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let files = Files { dir, inside: format!("/tmp/{name}"), tree: tree.clone() };
        files.prepare(&addrs, options)?;
        let version = files.tool("ceph-mon", &["--version"])?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let version = version.split_whitespace().nth(2).unwrap_or("unknown").to_owned();

        let mons = addrs.iter().map(|mon| files.launch_mon(mon));
        let mons = mons.collect::<Result<Vec<_>, _>>()?;
        for (mon, addrs) in mons.iter().zip(&addrs) {
            mon.wait_until_listening(addrs.v2, START_TIMEOUT)?;
        }
        let osds = (0..options.osds).map(|id| files.launch_osd(id)).collect::<Result<_, _>>()?;
        let mgr = files.launch_mgr()?;
        let cluster = Self { mgr, osds, mons, files, version, addrs };
        cluster.mgr.wait_until("up, all OSDs", START_TIMEOUT, || {
            let up = |map: &Value| map["num_up_osds"] == options.osds;
            cluster.json(&["osd", "stat"]).is_ok_and(|map| up(&map) || up(&map["osdmap"]))
        })?;
        cluster.mgr.wait_until("active", START_TIMEOUT, || {
            cluster.json(&["mgr", "dump"]).is_ok_and(|map| map["available"] == true)
        })?;
        Ok(cluster)
    }

    /// The release's number: `18.2.7`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The first monitor's address of msgr2.
    pub fn mon_v2(&self) -> SocketAddr {
        self.addrs[0].v2
    }

    /// The first monitor's address of msgr1.
    pub fn mon_v1(&self) -> SocketAddr {
        self.addrs[0].v1
    }

    /// The addresses of all monitors, as the option `mon_host` has them.
    pub fn mon_host(&self) -> String {
        let addrs: Vec<_> = self.addrs.iter().map(ToString::to_string).collect();
        addrs.join(",")
    }

    /// Ends the manager by a signal.
    ///
    /// # Errors
    /// [`PeerError::System`].
    pub fn end_mgr(&mut self, signal: &str) -> Result<(), PeerError> {
        self.mgr.signal(signal)
    }

    /// Starts the manager that was ended.
    ///
    /// # Errors
    /// [`PeerError::System`].
    pub fn restart_mgr(&mut self) -> Result<(), PeerError> {
        self.mgr = self.files.launch_mgr()?;
        Ok(())
    }

    /// Ends a monitor by a signal; the first is 0.
    ///
    /// # Errors
    /// [`PeerError::System`].
    ///
    /// # Panics
    /// If there is no such monitor.
    pub fn end_mon(&mut self, index: usize, signal: &str) -> Result<(), PeerError> {
        self.mons[index].signal(signal)
    }

    /// Starts a monitor that was ended; returns when it listens.
    ///
    /// # Errors
    /// [`PeerError::System`], or if it does not start.
    ///
    /// # Panics
    /// If there is no such monitor.
    pub fn restart_mon(&mut self, index: usize) -> Result<(), PeerError> {
        let addrs = &self.addrs[index];
        self.mons[index] = self.files.launch_mon(addrs)?;
        self.mons[index].wait_until_listening(addrs.v2, START_TIMEOUT)
    }

    /// A keyring with the keys of all daemons and of `client.admin`.
    pub fn keyring(&self) -> PathBuf {
        self.files.dir.path().join("keyring")
    }

    /// The folder of all its files.
    pub fn folder(&self) -> &Path {
        self.files.dir.path()
    }

    /// A file of that folder, as the release's own programs see it.
    pub fn inside(&self, file: &str) -> String {
        format!("{}/{file}", self.files.inside)
    }

    /// What the release's own `ceph` prints to a command, as `client.admin`.
    ///
    /// # Errors
    /// If it fails.
    pub fn ceph(&self, args: &[&str]) -> Result<String, PeerError> {
        let output = self.files.tool("ceph", args)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// One of the release's own programs, `rados` for example, as `client.admin`, to which arguments
    /// can be added.
    pub fn program(&self, name: &str) -> Command {
        self.files.command(name)
    }

    /// A configuration file for clients outside of the tree: it has the monitor and the keyring.
    pub fn client_conf(&self) -> PathBuf {
        self.files.dir.path().join("client.conf")
    }

    /// Ends an OSD by a signal: it saves what it has in memory on `TERM`, and has lost it on `KILL`.
    ///
    /// # Errors
    /// [`PeerError::System`].
    ///
    /// # Panics
    /// If there is no such OSD.
    pub fn end_osd(&mut self, id: u32, signal: &str) -> Result<(), PeerError> {
        self.osds[id as usize].signal(signal)
    }

    /// Starts an OSD that was ended, with what it had saved.
    ///
    /// # Errors
    /// [`PeerError::System`].
    ///
    /// # Panics
    /// If there is no such OSD.
    pub fn restart_osd(&mut self, id: u32) -> Result<(), PeerError> {
        self.osds[id as usize] = self.files.launch_osd(id)?;
        Ok(())
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// If it fails. What is no JSON is null.
    pub fn json(&self, args: &[&str]) -> Result<Value, PeerError> {
        let text = self.ceph(&[args, &["--format", "json"]].concat())?;
        Ok(serde_json::from_str(text.trim()).unwrap_or_default())
    }

    /// The end of what the daemons have logged, for a test that fails.
    pub fn logs(&self) -> String {
        let tail = |name: &str| {
            let log = fs::read_to_string(self.files.dir.path().join(format!("{name}.log")));
            let log = log.unwrap_or_default();
            let from = log.lines().count().saturating_sub(20);
            let lines: Vec<_> = log.lines().skip(from).collect();
            format!("{name}:\n{}\n", lines.join("\n"))
        };
        let osds = (0..self.osds.len()).map(|id| format!("osd.{id}"));
        let mons = self.addrs.iter().map(|mon| format!("mon.{}", mon.name));
        let names = mons.chain(["mgr.x".to_owned()]).chain(osds);
        names.map(|name| tail(&name)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let daemons = self.osds.iter_mut().chain([&mut self.mgr]).chain(&mut self.mons);
        for daemon in daemons {
            let _ = daemon.signal("KILL"); // its leash would, too
        }
    }
}

/// A cluster's folder, and how its programs are called.
#[derive(Debug)]
struct Files {
    dir: Scratch,
    /// The folder as the daemons see it.
    inside: String,
    tree: CephTree,
}

impl Files {
    fn command(&self, program: &str) -> Command {
        let mut command = self.tree.chroot(program);
        command.env("CEPH_CONF", format!("{}/ceph.conf", self.inside));
        command
    }

    fn tool(&self, program: &str, args: &[&str]) -> Result<Output, PeerError> {
        let mut command = self.command(program);
        command.args(args);
        run(command, TOOL_TIMEOUT)
    }

    fn launch(&self, program: &str, args: &[&str]) -> Result<Leash, PeerError> {
        let mut command = self.command(program);
        command.args(args);
        Leash::start(command, self.dir.path().join(format!("{program}.out")))
    }

    fn launch_osd(&self, id: u32) -> Result<Leash, PeerError> {
        self.launch("ceph-osd", &["-f", "-i", &id.to_string(), "--no-mon-config"])
    }

    fn launch_mgr(&self) -> Result<Leash, PeerError> {
        self.launch("ceph-mgr", &["-f", "-i", "x"])
    }

    fn launch_mon(&self, mon: &MonAddrs) -> Result<Leash, PeerError> {
        self.launch("ceph-mon", &["-f", "-i", &mon.name])
    }

    /// Configuration, keys, first maps and the daemons' data.
    fn prepare(&self, mons: &[MonAddrs], options: &ClusterOptions) -> Result<(), PeerError> {
        let uuid = || {
            let text = fs::read_to_string("/proc/sys/kernel/random/uuid");
            text.map(|text| text.trim().to_owned()).map_err(PeerError::system("make a uuid"))
        };
        let (inside, fsid) = (&self.inside, uuid()?);
        let path = |name: &str| format!("{inside}/{name}");
        let osds: Vec<_> = (0..options.osds).map(|id| format!("osd.{id}")).collect();
        self.write(&fsid, mons, options)
            .map_err(PeerError::system(format!("write into {}", self.dir.path().display())))?;
        let key_type = options.key_type;
        let osd_keys = osds.iter().map(|name| (name.as_str(), OSD_CAPS));
        for (name, caps) in DAEMONS.into_iter().chain(osd_keys) {
            let keyring = path("keyring");
            let mut args = vec![keyring.as_str(), "-n", name, "--gen-key"];
            args.extend(key_type.iter().flat_map(|kind| ["--key-type", kind]));
            let caps: Vec<_> = caps.iter().filter_map(|caps| caps.split_once('=')).collect();
            args.extend(caps.iter().flat_map(|(service, caps)| ["--cap", service, caps]));
            self.tool("ceph-authtool", &args)?;
        }
        let (monmap, osdmap) = (path("monmap"), path("osdmap"));
        let mut args = vec!["--create".to_owned(), "--fsid".to_owned(), fsid.clone()];
        for mon in mons {
            args.extend(["--addv".to_owned(), mon.name.clone(), mon.to_string()]);
        }
        args.push(monmap.clone());
        let ciphers = key_type.map(|kind| {
            [
                format!("--auth-service-cipher={kind}"),
                format!("--auth-preferred-cipher={kind}"),
                "--auth-allowed-ciphers=aes,aes256k".to_owned(),
            ]
        });
        args.extend(ciphers.into_iter().flatten());
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        self.tool("monmaptool", &args)?;
        self.tool("osdmaptool", &["--createsimple", &options.osds.to_string(), &osdmap])?;
        let maps = ["--monmap", &monmap, "--osdmap", &osdmap];
        for mon in mons {
            self.tool("ceph-mon", &[&["-i", &mon.name, "--mkfs"], &maps[..]].concat())?;
        }
        for id in 0..options.osds {
            let (id, osd_uuid) = (id.to_string(), uuid()?);
            let mkfs = ["-i", &id, "--mkfs", "--no-mon-config", "--osd-uuid", &osd_uuid];
            self.tool("ceph-osd", &mkfs)?;
        }
        Ok(())
    }

    /// Elections and proposals that take Ceph seconds take a fraction here: there is nobody to wait
    /// for. The manager is shown no modules, which would take it long to load.
    fn write(
        &self,
        fsid: &str,
        mons: &[MonAddrs],
        options: &ClusterOptions,
    ) -> std::io::Result<()> {
        let (inside, dir) = (&self.inside, self.dir.path());
        let addrs: Vec<_> = mons.iter().map(ToString::to_string).collect();
        let addrs = addrs.join(",");
        for name in ["modules", "run", "mgr.x"] {
            fs::create_dir(dir.join(name))?;
        }
        for mon in mons {
            fs::create_dir(dir.join(format!("mon.{}", mon.name)))?;
        }
        for id in 0..options.osds {
            fs::create_dir(dir.join(format!("osd.{id}")))?;
        }
        for entry in fs::read_dir(self.tree.root().join("usr/share/ceph/mgr"))? {
            let name = entry?.file_name();
            if name.to_string_lossy().ends_with(".py") {
                let target = PathBuf::from("/usr/share/ceph/mgr").join(&name);
                std::os::unix::fs::symlink(target, dir.join("modules").join(&name))?;
            }
        }
        let mut keyring = fs::OpenOptions::new();
        keyring.write(true).create(true).mode(0o600).open(dir.join("keyring"))?;
        let text = format!(
            "[global]\nfsid = {fsid}\nmon_host = {addrs}\nkeyring = {inside}/keyring\n\
             run_dir = {inside}/run\ncrash_dir = {inside}/run\n\
             log_file = {inside}/$name.log\nmon_cluster_log_file = {inside}/cluster.log\n\
             mon_data = {inside}/$name\nosd_data = {inside}/$name\nmgr_data = {inside}/$name\n\
             public_addr = 127.0.0.1\ncluster_addr = 127.0.0.1\n\
             ms_bind_msgr1 = true\nms_bind_msgr2 = true\n\
             auth_allow_insecure_global_id_reclaim = false\n\
             mon_election_timeout = 1\npaxos_propose_interval = 0.05\npaxos_min_wait = 0.01\n\
             mon_data_avail_warn = 1\nmon_data_avail_crit = 0\n\
             mon_allow_pool_size_one = true\nosd_pool_default_size = 1\n\
             osd_pool_default_min_size = 1\nosd_crush_chooseleaf_type = 0\n\
             osd_crush_update_on_start = false\nosd_class_update_on_start = false\n\
             osd_objectstore = memstore\nmemstore_device_bytes = 1073741824\n\
             osd_mclock_skip_benchmark = true\nosd_memory_target = 1073741824\n\
             mgr_module_path = {inside}/modules\nmgr_initial_modules =\n\
             mgr_tick_period = 1\nmgr_stats_period = 1\n{}\n",
            options.config.join("\n")
        );
        fs::write(dir.join("ceph.conf"), text)?;
        let keyring = dir.join("keyring");
        let text = format!(
            "[global]\nfsid = {fsid}\nmon_host = {addrs}\nkeyring = {}\n",
            keyring.display()
        );
        fs::write(dir.join("client.conf"), text)
    }
}
