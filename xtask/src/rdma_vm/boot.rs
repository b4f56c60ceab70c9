use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Accel;
use super::cache::Cache;
use super::image::Image;
use super::job::Job;
use super::relay::Relay;

/// The guest's main program.
const GUEST: &str = include_str!("guest.sh");
/// Between two looks at whether the machine has ended.
const POLL: Duration = Duration::from_millis(20);
/// The exit code of a command that SIGPIPE ended, as a shell has it.
const BROKEN_PIPE: u8 = 128 + 13;
/// The lines of the console that tell why a machine failed.
const CONSOLE_LINES: usize = 60;
/// Ends the machine when we end, also when we are killed before the program is there.
const LEASH: &str = r#"[ "$PPID" = "$0" ] && exec "$@""#;
/// A machine whose clock is believed, and that keeps no attack off. It also does without the
/// instruction with which a CRC, of which rxe makes one for each packet, takes twice as long when
/// emulated.
const KERNEL_OPTIONS: &str = "console=ttyS0 quiet panic=-1 oops=panic tsc=reliable \
    clocksource=tsc mitigations=off modprobe.blacklist=crc32_pclmul";

/// The machine.
pub(super) struct Machine {
    pub(super) cpus: u32,
    /// In MiB.
    pub(super) memory: u32,
    pub(super) limit: Duration,
    /// Folders in which what is written stays.
    pub(super) shares: Vec<PathBuf>,
    pub(super) accel: Accel,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The job ended, with this exit code.
    Job { code: u8 },
    /// The job took too long, or the machine did.
    TimedOut { limit: Duration, log: String },
    /// The machine ended before the job.
    Failed { status: ExitStatus, log: String },
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job { code } => write!(f, "the job ended with {code}"),
            Self::TimedOut { limit, log } => {
                write!(
                    f,
                    "not done after {} s; the console of the machine:\n{log}",
                    limit.as_secs()
                )
            }
            Self::Failed { status, log } => {
                write!(f, "the machine failed ({status}); its console:\n{log}")
            }
        }
    }
}

impl Machine {
    /// Boots the machine and runs a job in it. What the job writes goes to our standard output and
    /// standard error.
    pub(super) fn run(&self, cache: &Cache, image: &Image, job: &Job<'_>) -> Result<Ended> {
        let folder = cache.run()?;
        let path = folder.path();
        fs::write(path.join("guest.sh"), GUEST)?;
        fs::write(path.join("job.sh"), job.script().as_bytes())?;
        let shares = self.shares.iter().flat_map(|share| [share.as_os_str().as_bytes(), b"\n"]);
        fs::write(path.join("shares"), shares.collect::<Vec<_>>().concat())?;
        let relays = [
            Relay::start(path.join("stdout"), io::stdout().as_fd())?,
            Relay::start(path.join("stderr"), io::stderr().as_fd())?,
        ];
        let mut qemu = self.start(image, path)?;
        let waited = wait(&mut qemu, self.limit, || !relays.iter().all(Relay::is_heard))?;
        relays.into_iter().try_for_each(Relay::finish)?;
        let code = fs::read_to_string(path.join("status")).unwrap_or_default();
        Ok(match (code.trim().parse(), waited) {
            (Ok(code), _) => Ended::Job { code },
            (Err(_), Waited::Unheard) => Ended::Job { code: BROKEN_PIPE },
            (Err(_), Waited::TooLong) => Ended::TimedOut { limit: self.limit, log: log(path) },
            (Err(_), Waited::Ended(status)) => Ended::Failed { status, log: log(path) },
        })
    }

    /// Starts qemu. To be called on the main thread: the system ends a leashed process when the
    /// thread ends that started it.
    fn start(&self, image: &Image, run: &Path) -> Result<Child> {
        let errors = File::create(run.join("qemu"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "sh", "-c", LEASH]);
        command.arg(std::process::id().to_string()).args(self.qemu(image, run)?);
        command.stdin(Stdio::null()).stdout(errors.try_clone()?).stderr(errors);
        command.spawn().context("setpriv, of util-linux")
    }

