//! One session with each OSD that something is under way with.

use siphon_messages::{MOSDBackoff, osd::BackoffOp};
use siphon_messages::{MPing, TypedMessage};
use siphon_wire::types::EntityAddrVec;
use std::time::Instant;

use super::{Core, Output};
use crate::backoff::Backoffs;

/// After so many sessions in a row that an OSD ended before it had said anything, the next one waits for a
/// tick.
const MAX_QUICK_RESETS: u8 = 5;

/// One session; another one with the same OSD has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    addrs: EntityAddrVec,
    pub(super) backoffs: Backoffs,
    /// The OSD has said something.
    pub(super) heard: bool,
    quick_resets: u8,
    /// It is opened again at the next tick.
    waiting: bool,
}

impl Session {
    /// Whether nothing can be sent, for it is not even being opened.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }
}

impl Core {
    /// Sees to it that there is a session with an OSD; `false` if it does not run.
    pub(super) fn open_session(&mut self, osd: i32) -> bool {
        if self.sessions.contains_key(&osd) {
            return true;
        }
        let Some(addrs) = self.map.client_addrs(osd).filter(|_| self.map.is_up(osd)) else {
            return false;
        };
        let addrs = addrs.clone();
        let id = self.next_session();
        self.outputs.push_back(Output::Open { session: id, addrs: addrs.clone() });
        let session = Session {
            id,
            addrs,
            backoffs: Backoffs::default(),
            heard: false,
            quick_resets: 0,
            waiting: false,
        };
        self.sessions.insert(osd, session);
        self.by_session.insert(id, osd);
        true
    }

    fn next_session(&mut self) -> SessionId {
        self.last_session += 1;
        SessionId(self.last_session)
    }

    /// The OSD of a session that is not over.
    pub(super) fn osd_of(&self, session: SessionId) -> Option<i32> {
        self.by_session.get(&session).copied()
    }

    /// A connection was lost: what was under way on it goes again over the next, in the order of its
    /// numbers.
    pub(crate) fn handle_reset(&mut self, session: SessionId, now: Instant) {
        let Some(osd) = self.osd_of(session) else { return };
        if self.is_idle(osd) {
            // Nobody waits for it: it is opened when it is needed.
            self.sessions.remove(&osd);
            self.by_session.remove(&session);
            self.check();
            return;
        }
        self.reopen(osd);
        self.want_map();
        self.flush(now);
        self.admit(now);
        self.check();
    }

    fn is_idle(&self, osd: i32) -> bool {
        self.ops.values().all(|op| op.session != Some(osd))
            && self.lingers.values().all(|linger| linger.session != Some(osd))
            && self.commands.values().all(|command| command.session != Some(osd))
    }

    fn reopen(&mut self, osd: i32) {
        let id = self.next_session();
        let Some(session) = self.sessions.get_mut(&osd) else { return };
        self.by_session.remove(&session.id);
        self.by_session.insert(id, osd);
        let resets = if session.heard { 0 } else { session.quick_resets.saturating_add(1) };
        session.id = id;
        session.backoffs.clear();
        session.heard = false;
        session.quick_resets = resets;
        session.waiting = resets >= MAX_QUICK_RESETS;
        if !session.waiting {
            let addrs = session.addrs.clone();
            self.outputs.push_back(Output::Open { session: id, addrs });
        }
        self.lose_all_of(osd);
    }

    /// At a tick: sessions that waited for it.
    pub(super) fn reopen_sessions(&mut self) {
        for session in self.sessions.values_mut().filter(|session| session.waiting) {
            session.waiting = false;
            let addrs = session.addrs.clone();
            self.outputs.push_back(Output::Open { session: session.id, addrs });
        }
    }

    /// After a map: sessions with OSDs that do not run any more, or run elsewhere, end.
    pub(super) fn close_sessions(&mut self) {
        let map = &self.map;
        let gone = |osd: i32, session: &Session| {
            !map.is_up(osd) || map.client_addrs(osd) != Some(&session.addrs)
        };
        let gone = self.sessions.iter().filter(|(osd, session)| gone(**osd, session));
        for osd in gone.map(|(osd, _)| *osd).collect::<Vec<_>>() {
            self.close_session(osd);
        }
    }

    fn close_session(&mut self, osd: i32) {
        let Some(session) = self.sessions.remove(&osd) else { return };
        self.by_session.remove(&session.id);
        self.outputs.push_back(Output::Close { session: session.id });
        self.lose_all_of(osd);
        for op in self.ops.values_mut().filter(|op| op.session == Some(osd)) {
            op.session = None;
        }
    }

    fn lose_all_of(&mut self, osd: i32) {
        let of = self.ops.iter().filter(|(_, op)| op.session == Some(osd));
        for tid in of.map(|(tid, _)| *tid).collect::<Vec<_>>() {
            self.lose(tid);
        }
        for linger in self.lingers.values_mut().filter(|linger| linger.session == Some(osd)) {
            linger.lose();
        }
        for command in self.commands.values_mut().filter(|command| command.session == Some(osd)) {
            command.lose();
        }
    }

    /// Sessions with operations that take long.
    pub(super) fn late_sessions(&self, now: Instant) -> std::collections::BTreeSet<i32> {
        let late = |at: Instant| now.saturating_duration_since(at) >= self.config.laggy;
        self.ops
            .values()
            .filter(|op| !op.queued && late(op.sent_at))
            .filter_map(|op| op.session)
            .collect()
    }

    /// Sends something, so that a connection that is dead is found to be.
    pub(super) fn ping_session(&mut self, osd: i32) {
        if let Some(session) = self.sessions.get(&osd).filter(|session| !session.waiting) {
            let message = MPing::question().into_out();
            self.outputs.push_back(Output::Send { session: session.id, message });
        }
    }

    /// An OSD wants requests held back, or not any more.
    pub(crate) fn handle_backoff(
        &mut self,
        session: SessionId,
        backoff: &MOSDBackoff,
        now: Instant,
    ) {
        let Some(osd) = self.osd_of(session) else { return };
        let Some(session) = self.sessions.get_mut(&osd) else { return };
        session.heard = true;
        match backoff.op {
            BackoffOp::BLOCK => {
                if !session.backoffs.block(backoff) {
                    tracing::warn!(osd, "an OSD holds too much back; its session begins anew");
                    self.outputs.push_back(Output::Close { session: session.id });
                    self.reopen(osd);
                    self.flush(now);
                    return;
                }
                let mut message = backoff.acknowledgement().into_out();
                // The same as the requests', so that it does not overtake any.
                message.header_mut().priority = self.config.priority;
                self.outputs.push_back(Output::Send { session: session.id, message });
                // The OSD has dropped what it got.
                let Self { ops, sessions, .. } = self;
                let Some(session) = sessions.get(&osd) else { return };
                for op in ops.values_mut().filter(|op| op.session == Some(osd)) {
                    if op.is_in(backoff.pgid)
                        && session.backoffs.holds(backoff.pgid, || op.object())
                    {
                        op.unsent = true;
                    }
                }
            }
            BackoffOp::UNBLOCK => {
                if !session.backoffs.unblock(backoff.id) {
                    tracing::warn!(
                        osd,
                        id = backoff.id,
                        "an OSD ended a backoff that there is not"
                    );
                }
                self.flush(now);
            }
            op => tracing::warn!(osd, %op, "an OSD sent a backoff that is not for clients"),
        }
        self.check();
    }
}
