use std::io;
use std::sync::Arc;
use std::time::Instant;

use futures_channel::oneshot;
use siphon_auth::{
    AuthError, AuthMethod, AuthServerAnswer, ClientExchange, ConnectionMode, PeerContext,
    ServerExchange,
};
use siphon_net::{Accepted, EventCenter, IdMap, SendStatus, SocketId, TimerId};
use siphon_proto::v2::Revision;
use siphon_proto::{
    AuthAnswer, AuthEvent, Event, Message, Next, OutMessage, PeerInfo, Protocol, Transmit,
};
use siphon_wire::buf::{Input, SegmentBuf, SegmentPool};
use siphon_wire::types::{EntityAddr, EntityType, Features};

use super::inject::{Injection, internal_delay};
use super::pace::Pace;
use super::{WorkerCounters, enqueue, socket_options};
use crate::connection::{Connection, ConnectionId};
use crate::dispatch_queue::Item;
use crate::dispatcher::guarded;
use crate::dump::Described;
use crate::error::CloseReason;
use crate::messenger::with_ip;
use crate::trace;

/// Bytes that are handed to the stack at once; a message is never split, so the last may exceed it.
const TRANSMIT_BUDGET: usize = 512 << 10;
/// How often a connection may do that in one turn before others have theirs.
const TRANSMIT_ROUNDS: usize = 4;

/// What a connection does its IO with.
pub(crate) struct Io<'a> {
    pub(crate) center: &'a mut EventCenter,
    /// Whose the worker's sockets are.
    pub(crate) sockets: &'a mut IdMap<SocketId, ConnectionId>,
    /// What is being handed to the stack; kept for its capacity.
    pub(crate) transmit: &'a mut Transmit,
    pub(crate) counters: &'a mut WorkerCounters,
    pub(crate) pace: &'a mut Pace,
}

/// A connection with somebody else, with a socket or between two.
pub(crate) struct Remote {
    pub(crate) handle: Connection,
    pub(crate) proto: siphon_proto::Connection,
    /// It stands in the worker's list of connections to be pumped.
    pub(crate) dirty: bool,
    /// Since when the dispatch queue is full, which means not to read.
    paused: Option<Instant>,
    /// What the peer wants is being decided by the worker of its other connection.
    pub(crate) meeting: bool,
    transport: Option<Transport>,
    /// Who waits until all that is queued now has been sent.
    flush: Vec<oneshot::Sender<()>>,
    /// The address we connect to, or that the peer connects from.
    addr: EntityAddr,
    /// Authentication over the link, while it goes on.
    exchange: Exchange,
    accepted: bool,
    /// The application was told of a session.
    known: bool,
    /// The session's link is encrypted.
    secure: bool,
    timer: Option<(Instant, TimerId)>,
    /// What tests want to be done to its messages.
    injection: Option<Box<Injection>>,
    ending: Ending,
    /// What happened to the transport, which the protocol does not know.
    failure: Option<CloseReason>,
}

/// A socket, and what is under way on it.
#[derive(Debug)]
struct Transport {
    socket: SocketId,
    open: bool,
    sending: bool,
    receiving: bool,
}

/// How far an orderly end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// What is queued is still sent.
    Sending,
    /// The peer was told that nothing more comes; we read until it has closed as well, so that
    /// what it has not read yet is not torn down.
    HalfClosed,
}

/// What has to be done about a connection by whoever owns it.
pub(crate) enum Pumped {
    Idle,
    /// There is more to tell the application, in the next round.
    Later,
    /// The peer wants a session: see who it is.
    Knocks,
    Ended(CloseReason),
}

