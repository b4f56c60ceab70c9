use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::scratch::Scratch;
use crate::{Leash, PeerError, apt, ceph, clean, free_ports, run};

/// The monitor's name: `mon.a`.
const NAME: &str = "a";
const TOOL_TIMEOUT: Duration = Duration::from_secs(60);
const QUORUM_TIMEOUT: Duration = Duration::from_secs(60);
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A port can be taken between choosing and binding it.
const MAX_STARTS: u32 = 3;
/// The longest answer of an admin socket that is read.
const MAX_ANSWER: u64 = 64 << 20;

/// How a monitor is to be.
#[derive(Clone, Debug)]
pub struct MonOptions {
    /// The protocols that it listens with.
    pub protocols: MonProtocols,
    /// `debug_ms`: 0 to 20. From 1 on, its log has a line for each message.
    pub debug_ms: u8,
    /// Further lines of the configuration's `[global]`, such as `ms_crc_data = false`.
    pub config: Vec<String>,
    /// Further monitors of its cluster, by name and address of msgr2: it connects to them, and has no
    /// quorum without them.
    pub others: Vec<(String, SocketAddr)>,
}

impl Default for MonOptions {
    fn default() -> Self {
        let (config, others) = Default::default();
        Self { protocols: MonProtocols::Both, debug_ms: 0, config, others }
    }
}

/// The protocols of a monitor's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonProtocols {
    /// Only msgr1.
    V1,
    /// Only msgr2.
    V2,
    /// An address each.
    Both,
}

/// A throw-away monitor with authentication none on 127.0.0.1, the only one of its cluster that is
/// real.
///
/// Its ports are free ones, all its files are in a folder of its own. When dropped, the monitor is
/// stopped and the folder removed. It never outlives our process.
///
/// ```no_run
/// use siphon_peers::{CephMon, MonOptions};
///
/// let mut mon = CephMon::start(MonOptions { debug_ms: 1, ..MonOptions::default() })?;
/// println!("{} is at {:?}", mon.fsid(), mon.addr_v2());
/// mon.kill()?;
/// mon.restart()?;
/// println!("{}", mon.admin("mon_status")?);
/// # Ok::<(), siphon_peers::PeerError>(())
/// ```
#[derive(Debug)]
pub struct CephMon {
    // Before `dir`: the monitor ends before its files go.
    leash: Leash,
    files: Files,
    fsid: String,
    v2: Option<SocketAddr>,
    v1: Option<SocketAddr>,
}

