//! Real Ceph peers for tests and benchmarks.
//!
//! - [`CephMon`]: a throw-away monitor, from the `ceph-mon` package of the system.
//! - [`CephTree`]: Ceph's own test programs (`ceph_perf_msgr_server` and others), of another release
//!   than the system's, unpacked beside it and run without installing anything.
//! - [`Cluster`]: a throw-away cluster of one of four releases, with cephx: monitor, manager, OSDs.
//! - [`ceph`]: the system's `ceph` command line.
//! - [`Hosts`]: two hosts with a cable of a certain rate between them.
//! - [`CleanDebian`]: a Debian 12 with nothing in it, to try a package on.
//! - [`Leash`]: a process that ends, at the latest, when ours does.
//!
//! A peer that this machine cannot have is [`PeerError::Unavailable`]; one that it has but that does
//! not run is [`PeerError::Failed`]. A test begins with [`require`], which skips it for the first
//! and fails it for the second:
//!
//! ```no_run
//! use siphon_peers::{CephMon, MonOptions, require};
//!
//! fn ping_answers() {
//!     let Some(mon) = require(CephMon::start(MonOptions::default())) else { return };
//!     println!("a monitor at {}", mon.addr_v2().unwrap());
//! }
//! ```
//!
//! `cargo xtask peers` gets everything beforehand.
#![allow(clippy::disallowed_methods, reason = "waits for processes by the clock")]

mod apt;
mod clean_debian;
mod cluster;
mod error;
mod hosts;
mod leash;
mod mon;
mod ports;
mod scratch;
mod tree;

use std::process::Command;

pub use clean_debian::CleanDebian;
pub use cluster::{Cluster, ClusterOptions};
pub use error::{Missing, PeerError, require};
pub use hosts::Hosts;
pub use leash::{Leash, run};
pub use mon::{CephMon, MonOptions, MonProtocols};
pub use ports::free_ports;
pub use tree::{CephTree, PerfClient, Release, TREE_RELEASE};

/// Arguments with which a Ceph program asks for no keys: without them it looks for a keyring in
/// `/etc/ceph`, and complains that there is none.
pub const AUTH_NONE: [&str; 3] =
    ["--auth_client_required=none", "--auth_cluster_required=none", "--auth_service_required=none"];

/// The system's `ceph` command line with authentication none, reading no file and no variable of
/// the user's. It gives up on a monitor that does not answer within 10 s.
///
/// ```no_run
/// let mut ping = siphon_peers::ceph()?;
/// ping.args(["-m", "v2:127.0.0.1:3300", "ping", "mon.a"]);
/// # Ok::<(), siphon_peers::PeerError>(())
/// ```
///
/// # Errors
/// [`PeerError::Unavailable`]: it is not installed.
pub fn ceph() -> Result<Command, PeerError> {
    let mut command = ceph_with_key()?;
    command.args(AUTH_NONE);
    Ok(command)
}

/// The same for one who has a key: the command line goes on with `--keyring` and `--name`.
///
/// # Errors
/// [`PeerError::Unavailable`]: it is not installed.
pub fn ceph_with_key() -> Result<Command, PeerError> {
    let mut command = clean(Command::new(apt::program("ceph", "ceph-common")?));
    command.args(["-c", "/dev/null", "--connect-timeout", "10"]);
    Ok(command)
}

/// The system's `ceph-conf`, heeding no variable of the user's.
///
/// # Errors
/// [`PeerError::Unavailable`]: it is not installed.
pub fn ceph_conf() -> Result<Command, PeerError> {
    Ok(clean(Command::new(apt::program("ceph-conf", "ceph-common")?)))
}

/// The system's Python, which has librados' binding, with a program to run.
///
/// # Errors
/// [`PeerError::Unavailable`]: the binding is not installed.
pub fn librados(program: &str) -> Result<Command, PeerError> {
    apt::program("ceph", "ceph-common")?; // which depends on the binding
    let mut command = clean(Command::new("/usr/bin/python3"));
    command.args(["-c", program]);
    Ok(command)
}

/// Takes from a command what Ceph would read from the environment.
fn clean(mut command: Command) -> Command {
    for variable in ["CEPH_CONF", "CEPH_ARGS", "CEPH_KEYRING", "CEPH_LIB"] {
        command.env_remove(variable);
    }
    command
}

/// Whether this process has the rights of root.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // This process's own entry belongs to its effective user.
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}
