use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::Waker;
use std::time::Duration;

use futures_channel::oneshot;
use siphon_auth::{AuthClient, AuthNone, AuthServer, ConnectionMode, ModeList, Modes};
use siphon_common::admin_socket::Registration;
use siphon_common::perf_counters::PerfSource;
use siphon_common::{Config, Context};
use siphon_proto::v2::compression::{Algorithm, CompressionOptions, Mode};
use siphon_proto::v2::{BannerFeatures, Limits};
use siphon_proto::{
    ConnectionConfig, GlobalSeq, Message, Policies, Policy, SessionCounters, SessionCounts,
    Throttles,
};
use siphon_wire::buf::SegmentPool;
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec, EntityName, EntityType};

use crate::bind;
use crate::connection::{Connection, DEFAULT_LINGER, Inner};
use crate::credentials::modes;
use crate::dispatch_queue::DispatchQueue;
use crate::dispatch_throttle::{self, DispatchThrottle};
use crate::dispatcher::{Chain, Dispatcher};
use crate::dump;
use crate::error::BindError;
use crate::stack::Stack;
use crate::throttle_counters;
use crate::trace;
use crate::worker::Mail;

/// A messenger: an entity of a Ceph cluster with addresses of its own, that connects to others and
/// accepts connections.
///
/// Its connections are spread over the workers of a [`Stack`], which it may share with other
/// messengers.
///
/// ```
/// use std::sync::Arc;
/// use siphon_common::Context;
/// use siphon_msgr::{Messenger, Stack};
/// use siphon_wire::types::{EntityName, EntityType};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let context = Context::default();
/// let stack = Stack::new(&context)?;
/// let osd = Messenger::builder(&context, &stack, EntityName::new(EntityType::OSD, 0)).start()?;
/// let addrs = osd.bind(&["v2:127.0.0.1:0/0".parse()?])?;
///
/// let client = Messenger::builder(&context, &stack, EntityName::new(EntityType::CLIENT, 1)).start()?;
/// let connection = client.connect_to(EntityType::OSD, addrs);
/// pollster::block_on(async {
///     assert_eq!(connection.ready().await.unwrap().name, osd.name());
///     client.shutdown().await;
///     osd.shutdown().await;
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Messenger {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

/// Bytes that may wait on a connection to be sent, unless the application says otherwise.
const DEFAULT_SEND_BOUND: u64 = 1 << 30;

/// What all clones of a messenger share, and nothing else does.
struct Owner {
    shared: Arc<Shared>,
    /// The admin socket tells of it, and of its throttles.
    _dump: Registration,
    _throttles: Vec<Arc<dyn PerfSource>>,
    _dispatch_throttle: Arc<dyn PerfSource>,
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl Drop for Owner {
    /// Nobody is left who could end what the messenger has for itself.
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Release);
        if !self.shared.is_stopping() {
            self.shared.stack.broadcast(|| (Mail::Abandon(Arc::clone(&self.shared)), ()));
        }
    }
}

/// What the workers know of a messenger.
pub(crate) struct Shared {
    context: Context,
    stack: Stack,
    name: Mutex<EntityName>,
    nonce: u32,
    policies: Arc<Policies>,
    banner_features: BannerFeatures,
    limits: Limits,
    rekey_after: u64,
    compression: Option<CompressionOptions>,
    auth_client: Arc<dyn AuthClient>,
    auth_server: Arc<dyn AuthServer>,
    chain: Chain,
    describe: fn(&Message) -> String,
    queue: DispatchQueue,
    dispatch_throttle: DispatchThrottle,
    send_bound: u64,
    addrs: Mutex<Addrs>,
    /// The connection with each peer, whichever side opened it, by the address that tells the peer
    /// from others.
    directory: Mutex<HashMap<EntityAddr, Weak<Inner>>>,
    loopback: Mutex<Weak<Inner>>,
    /// Workers that have sessions with peers of these hosts, which could not be moved to them.
    steered: Mutex<HashMap<IpAddr, usize>>,
    global_seq: Arc<GlobalSeq>,
    counters: Arc<SessionCounters>,
    /// Drawn from for each connection.
    cookie_seed: AtomicU64,
    stopping: AtomicBool,
    /// Nobody is left who could ask for a connection.
    abandoned: AtomicBool,
}

