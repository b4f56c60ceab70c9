//! `siphon daemon`: what a process tells of itself at its admin socket, be it Ceph's or ours.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use siphon_common::admin_socket;

/// Where Ceph's daemons have their sockets.
const RUN_DIR: &str = "/var/run/ceph";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The socket's path, or a daemon's name as osd.0: /var/run/ceph/CLUSTER-NAME.asok
    socket: String,
    /// The command, as `perf dump` or `config get ms_tcp_nodelay`; `help` lists what there is
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
    /// The form of the answer: json, json-pretty or what else the daemon knows
    #[arg(short, long)]
    format: Option<String>,
    /// The cluster's name, in the path of a daemon that is named
    #[arg(long, default_value = "ceph")]
    cluster: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let path = match args.socket.contains('/') {
        true => PathBuf::from(&args.socket),
        false => Path::new(RUN_DIR).join(format!("{}-{}.asok", args.cluster, args.socket)),
    };
    let answer = admin_socket::ask(&path, &args.command, args.format.as_deref())?;
    // There is no other sign of an error than this.
    if let Some(error) = answer.strip_prefix(b"ERROR: ") {
        bail!("{}: {}", path.display(), String::from_utf8_lossy(error).trim_end());
    }
    let mut out = std::io::stdout().lock();
    out.write_all(&answer)?;
    if !answer.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(())
}
