use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::PeerError;

/// Between two looks at a process that is waited for.
const POLL: Duration = Duration::from_millis(10);

/// How often [`run`] starts a program that crashes once more.
const MAX_CRASHES: u32 = 3;

/// The leash: a shell in a session of its own starts the program, tells its process id, and waits
/// for the name of a signal on its standard input, which also ends when we do, however we end. It is
/// the program's parent and reaps it last, so that the id cannot come to mean another process.
/// What is left after 10 s is killed.
const SCRIPT: &str = r#"
log=$1; shift
"$@" </dev/null >>"$log" 2>&1 &
pid=$!
echo $pid
exec >/dev/null
read -r signal || signal=TERM
kill -s "$signal" $pid 2>/dev/null
n=0
while [ $n -lt 1000 ]; do
  state=$(sed 's/.*) //; s/ .*//' /proc/$pid/stat 2>/dev/null) || break
  case $state in Z|"") break ;; esac
  sleep 0.01
  n=$((n + 1))
done
kill -s KILL $pid 2>/dev/null
wait $pid 2>/dev/null
"#;

/// A running program that ends, at the latest, when our process does: also when that is killed.
///
/// Dropping it sends SIGTERM and waits for the end; after 10 s the program is killed.
///
/// ```
/// use std::process::Command;
/// use siphon_peers::Leash;
///
/// let log = std::env::temp_dir().join(format!("leash-{}.log", std::process::id()));
/// let mut sleep = Command::new("sleep");
/// sleep.arg("60");
/// let mut leash = Leash::start(sleep, &log)?;
/// assert!(leash.is_running());
/// leash.signal("KILL")?;
/// assert!(!leash.is_running());
/// # let _ = std::fs::remove_file(log); // killed that early it may have opened none
/// # Ok::<(), siphon_peers::PeerError>(())
/// ```
#[derive(Debug)]
pub struct Leash {
    program: String,
    pid: u32,
    log: PathBuf,
    shell: Child,
}

