//! Throttles, as `perf dump` shows them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use siphon_common::perf_counters::{CounterInfo, CounterValue, PerfCollection, PerfSource};
use siphon_proto::{Policies, Throttle, ThrottleCounters};

/// Those of Ceph's that mean something here (`common/Throttle.cc`): there is no taking without asking. Where
/// Ceph's messenger asks again and again until it may pass, and counts a failure each time, ours waits to be
/// called, and counts one.
static INFOS: [CounterInfo; 9] = [
    CounterInfo::gauge("val", "Currently available throttle"),
    CounterInfo::gauge("max", "Max value for throttle"),
    CounterInfo::counter("get", "Gets"),
    CounterInfo::counter("get_sum", "Got data"),
    CounterInfo::counter("get_or_fail_fail", "Get blocked during get_or_fail"),
    CounterInfo::counter("get_or_fail_success", "Successful get during get_or_fail"),
    CounterInfo::counter("put", "Puts"),
    CounterInfo::counter("put_sum", "Put data"),
    CounterInfo::time_average("wait", "Waiting latency"),
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
        let since = |count: fn(&ThrottleCounters) -> u64| count(&now).saturating_sub(count(&base));
        let wait = CounterValue::TimeAverage {
            count: since(|it| it.waits_told),
            sum: Duration::from_nanos(since(|it| it.wait_nanos)),
        };
        [
            self.throttle.current(),
            self.throttle.max(),
            since(|it| it.taken),
            since(|it| it.taken_sum),
            since(|it| it.refused + it.waited),
            since(ThrottleCounters::at_once),
            since(|it| it.given_back),
            since(|it| it.given_back_sum),
        ]
        .map(CounterValue::Integer)
        .into_iter()
        .chain([wait])
        .collect()
    }

    fn reset(&self) {
        let now = self.throttle.counters();
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}
