use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use siphon_verbs::{
    Chunk, CmId, CmKey, CompletionQueue, ConnectParameters, EventChannel, PollRoom, QueueId,
    QueuePair, SharedReceiveQueue, WorkCompletion,
};
use siphon_wire::buf::Rope;

use super::connecting::new_id;
use super::connector::Connected;
use super::counters::{RdmaCounters, add};
use super::device::{Device, RdmaConnect};
use super::dying::{Dying, Ending};
use super::pool::{ReceivePool, SendPool};
use super::socket::{Socket, Stage, recycle};
use crate::FillBuf;
use crate::driver::{
    Accepted, Completion, Driver, FileId, Interest, ListenOptions, ListenerId, SendStatus,
    SocketId, SocketOptions, Wait,
};
use crate::id_map::IdMap;
use crate::posix::PosixDriver;
use crate::slab::{Key, Slab};

/// Chunks that are posted at least.
pub(super) const POSTED_MIN: usize = 64;
/// How long connecting may take, from step to step.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long a connection lives after the peer's socket of the exchange was closed: what was sent
/// before that comes another way.
pub(super) const AFTER_TCP: Duration = Duration::from_secs(1);
/// How long who accepts by iWARP waits for the first bytes of who connects before it sends its own: MPA
/// has the connecting side speak first (RFC 5044, 7.1), and siw refuses a connection where bytes come
/// along with the answer. Longer it does not wait, since a client of msgr1 listens first.
pub(super) const HELD: Duration = Duration::from_millis(100);
/// The same for RDMA-CM's steps, in milliseconds.
pub(super) const CM_STEP_MS: i32 = 5000;
/// How often a worker looks whether the device is still there.
const LOOKS: Duration = Duration::from_secs(1);
/// Polls for completions between looks at the clock, with which whoever else is runnable has a turn.
const POLLS_AT_ONCE: usize = 64;
/// While completions come, descriptors are looked at in one of so many waits.
const WAITS_WITHOUT_LOOK: usize = 16;
/// How long it polls without a look at descriptors, which tell of connecting.
const POLLING_WITHOUT_LOOK: Duration = Duration::from_micros(200);
/// Room of a completion queue, as Ceph has it, where the device has so much.
const COMPLETIONS: u32 = 30_000;

/// Tokens of our own descriptors in the inner driver; what others register comes behind.
const TOKEN_COMPLETIONS: u64 = 0;
const TOKEN_ASYNC: u64 = 1;
const TOKEN_CM: u64 = 2;
const TOKEN_OTHERS: u64 = 3;

/// One worker's share of an RDMA stack. See [`NetworkStack::rdma`](crate::NetworkStack::rdma).
pub struct RdmaDriver {
    pub(super) posix: PosixDriver,
    pub(super) device: Arc<Device>,
    pub(super) counters: Arc<RdmaCounters>,
    pub(super) completions: CompletionQueue,
    pub(super) shared: Option<SharedReceiveQueue>,
    pub(super) receives: Arc<ReceivePool>,
    /// Chunks to receive into that are registered, and that may be.
    pub(super) registered: usize,
    pub(super) most_registered: usize,
    pub(super) sends: SendPool,
    pub(super) sockets: Slab<Socket>,
    pub(super) count: usize,
    pub(super) dying: Vec<Dying>,
    /// Whose a completion is.
    pub(super) queues: IdMap<QueueId, Key>,
    pub(super) numbers: IdMap<u32, Key>,
    /// Whose a socket of the exchange is.
    pub(super) exchanges: IdMap<SocketId, Key>,
    pub(super) cm: Option<Cm>,
    /// What others registered: the token they gave.
    pub(super) files: IdMap<u64, (FileId, u64)>,
    pub(super) next_file: u64,
    pub(super) turns: Vec<Key>,
    pub(super) current_turns: Vec<Key>,
    pub(super) starved: Vec<Key>,
    /// Queue pairs that a thread has connected.
    pub(super) connected: Arc<Connected>,
    pub(super) gone: bool,
    /// How much of the device's news it has seen.
    pub(super) heard: u64,
    /// Our own descriptors in the inner driver.
    pub(super) own_files: Vec<FileId>,
    /// When the first worker looks next whether the device is still there.
    looks: Option<Instant>,
    /// Connections that end by themselves if nothing comes.
    pub(super) timed: Vec<Key>,
    /// Those that send nothing yet.
    pub(super) held: Vec<Key>,
    wake: Arc<WakeFlag>,
    /// Waits since descriptors were looked at.
    unlooked: usize,
    /// When it sleeps, if nothing comes until then.
    polls_until: Option<Instant>,
    waited: bool,
    events: Vec<Inner>,
    pub(super) room: PollRoom,
    pub(super) done: Vec<WorkCompletion>,
    pub(super) spare: Vec<Chunk>,
}

