use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use siphon_messages::mon::{MonInfo, MonMap};
use siphon_msgr::CloseReason;
use siphon_wire::types::{ByteString, EntityAddrVec};

use super::Options;
use crate::error::Tried;

/// Chooses the monitors that are asked next, and how long they have.
#[derive(Debug)]
pub(super) struct Hunter {
    /// Those that were asked, since all were.
    tried: BTreeSet<ByteString>,
    /// Of `mon_client_hunt_interval`.
    multiple: f64,
    rng: StdRng,
    failures: BTreeMap<ByteString, Tried>,
}

impl Hunter {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        Self {
            tried: BTreeSet::new(),
            multiple: options.hunt_min_multiple,
            rng: StdRng::seed_from_u64(seed),
            failures: BTreeMap::new(),
        }
    }

    /// Monitors that were not tried yet: of the best priority, as many as are asked at once, at random,
    /// by their weights. None if all were tried.
    pub(super) fn next_batch(&mut self, map: &MonMap, options: &Options) -> Vec<MonInfo> {
        let untried = || map.mons.values().filter(|mon| !self.tried.contains(&mon.name));
        let Some(best) = untried().map(|mon| mon.priority).min() else { return Vec::new() };
        let mut batch: Vec<_> = untried().filter(|mon| mon.priority == best).cloned().collect();
        let unweighted = batch.iter().all(|mon| mon.weight == 0);
        // The order of exponential waits is a shuffle by weights; 0 comes last.
        let mut wait = |mon: &MonInfo| {
            let draw = -self.rng.random_range(f64::MIN_POSITIVE..1.0).ln();
            if unweighted { draw } else { draw / f64::from(mon.weight) }
        };
        let mut drawn: Vec<_> = batch.drain(..).map(|mon| (wait(&mon), mon)).collect();
        drawn.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        batch.extend(drawn.into_iter().map(|(_, mon)| mon));
        if options.hunt_parallel > 0 {
            batch.truncate(options.hunt_parallel);
        }
        self.tried.extend(batch.iter().map(|mon| mon.name.clone()));
        batch
    }

    /// All may be tried again.
    pub(super) fn start_over(&mut self) {
        self.tried.clear();
    }

    /// How long those that are asked have.
    pub(super) fn interval(&self, options: &Options) -> Duration {
        options.hunt_interval.mul_f64(self.multiple)
    }

    /// A session was lost, and another is looked for.
    pub(super) fn back_off(&mut self, options: &Options) {
        let multiple = self.multiple * options.hunt_backoff;
        self.multiple = multiple.min(options.hunt_max_multiple.max(options.hunt_min_multiple));
    }

    /// There is a session, or it still lives.
    pub(super) fn un_back_off(&mut self, options: &Options) {
        self.multiple = (self.multiple / options.hunt_backoff).max(options.hunt_min_multiple);
    }

    pub(super) fn failed(
        &mut self,
        name: &ByteString,
        addrs: &EntityAddrVec,
        reason: Option<&CloseReason>,
    ) {
        let tried =
            Tried { name: format!("mon.{name}"), addrs: addrs.clone(), reason: reason.cloned() };
        self.failures.insert(name.clone(), tried);
    }

    pub(super) fn forget_failures(&mut self) {
        self.failures.clear();
    }

    pub(super) fn failures(&self) -> Vec<Tried> {
        self.failures.values().cloned().collect()
    }
}
