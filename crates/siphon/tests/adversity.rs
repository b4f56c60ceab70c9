//! What a machine does to who operates us: files that others read, folders that are closed, disks that are full.
//! Each is told clearly, with what to do, and loses nothing.

mod common;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use common::{Listening, TIMEOUT, failure, siphon, stdout, stdout_and_log};
use siphon_peers::{Leash, Missing, free_ports, require};

/// A key that opens nothing.
const KEYRING: &str = "[client.admin]\n    key = AQBPZ2VpAAAAABAAr6nCVUVhUiQ6ck6Y2T6I0g==\n";
const NOBODY: &str = "65534";
/// Mounts a small filesystem that only this process and its children see, does something there, and
/// becomes the program.
const MOUNT: &str = "mount -t tmpfs -o size=1m tmpfs \"$1\" && cd \"$1\" && eval \"$2\"; cd / && shift 2 && \
                     exec \"$@\"";

/// `siphon` in a world where `disk` is a filesystem of its own, in which `prepare` was done before.
fn on_a_disk(disk: &Path, prepare: &str, args: &[&str]) -> Option<Command> {
    let is_possible = Command::new("unshare").args(["-m", "true"]).output();
    if !is_possible.is_ok_and(|done| done.status.success()) {
        return require(Err(Missing::Root("a filesystem of its own takes root").into()));
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", MOUNT, "sh"]).arg(disk).arg(prepare);
    command.arg(env!("CARGO_BIN_EXE_siphon")).args(args).env_remove("SIPHON_LOG");
    Some(command)
}

/// `siphon` as a user who may do nothing, from a folder that he may look into.
fn as_nobody(folder: &Path, args: &[&str]) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        return require(Err(Missing::Root("becoming another user takes root").into()));
    }
    let program = folder.join("siphon");
    if !program.exists() {
        let built = env!("CARGO_BIN_EXE_siphon");
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(|_| ())).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(program);
    command.args(args).env_remove("SIPHON_LOG");
    Some(command)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_keyring_that_everybody_can_read_is_warned_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = folder.path().join("keyring");
    fs::write(&keyring, KEYRING).unwrap();
    let status = |mode| {
        set_mode(&keyring, mode);
        let mut status = siphon(["status", "-m", "v2:127.0.0.1:1", "--connect-timeout", "0.2"]);
        status.arg("-k").arg(&keyring);
        failure(status)
    };
    let told = status(0o644);
    let advice = format!("(mode 0644): chmod o-r {}", keyring.display());
    assert_eq!(told.matches(&advice).count(), 1, "{told}");
    for private in [0o600, 0o640] {
        let told = status(private);
        assert!(!told.contains("chmod"), "{told}");
    }
}

#[test]
fn a_socket_s_path_that_is_too_long_is_refused() {
    let long = format!("/tmp/{}/asok", "x".repeat(108));
    let error = failure(siphon(["echo", "127.0.0.1:0", "--admin_socket", &long]));
    assert!(error.contains("at most 107 are possible: choose a shorter admin_socket"), "{error}");
}

#[test]
fn a_second_daemon_does_not_take_the_socket_of_the_first_that_lives() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("asok");
    let path = socket.to_str().unwrap();
    let version = || stdout(siphon(["daemon", path, "version"]));
    let [port] = free_ports();
    let echo = siphon(["echo", &format!("127.0.0.1:{port}"), "--admin_socket", path]);
    let mut first = Leash::start(echo, folder.path().join("first.log")).unwrap();
    first.wait_until("answering", TIMEOUT, || socket.exists()).unwrap();
    assert!(version().contains("siphon"));
    let error = failure(siphon(["echo", "127.0.0.1:0", "--admin_socket", path]));
    assert!(
        error.contains("another process answers at the admin socket") && error.contains("$pid"),
        "{error}"
    );
    assert!(version().contains("siphon"), "the first goes on");
    first.signal("KILL").unwrap();
    let is_socket = fs::symlink_metadata(&socket).is_ok_and(|it| it.file_type().is_socket());
    assert!(is_socket, "a crash leaves it");
    let third = Listening::start(["echo", "ADDR", "--admin_socket", path]);
    assert!(version().contains("siphon"), "{}", third.output());
}

#[test]
fn a_pid_file_is_of_one_process_that_lives() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let path = file.to_str().unwrap();
    let [port] = free_ports();
    let echo = siphon(["echo", &format!("127.0.0.1:{port}"), "--pid_file", path]);
    let mut first = Leash::start(echo, folder.path().join("first.log")).unwrap();
    let pid = format!("{}\n", first.pid());
    let is_written = || fs::read_to_string(&file).is_ok_and(|text| text == pid);
    first.wait_until("telling its id", TIMEOUT, is_written).unwrap();
    let error = failure(siphon(["echo", "127.0.0.1:0", "--pid_file", path]));
    let told = format!("process {} runs and has the pid file {path}", first.pid());
    assert!(error.contains(&told) && error.contains("choose another pid_file"), "{error}");
    assert!(is_written(), "the first keeps it");
    first.signal("KILL").unwrap();
    assert!(is_written(), "a crash leaves it");
    let [port] = free_ports();
    let echo = siphon(["perf", "server", &format!("127.0.0.1:{port}"), "--pid_file", path]);
    let second = Leash::start(echo, folder.path().join("second.log")).unwrap();
    let pid = format!("{}\n", second.pid());
    let is_written = || fs::read_to_string(&file).is_ok_and(|text| text == pid);
    second.wait_until("telling its id", TIMEOUT, is_written).unwrap();
}