impl Remote {
    pub(crate) fn connect(
        now: Instant,
        handle: Connection,
        pool: &SegmentPool,
    ) -> Result<Self, (Connection, CloseReason)> {
        let usable = |addr: &EntityAddr| addr.socket_addr().is_some_and(|addr| addr.port() != 0);
        let (v2, v1) = (handle.target().msgr2(), handle.target().legacy());
        // Who offers both is spoken to by msgr2.
        let Some(target) = v2.filter(usable).or_else(|| v1.filter(usable)) else {
            let addrs = handle.target().clone();
            return Err((handle, CloseReason::NoUsableAddress { addrs }));
        };
        let config = handle.messenger().connection_config(pool);
        let expected = Some(handle.expected()).filter(|kind| *kind != EntityType::ANY);
        let proto = siphon_proto::Connection::connect(config, target, expected, now);
        Ok(Self::new(handle, proto, None, target))
    }

    /// A peer that came to us by a socket of this worker.
    pub(crate) fn accept(
        io: &mut Io<'_>,
        handle: Connection,
        accepted: Accepted,
        pool: &SegmentPool,
    ) -> Result<Self, (Connection, CloseReason)> {
        let addr = handle.target().front();
        let mut config = handle.messenger().connection_config(pool);
        // Whoever listens at every interface is, for this peer, where the peer found it.
        config.addrs = with_ip(&config.addrs, accepted.local_addr().ip());
        let proto = siphon_proto::Connection::accept(config, addr, io.center.now());
        Self::arrive(io, handle, proto, accepted)
    }

    /// A peer that came to us by any worker, and is as far as `proto` says.
    pub(crate) fn arrive(
        io: &mut Io<'_>,
        handle: Connection,
        proto: siphon_proto::Connection,
        accepted: Accepted,
    ) -> Result<Self, (Connection, CloseReason)> {
        let addr = handle.target().front();
        match io.center.adopt(accepted, &socket_options(handle.messenger())) {
            Ok(socket) => {
                io.sockets.insert(socket, handle.id());
                let transport = Transport::new(socket, true);
                let mut remote = Self::new(handle, proto, Some(transport), addr);
                remote.accepted = true;
                Ok(remote)
            }
            Err(error) => {
                let source = Arc::new(error);
                Err((handle, CloseReason::Transport { doing: "accepting", source }))
            }
        }
    }

    fn new(
        handle: Connection,
        proto: siphon_proto::Connection,
        transport: Option<Transport>,
        addr: EntityAddr,
    ) -> Self {
        let mut proto = proto;
        proto.set_outgoing(handle.outgoing().clone());
        if handle.messenger().has_throttles() {
            proto.set_waker(handle.waker());
        }
        Self {
            handle,
            proto,
            dirty: false,
            paused: None,
            meeting: false,
            transport,
            flush: Vec::new(),
            addr,
            exchange: Exchange::None,
            accepted: false,
            known: false,
            secure: false,
            timer: None,
            injection: None,
            ending: Ending::No,
            failure: None,
        }
    }

    pub(crate) fn handle_connected(&mut self, now: Instant, result: io::Result<()>) {
        match result {
            Ok(()) => {
                if let Some(transport) = &mut self.transport {
                    transport.open = true;
                }
                self.proto.handle_connected(now);
            }
            Err(error) => self.transport_failed(now, connect_failed(&self.addr, error)),
        }
    }

    pub(crate) fn handle_received(
        &mut self,
        now: Instant,
        result: io::Result<usize>,
        fill: Option<SegmentBuf>,
        bytes: Input<'_>,
    ) {
        if let Some(transport) = &mut self.transport {
            transport.receiving = false;
        }
        match result {
            Ok(0) | Err(_) if self.ending == Ending::HalfClosed => {
                self.failure = Some(CloseReason::Shutdown);
                self.proto.close();
            }
            Ok(0) => self.proto.handle_eof(now),
            Ok(_) => self.proto.handle_recv(now, fill, bytes),
            Err(error) => self.io_failed(now, error),
        }
    }

    pub(crate) fn handle_sent(&mut self, now: Instant, result: io::Result<()>) {
        if let Some(transport) = &mut self.transport {
            transport.sending = false;
        }
        if let Err(error) = result {
            self.io_failed(now, error);
        }
    }

