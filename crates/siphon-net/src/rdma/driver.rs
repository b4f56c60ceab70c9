use std::collections::HashMap;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use siphon_verbs::{
    AsyncEventKind, Chunk, CmEvent, CmEventKind, CmId, CmKey, CompletionQueue, ConnectParameters,
    EventChannel, PathTo, QueueId, QueuePair, QueuePairOptions, Received, SharedReceiveQueue,
    WorkCompletion, WorkStatus,
};
use siphon_wire::buf::Rope;

use super::counters::add;
use super::device::{Device, MAX_INLINE, RdmaConnect};
use super::dying::Dying;
use super::pool::{ReceivePool, SendPool, grow};
use super::record::Record;
use super::socket::{Socket, Stage, recycle};
use crate::FillBuf;
use crate::driver::{
    Accepted, Completion, Driver, FileId, Interest, ListenOptions, ListenerId, SendStatus,
    SocketId, SocketOptions, Wait,
};
use crate::posix::PosixDriver;
use crate::slab::{Key, Slab};

/// Chunks that are posted for each connection, up to what the options allow.
const POSTED_EACH: usize = 32;
/// Chunks that are posted at least.
const POSTED_MIN: usize = 64;
/// Completions that are taken in one wait.
const COMPLETIONS_PER_WAIT: usize = 256;
/// How long connecting may take, from step to step.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long a connection lives after the peer's socket of the exchange was closed: what was sent
/// before that comes another way.
const AFTER_TCP: Duration = Duration::from_secs(1);
/// The same for RDMA-CM's steps, in milliseconds.
const CM_STEP_MS: i32 = 5000;
/// Work requests of a queue pair's sends, at most: with chunks of 128 KiB, 16 MiB that are under way.
const SENDS_EACH: u32 = 128;
/// Room of a completion queue, as Ceph has it, where the device has so much.
const COMPLETIONS: u32 = 30_000;
/// How far a packet may be routed, as Ceph has it.
const HOP_LIMIT: u8 = 6;

/// Tokens of our own descriptors in the inner driver; what others register comes behind.
const TOKEN_COMPLETIONS: u64 = 0;
const TOKEN_ASYNC: u64 = 1;
const TOKEN_CM: u64 = 2;
const TOKEN_OTHERS: u64 = 3;

/// One worker's share of an RDMA stack. See [`NetworkStack::rdma`](crate::NetworkStack::rdma).
pub struct RdmaDriver {
    posix: PosixDriver,
    device: Arc<Device>,
    completions: CompletionQueue,
    shared: Option<SharedReceiveQueue>,
    receives: Arc<ReceivePool>,
    /// Chunks to receive into that are registered, and that may be.
    registered: usize,
    most_registered: usize,
    sends: SendPool,
    sockets: Slab<Socket>,
    count: usize,
    dying: Vec<Dying>,
    /// Whose a completion is.
    queues: HashMap<QueueId, Key>,
    numbers: HashMap<u32, Key>,
    /// Whose a socket of the exchange is.
    exchanges: HashMap<SocketId, Key>,
    cm: Option<Cm>,
    /// What others registered: the token they gave.
    files: HashMap<u64, (FileId, u64)>,
    next_file: u64,
    turns: Vec<Key>,
    current_turns: Vec<Key>,
    starved: Vec<Key>,
    /// Chunks run short: what arrives is copied out of them.
    scarce: bool,
    gone: bool,
    wake: Arc<WakeFlag>,
    events: Vec<Inner>,
    done: Vec<WorkCompletion>,
    spare: Vec<Chunk>,
}

/// What RDMA-CM has to do with.
struct Cm {
    channel: EventChannel,
    ids: HashMap<CmKey, Key>,
    listeners: Slab<CmId>,
}

