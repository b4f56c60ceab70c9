//! Room that is had before there is an operation for it.

use std::time::Duration;

use siphon_messages::osd::OsdOp;

use super::single::{Bench, get};
use super::world::{REPLICATED, config};
use crate::core::throttles::{Bound, Passed};
use crate::core::{BudgetTicket, CoreConfig, Then};
use crate::ticket::Ticket;
use crate::{Op, OpError, Target};

/// `get` counts 100 bytes.
fn bench() -> Bench {
    Bench::new(CoreConfig { max_ops: 3, max_bytes: 250, ..config() })
}

impl Bench {
    fn reserve(&mut self, bytes: u64) -> BudgetTicket {
        let ticket = Ticket::new();
        self.core.reserve(bytes, ticket.clone(), self.now);
        self.drain();
        ticket
    }

    fn submit_within(&mut self, budget: &BudgetTicket) {
        self.core.submit_within(budget.id(), get("object"), Then::Nobody, self.now);
        self.drain();
    }

    fn release(&mut self, budget: &BudgetTicket) {
        self.core.release(budget.id(), self.now);
        self.drain();
    }

    fn inflight(&self) -> (u64, u64) {
        (self.core.inflight_ops, self.core.inflight_bytes)
    }
}

#[test]
fn operations_and_reservations_get_room_in_one_line() {
    let mut bench = bench();
    let (first, second) = (bench.reserve(200), bench.reserve(100));
    let third = bench.submit(get("third"));
    assert!(first.take().is_some() && second.take().is_none());
    assert_eq!((bench.inflight(), bench.sent.len()), ((1, 200), 0));
    // What it turns out to take counts: there is room for the second.
    bench.release(&first);
    assert!(second.take().is_some());
    assert_eq!((bench.inflight(), bench.sent.len()), ((2, 200), 1), "the third needs no more");
    // One that nobody waits for leaves the line; what is longer than all goes alone.
    let (fourth, long) = (bench.reserve(100), bench.reserve(1000));
    bench.release(&fourth);
    bench.answer(0);
    assert!(third.take().is_some() && long.take().is_none());
    bench.release(&second);
    assert!(fourth.take().is_none() && long.take().is_some());
    assert_eq!(bench.inflight(), (1, 1000));
    bench.release(&long);
    bench.release(&long); // nothing, for it is gone
    assert_eq!(bench.inflight(), (0, 0));
}

#[test]
fn an_operation_takes_its_own_bytes_of_what_was_reserved() {
    let mut bench = bench();
    let budget = bench.reserve(250);
    let waits = bench.reserve(150);
    assert!(budget.take().is_some() && waits.take().is_none());
    bench.submit_within(&budget);
    assert_eq!((bench.inflight(), bench.sent.len()), ((2, 250), 1), "its rest is the other's");
    bench.answer(0);
    assert_eq!(bench.inflight(), (1, 150));
}

/// The maxima hold whatever is said to be wanted, and sums stay what they are.
#[test]
fn what_takes_more_than_was_reserved_waits_for_room() {
    let mut bench = bench();
    let budgets = [bench.reserve(1), bench.reserve(1), bench.reserve(150)];
    assert!(budgets.iter().all(|budget| budget.take().is_some()));
    bench.submit_within(&budgets[0]);
    assert_eq!((bench.inflight(), bench.sent.len()), ((2, 151), 0));
    bench.release(&budgets[2]);
    assert_eq!((bench.inflight(), bench.sent.len()), ((2, 101), 1));
    // An operation for all that there may be goes alone.
    let all = Op::read(Target::object(REPLICATED, "object"), vec![OsdOp::read(0, u64::MAX)]);
    bench.core.submit_within(budgets[1].id(), all, Then::Nobody, bench.now);
    bench.drain();
    assert_eq!((bench.inflight(), bench.sent.len()), ((1, 100), 1));
    bench.answer(0);
    assert_eq!((bench.inflight(), bench.sent.len()), ((1, u64::MAX), 2));
}