/// What RDMA-CM has to do with.
pub(super) struct Cm {
    pub(super) channel: EventChannel,
    pub(super) ids: IdMap<CmKey, Key>,
    pub(super) listeners: Slab<CmId>,
}

/// What a connection that RDMA-CM accepted carries to the worker that adopts it.
pub(super) struct CmTransport(pub(super) CmId);

/// What the inner driver completed.
enum Inner {
    Accepted(ListenerId, Accepted),
    AcceptFailed(ListenerId, io::Error),
    Connected(SocketId, io::Result<()>),
    Received(SocketId, io::Result<Vec<u8>>),
    Sent(SocketId, io::Result<()>),
    Ready { token: u64, readable: bool, writable: bool },
}

impl RdmaDriver {
    pub(super) fn new(device: Arc<Device>, worker: usize) -> io::Result<Self> {
        let mut posix = PosixDriver::new()?;
        let counters = device.counters_of(worker);
        let depth = COMPLETIONS.min(device.limits.max_cqe);
        let completions = CompletionQueue::new(&device.context, depth)?;
        let depth = device.options.receive_queue_len;
        let shared = match device.options.shared_receives {
            true => Some(SharedReceiveQueue::new(&device.domain, depth)?),
            false => None,
        };
        let readable = Interest::READABLE;
        let mut own_files = vec![
            posix.register_file(completions.as_fd(), readable, TOKEN_COMPLETIONS)?,
            posix.register_file(device.context.as_fd(), readable, TOKEN_ASYNC)?,
        ];
        let cm = match device.options.connect {
            RdmaConnect::Tcp => None,
            RdmaConnect::Cm => {
                let channel = EventChannel::new(device.context.verbs())?;
                own_files.push(posix.register_file(channel.as_fd(), readable, TOKEN_CM)?);
                Some(Cm { channel, ids: IdMap::default(), listeners: Slab::new() })
            }
        };
        let wake = Arc::new(WakeFlag::new(posix.waker()));
        let is_first = device.add_worker(Waker::from(Arc::clone(&wake))) == 0;
        let waker = Waker::from(Arc::clone(&wake));
        let receives = ReceivePool::new(waker, Arc::clone(&counters));
        // Where /sys cannot be seen it tells nothing.
        let looks = (is_first && device.context.is_offered()).then(|| posix.now() + LOOKS);
        let sends = SendPool::new(&device, Arc::clone(&counters))?;
        let mut driver = Self {
            posix,
            counters,
            completions,
            shared,
            receives: Arc::new(receives),
            registered: 0,
            most_registered: device.options.receive_buffers as usize,
            sends,
            sockets: Slab::new(),
            count: 0,
            dying: Vec::new(),
            queues: IdMap::default(),
            numbers: IdMap::default(),
            exchanges: IdMap::default(),
            cm,
            files: IdMap::default(),
            next_file: TOKEN_OTHERS,
            turns: Vec::new(),
            current_turns: Vec::new(),
            starved: Vec::new(),
            connected: Arc::new(Connected::new(Waker::from(Arc::clone(&wake)))),
            gone: false,
            heard: 0,
            own_files,
            looks,
            timed: Vec::new(),
            held: Vec::new(),
            wake,
            unlooked: 0,
            polls_until: None,
            waited: false,
            events: Vec::new(),
            room: PollRoom::default(),
            done: Vec::new(),
            spare: Vec::new(),
            device,
        };
        driver.grow()?;
        driver.refill();
        Ok(driver)
    }

    fn socket(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets.get_mut(Key::from_bits(id.bits()))
    }

    fn add_socket(&mut self, socket: Socket) -> Key {
        self.count += 1;
        let key = self.sockets.insert(socket);
        self.set_deadline(key, CONNECTING);
        key
    }

    /// Has the connection fail after this time, unless its deadline is taken back.
    pub(super) fn set_deadline(&mut self, key: Key, after: Duration) {
        if let Some(socket) = self.sockets.get_mut(key) {
            if socket.deadline.is_none() {
                self.timed.push(key);
            }
            socket.deadline = Some(self.posix.now() + after);
        }
    }

