//! The monitor client without IO: which monitors to ask, what to send and what an answer is for.

mod asking;
mod hunt;
#[cfg(test)]
mod lying;
mod manager;
mod request;
mod sessions;
mod subs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use siphon_auth::AuthError;
use siphon_common::Config;
use siphon_messages::SubscribeItem;
use siphon_messages::mon::{MgrMap, MonMap};
use siphon_proto::OutMessage;
use siphon_wire::types::{ByteString, EntityAddrVec, EntityType, Uuid};

use self::hunt::Hunter;
use self::manager::Manager;
use self::request::Request;
use self::subs::Subscriptions;
use crate::error::MonError;

pub use self::request::MonTarget;
pub(crate) use self::request::{Answer, Question, Route};

/// Questions that may wait for their answers at once.
pub(crate) const MAX_QUESTIONS: usize = 65536;
/// Maps that may be subscribed to at once: Ceph has about a dozen.
const MAX_SUBSCRIPTIONS: usize = 256;
/// No time of the options is taken to be shorter, so that none makes us spin.
const SHORTEST: Duration = Duration::from_millis(10);
/// After that time without an answer, tickets are asked for once more.
const RENEWAL_RETRY: Duration = Duration::from_secs(5);

/// A connection of ours, by a number that is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(u64);

/// The options that count here.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    hunt_parallel: usize,
    hunt_interval: Duration,
    hunt_backoff: f64,
    hunt_min_multiple: f64,
    hunt_max_multiple: f64,
    ping_interval: Duration,
    /// None if silence is not looked at.
    ping_timeout: Option<Duration>,
    tell_attempts: u32,
}

impl Options {
    pub(crate) fn new(config: &Config) -> Self {
        let timeout = config.mon_client_ping_timeout;
        Self {
            hunt_parallel: usize::try_from(config.mon_client_hunt_parallel).unwrap_or(usize::MAX),
            hunt_interval: config.mon_client_hunt_interval.max(SHORTEST),
            hunt_backoff: config.mon_client_hunt_interval_backoff,
            hunt_min_multiple: config.mon_client_hunt_interval_min_multiple,
            hunt_max_multiple: config.mon_client_hunt_interval_max_multiple,
            ping_interval: config.mon_client_ping_interval.max(SHORTEST),
            ping_timeout: (!timeout.is_zero()).then(|| timeout.max(SHORTEST)),
            tell_attempts: config.mon_client_directed_command_retry,
        }
    }
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Action<W> {
    /// Make a connection.
    Open { session: SessionId, kind: EntityType, addrs: EntityAddrVec },
    /// End it.
    Close(SessionId),
    /// Send a message.
    Send { session: SessionId, message: OutMessage },
    /// Ask for a sign of life.
    Keepalive(SessionId),
    /// Ask the monitor for tickets that are due, and then say when the next are: `set_renewal`.
    RenewTickets(SessionId),
    /// Take the options that the monitors have for us.
    Configure(BTreeMap<ByteString, ByteString>),
    /// Tell who asked.
    Done(W, Result<Answer, MonError>),
}

/// Whether a message was for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    /// It is for others.
    No,
    /// It is an answer about tickets.
    Tickets,
}

/// The monitor client: who asks (`W`), what is known, and what is to be done.
///
/// After any call: `poll_action` until it gives none, then `poll_timeout`.
#[derive(Debug)]
pub(crate) struct Core<W> {
    options: Options,
    /// At first as the configuration has it, with names of our own.
    map: MonMap,
    expected_fsid: Option<Uuid>,
    /// A monitor gave us the map.
    knows_map: bool,
    state: State,
    had_session: bool,
    /// Sessions in a row that ended as soon as they were open.
    short_sessions: u32,
    hunter: Hunter,
    subs: Subscriptions,
    manager: Manager,
    config: BTreeMap<ByteString, ByteString>,
    requests: BTreeMap<u64, Request<W>>,
    deadlines: BTreeSet<(Instant, u64)>,
    sessions: BTreeMap<SessionId, Role>,
    next_tid: u64,
    next_session: u64,
    actions: VecDeque<Action<W>>,
}

#[derive(Debug)]
enum State {
    /// Nobody wants anything yet, or no monitor lets us in.
    Idle,
    Hunting(Hunt),
    Open(Open),
    Ended,
}

