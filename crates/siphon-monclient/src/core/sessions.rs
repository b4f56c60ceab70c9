//! Sessions with monitors: looking for one, choosing one, leaving one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use siphon_messages::mon::{MonInfo, MonMap};
use siphon_msgr::CloseReason;
use siphon_wire::types::{AddrType, ByteString, EntityAddrVec, EntityType};

use super::{Candidate, Core, Hunt, Open, Role, SessionId, State};
use crate::error::{MonError, Tried, denial};

/// A session that ends earlier has brought nothing.
const SHORT_SESSION: Duration = Duration::from_secs(1);
/// After so many of them in a row we wait before the next.
const MAX_SHORT_SESSIONS: u32 = 3;

impl<W> Core<W> {
    /// A connection is open, and we are let in.
    ///
    /// Whether it is a monitor's, and it is the one that is taken.
    pub(crate) fn handle_open(
        &mut self,
        session: SessionId,
        peer: &EntityAddrVec,
        now: Instant,
    ) -> bool {
        match self.sessions.get(&session) {
            Some(&Role::Tell(tid)) => self.transmit(tid, session),
            Some(Role::Manager) => self.manager.handle_open(),
            Some(Role::Monitor) => {}
            None => return false, // it is over
        }
        let State::Hunting(hunt) = &mut self.state else { return false };
        let Some(at) = hunt.pending.iter().position(|it| it.session == session) else {
            return false;
        };
        let chosen = hunt.pending.swap_remove(at);
        let others: Vec<_> = hunt.pending.iter().map(|candidate| candidate.session).collect();
        others.into_iter().for_each(|session| self.close(session));
        let addrs = if peer.is_empty() { chosen.addrs } else { peer.clone() };
        let name = self.name_at(&addrs).unwrap_or(chosen.name);
        tracing::debug!(mon = %name, %addrs, "found a monitor");
        self.state = State::Open(Open {
            session,
            name,
            addrs,
            since: now,
            keepalive_at: now + self.options.ping_interval,
            alive: now,
            renew_at: None,
        });
        self.had_session = true;
        self.hunter.un_back_off(&self.options);
        self.hunter.forget_failures();
        self.subs.forget_sent();
        self.send_subscriptions(now);
        self.ready(now);
        true
    }

    /// A keepalive was answered.
    pub(crate) fn handle_alive(&mut self, session: SessionId, now: Instant) {
        if let State::Open(open) = &mut self.state
            && open.session == session
        {
            open.alive = now;
        }
    }

    /// A link was lost, or could not be had; the connection goes on trying.
    pub(crate) fn handle_fault(&mut self, session: SessionId, reason: &CloseReason, now: Instant) {
        match self.sessions.get(&session) {
            Some(Role::Monitor) => self.candidate_failed(session, reason, now),
            Some(&Role::Tell(tid)) => self.tell_failed(tid, session, reason, now),
            Some(Role::Manager) => self.manager.handle_fault(reason),
            None => {}
        }
    }

    /// A connection has ended.
    pub(crate) fn handle_reset(&mut self, session: SessionId, reason: &CloseReason, now: Instant) {
        match self.sessions.remove(&session) {
            Some(Role::Monitor) => match &self.state {
                State::Open(open) if open.session == session => {
                    tracing::info!(mon = %open.name, %reason, "lost the monitor");
                    let (name, addrs) = (open.name.clone(), open.addrs.clone());
                    self.hunter.failed(&name, &addrs, Some(reason));
                    self.leave(now);
                }
                State::Hunting(_) => self.candidate_failed(session, reason, now),
                _ => {}
            },
            Some(Role::Tell(tid)) => self.tell_failed(tid, session, reason, now),
            Some(Role::Manager) => {
                self.manager.handle_reset(reason, now);
                self.unsend(session);
            }
            None => {}
        }
    }

    /// The tickets of this session cannot be renewed: another session brings others.
    pub(crate) fn renewal_failed(&mut self, session: SessionId, now: Instant) {
        if matches!(&self.state, State::Open(open) if open.session == session) {
            self.leave(now);
        }
    }

    /// Looks for a monitor: with others than those that were tried already, if there are any.
    pub(super) fn hunt(&mut self, now: Instant) {
        if let State::Hunting(hunt) = &mut self.state {
            let left = std::mem::take(&mut hunt.pending);
            for candidate in left {
                if !candidate.failed {
                    self.hunter.failed(&candidate.name, &candidate.addrs, None);
                }
                self.close(candidate.session);
            }
        }
        let mut batch = self.hunter.next_batch(&self.map, &self.options);
        if batch.is_empty() {
            self.hunter.start_over();
            batch = self.hunter.next_batch(&self.map, &self.options);
        }
        let until = now + self.hunter.interval(&self.options);
        let pending = batch.into_iter().map(|mon| self.try_monitor(mon)).collect();
        self.state = State::Hunting(Hunt { pending, until });
    }

    pub(super) fn try_monitor(&mut self, mon: MonInfo) -> Candidate {
        let session = self.open(EntityType::MON, mon.public_addrs.clone(), Role::Monitor);
        tracing::debug!(mon = %mon.name, addrs = %mon.public_addrs, "trying a monitor");
        let (name, addrs) = (mon.name, mon.public_addrs);
        Candidate { session, name, addrs, failed: false, denial: None }
    }

