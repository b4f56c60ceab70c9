//! Messengers on simulated hosts, and the loop that runs them in virtual time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use siphon_common::{Config, Context};
use siphon_msgr::{
    CloseReason, Connection, Dispatcher, Messenger, SessionCounts, Stack, SteppedWorker,
};
use siphon_proto::{Message, Policy, Throttle, Throttles};
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityType};

use crate::net::{Net, NetOptions};

/// Messages of this type are dispatched on the worker, others by the dispatch queue.
pub const FAST: u16 = 42;
/// A message for the dispatch queue.
pub const QUEUED: u16 = 43;

/// Whose messages a node's throttles bound.
const KINDS: [EntityType; 5] =
    [EntityType::MON, EntityType::OSD, EntityType::MDS, EntityType::MGR, EntityType::CLIENT];

/// Turns without time moving on: more of them mean that somebody works for nothing.
const MAX_TURNS_AT_ONCE: usize = 100_000;
/// Items that a dispatch thread takes in its turn.
const DISPATCH_BATCH: usize = 16;

/// Which node, in the order in which they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// What a node's dispatcher was told.
#[derive(Clone, Debug)]
pub enum News {
    /// A message; its connection and what it carries.
    Message(Connection, Message),
    /// A connection that we asked for is open, or is again.
    Connect(Connection),
    /// A connection that a peer asked for is open, or is again.
    Accept(Connection),
    /// The peer had forgotten the session.
    RemoteReset(Connection),
    /// A connection has ended, and why.
    Reset(Connection, CloseReason),
    /// Nobody listened.
    Refused(Connection),
}

/// How a node is to be.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// What it is.
    pub name: EntityName,
    /// How it treats peers of each kind; the first is for all others.
    pub policies: Vec<(EntityType, Policy)>,
    /// Tells it from others at the same address.
    pub nonce: u32,
    /// Whether it listens.
    pub listens: bool,
    /// Threads of its stack.
    pub workers: usize,
    /// `ms_dispatch_throttle_bytes`.
    pub dispatch_bytes: u64,
    /// Bounds of what arrives from all peers, in bytes and in messages; 0 is none.
    pub throttles: (u64, u64),
    /// Bound of what waits on each connection to be sent, in bytes.
    pub send_bound: u64,
}

impl NodeOptions {
    /// A node that listens and treats everyone alike.
    pub fn new(kind: EntityType, num: i64, policy: Policy) -> Self {
        Self {
            name: EntityName::new(kind, num),
            policies: vec![(EntityType::ANY, policy)],
            nonce: 0,
            listens: true,
            workers: 1,
            dispatch_bytes: 100 << 20,
            throttles: (0, 0),
            send_bound: 1 << 30,
        }
    }
}

/// A host with one messenger.
pub struct Node {
    options: NodeOptions,
    ip: IpAddr,
    messenger: Messenger,
    workers: Vec<SteppedWorker>,
    news: Arc<Mutex<VecDeque<News>>>,
    throttles: Throttles,
    addrs: EntityAddrVec,
    /// Started anew so many times.
    generation: u64,
}

/// Everything, on one thread and one clock.
pub struct World {
    /// The network between the nodes.
    pub net: Net,
    nodes: Vec<Node>,
    config: Config,
    seed: u64,
    /// What sessions went through at nodes that are no more.
    past: SessionCounts,
}

struct Witness(Arc<Mutex<VecDeque<News>>>);

impl Witness {
    fn tell(&self, news: News) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push_back(news);
    }
}

impl Dispatcher for Witness {
    fn can_fast_dispatch(&self, message: &Message) -> bool {
        message.header.msg_type == FAST
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        self.tell(News::Message(connection.clone(), message));
    }

    fn dispatch(&self, connection: &Connection, message: Message) -> Option<Message> {
        self.tell(News::Message(connection.clone(), message));
        None
    }

    fn handle_connect(&self, connection: &Connection) {
        self.tell(News::Connect(connection.clone()));
    }

    fn handle_accept(&self, connection: &Connection) {
        self.tell(News::Accept(connection.clone()));
    }

    fn handle_reset(&self, connection: &Connection, reason: &CloseReason) -> bool {
        self.tell(News::Reset(connection.clone(), reason.clone()));
        true
    }

    fn handle_remote_reset(&self, connection: &Connection) {
        self.tell(News::RemoteReset(connection.clone()));
    }

    fn handle_refused(&self, connection: &Connection) {
        self.tell(News::Refused(connection.clone()));
    }
}

