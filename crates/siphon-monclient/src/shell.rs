#![expect(clippy::disallowed_methods, reason = "the shell tells its core the time")]

//! The core on the messenger: it does what the core wants done, and tells it what comes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use futures_channel::oneshot;
use siphon_common::{Context, Deadline, Tick, Timer};
use siphon_messages::{MAuthReply, TypedMessage};
use siphon_msgr::{CloseReason, Connection, Messenger};
use siphon_proto::{Message, Protocol, ProtocolError};
use siphon_wire::types::{AuthName, ByteString, EntityName, EntityType};

use crate::auth::{Authenticator, Step};
use crate::core::{Action, Answer, Core, SessionId, Taken};
use crate::error::{MonError, denial};
use crate::front::Front;

/// Who waits for an answer.
pub(crate) type Waiter = oneshot::Sender<Result<Answer, MonError>>;

pub(crate) struct Inner {
    pub(crate) context: Context,
    pub(crate) name: AuthName,
    pub(crate) messenger: Messenger,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) front: Arc<Front>,
    pub(crate) timer: Timer,
    deadline: Deadline,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) core: Core<Waiter>,
    connections: BTreeMap<SessionId, Connection>,
    /// By the connections' numbers.
    sessions: HashMap<u64, SessionId>,
}

/// What is done without the lock: others' code runs.
#[derive(Default)]
struct Done {
    answers: Vec<(Waiter, Result<Answer, MonError>)>,
    central: Option<BTreeMap<ByteString, ByteString>>,
}