    pub(crate) fn handle_timer(&mut self, now: Instant) {
        self.timer = None;
        if self.paused.is_some() || self.proto.is_throttled() {
            self.proto.touch(now); // the silence is of our own making
        }
        self.proto.handle_timeout(now);
    }

    /// Queues a message to be sent.
    pub(crate) fn send(&mut self, now: Instant, message: OutMessage) {
        if self.injection.as_ref().is_some_and(|it| it.is_blackhole()) {
            return self.handle.outgoing().put(message.charge());
        }
        self.proto.send(now, message);
    }

    /// Tells `done` when all that is queued now has been sent.
    pub(crate) fn flush(&mut self, done: oneshot::Sender<()>) {
        self.flush.retain(|waiter| !waiter.is_canceled());
        self.flush.push(done);
    }

    /// Sends what is queued, then ends the connection.
    pub(crate) fn finish(&mut self) {
        if self.ending == Ending::No {
            self.ending = Ending::Sending;
        }
    }

    /// Tells the application what has come, as far as this round goes.
    pub(crate) fn dispatch(&mut self, io: &mut Io<'_>) -> Pumped {
        self.drain_events(io).map_or(Pumped::Idle, Pumped::Ended)
    }

    /// Tells the application all that has come.
    pub(crate) fn dispatch_all(&mut self, io: &mut Io<'_>) -> Pumped {
        io.pace.end_rounds();
        self.dispatch(io)
    }

    /// Whether its events cannot wait for another round: what happened to its link is to be known before
    /// anything else happens to it.
    pub(crate) fn is_urgent(&self) -> bool {
        self.proto.has_news()
    }

    /// Does everything that is to be done now; says what is left to others.
    pub(crate) fn pump(&mut self, io: &mut Io<'_>) -> Pumped {
        self.dirty = false;
        self.release_held(io);
        loop {
            if let Some(reason) = self.drain_events(io) {
                return Pumped::Ended(reason);
            }
            self.transmit(io);
            self.advance_ending(io);
            self.receive(io.center);
            if !self.proto.has_events() {
                break;
            }
            if !io.pace.goes_on() && !self.is_urgent() {
                self.dirty = true;
                return Pumped::Later;
            }
        }
        self.set_timer(io.center);
        let settled = self.transport.as_ref().is_some_and(|transport| !transport.sending);
        if settled && !self.meeting && self.proto.knocking().is_some() {
            return Pumped::Knocks;
        }
        Pumped::Idle
    }

    /// Gives up the socket, for another worker.
    pub(crate) fn detach(&mut self, io: &mut Io<'_>) -> io::Result<Accepted> {
        let transport = self.transport.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let accepted = io.center.detach(transport.socket)?;
        io.sockets.remove(&transport.socket);
        self.transport = None;
        Ok(accepted)
    }

    /// Goes on with the socket by which the peer came to `from`, which is nothing any more.
    pub(crate) fn take_transport(&mut self, io: &mut Io<'_>, from: &mut Self) {
        self.drop_transport(io);
        self.transport = from.transport.take();
        if let Some(transport) = &self.transport {
            io.sockets.insert(transport.socket, self.handle.id());
        }
        self.addr = from.addr;
        self.accepted = true;
        self.failure = None;
    }

    /// Lets go of what it has of the worker's.
    pub(crate) fn release(&mut self, io: &mut Io<'_>) {
        if let Some((_, timer)) = self.timer.take() {
            io.center.cancel_timer(timer);
        }
        self.drop_transport(io);
    }

    /// Tells everyone that the connection has ended. The socket is gone after this.
    pub(crate) fn close(mut self, io: &mut Io<'_>, reason: CloseReason) {
        self.release(io);
        self.proto.close(); // and gives back what it holds
        for message in self.injection.iter_mut().flat_map(|it| it.release_all()) {
            let _ = dispatch(&self.handle, message); // nothing is read any more
        }
        match &reason {
            CloseReason::MarkedDown | CloseReason::Shutdown => self.handle.set_closed(reason),
            _ if self.accepted && !self.known => {
                // The application never heard of it; whoever runs the server wants to know.
                tracing::warn!(peer = %self.addr, %reason, "a peer did not get as far as a session");
                self.handle.set_closed(reason);
            }
            _ => report_end(&self.handle, reason),
        }
        self.handle.messenger().unregister(&self.handle);
    }

