//! What lasts: watches, and notifications until all have answered.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use siphon_messages::osd::{OsdFlags, OsdOp, OsdOpCode, WatchEventKind, WatchOp};
use siphon_messages::{MOSDOp, MWatchNotify};
use siphon_osdmap::MapFlags;
use siphon_wire::types::{Epoch, Errno};

use super::{
    Core, Done, NotifyTicket, SessionId, Subject, TIMEOUT_FOR_NOBODY, Then, WatchTicket, view,
};
use crate::error::BadReply;
use crate::placement::{Aim, Missing, Placement, Recalc};
use crate::watch::{Notification, NotifyReply, WatchEvent, WatchQueue};
use crate::{Op, OpError, OpReply};

pub(super) struct Linger {
    /// The request that begins it.
    request: MOSDOp,
    pool: i64,
    place: Placement,
    pub(super) session: Option<i32>,
    /// It is to be begun, for the first time or again.
    unsent: bool,
    /// The operation that begins it, while that is under way.
    pub(super) register_tid: Option<u64>,
    /// Until when a watch has to have begun, or a notification to be over, and how long that is.
    timeout: Option<(Instant, Duration)>,
    kind: Kind,
}

enum Kind {
    Watch(Watch),
    Notify {
        ticket: NotifyTicket,
        /// The OSD's number of it, once it is known.
        notify_id: Option<u64>,
    },
}

struct Watch {
    queue: WatchQueue,
    /// Who waits for it to begin, until it has.
    ticket: Option<WatchTicket>,
    /// How often it was renewed.
    generation: u32,
    timeout: u32,
    /// Since when the OSD is known to have had it.
    confirmed: Instant,
    /// It is lost, and not renewed any more.
    lost: Option<OpError>,
    /// The operation that last asked for it; another asks when that has ended.
    ping_tid: Option<u64>,
}

impl Linger {
    /// A session or an interval is over: it begins anew.
    pub(super) fn lose(&mut self) {
        self.session = None;
        self.unsent = true;
    }

    fn is_lost(&self) -> bool {
        matches!(&self.kind, Kind::Watch(watch) if watch.lost.is_some())
    }
}

impl Core {
    /// Begins to watch an object, with what `op` does before that; returns the client's number of the
    /// watch. `timeout` is in seconds.
    pub(crate) fn watch(
        &mut self,
        op: Op,
        timeout: u32,
        queue: WatchQueue,
        ticket: WatchTicket,
        now: Instant,
    ) -> u64 {
        let cookie = self.next_id();
        let kind = Kind::Watch(Watch {
            queue,
            ticket: Some(ticket),
            generation: 0,
            timeout,
            confirmed: now,
            lost: None,
            ping_tid: None,
        });
        let begin = OsdOp::watch(cookie, WatchOp::WATCH, 0, timeout);
        let flags = OsdFlags::READ | OsdFlags::WRITE;
        self.add_linger(cookie, op, begin, flags, kind, Duration::ZERO, now);
        cookie
    }

    /// Notifies those who watch an object; returns the client's number of the notification. `timeout` is
    /// in seconds.
    pub(crate) fn notify(
        &mut self,
        op: Op,
        payload: &bytes::Bytes,
        timeout: u32,
        ticket: NotifyTicket,
        now: Instant,
    ) -> u64 {
        let cookie = self.next_id();
        let kind = Kind::Notify { ticket, notify_id: None };
        let begin = OsdOp::notify(cookie, timeout, payload);
        let answers = Duration::from_secs(timeout.into());
        self.add_linger(cookie, op, begin, OsdFlags::READ, kind, answers, now);
        cookie
    }

    /// `answers` is how long it goes on once it has begun.
    #[expect(clippy::too_many_arguments, reason = "two callers, which differ in each of them")]
    fn add_linger(
        &mut self,
        cookie: u64,
        mut op: Op,
        begin: OsdOp,
        flags: OsdFlags,
        kind: Kind,
        answers: Duration,
        now: Instant,
    ) {
        let pool = op.target.pool;
        let after = op.timeout.or(self.config.timeout).map(|after| after.saturating_add(answers));
        let timeout = after.and_then(|after| Some((now.checked_add(after)?, after)));
        op.ops.push(begin);
        op.flags |= flags;
        // A message that nobody takes would end its session again and again.
        let refused = self.acceptable(&op).err();
        let linger = Linger {
            request: op.into_message(0),
            pool,
            place: Placement::default(),
            session: None,
            unsent: true,
            register_tid: None,
            timeout,
            kind,
        };
        self.lingers.insert(cookie, linger);
        if let Some((at, _)) = timeout {
            self.deadlines.insert((at, cookie));
        }
        if let Some(error) = refused {
            self.fail_linger(cookie, error);
            return;
        }
        self.keep_ticking(now);
        if let Some(recalc) = self.look_up_linger(cookie) {
            self.judge_linger(cookie, recalc);
        }
        self.send_linger(cookie, now);
        self.want_map_if_homeless(cookie);
        self.admit(now);
        self.check();
    }