#[derive(Debug, Default)]
struct Addrs {
    mine: EntityAddrVec,
    bound: bool,
}

/// Says what a messenger is to be before it starts.
pub struct MessengerBuilder {
    context: Context,
    stack: Stack,
    name: EntityName,
    nonce: u32,
    policies: Policies,
    banner_features: BannerFeatures,
    limits: Limits,
    rekey_after: u64,
    compression: Option<CompressionOptions>,
    auth_client: Option<Arc<dyn AuthClient>>,
    auth_server: Option<Arc<dyn AuthServer>>,
    chain: Vec<Arc<dyn Dispatcher>>,
    describe: fn(&Message) -> String,
    send_bound: u64,
    cookie_seed: u64,
}

impl MessengerBuilder {
    /// Tells this instance of the entity from others at the same address; 0 by default, and random
    /// for clients.
    #[must_use]
    pub fn nonce(mut self, nonce: u32) -> Self {
        self.nonce = nonce;
        self
    }

    /// The policy towards peers without one of their own.
    #[must_use]
    pub fn default_policy(mut self, policy: Policy) -> Self {
        self.policies.set_default(policy);
        self
    }

    /// The policy towards one kind of peer.
    #[must_use]
    pub fn policy(mut self, peer_type: EntityType, policy: Policy) -> Self {
        self.policies.set(peer_type, policy);
        self
    }

    /// Bounds the messages of one kind of peer, from when they begin to arrive until the application
    /// drops them. A full throttle stops the reading from these peers, and nothing else.
    #[must_use]
    pub fn throttles(mut self, peer_type: EntityType, throttles: Throttles) -> Self {
        self.policies.set_throttles(peer_type, throttles);
        self
    }

    /// How many bytes may wait on each connection to be sent, and on a lossless session to be
    /// acknowledged: 1 GiB by default. A message that is longer waits until there is nothing else.
    #[must_use]
    pub fn send_bound(mut self, bytes: u64) -> Self {
        self.send_bound = bytes.max(1);
        self
    }

    /// Authenticates connections that we make; by default method `none`, where the options
    /// `ms_*_mode` allow mode `crc`.
    #[must_use]
    pub fn auth_client(mut self, auth: Arc<dyn AuthClient>) -> Self {
        self.auth_client = Some(auth);
        self
    }

    /// Authenticates connections that we accept; by default method `none` as above, and nobody once
    /// there is an [`auth_client`](Self::auth_client).
    #[must_use]
    pub fn auth_server(mut self, auth: Arc<dyn AuthServer>) -> Self {
        self.auth_server = Some(auth);
        self
    }

    /// Features of msgr2 to offer: revision 1 by default.
    #[must_use]
    pub fn banner_features(mut self, features: BannerFeatures) -> Self {
        self.banner_features = features;
        self
    }

    /// With whom frames are compressed, and how; otherwise the options `ms_osd_compress_*` say.
    #[must_use]
    pub fn compression(mut self, options: CompressionOptions) -> Self {
        self.compression = Some(options);
        self
    }

    /// In secure mode: how many texts the key of a link seals, before a session goes on over another
    /// link; see [`siphon_proto::ConnectionConfig::rekey_after`].
    #[must_use]
    pub fn rekey_after(mut self, texts: u64) -> Self {
        self.rekey_after = texts;
        self
    }

    /// Longest segments that are sent and accepted.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// From what the identities of sessions are drawn: random by default, set by simulators. Two
    /// messengers must not have the same.
    #[must_use]
    pub fn cookie_seed(mut self, seed: u64) -> Self {
        self.cookie_seed = seed;
        self
    }

    /// Puts a dispatcher behind those added before.
    #[must_use]
    pub fn dispatcher_tail(mut self, dispatcher: Arc<dyn Dispatcher>) -> Self {
        self.chain.push(dispatcher);
        self
    }

    /// Puts a dispatcher before those added before.
    #[must_use]
    pub fn dispatcher_head(mut self, dispatcher: Arc<dyn Dispatcher>) -> Self {
        self.chain.insert(0, dispatcher);
        self
    }

