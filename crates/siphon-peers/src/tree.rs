use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use crate::error::Missing;
use crate::scratch::Scratch;
use crate::{AUTH_NONE, Leash, PeerError, apt, clean, run};

/// The Ceph release whose tools are compared with ours.
pub const TREE_RELEASE: &str = "18.2.7";

/// A release of Ceph, as one of Debian's has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Release {
    /// 14.2.21, of Debian 11.
    Nautilus,
    /// 16.2.15, of Debian 12.
    Pacific,
    /// 18.2.7, of Debian 13.
    Reef,
    /// 20.2.4 or a later one, of Debian unstable.
    Tentacle,
}

impl Release {
    /// All of them, the oldest first.
    pub const ALL: [Self; 4] = [Self::Nautilus, Self::Pacific, Self::Reef, Self::Tentacle];

    /// Debian's name of its release.
    fn suite(self) -> &'static str {
        match self {
            Self::Nautilus => "bullseye",
            Self::Pacific => "bookworm",
            Self::Reef => "trixie",
            Self::Tentacle => "sid",
        }
    }

    /// What is unpacked: the daemons and their tools, and of one release Ceph's own tests.
    fn packages(self) -> String {
        let daemons = "coreutils,python3,ceph-mon,ceph-osd,ceph-mgr,ceph-common,python3-rados,\
                       ceph-mgr-modules-core";
        match self {
            Self::Nautilus => daemons.replace(",ceph-mgr-modules-core", ""), // not split off yet
            Self::Reef => format!("{daemons},ceph-test"),
            // Its zlib and lz4 want it, and its package does not say so.
            Self::Tentacle => format!("{daemons},libqatzip3"),
            _ => daemons.to_owned(),
        }
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nautilus => "nautilus",
            Self::Pacific => "pacific",
            Self::Reef => "reef",
            Self::Tentacle => "tentacle",
        })
    }
}

/// Counts the changes to what is unpacked, so that trees of old are not taken for new ones.
const RECIPE: u32 = 2;
/// Unpacking takes 40 s where the network is quick.
const UNPACK_TIMEOUT: Duration = Duration::from_secs(600);
const COMPILE_TIMEOUT: Duration = Duration::from_secs(60);
const HANG_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_ATTEMPTS: u32 = 12;
const LISTEN_TIMEOUT: Duration = Duration::from_secs(30);

/// A release of Ceph, as Debian has it: unpacked, not installed. That of Debian 13 has Ceph's own test
/// programs as well.
///
/// ```no_run
/// use siphon_peers::{CephTree, require};
///
/// let Some(tree) = require(CephTree::open()) else { return };
/// let mut client = tree.command("ceph_perf_msgr_client");
/// client.args(["127.0.0.1:6800", "1", "32", "1000", "0", "4096"]);
/// ```
///
/// # How these programs want to be called
///
/// - From the tree's own dynamic loader, with the tree's libraries: the host's C library may be older
///   than they need. Then neither root nor chroot is needed. (Checked with strace: outside the tree
///   they open `/sys`, `/proc` and `/etc/libnl/classid`, no more.)
/// - An address is `IP:PORT`, which means msgr2. (18.2.7 also takes `v2:IP:PORT` and a nonce; with a
///   vector in brackets or a host name the client says "Address family not supported" and hangs.)
/// - No configuration file: the messenger's tools look for none unless `CEPH_CONF` or `-c` names
///   one, so `-c /dev/null` is not needed once the environment is clean. They log to standard error.
/// - [`AUTH_NONE`], else they look for a keyring in `/etc/ceph` and complain.
/// - `ceph_perf_msgr_server IP:PORT WORKERS THINK_US`: runs until killed. If the port is taken, it
///   tries again every 5 s, as `ms_bind_retry_delay` says, and runs on.
/// - `ceph_perf_msgr_client IP:PORT JOBS CONCURRENCY IOS THINK_US LEN`: waits a second before it
///   begins, which its time leaves out; hangs if the server goes.
///
/// # The sleep
///
/// Both call `usleep(THINK_US)` for each message, also for 0, and wait then for the kernel's timer:
/// 20 000 messages of 4 KiB at depth 32 take 3.3 s so, and 0.3 s without, on one machine.
/// [`CephTree::without_idle_sleep`] takes that out by a preloaded library (`nosleep.c`), and nothing
/// else, so that a comparison measures messengers. The messenger itself is as Debian built it.
#[derive(Clone, Debug)]
pub struct CephTree {
    root: PathBuf,
    platform: &'static Platform,
    preload: Option<PathBuf>,
}

/// Where an architecture's Debian has its loader and libraries.
#[derive(Debug)]
struct Platform {
    arch: &'static str,
    loader: &'static str,
    libraries: &'static str,
}

static PLATFORMS: [Platform; 2] = [
    Platform {
        arch: "x86_64",
        loader: "usr/lib64/ld-linux-x86-64.so.2",
        libraries: "usr/lib/x86_64-linux-gnu",
    },
    Platform {
        arch: "aarch64",
        loader: "usr/lib/ld-linux-aarch64.so.1",
        libraries: "usr/lib/aarch64-linux-gnu",
    },
];

