//! Operations on objects, from submission to result.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use siphon_messages::osd::OsdFlags;
use siphon_messages::{MOSDOp, TypedMessage};
use siphon_proto::v2::Limits;
use siphon_proto::{OutMessage, Priority};
use siphon_wire::types::{HObject, SnapId};

use super::throttles::Waiting;
use super::{Core, Done, OpTicket, Output, Subject, view};
use crate::placement::{Aim, Missing, Placement, Recalc};
use crate::{Op, OpError, OpReply, Target};

/// Operations in a request, as many as its count can say.
const MAX_OPS: usize = u16::MAX as usize;

/// What an operation takes in a request's front, beside its data.
const OP_LEN: usize = 38;
/// More than all else takes there.
const FIXED_LEN: usize = 1024;

/// What is good to be done has so much time: an OSD forgets a watch after that anyway
/// (`osd_client_watch_timeout`).
pub(crate) const TIMEOUT_FOR_NOBODY: Duration = Duration::from_secs(30);

/// Who waits for an operation.
#[derive(Debug)]
pub(crate) enum Then {
    /// An application.
    Reply(OpTicket),
    /// Nobody.
    Nobody,
    /// A watch or a notification that it begins or renews. It is not sent twice: another one is made.
    Register(u64),
    /// A watch that it checks. It is not sent twice.
    Ping { linger: u64, generation: u32, sent: Instant },
}

impl Then {
    /// Whether it is sent again where a session or an interval ends.
    fn is_lasting(&self) -> bool {
        matches!(self, Self::Reply(_) | Self::Nobody)
    }
}

pub(super) struct OpState {
    pub(super) message: Arc<MOSDOp>,
    /// The pool that was meant.
    pub(super) pool: i64,
    pub(super) place: Placement,
    /// The OSD in whose session it is.
    pub(super) session: Option<i32>,
    /// It is to be sent, for the first time or again.
    pub(super) unsent: bool,
    /// It waits for others to end, and has not been looked at.
    pub(super) queued: bool,
    /// The same, if it was not admitted at once.
    waiting: Option<Waiting>,
    /// It waits for the next tick, as an OSD asked again and again to try again.
    pub(super) parked: bool,
    pub(super) attempts: i32,
    pub(super) redirects: u8,
    pub(super) agains: u8,
    pub(super) bytes: u64,
    priority: Priority,
    timeout: Option<(Instant, Duration)>,
    pub(super) sent_at: Instant,
    pub(super) then: Then,
}

impl OpState {
    /// Looks it up in a map.
    pub(super) fn recalc(&mut self, view: &mut crate::placement::View<'_>) -> Recalc {
        let aim = Aim {
            pool: self.pool,
            oid: &self.message.oid,
            locator: &self.message.locator,
            flags: self.message.flags,
            lasting: false,
        };
        self.place.recalc(aim, view)
    }

    /// Whether it counts against the maximum.
    pub(super) fn is_budgeted(&self) -> bool {
        !self.queued && self.then.is_lasting()
    }

    /// The object as OSDs order them.
    pub(super) fn object(&self) -> HObject {
        let mut object = self.message.object();
        object.snap = SnapId::HEAD;
        object.hash = self.place.raw.seed;
        object.pool = self.place.raw.pool.cast_signed();
        object
    }

    /// What it waits for, for who looks into it.
    #[cfg(test)]
    pub(super) fn describe(&self) -> String {
        let Self { place, session, unsent, queued, parked, attempts, then, .. } = self;
        format!(
            "osd {:?} of {:?}, paused {}, session {session:?}, unsent {unsent}, queued {queued}, \
             parked {parked}, attempts {attempts}, for {then:?}",
            place.osd, place.raw, place.paused
        )
    }

    /// Whether the cluster or its pool does not take it at the time. Who asks for a watch is always heard, for
    /// an OSD forgets one that nobody asks for (`Objecter::_send_linger_ping`).
    pub(super) fn is_paused(&self) -> bool {
        self.place.paused && !matches!(self.then, Then::Ping { .. })
    }

    /// Whether it is for an object that is held back.
    pub(super) fn is_in(&self, pgid: siphon_wire::types::SpgId) -> bool {
        self.place.interval.as_ref().is_some_and(|interval| interval.spg == pgid)
    }
}