    fn want_map_if_homeless(&mut self, cookie: u64) {
        if self.lingers.get(&cookie).is_some_and(|linger| linger.unsent) {
            self.want_map();
        }
    }

    /// Forgets a watch or a notification, and tells nobody but the OSD that may have begun a watch.
    pub(crate) fn forget_linger(&mut self, cookie: u64, now: Instant) {
        if let Some(linger) = self.lingers.remove(&cookie) {
            self.remove_own(cookie, &linger);
            let beginning = matches!(&linger.kind, Kind::Watch(watch) if watch.ticket.is_some());
            if beginning && linger.register_tid.is_some() {
                let Linger { mut request, pool, .. } = linger;
                request.ops = vec![OsdOp::watch(cookie, WatchOp::UNWATCH, 0, 0)];
                let priority = self.config.priority;
                let tid = self.add(Arc::new(request), pool, 0, priority, Then::Nobody, now);
                self.limit(tid, TIMEOUT_FOR_NOBODY, now);
                self.queued.insert(tid);
            }
        }
        self.admit(now);
        self.check();
    }

    /// Takes back what is under way for a watch or a notification.
    fn remove_own(&mut self, cookie: u64, linger: &Linger) {
        if let Some((at, _)) = linger.timeout {
            self.deadlines.remove(&(at, cookie));
        }
        let ping = match &linger.kind {
            Kind::Watch(watch) => watch.ping_tid,
            Kind::Notify { .. } => None,
        };
        for tid in linger.register_tid.into_iter().chain(ping) {
            self.remove(tid);
        }
    }

    /// A watch has not begun, or a notification is not over, in time; false if there is none such.
    pub(super) fn expire_linger(&mut self, cookie: u64) -> bool {
        let Some(Linger { timeout: Some((_, after)), .. }) = self.lingers.get(&cookie) else {
            return false;
        };
        let error = OpError::TimedOut { after: *after };
        self.fail_linger(cookie, error);
        true
    }

    /// How long ago the OSD last confirmed a watch.
    pub(crate) fn check_watch(
        &self,
        cookie: u64,
        now: Instant,
    ) -> Result<std::time::Duration, OpError> {
        match self.lingers.get(&cookie).map(|linger| &linger.kind) {
            Some(Kind::Watch(watch)) => match &watch.lost {
                None => Ok(now.saturating_duration_since(watch.confirmed)),
                Some(error) => Err(error.clone()),
            },
            _ => Err(OpError::WatchLost { errno: Errno::ENOTCONN }),
        }
    }

    fn look_up_linger(&mut self, cookie: u64) -> Option<Recalc> {
        let Self { lingers, map, cache, config, .. } = self;
        let linger = lingers.get_mut(&cookie)?;
        let aim = Aim {
            pool: linger.pool,
            oid: &linger.request.oid,
            locator: &linger.request.locator,
            flags: linger.request.flags,
            lasting: true,
        };
        Some(linger.place.recalc(aim, &mut view(map, cache, config)))
    }

    fn judge_linger(&mut self, cookie: u64, recalc: Recalc) {
        match recalc {
            Recalc::Same => {}
            Recalc::Resend => {
                if let Some(linger) = self.lingers.get_mut(&cookie) {
                    linger.lose();
                }
            }
            Recalc::NoPool => self.linger_without_pool(cookie, None),
            Recalc::PoolEio => {
                if let Some(pool) = self.lingers.get(&cookie).map(|linger| linger.pool) {
                    self.fail_linger(cookie, OpError::PoolFails { pool });
                }
            }
        }
    }

    /// After a map.
    pub(super) fn look_up_lingers(&mut self, skipped: bool) {
        let cookies: Vec<u64> = self.lingers.keys().copied().collect();
        for cookie in cookies {
            match self.look_up_linger(cookie) {
                Some(Recalc::Same) if skipped => self.judge_linger(cookie, Recalc::Resend),
                Some(recalc) => self.judge_linger(cookie, recalc),
                None => {}
            }
        }
    }

