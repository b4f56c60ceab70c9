//! Counting system calls, as `perf stat -e raw_syscalls:sys_enter` does.

use std::fs;
use std::io;

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};

/// Where the kernel says which number the tracepoint has: in tracefs, or below debugfs.
const IDS: [&str; 2] = [
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
];

/// Counts every system call of this process's threads, and of those that they start, until it is
/// dropped.
///
/// The kernel counts, at its tracepoint of entry, which nothing evades. While one exists, each system
/// call of the whole machine takes a little longer: what is timed is not what is counted.
///
/// ```
/// use siphon_perf::SyscallCounter;
///
/// match SyscallCounter::start() {
///     Ok(mut counter) => {
///         std::thread::yield_now();
///         assert!(counter.read()? >= 1);
///     }
///     Err(reason) => println!("system calls are not counted: {reason}"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct SyscallCounter {
    threads: Vec<Counter>,
}

impl SyscallCounter {
    /// How it counts, for a report.
    pub const HOW: &str = "every system call of both sides, by the kernel's tracepoint raw_syscalls:sys_enter, in a run \
         of its own that is not timed";

    /// Begins to count.
    ///
    /// # Errors
    /// Where the kernel has no tracepoints, or lets only others count them.
    pub fn start() -> io::Result<Self> {
        let mut builder = Builder::new(Tracepoint::with_id(tracepoint()?));
        // The kernel is where system calls are counted.
        builder.include_kernel().inherit(true);
        let mut counter = Self { threads: Vec::new() };
        for thread in fs::read_dir("/proc/self/task")? {
            let name = thread?.file_name();
            let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            match builder.observe_pid(thread).build() {
                Ok(thread) => counter.threads.push(thread),
                Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {} // it has ended
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    let message = "the kernel lets only root count them, or who has CAP_PERFMON and may read tracefs";
                    return Err(io::Error::new(error.kind(), message));
                }
                Err(error) => return Err(error),
            }
        }
        for thread in &mut counter.threads {
            thread.enable()?;
        }
        Ok(counter)
    }

    /// System calls so far. Those of reading this counter are among them: about one a thread.
    ///
    /// # Errors
    /// What the system says to reading a counter.
    pub fn read(&mut self) -> io::Result<u64> {
        self.threads.iter_mut().try_fold(0, |sum, thread| Ok(sum + thread.read()?))
    }
}

fn tracepoint() -> io::Result<u64> {
    let mut failure = None;
    for path in IDS {
        match fs::read_to_string(path) {
            Ok(id) => return id.trim().parse().map_err(io::Error::other),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let error = failure.unwrap_or_else(|| io::ErrorKind::NotFound.into());
    let message = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "the kernel lets only root read its tracepoints".to_owned()
        }
        _ => format!("{}: {error}; mount -t tracefs tracefs /sys/kernel/tracing", IDS[0]),
    };
    Err(io::Error::new(error.kind(), message))
}