    fn drain_events(&mut self, io: &mut Io<'_>) -> Option<CloseReason> {
        let mut dispatched = false;
        while (io.pace.goes_on() || self.is_urgent())
            && let Some(event) = self.proto.poll_event()
        {
            match event {
                Event::Message(message) => {
                    io.counters.received(&message, self.secure);
                    let len = message.payload.len();
                    self.receive_message(io, message);
                    // Behind it: what was got and does not wait yet would count as given back.
                    let throttle = self.handle.messenger().dispatch_throttle();
                    throttle.got(io.counters.index(), len);
                    io.pace.count();
                    dispatched = true;
                }
                Event::Auth(event) => {
                    let answer = self.authenticate(event);
                    self.proto.handle_auth(io.center.now(), answer);
                }
                Event::LearnedAddr(seen) => self.learn(io.center, &seen),
                Event::Connect(target) => self.start_connecting(io, target),
                Event::Knock => {} // seen in `pump`, when nothing is being sent
                Event::Ready { peer, accepted } => self.handle_ready(io, *peer, accepted),
                Event::RemoteReset => {
                    if let Some(injection) = &mut self.injection {
                        injection.discard();
                    }
                    self.handle.messenger().queue().discard(&self.handle);
                    let go_on = enqueue(&self.handle, Item::RemoteReset);
                    self.pause_unless(go_on, io);
                }
                Event::KeepaliveAck(stamp) => {
                    self.handle.set_keepalive_ack(stamp);
                    let chain = self.handle.messenger().chain();
                    guarded(&self.handle, || {
                        chain.iter().for_each(|d| d.handle_keepalive_ack(&self.handle));
                    });
                }
                Event::LinkDown { reason, next } => {
                    let reason = self.failure.take().unwrap_or_else(|| reason.into());
                    io.counters.lost(&reason);
                    self.drop_transport(io);
                    self.handle_link_down(reason, next);
                }
                Event::Closed(reason) => {
                    return Some(self.failure.take().unwrap_or_else(|| reason.into()));
                }
            }
        }
        if dispatched {
            io.counters.dispatched(io.center);
        }
        None
    }

    fn receive_message(&mut self, io: &Io<'_>, message: Message) {
        let message = match &mut self.injection {
            Some(injection) => injection.receive(io.center.now(), message),
            None => Some(message),
        };
        if let Some(message) = message {
            let go_on = dispatch(&self.handle, message);
            self.pause_unless(go_on, io);
        }
    }

    fn pause_unless(&mut self, go_on: bool, io: &Io<'_>) {
        if !go_on && self.paused.is_none() {
            self.paused = Some(io.center.now());
            self.handle.messenger().dispatch_throttle().refused(io.counters.index());
        }
    }

    /// The dispatch queue has room.
    pub(crate) fn resume(&mut self, now: Instant, worker: usize) {
        if let Some(since) = self.paused.take() {
            let time = now.saturating_duration_since(since);
            self.handle.messenger().dispatch_throttle().waited(worker, time);
        }
    }

    /// Dispatches what was held back until now.
    fn release_held(&mut self, io: &Io<'_>) {
        let now = io.center.now();
        while let Some(message) = self.injection.as_mut().and_then(|it| it.release(now)) {
            let go_on = dispatch(&self.handle, message);
            self.pause_unless(go_on, io);
        }
    }

    fn start_connecting(&mut self, io: &mut Io<'_>, target: EntityAddr) {
        self.addr = target;
        self.accepted = false;
        let Some(addr) = target.socket_addr() else {
            return self.proto.handle_lost(io.center.now());
        };
        match io.center.connect(addr, &socket_options(self.handle.messenger())) {
            Ok(socket) => {
                io.sockets.insert(socket, self.handle.id());
                self.transport = Some(Transport::new(socket, false));
            }
            Err(error) => self.transport_failed(io.center.now(), connect_failed(&target, error)),
        }
    }

