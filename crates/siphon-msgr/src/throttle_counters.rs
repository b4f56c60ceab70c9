//! Throttles, as `perf dump` shows them.

use std::sync::{Arc, Mutex, PoisonError};

use siphon_common::perf_counters::{CounterInfo, CounterValue, PerfCollection, PerfSource};
use siphon_proto::{Policies, Throttle, ThrottleCounters};

/// Those of Ceph's that mean something here (`common/Throttle.cc`): there is no taking without asking,
/// and how long a waiter waits is not measured.
static INFOS: [CounterInfo; 7] = [
    CounterInfo::gauge("val", "Currently available throttle"),
    CounterInfo::gauge("max", "Max value for throttle"),
    CounterInfo::counter("get", "Gets"),
    CounterInfo::counter("get_sum", "Got data"),
    CounterInfo::counter("get_or_fail_fail", "Get blocked during get_or_fail"),
    CounterInfo::counter("put", "Puts"),
    CounterInfo::counter("put_sum", "Put data"),
];

struct Source {
    throttle: Throttle,
    /// What it had counted when it was last reset.
    base: Mutex<ThrottleCounters>,
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
        let now = self.throttle.counters();
        [
            self.throttle.current(),
            self.throttle.max(),
            now.taken - base.taken,
            now.taken_sum - base.taken_sum,
            now.refused - base.refused,
            now.given_back - base.given_back,
            now.given_back_sum - base.given_back_sum,
        ]
        .map(CounterValue::Integer)
        .into()
    }

    fn reset(&self) {
        let now = self.throttle.counters();
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}
