//! Tries the package on a clean Debian 12: it is installed, its service started and used, and removed.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use siphon_peers::{CleanDebian, free_ports};

use super::{Package, unit};
use crate::install;
use crate::steps::{call, output};

const UNIT: &str = "usr/lib/systemd/system/siphon-perf.service";
const DEFAULTS: &str = "etc/default/siphon-perf";
/// For a step of the service, on a machine that is busy.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// What `systemd-analyze security` may say at most, in tenths; it calls 0 to 4.9 safe.
const MAX_EXPOSURE: &str = "--threshold=25";
/// Dpkg's own notes of what was done.
const NOTES: [&str; 3] = ["var/lib/dpkg", "var/log", "var/cache"];
/// Files without which the package is not whole.
const FILES: [&str; 11] = [
    "usr/bin/siphon",
    "usr/libexec/siphon/ceph_perf_msgr_server",
    "usr/libexec/siphon/ceph_perf_msgr_client",
    "usr/share/bash-completion/completions/siphon",
    "usr/share/zsh/vendor-completions/_siphon",
    "usr/share/fish/vendor_completions.d/siphon.fish",
    "usr/share/doc/siphon/copyright",
    "usr/share/doc/siphon/third-party-licenses.txt",
    "usr/share/doc/siphon/docs/install.md",
    UNIT,
    DEFAULTS,
];

/// The Debian that the package is tried on.
pub(super) fn debian() -> Result<CleanDebian> {
    Ok(CleanDebian::new()?)
}

/// Tries it.
pub(super) fn run(package: &Package, debian: CleanDebian) -> Result<()> {
    let root = debian.root();
    let before = files(root)?;
    fs::copy(&package.file, root.join("tmp/siphon.deb"))?;
    call(debian.command("dpkg").args(["--install", "/tmp/siphon.deb"]))?;
    let verified = output(debian.command("dpkg").args(["--verify", "siphon"]))?;
    ensure!(verified.is_empty(), "dpkg --verify: {}", String::from_utf8_lossy(&verified));
    for file in FILES {
        ensure!(root.join(file).metadata().is_ok_and(|it| it.len() > 0), "{file} is missing");
    }
    ensure!(
        !files(&root.join("etc/systemd/system"))?.iter().any(|file| file.contains("siphon")),
        "the service is enabled, and nobody asked for it"
    );
    versions(package, &debian)?;
    man_pages(&root.join("usr/share/man/man1"))?;
    check_unit(root)?;
    serve(package, &debian)?;
    call(debian.command("dpkg").args(["--purge", "siphon"]))?;
    fs::remove_file(root.join("tmp/siphon.deb"))?;
    let left: Vec<String> = files(root)?.difference(&before).cloned().collect();
    ensure!(left.is_empty(), "the package leaves behind {}", left.join(", "));
    println!("the package was installed on a clean Debian 12, used, and removed");
    Ok(())
}

/// All files and folders, but those of dpkg.
fn files(root: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            if NOTES.contains(&name.as_str()) {
                continue;
            }
            found.insert(name);
            if path.symlink_metadata()?.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(found)
}

/// What was installed is what was built, and its tools are of the same build.
fn versions(package: &Package, debian: &CleanDebian) -> Result<()> {
    let told = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let ours = told(output(Command::new(&package.siphon).arg("--version"))?);
    let theirs = told(output(debian.command("/usr/bin/siphon").arg("--version"))?);
    ensure!(ours == theirs && ours.lines().count() == 1, "{ours} is installed as {theirs}");
    for tool in ["ceph_perf_msgr_server", "ceph_perf_msgr_client"] {
        let path = format!("/usr/libexec/siphon/{tool}");
        let version = told(output(debian.command(&path).arg("--version"))?);
        let expected = ours.replacen("siphon", tool, 1);
        ensure!(version.starts_with(&expected), "{path} is {version}, not {expected}");
    }
    Ok(())
}

/// All pages are there, and `man` has nothing to say against them where there is one.
fn man_pages(folder: &Path) -> Result<()> {
    let pages = files(folder)?;
    for page in ["siphon.1.gz", "siphon-perf-server.1.gz", "siphon-rados-bench.1.gz"] {
        ensure!(pages.contains(page), "there is no {page}");
    }
    let Some(man) = install::find("man") else {
        println!("man pages are not read: there is no man here");
        return Ok(());
    };
    for page in pages.iter().filter(|page| page.starts_with("siphon")) {
        let mut command = Command::new(&man);
        command.args(["--warnings", "--encoding=UTF-8", "--ditroff", "--troff-device=utf8"]);
        let read = command.arg("--local-file").arg(folder.join(page)).output()?;
        let warnings = String::from_utf8_lossy(&read.stderr);
        ensure!(read.status.success() && warnings.is_empty(), "{page}: {warnings}");
    }
    Ok(())
}