    fn drop_transport(&mut self, io: &mut Io<'_>) {
        if let Some(transport) = self.transport.take() {
            io.sockets.remove(&transport.socket);
            io.center.close(transport.socket);
        }
    }

    /// The link is gone, the connection is not.
    fn handle_link_down(&mut self, reason: CloseReason, next: Next) {
        tracing::debug!(peer = %self.handle, %reason, ?next, "link lost");
        if matches!(reason, CloseReason::Refused { .. }) {
            let _ = enqueue(&self.handle, Item::Refused); // nothing is read, so nothing pauses
        }
        let abandoned = self.handle.messenger().is_abandoned();
        if abandoned || (self.ending != Ending::No && (next == Next::Standby || !self.known)) {
            // There is nobody to send it to, or nobody who sends.
            self.failure = Some(if abandoned { reason.clone() } else { CloseReason::Shutdown });
            self.proto.close();
        }
        self.handle.set_fault(reason.clone());
        if self.failure.is_none() {
            for dispatcher in self.handle.messenger().chain().iter() {
                guarded(&self.handle, || dispatcher.handle_fault(&self.handle, &reason));
            }
        }
    }

    /// What it is, for people.
    pub(crate) fn describe(
        &self,
        center: &EventCenter,
        worker: usize,
        tcp_info: bool,
    ) -> Described {
        let transport = self.transport.as_ref();
        Described {
            worker,
            conn_id: self.handle.id().token(),
            accepted: self.accepted,
            paused: self.paused.is_some(),
            sending: transport.is_some_and(|transport| transport.sending),
            target: self.addr,
            peer: self.handle.peer(),
            state: self.proto.state(center.now()),
            outgoing_bytes: self.handle.outgoing_bytes(),
            tcp_info: transport.filter(|_| tcp_info).and_then(|it| center.tcp_info(it.socket)),
        }
    }

    /// Whether a session is open over its socket.
    pub(crate) fn is_open(&self) -> bool {
        self.proto.is_ready()
    }

    /// Of our own address, only peers that we looked up ourselves are believed; with
    /// `ms_learn_addr_from_peer` off, our side of the socket tells.
    fn learn(&mut self, center: &EventCenter, seen: &EntityAddr) {
        let messenger = self.handle.messenger();
        if self.accepted {
            return;
        }
        if messenger.context().config().ms_learn_addr_from_peer {
            self.proto.set_addrs(messenger.learned_addr(seen));
        } else if let Some(transport) = &self.transport
            && let Ok(addr) = center.local_addr(transport.socket)
        {
            self.proto.set_addrs(messenger.learned_addr(&EntityAddr::msgr2(addr, 0)));
        }
    }

    fn handle_ready(&mut self, io: &Io<'_>, peer: PeerInfo, accepted: bool) {
        tracing::debug!(peer = %peer.name, addrs = %peer.addrs, features = %peer.features, "session open");
        let config = self.handle.messenger().context().config();
        internal_delay(&config);
        if self.injection.is_none() {
            self.injection = Injection::for_peer(&config, peer.name.kind);
        }
        self.secure = peer.mode == ConnectionMode::SECURE;
        self.handle.set_ready(peer);
        self.known = true;
        let chain = self.handle.messenger().chain();
        guarded(&self.handle, || {
            chain.iter().for_each(|dispatcher| match accepted {
                true => dispatcher.handle_fast_accept(&self.handle),
                false => dispatcher.handle_fast_connect(&self.handle),
            });
        });
        let news = if accepted { Item::Accept } else { Item::Connect };
        let go_on = enqueue(&self.handle, news);
        self.pause_unless(go_on, io);
    }

