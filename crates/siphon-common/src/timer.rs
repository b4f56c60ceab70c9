#![expect(clippy::disallowed_methods, reason = "a timer is where deadlines meet the clock")]

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use std::{fmt, io, thread};

/// What a [`Timer`] calls.
pub trait Tick: Send + Sync {
    /// A deadline has passed, or an earlier one that was moved since: look at what is due at `now`, and
    /// [set](Deadline::set) the next. It runs on the timer's thread, which others wait for: it must
    /// not block.
    fn tick(&self, now: Instant);
}

/// One thread that keeps the deadlines of a client: of cores that say when they want to hear of time
/// (`poll_timeout`), and do no waiting of their own. Clones are the same timer.
///
/// The thread ends when the last clone and the last [`Deadline`] are dropped.
///
/// ```
/// use std::sync::{Arc, Weak, mpsc};
/// use std::time::Instant;
/// use siphon_common::{Tick, Timer};
///
/// struct Alarm(mpsc::Sender<Instant>);
///
/// impl Tick for Alarm {
///     fn tick(&self, now: Instant) {
///         let _ = self.0.send(now);
///     }
/// }
///
/// let timer = Timer::start("alarm")?;
/// let (sender, receiver) = mpsc::channel();
/// let alarm: Arc<dyn Tick> = Arc::new(Alarm(sender));
/// let deadline = timer.deadline(Arc::downgrade(&alarm));
/// let at = Instant::now();
/// deadline.set(Some(at));
/// assert!(receiver.recv().unwrap() >= at);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Timer {
    owner: Arc<Owner>,
}

/// What a [`Timer`] keeps for one [`Tick`]; dropping it ends that.
pub struct Deadline {
    owner: Arc<Owner>,
    id: u64,
    ticker: Weak<dyn Tick>,
    /// When the thread will call at the latest.
    armed: Arc<Mutex<Option<Instant>>>,
}

/// What all clones and deadlines share, and the thread does not.
struct Owner {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By time, then by deadline.
    waiting: BTreeMap<(Instant, u64), Waiting>,
    next_id: u64,
    stopped: bool,
}

struct Waiting {
    ticker: Weak<dyn Tick>,
    armed: Arc<Mutex<Option<Instant>>>,
}

impl Timer {
    /// A timer, whose thread has this name in lists of threads (at most 15 bytes are seen there).
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(name: &str) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let kept = Arc::clone(&shared);
        thread::Builder::new().name(name.to_owned()).spawn(move || kept.run())?;
        Ok(Self { owner: Arc::new(Owner { shared }) })
    }

    /// A deadline that calls `ticker`, for as long as that lives. It is not set yet.
    pub fn deadline(&self, ticker: Weak<dyn Tick>) -> Deadline {
        let mut state = self.owner.shared.lock();
        state.next_id += 1;
        let id = state.next_id;
        Deadline { owner: Arc::clone(&self.owner), id, ticker, armed: Arc::default() }
    }
}