    pub(super) fn candidate_failed(
        &mut self,
        session: SessionId,
        reason: &CloseReason,
        now: Instant,
    ) {
        let had_session = self.had_session;
        let State::Hunting(hunt) = &mut self.state else { return };
        let Some(at) = hunt.pending.iter().position(|it| it.session == session) else { return };
        let candidate = &mut hunt.pending[at];
        tracing::debug!(mon = %candidate.name, %reason, "a monitor does not let us in");
        candidate.failed = true;
        self.hunter.failed(&candidate.name, &candidate.addrs, Some(reason));
        if let Some(error) = denial(reason) {
            let before = candidate.denial.as_ref().map_or(0, |(_, times)| *times);
            candidate.denial = Some((error.clone(), before + 1));
        }
        if hunt.pending.iter().any(|candidate| !candidate.failed) {
            return;
        }
        // A first no may be to a global id that is not given back: the next attempt asks for a new one.
        let enough = if had_session { 2 } else { 1 };
        let denied = hunt.pending.iter().find_map(|candidate| {
            let (error, times) = candidate.denial.as_ref()?;
            (*times >= enough).then(|| (candidate.name.clone(), error.clone()))
        });
        let more = self.hunter.next_batch(&self.map, &self.options);
        if !more.is_empty() {
            // Those that failed go on trying, beside these.
            let more: Vec<_> = more.into_iter().map(|mon| self.try_monitor(mon)).collect();
            let until = now + self.hunter.interval(&self.options);
            if let State::Hunting(hunt) = &mut self.state {
                hunt.pending.extend(more);
                hunt.until = until;
            }
        } else if let Some((name, source)) = denied {
            let mon = format!("mon.{name}");
            tracing::error!(%mon, error = %source, "no monitor lets us in");
            if !had_session {
                self.give_up();
            }
            self.fail_all(|_| MonError::Denied { mon: mon.clone(), source: source.clone() });
        }
    }

    /// Gives up the session, and looks for another: at once, unless sessions end as soon as they are
    /// open, one after the other.
    pub(super) fn leave(&mut self, now: Instant) {
        if let State::Open(open) = &self.state {
            let session = open.session;
            self.short_sessions = match now.saturating_duration_since(open.since) < SHORT_SESSION {
                true => self.short_sessions + 1,
                false => 0,
            };
            self.close(session);
            self.unsend(session);
        }
        self.state = State::Idle;
        self.hunter.back_off(&self.options);
        self.hunter.start_over();
        if self.short_sessions < MAX_SHORT_SESSIONS {
            return self.hunt(now);
        }
        tracing::warn!("sessions with monitors end as soon as they are open: waiting for a while");
        self.short_sessions = 0;
        let until = now + self.hunter.interval(&self.options);
        self.state = State::Hunting(Hunt { pending: Vec::new(), until });
    }

    /// No more looking for monitors, until somebody asks again.
    pub(super) fn give_up(&mut self) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Hunting(hunt) => {
                hunt.pending.iter().for_each(|candidate| self.close(candidate.session));
            }
            State::Open(open) => self.close(open.session),
            State::Idle | State::Ended => {}
        }
        self.hunter.start_over();
    }

    /// What became of the monitors that were tried, and who has not answered.
    pub(super) fn tried(&self) -> Vec<Tried> {
        let mut tried = self.hunter.failures();
        if let State::Hunting(hunt) = &self.state {
            let silent = hunt.pending.iter().filter(|candidate| !candidate.failed);
            tried.extend(silent.map(|candidate| Tried {
                name: format!("mon.{}", candidate.name),
                addrs: candidate.addrs.clone(),
                reason: None,
            }));
        }
        let mut seen = BTreeSet::new();
        tried.retain(|tried| seen.insert(tried.name.clone()));
        tried
    }

    pub(super) fn handle_map(&mut self, map: MonMap, now: Instant) {
        let State::Open(open) = &self.state else { return };
        let (name, addrs) = (open.name.clone(), open.addrs.clone());
        let expected = self.expected_fsid.or_else(|| self.fsid());
        if let Some(expected) = expected.filter(|fsid| *fsid != map.fsid) {
            let (mon, found) = (format!("mon.{name}"), map.fsid);
            tracing::error!(%mon, %found, %expected, "a monitor of another cluster");
            if !self.knows_map {
                self.give_up();
                return self.fail_all(|_| MonError::WrongFsid {
                    mon: mon.clone(),
                    expected,
                    found,
                });
            }
            return self.leave(now);
        }
        if self.knows_map && map.epoch < self.map.epoch {
            return; // of a monitor that is behind
        }
        if map.mons.is_empty() {
            tracing::error!(mon = %name, "a map without monitors is passed over");
            return;
        }
        if map.epoch != self.map.epoch {
            self.hunter.start_over();
        }
        self.subs.got(b"monmap", u64::from(map.epoch.0));
        self.map = map;
        let was_known = std::mem::replace(&mut self.knows_map, true);
        let Some(name) = self.name_at(&addrs) else {
            tracing::info!(%addrs, "our monitor is not in the map any more");
            return self.leave(now);
        };
        let has_v2 = self.map.mons.get(&name).is_some_and(|mon| mon.public_addrs.msgr2().is_some());
        if has_v2 && addrs.msgr2().is_none() {
            tracing::info!(mon = %name, "the monitor has an address of msgr2");
            return self.leave(now);
        }
        if let State::Open(open) = &mut self.state {
            open.name = name;
        }
        if !was_known {
            self.ready(now);
        }
    }

    /// The monitor's name in the map.
    pub(super) fn name_at(&self, addrs: &EntityAddrVec) -> Option<ByteString> {
        let same = |mon: &&MonInfo| {
            let known = mon.public_addrs.iter();
            known.filter(|addr| addr.kind() != AddrType::NONE).any(|addr| addrs.contains(addr))
        };
        self.map.mons.values().find(same).map(|mon| mon.name.clone())
    }
}
