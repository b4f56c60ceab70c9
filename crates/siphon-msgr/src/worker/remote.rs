use std::io;
use std::sync::Arc;
use std::time::Instant;

use futures_channel::oneshot;
use siphon_auth::{AuthServerAnswer, ConnectionMode, PeerContext};
use siphon_net::{Accepted, EventCenter, MailSender, SendStatus, SocketId, TimerId};
use siphon_proto::v2::Revision;
use siphon_proto::{AuthAnswer, AuthEvent, Event, Message, PeerInfo, Role};
use siphon_wire::buf::{Rope, SegmentBuf, SegmentPool};
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityType, Features};

use super::{Mail, enqueue, socket_options};
use crate::connection::{Connection, ConnectionId};
use crate::dispatch_queue::Item;
use crate::dispatcher::guarded;
use crate::error::CloseReason;
use crate::messenger::{Shared, with_ip};

/// Bytes that are handed to the stack at once; a message is never split, so the last may exceed it.
const TRANSMIT_BUDGET: usize = 512 << 10;
/// How often a connection may do that in one turn before others have theirs.
const TRANSMIT_ROUNDS: usize = 4;

/// A connection over a socket.
pub(crate) struct Remote {
    pub(crate) handle: Connection,
    pub(crate) proto: siphon_proto::Connection,
    pub(crate) socket: SocketId,
    /// It stands in the worker's list of connections to be pumped.
    pub(crate) dirty: bool,
    /// The dispatch queue is full: don't read.
    pub(crate) paused: bool,
    /// Who waits until all that is queued now has been sent.
    flush: Vec<oneshot::Sender<()>>,
    /// The address we connect to, or that the peer connects from.
    addr: EntityAddr,
    /// What the peer said it is, once it has.
    peer_type: EntityType,
    accepted: bool,
    transport: Transport,
    sending: bool,
    receiving: bool,
    timer: Option<TimerId>,
    /// The timer is for the handshake, which is over.
    timer_outlived: bool,
    ending: Ending,
    failure: Option<CloseReason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Connecting,
    /// It is open, and nothing was done with that yet.
    Connected,
    Open,
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

impl Remote {
    pub(crate) fn connect(
        center: &mut EventCenter,
        handle: Connection,
        peer_type: EntityType,
        pool: &SegmentPool,
    ) -> Result<Self, (Connection, CloseReason)> {
        let Some((target, addr)) = handle.target().msgr2().and_then(|target| {
            let addr = target.socket_addr().filter(|addr| addr.port() != 0)?;
            Some((target, addr))
        }) else {
            let addrs = handle.target().clone();
            return Err((handle, CloseReason::NoUsableAddress { addrs }));
        };
        let socket = match center.connect(addr, &socket_options(handle.messenger())) {
            Ok(socket) => socket,
            Err(error) => return Err((handle, connect_failed(&target, error))),
        };
        let config = handle.messenger().connection_config(pool);
        let expected = (peer_type != EntityType::ANY).then_some(peer_type);
        let role = Role::Client { target, peer_type: expected };
        let proto = siphon_proto::Connection::new(config, role, center.now());
        Ok(Self::new(handle, proto, socket, target, Transport::Connecting))
    }

    pub(crate) fn accept(
        center: &mut EventCenter,
        id: ConnectionId,
        sender: MailSender<Mail>,
        messenger: Arc<Shared>,
        accepted: Accepted,
        pool: &SegmentPool,
    ) -> Result<Self, (Connection, CloseReason)> {
        let addr = EntityAddr::msgr2(accepted.peer_addr(), 0);
        // Whoever listens at every interface is, for this peer, where the peer found it.
        let local_ip = Some(accepted.local_addr().ip());
        let handle = Connection::new(id, sender, messenger, EntityAddrVec::from(addr));
        let socket = match center.adopt(accepted, &socket_options(handle.messenger())) {
            Ok(socket) => socket,
            Err(error) => {
                let source = Arc::new(error);
                return Err((handle, CloseReason::Transport { doing: "accepting", source }));
            }
        };
        let mut config = handle.messenger().connection_config(pool);
        if let Some(ip) = local_ip {
            config.addrs = with_ip(&config.addrs, ip);
        }
        let role = Role::Server { peer_addr: addr };
        let proto = siphon_proto::Connection::new(config, role, center.now());
        let mut remote = Self::new(handle, proto, socket, addr, Transport::Open);
        remote.accepted = true;
        Ok(remote)
    }

    fn new(
        handle: Connection,
        proto: siphon_proto::Connection,
        socket: SocketId,
        addr: EntityAddr,
        transport: Transport,
    ) -> Self {
        Self {
            handle,
            proto,
            socket,
            dirty: false,
            paused: false,
            flush: Vec::new(),
            addr,
            peer_type: EntityType::ANY,
            accepted: false,
            transport,
            sending: false,
            receiving: false,
            timer: None,
            timer_outlived: false,
            ending: Ending::No,
            failure: None,
        }
    }