impl Deadline {
    /// Wants a call at `at`, or none. An earlier call that was wanted before still comes, and costs
    /// nothing to keep: so whoever moves a deadline on with every message pays for it once a tick.
    pub fn set(&self, at: Option<Instant>) {
        let Some(at) = at else { return };
        let mut armed = lock(&self.armed);
        if armed.is_some_and(|armed| armed <= at) {
            return;
        }
        let before = armed.replace(at);
        let mut state = self.owner.shared.lock();
        if let Some(before) = before {
            state.waiting.remove(&(before, self.id));
        }
        let waiting = Waiting { ticker: self.ticker.clone(), armed: Arc::clone(&self.armed) };
        state.waiting.insert((at, self.id), waiting);
        let is_first = state.waiting.first_key_value().is_some_and(|(key, _)| key.1 == self.id);
        drop(state);
        if is_first {
            self.owner.shared.changed.notify_one();
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(at) = lock(&self.armed).take() {
            self.owner.shared.lock().waiting.remove(&(at, self.id));
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.lock();
        while !state.stopped {
            let now = Instant::now();
            let next = state.waiting.first_key_value().map(|(&(at, _), _)| at);
            state = match next {
                Some(at) if at <= now => {
                    let due = state.waiting.pop_first().map(|(_, due)| due);
                    drop(state);
                    if let Some(due) = due {
                        call(&due, at, now);
                    }
                    self.lock()
                }
                Some(at) => {
                    let waited = self.changed.wait_timeout(state, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Calls whom it is time for, with no lock held.
fn call(due: &Waiting, at: Instant, now: Instant) {
    {
        let mut armed = lock(&due.armed);
        if *armed != Some(at) {
            return; // dropped or moved in the meantime
        }
        *armed = None;
    }
    let Some(ticker) = due.ticker.upgrade() else { return };
    // The thread belongs to others as well, and what a panic leaves half done is the ticker's own.
    if std::panic::catch_unwind(AssertUnwindSafe(|| ticker.tick(now))).is_err() {
        tracing::error!("what a timer called has panicked");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.owner.shared.lock().waiting.len();
        f.debug_struct("Timer").field("waiting", &waiting).finish()
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline").field("armed", &*lock(&self.armed)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    struct Says(u32, Mutex<Sender<u32>>);

    impl Tick for Says {
        fn tick(&self, _now: Instant) {
            assert_ne!(self.0, 13, "on purpose");
            let _ = lock(&self.1).send(self.0);
        }
    }

    /// Keeps the thread until it is told to go on.
    struct Holds(Mutex<Receiver<()>>);

    impl Tick for Holds {
        fn tick(&self, _now: Instant) {
            let _ = lock(&self.0).recv();
        }
    }

    struct Bench {
        timer: Timer,
        sender: Sender<u32>,
        heard: Receiver<u32>,
    }

    impl Bench {
        fn new() -> Self {
            let (sender, heard) = channel();
            Self { timer: Timer::start("bench").unwrap(), sender, heard }
        }

        fn ticker(&self, says: u32) -> (Arc<dyn Tick>, Deadline) {
            let ticker: Arc<dyn Tick> = Arc::new(Says(says, Mutex::new(self.sender.clone())));
            let deadline = self.timer.deadline(Arc::downgrade(&ticker));
            (ticker, deadline)
        }

        fn waiting(&self) -> usize {
            self.timer.owner.shared.lock().waiting.len()
        }
    }

    #[test]
    fn deadlines_are_called_in_the_order_of_time_and_can_be_brought_forward() {
        let bench = Bench::new();
        let now = Instant::now();
        let (release, released) = channel();
        let holds: Arc<dyn Tick> = Arc::new(Holds(Mutex::new(released)));
        let held = bench.timer.deadline(Arc::downgrade(&holds));
        held.set(Some(now));
        let tickers: Vec<_> = (0..3).map(|says| bench.ticker(says)).collect();
        let hour = Duration::from_secs(3600);
        for (n, (_, deadline)) in (1..).zip(&tickers) {
            deadline.set(Some(now + hour * n));
        }
        for ((_, deadline), micros) in tickers.iter().zip([30, 10, 20]) {
            deadline.set(Some(now + Duration::from_micros(micros)));
        }
        release.send(()).unwrap();
        assert_eq!(bench.heard.iter().take(3).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(bench.waiting(), 0, "each is called once");
    }

    #[test]
    fn a_later_deadline_leaves_the_earlier_call_and_one_that_is_dropped_is_not_called() {
        let bench = Bench::new();
        let now = Instant::now();
        let ((_first, kept), (_second, dropped)) = (bench.ticker(1), bench.ticker(2));
        let hour = now + Duration::from_secs(3600);
        dropped.set(Some(hour));
        kept.set(Some(hour));
        kept.set(Some(hour + Duration::from_secs(1)));
        assert_eq!((bench.waiting(), *lock(&kept.armed)), (2, Some(hour)));
        drop(dropped);
        assert_eq!(bench.waiting(), 1);
        kept.set(None);
        kept.set(Some(now));
        assert_eq!(bench.heard.recv().unwrap(), 1);
        kept.set(Some(now));
        assert_eq!(bench.heard.recv().unwrap(), 1, "it can be set again");
    }

    #[test]
    fn a_panic_is_its_own_and_the_thread_ends_with_the_last_handle() {
        let bench = Bench::new();
        let now = Instant::now();
        let ((_bad, bad), (_good, good), (gone, ended)) =
            (bench.ticker(13), bench.ticker(1), bench.ticker(2));
        drop(gone);
        ended.set(Some(now));
        bad.set(Some(now));
        good.set(Some(now));
        assert_eq!(bench.heard.recv().unwrap(), 1);
        let shared = Arc::downgrade(&bench.timer.owner.shared);
        drop((bench, bad, good));
        assert!(shared.upgrade().is_some_and(|shared| !shared.lock().stopped), "one is left");
        drop(ended);
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
