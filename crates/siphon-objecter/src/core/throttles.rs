//! What `objecter_inflight_ops` and `objecter_inflight_op_bytes` let pass: `throttle-objecter_ops` and
//! `throttle-objecter_bytes` of Ceph's `perf dump`.

use std::time::{Duration, Instant};

use super::Core;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// `objecter_inflight_ops`.
    Ops,
    /// `objecter_inflight_op_bytes`.
    Bytes,
}

/// Who waits for room, as long as he does: for which of the two, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    bound: Bound,
    since: Instant,
}

/// What was counted, by Ceph's names. What passes asks both; what does not at once (`get_or_fail`) waits in a `get` of
/// the one that has no room for it (`Objecter::_throttle_op` of 16.2.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// What is held, and what may be.
    pub(crate) val: u64,
    pub(crate) max: u64,
    pub(crate) get: u64,
    pub(crate) get_sum: u64,
    /// Each began to wait.
    pub(crate) get_or_fail_fail: u64,
    pub(crate) put: u64,
    pub(crate) put_sum: u64,
    /// Of those that passed in the end.
    pub(crate) waits: u64,
    pub(crate) wait: Duration,
}

/// Of both.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    ops: Passed,
    bytes: Passed,
}

impl Throttles {
    fn of(&mut self, bound: Bound) -> &mut Passed {
        match bound {
            Bound::Ops => &mut self.ops,
            Bound::Bytes => &mut self.bytes,
        }
    }

    /// One that has so many bytes passes, after it waited or at once.
    pub(super) fn pass(&mut self, bytes: u64, waited: Option<Waiting>, now: Instant) {
        for (passed, amount) in [(&mut self.ops, 1), (&mut self.bytes, bytes)] {
            passed.get += 1;
            passed.get_sum = passed.get_sum.saturating_add(amount);
        }
        if let Some(Waiting { bound, since }) = waited {
            let passed = self.of(bound);
            passed.waits += 1;
            passed.wait += now.saturating_duration_since(since);
        }
    }

    /// It is over.
    pub(super) fn put(&mut self, bytes: u64) {
        for (passed, amount) in [(&mut self.ops, 1), (&mut self.bytes, bytes)] {
            passed.put += 1;
            passed.put_sum = passed.put_sum.saturating_add(amount);
        }
    }
}

impl Core {
    /// One that has so many bytes does not pass at once.
    pub(super) fn refuse(&mut self, bytes: u64, now: Instant) -> Waiting {
        // Who finds room stands behind one that waits for bytes.
        let ops_are_full = self.inflight_ops >= self.config.max_ops;
        let bound =
            if ops_are_full && self.has_room_for(bytes) { Bound::Ops } else { Bound::Bytes };
        self.throttles.of(bound).get_or_fail_fail += 1;
        Waiting { bound, since: now }
    }

    /// What was counted of one of the bounds, and what it holds.
    pub(crate) fn passed(&self, bound: Bound) -> Passed {
        let Throttles { ops, bytes } = self.throttles;
        // Without a maximum, Ceph's has 0 there.
        let shown = |max: u64| if max == u64::MAX { 0 } else { max };
        let (max_ops, max_bytes) = (shown(self.config.max_ops), shown(self.config.max_bytes));
        match bound {
            Bound::Ops => Passed { val: self.inflight_ops, max: max_ops, ..ops },
            Bound::Bytes => Passed { val: self.inflight_bytes, max: max_bytes, ..bytes },
        }
    }
}
