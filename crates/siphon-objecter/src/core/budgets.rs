//! Room for operations that are yet to be made.

use std::time::Instant;

use super::throttles::Waiting;
use super::{BudgetTicket, Core, Done, Then};
use crate::{Op, OpError};

/// Room that someone waits for or has, and that no operation takes up yet. It counts as one operation.
pub(super) struct Reservation {
    pub(super) bytes: u64,
    pub(super) granted: bool,
    waiting: Option<Waiting>,
    ticket: BudgetTicket,
}

impl Core {
    /// Wants room for an operation of `bytes`. Whoever came first gets it first, operations and
    /// reservations alike.
    pub(crate) fn reserve(&mut self, bytes: u64, ticket: BudgetTicket, now: Instant) {
        if self.is_shut {
            self.done(Done::Budget(ticket, Err(OpError::Shutdown)));
            return;
        }
        let id = self.next_id();
        ticket.set_id(id);
        let reservation = Reservation { bytes, granted: false, waiting: None, ticket };
        self.reservations.insert(id, reservation);
        self.reserving.insert(id);
        self.admit(now);
        if self.reserving.contains(&id) {
            let waiting = self.refuse(bytes, now);
            if let Some(reservation) = self.reservations.get_mut(&id) {
                reservation.waiting = Some(waiting);
            }
        }
        self.check();
    }

    /// The room of a reservation is not wanted, or not any more.
    pub(crate) fn release(&mut self, id: u64, now: Instant) {
        self.give_back(id);
        self.admit(now);
        self.check();
    }

    /// Takes an operation for which there is room: what was reserved.
    ///
    /// Behind operations that wait it would overtake them, and they may be waiting for its room: then it
    /// waits with them, like any other. So does one that takes more than was reserved.
    pub(crate) fn submit_within(&mut self, id: u64, op: Op, then: Then, now: Instant) {
        let room = self.give_back(id);
        if !self.queued.is_empty() || room.is_none_or(|room| op.bytes() > room) {
            self.submit(op, then, now);
            return;
        }
        if let Some(tid) = self.take(op, then, now) {
            self.count(tid, now);
            self.start(tid, now);
        }
        self.admit(now);
        self.check();
    }

    /// Which room it had, in bytes.
    fn give_back(&mut self, id: u64) -> Option<u64> {
        let reservation = self.reservations.remove(&id)?;
        if !reservation.granted {
            self.reserving.remove(&id);
            return None;
        }
        self.inflight_ops -= 1;
        self.inflight_bytes -= reservation.bytes;
        self.throttles.put(reservation.bytes);
        Some(reservation.bytes)
    }

    /// It has room from now on.
    pub(super) fn grant(&mut self, id: u64, now: Instant) {
        let Some(reservation) = self.reservations.get_mut(&id) else { return };
        self.reserving.remove(&id);
        reservation.granted = true;
        self.inflight_ops += 1;
        self.inflight_bytes += reservation.bytes;
        self.throttles.pass(reservation.bytes, reservation.waiting.take(), now);
        let ticket = reservation.ticket.clone();
        self.done(Done::Budget(ticket, Ok(())));
    }

    /// Who waits for room waits no more. What has room keeps it until it is dropped.
    pub(super) fn refuse_reservations(&mut self) {
        for id in std::mem::take(&mut self.reserving) {
            if let Some(reservation) = self.reservations.remove(&id) {
                self.done(Done::Budget(reservation.ticket, Err(OpError::Shutdown)));
            }
        }
    }
}
