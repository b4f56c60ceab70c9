//! Throttles, as `perf dump` shows them.

use std::sync::Arc;
use std::time::Duration;

use siphon_common::perf_counters::{PerfCollection, PerfSource, ThrottleFigures, ThrottleSource};
use siphon_proto::{Policies, Throttle};

/// Adds each throttle of the policies that has a name; what is returned keeps them there.
pub(crate) fn register(policies: &Policies, perf: &PerfCollection) -> Vec<Arc<dyn PerfSource>> {
    let throttles = policies.throttles().filter(|throttle| !throttle.name().is_empty());
    let sources: Vec<Arc<dyn PerfSource>> = throttles
        .map(|throttle| {
            let (named, counted) = (throttle.clone(), throttle.clone());
            let name = move || named.name().to_owned();
            ThrottleSource::new(name, move || figures(&counted)) as Arc<dyn PerfSource>
        })
        .collect();
    sources.iter().for_each(|source| perf.add(Arc::clone(source)));
    sources
}

/// Where Ceph's messenger asks again and again until it may pass, and counts a failure each time, ours waits to be
/// called, and counts one, and the time.
fn figures(throttle: &Throttle) -> ThrottleFigures {
    let counters = throttle.counters();
    ThrottleFigures {
        val: throttle.current(),
        max: throttle.max(),
        get_started: 0,
        get: counters.taken,
        get_sum: counters.taken_sum,
        get_or_fail_fail: counters.refused + counters.waited,
        get_or_fail_success: counters.taken,
        put: counters.given_back,
        put_sum: counters.given_back_sum,
        waits: counters.waits_told,
        wait: Duration::from_nanos(counters.wait_nanos),
    }
}
