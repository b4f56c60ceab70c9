use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::time::Instant;

/// A timer that was set. Ids are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(u64);

/// Timers of one worker, in the order of their times; those of one time in the order in which they
/// were set.
///
/// ```
/// use std::time::{Duration, Instant};
/// use siphon_net::Timers;
///
/// let now = Instant::now();
/// let mut timers = Timers::default();
/// timers.set(now + Duration::from_secs(1), 7);
/// assert_eq!(timers.pop_due(now), None);
/// assert_eq!(timers.pop_due(now + Duration::from_secs(1)), Some(7));
/// ```
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, TimerId, u64)>>,
    /// Timers in the heap that are not cancelled. A cancelled one leaves the heap when its time
    /// comes, or when half of the heap is cancelled.
    live: HashSet<TimerId>,
    next: u64,
}

impl Timers {
    /// Sets a timer that gives `token` at `deadline`.
    pub fn set(&mut self, deadline: Instant, token: u64) -> TimerId {
        let id = TimerId(self.next);
        self.next += 1;
        self.heap.push(Reverse((deadline, id, token)));
        self.live.insert(id);
        id
    }

    /// Cancels a timer; nothing happens if its time has come.
    pub fn cancel(&mut self, id: TimerId) {
        if self.live.remove(&id) && self.heap.len() > 64 && self.live.len() < self.heap.len() / 2 {
            let live = &self.live;
            self.heap.retain(|Reverse((_, id, _))| live.contains(id));
        }
    }

    /// When the next timer is due.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        loop {
            let Reverse((deadline, id, _)) = self.heap.peek()?;
            if self.live.contains(id) {
                return Some(*deadline);
            }
            self.heap.pop();
        }
    }

    /// The token of the next timer that is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<u64> {
        if self.next_deadline()? > now {
            return None;
        }
        let Reverse((_, id, token)) = self.heap.pop()?;
        self.live.remove(&id);
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timers_come_in_order_and_cancelled_ones_do_not() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set(at(30), 3);
        let second = timers.set(at(20), 2);
        timers.set(at(10), 1);
        timers.set(at(10), 11);
        timers.cancel(second);
        assert_eq!(timers.next_deadline(), Some(at(10)));
        let due: Vec<u64> = std::iter::from_fn(|| timers.pop_due(at(25))).collect();
        assert_eq!(due, [1, 11]);
        assert_eq!(timers.pop_due(at(30)), Some(3));
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn setting_and_cancelling_for_ever_holds_little() {
        let start = Instant::now();
        let mut timers = Timers::default();
        for i in 0..100_000 {
            let id = timers.set(start + Duration::from_secs(i), i);
            timers.cancel(id);
        }
        assert!(timers.heap.len() <= 128);
    }
}
