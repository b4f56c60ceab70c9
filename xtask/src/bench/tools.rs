use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use siphon_peers::{CephTree, Leash, PeerError, PerfClient, free_ports, run};

const LISTEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Runs of Ceph's client until one comes to an end.
const MAX_ATTEMPTS: u32 = 4;
/// Ticks a second in `/proc`, proc_pid_stat(5): the kernel's own clock does not matter.
const USER_HZ: f64 = 100.0;

/// What a pair does. The number of messages is apart: each side has as many as it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Bytes of data of a message.
    pub(super) size: u32,
    pub(super) depth: u32,
    pub(super) jobs: u32,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, depth, jobs } = self;
        write!(f, "{size} bytes, depth {depth}, jobs {jobs}")
    }
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Messages of all jobs.
    pub(super) ops: f64,
    /// By the client's own clock.
    pub(super) elapsed: Duration,
    /// Seconds of processor time, user and system, of the whole client process.
    pub(super) client_cpu: f64,
    /// The same of the server while the client ran.
    pub(super) server_cpu: f64,
}

impl Run {
    /// Messages a second.
    pub(super) fn rate(&self) -> f64 {
        self.ops / self.elapsed.as_secs_f64().max(1e-6)
    }
}

/// A pair of server and client, of one make.
pub(super) enum Tools {
    Ceph(CephTree),
    Ours { server: PathBuf, client: PathBuf },
}

impl Tools {
    /// One run with a server of its own, `ops` messages of each job. Ceph's pair is started again
    /// where its client hangs: it does not end within `timeout`.
    pub(super) fn run(&self, work: Work, ops: u32, timeout: Duration) -> Result<Run> {
        let attempts = if matches!(self, Self::Ceph(_)) { MAX_ATTEMPTS } else { 1 };
        for _ in 0..attempts {
            match self.attempt(work, ops, timeout) {
                Err(error) if attempts > 1 && hangs(&error) => {
                    eprintln!("  Ceph's client hangs by itself; it is started again");
                }
                done => return done,
            }
        }
        bail!("Ceph's client hung {MAX_ATTEMPTS} times ({work}); fewer --jobs may help")
    }

    fn attempt(&self, work: Work, ops: u32, timeout: Duration) -> Result<Run> {
        let [port] = free_ports();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = self.serve(addr)?;
        let Work { size, depth, jobs } = work;
        let before = (server.cpu()?, children_cpu()?);
        let elapsed = self
            .drive(PerfClient { addr, jobs, depth, ops, size }, timeout)
            .with_context(|| {
                format!("{work}, {ops} messages of each job; the server says: {}", server.output())
            })?;
        let after = (server.cpu()?, children_cpu()?);
        Ok(Run {
            ops: f64::from(ops) * f64::from(jobs),
            elapsed,
            client_cpu: after.1 - before.1,
            server_cpu: after.0 - before.0,
        })
    }

    fn serve(&self, addr: SocketAddr) -> Result<Server> {
        let log = std::env::temp_dir().join(format!("siphon-bench-{}.log", addr.port()));
        let leash = match self {
            Self::Ceph(tree) => tree.perf_server(addr, 1, &[], &log)?,
            Self::Ours { server, .. } => {
                let mut command = Command::new(server);
                command.args([&addr.to_string(), "1", "0"]);
                let leash = Leash::start(command, &log)?;
                leash.wait_until_listening(addr, LISTEN_TIMEOUT)?;
                leash
            }
        };
        Ok(Server { leash, log })
    }

    fn drive(&self, work: PerfClient, timeout: Duration) -> Result<Duration> {
        match self {
            Self::Ceph(tree) => Ok(tree.perf_client(work, &[], timeout)?),
            Self::Ours { client, .. } => {
                let mut command = Command::new(client);
                command.args(work.args());
                let output = run(command, timeout)?;
                let text = String::from_utf8_lossy(&output.stdout);
                PerfClient::run_time(&text).with_context(|| format!("no closing line in: {text}"))
            }
        }
    }
}

fn hangs(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(PeerError::TimedOut { wanted: "done", .. }))
}

/// A server and its log, which goes with it.
struct Server {
    leash: Leash,
    log: PathBuf,
}

impl Server {
    /// Seconds of processor time, user and system, of all its threads so far.
    fn cpu(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.leash.pid());
        let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
        cpu_of_stat(&stat).with_context(|| format!("no processor times in {path}: {stat}"))
    }

    fn output(&self) -> String {
        self.leash.output()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server, which ends after this, has it open. If it cannot be removed, a log stays.
        let _ = fs::remove_file(&self.log);
    }
}

/// utime and stime, fields 14 and 15 of proc_pid_stat(5). The second may hold anything, also spaces
/// and parentheses, so what follows is counted from the last of these.
fn cpu_of_stat(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some((f64::from(ticks()?) + f64::from(ticks()?)) / USER_HZ)
}

/// Seconds of processor time, user and system, of all our children that have ended. Servers are not
/// among them while they run.
pub(super) fn children_cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_whatever_the_program_is_called() {
        let times = "R 1 2 2 0 -1 4194304 90 0 0 0 150 75 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_of_stat(&format!("42 (server) {times}")), Some(2.25));
        assert_eq!(cpu_of_stat(&format!("42 (a) b 9 9 (c) {times}")), Some(2.25));
        assert_eq!(cpu_of_stat("42 (server) R 1 2"), None);
    }

    #[test]
    fn an_ended_child_s_processor_time_is_counted() {
        let before = children_cpu().unwrap();
        let mut spin = Command::new("sh");
        spin.args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done"]);
        run(spin, Duration::from_secs(60)).unwrap();
        assert!(children_cpu().unwrap() > before);
    }
}