/// Monitors that are asked at once: the first that lets us in is it.
#[derive(Debug)]
struct Hunt {
    pending: Vec<Candidate>,
    until: Instant,
}

#[derive(Debug)]
struct Candidate {
    session: SessionId,
    name: ByteString,
    addrs: EntityAddrVec,
    failed: bool,
    /// Why it does not let us in, if it says so, and how often it has.
    denial: Option<(AuthError, u32)>,
}

/// A session with a monitor.
#[derive(Debug)]
struct Open {
    session: SessionId,
    name: ByteString,
    addrs: EntityAddrVec,
    since: Instant,
    keepalive_at: Instant,
    /// When we last knew that it lives.
    alive: Instant,
    renew_at: Option<Instant>,
}

impl Open {
    fn is_silent(&self, options: &Options, now: Instant) -> bool {
        options.ping_timeout.is_some_and(|timeout| self.alive + timeout <= now)
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Monitor,
    /// One question to one monitor.
    Tell(u64),
    Manager,
}

impl<W> Core<W> {
    /// A client of the monitors in `map`, which need no names of theirs. `seed` is for chance.
    pub(crate) fn new(
        options: Options,
        map: MonMap,
        fsid: Option<Uuid>,
        hostname: ByteString,
        seed: u64,
    ) -> Self {
        let mut subs = Subscriptions::new(hostname);
        subs.want("monmap".into(), SubscribeItem::from_version(0));
        subs.want("config".into(), SubscribeItem::from_version(0));
        Self {
            hunter: Hunter::new(&options, seed),
            options,
            map,
            expected_fsid: fsid,
            knows_map: false,
            state: State::Idle,
            had_session: false,
            short_sessions: 0,
            subs,
            manager: Manager::default(),
            config: BTreeMap::new(),
            requests: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            sessions: BTreeMap::new(),
            next_tid: 1,
            next_session: 1,
            actions: VecDeque::new(),
        }
    }

    /// What the monitors have in their map; before the first session what the configuration says.
    pub(crate) fn map(&self) -> &MonMap {
        &self.map
    }

    /// The cluster's id, once a monitor told it.
    pub(crate) fn fsid(&self) -> Option<Uuid> {
        self.knows_map.then_some(self.map.fsid)
    }

    pub(crate) fn manager_map(&self) -> Option<&MgrMap> {
        self.manager.map.as_ref()
    }

    /// The options that the monitors have for us.
    pub(crate) fn central_config(&self) -> &BTreeMap<ByteString, ByteString> {
        &self.config
    }

    /// The monitor that there is a session with: `mon.a`.
    pub(crate) fn monitor(&self) -> Option<String> {
        match &self.state {
            State::Open(open) => Some(format!("mon.{}", open.name)),
            _ => None,
        }
    }

    pub(crate) fn is_hunting(&self) -> bool {
        matches!(self.state, State::Hunting(_))
    }

