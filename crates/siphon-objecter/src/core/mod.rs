//! What the client of OSDs does, without doing it: no sockets, no clock, no threads.
//!
//! After each call, all of [`Core::poll_output`] is to be done, in its order, and then a call of
//! [`Core::handle_timeout`] is to come when [`Core::poll_timeout`] says so.

mod budgets;
mod commands;
mod lingers;
mod maps;
mod ops;
mod replies;
mod sessions;
pub(crate) mod throttles;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use siphon_monclient::CommandOutput;
use siphon_osdmap::OsdMap;
use siphon_proto::{OutMessage, Priority};
use siphon_wire::types::{ByteString, CephFsid, EntityAddrVec, Epoch};

pub(crate) use commands::CommandTarget;
pub(crate) use ops::{TIMEOUT_FOR_NOBODY, Then};
pub(crate) use sessions::SessionId;

use crate::placement::{PgCache, View};
use crate::ticket::Ticket;
use crate::watch::{NotifyReply, WatchEvent, WatchQueue};
use crate::{OpError, OpReply};

/// Who waits for an operation.
pub(crate) type OpTicket = Ticket<Result<OpReply, OpError>>;
/// Who waits for a command.
pub(crate) type CommandTicket = Ticket<Result<CommandOutput, OpError>>;
/// Who waits for a watch to begin.
pub(crate) type WatchTicket = Ticket<Result<(), OpError>>;
/// Who waits until all have answered.
pub(crate) type NotifyTicket = Ticket<Result<NotifyReply, OpError>>;
/// Who waits for room.
pub(crate) type BudgetTicket = Ticket<Result<(), OpError>>;
/// Who waits for a map.
pub(crate) type MapTicket = Ticket<Result<Arc<OsdMap>, OpError>>;

/// Who waits for a map.
struct Waiter {
    ticket: MapTicket,
    /// How long, and until when that is.
    timeout: Option<(Instant, Duration)>,
}

/// What a core goes by.
#[derive(Clone, Debug)]
pub(crate) struct CoreConfig {
    /// The cluster; maps of others are not taken.
    pub(crate) fsid: CephFsid,
    /// Operations under way at once (`objecter_inflight_ops`).
    pub(crate) max_ops: u64,
    /// Their bytes (`objecter_inflight_op_bytes`).
    pub(crate) max_bytes: u64,
    /// When an operation is given up (`rados_osd_op_timeout`).
    pub(crate) timeout: Option<Duration>,
    /// How often to look for what is late (`objecter_tick_interval`).
    pub(crate) tick: Duration,
    /// When an operation is late (`objecter_timeout`).
    pub(crate) laggy: Duration,
    /// `osd_client_op_priority`.
    pub(crate) priority: Priority,
    /// `crush_location`.
    pub(crate) location: Vec<(ByteString, ByteString)>,
    /// What tells this client from others, where they should not all do the same.
    pub(crate) salt: u32,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Output {
    /// Connect to an OSD.
    Open { session: SessionId, addrs: EntityAddrVec },
    /// End a connection.
    Close { session: SessionId },
    /// Send a message; where the connection has ended, it is dropped.
    Send { session: SessionId, message: OutMessage },
    /// Get the maps from this epoch on, or the newest one whole if it is 0.
    WantMap { from: Epoch, continuous: bool },
    /// Ask the monitors for the newest epoch.
    CheckNewest,
    /// Hand over what someone waits for: not under a lock.
    Done(Done),
}

/// A result, and who waits for it.
#[derive(Debug)]
pub(crate) enum Done {
    Op(OpTicket, Result<OpReply, OpError>),
    Command(CommandTicket, Result<CommandOutput, OpError>),
    Watch(WatchTicket, Result<(), OpError>),
    Notify(NotifyTicket, Result<NotifyReply, OpError>),
    Event(WatchQueue, WatchEvent),
    Budget(BudgetTicket, Result<(), OpError>),
    Map(MapTicket, Result<Arc<OsdMap>, OpError>),
}

impl Done {
    pub(crate) fn deliver(self) {
        match self {
            Self::Op(ticket, result) => ticket.set(result),
            Self::Command(ticket, result) => ticket.set(result),
            Self::Watch(ticket, result) => ticket.set(result),
            Self::Notify(ticket, result) => ticket.set(result),
            Self::Event(queue, event) => queue.push(event),
            Self::Budget(ticket, result) => ticket.set(result),
            Self::Map(ticket, result) => ticket.set(result),
        }
    }
}

/// Something whose pool or OSD is not in our map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Op(u64),
    Linger(u64),
    Command(u64),
}