/// What a connection that RDMA-CM accepted carries to the worker that adopts it.
struct CmTransport(CmId);

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
    pub(super) fn new(device: Arc<Device>) -> io::Result<Self> {
        let mut posix = PosixDriver::new()?;
        let depth = COMPLETIONS.min(device.limits.max_cqe);
        let completions = CompletionQueue::new(&device.context, depth)?;
        let depth = device.options.receive_queue_len;
        let shared = match device.options.shared_receives {
            true => Some(SharedReceiveQueue::new(&device.domain, depth)?),
            false => None,
        };
        let readable = Interest::READABLE;
        posix.register_file(completions.as_fd(), readable, TOKEN_COMPLETIONS)?;
        posix.register_file(device.context.as_fd(), readable, TOKEN_ASYNC)?;
        let cm = match device.options.connect {
            RdmaConnect::Tcp => None,
            RdmaConnect::Cm => {
                let channel = EventChannel::new(device.context.verbs())?;
                posix.register_file(channel.as_fd(), readable, TOKEN_CM)?;
                Some(Cm { channel, ids: HashMap::new(), listeners: Slab::new() })
            }
        };
        let wake = Arc::new(WakeFlag { woken: AtomicBool::new(false), inner: posix.waker() });
        let mut driver = Self {
            posix,
            completions,
            shared,
            receives: Arc::default(),
            registered: 0,
            most_registered: device.options.receive_buffers as usize,
            sends: SendPool::default(),
            sockets: Slab::new(),
            count: 0,
            dying: Vec::new(),
            queues: HashMap::new(),
            numbers: HashMap::new(),
            exchanges: HashMap::new(),
            cm,
            files: HashMap::new(),
            next_file: TOKEN_OTHERS,
            turns: Vec::new(),
            current_turns: Vec::new(),
            starved: Vec::new(),
            scarce: false,
            gone: false,
            wake,
            events: Vec::new(),
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
        self.sockets.insert(socket)
    }

    fn queue_turn(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get_mut(key)
            && !socket.queued
            && socket.wants_turn()
        {
            socket.queued = true;
            self.turns.push(key);
        }
    }

    fn fail(&mut self, key: Key, error: io::Error) {
        if let Some(socket) = self.sockets.get_mut(key) {
            if !matches!(socket.stage, Stage::Open) {
                add(&self.device.counters.handshake_errors, 1);
            }
            socket.fail(error);
            self.queue_turn(key);
        }
    }

    /// A queue pair for this connection, by RDMA-CM or to be connected by an exchange.
    fn make_queue(&mut self, key: Key) -> io::Result<()> {
        if self.gone {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the RDMA device is gone"));
        }
        let device = &self.device;
        let own = if self.shared.is_some() { 0 } else { device.options.receive_queue_len };
        let options = QueuePairOptions {
            max_send_wr: device.options.send_buffers.min(SENDS_EACH) + 2,
            max_recv_wr: own.min(POSTED_MIN as u32),
            max_send_sge: device.max_pieces() as u32,
            max_inline: MAX_INLINE,
        };
        let Some(socket) = self.sockets.get_mut(key) else {
            return Ok(());
        };
        let (domain, done, shared) = (&device.domain, &self.completions, self.shared.as_ref());
        let queue = match &socket.cm {
            Some(id) => QueuePair::for_cm(id, domain, done, done, shared, options)?,
            None => {
                let mut queue = QueuePair::new(domain, done, done, shared, options)?;
                queue.init(device.options.port)?;
                queue
            }
        };
        device.set_max_inline(queue.options().max_inline);
        device.counters.created_queue_pair.fetch_add(1, Ordering::Relaxed);
        device.counters.active_queue_pair.fetch_add(1, Ordering::Relaxed);
        self.queues.insert(queue.id(), key);
        self.numbers.insert(queue.number(), key);
        socket.queue = Some(queue);
        socket.psn = random_psn();
        self.refill();
        Ok(())
    }

    /// Sends our record by the exchange's socket.
    fn send_record(&mut self, key: Key, peer_qp_num: u32) {
        let Some(socket) = self.sockets.get(key) else {
            return;
        };
        if let (Some(record), Some(tcp)) = (socket.record(&self.device, peer_qp_num), socket.tcp) {
            let mut rope = Rope::from(bytes::Bytes::from(record.encode()));
            // An error comes by its completion; 65 bytes always have room.
            let _ = self.posix.send(tcp, &mut rope);
        }
    }

    /// Takes a step of the exchange with what has come by its socket.
    fn exchange(&mut self, key: Key, bytes: &[u8]) -> io::Result<()> {
        let bad = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
        let Some(socket) = self.sockets.get_mut(key) else {
            return Ok(());
        };
        let (Stage::Record(have) | Stage::Acknowledgement(have)) = &mut socket.stage else {
            return Ok(()); // Ceph's last word, which nobody waits for
        };
        have.extend_from_slice(bytes);
        if have.len() < Record::LEN {
            return Ok(());
        }
        let record = have.first_chunk().and_then(Record::decode);
        let Some(record) = record.filter(|_| have.len() == Record::LEN) else {
            return bad(
                "the peer does not speak Ceph's exchange for RDMA: has it ms_type = async+rdma?",
            );
        };
        if matches!(socket.stage, Stage::Acknowledgement(_)) {
            socket.open();
            self.queue_turn(key);
            return Ok(());
        }
        let Some(gid) = &self.device.gid else {
            return bad("no GID");
        };
        let path = PathTo {
            qp_num: record.qp_num,
            psn: record.psn,
            lid: record.lid,
            gid: record.gid,
            gid_index: gid.index,
            port: self.device.options.port,
            mtu: self.device.mtu(),
            service_level: self.device.options.service_level,
            traffic_class: self.device.options.traffic_class,
            hop_limit: HOP_LIMIT,
        };
        let psn = socket.psn;
        if let Some(queue) = &mut socket.queue {
            queue.connect(&path, psn)?;
        }
        if socket.accepted {
            socket.stage = Stage::Acknowledgement(Vec::new());
        } else {
            socket.open();
        }
        self.send_record(key, record.qp_num);
        self.queue_turn(key);
        Ok(())
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

    fn tcp_received(&mut self, tcp: SocketId, result: io::Result<Vec<u8>>) {
        let Some(key) = self.exchanges.get(&tcp).copied() else { return };
        let Some(socket) = self.sockets.get_mut(key) else { return };
        match result {
            Ok(bytes) if !bytes.is_empty() => {
                self.posix.recv(tcp, None);
                if let Err(error) = self.exchange(key, &bytes) {
                    self.fail(key, error);
                }
            }
            // What the peer has sent before may still be under way.
            Ok(_) | Err(_) if matches!(socket.stage, Stage::Open | Stage::Acknowledgement(_)) => {
                socket.deadline = Some(self.posix.now() + AFTER_TCP);
            }
            Ok(_) => {
                let message = "the peer closed the socket of the exchange";
                self.fail(key, io::Error::new(io::ErrorKind::ConnectionReset, message));
            }
            Err(error) => self.fail(key, error),
        }
    }

    fn take_async_events(&mut self) {
        loop {
            let event = match self.device.context.async_event() {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => return self.lose_device(&error.into()),
            };
            add(&self.device.counters.total_async_events, 1);
            let device = &self.device.context.device().name;
            match event.kind {
                AsyncEventKind::LastWqeReached => {
                    add(&self.device.counters.async_last_wqe_events, 1);
                }
                AsyncEventKind::DeviceFatal => {
                    let error = io::Error::other(format!("the RDMA device {device} is gone"));
                    return self.lose_device(&error);
                }
                AsyncEventKind::PortError => {
                    tracing::warn!(%device, port = event.port, "port down")
                }
                AsyncEventKind::PortActive => tracing::info!(%device, port = event.port, "port up"),
                kind => {
                    tracing::debug!(%device, ?kind, qp_num = event.qp_num, "RDMA event");
                    let fatal = matches!(
                        kind,
                        AsyncEventKind::QpFatal
                            | AsyncEventKind::QpRequestError
                            | AsyncEventKind::QpAccessError
                    );
                    let key = event.qp_num.and_then(|number| self.numbers.get(&number).copied());
                    if let (true, Some(key)) = (fatal, key) {
                        self.fail(key, io::Error::other(format!("queue pair failed: {kind:?}")));
                    }
                }
            }
        }
    }

    /// Nothing goes by it any more.
    fn lose_device(&mut self, error: &io::Error) {
        if mem::replace(&mut self.gone, true) {
            return;
        }
        tracing::error!(%error, "RDMA device lost: its connections end");
        let keys: Vec<Key> = self.queues.values().copied().collect();
        for key in keys {
            self.fail(key, io::Error::new(error.kind(), error.to_string()));
        }
    }

    fn take_cm_events(&mut self, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        loop {
            let event = match self.cm.as_ref().map(|cm| cm.channel.next_event()) {
                Some(Ok(Some(event))) => event,
                Some(Err(error)) => return self.lose_device(&error.into()),
                _ => return,
            };
            self.apply_cm(event, sink);
        }
    }

    fn apply_cm(&mut self, event: CmEvent, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        let Some(cm) = &self.cm else { return };
        if let CmEventKind::ConnectRequest { id, .. } = event.kind {
            let listener = cm.listeners.find(|it| it.key() == event.id);
            let ours = id.device().is_some_and(|name| name == self.device.context.device().name);
            match (listener, id.peer_addr(), id.local_addr()) {
                (Some(key), Some(peer), Some(local)) if ours => {
                    let listener = ListenerId::from_bits(key.bits());
                    let accepted = Accepted::new(peer, local, CmTransport(id));
                    sink(self.posix.now(), Completion::Accepted { listener, accepted });
                }
                _ => drop(id.reject(b"")), // by another device, or nobody listens any more
            }
            return;
        }
        let Some(key) = cm.ids.get(&event.id).copied() else { return };
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(id) = socket.cm.clone() else { return };
        let refused = |message: String| io::Error::new(io::ErrorKind::ConnectionRefused, message);
        let result = match event.kind {
            CmEventKind::AddrResolved => {
                socket.local = id.local_addr();
                let name = &self.device.context.device().name;
                match id.device() {
                    Some(by) if by == *name => id.resolve_route(CM_STEP_MS).map_err(Into::into),
                    by => Err(io::Error::new(
                        io::ErrorKind::AddrNotAvailable,
                        format!("{} is reached by {by:?} and not by {name}", socket.peer),
                    )),
                }
            }
            CmEventKind::RouteResolved => self.make_queue(key).and_then(|()| {
                let shared_receives = self.shared.is_some();
                let parameters = ConnectParameters { shared_receives, ..Default::default() };
                Ok(id.connect(&parameters)?)
            }),
            CmEventKind::Established { .. } => {
                if let Some(queue) = &mut socket.queue {
                    queue.established();
                }
                socket.open();
                Ok(())
            }
            CmEventKind::Rejected { status, .. } => {
                Err(refused(format!("nobody accepts RDMA there, or not now (status {status})")))
            }
            CmEventKind::Failed(error) => Err(error),
            CmEventKind::Disconnected => {
                self.poll(); // what came before
                if let Some(socket) = self.sockets.get_mut(key) {
                    socket.end();
                }
                Ok(())
            }
            CmEventKind::DeviceRemoved => {
                self.lose_device(&io::Error::other("the RDMA device was removed"));
                Ok(())
            }
            _ => Ok(()),
        };
        match result {
            Ok(()) => self.queue_turn(key),
            Err(error) => self.fail(key, error),
        }
    }

    /// Takes what ended; returns whether there was anything.
    fn poll(&mut self) -> bool {
        let mut taken = 0;
        while taken < COMPLETIONS_PER_WAIT && !self.gone {
            let mut done = mem::take(&mut self.done);
            let polled = self.completions.poll(&mut |it| done.push(it));
            for completion in done.drain(..) {
                self.complete(completion);
            }
            self.done = done;
            match polled {
                Ok(0) => break,
                Ok(count) => taken += count,
                Err(error) => self.lose_device(&error.into()),
            }
        }
        if taken > 0 {
            self.refill();
            for key in mem::take(&mut self.starved) {
                if let Some(socket) = self.sockets.get_mut(key) {
                    socket.starved = false;
                    self.queue_turn(key);
                }
            }
        }
        taken > 0
    }

    fn complete(&mut self, done: WorkCompletion) {
        if let Some(shared) = &self.shared
            && shared.id() == done.queue()
        {
            if let Ok(received) = shared.complete(done) {
                let key = self.numbers.get(&received.qp_num).copied();
                self.received(key, received);
            }
            return;
        }
        let Some(key) = self.queues.get(&done.queue()).copied() else {
            let now = self.posix.now();
            let sends = &mut self.sends;
            if let Some(dying) = self.dying.iter_mut().find(|it| it.queue().id() == done.queue()) {
                dying.complete(now, done, &mut |piece| recycle(piece, sends));
            }
            return;
        };
        let Some(queue) = self.sockets.get_mut(key).and_then(|socket| socket.queue.as_mut()) else {
            return;
        };
        let (counters, sends) = (&self.device.counters, &mut self.sends);
        match queue.complete_receive(done) {
            Ok(received) => self.received(Some(key), received),
            Err(done) => {
                let status = done.status();
                add(&counters.tx_total_wc, 1);
                if queue.complete_send(done, &mut |piece| recycle(piece, sends)).is_ok()
                    && !status.is_success()
                {
                    add(&counters.tx_total_wc_errors, 1);
                    match status {
                        WorkStatus::FLUSHED => add(&counters.tx_wr_flush_errors, 1),
                        WorkStatus::RETRIES_EXCEEDED => add(&counters.tx_retry_errors, 1),
                        _ => {}
                    }
                    self.fail(key, work_failed("sending", status));
                }
            }
        }
    }

    /// A chunk came back, with what the peer at `key` sent.
    fn received(&mut self, key: Option<Key>, received: Received) {
        let counters = &self.device.counters;
        add(&counters.rx_total_wc, 1);
        let Received { chunk, len, status, .. } = received;
        let socket = key.and_then(|key| self.sockets.get_mut(key));
        let (Some(key), Some(socket)) = (key, socket) else {
            return self.receives.give_back(chunk);
        };
        if !status.is_success() {
            add(&counters.rx_total_wc_errors, 1);
            self.receives.give_back(chunk);
            return self.fail(key, work_failed("receiving", status));
        }
        if matches!(socket.stage, Stage::Acknowledgement(_)) {
            socket.open(); // it overtook the acknowledgement
        }
        if len == 0 {
            add(&counters.rx_fin, 1);
            self.receives.give_back(chunk);
            socket.end();
        } else {
            add(&counters.rx_chunks, 1);
            add(&counters.rx_bytes, len);
            if self.scarce {
                add(&counters.rx_copied_bytes, len);
                socket.push(bytes::Bytes::copy_from_slice(&chunk[..len]));
                self.receives.give_back(chunk);
            } else {
                socket.push(self.receives.lend(chunk, len));
            }
            if socket.unread() > MAX_UNREAD {
                let message = format!(
                    "{MAX_UNREAD} bytes have arrived that nobody reads, and RDMA can't ask a peer to wait"
                );
                return self.fail(key, io::Error::new(io::ErrorKind::OutOfMemory, message));
            }
        }
        self.queue_turn(key);
    }

    fn grow(&mut self) -> io::Result<()> {
        let len = self.device.options.buffer_size;
        let chunks = grow(&self.device, len, &mut self.registered, self.most_registered)?;
        add(&self.device.counters.rx_bufs_total, chunks.len());
        self.receives.extend(chunks);
        Ok(())
    }

    /// Posts chunks to be received into.
    fn refill(&mut self) {
        if self.gone {
            return;
        }
        if self.shared.is_none() {
            return self.refill_each();
        }
        let most = self.device.options.receive_queue_len as usize;
        let wanted = (self.count * POSTED_EACH).max(POSTED_MIN).min(most);
        let posted = self.shared.as_ref().map_or(0, SharedReceiveQueue::len);
        if posted + wanted / 8 < wanted {
            let mut chunks = self.free_chunks(wanted - posted);
            let result = self.shared.as_ref().map_or(Ok(()), |queue| queue.post(&mut chunks));
            self.keep(chunks);
            if let Err(error) = result {
                return self.lose_device(&error.into());
            }
        }
        let posted = self.shared.as_ref().map_or(0, SharedReceiveQueue::len);
        self.scarce = posted < wanted / 2;
    }

    /// The same for queue pairs that have queues of their own.
    fn refill_each(&mut self) {
        let wanted = (self.device.options.receive_queue_len as usize).min(POSTED_MIN);
        let keys: Vec<Key> = self.queues.values().copied().collect();
        self.scarce = false;
        for key in keys {
            let queue = self.sockets.get(key).and_then(|socket| socket.queue.as_ref());
            let posted = queue.map_or(wanted, QueuePair::receives);
            if posted + wanted / 8 >= wanted {
                continue;
            }
            let mut chunks = self.free_chunks(wanted - posted);
            let queue = self.sockets.get_mut(key).and_then(|socket| socket.queue.as_mut());
            let Some(queue) = queue else { continue };
            let result = queue.post_receives(&mut chunks);
            self.scarce |= queue.receives() < wanted / 2;
            self.keep(chunks);
            if let Err(error) = result {
                self.fail(key, error.into());
            }
        }
    }

    /// Up to so many chunks that are free, some of which may have to be registered for it.
    fn free_chunks(&mut self, wanted: usize) -> Vec<Chunk> {
        let mut chunks = mem::take(&mut self.spare);
        self.receives.take(wanted, &mut chunks);
        while chunks.len() < wanted && self.registered < self.most_registered {
            if let Err(error) = self.grow() {
                tracing::warn!(%error, "no more memory to receive into can be registered");
                self.most_registered = self.registered;
            }
            self.receives.take(wanted - chunks.len(), &mut chunks);
        }
        chunks
    }

    fn keep(&mut self, mut chunks: Vec<Chunk>) {
        chunks.drain(..).for_each(|chunk| self.receives.give_back(chunk));
        self.spare = chunks;
    }

    /// When something has to be done without anything coming.
    fn deadline(&self) -> Option<Instant> {
        let sockets = self.queues.values().chain(self.exchanges.values());
        let cm = self.cm.iter().flat_map(|cm| cm.ids.values());
        let sockets = sockets.chain(cm).filter_map(|key| self.sockets.get(*key)?.deadline);
        sockets.chain(self.dying.iter().map(Dying::deadline)).min()
    }

    fn expire(&mut self) {
        let now = self.posix.now();
        let mut at = 0;
        while at < self.dying.len() {
            if self.gone || self.dying[at].is_dead(now) {
                let dying = self.dying.swap_remove(at);
                if let Some(tcp) = dying.tcp {
                    self.posix.close(tcp);
                }
                self.device.counters.active_queue_pair.fetch_sub(1, Ordering::Relaxed);
            } else {
                at += 1;
            }
        }
        let cm = self.cm.iter().flat_map(|cm| cm.ids.values());
        let keys = self.queues.values().chain(self.exchanges.values()).chain(cm).copied();
        let late = |key: &Key| {
            self.sockets.get(*key).and_then(|it| it.deadline).is_some_and(|at| at <= now)
        };
        let late: Vec<Key> = keys.filter(late).collect();
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
        let polling = self.device.options.polling;
        let start = now();
        loop {
            if self.poll() || self.wake.woken.load(Ordering::Acquire) {
                return true;
            }
            let at = now();
            if at - start >= polling || limit_is_over(limit, at) {
                break;
            }
            std::thread::yield_now();
        }
        add(&self.device.counters.polling, 1);
        if let Err(error) = self.completions.arm() {
            self.lose_device(&error.into());
        }
        self.poll() // what came before it was armed tells nobody
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
        let gracefully = socket.is_open();
        if gracefully {
            socket.say_end();
        }
        let Some(queue) = socket.queue.take() else {
            if let Some(tcp) = socket.tcp {
                self.posix.close(tcp);
            }
            return;
        };
        self.queues.remove(&queue.id());
        self.numbers.remove(&queue.number());
        let now = self.posix.now();
        self.dying.push(Dying::new(queue, socket.cm, socket.tcp, gracefully, now));
    }
}

impl Driver for RdmaDriver {
    fn now(&self) -> Instant {
        self.posix.now()
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
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the RDMA device is gone"));
        }
        let stage = if self.cm.is_some() { Stage::Cm } else { Stage::Tcp };
        let mut socket = Socket::new(stage, false, addr);
        socket.deadline = Some(self.posix.now() + CONNECTING);
        if let Some(cm) = &mut self.cm {
            let id = cm.channel.create()?;
            // Else iWARP's and RoCE's packets are unmarked.
            if let Err(error) = id.set_traffic_class(self.device.options.traffic_class) {
                tracing::debug!(%error, "traffic class not set");
            }
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
        let deadline = Some(self.posix.now() + CONNECTING);
        if self.cm.is_none() {
            let tcp = self.posix.adopt(accepted, options)?;
            let mut socket = Socket::new(Stage::Record(Vec::new()), true, peer);
            (socket.tcp, socket.local, socket.deadline) = (Some(tcp), Some(local), deadline);
            let key = self.add_socket(socket);
            self.exchanges.insert(tcp, key);
            if let Err(error) = self.make_queue(key) {
                self.remove(key);
                return Err(error);
            }
            self.posix.recv(tcp, None);
            return Ok(SocketId::from_bits(key.bits()));
        }
        let Ok(CmTransport(id)) = accepted.into_transport() else {
            let message = "the connection was accepted by another network stack";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let mut socket = Socket::new(Stage::Cm, true, peer);
        (socket.local, socket.deadline) = (Some(local), deadline);
        socket.cm = Some(id.clone());
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
        self.poll();
        let mut limit = limit.min(self.deadline().into());
        if !self.turns.is_empty() || (limit != Wait::Poll && self.spin(limit)) {
            limit = Wait::Poll;
        }
        let mut events = mem::take(&mut self.events);
        self.posix.wait(limit, &mut |_, completion| events.push(completion.into()))?;
        self.wake.woken.store(false, Ordering::Release);
        for event in events.drain(..) {
            self.apply(event, sink);
        }
        self.events = events;
        self.poll();
        self.expire();
        self.run_turns(sink);
        Ok(())
    }
}

impl Drop for RdmaDriver {
    fn drop(&mut self) {
        let active = self.dying.len() + self.queues.len();
        self.device.counters.active_queue_pair.fetch_sub(active as i64, Ordering::Relaxed);
    }
}

/// Bytes of a connection that have arrived and that nobody reads: beyond them it ends.
const MAX_UNREAD: usize = 1 << 30;

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

/// Ends a wait also where it polls.
struct WakeFlag {
    woken: AtomicBool,
    inner: Waker,
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.inner.wake_by_ref();
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

fn work_failed(doing: &str, status: WorkStatus) -> io::Error {
    let kind = match status {
        WorkStatus::RETRIES_EXCEEDED | WorkStatus::RNR_RETRIES_EXCEEDED => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, format!("{doing} by RDMA: {status}"))
}

/// 24 bits that the connections of another time or process hardly had.
fn random_psn() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() as u32 & 0x00ff_ffff
}