    /// How the log tells a message, at `debug_ms = 1`: for who knows what messages mean, as
    /// `siphon_messages::describe` does. By default it is told by its type's number.
    #[must_use]
    pub fn describe(mut self, describe: fn(&Message) -> String) -> Self {
        self.describe = describe;
        self
    }

    /// Starts the messenger.
    ///
    /// # Errors
    /// If its dispatch thread cannot be started, or an option `ms_*_mode` names no mode.
    pub fn start(self) -> std::io::Result<Messenger> {
        let modes = modes(&self.context.config()).map_err(std::io::Error::other)?;
        let none = AuthNone::new(self.name, self.name.num.to_string()).with_modes(modes);
        // Who shows a key to others does not let those in that have none.
        let stranger = match self.auth_client {
            None => none.clone(),
            Some(_) => none.clone().with_modes(Modes::all(&ModeList::only(ConnectionMode::SECURE))),
        };
        let chain: Chain = self.chain.into();
        let config = self.context.config();
        let queue = DispatchQueue::new(&config);
        let dispatch_throttle =
            DispatchThrottle::new(config.ms_dispatch_throttle_bytes, self.stack.workers());
        if self.stack.has_threads() {
            queue.start(Arc::clone(&chain))?;
        }
        let shared = Shared {
            context: self.context,
            stack: self.stack,
            name: Mutex::new(self.name),
            nonce: self.nonce,
            policies: Arc::new(self.policies),
            banner_features: self.banner_features,
            limits: self.limits,
            rekey_after: self.rekey_after,
            compression: self.compression,
            auth_client: self.auth_client.unwrap_or_else(|| Arc::new(none.clone())),
            auth_server: self.auth_server.unwrap_or_else(|| Arc::new(stranger)),
            chain,
            describe: self.describe,
            queue,
            dispatch_throttle,
            send_bound: self.send_bound,
            addrs: Mutex::default(),
            directory: Mutex::default(),
            loopback: Mutex::default(),
            steered: Mutex::default(),
            global_seq: Arc::default(),
            counters: Arc::default(),
            cookie_seed: AtomicU64::new(self.cookie_seed),
            stopping: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        let owner = Owner {
            _dump: dump::register(&shared),
            _throttles: throttle_counters::register(&shared.policies, shared.context.perf()),
            _dispatch_throttle: dispatch_throttle::register(&shared),
            shared: Arc::clone(&shared),
        };
        Ok(Messenger { _owner: Arc::new(owner), shared })
    }
}

impl Messenger {
    /// A messenger for the entity `name`, over the workers of `stack`.
    pub fn builder(context: &Context, stack: &Stack, name: EntityName) -> MessengerBuilder {
        let nonce = match name.kind {
            EntityType::CLIENT => rand::random(),
            _ => 0,
        };
        MessengerBuilder {
            context: context.clone(),
            stack: stack.clone(),
            name,
            nonce,
            policies: Policies::default(),
            banner_features: BannerFeatures::ALL,
            limits: Limits::SESSION,
            rekey_after: u64::MAX,
            compression: None,
            auth_client: None,
            auth_server: None,
            chain: Vec::new(),
            describe: trace::describe_header,
            send_bound: DEFAULT_SEND_BOUND,
            cookie_seed: rand::random(),
        }
    }

    /// Our name.
    pub fn name(&self) -> EntityName {
        self.shared.name()
    }

    /// Has us go by this name on connections that are made from now on; `name` is of our kind. A client
    /// learns its number from the monitors (`client.4151`), and daemons tell clients apart by it.
    ///
    /// ```
    /// # use siphon_common::Context;
    /// # use siphon_msgr::{Messenger, Stack};
    /// # use siphon_wire::types::{EntityName, EntityType};
    /// # let context = Context::default();
    /// # let stack = Stack::new(&context)?;
    /// let new = EntityName::new(EntityType::CLIENT, EntityName::NEW);
    /// let client = Messenger::builder(&context, &stack, new).start()?;
    /// client.set_name(EntityName::client(4151));
    /// assert_eq!(client.name(), EntityName::client(4151));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_name(&self, name: EntityName) {
        *lock(&self.shared.name) = name;
    }

    /// Our addresses: those we are bound to, or the one that a peer told us.
    pub fn addrs(&self) -> EntityAddrVec {
        self.shared.addrs()
    }

