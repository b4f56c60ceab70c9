//! Questions: what is sent when, and which message answers what.

use std::time::Instant;

use siphon_messages::{
    MConfig, MMgrMap, MMonGetVersionReply, MMonMap, MMonSubscribeAck, TypedMessage, msg_type,
};
use siphon_msgr::{CloseReason, SendError};
use siphon_proto::Message;
use siphon_wire::types::{ByteString, EntityAddrVec, EntityType};

use super::request::{self, Request};
use super::{Action, Answer, Core, MonTarget, Question, Role, Route, SessionId, State, Taken};
use crate::error::{MonError, Tried, denial};

impl<W> Core<W> {
    /// What was to be sent was not taken.
    pub(crate) fn handle_unsendable(&mut self, tid: u64, source: SendError) {
        // One that has ended says so by a reset.
        if let SendError::TooLong(_) | SendError::Full(_) = source
            && let Some(request) = self.remove(tid)
        {
            self.close_tell(&request);
            let what = request.question.to_string();
            self.done(request.waiter, Err(MonError::Unsendable { what, source }));
        }
    }

    /// A message that arrived on one of our connections.
    pub(crate) fn handle_message(
        &mut self,
        session: SessionId,
        message: &Message,
        now: Instant,
    ) -> Taken {
        let Some(role) = self.sessions.get(&session).copied() else { return Taken::Yes };
        let current = matches!(&self.state, State::Open(open) if open.session == session);
        let msg_type = message.header.msg_type;
        match (role, msg_type) {
            (Role::Monitor, msg_type::CEPH_MSG_AUTH_REPLY) if current => return Taken::Tickets,
            (Role::Monitor, _) if !current => {} // a monitor that others were preferred to
            (Role::Monitor, MMonMap::TYPE) => {
                self.read(session, message, |core, map: MMonMap| core.handle_map(map.monmap, now));
            }
            (Role::Monitor, MMonSubscribeAck::TYPE) => {
                self.read(session, message, |core, ack| core.subs.handle_ack(&ack));
            }
            (Role::Monitor, MConfig::TYPE) => {
                self.read(session, message, |core, config: MConfig| {
                    core.config = config.config;
                    core.actions.push_back(Action::Configure(core.config.clone()));
                });
            }
            (Role::Monitor, MMgrMap::TYPE) => {
                self.read(session, message, |core, map: MMgrMap| core.handle_mgr_map(map, now));
            }
            _ => return self.handle_answer(session, message, role),
        }
        Taken::Yes
    }

    /// The answer to a question, if it is one.
    pub(super) fn handle_answer(
        &mut self,
        session: SessionId,
        message: &Message,
        role: Role,
    ) -> Taken {
        let tid = match (role, message.header.msg_type) {
            (Role::Tell(tid), _) => tid,
            (_, MMonGetVersionReply::TYPE) => {
                MMonGetVersionReply::from_message(message).map_or(0, |reply| reply.handle)
            }
            _ => message.header.tid,
        };
        let known = self.requests.get(&tid).filter(|request| request.sent == Some(session));
        let Some(answer) = known.and_then(|request| request.question.read(message)) else {
            let ours = request::is_command_reply(message.header.msg_type)
                || message.header.msg_type == MMonGetVersionReply::TYPE
                || matches!(role, Role::Tell(_));
            return if ours { Taken::Yes } else { Taken::No };
        };
        if let Some(request) = self.remove(tid) {
            let from = self.name_of(session, &request.route);
            self.close_tell(&request);
            let answer = answer.map_err(|source| MonError::Malformed { from, source });
            self.done(request.waiter, answer);
        }
        Taken::Yes
    }

    /// Reads a message for a handler; who sends one that cannot be read is left for another.
    pub(super) fn read<M: TypedMessage>(
        &mut self,
        session: SessionId,
        message: &Message,
        handle: impl FnOnce(&mut Self, M),
    ) {
        match M::from_message(message) {
            Ok(typed) => handle(self, typed),
            Err(error) => tracing::error!(%error, ?session, "a monitor's message is passed over"),
        }
    }