    /// Asks, and says under which number. The answer is an [`Action::Done`].
    ///
    /// # Errors
    /// If too many questions wait already, or the client has ended.
    pub(crate) fn ask(
        &mut self,
        waiter: W,
        question: Question,
        route: Route,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Result<u64, MonError> {
        if matches!(self.state, State::Ended) {
            return Err(MonError::Shutdown);
        }
        if self.requests.len() >= MAX_QUESTIONS {
            return Err(MonError::TooMany { max: MAX_QUESTIONS });
        }
        let tid = self.next_tid;
        self.next_tid += 1;
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        self.deadlines.extend(deadline.map(|deadline| (deadline, tid)));
        let (asked, sent, attempts, failure) = (now, None, 0, None);
        let request = Request { waiter, question, route, asked, deadline, sent, attempts, failure };
        self.requests.insert(tid, request);
        if matches!(self.state, State::Idle) {
            self.hunt(now);
        }
        self.send_request(tid, now);
        Ok(tid)
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn cancel(&mut self, tid: u64) {
        if let Some(request) = self.remove(tid) {
            self.close_tell(&request);
        }
    }

    /// Has a map published to us.
    pub(crate) fn subscribe(&mut self, what: ByteString, item: SubscribeItem, now: Instant) {
        if self.subs.len() >= MAX_SUBSCRIPTIONS {
            tracing::error!(%what, "too many subscriptions: this one is not made");
            return;
        }
        self.subs.want(what, item);
        self.send_subscriptions(now);
    }

    pub(crate) fn unsubscribe(&mut self, what: &[u8]) {
        self.subs.unwant(what);
    }

    /// A version of a map has arrived: it is not asked for again.
    pub(crate) fn got(&mut self, what: &[u8], version: u64) {
        self.subs.got(what, version);
    }

    /// Has the manager's map published to us.
    pub(crate) fn want_manager(&mut self, now: Instant) {
        if !self.manager.wanted {
            self.manager.wanted = true;
            self.subscribe("mgrmap".into(), SubscribeItem::from_version(0), now);
        }
    }

    /// When to ask for tickets.
    pub(crate) fn set_renewal(&mut self, session: SessionId, at: Option<Instant>) {
        if let State::Open(open) = &mut self.state
            && open.session == session
        {
            open.renew_at = at;
        }
    }

    /// Sends something that needs no answer, if there is a session; whether there is.
    pub(crate) fn send(&mut self, message: OutMessage) -> bool {
        let State::Open(open) = &self.state else { return false };
        self.actions.push_back(Action::Send { session: open.session, message });
        true
    }

    /// Ends everything.
    pub(crate) fn shutdown(&mut self) {
        self.state = State::Ended;
        let sessions = std::mem::take(&mut self.sessions);
        self.actions.extend(sessions.into_keys().map(Action::Close));
        self.fail_all(|_| MonError::Shutdown);
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action<W>> {
        self.actions.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Hunting(hunt) => Some(hunt.until),
            State::Open(open) => {
                let silence = self.options.ping_timeout.map(|timeout| open.alive + timeout);
                [Some(open.keepalive_at), silence, open.renew_at, self.subs.poll_timeout()]
                    .into_iter()
                    .flatten()
                    .min()
            }
            State::Idle => None,
            State::Ended => return None,
        };
        let first = self.deadlines.first().map(|(at, _)| *at);
        [own, first, self.manager.poll_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, tid)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            self.handle_deadline(tid, now);
        }
        match &mut self.state {
            State::Hunting(hunt) if hunt.until <= now => {
                tracing::debug!("no monitor yet: trying others");
                self.hunt(now);
            }
            State::Open(open) if open.is_silent(&self.options, now) => {
                tracing::info!(mon = %open.name, "the monitor is silent: looking for another");
                self.leave(now);
            }
            State::Open(open) => {
                if open.keepalive_at <= now {
                    open.keepalive_at = now + self.options.ping_interval;
                    self.actions.push_back(Action::Keepalive(open.session));
                    self.hunter.un_back_off(&self.options);
                }
                if open.renew_at.is_some_and(|at| at <= now) {
                    open.renew_at = Some(now + RENEWAL_RETRY);
                    self.actions.push_back(Action::RenewTickets(open.session));
                }
                self.subs.handle_timeout(now);
                self.send_subscriptions(now);
            }
            _ => {}
        }
        self.manager.handle_timeout(now);
        self.drive_manager(now);
    }

    fn open(&mut self, kind: EntityType, addrs: EntityAddrVec, role: Role) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions.insert(session, role);
        self.actions.push_back(Action::Open { session, kind, addrs });
        session
    }

    fn close(&mut self, session: SessionId) {
        if self.sessions.remove(&session).is_some() {
            self.actions.push_back(Action::Close(session));
        }
    }

    fn remove(&mut self, tid: u64) -> Option<Request<W>> {
        let request = self.requests.remove(&tid)?;
        if let Some(deadline) = request.deadline {
            self.deadlines.remove(&(deadline, tid));
        }
        Some(request)
    }

    fn done(&mut self, waiter: W, result: Result<Answer, MonError>) {
        self.actions.push_back(Action::Done(waiter, result));
    }

    fn fail_all(&mut self, error: impl Fn(&Question) -> MonError) {
        self.deadlines.clear();
        for request in std::mem::take(&mut self.requests).into_values() {
            self.close_tell(&request);
            let error = error(&request.question);
            self.done(request.waiter, Err(error));
        }
    }
}
