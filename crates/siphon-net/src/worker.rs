//! Workers: the threads that own connections, and the loop that they run.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::center::EventCenter;
use crate::driver::{Completion, Wait};
use crate::error::{WorkerError, WorkerFailure};
use crate::mailbox::{MailSender, Mailbox, OwnMail, mailbox};
use crate::stack::NetworkStack;

/// Most times that a turn takes mail that came while it worked, before it looks at the sockets
/// again. A handler that mails itself in each round would else never return to them.
const MAIL_ROUNDS: usize = 4;
/// Turns without work after which a worker that polls lets others run, who may be what it waits for.
const STEPS_BETWEEN_YIELDS: u32 = 16;

/// What a worker runs: state machines that are fed, and then drained.
///
/// In each turn of the worker's loop come any number of `handle_*` calls, which change state only;
/// then [`dispatch`](Self::dispatch), which tells the application what has come of it; then the mail
/// that this led to; and then [`drain`](Self::drain), which does everything that has become possible.
/// Where there is much to tell, a handler may do so in several such rounds.
/// The first turn does not wait, so that a new handler is drained at once.
pub trait Handler {
    /// What other threads tell it.
    type Mail: Send + 'static;

    /// Something that was asked of the driver has happened.
    fn handle_completion(&mut self, now: Instant, completion: Completion<'_>);

    /// The timer with this token has expired.
    fn handle_timer(&mut self, now: Instant, token: u64);

    /// A mail came.
    fn handle_mail(&mut self, now: Instant, mail: Self::Mail);

    /// Tells the application what it should know, so that its answers are there when all is drained.
    fn dispatch(&mut self, _center: &mut EventCenter) {}

    /// Polls every state machine to its end, then submits one batch of ops.
    fn drain(&mut self, center: &mut EventCenter);

    /// Whether the application is to be told more: then dispatch and drain follow again, before the next
    /// wait.
    fn has_more(&self) -> bool {
        false
    }

    /// Whether the worker may end. Asked after each turn.
    fn is_done(&self) -> bool;
}

/// A handler with its event center and mailbox: one worker, be it on a thread of its own
/// ([`run`](Self::run)) or one of several that a simulator [`step`](Self::step)s in one thread.
pub struct Worker<H: Handler> {
    handler: H,
    center: EventCenter,
    mailbox: Mailbox<H::Mail>,
    own_mail: OwnMail<H::Mail>,
    batch: Vec<H::Mail>,
    started: bool,
    busy_poll: Duration,
    /// Turns without work since the last with some, and when that was.
    idle_steps: u32,
    last_work: Instant,
}

impl<H: Handler> Worker<H> {
    /// Puts the parts together; `mailbox` will wake `center`.
    pub fn new(center: EventCenter, mailbox: Mailbox<H::Mail>, handler: H) -> Self {
        mailbox.set_waker(center.waker());
        let last_work = center.now();
        let (batch, started, idle_steps) = (Vec::new(), false, 0);
        let busy_poll = Duration::ZERO;
        let own_mail = mailbox.own_mail();
        Self {
            handler,
            center,
            mailbox,
            own_mail,
            batch,
            started,
            busy_poll,
            idle_steps,
            last_work,
        }
    }

    /// One turn of the loop: waits, to `limit` at most; applies completions, timers and mail;
    /// dispatches and drains, and does both again where mail came meanwhile. Gives the number of things applied.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::wait`](crate::Driver::wait): the worker is at its end.
    pub fn step(&mut self, limit: Wait) -> io::Result<usize> {
        let _work = self.own_mail.work();
        self.turn(limit)
    }

    /// A step of who is known to be at work.
    fn turn(&mut self, limit: Wait) -> io::Result<usize> {
        let limit = self.patience(limit);
        let mut applied = 0;
        let handler = &mut self.handler;
        self.center.wait(limit, &mut |now, completion| {
            applied += 1;
            handler.handle_completion(now, completion);
        })?;
        let now = self.center.now();
        while let Some(token) = self.center.pop_expired_timer() {
            applied += 1;
            self.handler.handle_timer(now, token);
        }
        applied += self.apply_mail(now);
        for round in 0.. {
            self.handler.dispatch(&mut self.center);
            applied += self.apply_mail(now);
            self.handler.drain(&mut self.center);
            let mails = if round < MAIL_ROUNDS { self.apply_mail(now) } else { 0 };
            applied += mails;
            if self.handler.has_more() {
                self.center.submit()?;
            } else if mails == 0 {
                break;
            }
        }
        self.center.end_turn(applied == 0);
        Ok(applied)
    }

    /// Steps until the handler is done.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub fn run(&mut self) -> io::Result<()> {
        let _work = self.own_mail.work();
        while !self.handler.is_done() {
            if self.busy_poll.is_zero() {
                self.turn(Wait::Forever)?;
            } else {
                self.turn_busily()?;
            }
        }
        Ok(())
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// The handler, to be changed from outside the loop: it is drained in the next step.
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.handler
    }

    /// The event center.
    pub fn center(&self) -> &EventCenter {
        &self.center
    }