impl World {
    /// A network without anybody.
    pub fn new(seed: u64, options: NetOptions) -> Self {
        let mut config = Config::default();
        config.ms_initial_backoff = Duration::from_millis(50);
        config.ms_max_backoff = Duration::from_secs(2);
        config.ms_connection_ready_timeout = Duration::from_secs(5);
        config.ms_connection_idle_timeout = Duration::from_secs(60);
        let net = Net::new(seed, options);
        Self { net, nodes: Vec::new(), config, seed, past: SessionCounts::default() }
    }

    /// The configuration of nodes that are made from now on.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.net.now()
    }

    /// Adds a node on a host of its own.
    pub fn add(&mut self, options: NodeOptions) -> NodeId {
        let id = NodeId(self.nodes.len());
        let [high, low] = (id.0 as u16 + 1).to_be_bytes();
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, high, low));
        let node = self.start(id, ip, options, 0);
        self.nodes.push(node);
        self.bind(id);
        id
    }

    /// Ends a node without a word to anybody, and starts it again under this nonce.
    pub fn restart(&mut self, id: NodeId, nonce: u32) {
        self.past += self.nodes[id.0].messenger.session_counts();
        let Node { ip, generation, ref options, .. } = self.nodes[id.0];
        let options = NodeOptions { nonce, ..options.clone() };
        self.net.crash(ip);
        self.nodes[id.0] = self.start(id, ip, options, generation + 1);
        self.bind(id);
    }

    /// How often a node was started again.
    pub fn generation(&self, id: NodeId) -> u64 {
        self.nodes[id.0].generation
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node's host.
    pub fn ip(&self, id: NodeId) -> IpAddr {
        self.nodes[id.0].ip
    }

    /// A node's messenger.
    pub fn messenger(&self, id: NodeId) -> &Messenger {
        &self.nodes[id.0].messenger
    }

    /// Where a node listens, or what it goes by.
    pub fn addrs(&self, id: NodeId) -> EntityAddrVec {
        self.nodes[id.0].addrs.clone()
    }

    /// A node's connection to another.
    pub fn connect(&self, from: NodeId, to: NodeId) -> Connection {
        let kind = self.nodes[to.0].options.name.kind;
        self.messenger(from).connect_to(kind, self.addrs(to))
    }

    /// What a node was told since it was last asked.
    pub fn take_news(&self, id: NodeId) -> Vec<News> {
        let mut news = self.nodes[id.0].news.lock().unwrap_or_else(|it| it.into_inner());
        news.drain(..).collect()
    }

    /// Connections that a node's workers own.
    pub fn connections(&self, id: NodeId) -> usize {
        self.nodes[id.0].workers.iter().map(SteppedWorker::connections).sum()
    }

    /// What all sessions went through.
    pub fn session_counts(&self) -> SessionCounts {
        let mut counts = self.past;
        for node in &self.nodes {
            counts += node.messenger.session_counts();
        }
        counts
    }

    /// Does all that can be done at this time, in an order that `shuffle` gives: it is asked for a
    /// number below its argument. Says whether there was anything.
    ///
    /// # Errors
    /// If that has no end.
    pub fn settle(&mut self, shuffle: &mut dyn FnMut(usize) -> usize) -> Result<bool, String> {
        for turn in 0..MAX_TURNS_AT_ONCE {
            let mut busy = false;
            let first = if self.nodes.is_empty() { 0 } else { shuffle(self.nodes.len()) };
            for offset in 0..self.nodes.len() {
                let at = (first + offset) % self.nodes.len();
                let node = &mut self.nodes[at];
                for worker in &mut node.workers {
                    busy |= worker.step().map_err(|error| error.to_string())? > 0;
                }
                busy |= node.messenger.dispatch_waiting(DISPATCH_BATCH) > 0;
            }
            if !busy {
                return Ok(turn > 0);
            }
        }
        Err("a worker is busy for ever at one moment".to_owned())
    }

    /// When something happens next by itself.
    pub fn next_event(&self) -> Option<Instant> {
        let workers = self.nodes.iter().flat_map(|node| &node.workers);
        workers.filter_map(SteppedWorker::next_deadline).chain(self.net.next_event()).min()
    }

    /// Moves time on to the next event, but not beyond `limit`; false if there is none before.
    pub fn advance(&mut self, limit: Instant) -> bool {
        let next = self.next_event().filter(|at| *at <= limit);
        self.net.advance_to(next.unwrap_or(limit).max(self.now()));
        next.is_some()
    }

    /// Runs for this time.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now() + time;
        loop {
            self.settle(&mut |_| 0)?;
            if !self.advance(end) {
                return self.settle(&mut |_| 0).map(drop);
            }
        }
    }

    /// Runs until a condition holds.
    ///
    /// # Errors
    /// If it does not within this time.
    pub fn run_until(
        &mut self,
        what: &str,
        within: Duration,
        mut holds: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), String> {
        let end = self.now() + within;
        loop {
            self.settle(&mut |_| 0)?;
            if holds(self) {
                return Ok(());
            }
            if self.settle(&mut |_| 0)? {
                continue; // looking has set something going
            }
            if !self.advance(end) {
                let done = holds(self); // by what the last turn did without counting it
                let late = || format!("not within {within:?}: {what}");
                return if done { Ok(()) } else { Err(late()) };
            }
        }
    }

    /// Runs until a future is done.
    ///
    /// # Errors
    /// If it is not within this time.
    pub fn block_on<T>(
        &mut self,
        what: &str,
        within: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, String> {
        let mut future = pin!(future);
        let mut result = None;
        self.run_until(what, within, |_| {
            let mut context = TaskContext::from_waker(Waker::noop());
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                result = Some(value);
            }
            result.is_some()
        })?;
        result.ok_or_else(|| what.to_owned())
    }

    /// Ends all messengers in good order, and looks for what they leave behind.
    ///
    /// # Errors
    /// If one does not end, or leaves something.
    pub fn shut_down(&mut self) -> Result<(), String> {
        const LINGER: Duration = Duration::from_secs(10);
        for id in (0..self.nodes.len()).map(NodeId) {
            let messenger = self.messenger(id).clone();
            let end = async move { messenger.shutdown_within(LINGER).await };
            self.block_on(&format!("node {} shuts down", id.0), 4 * LINGER, end)?;
        }
        for id in (0..self.nodes.len()).map(NodeId) {
            let left = self.connections(id);
            if left > 0 {
                return Err(format!("node {} leaks {left} connections", id.0));
            }
            drop(self.take_news(id));
            let Throttles { bytes, messages } = &self.nodes[id.0].throttles;
            for throttle in [bytes, messages].into_iter().flatten() {
                let (name, held) = (throttle.name(), throttle.current());
                if held > 0 || throttle.waiting() > 0 {
                    return Err(format!("node {}: {held} {name} are not given back", id.0));
                }
            }
        }
        Ok(())
    }

    fn start(&self, id: NodeId, ip: IpAddr, options: NodeOptions, generation: u64) -> Node {
        let mut config = self.config.clone();
        config.ms_dispatch_throttle_bytes = options.dispatch_bytes;
        let context = Context::new(config);
        let drivers = (0..options.workers.max(1)).map(|_| self.net.driver(ip)).collect();
        let (stack, workers) = Stack::stepped(drivers);
        let news: Arc<Mutex<VecDeque<News>>> = Arc::default();
        // Sessions of one node are told from those of others, and of the same one before.
        let identity = (id.0 as u64) << 32 | generation << 48;
        let mut builder = Messenger::builder(&context, &stack, options.name)
            .nonce(options.nonce)
            .send_bound(options.send_bound)
            .cookie_seed(self.seed ^ identity)
            .dispatcher_tail(Arc::new(Witness(Arc::clone(&news))));
        let bound = |name, max| (max > 0).then(|| Throttle::new(name, max));
        let (bytes, messages) = options.throttles;
        let throttles =
            Throttles { bytes: bound("bytes", bytes), messages: bound("messages", messages) };
        if bytes > 0 || messages > 0 {
            for kind in KINDS {
                builder = builder.throttles(kind, throttles.clone());
            }
        }
        for (kind, policy) in &options.policies {
            builder = match *kind {
                EntityType::ANY => builder.default_policy(*policy),
                kind => builder.policy(kind, *policy),
            };
        }
        #[expect(clippy::expect_used, reason = "without threads nothing can fail")]
        let messenger = builder.start().expect("a stepped stack starts no thread");
        let addrs = EntityAddrVec::default();
        Node { options, ip, messenger, workers, news, throttles, addrs, generation }
    }

    fn bind(&mut self, id: NodeId) {
        let node = &self.nodes[id.0];
        if !node.options.listens {
            return;
        }
        let addr = EntityAddr::msgr2((node.ip, 6800).into(), node.options.nonce);
        let messenger = node.messenger.clone();
        let bound = Rc::new(RefCell::new(None));
        let found = Rc::clone(&bound);
        let bind = async move { *found.borrow_mut() = Some(messenger.bind_once(&[addr]).await) };
        let within = Duration::from_secs(1);
        let done = self.block_on("a node binds", within, bind);
        match (done, bound.take()) {
            (Ok(()), Some(Ok(addrs))) => self.nodes[id.0].addrs = addrs,
            (done, bound) => panic!("a node cannot bind: {done:?} {bound:?}"),
        }
    }
}