impl CephTree {
    /// The tree of [`Release::Reef`], which has Ceph's tests; see [`CephTree::of`].
    ///
    /// # Errors
    /// [`PeerError::Unavailable`] if this machine cannot have it.
    pub fn open() -> Result<Self, PeerError> {
        Self::of(Release::Reef)
    }

    /// The tree of a release, which is unpacked first if it is not there: that takes the host's
    /// Debian mirror, `mmdebstrap`, up to a minute and 1 GB, once.
    ///
    /// It lies in the folder that `SIPHON_PEERS_DIR` names, else in `peers` of cargo's target folder.
    ///
    /// # Errors
    /// [`PeerError::Unavailable`] if this machine cannot have it.
    pub fn of(release: Release) -> Result<Self, PeerError> {
        let arch = env::consts::ARCH;
        let platform = PLATFORMS.iter().find(|platform| platform.arch == arch);
        let platform = platform.ok_or(Missing::Architecture(arch))?;
        let folder = folder();
        let root = folder.join(format!("ceph-{release}-{}-{RECIPE}-{arch}", release.suite()));
        fs::create_dir_all(&folder)
            .map_err(PeerError::system(format!("make the folder {}", folder.display())))?;
        if !root.exists() {
            // One process unpacks, others wait for it.
            let _lock = lock(&folder.join("lock"))?;
            if !root.exists() {
                unpack(release, &root)?;
            }
        }
        Ok(Self { root, platform, preload: None })
    }

    /// The folder with the tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The same programs, but a sleep of 0 µs is none: for fair comparisons (see above).
    ///
    /// # Errors
    /// There is no C compiler, `cc`, or it fails.
    pub fn without_idle_sleep(&self) -> Result<Self, PeerError> {
        let compiler = apt::program("cc", "gcc")?;
        let folder = folder();
        let scratch = Scratch::new(Some(&folder), "cc")?;
        let (source, built) = (scratch.path().join("nosleep.c"), scratch.path().join("nosleep.so"));
        fs::write(&source, include_str!("nosleep.c"))
            .map_err(PeerError::system(format!("write {}", source.display())))?;
        let mut command = Command::new(compiler);
        command.args(["-O2", "-fPIC", "-shared", "-nostdlib", "-o"]).arg(&built).arg(&source);
        run(command, COMPILE_TIMEOUT)?;
        let library = folder.join("nosleep.so");
        fs::rename(&built, &library)
            .map_err(PeerError::system(format!("write {}", library.display())))?;
        Ok(Self { preload: Some(library), ..self.clone() })
    }

    /// A program of the tree's `usr/bin`, to which arguments can be added. Nothing of Ceph in the
    /// user's environment reaches it.
    pub fn command(&self, program: &str) -> Command {
        let libraries = self.root.join(self.platform.libraries);
        let mut path = OsString::from(&libraries);
        path.push(":");
        path.push(libraries.join("ceph"));
        let mut command = Command::new(self.root.join(self.platform.loader));
        command.arg("--library-path").arg(path);
        if let Some(library) = &self.preload {
            command.arg("--preload").arg(library);
        }
        command.arg(self.root.join("usr/bin").join(program));
        clean(command)
    }

    /// A program of the tree that takes the tree for the whole system, as daemons with plugins have
    /// to: by chroot, which takes root. Paths among its arguments are those within the tree.
    pub(crate) fn chroot(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).arg(program);
        command.env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
        clean(command)
    }

    /// Starts `ceph_perf_msgr_server` at `addr` with this number of worker threads, think time 0,
    /// and further options of Ceph (`--ms_async_op_threads=1`); waits until it listens.
    ///
    /// # Errors
    /// It does not listen within 30 s.
    pub fn perf_server(
        &self,
        addr: SocketAddr,
        workers: u32,
        options: &[&str],
        log: impl Into<PathBuf>,
    ) -> Result<Leash, PeerError> {
        let mut command = self.command("ceph_perf_msgr_server");
        command.args([addr.to_string(), workers.to_string(), "0".to_owned()]);
        command.args(AUTH_NONE).args(options);
        let leash = Leash::start(command, log)?;
        leash.wait_until_listening(addr, LISTEN_TIMEOUT)?;
        Ok(leash)
    }

    /// Runs `ceph_perf_msgr_client` to its end and returns the time that it says it took for all
    /// messages, or kills it after `timeout`.
    ///
    /// # Errors
    /// [`PeerError::TimedOut`]: not every message was answered.
    pub fn perf_client(
        &self,
        work: PerfClient,
        options: &[&str],
        timeout: Duration,
    ) -> Result<Duration, PeerError> {
        let mut command = self.command("ceph_perf_msgr_client");
        command.args(work.args()).args(AUTH_NONE).args(options);
        let output = run(command, timeout)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        PerfClient::run_time(&text).ok_or(PeerError::Failed {
            program: "ceph_perf_msgr_client".to_owned(),
            status: output.status,
            output: text,
        })
    }

    /// Runs `ceph_perf_msgr_client` as [`perf_client`](Self::perf_client) does, with its default options,
    /// and again if it hangs: it does so in its own handshake now and then, whoever serves it, and
    /// nearly always with one worker thread. It has the server's hello then, and sends nothing more.
    ///
    /// # Errors
    /// [`PeerError::TimedOut`]: none of twelve attempts came to an end within 20 s.
    pub fn perf_client_to_its_end(&self, work: PerfClient) -> Result<Duration, PeerError> {
        let mut attempt = 1;
        loop {
            match self.perf_client(work, &[], HANG_TIMEOUT) {
                Err(PeerError::TimedOut { .. }) if attempt < MAX_ATTEMPTS => {
                    eprintln!("{work:?}: attempt {attempt} hangs");
                    attempt += 1;
                }
                done => return done,
            }
        }
    }
}

