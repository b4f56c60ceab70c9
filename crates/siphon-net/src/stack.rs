//! Network stacks by name.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::thread::sched_getaffinity;

use crate::driver::Driver;
use crate::error::UnknownStack;
use crate::faulty::FaultyDriver;
use crate::mailbox::MailSender;
use crate::posix::PosixDriver;
use crate::rdma::{RdmaDevice, RdmaOptions};
use crate::uring::UringDriver;
use crate::worker::{Handler, Workers};

/// A way to move bytes, from which workers are started. Several can run in one process at once.
///
/// Each worker's thread makes its own [`Driver`] from it. What one driver of a stack accepts, each
/// of its drivers can adopt.
///
/// ```
/// use std::time::Instant;
/// use siphon_net::{Completion, EventCenter, Handler, NetworkStack, StackKind};
///
/// struct UntilTold(bool);
///
/// impl Handler for UntilTold {
///     type Mail = ();
///     fn handle_completion(&mut self, _: Instant, _: Completion<'_>) {}
///     fn handle_timer(&mut self, _: Instant, _: u64) {}
///     fn handle_mail(&mut self, _: Instant, (): ()) {
///         self.0 = true;
///     }
///     fn drain(&mut self, _: &mut EventCenter) {}
///     fn is_done(&self) -> bool {
///         self.0
///     }
/// }
///
/// let stack = NetworkStack::new(StackKind::Posix);
/// let workers = stack.spawn(2, |_index, _senders| UntilTold(false)).unwrap();
/// for sender in workers.senders() {
///     sender.send(());
/// }
/// workers.join().unwrap();
/// ```
#[derive(Clone)]
pub struct NetworkStack {
    name: &'static str,
    open: Arc<OpenDriver>,
    /// Connections that its drivers broke on purpose.
    injected: Arc<AtomicU64>,
    /// How its workers run.
    pub(crate) schedule: Schedule,
}

/// How workers run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    /// How long a worker polls before it sleeps.
    pub(crate) busy_poll: Duration,
    /// The processors that workers stay on, in turn; any, if there is none here.
    pub(crate) cores: Vec<usize>,
}

type OpenDriver = dyn Fn(usize) -> io::Result<Box<dyn Driver>> + Send + Sync;

impl NetworkStack {
    /// A stack that is built in; [`rdma`](Self::rdma) takes options. Whether this system has it is what
    /// [`StackKind::here`] tells.
    pub fn new(kind: StackKind) -> Self {
        Self::from_fn(kind.name(), move |_| kind.driver())
    }

    /// A stack of reliable RDMA connections by one device, which is opened now.
    ///
    /// ```no_run
    /// use siphon_net::{NetworkStack, RdmaOptions};
    ///
    /// let options = RdmaOptions { device_name: "mlx5_0".into(), ..RdmaOptions::default() };
    /// let (stack, device) = NetworkStack::rdma(options)?;
    /// let driver = stack.driver(0)?;
    /// println!("{:?}", device.counts());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What the system has not (libibverbs, with the package that brings it), the device, port or GID
    /// that are not there, with those that are.
    pub fn rdma(options: RdmaOptions) -> io::Result<(Self, RdmaDevice)> {
        let device = RdmaDevice::open(options)?;
        let opened = device.clone();
        let open =
            move |worker| -> io::Result<Box<dyn Driver>> { Ok(Box::new(opened.driver(worker)?)) };
        Ok((Self::from_fn("rdma", open), device))
    }

    /// Any other stack: `open` makes the driver of the worker with the given number, and is called
    /// on that worker's thread.
    pub fn from_fn(
        name: &'static str,
        open: impl Fn(usize) -> io::Result<Box<dyn Driver>> + Send + Sync + 'static,
    ) -> Self {
        let (injected, schedule) = Default::default();
        Self { name, open: Arc::new(open), injected, schedule }
    }

    /// The same stack, whose workers look for work for so long before they sleep. What comes meanwhile
    /// waits for no wakeup, and a processor is busy that would be idle, for each worker.
    ///
    /// Zero, which is the default, has them sleep at once.
    #[must_use]
    pub fn with_busy_poll(mut self, busy_poll: Duration) -> Self {
        self.schedule.busy_poll = busy_poll;
        self
    }

    /// The same stack, whose first worker stays on the first of these processors, and so on, over again
    /// where there are fewer of them. None leaves the workers where the system puts them.
    #[must_use]
    pub fn with_affinity(mut self, cores: Vec<usize>) -> Self {
        self.schedule.cores = cores;
        self
    }