#[test]
fn a_folder_without_permission_is_told_for_socket_log_and_key() {
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o755);
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    let file = |name: &str| closed.join(name).display().to_string();
    let (socket, log, keyring) = (file("asok"), file("x.log"), file("keyring"));
    fs::write(&keyring, KEYRING).unwrap();
    set_mode(Path::new(&keyring), 0o600);
    let echo = ["echo", "127.0.0.1:0", "--admin_socket", &socket];
    let Some(echo) = as_nobody(folder.path(), &echo) else { return };
    let error = failure(echo);
    let advice = format!(
        "this user may not write to {}: change that, or choose another admin_socket",
        closed.display()
    );
    assert!(error.contains(&advice), "{error}");

    let echo = ["echo", "127.0.0.1:0", "--pid_file", &file("pid")];
    let error = failure(as_nobody(folder.path(), &echo).unwrap());
    assert!(error.contains("cannot write the pid file") && error.contains("writable"), "{error}");

    // Lines go to standard error instead, and the work is done.
    let perf = ["perf", "--ops", "10", "--log_file", &log, "--debug_ms", "1"];
    let (result, told) = stdout_and_log(as_nobody(folder.path(), &perf).unwrap());
    assert!(result.contains("10 operations") || result.contains("op/s"), "{result}");
    assert!(told.contains(&format!("cannot open the log file {log}: Permission denied")), "{told}");
    assert!(told.contains("lines go to standard error until it can be opened"), "{told}");
    assert_eq!(told.matches("<== client.").count(), 10, "{told}");

    let status = ["status", "-m", "v2:127.0.0.1:1", "-k", &keyring];
    let error = failure(as_nobody(folder.path(), &status).unwrap());
    assert!(error.contains("is not for this user: run as its owner, or choose another"), "{error}");
}

#[test]
fn a_full_disk_under_the_log_loses_neither_message_nor_line() {
    const OPS: usize = 500;
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let socket = folder.path().join("asok");
    let [port] = free_ports();
    let addr = format!("127.0.0.1:{port}");
    let (log, path) = (disk.join("osd.log"), socket.to_str().unwrap());
    let echo = ["echo", &addr, "--as", "osd.0", "--admin_socket", path, "--log_to_stderr=false"];
    let logging = ["--debug_ms", "1", "--log_file", log.to_str().unwrap()];
    let echo = [&echo[..], &logging].concat();
    let fill = "cat /dev/zero > filler 2> /dev/null";
    let Some(echo) = on_a_disk(&disk, fill, &echo) else { return };
    let mut echo = Leash::start(echo, folder.path().join("echo.out")).unwrap();
    let is_up = || socket.exists() && TcpStream::connect(&addr).is_ok();
    echo.wait_until("answering", TIMEOUT, is_up).unwrap();
    let ops = OPS.to_string();
    stdout(siphon(["perf", "client", &addr, "--ops", &ops, "--depth", "4"]));
    stdout(siphon(["daemon", path, "log", "flush"]));
    let told = echo.output();
    assert_eq!(told.matches("cannot write to the log file").count(), 1, "{told}");
    assert!(told.contains("No space left on device") && told.contains("are kept until"), "{told}");

    // As the process sees it.
    let seen = Path::new("/proc").join(echo.pid().to_string()).join("root");
    let inside = |file: &Path| seen.join(file.strip_prefix("/").unwrap());
    fs::remove_file(inside(&disk.join("filler"))).unwrap();
    stdout(siphon(["daemon", path, "log", "flush"]));
    let text = fs::read_to_string(inside(&log)).unwrap();
    assert_eq!(text.matches(" <== client.").count(), OPS, "each request");
    assert_eq!(text.matches("osd_op_reply(").count(), OPS, "each answer");
    assert!(!text.contains("were lost"), "{text}");
    echo.signal("TERM").unwrap();
}

#[test]
fn what_a_full_disk_has_not_taken_at_the_end_goes_to_standard_error() {
    for to_stderr in ["--log_to_stderr=false", "--log_to_stderr=true"] {
        let perf = ["perf", "--ops", "10", "--log_file", "/dev/full", "--debug_ms", "1", to_stderr];
        let (_, told) = stdout_and_log(siphon(perf));
        assert!(told.contains("the log file /dev/full has not taken "), "{told}");
        assert_eq!(told.matches("<== client.").count(), 10, "once: {told}");
    }
}

#[test]
fn a_read_only_filesystem_is_told_for_socket_and_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (socket, log) = (file("asok"), file("x.log"));
    let close = "mount -o remount,ro \"$1\"";
    let echo = ["echo", "127.0.0.1:0", "--admin_socket", &socket];
    let Some(echo) = on_a_disk(folder.path(), close, &echo) else { return };
    let error = failure(echo);
    assert!(error.contains("is mounted read-only: choose another admin_socket"), "{error}");
    let perf = ["perf", "--ops", "10", "--log_file", &log, "--debug_ms", "1"];
    let (_, told) = stdout_and_log(on_a_disk(folder.path(), close, &perf).unwrap());
    assert!(told.contains(&format!("cannot open the log file {log}: Read-only file")), "{told}");
    assert_eq!(told.matches("<== client.").count(), 10, "{told}");
}
