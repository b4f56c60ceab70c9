use std::collections::VecDeque;
use std::fmt;
use std::sync::PoisonError;
use std::task::Waker;
use std::time::Duration;

use smallvec::SmallVec;

use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering};

/// A bound on how much of something (bytes, messages) is held at once: Ceph's `Throttle`
/// (`common/Throttle.h`), without a thread that blocks. Clones are the same throttle.
///
/// # What passes
///
/// As in Ceph: what is at most [`max`](Self::max) passes while the sum stays within it; what is larger
/// passes once no more than `max` is held, and exceeds it for its time. With a `max` of 0 everything
/// passes, uncounted.
///
/// # Who passes
///
/// Whoever cannot pass stands in a line, with a [`Waker`]. Room that came is announced from the front
/// of the line to as many as it is enough for, and they call [`take`](Self::take) again. They keep
/// their place meanwhile, and:
///
/// 1. Nobody passes a waiter that is asleep, even with a smaller amount.
/// 2. A waiter that was woken is passed by what finds room beside its amount. That room is kept for it
///    while others enter or leave the line or give something back, [`PATIENCE`](Self::PATIENCE) times.
/// 3. One that comes too late, or asks for more than there is, sleeps again, at its place.
///
/// So newcomers overtake a waiter for ever only if it is too late for its kept room each time it is
/// woken. And one that was woken and never comes back blocks nobody for longer than `PATIENCE` more
/// calls. But where no more calls come, those behind it stay asleep, and its place is kept for ever: so
/// who gives up must [`forget`](Self::forget) it. The line is as long as there are wakers that did not.
///
/// # Cost
///
/// Without waiters, to take and to give back are one atomic operation each, and one more for the grant's
/// share of the throttle. With waiters, both take a lock, and time linear in the line up to the caller's
/// place.
///
/// ```
/// use std::task::Waker;
/// use siphon_proto::Throttle;
///
/// let bytes = Throttle::new("dispatch bytes", 100);
/// let held = bytes.take(70, Waker::noop()).expect("nothing is held yet");
/// assert!(bytes.try_take(40).is_none());
/// drop(held);
/// assert_eq!(bytes.try_take(40).expect("there is room again").amount(), 40);
/// assert_eq!(bytes.current(), 0);
/// ```
#[derive(Clone)]
pub struct Throttle {
    shared: Arc<Shared>,
}

/// What a [`Throttle`] let pass; given back when it is dropped.
///
/// The default holds nothing, of no throttle.
#[derive(Default)]
#[must_use = "dropping a grant gives it back"]
pub struct Grant {
    /// None if there is nothing to give back.
    shared: Option<Arc<Shared>>,
    amount: u64,
}

/// What a [`Throttle`] let pass, and how often not at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleCounters {
    /// Times that something was let pass, if the throttle has a name and a limit; Ceph's `get`, and in a messenger
    /// its `get_or_fail_success`.
    pub taken: u64,
    /// What that was together; Ceph's `get_sum`.
    pub taken_sum: u64,
    /// Times that something was given back, likewise; Ceph's `put`.
    pub given_back: u64,
    /// What that was together; Ceph's `put_sum`.
    pub given_back_sum: u64,
    /// Calls of [`Throttle::take`] that entered the line.
    pub waited: u64,
    /// Those of them that were let pass in the end.
    pub waited_and_taken: u64,
    /// How long some of these waited, as [`Throttle::add_wait`] was told, in nanoseconds; Ceph's `wait`.
    pub wait_nanos: u64,
    /// How many of them it was told of.
    pub waits_told: u64,
    /// Calls of [`Throttle::try_take`] and [`Throttle::try_get`] that were refused; Ceph's `get_or_fail_fail`.
    pub refused: u64,
    /// Times that a waiter was woken.
    pub woken: u64,
}

impl Throttle {
    /// How often room is kept for a waiter that was woken.
    pub const PATIENCE: u32 = 16;
    /// Largest amount and largest maximum; more counts as this.
    pub const MAX_AMOUNT: u64 = 1 << 61;