impl Core {
    /// Takes an operation. It is sent as soon as it can be; its result comes to `then`.
    pub(crate) fn submit(&mut self, op: Op, then: Then, now: Instant) {
        let tid = self.take(op, then, now);
        self.queued.extend(tid);
        // Also where it could not be taken: it may have given back what was reserved for it.
        self.admit(now);
        if let Some(tid) = tid {
            self.note_waiting(tid, now);
        }
        self.check();
    }

    /// It has not been admitted at once, or it has.
    fn note_waiting(&mut self, tid: u64, now: Instant) {
        if self.queued.contains(&tid) {
            let bytes = self.ops.get(&tid).map_or(0, |op| op.bytes);
            let waiting = self.refuse(bytes, now);
            if let Some(op) = self.ops.get_mut(&tid) {
                op.waiting = Some(waiting);
            }
        }
    }

    /// Makes an operation's state, unless it cannot be sent.
    pub(super) fn take(&mut self, op: Op, then: Then, now: Instant) -> Option<u64> {
        if let Err(error) = self.acceptable(&op) {
            self.tell(then, Err(error), now);
            return None;
        }
        let bytes = op.bytes();
        let timeout = op.timeout.or(self.config.timeout);
        let priority = op.priority.map_or(self.config.priority, Priority);
        let pool = op.target.pool;
        let message = Arc::new(op.into_message(0));
        let tid = self.add(message, pool, bytes, priority, then, now);
        if let Some(timeout) = timeout {
            self.limit(tid, timeout, now);
        }
        Some(tid)
    }

    /// Gives an operation so much time.
    pub(super) fn limit(&mut self, tid: u64, timeout: Duration, now: Instant) {
        if let Some(op) = self.ops.get_mut(&tid)
            && let Some(at) = now.checked_add(timeout)
        {
            op.timeout = Some((at, timeout));
            self.deadlines.insert((at, tid));
        }
    }

    pub(super) fn acceptable(&self, op: &Op) -> Result<(), OpError> {
        let count = op.ops.len();
        let data = op.ops.iter().map(|op| op.data.len() as u64).fold(0, u64::saturating_add);
        let Target { namespace, object, key, .. } = &op.target;
        let names = namespace.len() + object.len() + key.len() + op.snapc.snaps.len() * 8;
        let fields = (names + FIXED_LEN + count.min(MAX_OPS) * OP_LEN) as u64;
        if self.is_shut {
            return Err(OpError::Shutdown);
        }
        if count == 0 || count > MAX_OPS {
            return Err(OpError::OpCount { count, limit: MAX_OPS });
        }
        let limits = [(data, Limits::SESSION.data), (fields, Limits::SESSION.front)];
        for (bytes, limit) in limits.map(|(bytes, limit)| (bytes, u64::from(limit))) {
            if bytes > limit {
                return Err(OpError::TooLong { bytes, limit });
            }
        }
        Ok(())
    }

    /// Makes an operation, which is queued.
    pub(super) fn add(
        &mut self,
        message: Arc<MOSDOp>,
        pool: i64,
        bytes: u64,
        priority: Priority,
        then: Then,
        now: Instant,
    ) -> u64 {
        let tid = self.next_id();
        if let Then::Reply(ticket) = &then {
            ticket.set_id(tid);
        }
        let op = OpState {
            message,
            pool,
            place: Placement::default(),
            session: None,
            unsent: true,
            queued: true,
            waiting: None,
            parked: false,
            attempts: 0,
            redirects: 0,
            agains: 0,
            bytes,
            priority,
            timeout: None,
            sent_at: now,
            then,
        };
        self.ops.insert(tid, Box::new(op));
        tid
    }

    /// Submits an operation of our own, which others do not hold up.
    pub(super) fn submit_own(
        &mut self,
        message: MOSDOp,
        pool: i64,
        then: Then,
        now: Instant,
    ) -> u64 {
        let tid = self.add(Arc::new(message), pool, 0, self.config.priority, then, now);
        self.start(tid, now);
        tid
    }