    pub(super) fn queue_turn(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get_mut(key)
            && !socket.queued
            && socket.wants_turn()
        {
            socket.queued = true;
            self.turns.push(key);
        }
    }

    pub(super) fn fail(&mut self, key: Key, error: io::Error) {
        if let Some(socket) = self.sockets.get_mut(key) {
            if !matches!(socket.stage, Stage::Open) {
                add(&self.counters.handshake_errors, 1);
            }
            socket.fail(error);
            self.queue_turn(key);
        }
    }

    /// What the inner driver did.
    fn apply(&mut self, event: Inner, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        let now = self.posix.now();
        match event {
            Inner::Accepted(listener, accepted) => {
                sink(now, Completion::Accepted { listener, accepted });
            }
            Inner::AcceptFailed(listener, error) => {
                sink(now, Completion::AcceptFailed { listener, error });
            }
            Inner::Ready { token: TOKEN_COMPLETIONS, .. } => {
                if let Err(error) = self.completions.take_events() {
                    self.lose_device(&error.into());
                }
            }
            Inner::Ready { token: TOKEN_ASYNC, .. } => self.take_async_events(),
            Inner::Ready { token: TOKEN_CM, .. } => self.take_cm_events(sink),
            Inner::Ready { token, readable, writable } => {
                if let Some((_, token)) = self.files.get(&token) {
                    sink(now, Completion::FileReady { token: *token, readable, writable });
                }
            }
            Inner::Connected(tcp, result) => {
                let Some(key) = self.exchanges.get(&tcp).copied() else { return };
                let made = result.and_then(|()| self.make_queue(key));
                match made {
                    Ok(()) => {
                        if let Some(socket) = self.sockets.get_mut(key) {
                            socket.stage = Stage::Record(Vec::new());
                        }
                        self.send_record(key, 0);
                        self.posix.recv(tcp, None);
                    }
                    Err(error) => self.fail(key, error),
                }
            }
            Inner::Received(tcp, result) => self.tcp_received(tcp, result),
            Inner::Sent(tcp, Err(error)) => {
                if let Some(key) = self.exchanges.get(&tcp).copied() {
                    self.fail(key, error);
                }
            }
            Inner::Sent(_, Ok(())) => {}
        }
    }

    /// When something has to be done without anything coming.
    fn deadline(&self) -> Option<Instant> {
        let sockets = self.timed.iter().filter_map(|key| self.sockets.get(*key)?.deadline);
        let held = self.held.iter().filter_map(|key| self.sockets.get(*key)?.held_until);
        sockets.chain(held).chain(self.dying.iter().map(Dying::deadline)).chain(self.looks).min()
    }

    /// Looks whether the device is still there, of which nothing else may tell.
    fn look(&mut self) {
        let now = self.posix.now();
        if self.looks.is_none_or(|at| at > now) {
            return;
        }
        self.looks = Some(now + LOOKS);
        if !self.device.context.is_offered() {
            self.looks = None;
            let device = &self.device.context.device().name;
            let error = format!("the RDMA device {device} was removed from the system");
            self.lose_device(&io::Error::other(error));
        }
    }

    fn expire(&mut self) {
        if self.dying.is_empty() && self.held.is_empty() && self.timed.is_empty() {
            return;
        }
        let now = self.posix.now();
        let mut at = 0;
        while at < self.dying.len() {
            if self.gone || self.dying[at].is_dead(now) {
                let dying = self.dying.swap_remove(at);
                if let Some(tcp) = dying.tcp {
                    self.posix.close(tcp);
                }
                while self.poll() {} // what a device drops with the queue pair
                let number = dying.queue().number();
                let (pieces, chunks) = dying.destroy();
                self.device.forget(number);
                pieces.into_iter().for_each(|piece| recycle(piece, &mut self.sends));
                self.receives.extend(chunks);
                self.counters.active_queue_pair.fetch_sub(1, Ordering::Relaxed);
            } else {
                at += 1;
            }
        }
        for key in mem::take(&mut self.held) {
            let Some(socket) = self.sockets.get_mut(key) else { continue };
            match socket.held_until {
                Some(at) if at > now => self.held.push(key),
                _ => {
                    socket.held_until = None;
                    self.queue_turn(key);
                }
            }
        }
        let (sockets, mut late) = (&self.sockets, Vec::new());
        self.timed.retain(|key| match sockets.get(*key).and_then(|socket| socket.deadline) {
            Some(at) if at <= now => {
                late.push(*key);
                false
            }
            deadline => deadline.is_some(),
        });
        for key in late {
            let open = self.sockets.get(key).is_some_and(|it| matches!(it.stage, Stage::Open));
            let error = match open {
                true => {
                    io::Error::new(io::ErrorKind::ConnectionReset, "the peer's process is gone")
                }
                false => {
                    io::Error::new(io::ErrorKind::TimedOut, "the peer does not answer by RDMA")
                }
            };
            self.fail(key, error);
        }
    }