#[test]
fn a_maximum_of_all_bytes_is_one() {
    let mut bench = Bench::new(CoreConfig { max_bytes: u64::MAX, ..config() });
    let (first, second) = (bench.reserve(u64::MAX), bench.reserve(1));
    assert!(first.take().is_some() && second.take().is_none());
    bench.release(&first);
    assert!(second.take().is_some());
    // It is 0 to who looks into it, and sums stay at their end.
    let all = bench.reserve(u64::MAX - 1);
    bench.release(&all);
    let passed = bench.core.passed(Bound::Bytes);
    assert_eq!((passed.max, passed.val, passed.get, passed.get_sum), (0, 1, 3, u64::MAX));
}

/// What was submitted first is done first, and who holds room that others wait for lets go of it.
#[test]
fn none_overtakes_an_operation_that_waits() {
    let mut bench = bench();
    let budget = bench.reserve(200);
    let waits = bench.submit(get("object"));
    assert!(budget.take().is_some() && bench.sent.is_empty());
    bench.submit_within(&budget);
    assert_eq!(bench.sent.len(), 2);
    let order: Vec<_> = bench.sent.iter().map(|(_, message)| message.header.tid).collect();
    assert!(order[0] == waits.id() && order[0] < order[1]);
    assert_eq!(bench.inflight(), (2, 200));
}

#[test]
fn a_shutdown_refuses_who_waits_for_room() {
    let mut bench = bench();
    let (had, waits) = (bench.reserve(250), bench.reserve(1));
    assert_eq!(had.take(), Some(Ok(())));
    bench.core.shut_down();
    bench.drain();
    assert_eq!(waits.take(), Some(Err(OpError::Shutdown)));
    assert_eq!(bench.reserve(1).take(), Some(Err(OpError::Shutdown)));
    bench.submit_within(&had);
    bench.release(&had);
    assert_eq!((bench.inflight(), bench.sent.len()), ((0, 0), 0));
}

/// As Ceph's objecter counts it: what finds no room waits for the one of both that has none.
#[test]
fn what_passes_and_what_waits_is_counted_by_the_bound_that_it_met() {
    let mut bench = bench();
    let (first, second) = (bench.reserve(200), bench.reserve(100));
    bench.now += Duration::from_secs(2);
    bench.release(&first);
    let bytes = Passed {
        val: 100,
        max: 250,
        get: 2,
        get_sum: 300,
        get_or_fail_fail: 1,
        put: 1,
        put_sum: 200,
        waits: 1,
        wait: Duration::from_secs(2),
    };
    assert_eq!(bench.core.passed(Bound::Bytes), bytes);
    let ops =
        Passed { val: 1, max: 3, get: 2, get_sum: 2, put: 1, put_sum: 1, ..Passed::default() };
    assert_eq!(bench.core.passed(Bound::Ops), ops);
    let _ = (bench.reserve(1), bench.reserve(1));
    bench.submit(get("one too many"));
    assert_eq!(bench.core.passed(Bound::Bytes), Passed { val: 102, get: 4, get_sum: 302, ..bytes });
    let ops = Passed { val: 3, get: 4, get_sum: 4, get_or_fail_fail: 1, ..ops };
    assert_eq!(bench.core.passed(Bound::Ops), ops);
    bench.now += Duration::from_secs(3);
    bench.release(&second);
    let wait = Duration::from_secs(3);
    let ops = Passed { get: 5, get_sum: 5, put: 2, put_sum: 2, waits: 1, wait, ..ops };
    assert_eq!(bench.core.passed(Bound::Ops), ops);
}

#[test]
fn room_goes_on_to_others_when_what_it_was_for_cannot_be_sent() {
    let mut bench = bench();
    let budget = bench.reserve(250);
    let waits = bench.submit(get("waits"));
    assert_eq!((bench.inflight(), bench.sent.len()), ((1, 250), 0));
    let mut many = get("object");
    many.ops = vec![OsdOp::read(0, 1); 1 << 16];
    bench.core.submit_within(budget.id(), many, Then::Nobody, bench.now);
    bench.drain();
    assert_eq!((bench.inflight(), bench.sent.len()), ((1, 100), 1));
    bench.answer(0);
    assert!(waits.take().is_some());
}