    /// Processors for its workers: those that they [stay on](Self::with_affinity), else those that the calling thread may
    /// run on, and so the threads that it starts; any number where the system does not tell.
    ///
    /// A limit of time, as a container has it, is none of processors.
    ///
    /// ```
    /// use siphon_net::{NetworkStack, StackKind};
    ///
    /// let stack = NetworkStack::new(StackKind::Posix);
    /// assert!(stack.processors() > 0);
    /// assert_eq!(stack.with_affinity(vec![0, 1, 0]).processors(), 2);
    /// ```
    pub fn processors(&self) -> usize {
        match self.schedule.cores.iter().collect::<HashSet<_>>().len() {
            0 => sched_getaffinity(None).map_or(usize::MAX, |set| set.count() as usize),
            pinned => pinned,
        }
    }

    /// The same stack, of which one in `one_in` receives and sends breaks its connection: Ceph's
    /// `ms_inject_socket_failures`. 0 breaks none, and costs nothing.
    #[must_use]
    pub fn with_socket_failures(self, one_in: u32, seed: u64) -> Self {
        if one_in == 0 {
            return self;
        }
        let (open, injected) = (Arc::clone(&self.open), Arc::clone(&self.injected));
        let faulty = move |worker: usize| -> io::Result<Box<dyn Driver>> {
            let seed = seed.wrapping_add(worker as u64);
            let driver = FaultyDriver::new(open(worker)?, one_in, seed);
            Ok(Box::new(driver.counting(Arc::clone(&injected))))
        };
        Self { open: Arc::new(faulty), ..self }
    }

    /// Connections that were broken for [`with_socket_failures`](Self::with_socket_failures), by
    /// all drivers of this stack and of its clones.
    pub fn injected_failures(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// Makes one worker's share, for the calling thread.
    ///
    /// # Errors
    ///
    /// Where the system has not what a driver needs.
    pub fn driver(&self, worker: usize) -> io::Result<Box<dyn Driver>> {
        (self.open)(worker)
    }

    /// Starts `count` workers, in threads named `msgr-worker-N` as Ceph's are. Each makes its
    /// driver and then, by `factory`, its handler on its own thread: neither needs to be `Send`.
    /// `factory` gets the worker's number and the mailboxes of all.
    ///
    /// # Errors
    ///
    /// What the system says to threads and drivers. No handler is made then.
    pub fn spawn<H: Handler>(
        &self,
        count: usize,
        factory: impl Fn(usize, Arc<[MailSender<H::Mail>]>) -> H + Send + Sync + 'static,
    ) -> io::Result<Workers<H::Mail>> {
        Workers::spawn(self, count, factory)
    }
}

impl fmt::Debug for NetworkStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NetworkStack").field(&self.name).finish()
    }
}

/// The stacks that a configuration can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StackKind {
    /// The system's TCP sockets.
    #[default]
    Posix,
    /// The system's TCP sockets, by io_uring.
    Uring,
    /// Reliable connections of RDMA.
    Rdma,
}

impl StackKind {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Posix, Self::Uring, Self::Rdma];

    /// What this system has for it: where there is no io_uring, or it is forbidden, `Posix` takes the place
    /// of `Uring`, and the log has why.
    ///
    /// A stack asks once, for all of its workers, since each can adopt what another accepted.
    #[must_use]
    pub fn here(self) -> Self {
        if self == Self::Uring
            && let Err(error) = UringDriver::new()
        {
            tracing::warn!(%error, "io_uring cannot be used: the posix stack takes its place");
            return Self::Posix;
        }
        self
    }

    /// Its short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Posix => "posix",
            Self::Uring => "uring",
            Self::Rdma => "rdma",
        }
    }

    /// A driver of it, for the calling thread; of RDMA with the default options.
    ///
    /// # Errors
    ///
    /// Where the system has not what a driver needs.
    pub fn driver(self) -> io::Result<Box<dyn Driver>> {
        match self {
            Self::Posix => Ok(Box::new(PosixDriver::new()?)),
            Self::Uring => Ok(Box::new(UringDriver::new()?)),
            Self::Rdma => Ok(Box::new(RdmaDevice::open(RdmaOptions::default())?.driver(0)?)),
        }
    }
}

/// Ceph's name for it, the value of `ms_type`.
impl fmt::Display for StackKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "async+{}", self.name())
    }
}

/// From Ceph's `ms_type`, with or without its `async+`; Ceph's bare `async` is `async+posix`.
impl FromStr for StackKind {
    type Err = UnknownStack;

    fn from_str(name: &str) -> Result<Self, UnknownStack> {
        match name.strip_prefix("async+").unwrap_or(name) {
            "posix" | "async" => Ok(Self::Posix),
            "uring" => Ok(Self::Uring),
            "rdma" => Ok(Self::Rdma),
            _ => Err(UnknownStack(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_named_as_ceph_names_them() {
        for &kind in StackKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for name in ["posix", "async"] {
            assert_eq!(name.parse(), Ok(StackKind::Posix));
        }
        let error = "async+dpdk".parse::<StackKind>().unwrap_err();
        assert!(error.to_string().contains("async+dpdk"), "{error}");
        assert!("async+async+posix".parse::<StackKind>().is_err());
    }
}