    /// Polls for a while before it sleeps; false if it may sleep.
    fn spin(&mut self, limit: Wait) -> bool {
        let start = now();
        let until = *self.polls_until.get_or_insert(start + self.device.options.polling);
        loop {
            for _ in 0..POLLS_AT_ONCE {
                if self.poll() || self.wake.is_woken() {
                    self.polls_until = None;
                    return true;
                }
                std::hint::spin_loop(); // whoever shares the core goes on meanwhile
            }
            let at = now();
            if at >= until || limit_is_over(limit, at) {
                break;
            }
            if at - start >= POLLING_WITHOUT_LOOK {
                return true; // and goes on
            }
            std::thread::yield_now();
        }
        self.polls_until = None;
        add(&self.counters.polling, 1);
        if let Err(error) = self.completions.arm() {
            self.lose_device(&error.into());
        }
        self.poll() // what came before it was armed tells nobody
    }

    /// Sleeps where `limit` says so, and takes what descriptors tell.
    fn wait_for_descriptors(
        &mut self,
        limit: Wait,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) -> io::Result<()> {
        self.refill(); // what came back from applications
        let sleeps =
            limit != Wait::Poll && self.wake.may_sleep() && self.heard == self.device.heard();
        let limit = if sleeps { limit } else { Wait::Poll };
        let mut events = mem::take(&mut self.events);
        let result = self.posix.wait(limit, &mut |_, completion| events.push(completion.into()));
        self.wake.wakes();
        for event in events.drain(..) {
            self.apply(event, sink);
        }
        self.events = events;
        result
    }

    fn run_turns(&mut self, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        let now = self.posix.now();
        let mut current = mem::take(&mut self.current_turns);
        mem::swap(&mut current, &mut self.turns);
        for key in current.drain(..) {
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.queued = false;
                let id = SocketId::from_bits(key.bits());
                socket.turn(id, now, &self.device, &mut self.sends, sink);
                if socket.starved {
                    self.starved.push(key);
                }
                self.queue_turn(key);
            }
        }
        self.current_turns = current;
    }

    fn remove(&mut self, key: Key) {
        let Some(mut socket) = self.sockets.remove(key) else {
            return;
        };
        self.count -= 1;
        if let Some(tcp) = socket.tcp {
            self.exchanges.remove(&tcp);
        }
        if let (Some(cm), Some(id)) = (&mut self.cm, &socket.cm) {
            cm.ids.remove(&id.key());
        }
        let gracefully = socket.may_send() && !socket.tcp_ended;
        if gracefully {
            socket.say_end();
        }
        let Some(queue) = socket.queue.take() else {
            if let Some(tcp) = socket.tcp {
                self.posix.close(tcp);
            }
            return;
        };
        self.bury(queue, socket.cm, socket.tcp, gracefully);
    }

    /// Has a queue pair end whose connection is closed; `gracefully`, what is posted goes first.
    pub(super) fn bury(
        &mut self,
        queue: QueuePair,
        cm: Option<CmId>,
        tcp: Option<SocketId>,
        gracefully: bool,
    ) {
        self.queues.remove(&queue.id());
        self.numbers.remove(&queue.number());
        let how = Ending { gracefully, shared: self.shared.is_some() };
        self.dying.push(Dying::new(queue, cm, tcp, how, self.posix.now()));
    }
}

impl Driver for RdmaDriver {
    fn now(&self) -> Instant {
        self.posix.now()
    }