pub(crate) struct Core {
    config: CoreConfig,
    map: Arc<OsdMap>,
    cache: PgCache,
    /// By their transactions' numbers: in the order in which they were submitted.
    ops: BTreeMap<u64, Box<ops::OpState>>,
    /// Those that wait for others to end.
    queued: BTreeSet<u64>,
    /// Room that is wanted or had without an operation, and which of it is wanted, in order.
    reservations: BTreeMap<u64, budgets::Reservation>,
    reserving: BTreeSet<u64>,
    inflight_ops: u64,
    inflight_bytes: u64,
    throttles: throttles::Throttles,
    admitting: bool,
    lingers: BTreeMap<u64, lingers::Linger>,
    commands: BTreeMap<u64, commands::Command>,
    /// By OSD.
    sessions: BTreeMap<i32, sessions::Session>,
    by_session: BTreeMap<SessionId, i32>,
    outputs: VecDeque<Output>,
    /// When operations and commands are given up.
    deadlines: BTreeSet<(Instant, u64)>,
    tick_at: Option<Instant>,
    waiters: BTreeMap<(Epoch, u64), Waiter>,
    /// What was asked for last, if it has not come.
    wanted: Option<(Epoch, bool)>,
    /// Those for which the newest epoch is being asked, and those that came later.
    checking: Vec<Subject>,
    unchecked: Vec<Subject>,
    /// Of transactions, watches and waiters.
    last_id: u64,
    last_session: u64,
    is_shut: bool,
}

impl Core {
    /// One that has no map yet.
    pub(crate) fn new(config: CoreConfig) -> Self {
        Self {
            config,
            map: Arc::default(),
            cache: PgCache::default(),
            ops: BTreeMap::new(),
            queued: BTreeSet::new(),
            reservations: BTreeMap::new(),
            reserving: BTreeSet::new(),
            inflight_ops: 0,
            inflight_bytes: 0,
            throttles: throttles::Throttles::default(),
            admitting: false,
            lingers: BTreeMap::new(),
            commands: BTreeMap::new(),
            sessions: BTreeMap::new(),
            by_session: BTreeMap::new(),
            outputs: VecDeque::new(),
            deadlines: BTreeSet::new(),
            tick_at: None,
            waiters: BTreeMap::new(),
            wanted: None,
            checking: Vec::new(),
            unchecked: Vec::new(),
            last_id: 0,
            last_session: 0,
            is_shut: false,
        }
    }

    /// Wants the first map.
    pub(crate) fn begin(&mut self) {
        self.want_map();
    }

