//! What `ms_dispatch_throttle_bytes` lets in: `throttle-msgr_dispatch_throttler-NAME` of Ceph's `perf dump`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use siphon_common::perf_counters::{PerfSource, ThrottleFigures, ThrottleSource};

use crate::messenger::Shared;

/// What each worker has counted.
///
/// As in Ceph (`throttle_dispatch_queue` and `DispatchQueue::pre_dispatch` of 16.2.7), every message that has bytes
/// is got when it comes, and put when it is handed to a dispatcher, be it at once.
#[derive(Debug)]
pub(crate) struct DispatchThrottle {
    max: u64,
    workers: Box<[OfWorker]>,
    /// What was told as put, messages and bytes: a counter does not go back.
    told: [AtomicU64; 2],
}

/// Written by one thread, on a cache line that no other writes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OfWorker {
    got: AtomicU64,
    got_bytes: AtomicU64,
    refused: AtomicU64,
    waits: AtomicU64,
    wait_nanos: AtomicU64,
}

fn add(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

impl DispatchThrottle {
    /// Of `ms_dispatch_throttle_bytes`, 0 for no limit; then nothing is counted, as in Ceph.
    pub(crate) fn new(max: u64, workers: usize) -> Self {
        let workers = (0..workers).map(|_| OfWorker::default()).collect();
        Self { max, workers, told: Default::default() }
    }

    fn cells(&self, worker: usize) -> Option<&OfWorker> {
        self.workers.get(worker).filter(|_| self.max > 0)
    }

    /// A message of so many bytes has come, on this worker's thread; so the others.
    #[inline]
    pub(crate) fn got(&self, worker: usize, bytes: usize) {
        if bytes > 0
            && let Some(cells) = self.cells(worker)
        {
            add(&cells.got, 1);
            add(&cells.got_bytes, bytes as u64);
        }
    }

    /// A connection must not read, for there is no room.
    pub(crate) fn refused(&self, worker: usize) {
        if let Some(cells) = self.cells(worker) {
            add(&cells.refused, 1);
        }
    }

    /// It reads again, after so long.
    pub(crate) fn waited(&self, worker: usize, time: Duration) {
        if let Some(cells) = self.cells(worker) {
            add(&cells.waits, 1);
            add(&cells.wait_nanos, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// `held` is what waits: messages that have bytes, and these.
    fn figures(&self, held: impl FnOnce() -> (u64, u64)) -> ThrottleFigures {
        let mut figures = ThrottleFigures { max: self.max, ..ThrottleFigures::default() };
        if self.max == 0 {
            return figures;
        }
        for worker in &self.workers {
            let of = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
            figures.get += of(&worker.got);
            figures.get_sum += of(&worker.got_bytes);
            figures.get_or_fail_fail += of(&worker.refused);
            figures.waits += of(&worker.waits);
            figures.wait += Duration::from_nanos(of(&worker.wait_nanos));
        }
        figures.get_or_fail_success = figures.get;
        // The two are not of one moment, while messages come.
        let (messages, bytes) = held();
        let put = [figures.get.saturating_sub(messages), figures.get_sum.saturating_sub(bytes)];
        let [messages, bytes_put] = [0, 1]
            .map(|of: usize| self.told[of].fetch_max(put[of], Ordering::Relaxed).max(put[of]));
        (figures.val, figures.put, figures.put_sum) = (bytes, messages, bytes_put);
        figures
    }
}

/// Has `perf dump` tell of it, as long as what is returned is there.
pub(crate) fn register(messenger: &Arc<Shared>) -> Arc<dyn PerfSource> {
    let named = Arc::downgrade(messenger);
    let counted = named.clone();
    let name = move || {
        let name = named.upgrade().map_or_else(String::new, |it| it.name().to_string());
        format!("msgr_dispatch_throttler-{name}")
    };
    let figures = |it: Arc<Shared>| it.dispatch_throttle().figures(|| it.queue().held());
    let figures = move || counted.upgrade().map(figures).unwrap_or_default();
    let source: Arc<dyn PerfSource> = ThrottleSource::new(name, figures);
    messenger.context().perf().add(Arc::clone(&source));
    source
}
