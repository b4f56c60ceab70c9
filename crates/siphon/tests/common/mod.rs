//! What the tests of the `siphon` command share.
#![allow(dead_code, reason = "no test uses all of it")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use siphon_peers::{Leash, PeerError, free_ports, run};

/// For one run of a tool, on a machine that is busy with other tests.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// The `siphon` command that was built with this test.
pub(crate) fn siphon<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_siphon"));
    command.args(args).env_remove("SIPHON_LOG");
    command
}

/// What a successful command wrote on its standard output.
///
/// # Panics
/// The command failed, or did not end.
pub(crate) fn stdout(command: Command) -> String {
    text(&run(command, TIMEOUT).unwrap_or_else(|error| panic!("{error}")).stdout)
}

/// What a failing command wrote.
///
/// # Panics
/// The command did not fail.
pub(crate) fn failure(command: Command) -> String {
    match run(command, TIMEOUT) {
        Err(PeerError::Failed { output, .. }) => output,
        Err(error) => panic!("{error}"),
        Ok(output) => panic!("succeeded: {}", text(&output.stdout)),
    }
}

/// Both outputs of a successful command: what it printed, and what it logged.
pub(crate) fn stdout_and_log(command: Command) -> (String, String) {
    let Output { stdout, stderr, .. } =
        run(command, TIMEOUT).unwrap_or_else(|error| panic!("{error}"));
    (text(&stdout), text(&stderr))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A `siphon` command that listens, and where.
pub(crate) struct Listening {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    leash: Leash,
    log: PathBuf,
}

impl Listening {
    /// Starts `siphon` with these arguments, in which `ADDR` stands for a free address.
    ///
    /// # Panics
    /// It does not listen.
    pub(crate) fn start<const N: usize>(args: [&str; N]) -> Self {
        let [port] = free_ports();
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], port)), args)
    }

    /// Starts it at a certain address.
    ///
    /// # Panics
    /// It does not listen.
    pub(crate) fn start_at<const N: usize>(addr: SocketAddr, args: [&str; N]) -> Self {
        let text = addr.to_string();
        let args = args.map(|arg| if arg == "ADDR" { text.as_str() } else { arg });
        let log =
            std::env::temp_dir().join(format!("siphon-{}-{}.log", std::process::id(), addr.port()));
        let leash = Leash::start(siphon(args), &log).unwrap();
        leash.wait_until_listening(addr, TIMEOUT).unwrap();
        Self { addr, leash, log }
    }

    /// The most memory that it has had so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.leash.pid()
    }

    /// What it has written.
    pub(crate) fn output(&self) -> String {
        self.leash.output()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.log);
    }
}
