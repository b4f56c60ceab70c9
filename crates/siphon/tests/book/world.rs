//! Where the blocks of a page run: a folder of its own, a real cluster, and what stands for the text's
//! addresses and paths.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use siphon_peers::{Cluster, ClusterOptions, Release, free_ports, require};
use tempfile::TempDir;

use crate::page::root;

/// Of the text's hosts and our own; each goes to a free port.
const HOSTS: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "127.0.0.1"];
/// Folders of a host that has Ceph, and what stands for them in the folder of a page; the first is where
/// that folder is, and so the first to be replaced.
const FOLDERS: [(&str, &str); 4] =
    [("/tmp/", "tmp"), ("/etc/ceph/", "etc"), ("/var/run/ceph/", "run"), ("/var/log/", "log")];
/// The device of the text, and that of the machine that has some.
const DEVICE: (&str, &str) = ("mlx5_0", "rxe0");
/// The configuration file of a page without a cluster.
const CONF: &str =
    "[global]\n    mon_host = 10.0.0.1\n    keyring = /etc/ceph/$cluster.$name.keyring\n";
/// Ports of other addresses than those of the cluster.
const PORTS: usize = 16;

/// The cluster that all pages share, if this machine can have one.
#[derive(Default)]
pub(crate) struct Clusters(OnceCell<Option<Running>>);

/// A cluster with a pool.
struct Running {
    cluster: Cluster,
    /// An OSD's address of msgr2.
    osd: String,
}

impl Clusters {
    fn get(&self) -> Option<&Running> {
        self.0.get_or_init(Self::start).as_ref()
    }

    fn start() -> Option<Running> {
        let options = ClusterOptions {
            config: vec!["mon_allow_pool_delete = true".to_owned()],
            ..ClusterOptions::default()
        };
        let cluster = require(Cluster::start(Release::Tentacle, &options))?;
        cluster.ceph(&["osd", "pool", "create", "data", "8"]).expect("it makes a pool");
        let map = cluster.json(&["osd", "dump"]).expect("it has a map");
        let addrs =
            map["osds"][0]["public_addrs"]["addrvec"].as_array().expect("of an OSD").clone();
        let v2 = addrs.iter().find(|addr| addr["type"] == "v2").expect("which speaks msgr2");
        let osd = v2["addr"].as_str().expect("somewhere").to_owned();
        Some(Running { cluster, osd })
    }
}

/// The world of one page.
pub(crate) struct World<'a> {
    folder: TempDir,
    cluster: Option<&'a Running>,
    /// Ports that nothing stands for yet.
    free: RefCell<Vec<u16>>,
    ports: RefCell<BTreeMap<String, u16>>,
    /// The program that stands above.
    program: RefCell<PathBuf>,
}

impl<'a> World<'a> {
    /// A world, which has a cluster if the page wants one, and this machine can have it.
    pub(crate) fn new(clusters: &'a Clusters, with_cluster: bool) -> Self {
        let cluster = with_cluster.then(|| clusters.get()).flatten();
        let folder = tempfile::tempdir().expect("there is a place for it");
        let ports: [u16; PORTS] = free_ports();
        let free = RefCell::new(ports.into());
        let (ports, program) = Default::default();
        let world = Self { folder, cluster, free, ports, program };
        world.prepare().expect("a new folder can be written to");
        world
    }

    pub(crate) fn has_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Whether the shell finds a program of this name.
    pub(crate) fn has_program(&self, name: &str) -> bool {
        self.shell(&format!("command -v {name}")).output().is_ok_and(|it| it.status.success())
    }

    fn prepare(&self) -> std::io::Result<()> {
        for name in ["bin", "etc", "log", "tmp"] {
            fs::create_dir(self.path(name))?;
        }
        symlink(env!("CARGO_BIN_EXE_siphon"), self.path("bin/siphon"))?;
        let conf = self.path("etc/ceph.conf");
        let Some(Running { cluster, .. }) = self.cluster else {
            fs::create_dir(self.path("run"))?;
            return fs::write(conf, CONF);
        };
        fs::copy(cluster.client_conf(), conf)?;
        let files = cluster.keyring().parent().expect("the cluster's folder").to_owned();
        symlink(files.join("run"), self.path("run"))
    }