    fn authenticate(&mut self, event: AuthEvent) -> AuthAnswer {
        let messenger = self.handle.messenger();
        match &event {
            AuthEvent::Begin { peer_type } => {
                let peer = PeerContext::new(*peer_type).of_connection(self.handle.number());
                match messenger.auth_client().begin(peer) {
                    Ok(exchange) => self.exchange = Exchange::Client(exchange),
                    Err(error) => return AuthAnswer::Reject(error),
                }
            }
            AuthEvent::Request { peer_type, .. }
                if !matches!(self.exchange, Exchange::Server(_)) =>
            {
                let peer = PeerContext::new(*peer_type).of_connection(self.handle.number());
                let exchange = messenger.auth_server().begin(peer);
                self.exchange = Exchange::Server(exchange);
            }
            _ => {}
        }
        let answer = self.exchange.answer(&event);
        let is_over = matches!(
            answer,
            AuthAnswer::Trust(_) | AuthAnswer::Accept { .. } | AuthAnswer::Reject(_)
        );
        if is_over
            && let Exchange::Server(exchange) =
                std::mem::replace(&mut self.exchange, Exchange::None)
        {
            self.handle.set_auth_exchange(exchange);
        }
        answer
    }

    fn transmit(&mut self, io: &mut Io<'_>) {
        for _ in 0..TRANSMIT_ROUNDS {
            let Some(transport) = self.transport.as_mut().filter(|it| it.open && !it.sending)
            else {
                return;
            };
            if self.ending == Ending::HalfClosed {
                return;
            }
            let now = io.center.now();
            if !self.proto.poll_transmit(now, io.transmit, TRANSMIT_BUDGET) {
                self.wake_flushed();
                return;
            }
            transport.sending =
                io.center.send(transport.socket, &mut io.transmit.out) == SendStatus::Pending;
            io.transmit.spent.clear();
            io.counters.sent(io.transmit, self.secure);
            io.counters.transmitted(io.center);
            if !io.transmit.more && !transport.sending {
                return self.wake_flushed();
            }
        }
        if self.transport.as_ref().is_some_and(|transport| !transport.sending) {
            self.handle.continue_later();
        }
    }

    fn wake_flushed(&mut self) {
        if !self.flush.is_empty() && self.proto.is_ready() && self.proto.unsent() == 0 {
            for done in self.flush.drain(..) {
                let _ = done.send(()); // whoever waited may have given up
            }
        }
    }

    fn advance_ending(&mut self, io: &mut Io<'_>) {
        // What was not dispatched yet may be answered.
        if self.ending != Ending::Sending || self.proto.unsent() > 0 || self.proto.has_events() {
            return;
        }
        match &self.transport {
            Some(transport) if transport.sending => return,
            Some(transport)
                if self.proto.is_ready() && io.center.shutdown_write(transport.socket).is_ok() =>
            {
                self.ending = Ending::HalfClosed;
                return;
            }
            _ => {}
        }
        self.failure = Some(CloseReason::Shutdown); // there is nothing to connect for
        self.proto.close();
    }

    fn receive(&mut self, center: &mut EventCenter) {
        if let Some(transport) = &mut self.transport
            && transport.open
            && !transport.receiving
            && self.paused.is_none()
            && self.proto.wants_recv()
        {
            let lent = if center.fills() { self.proto.lend_buffer() } else { None };
            center.recv(transport.socket, lent);
            transport.receiving = true;
        }
    }

    /// One timer, which is moved only where it would come too late: a later deadline is found when
    /// it fires.
    fn set_timer(&mut self, center: &mut EventCenter) {
        let held = self.injection.as_ref().and_then(|it| it.next_release());
        let Some(deadline) = self.proto.poll_timeout().into_iter().chain(held).min() else {
            return;
        };
        match &mut self.timer {
            Some((at, _)) if *at <= deadline => {}
            Some((at, timer)) => {
                center.reset_timer(*timer, deadline);
                *at = deadline;
            }
            None => {
                self.timer = Some((deadline, center.set_timer(deadline, self.handle.id().token())));
            }
        }
    }

    fn io_failed(&mut self, now: Instant, error: io::Error) {
        let doing = self.proto.stage();
        self.transport_failed(now, CloseReason::Transport { doing, source: Arc::new(error) });
    }

