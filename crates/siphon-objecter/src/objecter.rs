#![expect(clippy::disallowed_methods, reason = "the shell gives its core the time")]

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use foldhash::fast::RandomState;
use siphon_common::perf_counters::{PerfSource, ThrottleFigures, ThrottleSource};
use siphon_common::{Config, Deadline, Tick};
use siphon_messages::osd::{OsdFlags, OsdOp};
use siphon_monclient::{Command, MonClient};
use siphon_msgr::{Connection, SendError};
use siphon_osdmap::OsdMap;
use siphon_proto::{OutMessage, Priority};
use siphon_wire::types::{ByteString, EntityType, Epoch, PgId, Utime};
use smallvec::SmallVec;

use crate::budget::{Budget, Reserve};
use crate::core::throttles::Bound;
use crate::core::{CommandTarget, Core, CoreConfig, Output, SessionId, TIMEOUT_FOR_NOBODY, Then};
use crate::error::ObjecterError;
use crate::future::{Begun, CommandFuture, MapFuture, OpFuture, Watch};
use crate::monitors::Monitors;
use crate::ticket::Ticket;
use crate::watch::{NotifyReply, WatchQueue};
use crate::{Notification, Op, OpError, Target};

/// How operations are sent.
#[derive(Clone, Debug)]
pub struct ObjecterConfig {
    /// Operations under way at once; others wait (`objecter_inflight_ops`).
    pub inflight_ops: u64,
    /// Bytes of them at once (`objecter_inflight_op_bytes`).
    pub inflight_op_bytes: u64,
    /// After how long an operation is given up, if it does not say so itself (`rados_osd_op_timeout`).
    pub op_timeout: Option<Duration>,
    /// How often watches are checked, and late operations looked for (`objecter_tick_interval`).
    pub tick_interval: Duration,
    /// After how long an operation is late: its connection is probed (`objecter_timeout`).
    pub timeout: Duration,
    /// How urgent operations are (`osd_client_op_priority`).
    pub priority: u16,
    /// Where we are, as types and names of buckets of the CRUSH map (`crush_location`): for reads of the
    /// nearest copy.
    pub crush_location: Vec<(ByteString, ByteString)>,
}

impl ObjecterConfig {
    /// As the options have it.
    ///
    /// ```
    /// use siphon_common::Config;
    /// use siphon_objecter::ObjecterConfig;
    /// let mut config = Config::default();
    /// config.set("crush_location", "host=a rack=r1")?;
    /// config.set("objecter_inflight_op_bytes", "0")?; // any number, as with Ceph
    /// let config = ObjecterConfig::new(&config);
    /// assert_eq!((config.inflight_ops, config.crush_location.len()), (1024, 2));
    /// assert_eq!(config.inflight_op_bytes, u64::MAX);
    /// # Ok::<(), siphon_common::ConfigError>(())
    /// ```
    pub fn new(config: &Config) -> Self {
        let seldom = |time: Duration| (!time.is_zero()).then_some(time);
        // As `Throttle::_should_wait` of common/Throttle.h, 16.2.7.
        let most = |count: u64| if count == 0 { u64::MAX } else { count };
        let pairs = config.crush_location.split([' ', ',', ';', '\t']);
        let pairs = pairs.filter_map(|pair| pair.split_once('='));
        Self {
            inflight_ops: most(config.objecter_inflight_ops),
            inflight_op_bytes: most(config.objecter_inflight_op_bytes),
            op_timeout: seldom(config.rados_osd_op_timeout),
            tick_interval: config.objecter_tick_interval.max(SHORTEST_TICK),
            timeout: config.objecter_timeout,
            priority: u16::try_from(config.osd_client_op_priority).unwrap_or(u16::MAX),
            crush_location: pairs.map(|(kind, name)| (kind.into(), name.into())).collect(),
        }
    }
}

/// No tick comes more often.
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// Sends operations on objects to the OSDs that have them. Clones are the same objecter, and watches have one;
/// when the last is dropped, all that is under way fails.
///
/// See [`siphon_objecter`](crate) for an example.
#[derive(Clone)]
pub struct Objecter {
    pub(crate) shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    /// The admin socket tells of them.
    _throttles: [Arc<dyn PerfSource>; 2],
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.shut_down();
    }
}

pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) mon: MonClient,
    monitors: Monitors,
    deadline: Deadline,
}

pub(crate) struct State {
    pub(crate) core: Core,
    connections: HashMap<SessionId, Connection, RandomState>,
    /// By the connections' numbers.
    sessions: HashMap<u64, SessionId, RandomState>,
    /// When the timer was last told to come.
    deadline: Option<Instant>,
}

impl State {
    /// The session of a connection, if it is one of ours and not over.
    pub(crate) fn session_of(&self, connection: &Connection) -> Option<SessionId> {
        self.sessions.get(&connection.number()).copied()
    }

    /// Does what the core wants of connections and of the client of the monitors, which calls nobody back, and
    /// returns the rest.
    fn act(&mut self, mon: &MonClient, now: Instant) -> SmallVec<[Output; 1]> {
        let mut later = SmallVec::new();
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send { session, message } => {
                    self.send(session, message, now);
                }
                Output::Open { session, addrs } => {
                    // Its own: nobody else may mark it down, nor is it one that another OSD has, or we, where a
                    // map says so.
                    let connection = mon.messenger().connect_anonymously(EntityType::OSD, addrs);
                    self.sessions.insert(connection.number(), session);
                    self.connections.insert(session, connection);
                }
                Output::Close { session } => {
                    if let Some(connection) = self.connections.remove(&session) {
                        self.sessions.remove(&connection.number());
                        connection.mark_down();
                    }
                }
                // Before another thread can want another map, for the later of two counts.
                Output::WantMap { from, continuous } => {
                    mon.subscribe("osdmap", from.0.into(), !continuous);
                }
                output => later.push(output),
            }
        }
        later
    }

    fn send(&mut self, session: SessionId, message: OutMessage, now: Instant) {
        let Some(connection) = self.connections.get(&session) else { return };
        match connection.send(message) {
            Ok(()) => {}
            // That is told by a reset, after which all goes again.
            Err(SendError::Closed(_)) => {}
            Err(error) => {
                tracing::warn!(%error, peer = %connection, "a session with an OSD begins anew");
                connection.mark_down();
                let connection = connection.clone();
                self.remove(&connection);
                self.core.handle_reset(session, now);
            }
        }
    }

    /// A connection has ended; which session it was.
    pub(crate) fn remove(&mut self, connection: &Connection) -> Option<SessionId> {
        let session = self.sessions.remove(&connection.number())?;
        self.connections.remove(&session);
        Some(session)
    }
}

/// One of the bounds on what is under way, as `perf dump` shows it.
fn counted(shared: &Arc<Shared>, name: &str, bound: Bound) -> Arc<dyn PerfSource> {
    let (name, shared) = (name.to_owned(), Arc::downgrade(shared));
    let figures = move || {
        let Some(shared) = shared.upgrade() else { return ThrottleFigures::default() };
        let passed = shared.lock().core.passed(bound);
        ThrottleFigures {
            val: passed.val,
            max: passed.max,
            get_started: passed.get_or_fail_fail,
            get: passed.get,
            get_sum: passed.get_sum,
            get_or_fail_fail: passed.get_or_fail_fail,
            get_or_fail_success: passed.get - passed.waits,
            put: passed.put,
            put_sum: passed.put_sum,
            waits: passed.waits,
            wait: passed.wait,
        }
    };
    ThrottleSource::new(move || name.clone(), figures)
}