impl Inner {
    pub(crate) fn start(
        context: Context,
        name: AuthName,
        core: Core<Waiter>,
        messenger: Messenger,
        authenticator: Arc<Authenticator>,
        timer: Timer,
        front: Arc<Front>,
    ) -> Arc<Self> {
        let inner = Arc::new_cyclic(|inner: &Weak<Self>| {
            let ticker: Weak<dyn Tick> = inner.clone();
            let deadline = timer.deadline(ticker);
            let (connections, sessions) = Default::default();
            let state = Mutex::new(State { core, connections, sessions });
            Self { context, name, messenger, authenticator, front, timer, deadline, state }
        });
        let known = inner.front.client.set(Arc::downgrade(&inner));
        known.expect("a front is made for one client");
        inner
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the core, does what it wants done, and then wakes who waited.
    pub(crate) fn run<T>(&self, call: impl FnOnce(&mut Core<Waiter>, Instant) -> T) -> T {
        self.run_at(|state, now| call(&mut state.core, now))
    }

    fn run_at<T>(&self, call: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut done = Done::default();
        let result = {
            let mut state = self.lock();
            let result = call(&mut state, Instant::now());
            while let Some(action) = state.core.poll_action() {
                self.act(&mut state, action, &mut done);
            }
            self.deadline.set(state.core.poll_timeout());
            result
        };
        if let Some(central) = done.central {
            self.configure(central);
        }
        for (waiter, answer) in done.answers {
            let _ = waiter.send(answer); // whoever asked may have given up
        }
        result
    }

    /// Has the context take the monitors' configuration.
    fn configure(&self, central: BTreeMap<ByteString, ByteString>) {
        let text = |it: &ByteString| String::from_utf8_lossy(it).into_owned();
        let values = central.iter().map(|(name, value)| (text(name), text(value)));
        for error in self.context.set_central(values) {
            tracing::warn!("the monitors' configuration: {error}");
        }
    }

    fn act(&self, state: &mut State, action: Action<Waiter>, done: &mut Done) {
        match action {
            Action::Open { session, kind, addrs } => {
                let connection = self.messenger.connect_anonymously(kind, addrs);
                state.sessions.insert(connection.number(), session);
                state.connections.insert(session, connection);
            }
            Action::Close(session) => {
                if let Some(connection) = state.connections.remove(&session) {
                    state.sessions.remove(&connection.number());
                    self.authenticator.forget(connection.number());
                    connection.mark_down();
                }
            }
            Action::Send { session, message } => {
                let Some(connection) = state.connections.get(&session) else { return };
                let tid = message.header().tid;
                if let Err(error) = connection.send(message) {
                    state.core.handle_unsendable(tid, error);
                }
            }
            Action::Keepalive(session) => {
                if let Some(connection) = state.connections.get(&session) {
                    connection.keepalive();
                }
                // The wall clock, by which tickets end, may have gone on without ours.
                self.renew_tickets(state, session);
            }
            Action::RenewTickets(session) => self.renew_tickets(state, session),
            Action::Configure(central) => done.central = Some(central),
            Action::Done(waiter, answer) => done.answers.push((waiter, answer)),
        }
    }

    fn renew_tickets(&self, state: &mut State, session: SessionId) {
        let Some(connection) = state.connections.get(&session) else { return };
        match self.authenticator.renewal() {
            Ok(Some(question)) => {
                tracing::debug!("asking for tickets");
                let _ = connection.send(question.into_out()); // an end is told by a reset
            }
            Ok(None) => state.core.set_renewal(session, self.authenticator.renew_at()),
            Err(error) => {
                tracing::warn!(%error, "cannot ask for tickets: looking for another monitor");
                state.core.renewal_failed(session, Instant::now());
            }
        }
    }

    /// Whether the connection is ours.
    pub(crate) fn handle_open(&self, connection: &Connection) -> bool {
        self.run_at(|state, now| {
            let Some(&session) = state.sessions.get(&connection.number()) else { return false };
            let peer = connection.peer();
            let is_mon = peer.as_ref().is_some_and(|peer| peer.name.kind == EntityType::MON);
            let is_v1 = peer.as_ref().is_some_and(|peer| peer.protocol == Protocol::Msgr1);
            if is_mon && is_v1 {
                let question = self.authenticator.begin_by_messages(connection.number());
                let _ = connection.send(question.into_out()); // an end is told by a reset
            } else {
                self.let_in(state, session, connection, now);
            }
            true
        })
    }

    /// We are authenticated on this connection.
    fn let_in(&self, state: &mut State, session: SessionId, connection: &Connection, now: Instant) {
        if !state.core.handle_open(session, &connection.peer_addrs(), now) {
            return;
        }
        self.authenticator.adopt(connection.number());
        // For good, as in Ceph (`RadosClient::connect`): OSDs know by it what they have done already, and
        // whose watches and locks they have. A monitor may give another number, long after a session.
        if let Ok(number) = i64::try_from(self.authenticator.global_id())
            && number != 0
            && self.messenger.name().num == EntityName::NEW
        {
            self.messenger.set_name(EntityName::new(self.name.kind, number));
        }
        state.core.set_renewal(session, self.authenticator.renew_at());
    }

    pub(crate) fn handle_fault(&self, connection: &Connection, reason: &CloseReason) -> bool {
        self.run_at(|state, now| {
            let Some(&session) = state.sessions.get(&connection.number()) else { return false };
            if denial(reason).is_some() && state.core.is_hunting() {
                self.authenticator.denied(connection.number());
            }
            state.core.handle_fault(session, reason, now);
            true
        })
    }

    pub(crate) fn handle_reset(&self, connection: &Connection, reason: &CloseReason) -> bool {
        self.run_at(|state, now| {
            let Some(session) = state.sessions.remove(&connection.number()) else { return false };
            state.connections.remove(&session);
            self.authenticator.forget(connection.number());
            state.core.handle_reset(session, reason, now);
            true
        })
    }

    pub(crate) fn handle_alive(&self, connection: &Connection) -> bool {
        self.run_at(|state, now| {
            let Some(&session) = state.sessions.get(&connection.number()) else { return false };
            state.core.handle_alive(session, now);
            true
        })
    }

    /// Gives the message back if it is not ours.
    pub(crate) fn handle_message(
        &self,
        connection: &Connection,
        message: Message,
    ) -> Option<Message> {
        let taken = self.run_at(|state, now| {
            let session = *state.sessions.get(&connection.number())?;
            if message.header.msg_type == MAuthReply::TYPE {
                self.handle_auth_reply(state, session, connection, &message, now);
                return Some(Taken::Yes);
            }
            Some(state.core.handle_message(session, &message, now))
        });
        match taken {
            Some(Taken::Yes | Taken::Tickets) => None,
            Some(Taken::No) => Some(message),
            // Of a session of ours that was given up, or of others.
            None if connection.peer().is_some_and(|peer| peer.name.kind == EntityType::MON) => None,
            None => Some(message),
        }
    }

    /// Over msgr1 a step of authentication; else the answer about tickets.
    fn handle_auth_reply(
        &self,
        state: &mut State,
        session: SessionId,
        connection: &Connection,
        message: &Message,
        now: Instant,
    ) {
        let reply = match MAuthReply::from_message(message) {
            Ok(reply) => reply,
            Err(error) => {
                return tracing::error!(%error, peer = %connection, "an answer is passed over");
            }
        };
        match self.authenticator.continue_by_messages(connection.number(), &reply) {
            Some(Step::Send(question)) => {
                let _ = connection.send(question.into_out()); // an end is told by a reset
            }
            Some(Step::LetIn) => self.let_in(state, session, connection, now),
            Some(Step::Refused(error)) => {
                self.authenticator.denied(connection.number());
                let reason = CloseReason::Protocol(ProtocolError::AuthRejected(error));
                state.core.handle_fault(session, &reason, now);
            }
            None if state.core.handle_message(session, message, now) == Taken::Tickets => {
                match self.authenticator.handle_reply(&reply) {
                    Ok(()) => state.core.set_renewal(session, self.authenticator.renew_at()),
                    Err(error) => {
                        tracing::warn!(%error, "no tickets: looking for another monitor");
                        state.core.renewal_failed(session, now);
                    }
                }
            }
            None => {}
        }
    }
}

impl Tick for Inner {
    fn tick(&self, now: Instant) {
        self.run(|core, _| core.handle_timeout(now));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for connection in state.connections.values() {
            connection.mark_down();
        }
    }
}