    fn transport_failed(&mut self, now: Instant, failure: CloseReason) {
        self.failure = Some(failure);
        self.proto.handle_lost(now);
    }
}

impl Transport {
    fn new(socket: SocketId, open: bool) -> Self {
        Self { socket, open, sending: false, receiving: false }
    }
}

/// Gives a message to whom it concerns; false if the connection must pause.
pub(crate) fn dispatch(connection: &Connection, message: Message) -> bool {
    if !connection.takes_messages() {
        return true;
    }
    trace::received(connection, &message);
    let chain = connection.messenger().chain();
    match chain.iter().find(|dispatcher| dispatcher.can_fast_dispatch(&message)) {
        Some(dispatcher) => {
            guarded(connection, || dispatcher.fast_dispatch(connection, message));
            true
        }
        None => enqueue(connection, Item::Message(message)),
    }
}

/// A connection that the application knows has ended against its will.
pub(crate) fn report_end(connection: &Connection, reason: CloseReason) {
    if connection.close_reason().is_some() {
        return; // the application ended it meanwhile
    }
    tracing::debug!(peer = %connection, %reason, "connection ended");
    connection.set_closed(reason.clone());
    let _ = enqueue(connection, Item::Reset(reason)); // it reads no more: there is nothing to pause
}

/// The other end of the local connection.
pub(crate) fn ourselves(connection: &Connection) -> PeerInfo {
    let messenger = connection.messenger();
    PeerInfo {
        name: messenger.name(),
        global_id: 0,
        addrs: connection.target().clone(),
        features: Features::ALL,
        policy: siphon_proto::Policy::LOSSLESS_PEER,
        protocol: Protocol::Msgr2(Revision::Rev1),
        mode: ConnectionMode::CRC,
        compression: None,
        identity: None,
    }
}

/// How far authentication is.
#[derive(Debug)]
enum Exchange {
    None,
    Client(Box<dyn ClientExchange>),
    Server(Box<dyn ServerExchange>),
}

impl Exchange {
    fn answer(&mut self, event: &AuthEvent) -> AuthAnswer {
        let answer = match (self, event) {
            (Self::Client(it), AuthEvent::Begin { .. }) => it.request().map(AuthAnswer::Request),
            (Self::Client(it), AuthEvent::BadMethod(refusal)) => {
                it.bad_method(refusal.clone()).map(AuthAnswer::Request)
            }
            (Self::Client(it), AuthEvent::ReplyMore(payload)) => {
                it.reply_more(payload).map(AuthAnswer::More)
            }
            (Self::Client(it), AuthEvent::Done { global_id, mode, payload }) => {
                it.done(*global_id, *mode, payload).map(AuthAnswer::Trust)
            }
            (Self::Server(it), AuthEvent::Request { request, .. }) => {
                Ok(server_answer(it.request(request)))
            }
            (Self::Server(it), AuthEvent::RequestMore(payload)) => {
                Ok(server_answer(it.request_more(payload)))
            }
            // The protocol asks for nothing out of turn.
            _ => Err(AuthError::UnexpectedStep { method: AuthMethod::UNKNOWN }),
        };
        answer.unwrap_or_else(AuthAnswer::Reject)
    }
}

fn server_answer(answer: AuthServerAnswer) -> AuthAnswer {
    match answer {
        AuthServerAnswer::Done { global_id, mode, payload, keys, identity } => {
            AuthAnswer::Accept { global_id, mode, payload, keys, identity }
        }
        AuthServerAnswer::More(payload) => AuthAnswer::More(payload),
        AuthServerAnswer::BadMethod(refusal) => AuthAnswer::Refuse(refusal),
    }
}

fn connect_failed(addr: &EntityAddr, error: io::Error) -> CloseReason {
    let source = Arc::new(error);
    match source.kind() {
        io::ErrorKind::ConnectionRefused => CloseReason::Refused { addr: *addr, source },
        _ => CloseReason::Transport { doing: "connecting", source },
    }
}