    /// A throttle of `max`, of which nothing is held; 0 is no limit. The name is for reports.
    pub fn new(name: impl Into<String>, max: u64) -> Self {
        let shared = Shared {
            name: name.into(),
            max: AtomicU64::new(max.min(Self::MAX_AMOUNT)),
            state: AtomicU64::new(0),
            line: Mutex::new(Line::default()),
            passed: Passed::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Lets `amount` pass, or puts the waker in the line, once: it is woken when there may be room,
    /// and then this is to be called again.
    ///
    /// The same waker is told by [`Waker::will_wake`], so one waker waits for one thing here.
    pub fn take(&self, amount: u64, waker: &Waker) -> Option<Grant> {
        self.admit(amount, Some(waker)).map(|limited| self.grant(amount, limited))
    }

    /// Lets `amount` pass or returns `None`, by the same rules but without waiting.
    pub fn try_take(&self, amount: u64) -> Option<Grant> {
        self.admit(amount, None).map(|limited| self.grant(amount, limited))
    }

    /// As [`try_take`](Self::try_take), for who gives back by [`put`](Self::put), and many at once: returns
    /// how much that will be, 0 where there is no limit. It costs one atomic operation, of a throttle with a name
    /// three.
    pub fn try_get(&self, amount: u64) -> Option<u64> {
        self.admit(amount, None)
            .map(|limited| if limited { amount.min(Self::MAX_AMOUNT) } else { 0 })
    }

    /// Gives back what one or several calls of [`try_get`](Self::try_get) returned, or of
    /// [`Grant::into_got`].
    pub fn put(&self, got: u64) {
        self.shared.give_back(got);
    }

    /// Removes this waker from the line, if it is there, and wakes who can pass now.
    pub fn forget(&self, waker: &Waker) {
        let mut line = self.shared.lock();
        let forgotten = line.find(waker).and_then(|at| line.waiters.remove(at));
        if forgotten.is_some() {
            self.shared.leave(line);
        }
        // Wakers are woken and dropped without the lock: they run code of others.
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What is held.
    pub fn current(&self) -> u64 {
        self.shared.state.load(Ordering::Relaxed) & !WAITING
    }

    /// What may be held; 0 is no limit.
    pub fn max(&self) -> u64 {
        self.shared.max.load(Ordering::Relaxed)
    }

    /// Changes what may be held, and wakes who can pass now. What is held stays; what was taken without
    /// a limit stays uncounted.
    pub fn set_max(&self, max: u64) {
        let line = self.shared.lock();
        self.shared.max.store(max.min(Self::MAX_AMOUNT), Ordering::Relaxed);
        self.shared.leave(line);
    }

    /// What happened so far.
    pub fn counters(&self) -> ThrottleCounters {
        let both = |passed: &[Figure; 2]| passed.each_ref().map(|it| it.load(Ordering::Relaxed));
        let [taken, taken_sum] = both(&self.shared.passed.taken);
        let [given_back, given_back_sum] = both(&self.shared.passed.given_back);
        let counters = self.shared.lock().counters;
        ThrottleCounters { taken, taken_sum, given_back, given_back_sum, ..counters }
    }

    /// Somebody was let pass after having waited so long: a throttle has no clock of its own.
    pub fn add_wait(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let counters = &mut self.shared.lock().counters;
        counters.wait_nanos = counters.wait_nanos.saturating_add(nanos);
        counters.waits_told += 1;
    }

    /// Waiters in the line, awake or asleep.
    pub fn waiting(&self) -> usize {
        self.shared.lock().waiters.len()
    }

    /// Whether there is a limit, if the amount may pass: then it is to be given back.
    fn admit(&self, amount: u64, waker: Option<&Waker>) -> Option<bool> {
        let amount = amount.min(Self::MAX_AMOUNT);
        let passes = match self.shared.pass_at_once(amount) {
            AtOnce::Unlimited => return Some(false),
            AtOnce::Passed => true,
            AtOnce::No => self.shared.pass_or_wait(amount, waker),
        };
        passes.then(|| {
            if self.shared.is_counted() {
                Passed::add(&self.shared.passed.taken, amount);
            }
            true
        })
    }

    fn grant(&self, amount: u64, limited: bool) -> Grant {
        let amount = amount.min(Self::MAX_AMOUNT);
        Grant { shared: limited.then(|| Arc::clone(&self.shared)), amount }
    }
}

impl Grant {
    /// How much it holds.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Gives nothing back, but says what [`Throttle::put`] is to give back.
    #[must_use = "it stays taken"]
    pub fn into_got(mut self) -> u64 {
        self.shared.take().map_or(0, |_| self.amount)
    }

    #[inline(never)]
    fn give_back(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.give_back(self.amount);
        }
    }
}

impl Drop for Grant {
    #[inline]
    fn drop(&mut self) {
        if self.shared.is_some() {
            self.give_back(); // what most messages hold is nothing
        }
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("name", &self.name())
            .field("current", &self.current())
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Grant").field(&self.amount).finish()
    }
}

/// Set in `Shared::state` while the line has waiters, or somebody who has the lock looks whether it
/// needs to wait. Then nobody takes without the lock.
const WAITING: u64 = 1 << 63;

/// Nothing that is held can run into [`WAITING`]: what is larger than `max` passes only at `max` or
/// less, and both are at most 2^61.
const _: () = assert!(Throttle::MAX_AMOUNT + Throttle::MAX_AMOUNT < WAITING);

struct Shared {
    name: String,
    /// Written with the lock.
    max: AtomicU64,
    /// What is held, and [`WAITING`].
    ///
    /// No wakeup is lost because it is one variable: a give-back either sees the bit, and then gets
    /// the lock after who set it, or comes before it, and then whoever set it sees the room. So relaxed
    /// operations do; a throttle guards no memory.
    state: AtomicU64,
    line: Mutex<Line>,
    passed: Passed,
}

/// Nothing is decided by it.
type Figure = std::sync::atomic::AtomicU64;

/// How often, and how much.
#[derive(Default)]
struct Passed {
    taken: [Figure; 2],
    given_back: [Figure; 2],
}

impl Passed {
    fn add([times, sum]: &[Figure; 2], amount: u64) {
        times.fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(amount, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Line {
    waiters: VecDeque<Waiter>,
    counters: ThrottleCounters,
}

struct Waiter {
    amount: u64,
    waker: Waker,
    wake: Wake,
}

/// Where a waiter is between two calls of [`Throttle::take`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wake {
    Asleep,
    /// Woken; its room is kept so many times more.
    Awake {
        patience: u32,
    },
}

enum AtOnce {
    Unlimited,
    Passed,
    No,
}

/// The rule of Ceph's `_should_wait`, turned round.
fn fits(held: u64, amount: u64, max: u64) -> bool {
    max == 0 || if amount <= max { held <= max - amount } else { held <= max }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_at_once(&self, amount: u64) -> AtOnce {
        let max = self.max.load(Ordering::Relaxed);
        if max == 0 {
            return AtOnce::Unlimited;
        }
        let mut state = self.state.load(Ordering::Relaxed);
        while state & WAITING == 0 && fits(state, amount, max) {
            let taken = state + amount;
            match self.state.compare_exchange_weak(
                state,
                taken,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return AtOnce::Passed,
                Err(now) => state = now,
            }
        }
        AtOnce::No
    }

    fn pass_or_wait(&self, amount: u64, waker: Option<&Waker>) -> bool {
        let mut line = self.lock();
        let max = self.max.load(Ordering::Relaxed);
        // From here on the sum only falls.
        let held = self.state.fetch_or(WAITING, Ordering::Relaxed) & !WAITING;
        let place = waker.and_then(|waker| line.find(waker));
        let passes = line.may_pass(place, held, amount, max);
        if passes {
            self.state.fetch_add(amount, Ordering::Relaxed);
        }
        let mut left = None;
        match (place, waker) {
            (Some(place), _) if passes => {
                line.counters.waited_and_taken += 1;
                left = line.waiters.remove(place);
            }
            (Some(place), _) => {
                if let Some(waiter) = line.waiters.get_mut(place) {
                    waiter.amount = amount;
                    waiter.wake = Wake::Asleep;
                }
            }
            (None, Some(waker)) if !passes => {
                line.counters.waited += 1;
                let waker = waker.clone();
                line.waiters.push_back(Waiter { amount, waker, wake: Wake::Asleep });
            }
            (None, None) if !passes => line.counters.refused += 1,
            (None, _) => {}
        }
        self.leave(line);
        drop(left);
        passes
    }

    /// Those without a name are each connection's own, which nobody asks for figures.
    fn is_counted(&self) -> bool {
        !self.name.is_empty()
    }

    fn give_back(&self, amount: u64) {
        if self.is_counted() {
            Passed::add(&self.passed.given_back, amount);
        }
        let before = self.state.fetch_sub(amount, Ordering::Relaxed);
        debug_assert!(before & !WAITING >= amount, "{amount} of {} given back", before & !WAITING);
        if before & WAITING != 0 {
            self.leave(self.lock());
        }
    }

    /// Ends whatever was done with the lock: wakes who can pass now, without it.
    fn leave(&self, mut line: MutexGuard<'_, Line>) {
        let max = self.max.load(Ordering::Relaxed);
        let held = self.state.load(Ordering::Relaxed) & !WAITING;
        let wakers = line.wake(held, max);
        if line.waiters.is_empty() {
            self.state.fetch_and(!WAITING, Ordering::Relaxed);
        }
        drop(line);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Line {
    fn find(&self, waker: &Waker) -> Option<usize> {
        self.waiters.iter().position(|waiter| waiter.waker.will_wake(waker))
    }

    /// Whether who is at this place, or behind all, may pass.
    fn may_pass(&self, place: Option<usize>, held: u64, amount: u64, max: u64) -> bool {
        let mut held = held;
        for waiter in self.waiters.iter().take(place.unwrap_or(usize::MAX)) {
            match waiter.wake {
                Wake::Asleep => return false,
                Wake::Awake { patience: 0 } => {}
                Wake::Awake { .. } => held = held.saturating_add(waiter.amount),
            }
        }
        fits(held, amount, max)
    }

    /// The wakers of those for whom there is room, from the front on.
    fn wake(&mut self, held: u64, max: u64) -> SmallVec<[Waker; 4]> {
        let mut wakers = SmallVec::new();
        if max == 0 {
            // They need no place to come back to: without a limit nobody looks at the line.
            wakers.extend(self.waiters.drain(..).map(|waiter| waiter.waker));
        }
        let mut held = held;
        for waiter in &mut self.waiters {
            match &mut waiter.wake {
                Wake::Asleep if !fits(held, waiter.amount, max) => break,
                Wake::Asleep => {
                    waiter.wake = Wake::Awake { patience: Throttle::PATIENCE };
                    wakers.push(waiter.waker.clone());
                }
                Wake::Awake { patience: 0 } => continue,
                Wake::Awake { patience } => *patience -= 1,
            }
            held = held.saturating_add(waiter.amount);
        }
        self.counters.woken += wakers.len() as u64;
        wakers
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// Counts how often it is woken.
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One that waits.
    struct Client {
        count: Arc<Count>,
        waker: Waker,
    }

    impl Client {
        fn new() -> Self {
            let count = Arc::new(Count(AtomicUsize::new(0)));
            Self { waker: Arc::clone(&count).into(), count }
        }

        fn take(&self, throttle: &Throttle, amount: u64) -> Option<Grant> {
            throttle.take(amount, &self.waker)
        }

        fn woken(&self) -> usize {
            self.count.0.load(Ordering::Relaxed)
        }
    }

    fn clients<const N: usize>() -> [Client; N] {
        std::array::from_fn(|_| Client::new())
    }

    #[test]
    fn a_grant_is_small_and_crosses_threads() {
        fn crosses_threads<T: Send + Sync>() {}
        crosses_threads::<Grant>();
        crosses_threads::<Throttle>();
        assert_eq!(size_of::<Grant>(), 16);
    }

    #[test]
    fn what_is_larger_than_the_maximum_passes_once_little_is_held() {
        let throttle = Throttle::new("bytes", 100);
        let most = throttle.try_take(100).expect("all of it");
        assert!(throttle.try_take(1).is_none());
        let large = throttle.try_take(1000).expect("no more than the maximum is held");
        assert_eq!(throttle.current(), 1100);
        drop(most);
        assert!(throttle.try_take(1000).is_none(), "1000 are held, more than 100");
        drop(large);
        assert!(throttle.try_take(100).is_some());
        assert_eq!(throttle.counters().refused, 2);
        assert_eq!(throttle.current(), 0);
    }

    #[test]
    fn amounts_without_end_neither_overflow_nor_pass_together() {
        let throttle = Throttle::new("bytes", u64::MAX);
        let first = throttle.try_take(u64::MAX).expect("the first");
        assert_eq!(first.amount(), Throttle::MAX_AMOUNT);
        assert!(throttle.try_take(u64::MAX).is_none());
        throttle.set_max(Throttle::MAX_AMOUNT - 1);
        assert!(throttle.try_take(u64::MAX).is_none());
        drop(first);
        assert_eq!(throttle.current(), 0);
    }

    #[test]
    fn without_a_limit_everything_passes_and_nothing_is_counted() {
        let throttle = Throttle::new("bytes", 0);
        let grant = throttle.try_take(u64::MAX).expect("no limit");
        assert_eq!(throttle.current(), 0);
        throttle.set_max(1);
        drop(grant);
        assert_eq!(throttle.current(), 0);
        assert_eq!(Grant::default().amount(), 0);
    }

    #[test]
    fn a_waiter_stands_in_line_once_and_is_woken_once() {
        let throttle = Throttle::new("bytes", 10);
        let [client] = clients();
        let held = throttle.try_take(10);
        for _ in 0..3 {
            assert!(client.take(&throttle, 5).is_none());
        }
        assert_eq!((throttle.waiting(), client.woken()), (1, 0));
        drop(held);
        assert_eq!(client.woken(), 1);
        let grant = client.take(&throttle, 5).expect("its turn");
        assert_eq!((throttle.waiting(), throttle.current()), (0, 5));
        drop(grant);
        assert_eq!(client.woken(), 1);
        let counters = ThrottleCounters { waited: 1, woken: 1, ..throttle.counters() };
        assert_eq!(throttle.counters(), counters);
    }

    #[test]
    fn nobody_passes_one_who_sleeps_and_no_more_are_woken_than_there_is_room_for() {
        let throttle = Throttle::new("bytes", 10);
        let [large, small, other, last] = clients();
        let mut held = [6, 4].map(|amount| throttle.try_take(amount)).into_iter();
        for (client, amount) in [(&large, 7), (&small, 1), (&other, 2), (&last, 3)] {
            assert!(client.take(&throttle, amount).is_none());
        }
        drop(held.next());
        assert!(throttle.try_take(1).is_none(), "6 are free, but the first waits for 7");
        assert!(small.take(&throttle, 1).is_none());
        drop(held.next());
        let woken = || [&large, &small, &other, &last].map(Client::woken);
        assert_eq!(woken(), [1, 1, 1, 0]);
        let grants = [small.take(&throttle, 1), large.take(&throttle, 7)];
        assert!(grants.iter().all(Option::is_some), "those who are awake pass in any order");
        assert_eq!(woken(), [1, 1, 1, 0]);
        drop(grants);
        assert_eq!(woken(), [1, 1, 1, 1]);
    }

    #[test]
    fn one_who_comes_too_late_sleeps_at_its_place() {
        let throttle = Throttle::new("bytes", 10);
        let [late, second] = clients();
        let held = throttle.try_take(10);
        assert!(late.take(&throttle, 5).is_none());
        assert!(second.take(&throttle, 5).is_none());
        drop(held);
        assert!(throttle.try_take(1).is_none(), "room is kept for both");
        let kept = second.take(&throttle, 5);
        assert!(kept.is_some());
        assert!(late.take(&throttle, 6).is_none(), "it wants more now");
        assert!(throttle.try_take(1).is_none(), "and sleeps in front of all others");
        drop(kept);
        assert_eq!(late.woken(), 2);
        assert_eq!(late.take(&throttle, 6).map(|grant| grant.amount()), Some(6));
    }

    #[test]
    fn one_who_never_comes_back_blocks_nobody() {
        let throttle = Throttle::new("bytes", 10);
        let [gone, second] = clients();
        let held = throttle.try_take(10);
        assert!(gone.take(&throttle, 10).is_none());
        assert!(second.take(&throttle, 10).is_none());
        drop(held);
        assert_eq!((gone.woken(), second.woken()), (1, 0));
        let mut calls = 0;
        while second.woken() == 0 {
            assert!(throttle.try_take(1).is_none(), "of no one in front of a sleeper");
            calls += 1;
            assert!(calls <= Throttle::PATIENCE + 1);
        }
        assert_eq!(calls, Throttle::PATIENCE + 1);
        assert!(second.take(&throttle, 10).is_some());
        assert!(throttle.try_take(10).is_some());
        throttle.forget(&gone.waker);
        assert_eq!((throttle.waiting(), throttle.current()), (0, 0));
    }

    #[test]
    fn forgetting_makes_way() {
        let throttle = Throttle::new("bytes", 10);
        let [large, small] = clients();
        let held = throttle.try_take(5);
        assert!(large.take(&throttle, 9).is_none());
        assert!(small.take(&throttle, 5).is_none());
        throttle.forget(&Client::new().waker);
        assert_eq!(small.woken(), 0);
        throttle.forget(&large.waker);
        assert_eq!((large.woken(), small.woken()), (0, 1));
        assert!(small.take(&throttle, 5).is_some());
        drop(held);
        assert_eq!((throttle.waiting(), throttle.current()), (0, 0));
        assert_eq!(Arc::strong_count(&large.count), 2, "the throttle has none of its wakers");
    }

    #[test]
    fn a_raised_maximum_wakes_as_far_as_it_goes_and_no_limit_wakes_all() {
        let throttle = Throttle::new("bytes", 10);
        let clients: [Client; 3] = clients();
        let held = throttle.try_take(10);
        assert!(clients.iter().all(|client| client.take(&throttle, 10).is_none()));
        throttle.set_max(25);
        assert_eq!(clients.each_ref().map(Client::woken), [1, 0, 0]);
        throttle.set_max(0);
        assert_eq!(throttle.waiting(), 0);
        assert!(clients[1..].iter().all(|client| client.woken() == 1));
        assert!(clients.iter().all(|client| client.take(&throttle, 10).is_some()));
        drop(held);
        assert_eq!(throttle.current(), 0);
    }

    /// A waker that comes back to the throttle, as one does whose drop gives something back.
    #[test]
    fn a_waker_may_use_the_throttle() {
        struct Forgets(Throttle);
        impl Wake for Forgets {
            fn wake(self: Arc<Self>) {
                let waker = Waker::from(Arc::clone(&self));
                self.0.forget(&waker);
                drop(self.0.try_take(1));
            }
        }
        let throttle = Throttle::new("bytes", 10);
        let held = throttle.try_take(10);
        assert!(throttle.take(10, &Arc::new(Forgets(throttle.clone())).into()).is_none());
        drop(held);
        assert_eq!((throttle.waiting(), throttle.current()), (0, 0));
    }
}

/// Run by `RUSTFLAGS="--cfg loom" cargo test --release -p siphon-proto --lib loom`. A lost wakeup is a
/// deadlock here.
#[cfg(all(test, loom))]
mod loom_tests {
    use std::task::Wake;

    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    use super::*;

    struct Event {
        set: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        fn new() -> std::sync::Arc<Self> {
            std::sync::Arc::new(Self { set: Mutex::new(false), changed: Condvar::new() })
        }

        fn wait(&self) {
            let mut set = self.set.lock().unwrap();
            while !*set {
                set = self.changed.wait(set).unwrap();
            }
            *set = false;
        }
    }

    impl Wake for Event {
        fn wake(self: std::sync::Arc<Self>) {
            *self.set.lock().unwrap() = true;
            self.changed.notify_one();
        }
    }

    fn take(throttle: &Throttle, amount: u64) -> Grant {
        let event = Event::new();
        let waker = Waker::from(std::sync::Arc::clone(&event));
        loop {
            match throttle.take(amount, &waker) {
                Some(grant) => return grant,
                None => event.wait(),
            }
        }
    }

    fn check_empty(throttle: &Throttle) {
        assert_eq!((throttle.waiting(), throttle.current()), (0, 0));
        assert_eq!(throttle.shared.state.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn loom_finds_no_lost_wakeup_between_takers() {
        loom::model(|| {
            let throttle = Throttle::new("bytes", 2);
            let threads = [2, 1].map(|amount| {
                let throttle = throttle.clone();
                thread::spawn(move || drop(take(&throttle, amount)))
            });
            drop(take(&throttle, 3));
            for thread in threads {
                thread.join().unwrap();
            }
            check_empty(&throttle);
        });
    }

    /// One gives back, one gives up, one waits behind it.
    #[test]
    fn loom_finds_no_waiter_left_behind_one_that_gives_up() {
        loom::model(|| {
            let throttle = Throttle::new("bytes", 2);
            let held = throttle.try_take(1).unwrap();
            let event = Event::new();
            let waker = Waker::from(event);
            let gives_up = throttle.take(2, &waker);
            assert!(gives_up.is_none());
            let waits = {
                let throttle = throttle.clone();
                thread::spawn(move || drop(take(&throttle, 2)))
            };
            let gives_back = thread::spawn(move || drop(held));
            throttle.forget(&waker);
            waits.join().unwrap();
            gives_back.join().unwrap();
            check_empty(&throttle);
        });
    }

    #[test]
    fn loom_finds_no_waiter_that_misses_a_raised_maximum() {
        loom::model(|| {
            let throttle = Throttle::new("bytes", 1);
            let held = throttle.try_take(1).unwrap();
            let waits = {
                let throttle = throttle.clone();
                thread::spawn(move || drop(take(&throttle, 1)))
            };
            throttle.set_max(2);
            waits.join().unwrap();
            drop(held);
            check_empty(&throttle);
        });
    }
}