    pub(super) fn handle_mgr_map(&mut self, map: MMgrMap, now: Instant) {
        self.subs.got(b"mgrmap", u64::from(map.map.epoch.0));
        if let Some(session) = self.manager.handle_map(map.map) {
            self.close(session);
            self.unsend(session);
        }
        self.drive_manager(now);
    }

    /// Connects to the manager if somebody waits for it, and sends what waits.
    pub(super) fn drive_manager(&mut self, now: Instant) {
        let to_manager = |request: &Request<W>| matches!(request.route, Route::Manager { .. });
        let waiting: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, request)| to_manager(request) && request.sent.is_none())
            .map(|(tid, _)| *tid)
            .collect();
        if waiting.is_empty() || !self.knows_map {
            return;
        }
        self.want_manager(now);
        if let Some(addrs) = self.manager.target() {
            let session = self.open(EntityType::MGR, addrs, Role::Manager);
            self.manager.opened(session);
        }
        if let Some(session) = self.manager.session() {
            waiting.into_iter().for_each(|tid| self.transmit(tid, session));
        }
    }

    /// There is a session, and it is known of which cluster: what waits for that goes on.
    pub(super) fn ready(&mut self, now: Instant) {
        if !self.knows_map {
            return;
        }
        let tids: Vec<_> = self.requests.keys().copied().collect();
        tids.into_iter().for_each(|tid| self.send_request(tid, now));
    }

    pub(super) fn send_request(&mut self, tid: u64, now: Instant) {
        let Some(request) = self.requests.get(&tid) else { return };
        if request.sent.is_some() || !self.knows_map {
            return;
        }
        match (&request.question, &request.route) {
            (_, Route::Monitor(_)) => self.tell(tid),
            (_, Route::Manager { .. }) => self.drive_manager(now),
            (question, Route::Monitors) => {
                let State::Open(open) = &self.state else { return };
                let session = open.session;
                if !matches!(question, Question::Session) {
                    return self.transmit(tid, session);
                }
                if let Some(request) = self.remove(tid) {
                    self.done(request.waiter, Ok(Answer::Session));
                }
            }
        }
    }

    pub(super) fn transmit(&mut self, tid: u64, session: SessionId) {
        let octopus = self.manager.is_octopus();
        let Some(request) = self.requests.get_mut(&tid) else { return };
        let message = request.question.message(tid, &request.route, &self.map, octopus);
        request.sent = Some(session);
        let message = message.map(|message| Action::Send { session, message });
        self.actions.extend(message);
    }

    /// Asks one monitor, over a connection of its own.
    pub(super) fn tell(&mut self, tid: u64) {
        let Some(request) = self.requests.get(&tid) else { return };
        let Route::Monitor(target) = &request.route else { return };
        let found = match target {
            MonTarget::Name(name) => self.map.mons.get(&ByteString::from(name.as_str())),
            MonTarget::Rank(rank) => {
                self.map.by_rank().find(|(n, _)| n == rank).map(|(_, mon)| mon)
            }
        };
        let Some(addrs) = found.map(|mon| mon.public_addrs.clone()) else {
            let name = target.to_string();
            let known: Vec<_> =
                self.map.by_rank().map(|(_, mon)| format!("mon.{}", mon.name)).collect();
            let known = known.join(", ");
            if let Some(request) = self.remove(tid) {
                self.done(request.waiter, Err(MonError::NoSuchMonitor { name, known }));
            }
            return;
        };
        let session = self.open(EntityType::MON, addrs, Role::Tell(tid));
        // What is asked goes when that is open: over msgr1 a monitor wants to know first who asks.
        if let Some(request) = self.requests.get_mut(&tid) {
            request.sent = Some(session);
        }
    }

    pub(super) fn tell_failed(
        &mut self,
        tid: u64,
        session: SessionId,
        reason: &CloseReason,
        now: Instant,
    ) {
        let most = self.options.tell_attempts;
        let Some(request) = self.requests.get_mut(&tid) else { return };
        if request.sent != Some(session) {
            return;
        }
        request.attempts += 1;
        request.failure = Some(reason.clone());
        let ended = !self.sessions.contains_key(&session);
        let denied = denial(reason).cloned();
        if request.attempts < most && denied.is_none() {
            // A connection that goes on takes along what waits on it.
            if ended {
                request.sent = None;
                self.send_request(tid, now);
            }
            return;
        }
        let Some(request) = self.remove(tid) else { return };
        self.close_tell(&request);
        let mon = self.name_of(session, &request.route);
        let error = match denied {
            Some(source) => MonError::Denied { mon, source },
            None => MonError::Unreachable(Tried {
                name: mon,
                addrs: self.addrs_of(&request.route),
                reason: Some(reason.clone()),
            }),
        };
        self.done(request.waiter, Err(error));
    }

    /// What went out on a session that is no more goes again.
    pub(super) fn unsend(&mut self, session: SessionId) {
        for request in self.requests.values_mut() {
            if request.sent == Some(session) {
                request.sent = None;
            }
        }
    }

    pub(super) fn send_subscriptions(&mut self, now: Instant) {
        let State::Open(open) = &self.state else { return };
        let session = open.session;
        if let Some(message) = self.subs.take_unsent(now) {
            self.actions.push_back(Action::Send { session, message: message.into_out() });
        }
    }

    pub(super) fn handle_deadline(&mut self, tid: u64, now: Instant) {
        let Some(request) = self.requests.remove(&tid) else { return };
        self.close_tell(&request);
        let after = request.deadline.unwrap_or(now).saturating_duration_since(request.asked);
        let what = request.question.to_string();
        let error = match (&request.route, request.sent) {
            (_, None) if !matches!(self.state, State::Open(_)) => {
                MonError::NoMonitor { after, tried: self.tried() }
            }
            (Route::Manager { .. }, _) if self.manager.is_out_of_reach() => {
                MonError::NoManager { what, after, tried: self.manager.tried() }
            }
            (_, Some(session)) => {
                MonError::TimedOut { what, from: self.name_of(session, &request.route), after }
            }
            // There is a session that has not told its map.
            (_, None) => {
                MonError::TimedOut { what, from: self.monitor().unwrap_or_default(), after }
            }
        };
        self.done(request.waiter, Err(error));
    }

    pub(super) fn close_tell(&mut self, request: &Request<W>) {
        if let (Route::Monitor(_), Some(session)) = (&request.route, request.sent) {
            self.close(session);
        }
    }

    /// Whom a question went to, for errors.
    pub(super) fn name_of(&self, session: SessionId, route: &Route) -> String {
        match (route, &self.state) {
            (Route::Monitor(target), _) => match target {
                MonTarget::Name(_) => target.to_string(),
                MonTarget::Rank(rank) => format!("the monitor of rank {rank}"),
            },
            (Route::Manager { .. }, _) => {
                let active = self.manager.map.as_ref().map(|map| map.active_name.to_string());
                format!("mgr.{}", active.unwrap_or_default())
            }
            (Route::Monitors, State::Open(open)) if open.session == session => {
                format!("mon.{}", open.name)
            }
            (Route::Monitors, _) => "the monitors".to_owned(),
        }
    }

    pub(super) fn addrs_of(&self, route: &Route) -> EntityAddrVec {
        let mon = match route {
            Route::Monitor(MonTarget::Name(name)) => {
                self.map.mons.get(&ByteString::from(name.as_str()))
            }
            Route::Monitor(MonTarget::Rank(rank)) => {
                self.map.by_rank().find(|(n, _)| n == rank).map(|(_, mon)| mon)
            }
            _ => None,
        };
        mon.map(|mon| mon.public_addrs.clone()).unwrap_or_default()
    }
}