    /// Lets operations go on that waited for others to end.
    pub(super) fn admit(&mut self, now: Instant) {
        if std::mem::replace(&mut self.admitting, true) {
            return; // whoever does so now sees it as well
        }
        let first = |ids: &BTreeSet<u64>| ids.first().copied();
        while let Some(id) =
            [first(&self.queued), first(&self.reserving)].into_iter().flatten().min()
        {
            let bytes = match (self.ops.get(&id), self.reservations.get(&id)) {
                (Some(op), _) => op.bytes,
                (None, reservation) => reservation.map_or(0, |it| it.bytes),
            };
            let fits = self.has_room_for(bytes);
            // One that is longer than all goes alone.
            let alone = self.inflight_ops == 0;
            if !alone && (!fits || self.inflight_ops >= self.config.max_ops) {
                break;
            }
            if self.queued.remove(&id) {
                self.count(id, now);
                self.start(id, now);
            } else {
                self.grant(id, now);
            }
        }
        self.admitting = false;
    }

    /// Whether so many bytes more may be under way.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        let all = self.inflight_bytes.checked_add(bytes);
        all.is_some_and(|all| all <= self.config.max_bytes)
    }

    /// An operation is under way from now on.
    pub(super) fn count(&mut self, tid: u64, now: Instant) {
        let Some(op) = self.ops.get_mut(&tid) else { return };
        self.inflight_ops += 1;
        self.inflight_bytes += op.bytes;
        self.throttles.pass(op.bytes, op.waiting.take(), now);
    }

    pub(super) fn start(&mut self, tid: u64, now: Instant) {
        self.keep_ticking(now);
        if let Some(op) = self.ops.get_mut(&tid) {
            op.queued = false;
        }
        self.place(tid, now);
    }

    /// Looks an operation up in the map, and sends it.
    pub(super) fn place(&mut self, tid: u64, now: Instant) {
        let Self { ops, map, cache, config, .. } = self;
        let Some(op) = ops.get_mut(&tid) else { return };
        match op.recalc(&mut view(map, cache, config)) {
            Recalc::NoPool => self.without_pool(tid),
            Recalc::PoolEio => self.pool_fails(tid),
            Recalc::Same | Recalc::Resend => {
                self.push(tid, now);
                if self.ops.get(&tid).is_some_and(|op| op.session.is_none() || op.is_paused()) {
                    self.want_map();
                }
            }
        }
    }

    /// Sends an operation, if it is to be sent and can be.
    pub(super) fn push(&mut self, tid: u64, now: Instant) {
        let Some(op) = self.ops.get(&tid) else { return };
        let Some(osd) = op.place.osd.filter(|_| op.unsent && !op.parked && !op.is_paused()) else {
            return;
        };
        if !self.open_session(osd) {
            return;
        }
        let Self { ops, sessions, outputs, map, .. } = self;
        let (Some(op), Some(session)) = (ops.get_mut(&tid), sessions.get(&osd)) else { return };
        op.session = Some(osd);
        let Some(interval) = &op.place.interval else { return };
        let spg = interval.spg;
        if session.is_waiting() || session.backoffs.holds(spg, || op.object()) {
            return;
        }
        // Usually nobody else has it: the message of an earlier attempt was encoded long ago.
        let message = Arc::make_mut(&mut op.message);
        message.pgid = spg;
        message.hash = op.place.raw.seed;
        message.locator.pool = op.place.raw.pool.cast_signed();
        message.osdmap_epoch = map.epoch;
        message.retry_attempt = op.attempts;
        if op.attempts > 0 {
            message.flags |= OsdFlags::RETRY;
        }
        op.attempts = op.attempts.wrapping_add(1);
        op.unsent = false;
        op.sent_at = now;
        let mut header = MOSDOp::header();
        header.tid = tid;
        header.priority = op.priority;
        let message = OutMessage::deferred(header, op.message.clone());
        outputs.push_back(Output::Send { session: session.id, message });
    }

    /// After a map, a session or a backoff: whether it is made anew instead of sent again.
    pub(super) fn lose(&mut self, tid: u64) {
        let Some(op) = self.ops.get_mut(&tid) else { return };
        if op.then.is_lasting() {
            // An answer to what was sent before would not count.
            op.session = None;
            op.unsent = true;
            return;
        }
        if let Some(op) = self.remove(tid)
            && let Then::Register(linger) = op.then
            && let Some(linger) = self.lingers.get_mut(&linger)
        {
            linger.lose();
        }
    }

    pub(super) fn without_pool(&mut self, tid: u64) {
        let epoch = self.map.epoch;
        let Some(op) = self.ops.get_mut(&tid) else { return };
        op.session = None;
        op.unsent = true;
        match op.place.missing(epoch) {
            Missing::Certain => {
                let pool = op.pool;
                self.fail(tid, &OpError::NoSuchPool { pool });
            }
            Missing::WaitForMap => self.want_map(),
            Missing::AskForNewest => self.check_newest(Subject::Op(tid)),
        }
    }

    pub(super) fn pool_fails(&mut self, tid: u64) {
        if let Some(pool) = self.ops.get(&tid).map(|op| op.pool) {
            self.fail(tid, &OpError::PoolFails { pool });
        }
    }

    /// Gives an operation or a command up, and tells nobody: its future is gone.
    pub(crate) fn cancel(&mut self, tid: u64, now: Instant) {
        self.remove(tid);
        self.remove_command(tid);
        self.admit(now);
        self.check();
    }

    /// Its time has passed.
    pub(super) fn expire(&mut self, id: u64) {
        let timeout = match (self.ops.get(&id), self.commands.get(&id)) {
            (Some(op), _) => op.timeout,
            (_, Some(command)) => command.timeout,
            _ => None,
        };
        match timeout {
            Some((_, after)) => self.fail(id, &OpError::TimedOut { after }),
            None if self.expire_linger(id) => {}
            None => self.expire_waiter(id),
        }
    }

    /// Ends an operation or a command with an error.
    pub(super) fn fail(&mut self, id: u64, error: &OpError) {
        let sent_at = self.ops.get(&id).map(|op| op.sent_at);
        match sent_at {
            Some(at) => self.finish(id, Err(error.clone()), at),
            None => self.finish_command(id, Err(error.clone())),
        }
    }

    /// Ends an operation. What waited for it goes on with the next [`admit`](Self::admit).
    pub(super) fn finish(&mut self, tid: u64, result: Result<OpReply, OpError>, now: Instant) {
        if let Some(op) = self.remove(tid) {
            self.tell(op.then, result, now);
        }
    }

    fn tell(&mut self, then: Then, result: Result<OpReply, OpError>, now: Instant) {
        match then {
            Then::Reply(ticket) => self.done(Done::Op(ticket, result)),
            Then::Nobody => {}
            Then::Register(linger) => self.registered(linger, result, now),
            Then::Ping { linger, generation, sent } => {
                self.pinged(linger, generation, sent, result);
            }
        }
    }

    pub(super) fn remove(&mut self, tid: u64) -> Option<Box<OpState>> {
        let op = self.ops.remove(&tid)?;
        if op.is_budgeted() {
            self.inflight_ops -= 1;
            self.inflight_bytes -= op.bytes;
            self.throttles.put(op.bytes);
        }
        if op.queued {
            self.queued.remove(&tid);
        }
        if let Some((at, _)) = op.timeout {
            self.deadlines.remove(&(at, tid));
        }
        Some(op)
    }

    /// Submits it again under another number, as one that was never sent.
    pub(super) fn renumber(&mut self, tid: u64) -> Option<u64> {
        let mut op = self.ops.remove(&tid)?;
        let new = self.next_id();
        match &op.then {
            Then::Reply(ticket) => ticket.set_id(new),
            Then::Register(linger) => {
                if let Some(linger) = self.lingers.get_mut(linger) {
                    linger.register_tid = Some(new);
                }
            }
            Then::Ping { linger, .. } => self.set_ping(*linger, new),
            Then::Nobody => {}
        }
        if let Some((at, _)) = op.timeout
            && self.deadlines.remove(&(at, tid))
        {
            self.deadlines.insert((at, new));
        }
        op.session = None;
        op.unsent = true;
        op.attempts = 0;
        Arc::make_mut(&mut op.message).flags.0 &= !OsdFlags::RETRY.0;
        op.place.forget();
        self.ops.insert(new, op);
        Some(new)
    }
}