impl Objecter {
    /// One for the cluster that a client of its monitors is in, which it gets its maps from. It takes what the
    /// messenger of that client gets from OSDs.
    ///
    /// # Errors
    /// [`ObjecterError::NotAuthenticated`] if the client has not been let in by a monitor;
    /// [`ObjecterError::Taken`] if there is an objecter on it already, or was: what OSDs know of the client's
    /// numbers goes on.
    pub fn start(mon: &MonClient, config: ObjecterConfig) -> Result<Self, ObjecterError> {
        let Some(fsid) = mon.fsid() else { return Err(ObjecterError::NotAuthenticated) };
        let core = Core::new(CoreConfig {
            fsid,
            max_ops: config.inflight_ops,
            max_bytes: config.inflight_op_bytes,
            timeout: config.op_timeout,
            tick: config.tick_interval,
            laggy: config.timeout,
            priority: Priority(config.priority),
            location: config.crush_location,
            // Its lower half tells clients apart.
            salt: mon.global_id() as u32,
        });
        let shared = Arc::new_cyclic(|shared: &Weak<Shared>| {
            let ticker: Weak<dyn Tick> = shared.clone();
            let state = State {
                core,
                connections: HashMap::default(),
                sessions: HashMap::default(),
                deadline: None,
            };
            Shared {
                state: Mutex::new(state),
                mon: mon.clone(),
                monitors: Monitors::new(mon.clone(), shared.clone()),
                deadline: mon.timer().deadline(ticker),
            }
        });
        let dispatcher: Arc<dyn siphon_msgr::Dispatcher> = shared.clone();
        mon.attach(Arc::downgrade(&dispatcher)).map_err(|_| ObjecterError::Taken)?;
        shared.with(|core, _| core.begin());
        let throttles = [("objecter_bytes", Bound::Bytes), ("objecter_ops", Bound::Ops)]
            .map(|(name, bound)| counted(&shared, name, bound));
        throttles.iter().for_each(|it| mon.context().perf().add(Arc::clone(it)));
        let owner = Owner { shared: Arc::clone(&shared), _throttles: throttles };
        Ok(Self { _owner: Arc::new(owner), shared })
    }

    /// The client of the monitors.
    pub fn mon(&self) -> &MonClient {
        &self.shared.mon
    }

    /// Ends it, for all clones: what is under way fails, and what is submitted from now on.
    pub fn shutdown(&self) {
        self.shared.shut_down();
    }

    /// Sends an operation, as soon as there is room for it and its OSD runs. What is submitted earlier for an
    /// object is done earlier.
    pub fn submit(&self, op: Op) -> OpFuture {
        self.shared.submit(op)
    }

