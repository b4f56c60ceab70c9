//! What an RDMA stack counts, as `perf dump` shows it: by Ceph's names `AsyncMessenger::RDMADispatcher`, which
//! sums up, and the rest by worker, as `AsyncMessenger::RDMAWorker-N`.

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
    part: Part,
    base: Mutex<RdmaCounts>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// What all workers did.
    Dispatcher,
    /// What one did.
    Worker(usize),
}

/// Adds those of the device and of so many workers; what is returned keeps them there.
pub(crate) fn register(
    device: &RdmaDevice,
    workers: usize,
    perf: &PerfCollection,
) -> Vec<Arc<dyn PerfSource>> {
    let parts = std::iter::once(Part::Dispatcher).chain((0..workers).map(Part::Worker));
    parts
        .map(|part| {
            let (device, base) = (device.clone(), Mutex::default());
            let source: Arc<dyn PerfSource> = Arc::new(Source { device, part, base });
            perf.add(Arc::clone(&source));
            source
        })
        .collect()
}

impl Source {
    fn counts(&self) -> RdmaCounts {
        match self.part {
            Part::Dispatcher => self.device.counts(),
            Part::Worker(worker) => self.device.worker_counts(worker),
        }
    }
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
        match self.part {
            Part::Dispatcher => "AsyncMessenger::RDMADispatcher".to_owned(),
            Part::Worker(worker) => format!("AsyncMessenger::RDMAWorker-{worker}"),
        }
    }

    fn infos(&self) -> &'static [CounterInfo] {
        match self.part {
            Part::Dispatcher => &DISPATCHER_INFOS,
            Part::Worker(_) => &WORKER_INFOS,
        }
    }

    fn values(&self) -> Vec<CounterValue> {
        let base = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.counts();
        let fields = RdmaCounts::FIELDS.iter().zip(now.iter().zip(base.iter()));
        fields
            .filter(|((name, ..), _)| DISPATCHER.contains(name) == (self.part == Part::Dispatcher))
            .map(|((.., is_gauge), ((_, now), (_, base)))| {
                let value = if *is_gauge { now } else { now - base };
                // A gauge may be read while what it counts goes from one worker to another.
                CounterValue::Integer(u64::try_from(value).unwrap_or(0))
            })
            .collect()
    }

    fn reset(&self) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = self.counts();
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