    /// The newest map that has come.
    pub(crate) fn map(&self) -> &Arc<OsdMap> {
        &self.map
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        [deadline, self.tick_at].into_iter().flatten().min()
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            self.expire(id);
        }
        if self.tick_at.is_some_and(|at| at <= now) {
            self.tick(now);
        }
        self.admit(now);
        self.check();
    }

    /// Nothing goes on: all that is under way, and all that is submitted from now on, fails.
    pub(crate) fn shut_down(&mut self) {
        self.is_shut = true;
        self.queued.clear();
        self.refuse_reservations();
        for id in self.lingers.keys().copied().collect::<Vec<_>>() {
            self.fail_linger(id, OpError::Shutdown);
        }
        let ids = self.ops.keys().chain(self.commands.keys()).copied().collect::<Vec<_>>();
        for id in ids {
            self.fail(id, &OpError::Shutdown);
        }
        for (_, waiter) in std::mem::take(&mut self.waiters) {
            self.done(Done::Map(waiter.ticket, Err(OpError::Shutdown)));
        }
        for session in std::mem::take(&mut self.by_session).into_keys() {
            self.outputs.push_back(Output::Close { session });
        }
        self.sessions.clear();
        self.deadlines.clear();
        self.tick_at = None;
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn done(&mut self, done: Done) {
        self.outputs.push_back(Output::Done(done));
    }

    /// Sees to it that there will be a tick.
    fn keep_ticking(&mut self, now: Instant) {
        self.tick_at = self.tick_at.or_else(|| now.checked_add(self.config.tick));
    }

    fn tick(&mut self, now: Instant) {
        self.tick_at = None;
        let idle = self.ops.is_empty() && self.lingers.is_empty() && self.commands.is_empty();
        if idle && self.waiters.is_empty() {
            return;
        }
        self.keep_ticking(now);
        self.reopen_sessions();
        for op in self.ops.values_mut() {
            op.parked = false;
        }
        let mut quiet = self.late_sessions(now);
        quiet.extend(self.ping_lingers(now));
        quiet.extend(self.commands.values().filter_map(|command| command.session));
        let homeless = self.ops.values().any(|op| op.session.is_none() && !op.queued);
        if homeless || !quiet.is_empty() || !self.waiters.is_empty() {
            // Also where it was asked for: what came meanwhile may not have been of use.
            self.wanted = None;
            self.want_map();
        }
        for osd in quiet {
            self.ping_session(osd);
        }
        self.ask_newest();
        self.flush(now);
    }

    /// Sends all that can be sent and has not been, in the order in which it was submitted.
    fn flush(&mut self, now: Instant) {
        self.flush_lingers(now);
        let unsent = self.ops.iter().filter(|(_, op)| op.unsent && !op.queued);
        for tid in unsent.map(|(tid, _)| *tid).collect::<Vec<_>>() {
            self.push(tid, now);
        }
        self.flush_commands();
    }

    /// All that is under way, for who looks into it.
    #[cfg(test)]
    fn describe(&self) -> Vec<String> {
        self.ops.iter().map(|(tid, op)| format!("{tid}: {}", op.describe())).collect()
    }

    /// What holds after each call.
    fn check(&self) {
        if cfg!(debug_assertions) {
            let under_way = self.ops.values().filter(|op| op.is_budgeted());
            let reserved = self.reservations.values().filter(|it| it.granted).map(|it| it.bytes);
            let all = under_way.map(|op| op.bytes).chain(reserved);
            let (count, bytes) = all.fold((0, 0), |(count, bytes), it| (count + 1, bytes + it));
            assert_eq!((self.inflight_ops, self.inflight_bytes), (count, bytes));
            let queued = self.ops.iter().filter(|(_, op)| op.queued).map(|(tid, _)| tid);
            assert!(queued.eq(self.queued.iter()));
            let reserving = self.reservations.iter().filter(|(_, it)| !it.granted);
            assert!(reserving.map(|(id, _)| id).eq(self.reserving.iter()));
            assert!(self.by_session.len() == self.sessions.len());
            for (osd, session) in &self.sessions {
                assert_eq!(self.by_session.get(&session.id), Some(osd));
            }
            for op in self.ops.values().filter(|op| !op.unsent) {
                assert!(op.session.is_some_and(|osd| self.sessions.contains_key(&osd)));
            }
        }
    }
}

/// The map as requests see it, while the rest of a core is at hand.
fn view<'a>(map: &'a OsdMap, cache: &'a mut PgCache, config: &'a CoreConfig) -> View<'a> {
    View { map, cache, location: &config.location, salt: config.salt }
}

#[cfg(test)]
mod tests;