    /// Listens at each of `addrs`, beside those of an earlier call, and returns them with the ports and
    /// the nonce they got.
    ///
    /// Port 0 takes the first free port from `ms_bind_port_min` to `ms_bind_port_max`, or any that
    /// the operating system chooses if both are 0. A port in use is tried `ms_bind_retry_count`
    /// times more, every `ms_bind_retry_delay` seconds; this blocks meanwhile.
    ///
    /// # Errors
    /// If one of them cannot be had; then none is kept.
    pub fn bind(&self, addrs: &[EntityAddr]) -> Result<EntityAddrVec, BindError> {
        let config = self.shared.context.config();
        let mut attempt = 1;
        loop {
            match pollster::block_on(self.bind_once(addrs)) {
                Err(error) if error.is_in_use() && attempt <= config.ms_bind_retry_count => {
                    tracing::info!(%error, attempt, "trying again");
                    std::thread::sleep(config.ms_bind_retry_delay);
                    attempt += 1;
                }
                Err(BindError::NoFreePort { addr, min, max, .. }) => {
                    return Err(BindError::NoFreePort { addr, min, max, tries: attempt });
                }
                result => return result,
            }
        }
    }

    /// As [`bind`](Self::bind), but without blocking and without trying again.
    ///
    /// # Errors
    /// As there.
    pub async fn bind_once(&self, addrs: &[EntityAddr]) -> Result<EntityAddrVec, BindError> {
        if self.shared.is_stopping() {
            return Err(BindError::Shutdown);
        }
        let (bound, listeners) = bind::bind(&self.shared, addrs).await?;
        let mut known = lock(&self.shared.addrs);
        if !known.bound {
            known.mine = EntityAddrVec::default(); // what a peer told us before
        }
        known.mine = known.mine.iter().chain(bound.iter()).copied().collect();
        known.bound = true;
        drop(known);
        self.shared.stack.listening_worker().send(Mail::Serve(listeners));
        Ok(bound)
    }

    /// The connection to a peer at `addrs`, whichever side opened it; made now if there is none. Its
    /// kind is checked; `ANY` takes whoever is there. At our own addresses there is the
    /// [`loopback`](Self::loopback).
    pub fn connect_to(&self, peer_type: EntityType, addrs: EntityAddrVec) -> Connection {
        if !addrs.is_empty() && addrs == self.addrs() {
            return self.loopback();
        }
        let key = identity(&addrs);
        let mut directory = lock(&self.shared.directory);
        if let Some(existing) = directory.get(&key).and_then(alive)
            && fits(&existing, peer_type)
        {
            return existing;
        }
        let connection = self.shared.stack.place(&self.shared, peer_type, addrs);
        directory.insert(key, connection.downgrade());
        // With the lock held: whoever finds it knows that its worker will have heard of it.
        connection.start_connecting();
        connection
    }

    /// A connection of its own to a peer, that nobody else is given and that takes no part in who
    /// connects to whom: for questions on the side.
    pub fn connect_anonymously(&self, peer_type: EntityType, addrs: EntityAddrVec) -> Connection {
        let connection = self.shared.stack.place(&self.shared, peer_type, addrs);
        connection.start_connecting();
        connection
    }

    /// The connection to ourselves: what is sent on it is dispatched here, in order. There is one, and
    /// it lasts as long as the messenger.
    pub fn loopback(&self) -> Connection {
        let mut known = lock(&self.shared.loopback);
        if let Some(existing) = known.upgrade().map(Connection::from_inner)
            && (existing.close_reason().is_none() || self.shared.is_stopping())
        {
            return existing;
        }
        let connection = self.shared.stack.place(&self.shared, self.name().kind, self.addrs());
        *known = connection.downgrade();
        drop(known);
        connection.start_loopback();
        connection
    }

    /// How often sessions were opened, resumed and reset, and what it took.
    pub fn session_counts(&self) -> SessionCounts {
        self.shared.counters.counts()
    }

    /// Delivers what waits for the dispatch thread, `most` items at a time, and says how many there
    /// were. Only over a [`Stack::stepped`] is there something to do here: any other stack's
    /// messengers have a thread for it.
    pub fn dispatch_waiting(&self, most: usize) -> usize {
        self.shared.queue.deliver_waiting(&self.shared.chain, most)
    }