/// systemd understands the unit, and calls it safe.
fn check_unit(root: &Path) -> Result<()> {
    let Some(analyze) = install::find("systemd-analyze") else {
        println!("the unit is not checked by systemd: there is none here");
        return Ok(());
    };
    // It looks for the program on this machine, where it is not installed.
    let program = root.join("usr/bin/siphon").display().to_string();
    let text = fs::read_to_string(root.join(UNIT))?.replace("/usr/bin/siphon", &program);
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("siphon-perf.service");
    fs::write(&copy, text)?;
    let verified = Command::new(&analyze).args(["verify", "--man=no"]).arg(&copy).output()?;
    let told = String::from_utf8_lossy(&verified.stderr);
    // Units of this machine are loaded along with it.
    let ours: Vec<&str> = told.lines().filter(|line| line.contains("siphon")).collect();
    ensure!(verified.status.success() && ours.is_empty(), "systemd-analyze verify: {told}");
    let mut security = Command::new(&analyze);
    security.args(["security", "--no-pager", "--offline=true", MAX_EXPOSURE]).arg(&copy);
    let judged = security.output()?;
    let judged_text = String::from_utf8_lossy(&judged.stdout);
    println!("{}", judged_text.lines().last().unwrap_or_default());
    ensure!(judged.status.success(), "systemd-analyze security: {judged_text}");
    Ok(())
}

/// A process that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the service as its unit says, as a user without rights; uses, reloads and stops it.
fn serve(package: &Package, debian: &CleanDebian) -> Result<()> {
    let (root, [port]) = (debian.root(), free_ports());
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let text = fs::read_to_string(root.join(UNIT))?;
    let defaults = fs::read_to_string(root.join(DEFAULTS))?;
    ensure!(unit::value(&text, "EnvironmentFile")? == format!("/{DEFAULTS}"), "another file");
    let listens = unit::environment(&defaults).get("ADDRESS").map(|it| it.parse::<SocketAddr>());
    let listens = listens.context("no ADDRESS")?.context("ADDRESS")?;
    ensure!(listens.ip().is_loopback(), "it listens at {listens}, and nobody asked for it");
    let changed = defaults.replace(&listens.to_string(), &addr.to_string());
    let changed = changed.replace("OPTIONS=", "OPTIONS=--log_file=/run/siphon/perf.log ");
    fs::write(root.join(DEFAULTS), &changed)?;
    let words = unit::words(unit::value(&text, "ExecStart")?, &unit::environment(&changed))?;

    // What systemd does before: the folder for the socket, and a user of its own.
    let run = root.join("run").join(unit::value(&text, "RuntimeDirectory")?);
    fs::create_dir(&run)?;
    call(
        debian
            .command("chown")
            .arg("nobody:nogroup")
            .arg(Path::new("/").join(run.strip_prefix(root)?)),
    )?;
    let mut start = debian.command("setpriv");
    start.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"]);
    start.args(["--bounding-set=-all", "--pdeathsig=KILL"]).args(words);
    let log = tempfile::NamedTempFile::new()?;
    start.stdin(Stdio::null()).stdout(log.reopen()?).stderr(log.reopen()?);
    let mut server = Running(start.spawn()?);
    let written = || fs::read_to_string(log.path()).unwrap_or_default();
    wait("listen", written, || {
        ensure!(server.0.try_wait()?.is_none(), "the service ended: {}", written());
        Ok(TcpStream::connect(addr).is_ok())
    })?;

    let mut client = Command::new(&package.siphon);
    client.args(["perf", "client", &addr.to_string(), "--ops", "1000", "--json"]);
    let report = output(&mut client)?;
    let report: serde_json::Value = serde_json::from_slice(&report)?;
    ensure!(report["ops"] == 1000, "a thousand operations were wanted: {report}");
    let socket = root.join("run/siphon/perf.asok");
    let asked = output(Command::new(&package.siphon).arg("daemon").arg(&socket).arg("version"))?;
    println!("asked at its socket: {}", String::from_utf8_lossy(&asked).trim());

    // Whoever enters the Debian becomes the program, so the process is the same.
    let pid = server.0.id().to_string();
    let (log_file, moved) = (run.join("perf.log"), run.join("perf.log.1"));
    fs::rename(&log_file, &moved)?;
    call(Command::new("kill").args(["-HUP", &pid]))?;
    wait("open its log again", written, || Ok(moved.is_file() && log_file.is_file()))?;
    call(Command::new("kill").args(["-TERM", &pid]))?;
    let mut ended = None;
    wait("end", written, || {
        ended = server.0.try_wait()?;
        Ok(ended.is_some())
    })?;
    ensure!(ended.is_some_and(|status| status.success()), "SIGTERM: {ended:?}: {}", written());
    ensure!(written().contains("interrupted: 1000 messages came over"), "{}", written());
    ensure!(!socket.exists(), "the admin socket was left behind");
    // As systemd does behind the service.
    fs::remove_dir_all(&run)?;
    Ok(())
}

/// Waits for a condition.
fn wait(
    what: &str,
    log: impl Fn() -> String,
    mut is_so: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + TIMEOUT;
    while !is_so()? {
        if Instant::now() > end {
            bail!("the service does not {what} within {TIMEOUT:?}: {}", log());
        }
        thread::sleep(POLL);
    }
    Ok(())
}