    /// Waits until there is room for an operation of so many bytes among those under way
    /// (`objecter_inflight_op_bytes`, `objecter_inflight_ops`), so that data for which there is none is not
    /// made or read yet: what is submitted without room waits for it, and its data with it. Who holds on to
    /// room holds up others: don't wait for other operations meanwhile.
    ///
    /// ```no_run
    /// # async fn copy(objecter: &siphon_objecter::Objecter) -> Result<(), Box<dyn std::error::Error>> {
    /// use siphon_messages::osd::OsdOp;
    /// use siphon_objecter::{Op, Target};
    ///
    /// let budget = objecter.reserve(4 << 20).await?;
    /// let content = bytes::Bytes::from(std::fs::read("file")?);
    /// let write = Op::write(Target::object(1, "name"), vec![OsdOp::write_full(content.into())]);
    /// objecter.submit_within(budget, write).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reserve(&self, bytes: u64) -> Reserve {
        let ticket = Ticket::new();
        self.shared.with(|core, now| core.reserve(bytes, ticket.clone(), now));
        Reserve::new(Arc::clone(&self.shared), ticket)
    }

    /// Sends an operation for which there is room. What it takes itself counts from now on. It waits for
    /// room as others do if it takes more than was reserved, if others wait that were submitted before, or if
    /// `budget` is of another objecter.
    pub fn submit_within(&self, budget: Budget, op: Op) -> OpFuture {
        let Some(id) = budget.spend(&self.shared) else { return self.submit(op) };
        let ticket = Ticket::new();
        let then = Then::Reply(ticket.clone());
        let op = dated(op);
        self.shared.with(|core, now| core.submit_within(id, op, then, now));
        OpFuture::new(Arc::clone(&self.shared), ticket)
    }

    /// The newest map that has come.
    pub fn map(&self) -> Arc<OsdMap> {
        Arc::clone(self.shared.lock().core.map())
    }

    /// Waits for a map of this epoch, or a newer one.
    ///
    /// # Errors
    /// [`OpError::TimedOut`] if it does not come within `timeout`, or `rados_osd_op_timeout` if that is set;
    /// [`OpError::Shutdown`].
    pub fn wait_for_epoch(&self, epoch: Epoch, timeout: Option<Duration>) -> MapFuture {
        let ticket = Ticket::new();
        self.shared.with(|core, now| core.wait_for_epoch(epoch, timeout, ticket.clone(), now));
        MapFuture::new(Arc::clone(&self.shared), epoch, ticket)
    }

    /// Waits for the map that is the monitors' newest now.
    ///
    /// # Errors
    /// [`ObjecterError::Monitors`] if they don't say which that is, and [`OpError::TimedOut`] if it does not
    /// come, each within `timeout`.
    pub async fn wait_for_latest_map(
        &self,
        timeout: Option<Duration>,
    ) -> Result<Arc<OsdMap>, ObjecterError> {
        let (newest, _) = self.mon().newest_version("osdmap", timeout).await?;
        Ok(self.wait_for_epoch(epoch_of(newest), timeout).await?)
    }

    /// Watches an object: hears of what others tell its watchers.
    ///
    /// ```no_run
    /// # async fn follow(objecter: &siphon_objecter::Objecter) -> Result<(), siphon_objecter::OpError> {
    /// use futures_util::StreamExt as _;
    /// use siphon_objecter::{Op, Target, WatchEvent};
    /// let op = Op::write(Target::object(1, "watched"), vec![]);
    /// let mut watch = objecter.watch(op, None).await?;
    /// while let Some(WatchEvent::Notify(notification)) = watch.next().await {
    ///     println!("{:?}", notification.payload);
    ///     watch.acknowledge(&notification, &bytes::Bytes::new()).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `op` says which, and may have operations that are done before: a watch that begins
    /// only if the object exists has an assertion. Where a session ends meanwhile they are done once more, so they
    /// had better change nothing. An OSD that hears nothing of us for `timeout` forgets the
    /// watch; its own option says so if there is none (`osd_client_watch_timeout`).
    ///
    /// # Errors
    /// Those of the operation: `ENOENT` if there is no such object.
    pub async fn watch(&self, op: Op, timeout: Option<Duration>) -> Result<Watch, OpError> {
        let (ticket, queue, target) = (Ticket::new(), WatchQueue::default(), op.target.clone());
        let op = dated(op);
        let cookie = self
            .shared
            .with(|core, now| core.watch(op, seconds(timeout), queue.clone(), ticket.clone(), now));
        let begun = Begun::new(Arc::clone(&self.shared), cookie);
        std::future::poll_fn(|context| ticket.poll(context)).await?;
        begun.keep();
        Ok(Watch::new(self.clone(), cookie, target, queue))
    }

    /// Tells all who watch an object something.
    ///
    /// ```no_run
    /// # async fn tell(objecter: &siphon_objecter::Objecter) -> Result<(), siphon_objecter::OpError> {
    /// use siphon_objecter::{Op, Target};
    /// let op = Op::read(Target::object(1, "watched"), vec![]);
    /// let reply = objecter.notify(op, &bytes::Bytes::from_static(b"changed"), None).await?;
    /// println!("{} answered, {} did not", reply.answers.len(), reply.missed.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It waits until they have answered, or for `timeout`
    /// (`client_notify_timeout`, 10 s, if there is none).
    ///
    /// # Errors
    /// Those of an operation. That some did not answer is told by the reply.
    pub async fn notify(
        &self,
        op: Op,
        payload: &Bytes,
        timeout: Option<Duration>,
    ) -> Result<NotifyReply, OpError> {
        /// `client_notify_timeout`.
        const DEFAULT: Duration = Duration::from_secs(10);
        let ticket = Ticket::new();
        let timeout = seconds(timeout.or(Some(DEFAULT)));
        let cookie =
            self.shared.with(|core, now| core.notify(op, payload, timeout, ticket.clone(), now));
        let begun = Begun::new(Arc::clone(&self.shared), cookie);
        let result = std::future::poll_fn(|context| ticket.poll(context)).await;
        begun.keep(); // it is over
        result
    }

    /// Answers a notification, wherever its watch is.
    pub fn notify_ack(
        &self,
        target: Target,
        notification: &Notification,
        payload: &Bytes,
    ) -> OpFuture {
        let ack = OsdOp::notify_ack(notification.notify_id, notification.cookie, payload);
        self.submit(Op::read(target, vec![ack]))
    }

    /// Sends a command to an OSD (`ceph tell osd.0 …`).
    ///
    /// ```no_run
    /// # async fn ask(objecter: &siphon_objecter::Objecter) -> Result<(), siphon_objecter::OpError> {
    /// let version = siphon_monclient::Command::new("version");
    /// println!("{}", objecter.osd_command(0, &version, None).await?.text());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It waits for `timeout`, or `rados_osd_op_timeout` if that is set.
    pub fn osd_command(
        &self,
        osd: i32,
        command: &Command,
        timeout: Option<Duration>,
    ) -> CommandFuture {
        self.command(CommandTarget::Osd(osd), command, timeout)
    }

    /// Sends a command to the OSD that serves a placement group.
    pub fn pg_command(
        &self,
        pg: PgId,
        command: &Command,
        timeout: Option<Duration>,
    ) -> CommandFuture {
        self.command(CommandTarget::Pg(pg), command, timeout)
    }

    fn command(
        &self,
        target: CommandTarget,
        command: &Command,
        timeout: Option<Duration>,
    ) -> CommandFuture {
        let ticket = Ticket::new();
        let (cmd, input) = (vec![command.text().into()], command.input_bytes().clone());
        self.shared.with(|core, now| {
            core.command(target, cmd, input, timeout, ticket.clone(), now);
        });
        CommandFuture::new(Arc::clone(&self.shared), ticket)
    }
}