    /// A turn that sleeps only after a time without work. Who sends mail meanwhile wakes nobody.
    fn turn_busily(&mut self) -> io::Result<()> {
        let idle = self.center.now() - self.last_work;
        let limit = if idle < self.busy_poll { Wait::Poll } else { Wait::Forever };
        if self.turn(limit)? > 0 {
            self.last_work = self.center.now();
            self.idle_steps = 0;
        } else {
            self.idle_steps = self.idle_steps.wrapping_add(1);
            if self.idle_steps.is_multiple_of(STEPS_BETWEEN_YIELDS) {
                thread::yield_now();
            }
        }
        Ok(())
    }

    /// How long this turn may sleep: not at all in the first, nor with mail there.
    fn patience(&mut self, limit: Wait) -> Wait {
        let first = !std::mem::replace(&mut self.started, true);
        let may_sleep = !first
            && limit != Wait::Poll
            && self.own_mail.is_empty()
            && self.mailbox.prepare_sleep();
        if may_sleep { limit } else { Wait::Poll }
    }

    fn apply_mail(&mut self, now: Instant) -> usize {
        self.own_mail.take(&mut self.batch);
        if !self.mailbox.take(&mut self.batch) {
            return 0;
        }
        let mails = self.batch.len();
        for mail in self.batch.drain(..) {
            self.handler.handle_mail(now, mail);
        }
        mails
    }
}

impl<H: Handler> fmt::Debug for Worker<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("center", &self.center).finish_non_exhaustive()
    }
}

/// The running workers of a stack.
///
/// Dropping it leaves them running, each until its handler is done.
pub struct Workers<M: 'static> {
    senders: Arc<[MailSender<M>]>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl<M: Send + 'static> Workers<M> {
    /// As [`NetworkStack::spawn`].
    pub(crate) fn spawn<H: Handler<Mail = M>>(
        stack: &NetworkStack,
        count: usize,
        factory: impl Fn(usize, Arc<[MailSender<M>]>) -> H + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (senders, mailboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| mailbox()).unzip();
        let senders: Arc<[MailSender<M>]> = senders.into();
        let factory = Arc::new(factory);
        // Each worker reports its driver here, and begins when all have one.
        let (ready, all_ready) = mpsc::channel();
        let mut begins = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for (index, mailbox) in mailboxes.into_iter().enumerate() {
            let (stack, factory) = (stack.clone(), Arc::clone(&factory));
            let (senders, ready) = (Arc::clone(&senders), ready.clone());
            let (begin, may_begin) = mpsc::channel();
            begins.push(begin);
            let body = move || {
                let Some(center) = open_center(&stack, index, &ready, &may_begin) else {
                    return Ok(());
                };
                let handler = factory(index, senders);
                let mut worker = Worker::new(center, mailbox, handler);
                worker.busy_poll = stack.schedule.busy_poll;
                worker.run()
            };
            threads.push(thread::Builder::new().name(format!("msgr-worker-{index}")).spawn(body)?);
        }
        drop(ready);
        for _ in 0..count {
            all_ready.recv().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))?;
        }
        for begin in begins {
            // A worker that ended meanwhile says so in `join`.
            let _ = begin.send(());
        }
        Ok(Self { senders, threads })
    }

    /// The mailbox of worker `index`.
    ///
    /// # Panics
    ///
    /// If there is no such worker.
    pub fn sender(&self, index: usize) -> &MailSender<M> {
        &self.senders[index]
    }

    /// All mailboxes, by worker.
    pub fn senders(&self) -> &[MailSender<M>] {
        &self.senders
    }

    /// How many workers there are.
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Waits until every handler is done.
    ///
    /// # Errors
    ///
    /// The first worker that panicked or whose driver failed; others are logged.
    pub fn join(self) -> Result<(), WorkerError> {
        let mut first = None;
        for (worker, thread) in self.threads.into_iter().enumerate() {
            let cause = match thread.join() {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => WorkerFailure::Driver(error),
                Err(panic) => WorkerFailure::Panicked(panic_message(&*panic)),
            };
            let error = WorkerError { worker, cause };
            tracing::error!(%error);
            first.get_or_insert(error);
        }
        first.map_or(Ok(()), Err)
    }
}

impl<M> fmt::Debug for Workers<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// The worker's event center, once all others have theirs. `None` where one of them has not.
fn open_center(
    stack: &NetworkStack,
    index: usize,
    ready: &mpsc::Sender<io::Result<()>>,
    may_begin: &mpsc::Receiver<()>,
) -> Option<EventCenter> {
    let driver = stay(&stack.schedule.cores, index).and_then(|()| stack.driver(index));
    let (outcome, center) = match driver {
        Ok(driver) => (Ok(()), Some(EventCenter::new(driver))),
        Err(error) => (Err(error), None),
    };
    ready.send(outcome).ok()?;
    may_begin.recv().ok()?;
    center
}

/// Has this thread, that of a worker, stay on its processor.
fn stay(cores: &[usize], worker: usize) -> io::Result<()> {
    let Some(core) = cores.get(worker % cores.len().max(1)).copied() else {
        return Ok(());
    };
    let stays = match core < CpuSet::MAX_CPU {
        true => {
            let mut set = CpuSet::new();
            set.set(core);
            sched_setaffinity(None, &set)
        }
        false => Err(Errno::INVAL),
    };
    stays.map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(
            error.kind(),
            format!("worker {worker} can't run on processor {core}: {error}"),
        )
    })
}

/// What a panic said: `panic!` gives a string in either of two shapes.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    message.unwrap_or("(no message)").to_owned()
}