impl Leash {
    /// Starts a program, without input, in a session of its own. All that it writes is appended to
    /// the file `log`.
    ///
    /// # Errors
    /// [`PeerError::System`] if there is no shell. A program that cannot be started ends at once and
    /// says why in its log.
    pub fn start(command: Command, log: impl Into<PathBuf>) -> Result<Self, PeerError> {
        let (program, log) = (name(&command), log.into());
        let failed = || PeerError::system(format!("start {program}"));
        let mut shell = Command::new("setsid");
        shell.args(["sh", "-c", SCRIPT, "leash"]).arg(&log);
        shell.arg(command.get_program()).args(command.get_args());
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(variable, value),
                None => shell.env_remove(variable),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = shell.spawn().map_err(failed())?;
        let mut line = String::new();
        if let Some(stdout) = shell.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(failed())?;
        }
        let pid = line
            .trim()
            .parse()
            .map_err(|_| failed()(std::io::Error::other("the shell tells no process id")))?;
        Ok(Self { program, pid, log, shell })
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the program runs: not ended, not a zombie.
    pub fn is_running(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| state != 'Z' && state != 'X')
    }

    /// What the program has written.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal that ends the program (`TERM`, `KILL`, `INT`) and waits for the end.
    ///
    /// # Errors
    /// [`PeerError::System`].
    pub fn signal(&mut self, signal: &str) -> Result<(), PeerError> {
        if let Some(mut stdin) = self.shell.stdin.take() {
            // An error here means that the shell has gone, and the program with it.
            let _ = writeln!(stdin, "{signal}");
        }
        self.shell
            .wait()
            .map(|_| ())
            .map_err(PeerError::system(format!("wait for the end of {}", self.program)))
    }

    /// Waits until the program is as `wanted` says, which `ready` finds out.
    ///
    /// # Errors
    /// [`PeerError::TimedOut`], also when the program has ended by itself.
    pub fn wait_until(
        &self,
        wanted: &'static str,
        timeout: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), PeerError> {
        let start = Instant::now();
        while !ready() {
            if start.elapsed() > timeout || !self.is_running() {
                return Err(PeerError::TimedOut {
                    program: self.program.clone(),
                    wanted,
                    after: start.elapsed(),
                    output: tail(self.output()),
                });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until something accepts TCP connections at `addr`.
    ///
    /// # Errors
    /// [`PeerError::TimedOut`], also when the program has ended by itself.
    pub fn wait_until_listening(
        &self,
        addr: SocketAddr,
        timeout: Duration,
    ) -> Result<(), PeerError> {
        let connects = || TcpStream::connect_timeout(&addr, timeout).is_ok();
        self.wait_until("listening", timeout, connects)
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        let _ = self.signal("TERM");
    }
}

/// Runs a program to its end and returns what it wrote; kills it after `timeout`.
///
/// One that crashes is run again, three times at most: Pacific's `ceph` is a script around
/// librados that takes its threads down in no fixed order, and now and then dies of that by SIGSEGV.
///
/// # Errors
/// [`PeerError::Failed`] if its status is not 0, [`PeerError::TimedOut`], [`PeerError::System`].
pub fn run(mut command: Command, timeout: Duration) -> Result<Output, PeerError> {
    let mut crashes = 0;
    loop {
        match run_once(&mut command, timeout) {
            Err(PeerError::Failed { program, status, .. })
                if status.signal().is_some() && crashes < MAX_CRASHES =>
            {
                crashes += 1;
                eprintln!("{program} crashed ({status}), which is not ours to mend: once more");
            }
            result => return result,
        }
    }
}

fn run_once(command: &mut Command, timeout: Duration) -> Result<Output, PeerError> {
    let program = name(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(PeerError::system(format!("start {program}")))?;
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let start = Instant::now();
    let status = loop {
        let ended = child.try_wait().map_err(PeerError::system(format!("wait for {program}")))?;
        if ended.is_some() || start.elapsed() > timeout {
            break ended;
        }
        thread::sleep(POLL);
    };
    if status.is_none() {
        // Not yet waited for, so the id is still its own.
        let _ = child.kill();
        let _ = child.wait();
    }
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    let text = || tail(String::from_utf8_lossy(&[&stderr[..], &stdout[..]].concat()).into_owned());
    match status {
        None => {
            Err(PeerError::TimedOut { output: text(), program, wanted: "done", after: timeout })
        }
        Some(status) if !status.success() => {
            Err(PeerError::Failed { output: text(), program, status })
        }
        Some(status) => Ok(Output { status, stdout, stderr }),
    }
}

/// Reads a pipe to its end, so that its writer is not held up.
fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// What a program is called in errors. A loader's last argument before those of the program is not
/// told apart, so whoever runs one names it by [`Command::get_program`].
fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

/// The last lines of a log: enough to see why a program ended.
fn tail(text: String) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_dropped_leash_ends_its_program() {
        let dir = Scratch::new(None, "siphon-leash").unwrap();
        let leash = Leash::start(shell("echo ready; exec sleep 600"), dir.path().join("log"));
        let leash = leash.unwrap();
        let pid = leash.pid();
        let ready = || leash.output() == "ready\n";
        leash.wait_until("ready", Duration::from_secs(30), ready).unwrap();
        drop(leash);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    /// The system closes our end of the pipe when we end, also when we are killed.
    #[test]
    fn a_program_ends_when_its_holder_is_gone() {
        let dir = Scratch::new(None, "siphon-leash").unwrap();
        let mut leash = Leash::start(shell("exec sleep 600"), dir.path().join("log")).unwrap();
        assert!(leash.is_running());
        drop(leash.shell.stdin.take());
        leash.shell.wait().unwrap();
        assert!(!leash.is_running());
    }

    #[test]
    fn a_program_that_ends_by_itself_is_not_waited_for() {
        let dir = Scratch::new(None, "siphon-leash").unwrap();
        let leash = Leash::start(shell("echo no such luck; exit 1"), dir.path().join("log"));
        let error = leash.unwrap().wait_until("lucky", Duration::from_secs(600), || false);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("not lucky") && error.contains("no such luck"), "{error}");
    }

    #[test]
    fn run_forgives_a_crash() {
        let dir = Scratch::new(None, "siphon-run").unwrap();
        let mut command = shell("test -e here && echo fine || { touch here; kill -s SEGV $$; }");
        command.current_dir(dir.path());
        assert_eq!(run(command, Duration::from_secs(30)).unwrap().stdout, b"fine\n");
    }

    #[test]
    fn run_tells_how_a_program_failed() {
        let output = run(shell("echo fine"), Duration::from_secs(30)).unwrap();
        assert_eq!(output.stdout, b"fine\n");
        let error = run(shell("echo broken >&2; exit 3"), Duration::from_secs(30)).unwrap_err();
        assert!(
            matches!(&error, PeerError::Failed { output, .. } if output == "broken"),
            "{error}"
        );
        let error = run(shell("kill -s SEGV $$"), Duration::from_secs(30)).unwrap_err();
        assert!(matches!(error, PeerError::Failed { .. }), "{error}");
        let error = run(shell("exec sleep 600"), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, PeerError::TimedOut { .. }), "{error}");
    }
}
