//! What an RDMA stack counts, as `perf dump` shows it: `AsyncMessenger::RDMADispatcher` by Ceph's names, and
//! the rest, which Ceph has for each worker and we for all, as `AsyncMessenger::RDMAWorker`.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use siphon_common::perf_counters::{CounterInfo, CounterValue, PerfCollection, PerfSource};
use siphon_net::{RdmaCounts, RdmaDevice};

/// Those of Ceph's `RDMADispatcher` (`msg/async/rdma/RDMAStack.h`).
const DISPATCHER: &[&str] = &[
    "polling",
    "inflight_tx_chunks",
    "rx_bufs_in_use",
    "rx_bufs_total",
    "tx_total_wc",
    "tx_total_wc_errors",
    "tx_retry_errors",
    "tx_wr_flush_errors",
    "rx_total_wc",
    "rx_total_wc_errors",
    "rx_fin",
    "total_async_events",
    "async_last_wqe_events",
    "handshake_errors",
    "created_queue_pair",
    "active_queue_pair",
];

static DISPATCHER_INFOS: LazyLock<Vec<CounterInfo>> = LazyLock::new(|| infos(true));
static WORKER_INFOS: LazyLock<Vec<CounterInfo>> = LazyLock::new(|| infos(false));

struct Source {
    device: RdmaDevice,
    is_dispatcher: bool,
    base: Mutex<RdmaCounts>,
}

/// Adds both; what is returned keeps them there.
pub(crate) fn register(device: &RdmaDevice, perf: &PerfCollection) -> [Arc<dyn PerfSource>; 2] {
    [true, false].map(|is_dispatcher| {
        let (device, base) = (device.clone(), Mutex::default());
        let source: Arc<dyn PerfSource> = Arc::new(Source { device, is_dispatcher, base });
        perf.add(Arc::clone(&source));
        source
    })
}

fn infos(is_dispatcher: bool) -> Vec<CounterInfo> {
    let info = |(name, description, is_gauge): &(&'static str, &'static str, bool)| match is_gauge {
        true => CounterInfo::gauge(name, description),
        false => CounterInfo::counter(name, description),
    };
    let fields = RdmaCounts::FIELDS.iter();
    fields.filter(|(name, ..)| DISPATCHER.contains(name) == is_dispatcher).map(info).collect()
}

impl PerfSource for Source {
    fn name(&self) -> String {
        let part = if self.is_dispatcher { "RDMADispatcher" } else { "RDMAWorker" };
        format!("AsyncMessenger::{part}")
    }

    fn infos(&self) -> &'static [CounterInfo] {
        if self.is_dispatcher { &DISPATCHER_INFOS } else { &WORKER_INFOS }
    }

    fn values(&self) -> Vec<CounterValue> {
        let base = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.device.counts();
        let fields = RdmaCounts::FIELDS.iter().zip(now.iter().zip(base.iter()));
        fields
            .filter(|((name, ..), _)| DISPATCHER.contains(name) == self.is_dispatcher)
            .map(|((.., is_gauge), ((_, now), (_, base)))| {
                let value = if *is_gauge { now } else { now - base };
                // A gauge may be read while what it counts goes from one worker to another.
                CounterValue::Integer(u64::try_from(value).unwrap_or(0))
            })
            .collect()
    }

    fn reset(&self) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = self.device.counts();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_cephs_dispatcher_is_there() {
        let names: Vec<_> = infos(true).iter().map(|info| info.name).collect();
        assert_eq!(names.len(), DISPATCHER.len(), "{names:?}");
        assert_eq!(names.len() + infos(false).len(), RdmaCounts::FIELDS.len());
    }
}
