use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cpu::CpuTime;

/// Latencies above this are counted as this, in nanoseconds: ten minutes.
const MAX_LATENCY_NS: u64 = 600_000_000_000;
/// Decimal digits that a latency keeps.
const DIGITS: u8 = 3;

/// When a measurement ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After so many operations of each job.
    Operations(u64),
    /// After this time; what is in flight then is still answered and counted.
    Time(Duration),
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Data of each request in bytes.
    pub size: usize,
    /// Connections at the same time.
    pub jobs: usize,
    /// Operations in flight on each.
    pub depth: usize,
    /// When it ends.
    pub limit: Limit,
}

/// Counts answers while a measurement runs; each job has a cache line of its own.
#[derive(Debug)]
pub struct Progress {
    jobs: Box<[Counter]>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

impl Progress {
    /// Counters for so many jobs.
    pub fn new(jobs: usize) -> Self {
        Self::stopped_by(jobs, Arc::default())
    }

    /// Counters for so many jobs, which begin no further operation once `stop` is set: the measurement
    /// ends when what is in flight is answered.
    pub fn stopped_by(jobs: usize, stop: Arc<AtomicBool>) -> Self {
        Self { jobs: (0..jobs).map(|_| Counter::default()).collect(), stop }
    }

    /// Operations that were answered so far.
    pub fn answered(&self) -> u64 {
        self.jobs.iter().map(|job| job.0.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, job: usize, count: u64) {
        let cell = &self.jobs[job].0;
        cell.store(cell.load(Ordering::Relaxed) + count, Ordering::Relaxed); // a job is of one thread
    }
}

/// What one run, or several together, gave.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// Operations that were answered.
    pub operations: u64,
    /// The same, of each job.
    pub jobs: Vec<u64>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Nanoseconds from a request to its answer.
    pub latency: Histogram<u64>,
    /// Processor time of this process, both sides if both are in it.
    pub cpu: CpuTime,
}

impl Measurement {
    /// Nothing measured yet.
    pub fn new() -> Self {
        Self {
            operations: 0,
            jobs: Vec::new(),
            elapsed: Duration::ZERO,
            latency: new_histogram(),
            cpu: CpuTime::default(),
        }
    }

    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The operations of the job with the fewest, divided by the mean of all: 1 is fair. None if
    /// there are no two jobs, or no operations.
    pub fn slowest_job_share(&self) -> Option<f64> {
        let fewest =
            self.jobs.iter().min().filter(|_| self.jobs.len() > 1 && self.operations > 0)?;
        Some(*fewest as f64 * self.jobs.len() as f64 / self.operations as f64)
    }

    /// Adds a run that came before or after this one.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.jobs.resize(self.jobs.len().max(other.jobs.len()), 0);
        self.jobs.iter_mut().zip(&other.jobs).for_each(|(sum, more)| *sum += more);
        self.elapsed += other.elapsed;
        self.latency.add(&other.latency).expect("histograms of the same bounds");
        self.cpu += other.cpu;
    }
}

impl Default for Measurement {
    fn default() -> Self {
        Self::new()
    }
}

/// One job's own counting, without a lock.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) latency: Histogram<u64>,
    pub(crate) last_answer: Instant,
}

impl Recorder {
    pub(crate) fn new(start: Instant) -> Self {
        Self { latency: new_histogram(), last_answer: start }
    }

    pub(crate) fn record(&mut self, sent: Instant, answered: Instant) {
        let nanos = answered.saturating_duration_since(sent).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.latency.saturating_record(nanos.clamp(1, MAX_LATENCY_NS));
        self.last_answer = answered;
    }
}

/// Brings what jobs that ran side by side have counted together.
pub(crate) fn combine(
    start: Instant,
    cpu: CpuTime,
    jobs: impl IntoIterator<Item = Recorder>,
) -> Measurement {
    let mut total = Measurement::new();
    total.cpu = cpu;
    for job in jobs {
        total.operations += job.latency.len();
        total.jobs.push(job.latency.len());
        total.latency.add(&job.latency).expect("histograms of the same bounds");
        total.elapsed = total.elapsed.max(job.last_answer.saturating_duration_since(start));
    }
    total
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_NS, DIGITS).expect("bounds and digits are constants")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_job_is_held_against_the_mean_of_all_over_all_rounds() {
        let round = |jobs: &[u64]| Measurement {
            operations: jobs.iter().sum(),
            jobs: jobs.to_vec(),
            ..Measurement::new()
        };
        let mut sum = Measurement::new();
        assert_eq!(sum.slowest_job_share(), None);
        sum.add(&round(&[100, 60]));
        assert_eq!(sum.slowest_job_share(), Some(0.75));
        sum.add(&round(&[0, 40]));
        assert_eq!(sum.slowest_job_share(), Some(1.0));
        assert_eq!(round(&[5]).slowest_job_share(), None, "alone");
    }
}