    fn waited(&self) -> bool {
        self.waited
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.wake))
    }

    fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let Some(cm) = &mut self.cm else {
            return self.posix.listen(addr, options);
        };
        let id = cm.channel.create()?;
        id.bind(addr)?;
        let ours = &self.device.context.device().name;
        if let Some(other) = id.device().filter(|name| name != ours) {
            let message = format!("{addr} belongs to the RDMA device {other}, and not to {ours}");
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
        }
        id.listen(options.backlog)?;
        let local = id.local_addr().unwrap_or(addr);
        let key = cm.listeners.insert(id);
        Ok((ListenerId::from_bits(key.bits()), local))
    }

    fn close_listener(&mut self, id: ListenerId) {
        match &mut self.cm {
            Some(cm) => drop(cm.listeners.remove(Key::from_bits(id.bits()))),
            None => self.posix.close_listener(id),
        }
    }

    fn connect(&mut self, addr: SocketAddr, options: &SocketOptions) -> io::Result<SocketId> {
        if self.gone {
            return Err(self.device.gone());
        }
        let stage = if self.cm.is_some() { Stage::Cm } else { Stage::Tcp };
        let mut socket = Socket::new(stage, false, addr);
        if let Some(cm) = &mut self.cm {
            let id = new_id(&cm.channel, &self.device)?;
            let resolving = id.resolve_addr(None, addr, CM_STEP_MS);
            let id_key = id.key();
            socket.cm = Some(id);
            if let Err(error) = resolving {
                socket.fail(error.into());
            }
            let key = self.add_socket(socket);
            if let Some(cm) = &mut self.cm {
                cm.ids.insert(id_key, key);
            }
            self.queue_turn(key);
            return Ok(SocketId::from_bits(key.bits()));
        }
        let tcp = self.posix.connect(addr, options)?;
        socket.tcp = Some(tcp);
        let key = self.add_socket(socket);
        self.exchanges.insert(tcp, key);
        Ok(SocketId::from_bits(key.bits()))
    }

    fn adopt(&mut self, accepted: Accepted, options: &SocketOptions) -> io::Result<SocketId> {
        let (peer, local) = (accepted.peer_addr(), accepted.local_addr());
        if self.cm.is_none() {
            let tcp = self.posix.adopt(accepted, options)?;
            let mut socket = Socket::new(Stage::Record(Vec::new()), true, peer);
            (socket.tcp, socket.local) = (Some(tcp), Some(local));
            let key = self.add_socket(socket);
            self.exchanges.insert(tcp, key);
            self.posix.recv(tcp, None);
            return Ok(SocketId::from_bits(key.bits()));
        }
        let Ok(CmTransport(id)) = accepted.into_transport() else {
            let message = "the connection was accepted by another network stack";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let mut socket = Socket::new(Stage::Cm, true, peer);
        (socket.local, socket.cm) = (Some(local), Some(id.clone()));
        let key = self.add_socket(socket);
        let shared_receives = self.shared.is_some();
        let mut start = || -> io::Result<()> {
            if let Some(cm) = &mut self.cm {
                id.migrate(&cm.channel)?;
                cm.ids.insert(id.key(), key);
            }
            self.make_queue(key)?;
            let parameters = ConnectParameters { shared_receives, ..Default::default() };
            Ok(id.accept(&parameters)?)
        };
        if let Err(error) = start() {
            self.remove(key);
            return Err(error);
        }
        Ok(SocketId::from_bits(key.bits()))
    }

    fn detach(&mut self, id: SocketId) -> io::Result<Accepted> {
        match self.socket(id) {
            // Its completions come by this worker's queue.
            Some(_) => Err(io::ErrorKind::Unsupported.into()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn recv(&mut self, id: SocketId, fill: Option<FillBuf>) {
        if let Some(socket) = self.socket(id) {
            socket.arm(fill);
            self.queue_turn(Key::from_bits(id.bits()));
        }
    }

    fn fills(&self) -> bool {
        false
    }

    fn send(&mut self, id: SocketId, rope: &mut Rope) -> SendStatus {
        let key = Key::from_bits(id.bits());
        let Some(socket) = self.sockets.get_mut(key) else {
            rope.clear();
            return SendStatus::Pending;
        };
        let status = socket.send(rope, &self.device, &mut self.sends);
        if socket.starved {
            self.starved.push(key);
        }
        self.queue_turn(key);
        status
    }

    fn shutdown_write(&mut self, id: SocketId) -> io::Result<()> {
        let socket = self.socket(id).ok_or(io::ErrorKind::NotConnected)?;
        socket.shutdown_write()?;
        self.queue_turn(Key::from_bits(id.bits()));
        Ok(())
    }

    fn close(&mut self, id: SocketId) {
        self.remove(Key::from_bits(id.bits()));
    }

    fn local_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        let socket = self.sockets.get(Key::from_bits(id.bits()));
        let socket = socket.ok_or(io::ErrorKind::NotConnected)?;
        match (socket.local, socket.tcp) {
            (Some(local), _) => Ok(local),
            (None, Some(tcp)) => self.posix.local_addr(tcp),
            (None, None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn peer_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        let socket = self.sockets.get(Key::from_bits(id.bits()));
        let socket = socket.ok_or(io::ErrorKind::NotConnected)?;
        let known = socket.accepted || matches!(socket.stage, Stage::Open);
        if known { Ok(socket.peer) } else { Err(io::ErrorKind::NotConnected.into()) }
    }

    fn register_file(
        &mut self,
        file: BorrowedFd<'_>,
        interest: Interest,
        token: u64,
    ) -> io::Result<FileId> {
        let ours = self.next_file;
        let id = self.posix.register_file(file, interest, ours)?;
        self.next_file += 1;
        self.files.insert(ours, (id, token));
        Ok(id)
    }

    fn modify_file(&mut self, id: FileId, interest: Interest) -> io::Result<()> {
        self.posix.modify_file(id, interest)
    }

    fn deregister_file(&mut self, id: FileId) {
        self.posix.deregister_file(id);
        self.files.retain(|_, (file, _)| *file != id);
    }

    fn wait(
        &mut self,
        limit: Wait,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) -> io::Result<()> {
        if self.shared.is_some() {
            self.refill(); // without it, it was done as they were taken
        }
        let mut limit = limit.min(self.deadline().into());
        if limit == Wait::Poll || !self.turns.is_empty() {
            self.poll();
            limit = Wait::Poll;
        } else if self.spin(limit) {
            limit = Wait::Poll;
        }
        // Whoever polls has each completion as it comes, and seldom many at once.
        self.waited = limit != Wait::Poll;
        // A file of others is told of in each wait.
        if !self.turns.is_empty() {
            self.polls_until = None;
        }
        let skips = self.unlooked < WAITS_WITHOUT_LOOK && self.files.is_empty();
        if skips && !self.turns.is_empty() {
            self.unlooked += 1;
            self.posix.tick();
        } else {
            self.unlooked = 0;
            self.wait_for_descriptors(limit, sink)?;
            self.poll();
        }
        if self.wake.take() {
            self.take_connected();
        }
        if self.heard != self.device.heard() {
            self.take_news();
        }
        self.look();
        self.expire();
        self.run_turns(sink);
        Ok(())
    }
}

impl Drop for RdmaDriver {
    fn drop(&mut self) {
        let active = self.dying.len() + self.queues.len();
        self.counters.active_queue_pair.fetch_sub(active as i64, Ordering::Relaxed);
    }
}

impl From<Completion<'_>> for Inner {
    fn from(completion: Completion<'_>) -> Self {
        match completion {
            Completion::Accepted { listener, accepted } => Self::Accepted(listener, accepted),
            Completion::AcceptFailed { listener, error } => Self::AcceptFailed(listener, error),
            Completion::Connected { socket, result } => Self::Connected(socket, result),
            Completion::Received { socket, result, bytes, .. } => {
                Self::Received(socket, result.map(|_| bytes.rest().to_vec()))
            }
            Completion::Sent { socket, result } => Self::Sent(socket, result),
            Completion::FileReady { token, readable, writable } => {
                Self::Ready { token, readable, writable }
            }
        }
    }
}

/// Ends a wait also where it polls, and costs a system call only where it sleeps.
struct WakeFlag {
    woken: AtomicBool,
    asleep: AtomicBool,
    inner: Waker,
}

impl WakeFlag {
    fn new(inner: Waker) -> Self {
        Self { woken: AtomicBool::new(false), asleep: AtomicBool::new(false), inner }
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Whether the wait that follows may sleep: from here on a wake ends it.
    fn may_sleep(&self) -> bool {
        // In one order with the waker, which stores `woken` and loads `asleep`: one of the two sees
        // what the other stored.
        self.asleep.store(true, Ordering::SeqCst);
        !self.woken.load(Ordering::SeqCst)
    }

    /// It sleeps no more.
    fn wakes(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Whether it was woken: the wait is over, which is all that the wakes until now were for.
    fn take(&self) -> bool {
        // A swap, so that what the wakes were for is seen after it.
        self.is_woken() && self.woken.swap(false, Ordering::SeqCst)
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            self.inner.wake_by_ref();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a stack is where time comes from")]
fn now() -> Instant {
    Instant::now()
}

fn limit_is_over(limit: Wait, now: Instant) -> bool {
    match limit {
        Wait::Poll => true,
        Wait::Until(at) => at <= now,
        Wait::Forever => false,
    }
}