    /// The folder that commands run in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Has the following blocks run this example, by `cargo run`.
    pub(crate) fn set_program(&self, name: &str) {
        let folder = Path::new(env!("CARGO_BIN_EXE_siphon")).with_file_name("examples");
        *self.program.borrow_mut() = folder.join(name);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of the shell in this world.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut path = self.path("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command.args(["--norc", "-eu", "-o", "pipefail", "-c", script]);
        command.current_dir(self.folder()).env("PATH", path).env("HOME", self.folder());
        command.env("CEPH_CONF", self.path("etc/ceph.conf"));
        command.env("PROGRAM", &*self.program.borrow()).env("CRATES", root().join("crates"));
        // What cargo and rustup find by HOME.
        let home = std::env::home_dir().unwrap_or_default();
        for (variable, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let folder = std::env::var_os(variable).map_or(home.join(folder), PathBuf::from);
            command.env(variable, folder);
        }
        for variable in ["CEPH_ARGS", "CEPH_KEYRING", "SIPHON_LOG"] {
            command.env_remove(variable);
        }
        command
    }

    /// A text of the page, as it is in this world.
    pub(crate) fn translate(&self, text: &str) -> String {
        let mut text = text.replace(DEVICE.0, DEVICE.1);
        if let Some(Running { cluster, osd }) = self.cluster {
            text = text.replace("10.0.0.1:3300", &cluster.mon_v2().to_string());
            text = text.replace("10.0.0.1:6789", &cluster.mon_v1().to_string());
            text = text.replace("10.0.0.2:6800", osd);
        }
        text = text.replace(
            "exporter_port=9926",
            &format!("exporter_port={}", self.port("127.0.0.1:9926")),
        );
        for host in HOSTS {
            text = self.with_ports(&text, host);
            text = text.replace(host, "127.0.0.1");
        }
        text = text.replace(" daemon osd.0 ", " daemon /var/run/ceph/ceph-osd.0.asok ");
        for (theirs, ours) in FOLDERS {
            text = text.replace(theirs, &format!("{}/", self.path(ours).display()));
        }
        text
    }

    /// Replaces this host's ports by free ones, the same by the same.
    fn with_ports(&self, text: &str, host: &str) -> String {
        let before = format!("{host}:");
        let mut parts = text.split(&before);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|it: char| !it.is_ascii_digit()).unwrap_or(part.len());
            let (port, rest) = part.split_at(end);
            let is_ours = self.cluster.is_some_and(|it| it.has_port(port));
            match port {
                "" | "0" => out.push_str(&format!("127.0.0.1:{port}{rest}")),
                _ if is_ours => out.push_str(&format!("127.0.0.1:{port}{rest}")),
                _ => out
                    .push_str(&format!("127.0.0.1:{}{rest}", self.port(&format!("{host}:{port}")))),
            }
        }
        out
    }

    fn port(&self, addr: &str) -> u16 {
        let mut free = self.free.borrow_mut();
        let mut ports = self.ports.borrow_mut();
        if let Some((_, port)) =
            ports.iter().find(|(known, port)| *known == addr || format!("127.0.0.1:{port}") == addr)
        {
            return *port;
        }
        let port = free.pop().expect("a page has no more addresses");
        ports.insert(addr.to_owned(), port);
        port
    }
}

impl Running {
    /// Whether a daemon of the cluster listens there: what was translated stays.
    fn has_port(&self, port: &str) -> bool {
        let monitors = [self.cluster.mon_v2(), self.cluster.mon_v1()];
        let port = format!(":{port}");
        monitors.iter().any(|addr| addr.to_string().ends_with(&port)) || self.osd.ends_with(&port)
    }
}
