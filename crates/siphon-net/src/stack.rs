use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, mpsc};

use crate::center::EventCenter;
use crate::driver::Driver;
use crate::mailbox::{MailSender, mailbox};
use crate::posix::PosixDriver;
use crate::worker::{Handler, Workers, run};

/// Kinds of stack that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StackKind {
    /// Kernel sockets and epoll.
    Posix,
}

/// A name that is no stack's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownStack(String);

impl StackKind {
    /// Every kind, for tables and tests.
    pub const ALL: &'static [Self] = &[Self::Posix];

    /// Its short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Posix => "posix",
        }
    }

    /// A driver of this kind, for the calling thread.
    ///
    /// # Errors
    /// If the operating system has no descriptor left, or lacks what the stack needs.
    pub fn driver(self) -> io::Result<Box<dyn Driver>> {
        match self {
            Self::Posix => Ok(Box::new(PosixDriver::new()?)),
        }
    }
}

impl fmt::Display for StackKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for StackKind {
    type Err = UnknownStack;

    /// Takes `posix` and Ceph's `async+posix`, which `async` means as well.
    fn from_str(text: &str) -> Result<Self, UnknownStack> {
        match text.strip_prefix("async+").unwrap_or(text) {
            "posix" | "async" => Ok(Self::Posix),
            _ => Err(UnknownStack(text.to_owned())),
        }
    }
}

impl fmt::Display for UnknownStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<_> = StackKind::ALL.iter().map(|kind| format!("async+{kind}")).collect();
        write!(f, "there is no network stack \"{}\"; there are: {}", self.0, known.join(", "))
    }
}

impl std::error::Error for UnknownStack {}

/// A network stack, from which workers are started.
#[derive(Clone, Copy, Debug)]
pub struct NetworkStack {
    kind: StackKind,
}

impl NetworkStack {
    /// A stack of this kind.
    pub fn new(kind: StackKind) -> Self {
        Self { kind }
    }

    /// Starts `count` worker threads, `msgr-worker-0` and on. `factory` makes each one's handler, on
    /// the worker's own thread, from its number and the mailboxes of all.
    ///
    /// # Errors
    /// If a thread or its driver cannot be made; those that run already end then.
    pub fn spawn<H: Handler>(
        self,
        count: usize,
        factory: impl Fn(usize, Arc<[MailSender<H::Mail>]>) -> H + Send + Sync + 'static,
    ) -> io::Result<Workers<H::Mail>> {
        let factory = Arc::new(factory);
        let mut senders = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        let mut starts = Vec::with_capacity(count);
        for index in 0..count {
            let (ready, wait_ready) = mpsc::sync_channel(1);
            let (start, wait_start) = mpsc::sync_channel::<Arc<[MailSender<H::Mail>]>>(1);
            let factory = Arc::clone(&factory);
            let thread = std::thread::Builder::new().name(format!("msgr-worker-{index}"));
            threads.push(thread.spawn(move || {
                let driver = match self.kind.driver() {
                    Ok(driver) => driver,
                    Err(error) => {
                        let _ = ready.send(Err(error)); // whoever spawns us waits for it
                        return Ok(());
                    }
                };
                let (sender, receiver) = mailbox(driver.waker());
                let _ = ready.send(Ok(sender));
                // Without a start, another worker could not be made.
                let Ok(all) = wait_start.recv() else { return Ok(()) };
                run(EventCenter::new(driver), &receiver, &mut factory(index, all))
            })?);
            let lost = || io::Error::other("a worker ended before it began");
            senders.push(wait_ready.recv().map_err(|_| lost())??);
            starts.push(start);
        }
        let all: Arc<[MailSender<H::Mail>]> = senders.clone().into();
        for start in starts {
            let _ = start.send(Arc::clone(&all)); // it waits for nothing else
        }
        Ok(Workers::new(senders, threads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cephs_names_of_stacks_are_known() {
        for name in ["posix", "async+posix", "async"] {
            assert_eq!(name.parse(), Ok(StackKind::Posix));
        }
        let error = "async+dpdk".parse::<StackKind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no network stack \"async+dpdk\"; there are: async+posix"
        );
    }
}