    /// Ends the messenger: stops accepting, sends what waits, and closes; then waits until the
    /// dispatchers have taken what had arrived. Peers that don't take what waits are left after 10
    /// seconds.
    ///
    /// A dispatcher must not wait for this: it would wait for itself. A messenger whose last clone
    /// is dropped without it listens no more and has no loopback; its open connections go on until
    /// either side ends them, or a fault does.
    pub async fn shutdown(&self) {
        self.shutdown_within(DEFAULT_LINGER).await;
    }

    /// As [`shutdown`](Self::shutdown), leaving peers that don't take what waits after `linger`.
    pub async fn shutdown_within(&self, linger: Duration) {
        self.shared.stopping.store(true, Ordering::Release);
        for done in self.shared.stack.broadcast(|| {
            let (sender, receiver) = oneshot::channel();
            (Mail::Shutdown(Arc::clone(&self.shared), linger, sender), receiver)
        }) {
            let _ = done.await; // a worker that is gone has nothing open
        }
        self.shared.queue.closed().await;
    }
}

impl Shared {
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn stack(&self) -> &Stack {
        &self.stack
    }

    pub(crate) fn name(&self) -> EntityName {
        *lock(&self.name)
    }

    pub(crate) fn describe(&self, message: &Message) -> String {
        (self.describe)(message)
    }

    pub(crate) fn addrs(&self) -> EntityAddrVec {
        lock(&self.addrs).mine.clone()
    }