/// What `ceph_perf_msgr_client` shall do, with think time 0.
#[derive(Clone, Copy, Debug)]
pub struct PerfClient {
    /// The server.
    pub addr: SocketAddr,
    /// Client messengers, each with a connection.
    pub jobs: u32,
    /// Messages in flight of each job. (The tool allows one more.)
    pub depth: u32,
    /// Messages of each job.
    pub ops: u32,
    /// Bytes of data of a message.
    pub size: u32,
}

impl PerfClient {
    /// The positional arguments, for Ceph's tool and for one that takes the same.
    pub fn args(&self) -> [String; 6] {
        let numbers = [self.jobs, self.depth, self.ops, 0, self.size];
        let mut numbers = numbers.iter().map(u32::to_string);
        std::array::from_fn(|i| match i {
            0 => self.addr.to_string(),
            _ => numbers.next().unwrap_or_default(),
        })
    }

    /// The time in the tool's closing line, ` Total op N run time Tus.`
    pub fn run_time(output: &str) -> Option<Duration> {
        let (_, rest) = output.rsplit_once(" run time ")?;
        let (microseconds, _) = rest.split_once("us.")?;
        Some(Duration::from_micros(microseconds.parse().ok()?))
    }
}

/// Where peers are kept.
pub(crate) fn folder() -> PathBuf {
    if let Some(folder) = env::var_os("SIPHON_PEERS_DIR") {
        return folder.into();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| workspace.unwrap_or(Path::new(".")).join("target")).join("peers")
}

/// A lock among processes, let go when the file is dropped.
pub(crate) fn lock(path: &Path) -> Result<fs::File, PeerError> {
    let failed = || PeerError::system(format!("lock {}", path.display()));
    let file = fs::File::create(path).map_err(failed())?;
    file.lock().map_err(failed())?;
    Ok(file)
}

/// Unpacks the package and all that it needs, runs none of their scripts, and moves the whole into
/// place at once: a tree that is there is complete.
fn unpack(release: Release, root: &Path) -> Result<(), PeerError> {
    let options = ["--variant=extract".to_owned(), format!("--include={}", release.packages())];
    debootstrap(&options, release.suite(), root, finish)
}

/// Unpacks a Debian, finishes it, and moves it into place.
pub(crate) fn debootstrap(
    options: &[String],
    suite: &str,
    root: &Path,
    finish: fn(&Path) -> std::io::Result<()>,
) -> Result<(), PeerError> {
    let mirror = apt::mirror()?;
    let mmdebstrap = apt::program("mmdebstrap", "mmdebstrap")?;
    let scratch = Scratch::new(root.parent(), "unpack")?;
    let tree = scratch.path().join("tree");
    let mut command = Command::new(mmdebstrap);
    command.arg("--quiet").args(options);
    // A mirror may be a snapshot, whose lists are past their date.
    command.args(["--aptopt=Acquire::Check-Valid-Until \"false\""]);
    command.args(["--aptopt=Acquire::Check-Date \"false\""]);
    command.arg(suite).arg(&tree).arg(mirror);
    run(command, UNPACK_TIMEOUT).map_err(|error| match error {
        PeerError::Failed { output, .. } | PeerError::TimedOut { output, .. } => {
            Missing::Unpack { dir: root.to_owned(), reason: output }.into()
        }
        other => other,
    })?;
    finish(&tree).map_err(PeerError::system(format!("finish {}", tree.display())))?;
    fs::rename(&tree, root).map_err(PeerError::system(format!("make {}", root.display())))
}

/// What scripts would have done that were not run.
fn finish(tree: &Path) -> std::io::Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        if tree.join(name).symlink_metadata().is_err() {
            std::os::unix::fs::symlink(format!("usr/{name}"), tree.join(name))?;
        }
    }
    ["dev", "proc", "run", "tmp"].iter().try_for_each(|name| fs::create_dir_all(tree.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_is_read() {
        let text = "  ios 9\n Total op 20000 run time 296439us.\n";
        assert_eq!(PerfClient::run_time(text), Some(Duration::from_micros(296_439)));
        assert_eq!(PerfClient::run_time(" Total op 20000"), None);
    }
}