impl CephMon {
    /// Makes a cluster and starts its monitor; returns when that has quorum, which takes about a second,
    /// or looks for the others.
    ///
    /// # Errors
    /// [`PeerError::Unavailable`] if the package `ceph-mon` is not installed; any other if it does
    /// not start.
    pub fn start(options: MonOptions) -> Result<Self, PeerError> {
        let mut attempts = 1;
        loop {
            match Self::try_start(&options) {
                Err(PeerError::TimedOut { output, .. })
                    if output.contains("Address already in use") && attempts < MAX_STARTS =>
                {
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    fn try_start(options: &MonOptions) -> Result<Self, PeerError> {
        let program = apt::program("ceph-mon", "ceph-mon")?;
        let monmaptool = apt::program("monmaptool", "ceph-common")?;
        let [v2, v1] = free_ports().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let v2 = (options.protocols != MonProtocols::V1).then_some(v2);
        let v1 = (options.protocols != MonProtocols::V2).then_some(v1);
        let addrs = [v2.map(|addr| format!("v2:{addr}")), v1.map(|addr| format!("v1:{addr}"))];
        let addrs = format!("[{}]", addrs.into_iter().flatten().collect::<Vec<_>>().join(","));
        let fsid = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .map_err(PeerError::system("make a uuid"))?
            .trim()
            .to_owned();
        let state = if options.others.is_empty() { "leader" } else { "probing" };
        let files = Files { dir: Scratch::new(None, "siphon-mon")?, program, state };
        files.write_config(&fsid, &addrs, options)?;
        let mut command = files.tool(Command::new(monmaptool));
        command.args(["--create", "--fsid", &fsid, "--addv", NAME, &addrs]);
        for (name, addr) in &options.others {
            command.args(["--addv", name, &format!("[v2:{addr}]")]);
        }
        command.arg(files.path("monmap"));
        run(command, TOOL_TIMEOUT)?;
        let mut command = files.mon();
        command.arg("--mkfs").arg("--monmap").arg(files.path("monmap"));
        run(command, TOOL_TIMEOUT)?;
        let leash = files.launch()?;
        Ok(Self { leash, files, fsid, v2, v1 })
    }

    /// Its msgr2 address.
    pub fn addr_v2(&self) -> Option<SocketAddr> {
        self.v2
    }

    /// Its msgr1 address.
    pub fn addr_v1(&self) -> Option<SocketAddr> {
        self.v1
    }

    /// The id of its entity name: `a` of `mon.a`.
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The cluster's id, as text.
    pub fn fsid(&self) -> &str {
        &self.fsid
    }

    /// Its configuration, for a client's `-c`.
    pub fn config_file(&self) -> PathBuf {
        self.files.path("ceph.conf")
    }

    /// The process.
    pub fn process(&self) -> &Leash {
        &self.leash
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.files.path("mon.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned() + &self.leash.output()
    }

    /// Ends it with SIGKILL: its connections break without a word.
    ///
    /// # Errors
    /// [`PeerError::System`].
    pub fn kill(&mut self) -> Result<(), PeerError> {
        self.leash.signal("KILL")
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// [`PeerError::System`].
    pub fn stop(&mut self) -> Result<(), PeerError> {
        self.leash.signal("TERM")
    }

    /// Stops it if it runs, and starts it on the same addresses with the same store; returns when it
    /// has quorum.
    ///
    /// # Errors
    /// As [`CephMon::start`].
    pub fn restart(&mut self) -> Result<(), PeerError> {
        self.stop()?;
        self.leash = self.files.launch()?;
        Ok(())
    }

    /// Asks it by its admin socket (`mon_status`, `perf dump`, `config show`); returns JSON.
    ///
    /// # Errors
    /// [`PeerError::System`].
    pub fn admin(&self, command: &str) -> Result<String, PeerError> {
        self.files.admin(command)
    }

    /// Where that socket is.
    pub fn admin_socket(&self) -> PathBuf {
        self.files.path("asok")
    }

    /// Waits until it serves clients: it leads a moment before it hands out global ids and its
    /// database of rights is in order, and until then hangs up on clients or denies them their
    /// commands (`EPERM`).
    ///
    /// # Errors
    /// [`PeerError::Unavailable`]: `ceph` is not installed; [`PeerError::TimedOut`].
    pub fn wait_until_it_serves(&self) -> Result<(), PeerError> {
        ceph()?;
        self.leash.wait_until("serving clients", QUORUM_TIMEOUT, || {
            self.ceph().is_ok_and(|mut dump| {
                dump.args(["mon", "dump"]);
                run(dump, TOOL_TIMEOUT).is_ok()
            })
        })
    }

    /// A `ceph` command line to this monitor, without its command.
    ///
    /// # Errors
    /// [`PeerError::Unavailable`]: it is not installed.
    pub fn ceph(&self) -> Result<Command, PeerError> {
        let mut command = ceph()?;
        match (self.v2, self.v1) {
            (Some(addr), _) => command.args(["-m", &format!("v2:{addr}")]),
            (None, Some(addr)) => command.args(["-m", &format!("v1:{addr}")]),
            (None, None) => &mut command,
        };
        Ok(command)
    }
}

/// A monitor's folder, and how its program is called.
#[derive(Debug)]
struct Files {
    dir: Scratch,
    program: PathBuf,
    /// What it says of itself once it is up.
    state: &'static str,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Elections and proposals that take Ceph seconds take a fraction here: there is nobody to wait
    /// for.
    fn write_config(&self, fsid: &str, addrs: &str, options: &MonOptions) -> Result<(), PeerError> {
        let dir = self.dir.path().display();
        let MonOptions { debug_ms, config, .. } = options;
        let text = format!(
            "[global]\nfsid = {fsid}\nmon_host = {addrs}\n\
             auth_cluster_required = none\n\
             auth_service_required = none\n\
             auth_client_required = none\n\
             mon_election_timeout = 1\n\
             paxos_propose_interval = 0.05\n\
             paxos_min_wait = 0.01\n\
             mon_data_avail_warn = 1\n\
             mon_data_avail_crit = 0\n\
             {}\n\
             [mon]\n\
             debug_ms = {debug_ms}\n\
             mon_data = {dir}/data\n\
             run_dir = {dir}\n\
             crash_dir = {dir}\n\
             log_file = {dir}/mon.log\n\
             mon_cluster_log_file = {dir}/cluster.log\n\
             admin_socket = {dir}/asok\n",
            config.join("\n")
        );
        let make = || {
            fs::create_dir(self.path("data"))?;
            fs::write(self.path("ceph.conf"), text)
        };
        make().map_err(PeerError::system(format!("write into {dir}")))
    }

    /// One of Ceph's programs with this configuration.
    fn tool(&self, command: Command) -> Command {
        let mut command = clean(command);
        command.arg("-c").arg(self.path("ceph.conf"));
        command
    }

    fn mon(&self) -> Command {
        let mut command = self.tool(Command::new(&self.program));
        command.args(["-i", NAME]);
        command
    }

    /// Starts the monitor and waits until it leads its quorum, or looks for one.
    fn launch(&self) -> Result<Leash, PeerError> {
        let mut command = self.mon();
        command.arg("-f");
        let leash = Leash::start(command, self.path("output"))?;
        leash.wait_until(self.state, QUORUM_TIMEOUT, || self.is_up())?;
        Ok(leash)
    }

    fn is_up(&self) -> bool {
        let status = self.admin("mon_status").unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        status["state"] == self.state
    }

    fn admin(&self, command: &str) -> Result<String, PeerError> {
        let request = serde_json::json!({ "prefix": command, "format": "json" });
        ask(&self.path("asok"), &request.to_string())
            .map_err(PeerError::system(format!("ask the monitor's admin socket for {command}")))
    }
}

/// One exchange with an admin socket: the request and a NUL, then the answer behind its length in
/// four bytes, big-endian (`src/common/admin_socket.cc`).
fn ask(socket: &Path, request: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
    stream.write_all(format!("{request}\0").as_bytes())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u64::from(u32::from_be_bytes(length)).min(MAX_ANSWER);
    let mut answer = String::new();
    stream.take(length).read_to_string(&mut answer)?;
    Ok(answer)
}
