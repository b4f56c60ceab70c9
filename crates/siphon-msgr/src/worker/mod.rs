//! The messenger's part of a worker: it owns connections, and all that happens to them happens
//! here.

mod counters;
mod inject;
mod meet;
mod pace;
mod remote;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use siphon_net::{
    Accepted, Completion, CongestionControl, EventCenter, Handler, IdMap, ListenOptions,
    ListenerId, MailSender, SocketId, SocketOptions,
};
use siphon_proto::{OutMessage, Transmit};
use siphon_wire::buf::SegmentPool;
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityType, Features, Utime};

pub(crate) use self::counters::WorkerCounters;
pub(crate) use self::meet::Visitor;
use self::pace::Pace;
use self::remote::{Io, Pumped, Remote};
use crate::connection::{Connection, ConnectionId};
use crate::dispatch_queue::Item;
use crate::dump::Described;
use crate::error::CloseReason;
use crate::messenger::Shared;
use crate::stack::{self, Load};

/// Received segments that a worker keeps for the next, in bytes: four of the largest common size.
const POOL_RETAINED: usize = 16 << 20;
/// Peers that may wait for a bind to be over; more are turned away.
const MAX_EARLY: usize = 512;
/// Timer token of a shutdown's deadline; connections' tokens begin at 1.
const SHUTDOWN_TIMER: u64 = 0;

/// What others ask of a worker. What is large is boxed: messages, which come by the hundred thousand a
/// second, are small.
pub(crate) enum Mail {
    Connect(Connection),
    Loopback(Connection),
    Adopt(Arc<Shared>, Box<Accepted>),
    Send(ConnectionId, OutMessage),
    Keepalive(ConnectionId, Utime),
    MarkDown(ConnectionId),
    MarkDisposable(ConnectionId),
    /// The peer of this connection has come to us by another.
    Meet(Connection, Visitor),
    /// Something of the application's panicked over this connection.
    Fail(ConnectionId, Box<CloseReason>),
    Resume(ConnectionId),
    /// A throttle may have room for its next message.
    Room(ConnectionId),
    /// More is to be sent than one turn allows.
    Continue(ConnectionId),
    Flush(ConnectionId, oneshot::Sender<()>),
    Listen(Box<Listen>),
    /// Take back listening sockets of a bind that failed; the sender is dropped when they are free.
    Unlisten(Vec<ListenerId>, oneshot::Sender<()>),
    /// The messenger knows its addresses: accept at these.
    Serve(Vec<ListenerId>),
    /// Close a messenger's connections, at the latest after this time; the sender is dropped when all are.
    Shutdown(Arc<Shared>, Duration, oneshot::Sender<()>),
    /// The last handle of a messenger is gone.
    Abandon(Arc<Shared>),
    /// Tell of a messenger's connections, and of what the kernel knows of them if that is wanted.
    Describe(Arc<Shared>, bool, SyncSender<Vec<Described>>),
    Stop,
}

/// Listen for a messenger.
pub(crate) struct Listen {
    pub(crate) messenger: Arc<Shared>,
    pub(crate) addr: SocketAddr,
    pub(crate) answer: oneshot::Sender<io::Result<(ListenerId, SocketAddr)>>,
}

/// A listening socket of a messenger.
struct Listener {
    messenger: Arc<Shared>,
    /// Peers that came before the messenger knew all of its addresses; none once it does.
    early: Option<Vec<Accepted>>,
}

/// A messenger that ends.
struct Stopping {
    messenger: Arc<Shared>,
    deadline: Option<Instant>,
    _done: oneshot::Sender<()>,
}

enum Owned {
    Remote(Box<Remote>),
    Loopback(Connection),
}

impl Owned {
    fn connection(&self) -> &Connection {
        match self {
            Self::Remote(remote) => &remote.handle,
            Self::Loopback(connection) => connection,
        }
    }
}