    pub(super) fn linger_without_pool(&mut self, cookie: u64, newest: Option<Epoch>) {
        let epoch = self.map.epoch;
        let Some(linger) = self.lingers.get_mut(&cookie) else { return };
        if linger.place.osd.is_some() {
            return; // it has come meanwhile
        }
        if let Some(newest) = newest {
            linger.place.gone_by.get_or_insert(newest);
        }
        linger.lose();
        match linger.place.missing(epoch) {
            Missing::Certain => {
                let pool = linger.pool;
                self.fail_linger(cookie, OpError::NoSuchPool { pool });
            }
            Missing::WaitForMap => self.want_map(),
            Missing::AskForNewest => self.check_newest(Subject::Linger(cookie)),
        }
    }

    pub(super) fn flush_lingers(&mut self, now: Instant) {
        let unsent = self.lingers.iter().filter(|(_, linger)| linger.unsent);
        for cookie in unsent.map(|(cookie, _)| *cookie).collect::<Vec<_>>() {
            self.send_linger(cookie, now);
        }
    }

    /// Begins a watch or a notification, if it is to be begun and can be.
    fn send_linger(&mut self, cookie: u64, now: Instant) {
        let Some(linger) = self.lingers.get_mut(&cookie) else { return };
        if !linger.unsent || linger.is_lost() || linger.place.paused {
            return;
        }
        let Some(osd) = linger.place.osd else { return };
        if let Some(tid) = linger.register_tid.take() {
            self.remove(tid);
        }
        if !self.open_session(osd) {
            return;
        }
        let Some(linger) = self.lingers.get_mut(&cookie) else { return };
        linger.unsent = false;
        linger.session = Some(osd);
        let mut request = linger.request.clone();
        match &mut linger.kind {
            Kind::Watch(watch) if watch.ticket.is_none() => {
                watch.generation = watch.generation.wrapping_add(1);
                let (generation, timeout) = (watch.generation, watch.timeout);
                request.ops = vec![OsdOp::watch(cookie, WatchOp::RECONNECT, generation, timeout)];
            }
            Kind::Watch(_) => {}
            Kind::Notify { notify_id, .. } => *notify_id = None,
        }
        let pool = linger.pool;
        let tid = self.submit_own(request, pool, Then::Register(cookie), now);
        if self.ops.contains_key(&tid)
            && let Some(linger) = self.lingers.get_mut(&cookie)
        {
            linger.register_tid = Some(tid);
        }
    }