/// The monitors' version of a map as its epoch.
pub(crate) fn epoch_of(version: u64) -> Epoch {
    Epoch(u32::try_from(version).unwrap_or(u32::MAX))
}

/// Whole seconds, as Ceph counts here; 0 for none.
fn seconds(timeout: Option<Duration>) -> u32 {
    let up = |time: Duration| time.as_secs().saturating_add((time.subsec_nanos() > 0).into());
    timeout.map_or(0, |time| u32::try_from(up(time)).unwrap_or(u32::MAX))
}

/// A change that is made now, unless it says when.
fn dated(mut op: Op) -> Op {
    if op.mtime.is_none() && op.flags.contains(OsdFlags::WRITE) {
        op.mtime = Some(Utime::from(SystemTime::now()));
    }
    op
}

impl Shared {
    fn shut_down(&self) {
        self.with(|core, _| core.shut_down());
        self.monitors.stop();
    }

    pub(crate) fn submit(self: &Arc<Self>, op: Op) -> OpFuture {
        let ticket = Ticket::new();
        let then = Then::Reply(ticket.clone());
        let op = dated(op);
        self.with(|core, now| core.submit(op, then, now));
        OpFuture::new(Arc::clone(self), ticket)
    }

    /// Submits what is good to be done, and not waited for for ever.
    pub(crate) fn submit_for_nobody(&self, op: Op) {
        let op = Op { timeout: Some(TIMEOUT_FOR_NOBODY), ..dated(op) };
        self.with(|core, now| core.submit(op, Then::Nobody, now));
    }

    /// Calls the core, and does what it wants: what is sent is in the connections' mailboxes before another
    /// thread can have the core, so that its order is the order on the wire.
    pub(crate) fn with<R>(&self, call: impl FnOnce(&mut Core, Instant) -> R) -> R {
        self.with_state(|state, now| call(&mut state.core, now))
    }

    pub(crate) fn with_state<R>(&self, call: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut state = self.lock();
        let now = Instant::now();
        let result = call(&mut state, now);
        let later = state.act(&self.mon, now);
        let next = state.core.poll_timeout();
        if next != state.deadline {
            state.deadline = next;
            self.deadline.set(next);
        }
        drop(state);
        let mut panic = None;
        for output in later {
            // Others' code is woken, and whom it does not concern waits as well.
            let handed = catch_unwind(AssertUnwindSafe(|| self.hand_over(output)));
            panic = panic.or(handed.err());
        }
        match panic {
            Some(panic) => resume_unwind(panic),
            None => result,
        }
    }

    fn hand_over(&self, output: Output) {
        match output {
            Output::Done(done) => done.deliver(),
            Output::CheckNewest => self.monitors.check_newest(),
            Output::Open { .. }
            | Output::Close { .. }
            | Output::Send { .. }
            | Output::WantMap { .. } => {}
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tick for Shared {
    fn tick(&self, now: Instant) {
        {
            // The timer has called, and waits for nothing more.
            self.lock().deadline = None;
        }
        self.with(|core, _| core.handle_timeout(now));
    }
}

impl fmt::Debug for Objecter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Objecter")
            .field("epoch", &state.core.map().epoch)
            .field("sessions", &state.connections.len())
            .finish_non_exhaustive()
    }
}