    /// The command line of qemu.
    fn qemu(&self, image: &Image, run: &Path) -> Result<Vec<OsString>> {
        let modules = image.modules()?;
        let append =
            format!(r#"{KERNEL_OPTIONS} MODULES="{}" RUN="{}""#, modules.display(), run.display());
        // Emulated, `rep movsb` takes 4 times as long as what programs copy with otherwise, and
        // checksums by `pclmulqdq` 3 times as long as by tables.
        let (accel, cpu) = match self.accel {
            Accel::Kvm => ("kvm", "host"),
            Accel::Tcg => ("tcg,thread=multi", "max,-erms,-fsrm,-pclmulqdq"),
        };
        let mut words = image.qemu();
        words.extend(["-no-user-config", "-nodefaults", "-no-reboot"].map(OsString::from));
        let mut option = |name: &str, value: &OsStr| words.extend([name.into(), value.to_owned()]);
        option("-display", "none".as_ref());
        option("-machine", "pc".as_ref());
        option("-accel", accel.as_ref());
        option("-cpu", cpu.as_ref());
        option("-smp", self.cpus.to_string().as_ref());
        option("-m", format!("{}M", self.memory).as_ref());
        option("-kernel", image.kernel().as_ref());
        option("-initrd", image.initramfs().as_ref());
        option("-append", append.as_ref());
        option("-chardev", &with_path("file,id=console,path=", &run.join("console"), ""));
        option("-serial", "chardev:console".as_ref());
        option("-virtfs", &share("host", Path::new("/"), ",readonly=on"));
        for (number, path) in self.shares.iter().enumerate() {
            option("-virtfs", &share(&format!("share{number}"), path, ""));
        }
        option("-device", "virtio-serial-pci".as_ref());
        for port in ["stdout", "stderr", "status"] {
            let file = with_path(&format!("file,id={port},path="), &run.join(port), "");
            option("-chardev", &file);
            option("-device", format!("virtserialport,chardev={port},name={port}").as_ref());
        }
        Ok(words)
    }
}

impl Accel {
    /// The quickest that works here.
    pub(super) fn best() -> Self {
        // There are machines with the device, but without a CPU that it would work with.
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let device = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        if virtualizes(&cpu) && device.is_ok() { Self::Kvm } else { Self::Tcg }
    }
}

/// Whether the text of `/proc/cpuinfo` has one of the two flags for virtualization.
fn virtualizes(cpu: &str) -> bool {
    cpu.split_whitespace().any(|word| word == "vmx" || word == "svm")
}

/// How a wait for a process came to its end, and the process with it.
#[derive(Debug, PartialEq, Eq)]
enum Waited {
    Ended(ExitStatus),
    TooLong,
    /// Nobody reads what it writes.
    Unheard,
}

/// Waits for the end of a process; kills it after `limit`, or once it is unheard.
fn wait(child: &mut Child, limit: Duration, unheard: impl Fn() -> bool) -> Result<Waited> {
    let start = Instant::now();
    loop {
        let killed = match child.try_wait()? {
            Some(status) => return Ok(Waited::Ended(status)),
            None if unheard() => Waited::Unheard,
            None if start.elapsed() >= limit => Waited::TooLong,
            None => {
                thread::sleep(POLL);
                continue;
            }
        };
        child.kill()?;
        child.wait()?;
        return Ok(killed);
    }
}

/// What qemu and the machine's kernel had to say.
fn log(run: &Path) -> String {
    let read = |name| fs::read(run.join(name)).unwrap_or_default();
    let text = [read("qemu"), read("console")].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return "(nothing)".to_owned();
    }
    lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
}

/// qemu's option for a folder of the host that the guest mounts by `tag`.
fn share(tag: &str, path: &Path, options: &str) -> OsString {
    let rest = format!(",mount_tag={tag},security_model=none,multidevs=remap{options}");
    with_path("local,path=", path, &rest)
}

/// An option of qemu with a path in it. Commas part options, and two of them are one of the path's.
fn with_path(before: &str, path: &Path, after: &str) -> OsString {
    let path = path.as_os_str().as_bytes();
    let escaped = path.split(|byte| *byte == b',').collect::<Vec<_>>().join(&b",,"[..]);
    let bytes = [before.as_bytes(), &escaped, after.as_bytes()].concat();
    OsStr::from_bytes(&bytes).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_end_its_option() {
        assert_eq!(
            share("host", Path::new("/a,readonly=off"), ",readonly=on"),
            "local,path=/a,,readonly=off,mount_tag=host,security_model=none,multidevs=remap,readonly=on"
        );
    }

    #[test]
    fn flags_of_a_cpu_are_whole_words() {
        assert!(virtualizes("flags\t\t: fpu vmx sse"));
        assert!(virtualizes("flags\t\t: svm\n"));
        assert!(!virtualizes("flags\t\t: fpu svm_lock avmx\nmodel name: vmxnet"));
    }

    #[test]
    fn a_process_that_takes_too_long_is_killed_and_one_that_ends_is_not() {
        let mut sleep = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(wait(&mut sleep, Duration::ZERO, || false).unwrap(), Waited::TooLong);
        let long = Duration::from_secs(600);
        let mut sleep = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(wait(&mut sleep, long, || true).unwrap(), Waited::Unheard);
        let mut quick = Command::new("true").spawn().unwrap();
        let waited = wait(&mut quick, long, || false).unwrap();
        assert!(matches!(waited, Waited::Ended(status) if status.success()), "{waited:?}");
    }
}