    /// What began or renewed a watch or a notification was answered.
    pub(super) fn registered(
        &mut self,
        cookie: u64,
        result: Result<OpReply, OpError>,
        now: Instant,
    ) {
        let Some(linger) = self.lingers.get_mut(&cookie) else { return };
        linger.register_tid = None;
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => {
                self.fail_linger(cookie, error);
                return;
            }
        };
        match &mut linger.kind {
            Kind::Watch(watch) => {
                watch.confirmed = now;
                if let Some((at, _)) = linger.timeout.take() {
                    self.deadlines.remove(&(at, cookie));
                }
                if let Some(ticket) = watch.ticket.take() {
                    self.done(Done::Watch(ticket, Ok(())));
                }
            }
            Kind::Notify { notify_id, .. } => {
                let answer = reply.ops.iter().find(|op| op.code == OsdOpCode::NOTIFY);
                let bytes = answer.map(|op| op.data.to_bytes()).unwrap_or_default();
                match bytes.first_chunk() {
                    Some(id) => *notify_id = Some(u64::from_le_bytes(*id)),
                    None => {
                        let bad = BadReply::Content("it does not number the notification");
                        self.fail_linger(cookie, bad.into());
                    }
                }
            }
        }
    }

    /// A watch that has begun is lost, and stays until it is given up; anything else ends.
    pub(super) fn fail_linger(&mut self, cookie: u64, error: OpError) {
        let Some(linger) = self.lingers.get_mut(&cookie) else { return };
        if let Kind::Watch(watch) = &mut linger.kind
            && watch.ticket.is_none()
        {
            if watch.lost.is_none() {
                let error = lost(error);
                watch.lost = Some(error.clone());
                let queue = watch.queue.clone();
                self.done(Done::Event(queue, WatchEvent::Lost(error)));
            }
            return;
        }
        let Some(linger) = self.lingers.remove(&cookie) else { return };
        self.remove_own(cookie, &linger);
        match linger.kind {
            Kind::Watch(Watch { ticket: Some(ticket), .. }) => {
                self.done(Done::Watch(ticket, Err(error)));
            }
            Kind::Watch(_) => {}
            Kind::Notify { ticket, .. } => self.done(Done::Notify(ticket, Err(error))),
        }
    }

    /// Asks whether watches are still there; returns the OSDs that have any.
    pub(super) fn ping_lingers(&mut self, now: Instant) -> BTreeSet<i32> {
        let paused = self.map.flags.contains(MapFlags::PAUSERD);
        let mut pings = Vec::new();
        let mut osds = BTreeSet::new();
        for (&cookie, linger) in &self.lingers {
            osds.extend(linger.session);
            let Kind::Watch(watch) = &linger.kind else { continue };
            let begun = watch.ticket.is_none() && linger.register_tid.is_none() && !linger.unsent;
            let asked = watch.ping_tid.is_some_and(|tid| self.ops.contains_key(&tid));
            if begun && watch.lost.is_none() && !paused && !asked {
                let mut request = linger.request.clone();
                request.ops = vec![OsdOp::watch(cookie, WatchOp::PING, watch.generation, 0)];
                pings.push((request, linger.pool, cookie, watch.generation));
            }
        }
        for (request, pool, linger, generation) in pings {
            let then = Then::Ping { linger, generation, sent: now };
            let tid = self.submit_own(request, pool, then, now);
            self.set_ping(linger, tid);
        }
        osds
    }

    /// The operation that asks for a watch has this number.
    pub(super) fn set_ping(&mut self, cookie: u64, tid: u64) {
        if let Some(Linger { kind: Kind::Watch(watch), .. }) = self.lingers.get_mut(&cookie) {
            watch.ping_tid = Some(tid);
        }
    }

    pub(super) fn pinged(
        &mut self,
        cookie: u64,
        generation: u32,
        sent: Instant,
        result: Result<OpReply, OpError>,
    ) {
        let Some(linger) = self.lingers.get_mut(&cookie) else { return };
        let Kind::Watch(watch) = &mut linger.kind else { return };
        if watch.generation != generation {
            return; // it was renewed meanwhile
        }
        match result {
            Ok(_) => watch.confirmed = watch.confirmed.max(sent),
            Err(error) => self.fail_linger(cookie, error),
        }
    }

    /// An OSD tells something of a watch or a notification.
    pub(crate) fn handle_watch_notify(&mut self, session: SessionId, event: MWatchNotify) {
        let Some(osd) = self.osd_of(session) else { return };
        if let Some(session) = self.sessions.get_mut(&osd) {
            session.heard = true;
        }
        let cookie = event.cookie;
        let Some(linger) = self.lingers.get_mut(&cookie) else { return };
        // An OSD that had it before may say that it ends there.
        let has_it = linger.session == Some(osd);
        // Where none has it for the moment, the one that had it may have finished it.
        let may_complete = has_it || linger.session.is_none();
        match (event.kind, &mut linger.kind) {
            (WatchEventKind::DISCONNECT, _) if has_it => {
                self.fail_linger(cookie, OpError::WatchLost { errno: Errno::ENOTCONN });
            }
            (WatchEventKind::NOTIFY, Kind::Watch(watch)) if watch.lost.is_none() => {
                let notification = Notification {
                    notify_id: event.notify_id,
                    cookie,
                    notifier: event.notifier_gid,
                    payload: event.payload,
                };
                let queue = watch.queue.clone();
                self.done(Done::Event(queue, WatchEvent::Notify(notification)));
            }
            (WatchEventKind::NOTIFY_COMPLETE, Kind::Notify { notify_id, .. })
                if may_complete && notify_id.is_none_or(|id| id == event.notify_id) =>
            {
                self.notify_complete(cookie, &event);
            }
            (kind, _) => tracing::debug!(osd, cookie, %kind, "an OSD's event is not for anyone"),
        }
        self.check();
    }

    fn notify_complete(&mut self, cookie: u64, event: &MWatchNotify) {
        let Some(linger) = self.lingers.remove(&cookie) else { return };
        self.remove_own(cookie, &linger);
        if let Kind::Notify { ticket, .. } = linger.kind {
            self.done(Done::Notify(ticket, NotifyReply::read(event)));
        }
    }
}

/// What ends a watch: where the OSD does not know it any more, or its object is gone, it was cut off.
fn lost(error: OpError) -> OpError {
    match error {
        OpError::Refused(reply) => match Errno::of_result(reply.result) {
            Some(Errno::ENOENT) | None => OpError::WatchLost { errno: Errno::ENOTCONN },
            Some(errno) => OpError::WatchLost { errno },
        },
        other => other,
    }
}