    pub(crate) fn handle_connected(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.transport = Transport::Connected,
            Err(error) => self.failure = Some(connect_failed(&self.addr, error)),
        }
    }

    pub(crate) fn handle_received(
        &mut self,
        now: Instant,
        result: io::Result<usize>,
        fill: Option<SegmentBuf>,
        bytes: &[u8],
    ) {
        self.receiving = false;
        match result {
            Ok(0) if self.ending == Ending::HalfClosed => {
                self.failure = Some(CloseReason::Shutdown)
            }
            Ok(0) => self.proto.handle_eof(),
            Ok(_) => self.proto.handle_recv(now, fill, bytes),
            Err(_) if self.ending == Ending::HalfClosed => {
                self.failure = Some(CloseReason::Shutdown);
            }
            Err(error) => self.transport_failed(error),
        }
    }

    pub(crate) fn handle_sent(&mut self, result: io::Result<()>) {
        self.sending = false;
        if let Err(error) = result {
            self.transport_failed(error);
        }
    }

    pub(crate) fn handle_timer(&mut self, now: Instant) {
        self.timer = None;
        if self.paused {
            self.proto.touch(now); // the silence is of our own making
        }
        self.proto.handle_timeout(now);
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

    /// Does everything that is to be done now; at the end of the connection, says why.
    pub(crate) fn pump(
        &mut self,
        center: &mut EventCenter,
        transmit: &mut Rope,
    ) -> Option<CloseReason> {
        if self.transport == Transport::Connected {
            self.transport = Transport::Open;
            self.learn_from_socket(center);
        }
        let mut closed = self.drain_events();
        if self.ending == Ending::Sending
            && self.transport == Transport::Connecting
            && self.proto.unsent() == 0
        {
            return Some(CloseReason::Shutdown); // there is nothing to connect for
        }
        if self.failure.is_none() && closed.is_none() && self.transport == Transport::Open {
            self.transmit(center, transmit);
            self.advance_ending(center);
            self.receive(center);
            if self.proto.is_closed() {
                closed = self.drain_events(); // by what we wanted to send
            }
        }
        if let Some(reason) = self.failure.take() {
            return Some(reason);
        }
        if closed.is_some() {
            return closed;
        }
        if std::mem::take(&mut self.timer_outlived)
            && let Some(timer) = self.timer.take()
        {
            center.cancel_timer(timer);
        }
        if self.timer.is_none()
            && let Some(deadline) = self.proto.poll_timeout()
        {
            self.timer = Some(center.set_timer(deadline, self.handle.id().token()));
        }
        None
    }

    /// Tells everyone that the connection has ended. The socket is gone after this.
    pub(crate) fn close(self, center: &mut EventCenter, reason: CloseReason) {
        if let Some(timer) = self.timer {
            center.cancel_timer(timer);
        }
        center.close(self.socket);
        let was_open = self.handle.peer().is_some();
        match &reason {
            CloseReason::MarkedDown | CloseReason::Shutdown => self.handle.set_closed(reason),
            CloseReason::Replaced => {
                if self.handle.peer().is_some_and(|peer| !peer.policy.lossy) {
                    let _ = enqueue(&self.handle, Item::RemoteReset); // it reads no more
                }
                report_end(&self.handle, reason);
            }
            _ if self.accepted && !was_open => {
                // The application never heard of it; whoever runs the server wants to know.
                tracing::warn!(peer = %self.addr, %reason, "a peer did not get as far as a session");
                self.handle.set_closed(reason);
            }
            _ => report_end(&self.handle, reason),
        }
    }

    fn drain_events(&mut self) -> Option<CloseReason> {
        while let Some(event) = self.proto.poll_event() {
            match event {
                Event::Message(message) => {
                    if !dispatch(&self.handle, message) {
                        self.paused = true;
                    }
                }
                Event::Auth(event) => {
                    let answer = self.authenticate(event);
                    self.proto.handle_auth(answer);
                }
                Event::LearnedAddr(seen) => self.learn(&seen),
                Event::Ready(peer) => self.handle_ready(*peer),
                Event::KeepaliveAck(stamp) => {
                    self.handle.set_keepalive_ack(stamp);
                    let chain = self.handle.messenger().chain();
                    guarded(&self.handle, || {
                        chain.iter().for_each(|d| d.handle_keepalive_ack(&self.handle));
                    });
                }
                Event::Closed(reason) => return Some(reason.into()),
            }
        }
        None
    }

    /// Of our own address, only peers that we looked up ourselves are believed.
    fn learn(&mut self, seen: &EntityAddr) {
        let messenger = self.handle.messenger();
        if !self.accepted && messenger.context().config().ms_learn_addr_from_peer {
            self.proto.set_addrs(messenger.learned_addr(seen));
        }
    }

    /// With `ms_learn_addr_from_peer` off, our side of the socket tells.
    fn learn_from_socket(&mut self, center: &EventCenter) {
        let messenger = self.handle.messenger();
        if !messenger.context().config().ms_learn_addr_from_peer
            && let Ok(addr) = center.local_addr(self.socket)
        {
            self.proto.set_addrs(messenger.learned_addr(&EntityAddr::msgr2(addr, 0)));
        }
    }

    fn handle_ready(&mut self, peer: PeerInfo) {
        tracing::debug!(peer = %peer.name, addrs = %peer.addrs, features = %peer.features, "session open");
        let registered = !peer.policy.lossy || peer.policy.register_lossy_clients;
        self.handle.set_peer(peer);
        if self.accepted && registered {
            self.handle.messenger().register(&self.handle);
        }
        self.timer_outlived = true;
        let chain = self.handle.messenger().chain();
        let accepted = self.accepted;
        guarded(&self.handle, || {
            chain.iter().for_each(|dispatcher| match accepted {
                true => dispatcher.handle_fast_accept(&self.handle),
                false => dispatcher.handle_fast_connect(&self.handle),
            });
        });
        let news = if accepted { Item::Accept } else { Item::Connect };
        self.paused |= !enqueue(&self.handle, news);
    }

    fn authenticate(&mut self, event: AuthEvent) -> AuthAnswer {
        if let AuthEvent::Begin { peer_type } | AuthEvent::Request { peer_type, .. } = &event {
            self.peer_type = *peer_type;
        }
        let peer = PeerContext { peer_type: self.peer_type };
        let messenger = self.handle.messenger();
        let (client, server) = (messenger.auth_client(), messenger.auth_server());
        let answer = match event {
            AuthEvent::Begin { .. } => client.request(peer).map(AuthAnswer::Request),
            AuthEvent::BadMethod(refusal) => {
                client.bad_method(peer, refusal).map(AuthAnswer::Request)
            }
            AuthEvent::ReplyMore(payload) => {
                client.reply_more(peer, &payload).map(AuthAnswer::More)
            }
            AuthEvent::Done { global_id, mode, payload } => {
                client.done(peer, global_id, mode, &payload).map(AuthAnswer::Trust)
            }
            AuthEvent::Request { request, .. } => Ok(server_answer(server.request(peer, &request))),
            AuthEvent::RequestMore(payload) => {
                server.request_more(peer, &payload).map(server_answer)
            }
        };
        answer.unwrap_or_else(AuthAnswer::Reject)
    }

    fn transmit(&mut self, center: &mut EventCenter, transmit: &mut Rope) {
        for _ in 0..TRANSMIT_ROUNDS {
            if self.sending || self.ending == Ending::HalfClosed {
                return;
            }
            if !self.proto.poll_transmit(transmit, TRANSMIT_BUDGET) {
                self.wake_flushed();
                return;
            }
            self.sending = center.send(self.socket, transmit) == SendStatus::Pending;
        }
        if !self.sending {
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

    fn advance_ending(&mut self, center: &mut EventCenter) {
        if self.ending != Ending::Sending || self.sending || self.proto.unsent() > 0 {
            return;
        }
        if self.proto.is_ready() && center.shutdown_write(self.socket).is_ok() {
            self.ending = Ending::HalfClosed;
        } else {
            self.failure = Some(CloseReason::Shutdown);
        }
    }

    fn receive(&mut self, center: &mut EventCenter) {
        if !self.receiving && !self.paused && self.proto.wants_recv() {
            center.recv(self.socket, self.proto.lend_buffer());
            self.receiving = true;
        }
    }

    fn transport_failed(&mut self, error: io::Error) {
        let doing = self.proto.stage();
        self.failure = Some(CloseReason::Transport { doing, source: Arc::new(error) });
    }
}

/// Gives a message to whom it concerns; false if the connection must pause.
pub(crate) fn dispatch(connection: &Connection, message: Message) -> bool {
    if !connection.takes_messages() {
        return true;
    }
    let chain = connection.messenger().chain();
    match chain.iter().find(|dispatcher| dispatcher.can_fast_dispatch(&message)) {
        Some(dispatcher) => {
            guarded(connection, || dispatcher.fast_dispatch(connection, message));
            true
        }
        None => enqueue(connection, Item::Message(Box::new(message))),
    }
}

/// A connection that the application knows has ended against its will.
pub(crate) fn report_end(connection: &Connection, reason: CloseReason) {
    if connection.close_reason().is_some() {
        return; // the application ended it meanwhile
    }
    tracing::debug!(peer = %connection, %reason, "connection ended");
    connection.set_closed(reason.clone());
    // It reads no more, so there is nothing to pause.
    if matches!(reason, CloseReason::Refused { .. }) {
        let _ = enqueue(connection, Item::Refused);
    }
    let _ = enqueue(connection, Item::Reset(reason));
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
        revision: Revision::Rev1,
        mode: ConnectionMode::CRC,
    }
}

fn server_answer(answer: AuthServerAnswer) -> AuthAnswer {
    match answer {
        AuthServerAnswer::Done { global_id, mode, payload, keys } => {
            AuthAnswer::Accept { global_id, mode, payload, keys }
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
