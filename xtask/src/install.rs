use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use siphon_peers::{CephTree, PeerError, Release};

use crate::root;
use crate::steps::{call, cargo};

/// The programs that tests use, and Debian's packages that have them. Headers of C tell whether our
/// bindings are right.
const PROGRAMS: [(&str, &str); 13] = [
    ("ceph-mon", "ceph-mon"),
    ("ceph", "ceph-common"),
    ("monmaptool", "ceph-common"),
    ("osdmaptool", "ceph-base"),
    ("crushtool", "ceph-base"),
    ("mmdebstrap", "mmdebstrap"),
    ("tc", "iproute2"),
    ("cc", "gcc"),
    ("curl", "curl"),
    ("script", "bsdutils"),
    ("tmux", "tmux"),
    ("/usr/include/infiniband/verbs.h", "libibverbs-dev"),
    ("/usr/include/rdma/rdma_cma.h", "librdmacm-dev"),
];

/// What the RDMA machine is built with, and what its tests run. Among the programs are files, where a
/// package has no program of its own.
const RDMA_PROGRAMS: [(&str, &str); 13] = [
    ("busybox", "busybox-static"),
    ("modprobe", "kmod"),
    ("setpriv", "util-linux"),
    ("xz", "xz-utils"),
    ("strip", "binutils"),
    ("gcc", "gcc"),
    ("make", "make"),
    ("ip", "iproute2"),
    ("rdma", "iproute2"),
    ("/etc/libibverbs.d/rxe.driver", "ibverbs-providers"),
    ("ibv_rc_pingpong", "ibverbs-utils"),
    ("rping", "rdmacm-utils"),
    ("ib_send_bw", "perftest"),
];

/// Installs and unpacks the peers; returns why some cannot be had here.
pub(crate) fn peers() -> Result<Vec<String>> {
    let mut missing = packages(&PROGRAMS)?;
    for release in Release::ALL {
        match CephTree::of(release) {
            Ok(tree) => println!("Ceph {release} is in {}", tree.root().display()),
            Err(PeerError::Unavailable(reason)) => missing.push(reason.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(missing)
}

/// Installs what the RDMA machine needs; returns what cannot be had here.
pub(crate) fn rdma_vm() -> Result<Vec<String>> {
    packages(&RDMA_PROGRAMS)
}

/// Installs what counts instructions; returns why it cannot be had here.
pub(crate) fn valgrind() -> Result<Vec<String>> {
    packages(&[("valgrind", "valgrind")])
}

/// Installs what a Debian package is made with.
pub(crate) fn packaging() -> Result<()> {
    let missing = packages(&[("dpkg-shlibdeps", "dpkg-dev"), ("strip", "binutils")])?;
    ensure!(missing.is_empty(), "{}", missing.join("; "));
    Ok(())
}

/// Installs what modules of a version of Debian's kernel are built with.
pub(crate) fn kernel_headers(version: &str) -> Result<()> {
    let makefile = format!("/usr/src/linux-headers-{version}/Makefile");
    let missing = packages(&[(&makefile, &format!("linux-headers-{version}"))])?;
    ensure!(missing.is_empty(), "{}", missing.join("; "));
    Ok(())
}

/// Installs the packages that are missing, where that is possible.
fn packages(programs: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut packages: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    if find("apt-get").is_none() || !is_root()? {
        let reason = "is not installed, which takes root on Debian; the tests that need it skip";
        return Ok(packages.iter().map(|package| format!("{package} {reason}")).collect());
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        // Our standard output may be that of a job. Another installation may be under way, for which
        // apt waits so many seconds.
        command.env("DEBIAN_FRONTEND", "noninteractive").stdout(io::stderr());
        command.args(["-o", "DPkg::Lock::Timeout=300"]);
        command
    };
    call(apt().args(["update", "--quiet"]))?;
    let install = ["install", "--quiet", "--yes", "--no-install-recommends", "--no-remove"];
    call(apt().args(install).args(packages))?;
    Ok(Vec::new())
}

/// The installation of cargo-deny, which takes minutes and goes on beside the other steps.
pub(crate) enum Deny {
    Present,
    Building(Child),
}

impl Deny {
    /// Begins the installation, if it is needed.
    pub(crate) fn begin() -> Result<Self> {
        if find("cargo-deny").is_some() {
            return Ok(Self::Present);
        }
        println!("cargo-deny is not installed: its build goes on beside the next steps");
        let install = cargo(&["install", "--locked", "--quiet", "cargo-deny"]);
        let mut command = Command::new("nice");
        command.arg(install.get_program()).args(install.get_args());
        Ok(Self::Building(command.stdin(Stdio::null()).spawn()?))
    }

    /// Waits for the end of the installation; tells whether it is there.
    pub(crate) fn wait(self) -> Result<bool> {
        match self {
            Self::Present => Ok(true),
            Self::Building(mut child) => Ok(child.wait()?.success()),
        }
    }
}

/// The installation of cargo-deb, which goes on beside the other steps: below `target/`, as that of
/// cargo-fuzz.
pub(crate) struct CargoDeb {
    program: PathBuf,
    building: Option<Child>,
}

impl CargoDeb {
    /// What the package's description was written for.
    const VERSION: &str = "3.8.0";

    /// Begins the installation, if it is needed.
    pub(crate) fn begin() -> Result<Self> {
        let tools = root().join("target/tools/cargo-deb").join(Self::VERSION);
        let program = tools.join("bin/cargo-deb");
        if program.is_file() {
            return Ok(Self { program, building: None });
        }
        println!("cargo-deb is not installed: building it");
        let mut install = cargo(&["install", "--locked", "--quiet", "--no-default-features"]);
        install.args(["cargo-deb", "--version", Self::VERSION, "--root"]).arg(tools);
        let mut command = Command::new("nice");
        command.arg(install.get_program()).args(install.get_args());
        Ok(Self { program, building: Some(command.stdin(Stdio::null()).spawn()?) })
    }

    /// Waits for the end of the installation.
    pub(crate) fn wait(self) -> Result<PathBuf> {
        if let Some(mut child) = self.building {
            ensure!(child.wait()?.success(), "cargo-deb cannot be installed");
        }
        Ok(self.program)
    }
}

/// cargo-fuzz.
pub(crate) fn cargo_fuzz() -> Result<PathBuf> {
    tool("cargo-fuzz", "cargo-fuzz")
}

/// mdBook, likewise; its build takes three minutes of a processor, and the verification does without.
pub(crate) fn mdbook() -> Result<PathBuf> {
    tool("mdbook", "mdbook@0.5.4")
}

/// A program that is installed from a crate where it is missing: below `target/`, since nothing but our own
/// chores needs it.
fn tool(name: &str, krate: &str) -> Result<PathBuf> {
    let tools = root().join("target/tools");
    let ours = tools.join("bin").join(name);
    if let Some(program) = find(name).or_else(|| ours.is_file().then(|| ours.clone())) {
        return Ok(program);
    }
    println!("{name} is not installed: building it");
    let mut install = cargo(&["install", "--locked", "--quiet", krate, "--root"]);
    call(install.arg(&tools)).with_context(|| format!("{name} cannot be installed"))?;
    Ok(ours)
}

/// An executable by its name, in the search path or where cargo installs; or any file by its path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .chain(["/usr/bin", "/usr/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

pub(crate) fn is_root() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    // This process's own entry belongs to its effective user.
    Ok(Path::new("/proc/self").metadata()?.uid() == 0)
}
