//! Throttles, as `perf dump` shows them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use siphon_common::perf_counters::{CounterInfo, CounterValue, PerfCollection, PerfSource};
use siphon_proto::{Policies, Throttle};

/// Ceph's (`common/Throttle.cc`). In a messenger nothing is taken without asking, nor waits within a `get`: those
/// three stay 0, as in Ceph. Where Ceph's messenger asks again and again until it may pass, and counts a failure each
/// time, ours waits to be called, and counts one, and the time.
pub(crate) static INFOS: [CounterInfo; 12] = [
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

/// What was counted, by Ceph's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) val: u64,
    pub(crate) max: u64,
    /// Each of them a success of `get_or_fail`, at once or in the end.
    pub(crate) get: u64,
    pub(crate) get_sum: u64,
    pub(crate) get_or_fail_fail: u64,
    pub(crate) put: u64,
    pub(crate) put_sum: u64,
    pub(crate) waits: u64,
    pub(crate) wait_nanos: u64,
}

impl Figures {
    fn of(throttle: &Throttle) -> Self {
        let counters = throttle.counters();
        Self {
            val: throttle.current(),
            max: throttle.max(),
            get: counters.taken,
            get_sum: counters.taken_sum,
            get_or_fail_fail: counters.refused + counters.waited,
            put: counters.given_back,
            put_sum: counters.given_back_sum,
            waits: counters.waits_told,
            wait_nanos: counters.wait_nanos,
        }
    }

    /// What there is now, and what was counted since.
    pub(crate) fn since(&self, base: &Self) -> Self {
        Self {
            get: self.get.saturating_sub(base.get),
            get_sum: self.get_sum.saturating_sub(base.get_sum),
            get_or_fail_fail: self.get_or_fail_fail.saturating_sub(base.get_or_fail_fail),
            put: self.put.saturating_sub(base.put),
            put_sum: self.put_sum.saturating_sub(base.put_sum),
            waits: self.waits.saturating_sub(base.waits),
            wait_nanos: self.wait_nanos.saturating_sub(base.wait_nanos),
            ..*self
        }
    }

    /// In the order of [`INFOS`].
    pub(crate) fn values(&self) -> Vec<CounterValue> {
        let Self { val, max, get, get_sum, get_or_fail_fail, put, put_sum, .. } = *self;
        let numbers = [val, max, 0, get, get_sum, get_or_fail_fail, get, 0, 0, put, put_sum];
        let sum = Duration::from_nanos(self.wait_nanos);
        let wait = CounterValue::TimeAverage { count: self.waits, sum };
        numbers.into_iter().map(CounterValue::Integer).chain([wait]).collect()
    }
}

struct Source {
    throttle: Throttle,
    /// What it had counted when it was last reset.
    base: Mutex<Figures>,
}

/// Adds each throttle of the policies that has a name; what is returned keeps them there.
pub(crate) fn register(policies: &Policies, perf: &PerfCollection) -> Vec<Arc<dyn PerfSource>> {
    let throttles = policies.throttles().filter(|throttle| !throttle.name().is_empty());
    let sources: Vec<Arc<dyn PerfSource>> = throttles
        .map(|throttle| {
            let base = Mutex::default();
            Arc::new(Source { throttle: throttle.clone(), base }) as Arc<dyn PerfSource>
        })
        .collect();
    sources.iter().for_each(|source| perf.add(Arc::clone(source)));
    sources
}

impl PerfSource for Source {
    fn name(&self) -> String {
        format!("throttle-{}", self.throttle.name())
    }

    fn infos(&self) -> &'static [CounterInfo] {
        &INFOS
    }

    fn values(&self) -> Vec<CounterValue> {
        let base = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        Figures::of(&self.throttle).since(&base).values()
    }

    fn reset(&self) {
        let now = Figures::of(&self.throttle);
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}