    pub(crate) fn nonce(&self) -> u32 {
        self.nonce
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn auth_client(&self) -> &dyn AuthClient {
        self.auth_client.as_ref()
    }

    pub(crate) fn auth_server(&self) -> &dyn AuthServer {
        self.auth_server.as_ref()
    }

    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    pub(crate) fn queue(&self) -> &DispatchQueue {
        &self.queue
    }

    pub(crate) fn dispatch_throttle(&self) -> &DispatchThrottle {
        &self.dispatch_throttle
    }

    pub(crate) fn send_bound(&self) -> u64 {
        self.send_bound
    }

    /// Whether connections have to be woken by throttles.
    pub(crate) fn has_throttles(&self) -> bool {
        self.policies.has_throttles()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// What the protocol has to know for one more connection.
    pub(crate) fn connection_config(&self, pool: &SegmentPool) -> ConnectionConfig {
        let config = self.context.config();
        ConnectionConfig {
            name: self.name(),
            addrs: lock(&self.addrs).mine.clone(),
            nonce: self.nonce,
            learn_addr: config.ms_learn_addr_from_peer,
            policies: Arc::clone(&self.policies),
            banner_features: self.banner_features,
            crc_data: config.ms_crc_data,
            copied: self.stack.copied(),
            limits: self.limits,
            rekey_after: self.rekey_after,
            compression: self.compression.clone().unwrap_or_else(|| compression(&config)),
            ready_timeout: config.ms_connection_ready_timeout,
            idle_timeout: config.ms_connection_idle_timeout,
            initial_backoff: config.ms_initial_backoff,
            max_backoff: config.ms_max_backoff,
            global_seq: Arc::clone(&self.global_seq),
            // Far apart, and never the same twice.
            cookie_seed: self.cookie_seed.fetch_add(0xd1b5_4a32_d192_ed03, Ordering::Relaxed),
            counters: Arc::clone(&self.counters),
            pool: pool.clone(),
            waker: Waker::noop().clone(),
        }
    }

    /// What is spoken where we listen with this socket: `v2`, or `v1`.
    pub(crate) fn kind_at(&self, local: SocketAddr) -> AddrType {
        let addrs = lock(&self.addrs);
        let is_here = |addr: &&EntityAddr| addr.port() == local.port();
        addrs.mine.iter().find(is_here).map_or(AddrType::MSGR2, EntityAddr::kind)
    }

    /// The next peer that comes from this host is taken to this worker.
    pub(crate) fn steer(&self, host: IpAddr, worker: usize) {
        /// Hosts of which this is known at once; of others it is found out again.
        const MAX_STEERED: usize = 1024;
        let mut steered = lock(&self.steered);
        if steered.len() < MAX_STEERED {
            steered.insert(host, worker);
        }
    }

    pub(crate) fn take_steered(&self, host: IpAddr) -> Option<usize> {
        lock(&self.steered).remove(&host)
    }

    /// The connection that a peer has already; if there is none, and `register` says so, it has
    /// `connection` from now on.
    pub(crate) fn find_or_register(
        &self,
        peer: &EntityAddrVec,
        connection: &Connection,
        register: bool,
    ) -> Option<Connection> {
        let key = identity(peer);
        let mut directory = lock(&self.directory);
        let existing = directory.get(&key).and_then(alive).filter(|it| it != connection);
        if existing.is_none() && register {
            directory.insert(key, connection.downgrade());
        }
        existing
    }

    /// The peer's connection is this one, whichever it was before.
    pub(crate) fn register(&self, peer: &EntityAddrVec, connection: &Connection) {
        lock(&self.directory).insert(identity(peer), connection.downgrade());
    }

    /// The connection has ended.
    pub(crate) fn unregister(&self, connection: &Connection) {
        let mut directory = lock(&self.directory);
        for addrs in [connection.target(), &connection.peer_addrs()] {
            let key = identity(addrs);
            let known = directory.get(&key).and_then(Weak::upgrade).map(Connection::from_inner);
            if known.is_some_and(|known| known == *connection) {
                directory.remove(&key);
            }
        }
    }

    /// How our address looks from a peer that we connected to, or on our side of its socket: the first
    /// that says so is believed where we don't know it ourselves. Returns our addresses.
    pub(crate) fn learned_addr(&self, seen: &EntityAddr) -> EntityAddrVec {
        let mut addrs = lock(&self.addrs);
        let Some(ip) = seen.ip() else {
            return addrs.mine.clone();
        };
        if !addrs.bound && addrs.mine.is_empty() {
            addrs.mine = EntityAddrVec::from(siphon_proto::learned_addr(*seen, self.nonce));
            tracing::debug!(addrs = %addrs.mine, "learned our address");
        } else if addrs.mine.iter().any(is_unspecified) {
            addrs.mine = with_ip(&addrs.mine, ip);
            tracing::debug!(addrs = %addrs.mine, "learned our address");
        }
        addrs.mine.clone()
    }
}

/// Compression as the configuration has it. What its options take, the protocol has.
fn compression(config: &Config) -> CompressionOptions {
    CompressionOptions {
        mode: config.ms_osd_compress_mode.parse().unwrap_or(Mode::None),
        algorithms: Algorithm::list(&config.ms_osd_compression_algorithm).unwrap_or_default(),
        min_size: usize::try_from(config.ms_osd_compress_min_size).unwrap_or(usize::MAX),
        secure: config.ms_compress_secure,
        anybody: false,
    }
}

/// By which a peer is known: its address of msgr2, which both sides have.
fn identity(addrs: &EntityAddrVec) -> EntityAddr {
    addrs.msgr2().unwrap_or_else(|| addrs.front())
}

fn alive(known: &Weak<Inner>) -> Option<Connection> {
    let connection = known.upgrade().map(Connection::from_inner)?;
    connection.close_reason().is_none().then_some(connection)
}

/// Whether a connection leads to such a peer, as far as is known.
fn fits(connection: &Connection, peer_type: EntityType) -> bool {
    let found = connection.peer().map_or(connection.expected(), |peer| peer.name.kind);
    [found, peer_type].contains(&EntityType::ANY) || found == peer_type
}

/// Addresses of which those that stand for every interface are the one at `ip`.
pub(crate) fn with_ip(addrs: &EntityAddrVec, ip: IpAddr) -> EntityAddrVec {
    let known = addrs.iter().map(|addr| match addr.socket_addr() {
        Some(bound) if bound.ip().is_unspecified() && bound.is_ipv4() == ip.is_ipv4() => {
            addr.with_socket_addr(SocketAddr::new(ip, bound.port()))
        }
        _ => *addr,
    });
    known.collect()
}

fn is_unspecified(addr: &EntityAddr) -> bool {
    addr.socket_addr().is_some_and(|addr| addr.ip().is_unspecified())
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messenger")
            .field("name", &self.name())
            .field("nonce", &self.nonce)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MessengerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessengerBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
