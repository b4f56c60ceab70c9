use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{CounterInfo, CounterValue, PerfSource};

/// What a throttle counts, by Ceph's names and in Ceph's order (`common/Throttle.cc`, 16.2.7; the words are those of
/// 20.2.4 where these are better).
static INFOS: [CounterInfo; 12] = [
    CounterInfo::gauge("val", "Currently taken slots"),
    CounterInfo::gauge("max", "Max value for throttle"),
    CounterInfo::counter("get_started", "Number of get calls, increased before wait"),
    CounterInfo::counter("get", "Gets"),
    CounterInfo::counter("get_sum", "Got data"),
    CounterInfo::counter("get_or_fail_fail", "Get blocked during get_or_fail"),
    CounterInfo::counter("get_or_fail_success", "Successful get during get_or_fail"),
    CounterInfo::counter("take", "Takes"),
    CounterInfo::counter("take_sum", "Taken data"),
    CounterInfo::counter("put", "Puts"),
    CounterInfo::counter("put_sum", "Put data"),
    CounterInfo::time_average("wait", "Waiting latency"),
];

/// A throttle at a time. Nothing is ever taken without asking here, so that Ceph's `take` and `take_sum` stay 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleFigures {
    /// What is held.
    pub val: u64,
    /// What may be held.
    pub max: u64,
    /// How often somebody began to wait in a `get`.
    pub get_started: u64,
    /// How often something was let pass.
    pub get: u64,
    /// What that was together.
    pub get_sum: u64,
    /// How often something was not let pass at once.
    pub get_or_fail_fail: u64,
    /// How often something was let pass by who does not wait in a `get`.
    pub get_or_fail_success: u64,
    /// How often something was given back.
    pub put: u64,
    /// What that was together.
    pub put_sum: u64,
    /// Of how many waits the time is known.
    pub waits: u64,
    /// Their time together.
    pub wait: Duration,
}

impl ThrottleFigures {
    /// What is held, and what was counted since.
    fn since(&self, base: &Self) -> Self {
        Self {
            val: self.val,
            max: self.max,
            get_started: self.get_started.saturating_sub(base.get_started),
            get: self.get.saturating_sub(base.get),
            get_sum: self.get_sum.saturating_sub(base.get_sum),
            get_or_fail_fail: self.get_or_fail_fail.saturating_sub(base.get_or_fail_fail),
            get_or_fail_success: self.get_or_fail_success.saturating_sub(base.get_or_fail_success),
            put: self.put.saturating_sub(base.put),
            put_sum: self.put_sum.saturating_sub(base.put_sum),
            waits: self.waits.saturating_sub(base.waits),
            wait: self.wait.saturating_sub(base.wait),
        }
    }

    /// In the order of [`INFOS`].
    fn values(&self) -> Vec<CounterValue> {
        let numbers = [
            self.val,
            self.max,
            self.get_started,
            self.get,
            self.get_sum,
            self.get_or_fail_fail,
            self.get_or_fail_success,
            0,
            0,
            self.put,
            self.put_sum,
        ];
        let wait = CounterValue::TimeAverage { count: self.waits, sum: self.wait };
        numbers.into_iter().map(CounterValue::Integer).chain([wait]).collect()
    }
}

/// A throttle as `perf dump` has it: `throttle-NAME`.
///
/// ```
/// use siphon_common::perf_counters::{PerfCollection, ThrottleFigures, ThrottleSource};
///
/// let perf = PerfCollection::default();
/// let figures = || ThrottleFigures { val: 3, max: 10, get: 5, ..ThrottleFigures::default() };
/// let source = ThrottleSource::new(|| "osd_client_bytes".to_owned(), figures);
/// perf.add(source.clone());
/// assert_eq!(perf.dump(None, None)["throttle-osd_client_bytes"]["get"], 5);
/// assert!(perf.reset("all"));
/// let after = &perf.dump(None, None)["throttle-osd_client_bytes"];
/// assert_eq!((&after["get"], &after["val"]), (&0.into(), &3.into()));
/// ```
pub struct ThrottleSource<N, F> {
    name: N,
    figures: F,
    /// What it had counted when it was last reset.
    base: Mutex<ThrottleFigures>,
}

impl<N, F> ThrottleSource<N, F>
where
    N: Fn() -> String + Send + Sync + 'static,
    F: Fn() -> ThrottleFigures + Send + Sync + 'static,
{
    /// One of this name, which has these figures whenever somebody asks.
    pub fn new(name: N, figures: F) -> Arc<Self> {
        Arc::new(Self { name, figures, base: Mutex::default() })
    }
}

impl<N, F> PerfSource for ThrottleSource<N, F>
where
    N: Fn() -> String + Send + Sync,
    F: Fn() -> ThrottleFigures + Send + Sync,
{
    fn name(&self) -> String {
        format!("throttle-{}", (self.name)())
    }

    fn infos(&self) -> &'static [CounterInfo] {
        &INFOS
    }

    fn values(&self) -> Vec<CounterValue> {
        let base = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        (self.figures)().since(&base).values()
    }

    fn reset(&self) {
        let now = (self.figures)();
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl<N, F> fmt::Debug for ThrottleSource<N, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleSource").field("base", &self.base).finish_non_exhaustive()
    }
}
