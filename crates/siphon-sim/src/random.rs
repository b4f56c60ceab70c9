//! Choices from a seed. The arithmetic is here, so that no other crate's version changes a run.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

#[derive(Debug)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Below `bound`, or 0 where that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 to below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True in `probability` of all cases.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// From 1 to `max`, in a quarter of all cases `max` itself; 0 where that is 0.
    pub(crate) fn piece(&mut self, max: usize) -> usize {
        if max == 0 || self.below(4) == 0 {
            return max;
        }
        1 + self.log_below(max as u64) as usize
    }

    /// Below `bound`, each order of magnitude as likely as another.
    pub(crate) fn log_below(&mut self, bound: u64) -> u64 {
        let bits = u64::from(u64::BITS - bound.leading_zeros());
        let top = 1u64 << self.below(bits + 1).min(63);
        self.below(top.min(bound))
    }

    pub(crate) fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let span = max.saturating_sub(min).as_nanos() as u64;
        min + Duration::from_nanos(self.below(span.saturating_add(1)))
    }
}