/// All connections of one worker.
pub(crate) struct MessengerWorker {
    index: usize,
    peers: Arc<[MailSender<Mail>]>,
    loads: Arc<[Load]>,
    pool: SegmentPool,
    connections: IdMap<ConnectionId, Owned>,
    sockets: IdMap<SocketId, ConnectionId>,
    listeners: HashMap<ListenerId, Listener>,
    /// Connections to be pumped in the next drain.
    dirty: Vec<ConnectionId>,
    /// Those that wait for the next round.
    later: Vec<ConnectionId>,
    pace: Pace,
    /// Mail that needs the event center, for the next drain.
    requests: Vec<Mail>,
    stopping: Vec<Stopping>,
    /// Messengers that were told here to end. What they asked for before that is still done, though
    /// they may be stopping already when it is this worker's turn; what comes after is not.
    ended: Vec<Weak<Shared>>,
    expired: bool,
    /// What is being handed to the stack; kept for its capacity.
    transmit: Transmit,
    counters: WorkerCounters,
    stopped: bool,
}

impl MessengerWorker {
    pub(crate) fn new(
        index: usize,
        peers: Arc<[MailSender<Mail>]>,
        loads: Arc<[Load]>,
        counters: WorkerCounters,
    ) -> Self {
        Self {
            index,
            peers,
            loads,
            pool: SegmentPool::new(POOL_RETAINED),
            connections: IdMap::default(),
            sockets: IdMap::default(),
            listeners: HashMap::new(),
            dirty: Vec::new(),
            later: Vec::new(),
            pace: Pace::new(),
            requests: Vec::new(),
            stopping: Vec::new(),
            ended: Vec::new(),
            expired: false,
            transmit: Transmit::default(),
            counters,
            stopped: false,
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    fn remote(&mut self, id: ConnectionId) -> Option<&mut Remote> {
        match self.connections.get_mut(&id)? {
            Owned::Remote(remote) => Some(remote),
            Owned::Loopback(_) => None,
        }
    }

    /// Changes a connection, and has it pumped.
    fn change(&mut self, id: ConnectionId, change: impl FnOnce(&mut Remote)) {
        let Some(Owned::Remote(remote)) = self.connections.get_mut(&id) else {
            return; // it ended while this was under way
        };
        change(remote);
        mark(&mut self.dirty, id, remote);
    }

    fn change_socket(&mut self, socket: SocketId, change: impl FnOnce(&mut Remote)) {
        if let Some(id) = self.sockets.get(&socket) {
            self.change(*id, change);
        }
    }

    fn send(&mut self, now: Instant, id: ConnectionId, message: OutMessage) {
        match self.connections.get_mut(&id) {
            Some(Owned::Loopback(connection)) => {
                deliver_locally(connection, message, self.index);
            }
            Some(Owned::Remote(remote)) => {
                remote.send(now, message);
                mark(&mut self.dirty, id, remote);
            }
            None => {}
        }
    }

    /// Does what a mail asks for, if that needs no event center; else gives it back.
    fn apply(&mut self, now: Instant, mail: Mail) -> Option<Mail> {
        match mail {
            Mail::Send(id, message) => self.send(now, id, message),
            Mail::Keepalive(id, stamp) => self.change(id, |r| r.proto.keepalive(now, stamp)),
            Mail::MarkDisposable(id) => self.change(id, |r| r.proto.mark_disposable()),
            Mail::Room(id) => self.change(id, |r| r.proto.handle_room(now)),
            Mail::Resume(id) => {
                let worker = self.index;
                self.change(id, |r| r.resume(now, worker));
            }
            Mail::Continue(id) => self.change(id, |_| {}),
            Mail::Flush(id, done) => match self.connections.get(&id) {
                Some(Owned::Loopback(_)) => drop(done.send(())),
                _ => self.change(id, |r| r.flush(done)),
            },
            Mail::Loopback(connection) if self.has_ended(connection.messenger()) => {
                self.loads[self.index].sub();
                connection.set_closed(CloseReason::Shutdown);
            }
            Mail::Loopback(connection) => {
                connection.set_ready(remote::ourselves(&connection));
                self.connections.insert(connection.id(), Owned::Loopback(connection));
            }
            Mail::Stop => self.stopped = true,
            other => return Some(other),
        }
        None
    }

    /// What needs the event center.
    fn request(&mut self, center: &mut EventCenter, mail: Mail) {
        let Some(mail) = self.apply(center.now(), mail) else {
            return;
        };
        match mail {
            Mail::Connect(connection) if self.has_ended(connection.messenger()) => {
                self.loads[self.index].sub();
                remote::report_end(&connection, CloseReason::Shutdown);
            }
            Mail::Connect(connection) => {
                let id = connection.id();
                let opened = Remote::connect(center.now(), connection, &self.pool);
                self.counters.connection_created();
                self.open(id, opened);
            }
            Mail::Meet(existing, visitor) => self.receive_visitor(center, existing, visitor),
            Mail::Adopt(messenger, accepted) => self.adopt(center, &messenger, *accepted),
            Mail::Listen(listen) => self.listen(center, *listen),
            Mail::Unlisten(ids, _free) => self.unlisten(center, |id, _| ids.contains(&id)),
            Mail::Serve(ids) => {
                for id in ids {
                    self.serve(center, id);
                }
            }
            Mail::Fail(id, reason) => self.end(center, id, *reason),
            Mail::MarkDown(id) => self.end(center, id, CloseReason::MarkedDown),
            Mail::Shutdown(messenger, linger, done) => {
                let deadline = center.now().checked_add(linger);
                self.unlisten(center, |_, owner| Arc::ptr_eq(owner, &messenger));
                self.ended.retain(|ended| ended.strong_count() > 0);
                self.ended.push(Arc::downgrade(&messenger));
                let ids: Vec<_> = self.connections_of(&messenger);
                for id in ids {
                    match self.connections.get(&id) {
                        Some(Owned::Loopback(_)) => self.end(center, id, CloseReason::Shutdown),
                        _ => self.change(id, Remote::finish),
                    }
                }
                if let Some(deadline) = deadline {
                    center.set_timer(deadline, SHUTDOWN_TIMER);
                }
                self.stopping.push(Stopping { messenger, deadline, _done: done });
            }
            Mail::Describe(messenger, tcp_info, told) => {
                let ids = self.connections_of(&messenger);
                let remotes = ids.iter().filter_map(|id| match self.connections.get(id)? {
                    Owned::Remote(remote) => Some(remote),
                    Owned::Loopback(_) => None,
                });
                let described = remotes.map(|it| it.describe(center, self.index, tcp_info));
                let _ = told.try_send(described.collect()); // whoever asked may have given up
            }
            Mail::Abandon(messenger) => {
                self.unlisten(center, |_, owner| Arc::ptr_eq(owner, &messenger));
                self.end_abandoned(center, &messenger);
            }
            _ => debug_assert!(false, "only mail for the event center is kept for it"),
        }
    }

    /// Takes a connection, or tells why there is none.
    fn open(&mut self, id: ConnectionId, opened: Result<Remote, (Connection, CloseReason)>) {
        match opened {
            Ok(remote) => {
                self.connections.insert(id, Owned::Remote(Box::new(remote)));
                self.counters.connection_came();
                self.change(id, |_| {});
            }
            Err((connection, reason)) => {
                self.loads[self.index].sub();
                remote::report_end(&connection, reason);
                connection.messenger().unregister(&connection);
            }
        }
    }

    fn adopt(&mut self, center: &mut EventCenter, messenger: &Arc<Shared>, accepted: Accepted) {
        if messenger.is_stopping() {
            self.loads[self.index].sub();
            return; // dropping it closes it
        }
        let handle = self.handle_for(messenger, &accepted);
        let id = handle.id();
        let pool = self.pool.clone();
        let opened = Remote::accept(&mut self.io(center), handle, accepted, &pool);
        self.counters.connection_created();
        self.open(id, opened);
    }

    /// A handle for a peer that came to us.
    fn handle_for(&self, messenger: &Arc<Shared>, accepted: &Accepted) -> Connection {
        let kind = messenger.kind_at(accepted.local_addr());
        let target = EntityAddr::new(kind, 0, Some(accepted.peer_addr()));
        let target = EntityAddrVec::from(target);
        let sender = self.peers[self.index].clone();
        let messenger = Arc::clone(messenger);
        Connection::new(ConnectionId::next(), sender, messenger, EntityType::ANY, target)
    }

    fn io<'a>(&'a mut self, center: &'a mut EventCenter) -> Io<'a> {
        Io {
            center,
            sockets: &mut self.sockets,
            transmit: &mut self.transmit,
            counters: &mut self.counters,
            pace: &mut self.pace,
        }
    }

    fn listen(&mut self, center: &mut EventCenter, listen: Listen) {
        let config = listen.messenger.context().config();
        let options = ListenOptions {
            backlog: config.ms_tcp_listen_backlog,
            recv_buffer: socket_options(&listen.messenger).recv_buffer,
            ..Default::default()
        };
        let result = match listen.messenger.is_stopping() {
            true => Err(io::Error::other("the messenger was shut down")),
            false => center.listen(listen.addr, &options),
        };
        if let Ok((id, _)) = result {
            let listener = Listener { messenger: listen.messenger, early: Some(Vec::new()) };
            self.listeners.insert(id, listener);
        }
        let _ = listen.answer.send(result); // whoever asked waits for it
    }

    fn serve(&mut self, center: &mut EventCenter, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(&id) else {
            return;
        };
        let messenger = Arc::clone(&listener.messenger);
        for accepted in listener.early.take().unwrap_or_default() {
            let mail = self.accepted(&messenger, accepted);
            if let Some(mail) = mail {
                self.request(center, mail);
            }
        }
    }

    /// Finds a worker for a new peer; gives the mail back if that is this one.
    fn accepted(&self, messenger: &Arc<Shared>, accepted: Accepted) -> Option<Mail> {
        let worker = match messenger.take_steered(accepted.peer_addr().ip()) {
            Some(worker) => {
                self.loads[worker].add();
                worker
            }
            None => stack::place(&self.loads),
        };
        let mail = Mail::Adopt(Arc::clone(messenger), Box::new(accepted));
        if worker == self.index {
            return Some(mail);
        }
        self.peers[worker].send(mail);
        None
    }

    fn unlisten(
        &mut self,
        center: &mut EventCenter,
        ends: impl Fn(ListenerId, &Arc<Shared>) -> bool,
    ) {
        self.listeners.retain(|id, listener| {
            let keep = !ends(*id, &listener.messenger);
            if !keep {
                center.close_listener(*id);
            }
            keep
        });
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Owned> {
        let owned = self.connections.remove(&id)?;
        self.loads[self.index].sub();
        if let Owned::Remote(_) = owned {
            self.counters.connection_went();
        }
        Some(owned)
    }

    fn has_ended(&self, messenger: &Arc<Shared>) -> bool {
        self.ended.iter().any(|ended| std::ptr::eq(ended.as_ptr(), Arc::as_ptr(messenger)))
    }

    fn end(&mut self, center: &mut EventCenter, id: ConnectionId, reason: CloseReason) {
        match self.remove(id) {
            Some(Owned::Remote(remote)) => {
                self.counters.lost(&reason);
                remote.close(&mut self.io(center), reason);
            }
            Some(Owned::Loopback(connection)) => match reason {
                CloseReason::MarkedDown | CloseReason::Shutdown => connection.set_closed(reason),
                _ => remote::report_end(&connection, reason),
            },
            None => {}
        }
    }

    /// Of a messenger that nobody has any more, only open connections go on.
    fn end_abandoned(&mut self, center: &mut EventCenter, messenger: &Arc<Shared>) {
        for id in self.connections_of(messenger) {
            let open = match self.connections.get(&id) {
                Some(Owned::Remote(remote)) => remote.is_open(),
                _ => false,
            };
            if !open {
                self.end(center, id, CloseReason::Shutdown);
            }
        }
    }

    /// Does something with a connection, if it has a peer.
    ///
    /// What the application runs here, encodings and methods of authentication, may panic: that is
    /// the end of its connection, and of no other.
    fn with_remote(
        &mut self,
        center: &mut EventCenter,
        id: ConnectionId,
        act: impl FnOnce(&mut Remote, &mut Io<'_>) -> Pumped,
    ) {
        let Some(Owned::Remote(remote)) = self.connections.get_mut(&id) else {
            return;
        };
        let mut io = Io {
            center: &mut *center,
            sockets: &mut self.sockets,
            transmit: &mut self.transmit,
            counters: &mut self.counters,
            pace: &mut self.pace,
        };
        // What the panic leaves half done goes with the connection.
        let acted = catch_unwind(AssertUnwindSafe(|| act(remote, &mut io)));
        match acted {
            Ok(Pumped::Idle) => {}
            Ok(Pumped::Later) => self.later.push(id),
            Ok(Pumped::Knocks) => self.knocked(center, id),
            Ok(Pumped::Ended(reason)) => self.end(center, id, reason),
            Err(_) => {
                tracing::error!(peer = %remote.handle, "a panic; the connection ends");
                self.transmit = Transmit::default();
                self.end(center, id, CloseReason::Panicked);
            }
        }
    }

    fn is_urgent(&self, id: ConnectionId) -> bool {
        matches!(self.connections.get(&id), Some(Owned::Remote(remote)) if remote.is_urgent())
    }

    /// Does what others asked for and needs the event center.
    fn serve_requests(&mut self, center: &mut EventCenter) {
        if self.requests.is_empty() {
            return;
        }
        let mut requests = std::mem::take(&mut self.requests);
        for mail in requests.drain(..) {
            self.request(center, mail);
        }
        self.requests = requests;
    }

    fn connections_of(&self, messenger: &Arc<Shared>) -> Vec<ConnectionId> {
        let is_of = |owned: &Owned| Arc::ptr_eq(owned.connection().messenger(), messenger);
        let of_it = self.connections.iter().filter(|(_, owned)| is_of(owned));
        let mut ids: Vec<_> = of_it.map(|(id, _)| *id).collect();
        ids.sort_unstable(); // the same work in the same order, whatever the ids are
        ids
    }

    /// Closes what outlived its messenger's deadline, and forgets messengers that are through.
    fn end_stopping(&mut self, center: &mut EventCenter) {
        let expired = std::mem::take(&mut self.expired);
        let mut stopping = std::mem::take(&mut self.stopping);
        stopping.retain(|ending| {
            let left = self.connections_of(&ending.messenger);
            let overdue = expired && ending.deadline.is_some_and(|at| at <= center.now());
            if !left.is_empty() && !overdue {
                return true;
            }
            for id in left {
                if let Some(Owned::Remote(remote)) = self.connections.get(&id) {
                    tracing::warn!(peer = %remote.handle, "left at the end of the shutdown's time");
                }
                self.end(center, id, CloseReason::Shutdown);
            }
            false
        });
        self.stopping = stopping;
    }
}

/// However the worker ends, whoever waits for a connection of it learns of that.
impl Drop for MessengerWorker {
    fn drop(&mut self) {
        for owned in self.connections.values() {
            owned.connection().set_closed(CloseReason::Shutdown);
        }
    }
}

impl Handler for MessengerWorker {
    type Mail = Mail;

    fn handle_completion(&mut self, now: Instant, completion: Completion<'_>) {
        match completion {
            Completion::Accepted { listener, accepted } => {
                let Some(listener) = self.listeners.get_mut(&listener) else {
                    return;
                };
                if let Some(early) = &mut listener.early {
                    if early.len() < MAX_EARLY {
                        early.push(accepted);
                    }
                    return;
                }
                let messenger = Arc::clone(&listener.messenger);
                let mail = self.accepted(&messenger, accepted);
                self.requests.extend(mail);
            }
            Completion::AcceptFailed { error, .. } => {
                tracing::error!(%error, "cannot accept a connection; trying again shortly");
            }
            Completion::Connected { socket, result } => {
                self.change_socket(socket, |remote| remote.handle_connected(now, result));
            }
            Completion::Received { socket, result, fill, bytes } => {
                self.counters.receives();
                self.change_socket(socket, |remote| {
                    remote.handle_received(now, result, fill, bytes);
                });
            }
            Completion::Sent { socket, result } => {
                self.change_socket(socket, |remote| remote.handle_sent(now, result));
            }
            Completion::FileReady { .. } => {}
        }
    }

    fn handle_timer(&mut self, now: Instant, token: u64) {
        match token {
            SHUTDOWN_TIMER => self.expired = true,
            token => self.change(ConnectionId::from_token(token), |r| r.handle_timer(now)),
        }
    }

    /// Mail is handled in the order in which it came: what comes behind something that has to
    /// wait for the event center waits as well.
    fn handle_mail(&mut self, now: Instant, mail: Mail) {
        if !self.requests.is_empty() {
            self.requests.push(mail);
        } else if let Some(mail) = self.apply(now, mail) {
            self.requests.push(mail);
        }
    }

    fn dispatch(&mut self, center: &mut EventCenter) {
        self.counters.begin_dispatch(center);
        self.serve_requests(center);
        self.pace.begin_round(center.now(), center.waited());
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.retain(|id| {
            let reached = self.pace.goes_on() || self.is_urgent(*id);
            if reached {
                self.with_remote(center, *id, Remote::dispatch);
            } else {
                self.later.push(*id);
            }
            reached // and is to be pumped
        });
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    fn drain(&mut self, center: &mut EventCenter) {
        self.serve_requests(center);
        // One may make another dirty: a peer that comes by a new link has an older one.
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut next = 0;
        while let Some(id) = dirty.get(next).copied() {
            next += 1;
            self.with_remote(center, id, Remote::pump);
            dirty.append(&mut self.dirty);
        }
        dirty.clear();
        dirty.append(&mut self.later);
        self.dirty = dirty;
        if !self.stopping.is_empty() {
            self.end_stopping(center);
        }
        self.counters.end_round();
    }

    fn has_more(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn is_done(&self) -> bool {
        self.stopped && self.connections.is_empty() && self.requests.is_empty()
    }
}

/// Has a connection pumped.
fn mark(dirty: &mut Vec<ConnectionId>, id: ConnectionId, remote: &mut Remote) {
    if !std::mem::replace(&mut remote.dirty, true) {
        dirty.push(id);
    }
}

/// A message to ourselves takes the way of one that arrived.
fn deliver_locally(connection: &Connection, message: OutMessage, worker: usize) {
    connection.outgoing().put(message.charge());
    let Ok(message) = catch_unwind(AssertUnwindSafe(|| message.deliver(Features::ALL))) else {
        return connection.fail(CloseReason::Panicked);
    };
    let len = message.payload.len();
    // Nothing is read on this connection, so there is nothing to pause.
    remote::dispatch(connection, message);
    connection.messenger().dispatch_throttle().got(worker, len);
}

/// Socket options as the configuration has them.
fn socket_options(messenger: &Shared) -> SocketOptions {
    let config = messenger.context().config();
    let congestion_control = CongestionControl::named(&config.ms_tcp_congestion_control)
        .unwrap_or_else(|error| {
            tracing::warn!("ms_tcp_congestion_control: {error}");
            None
        });
    SocketOptions {
        nodelay: config.ms_tcp_nodelay,
        recv_buffer: usize::try_from(config.ms_tcp_rcvbuf).unwrap_or(0),
        congestion_control,
        ..Default::default()
    }
}

/// Hands an item to a messenger's dispatch thread; false if the connection must pause.
fn enqueue(connection: &Connection, item: Item) -> bool {
    connection.messenger().queue().push(connection, item)
}
