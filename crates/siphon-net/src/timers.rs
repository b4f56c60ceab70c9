//! Deadlines, ordered.

use std::time::Instant;

use crate::slab::{Key, Slab};

/// A timer that was set. Meaningful to the [`Timers`] that gave it only, which never gives it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(Key);

/// Timers of one worker: a heap that knows where each timer is, so that setting, moving and
/// cancelling cost O(log n) and, once there were as many timers before, no allocation.
///
/// Timers with the same deadline expire in the order in which they were set.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let now = Instant::now();
/// let mut timers = siphon_net::Timers::new();
/// timers.set(now + Duration::from_secs(2), 2);
/// let first = timers.set(now + Duration::from_secs(1), 1);
/// timers.reset(first, now + Duration::from_secs(3));
/// assert_eq!(timers.pop_expired(now + Duration::from_secs(2)), Some(2));
/// assert_eq!(timers.pop_expired(now + Duration::from_secs(2)), None);
/// ```
///
/// Invariants: `heap[i]` is not later than `heap[2i + 1]` and `heap[2i + 2]`; for every i,
/// `timers[heap[i].key].position == i`; both have the same number of entries.
#[derive(Debug)]
pub struct Timers {
    heap: Vec<HeapEntry>,
    timers: Slab<Timer>,
    next_order: u64,
}

#[derive(Clone, Copy, Debug)]
struct HeapEntry {
    deadline: Instant,
    order: u64,
    key: Key,
}

#[derive(Debug)]
struct Timer {
    position: usize,
    token: u64,
}

impl Timers {
    /// No timers.
    pub const fn new() -> Self {
        Self { heap: Vec::new(), timers: Slab::new(), next_order: 0 }
    }

    /// Sets a timer; `token` is what its expiry tells.
    pub fn set(&mut self, deadline: Instant, token: u64) -> TimerId {
        let position = self.heap.len();
        let key = self.timers.insert(Timer { position, token });
        let order = self.take_order();
        self.heap.push(HeapEntry { deadline, order, key });
        self.sift_up(position);
        TimerId(key)
    }

    /// Moves a timer to another deadline. Whether it was still set.
    pub fn reset(&mut self, id: TimerId, deadline: Instant) -> bool {
        let Some(&Timer { position, .. }) = self.timers.get(id.0) else {
            return false;
        };
        let order = self.take_order();
        self.heap[position] = HeapEntry { deadline, order, key: id.0 };
        self.restore(position);
        true
    }

    /// Cancels a timer. Whether it was still set.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        let Some(timer) = self.timers.remove(id.0) else {
            return false;
        };
        self.remove_at(timer.position);
        true
    }

    /// The deadline of the timer that expires first.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.deadline)
    }

    /// Takes the first timer if its deadline is not after `now`, and gives its token.
    pub fn pop_expired(&mut self, now: Instant) -> Option<u64> {
        let first = self.heap.first().filter(|entry| entry.deadline <= now)?;
        let timer = self.timers.remove(first.key)?;
        self.remove_at(0);
        Some(timer.token)
    }

    /// How many are set.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn take_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    fn remove_at(&mut self, position: usize) {
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.restore(position);
        }
    }

    /// Puts the entry at `position`, the only one out of place, where it belongs.
    fn restore(&mut self, position: usize) {
        let position = self.sift_up(position);
        self.sift_down(position);
    }

    fn sift_up(&mut self, mut position: usize) -> usize {
        while position > 0 {
            let parent = (position - 1) / 2;
            if !self.before(position, parent) {
                break;
            }
            self.heap.swap(position, parent);
            self.note_position(position);
            position = parent;
        }
        self.note_position(position);
        position
    }

    fn sift_down(&mut self, mut position: usize) {
        loop {
            let left = 2 * position + 1;
            if left >= self.heap.len() {
                break;
            }
            let right = left + 1;
            let child =
                if right < self.heap.len() && self.before(right, left) { right } else { left };
            if !self.before(child, position) {
                break;
            }
            self.heap.swap(child, position);
            self.note_position(position);
            position = child;
        }
        self.note_position(position);
    }

    fn before(&self, a: usize, b: usize) -> bool {
        let key = |at: usize| (self.heap[at].deadline, self.heap[at].order);
        key(a) < key(b)
    }

    fn note_position(&mut self, position: usize) {
        if let Some(timer) = self.timers.get_mut(self.heap[position].key) {
            timer.position = position;
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]

    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// Random operations, with a sorted map beside.
    #[test]
    fn agrees_with_a_sorted_map() {
        let start = Instant::now();
        let mut timers = Timers::new();
        let mut model = BTreeMap::new();
        let mut set: Vec<(TimerId, (u64, u64))> = Vec::new();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for token in 0..20_000_u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = random % 512;
            let deadline = start + Duration::from_millis(at);
            match random >> 60 {
                0..=7 => {
                    let id = timers.set(deadline, token);
                    model.insert((at, token), token);
                    set.push((id, (at, token)));
                }
                8..=10 if !set.is_empty() => {
                    let (id, key) = set.swap_remove(random as usize % set.len());
                    assert_eq!(timers.cancel(id), model.remove(&key).is_some());
                    assert!(!timers.cancel(id));
                }
                11..=12 if !set.is_empty() => {
                    let index = random as usize % set.len();
                    let (id, key) = set[index];
                    let moved = model.remove(&key);
                    assert_eq!(timers.reset(id, deadline), moved.is_some());
                    if let Some(original) = moved {
                        set[index].1 = (at, token);
                        model.insert((at, token), original);
                    }
                }
                _ => {
                    let expected = model.first_key_value().map(|(&key, &token)| (key, token));
                    let due = expected.filter(|&((key_at, _), _)| key_at <= at);
                    assert_eq!(timers.pop_expired(deadline), due.map(|(_, token)| token));
                    if let Some((key, _)) = due {
                        model.remove(&key);
                    }
                }
            }
            assert_eq!(timers.len(), model.len());
            let next = model.first_key_value().map(|(key, _)| start + Duration::from_millis(key.0));
            assert_eq!(timers.next_deadline(), next);
        }
        assert!(!timers.is_empty(), "the mix fills the heap");
    }

    #[test]
    fn equal_deadlines_expire_as_they_were_set() {
        let now = Instant::now();
        let mut timers = Timers::new();
        for token in 0..100 {
            timers.set(now, token);
        }
        let expired: Vec<u64> = std::iter::from_fn(|| timers.pop_expired(now)).collect();
        assert_eq!(expired, (0..100).collect::<Vec<_>>());
    }
}
