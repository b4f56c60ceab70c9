use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{BUCKETS, CounterInfo, CounterKind, CounterValue, Histogram, PerfSource};

/// Counters that one thread writes, which is whoever has this.
///
/// An addition is a load and a store, of a cache line that no other thread writes.
#[derive(Debug)]
pub struct Counters {
    block: Arc<Block>,
}

/// Where they are, for those who read.
#[derive(Debug)]
struct Block {
    name: String,
    infos: &'static [CounterInfo],
    /// Of each counter where its cells begin.
    places: Box<[usize]>,
    cells: Cells,
    /// What the cells had when they were last reset: only their owner writes to them.
    base: Mutex<Box<[u64]>>,
}

/// On cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
struct Cells(Box<[AtomicU64]>);

/// Cells that a counter takes.
fn width(kind: CounterKind) -> usize {
    match kind {
        CounterKind::Counter | CounterKind::Gauge | CounterKind::Time => 1,
        CounterKind::TimeAverage => 2,
        CounterKind::Histogram => BUCKETS + 1,
    }
}

impl Counters {
    /// Counters of which all are 0.
    pub fn new(name: impl Into<String>, infos: &'static [CounterInfo]) -> Self {
        let mut len = 0;
        let places = infos.iter().map(|info| {
            let at = len;
            len += width(info.kind);
            at
        });
        let places = places.collect();
        // Whole cache lines, lest the neighbour in memory be somebody else's counter.
        let cells: Vec<_> = (0..len.next_multiple_of(16)).map(|_| AtomicU64::new(0)).collect();
        let base = Mutex::new(vec![0; len].into());
        let cells = Cells(cells.into());
        Self { block: Arc::new(Block { name: name.into(), infos, places, cells, base }) }
    }

    /// For who reads them, also when this is gone.
    pub fn source(&self) -> Arc<dyn PerfSource> {
        Arc::clone(&self.block) as Arc<dyn PerfSource>
    }

    /// Adds to a counter or a gauge, which is named by its place among the infos.
    #[inline]
    pub fn add(&mut self, counter: usize, count: u64) {
        self.add_to(self.block.places[counter], count);
    }

    /// Takes from a gauge.
    #[inline]
    pub fn sub(&mut self, gauge: usize, count: u64) {
        self.add_to(self.block.places[gauge], count.wrapping_neg());
    }

    /// Adds to a time.
    #[inline]
    pub fn add_time(&mut self, counter: usize, time: Duration) {
        self.add_to(self.block.places[counter], nanos(time));
    }

    /// Adds to the average of a time.
    #[inline]
    pub fn add_average(&mut self, counter: usize, count: u64, sum: Duration) {
        let at = self.block.places[counter];
        self.add_to(at, count);
        self.add_to(at + 1, nanos(sum));
    }

    /// Adds a time to a histogram that came so often.
    #[inline]
    pub fn record(&mut self, histogram: usize, time: Duration, count: u64) {
        let at = self.block.places[histogram];
        self.add_to(at + Histogram::bucket(time), count);
        self.add_to(at + BUCKETS, nanos(time).wrapping_mul(count));
    }

    #[inline]
    fn add_to(&mut self, at: usize, count: u64) {
        let cell = &self.block.cells.0[at];
        // `&mut self` says that nobody else writes.
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

impl PerfSource for Block {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn infos(&self) -> &'static [CounterInfo] {
        self.infos
    }

    fn values(&self) -> Vec<CounterValue> {
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = |at: usize| self.cells.0[at].load(Ordering::Relaxed).wrapping_sub(base[at]);
        let value = |(info, at): (&CounterInfo, &usize)| match info.kind {
            CounterKind::Counter | CounterKind::Gauge => CounterValue::Integer(cell(*at)),
            CounterKind::Time => CounterValue::Time(Duration::from_nanos(cell(*at))),
            CounterKind::TimeAverage => {
                let sum = Duration::from_nanos(cell(at + 1));
                CounterValue::TimeAverage { count: cell(*at), sum }
            }
            CounterKind::Histogram => {
                let counts = std::array::from_fn(|bucket| cell(at + bucket));
                let sum = Duration::from_nanos(cell(at + BUCKETS));
                CounterValue::Histogram(Box::new(Histogram { counts, sum }))
            }
        };
        self.infos.iter().zip(&self.places).map(value).collect()
    }

    fn reset(&self) {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        for (info, at) in self.infos.iter().zip(&self.places) {
            // What is there now does not go away by counting anew.
            if info.kind != CounterKind::Gauge {
                for at in *at..at + width(info.kind) {
                    base[at] = self.cells.0[at].load(Ordering::Relaxed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static INFOS: [CounterInfo; 5] = [
        CounterInfo::counter("sent", ""),
        CounterInfo::gauge("open", ""),
        CounterInfo::time("busy", ""),
        CounterInfo::time_average("wait", ""),
        CounterInfo::histogram("waits", ""),
    ];

    #[test]
    fn each_kind_has_its_own_cells_and_a_reset_leaves_gauges() {
        let mut counters = Counters::new("worker", &INFOS);
        let source = counters.source();
        for us in [0, 1, 5, 1 << 40] {
            counters.add(0, 2);
            counters.add(1, 1);
            counters.add_time(2, Duration::from_millis(3));
            counters.add_average(3, 1, Duration::from_micros(us));
            counters.record(4, Duration::from_micros(us), 1);
        }
        counters.sub(1, 1);
        let values = source.values();
        assert_eq!(values[0], CounterValue::Integer(8));
        assert_eq!(values[1], CounterValue::Integer(3));
        assert_eq!(values[2], CounterValue::Time(Duration::from_millis(12)));
        let sum = Duration::from_micros(6 + (1 << 40));
        assert_eq!(values[3], CounterValue::TimeAverage { count: 4, sum });
        let mut expected = Histogram { sum, ..Histogram::default() };
        for bucket in [0, 1, 3, BUCKETS - 1] {
            expected.counts[bucket] += 1;
        }
        assert_eq!(values[4], CounterValue::Histogram(expected.into()));

        source.reset();
        counters.add(0, 5);
        let values = source.values();
        assert_eq!(values[..2], [CounterValue::Integer(5), CounterValue::Integer(3)]);
        assert_eq!(values[4], CounterValue::Histogram(Box::default()));
    }
}
