use std::fmt;
use std::io;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::center::EventCenter;
use crate::driver::Completion;
use crate::mailbox::{MailReceiver, MailSender};

/// How often a worker takes mail that came while it drained before it looks at its sockets again.
const MAX_MAIL_ROUNDS: usize = 8;

/// What runs on a worker: it applies what has happened to its state, then drains what is to be
/// done. Only [`drain`](Self::drain) sees the event center, so nothing re-enters.
pub trait Handler {
    /// What others send to this worker.
    type Mail: Send + 'static;

    /// Something has happened.
    fn handle_completion(&mut self, now: Instant, completion: Completion<'_>);

    /// A timer is due.
    fn handle_timer(&mut self, now: Instant, token: u64);

    /// Mail came.
    fn handle_mail(&mut self, now: Instant, mail: Self::Mail);

    /// Does everything that is to be done after what came before.
    fn drain(&mut self, center: &mut EventCenter);

    /// Whether the worker's work is over.
    fn is_done(&self) -> bool;
}

/// The worker threads of a stack.
#[derive(Debug)]
pub struct Workers<M> {
    senders: Vec<MailSender<M>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// A worker thread that ended before its time.
#[derive(Debug)]
pub struct WorkerPanicked {
    /// The number of the worker.
    pub worker: usize,
    /// What its waiting failed with; none if it panicked.
    pub source: Option<io::Error>,
}

impl<M> Workers<M> {
    pub(crate) fn new(
        senders: Vec<MailSender<M>>,
        threads: Vec<JoinHandle<io::Result<()>>>,
    ) -> Self {
        Self { senders, threads }
    }

    /// How many workers there are.
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether there is no worker.
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// The mailboxes of all workers, in order.
    pub fn senders(&self) -> &[MailSender<M>] {
        &self.senders
    }

    /// Waits until all workers are done.
    ///
    /// # Errors
    /// If one ended by a panic, or because it could not wait; the others are waited for all the
    /// same.
    pub fn join(self) -> Result<(), WorkerPanicked> {
        let mut result = Ok(());
        for (worker, thread) in self.threads.into_iter().enumerate() {
            let source = match thread.join() {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            result = Err(WorkerPanicked { worker, source });
        }
        result
    }
}

impl fmt::Display for WorkerPanicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(error) => write!(f, "worker {} could not wait: {error}", self.worker),
            None => write!(f, "worker {} panicked", self.worker),
        }
    }
}

impl std::error::Error for WorkerPanicked {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// Runs a handler until it is done.
pub(crate) fn run<H: Handler>(
    mut center: EventCenter,
    mail: &MailReceiver<H::Mail>,
    handler: &mut H,
) -> io::Result<()> {
    let mut batch = Vec::new();
    while !handler.is_done() {
        step(&mut center, mail, handler, &mut batch)?;
    }
    Ok(())
}

/// One turn of a worker's loop: waits, unless there is mail; applies; drains. `batch` is empty
/// before and after, and kept for its capacity.
///
/// A simulator runs several handlers on one thread by this, each with a driver of its own.
///
/// # Errors
/// If the driver cannot wait.
pub fn step<H: Handler>(
    center: &mut EventCenter,
    mail: &MailReceiver<H::Mail>,
    handler: &mut H,
    batch: &mut Vec<H::Mail>,
) -> io::Result<()> {
    let poll = !mail.prepare_sleep();
    center.wait(poll, &mut |now, completion| handler.handle_completion(now, completion))?;
    mail.awake();
    let now = center.now();
    while let Some(token) = center.pop_due() {
        handler.handle_timer(now, token);
    }
    for round in 0..MAX_MAIL_ROUNDS {
        let any = mail.take(batch);
        if round > 0 && !any {
            break;
        }
        for mail in batch.drain(..) {
            handler.handle_mail(now, mail);
        }
        handler.drain(center);
    }
    Ok(())
}
