use std::task::Waker;
use std::time::{Duration, Instant};

use siphon_wire::buf::{Input, Rope, SegmentBuf};
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec, EntityType, Utime};

use crate::config::{ConnectionConfig, Role, Throttles};
use crate::error::{PeerMisbehaved, ProtocolError};
use crate::event::{AuthAnswer, CloseReason, Event, Events, Next, PeerInfo};
use crate::fault::{Backoff, Fault, FaultAction, FaultStage, fault};
use crate::link::{Incoming, Link, SessionFrame};
use crate::message::{Grants, OutMessage};
use crate::opening::Knock;
use crate::policy::Policy;
use crate::session::{Session, Transmitted};
use crate::state::SessionState;
use crate::throttle::{Grant, Throttle};
use crate::transmit::Transmit;
use crate::v2::{MessageFrame, Tag};

/// Most bytes that may arrive behind a step of the handshake before it is answered.
const MAX_STASH: usize = 64 << 10;

/// How long a link whose key may seal no more waits for acknowledgements of what it carried.
const LAST_ACKS: Duration = Duration::from_secs(5);

/// A session that sent nothing for so long holds no buffers to send with.
const RELEASE_AFTER: Duration = Duration::from_secs(5);

/// A connection with a peer: a session, and the link that carries it.
///
/// It does no IO. There are four kinds of method:
///
/// - getters;
/// - `handle_*`: bytes, time, answers and the fate of transports come in;
/// - mutators for the application: [`send`](Self::send), [`keepalive`](Self::keepalive),
///   [`close`](Self::close), [`set_addrs`](Self::set_addrs);
/// - `poll_*`: what is to be done comes out.
///
/// After any call of the second or third kind, poll in this order and until each is empty:
/// [`poll_event`](Self::poll_event) (answering an [`Event::Auth`] by
/// [`handle_auth`](Self::handle_auth)), [`poll_transmit`](Self::poll_transmit),
/// [`poll_timeout`](Self::poll_timeout).
///
/// A connection asks for a transport by [`Event::Connect`], and gives it up by [`Event::LinkDown`].
/// One that was accepted stops at [`Event::Knock`]: whoever knows all connections then calls
/// [`meet`](Self::meet) with the one that the peer has already, or with none.
///
/// ```
/// # use std::{sync::Arc, time::{Duration, Instant}};
/// # use siphon_proto::{Connection, ConnectionConfig, Event, Policies, Policy, Transmit};
/// # use siphon_wire::types::*;
/// let client = EntityName::new(EntityType::CLIENT, 0);
/// let config = ConnectionConfig {
///     policies: Arc::new(Policies::new(Policy::LOSSY_CLIENT)),
///     ..ConnectionConfig::new(client, EntityAddrVec::default())
/// };
/// let target: EntityAddr = "v2:127.0.0.1:6800/0".parse().unwrap();
/// let now = Instant::now();
/// let mut connection = Connection::connect(config, target, Some(EntityType::OSD), now);
/// assert!(matches!(connection.poll_event(), Some(Event::Connect(addr)) if addr == target));
/// // … a socket is opened …
/// connection.handle_connected(now);
/// let mut transmit = Transmit::default();
/// assert!(connection.poll_transmit(now, &mut transmit, 65536));
/// assert!(transmit.out.to_bytes().starts_with(b"ceph v2\n"));
/// ```
#[derive(Debug)]
pub struct Connection {
    pub(crate) config: ConnectionConfig,
    /// Where the peer can be connected to; none if it listens nowhere.
    pub(crate) target: Option<EntityAddr>,
    /// What must be there; `None` takes what comes.
    expected: Option<EntityType>,
    /// As for the kind of peer that it is, or should be; whether it is lossy both sides say.
    pub(crate) policy: Policy,
    pub(crate) phase: Phase,
    /// By msgr1, for good: a session of one protocol is none of the other.
    pub(crate) is_v1: bool,
    /// Invariant: there is one in the phases `Handshake`, `Knocking` and `Open`, and in no other.
    pub(crate) link: Option<Link>,
    pub(crate) session: Session,
    /// The peer of the session, once it was open.
    pub(crate) peer: Option<PeerInfo>,
    pub(crate) knock: Option<Knock>,
    pub(crate) events: Events,
    /// Bytes behind a step of the handshake that is not answered yet, or behind a message that is not
    /// admitted yet.
    pub(crate) stash: Rope,
    /// The time of the last receive: what is stashed came by it as well.
    pub(crate) received_at: Instant,
    /// What bounds messages of the peer.
    pub(crate) throttles: Throttles,
    /// What the next message holds already, while it waits for the rest.
    grants: Grants,
    /// A message waits until a throttle has room.
    throttled: bool,
    /// Since when, for the throttle whose turn it is.
    waits: Option<Instant>,
    /// When the attempt that is under way began.
    started: Instant,
    pub(crate) last_active: Instant,
    /// The last time that we waited before connecting again.
    pub(crate) backoff: Duration,
    pub(crate) keepalive: Option<Utime>,
    keepalive_ack: Option<Utime>,
    /// The peer waits for our attempt to connect, which must not be given up.
    pub(crate) awaited: bool,
    /// Something arrived over the open link.
    pub(crate) fruitful: bool,
    /// When to see whether messages were sent since, so that an idle session holds no buffers.
    release_at: Option<Instant>,
    busy: bool,
    /// The `global_seq` of the attempt that is under way.
    pub(crate) global_seq: u64,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A transport was asked for.
    Connecting,
    /// There is a link, and no session on it yet.
    Handshake,
    /// A peer said what it wants: whoever knows all connections says what becomes of that.
    Knocking,
    Open,
    /// We connect again at this time; the peer, if it was told so, may connect before.
    Backoff(Instant),
    /// There is nothing to send, or it is the peer that connects.
    Standby,
    Closed,
}

impl Connection {
    /// A connection to a peer that listens at `target`: it asks for a transport at once.
    pub fn connect(
        config: ConnectionConfig,
        target: EntityAddr,
        expected: Option<EntityType>,
        now: Instant,
    ) -> Self {
        let policy = config.policies.of(expected.unwrap_or(EntityType::ANY));
        let mut connection = Self::new(config, Some(target), expected, policy, now);
        connection.begin_connecting(now);
        connection
    }

    /// A connection over a transport on which a peer came to us.
    pub fn accept(config: ConnectionConfig, peer_addr: EntityAddr, now: Instant) -> Self {
        let policy = config.policies.of(EntityType::ANY);
        let mut connection = Self::new(config, None, None, policy, now);
        connection.is_v1 = peer_addr.kind() == AddrType::LEGACY;
        let role = Role::Server { peer_addr };
        connection.link = Some(Link::new(connection.config.clone(), role));
        connection.phase = Phase::Handshake;
        connection
    }

    fn new(
        config: ConnectionConfig,
        target: Option<EntityAddr>,
        expected: Option<EntityType>,
        policy: Policy,
        now: Instant,
    ) -> Self {
        Self {
            session: Session::new(config.cookie_seed),
            is_v1: target.is_some_and(|target| target.kind() == AddrType::LEGACY),
            config,
            target,
            expected,
            policy,
            phase: Phase::Connecting,
            link: None,
            peer: None,
            knock: None,
            events: Events::default(),
            stash: Rope::new(),
            received_at: now,
            throttles: Throttles::default(),
            grants: Grants::default(),
            throttled: false,
            waits: None,
            started: now,
            last_active: now,
            backoff: Duration::ZERO,
            keepalive: None,
            keepalive_ack: None,
            awaited: false,
            fruitful: false,
            release_at: None,
            busy: false,
            global_seq: 0,
        }
    }

    // ---- getters -------------------------------------------------------------------------

    /// Whether the session is open and has a link.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the end has come.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether [`poll_event`](Self::poll_event) has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether [`poll_event`](Self::poll_event) has something else than messages, if only behind some.
    pub fn has_news(&self) -> bool {
        self.events.has_others()
    }

    /// Whether the transport should be read from: not while the application owes an answer, or a
    /// message waits for a throttle.
    pub fn wants_recv(&self) -> bool {
        self.phase != Phase::Knocking
            && !self.throttled
            && self.link.as_ref().is_some_and(|link| !link.awaits_application())
    }

    /// Messages that were not sent yet, and on a lossless session those not acknowledged yet.
    pub fn unsent(&self) -> usize {
        self.session.unsent()
    }

    /// What the connection is doing, for people: "authenticating".
    pub fn stage(&self) -> &'static str {
        match (&self.phase, &self.link) {
            (Phase::Connecting, _) => "connecting",
            (Phase::Backoff(_), _) => "waiting to connect again",
            (Phase::Standby, _) => "waiting for the peer or for something to send",
            (Phase::Closed, _) => "closed",
            (_, Some(link)) => link.stage(),
            (_, None) => "without a link",
        }
    }

    /// What there is to be told of it.
    pub fn state(&self, now: Instant) -> SessionState {
        let (out_seq, queued, unacknowledged) = self.session.outgoing();
        let Throttles { bytes, messages } = &self.throttles;
        SessionState {
            stage: self.stage(),
            connected: self.is_ready(),
            policy: self.policy,
            in_seq: self.session.in_seq(),
            out_seq,
            queued,
            unacknowledged,
            connect_seq: self.session.id.connect_seq,
            global_seq: self.global_seq,
            peer_global_seq: self.session.id.peer_global_seq,
            throttled: self.throttled,
            throttles: bytes.iter().chain(messages).cloned().collect(),
            started_ago: now.saturating_duration_since(self.started),
            last_active_ago: now.saturating_duration_since(self.last_active),
        }
    }

    // ---- inputs --------------------------------------------------------------------------

    /// The transport that [`Event::Connect`] asked for is open.
    pub fn handle_connected(&mut self, now: Instant) {
        let (Phase::Connecting, Some(target)) = (self.phase, self.target) else {
            return;
        };
        self.last_active = now;
        let role = Role::Client { target, peer_type: self.expected };
        self.link = Some(Link::new(self.config.clone(), role));
        self.phase = Phase::Handshake;
    }

    /// There is no transport any more, or none could be had; the application knows why.
    pub fn handle_lost(&mut self, now: Instant) {
        self.lose(now, CloseReason::Transport { stage: self.stage() });
    }

    /// Gives out the buffer of a long segment that is under way, so that a transport can read
    /// straight into it; it comes back by [`handle_recv`](Self::handle_recv).
    pub fn lend_buffer(&mut self) -> Option<SegmentBuf> {
        self.link.as_mut()?.lend()
    }

    /// Bytes arrived: first those in the `lent` buffer, then `input`. Of buffers that can be shared,
    /// messages keep their parts where they are.
    pub fn handle_recv<'a>(
        &mut self,
        now: Instant,
        lent: Option<SegmentBuf>,
        input: impl Into<Input<'a>>,
    ) {
        let input = input.into();
        let wants = self.wants_recv();
        let Some(link) = &mut self.link else {
            return;
        };
        self.received_at = now;
        if !link.is_exhausted() {
            self.last_active = now; // else it has to end, whatever still comes
        }
        if let Some(buffer) = lent {
            link.give_back(buffer);
        }
        let result = if wants { self.consume(now, input) } else { self.stash(input) };
        if let Some(copied) = self.link.as_mut().map(Link::take_copied).filter(|it| *it > 0) {
            self.config.counters.copied(copied);
        }
        self.session.settle();
        if let Err(error) = result {
            self.fail(now, error);
        }
    }

    /// A throttle woke us ([`ConnectionConfig::waker`]): there may be room for the message that waits.
    pub fn handle_room(&mut self, now: Instant) {
        if !std::mem::take(&mut self.throttled) {
            return;
        }
        self.last_active = now; // the silence was ours
        if let Err(error) = self.consume_stash(now) {
            self.fail(now, error);
        }
    }

    /// Whether a message waits for a throttle.
    pub fn is_throttled(&self) -> bool {
        self.throttled
    }

    /// Messages were charged to this ([`OutMessage::set_charge`]): each is given back once it is sent, on a
    /// lossless session acknowledged, or will never be.
    pub fn set_outgoing(&mut self, throttle: Throttle) {
        self.session.set_outgoing(throttle);
    }

    /// Says who drives the connection from now on.
    pub fn set_waker(&mut self, waker: Waker) {
        self.config.waker = waker;
    }

    /// The silence until `now` says nothing of the peer: we did not read.
    pub fn touch(&mut self, now: Instant) {
        self.last_active = now;
    }

    /// The peer closed the transport.
    pub fn handle_eof(&mut self, now: Instant) {
        let Some(link) = &mut self.link else {
            return;
        };
        let reason = match link.refused() {
            Some(error) => CloseReason::Error(error),
            None => CloseReason::PeerClosed { stage: link.stage() },
        };
        self.lose(now, reason);
    }

    /// The application answers an [`Event::Auth`].
    pub fn handle_auth(&mut self, now: Instant, answer: AuthAnswer) {
        let Some(link) = &mut self.link else {
            return;
        };
        let result = link.handle_auth(answer).and_then(|()| self.consume_stash(now));
        if let Err(error) = result {
            self.fail(now, error);
        }
    }

    /// Time passed: call it at [`poll_timeout`](Self::poll_timeout)'s time or later.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.release_at.is_some_and(|at| at <= now) {
            self.release_if_idle(now);
        }
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        if let Phase::Backoff(_) = self.phase {
            self.begin_connecting(now);
            return;
        }
        let refused = self.link.as_mut().and_then(Link::refused);
        let error = match (refused, self.is_ready()) {
            (Some(refused), _) => refused,
            (None, true) if self.is_exhausted() => ProtocolError::NoncesExhausted,
            (None, true) => ProtocolError::IdleTimeout,
            (None, false) => ProtocolError::ReadyTimeout,
        };
        self.fail(now, error);
    }

    // ---- the application -----------------------------------------------------------------

    /// Queues a message. It is sent once the session is open; after the end it is dropped. One that
    /// exceeds the limits ends the connection: check it before, where its payload is known.
    pub fn send(&mut self, now: Instant, mut message: OutMessage) {
        if self.is_closed() {
            self.session.free(&message);
            return self.session.settle();
        }
        message.queued(now);
        self.session.push(message);
        self.busy = true;
        self.release_at.get_or_insert(now + RELEASE_AFTER);
        self.leave_standby(now);
    }

    /// Asks the peer for a sign of life; `stamp` is the time now, and comes back in
    /// [`Event::KeepaliveAck`].
    pub fn keepalive(&mut self, now: Instant, stamp: Utime) {
        self.keepalive = Some(stamp);
        self.leave_standby(now);
    }

    /// Sets our addresses, once they are known.
    pub fn set_addrs(&mut self, addrs: EntityAddrVec) {
        if let Some(link) = &mut self.link {
            link.set_addrs(addrs.clone());
        }
        self.config.addrs = addrs;
    }

    /// Nothing of the session is worth keeping across a fault: it becomes lossy.
    pub fn mark_disposable(&mut self) {
        self.session.make_lossy();
        self.policy.lossy = true;
    }

    /// Ends the connection without a word to the peer: `mark_down`.
    pub fn close(&mut self) {
        self.end(CloseReason::Local);
    }

    // ---- outputs -------------------------------------------------------------------------

    /// The next thing that the application should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Appends frames to `transmit` until about `budget` bytes or 512 segments are in it; false if
    /// there was nothing to send. A message is never split: the last one may exceed the budget. If
    /// this ends the connection, the reason is an event: poll those once more.
    pub fn poll_transmit(&mut self, now: Instant, transmit: &mut Transmit, budget: usize) -> bool {
        transmit.more = false;
        transmit.spent.clear();
        if self.is_ready()
            && let Err(error) = self.transmit_session(now, transmit, budget)
        {
            transmit.spent.clear();
            // Another link would meet the same message again.
            self.end(CloseReason::Error(error));
        }
        self.session.settle();
        let Some(link) = &mut self.link else {
            return false;
        };
        let before = transmit.out.len();
        link.transmit(&mut transmit.out);
        transmit.out.len() > before
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, unless bytes arrive before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let release_at = self.release_at.filter(|_| self.is_ready());
        self.deadline().into_iter().chain(release_at).min()
    }

    /// When something has to have happened.
    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Connecting | Phase::Handshake | Phase::Knocking => {
                self.started.checked_add(self.config.ready_timeout)
            }
            // What is under way may still arrive.
            Phase::Open if self.is_exhausted() && self.session.is_unacknowledged() => {
                self.last_active.checked_add(LAST_ACKS)
            }
            Phase::Open if self.is_exhausted() => Some(self.started),
            Phase::Open => self.last_active.checked_add(self.config.idle_timeout),
            Phase::Backoff(until) => Some(until),
            Phase::Standby | Phase::Closed => None,
        }
    }

    /// Whether the link's key has sealed as much as it may.
    fn is_exhausted(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_exhausted)
    }

    fn release_if_idle(&mut self, now: Instant) {
        self.release_at = if std::mem::take(&mut self.busy) {
            Some(now + RELEASE_AFTER)
        } else {
            self.session.release();
            if let Some(link) = &mut self.link {
                link.release();
            }
            None
        };
    }

    fn transmit_session(
        &mut self,
        now: Instant,
        transmit: &mut Transmit,
        budget: usize,
    ) -> Result<(), ProtocolError> {
        /// Leaves half of a vectored write's 1024 entries for the last message's segments.
        const MAX_SEGMENTS: usize = 512;
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        // What an exhausted key can still seal is for acknowledgements: a peer may not have it answer.
        let lives = !link.is_exhausted();
        if let Some(stamp) = self.keepalive.take().filter(|_| lives) {
            link.keepalive(stamp, false);
        }
        if let Some(stamp) = self.keepalive_ack.take().filter(|_| lives) {
            link.keepalive(stamp, true);
        }
        loop {
            let (bytes, segments) = link.queued();
            transmit.more = bytes >= budget || segments >= MAX_SEGMENTS;
            if transmit.more || link.holds_messages() {
                return Ok(());
            }
            let acks = link.acks_by_messages();
            let write = |header: &_, payload: &_| {
                transmit.message_bytes += link.message(header, payload) as u64;
            };
            match self.session.transmit_next(&self.config.limits, acks, write)? {
                Transmitted::Nothing => break,
                Transmitted::First { queued_at, spent } => {
                    match queued_at.filter(|at| *at != now) {
                        Some(at) => transmit.waits.push(now.saturating_duration_since(at)),
                        None => transmit.at_once += 1,
                    }
                    transmit.spent.extend(spent);
                }
                Transmitted::Again => self.config.counters.replayed(1),
            }
            transmit.messages += 1;
        }
        if link.can_seal()
            && let Some(seq) = self.session.ack_due()
        {
            link.ack(seq);
        }
        Ok(())
    }

    fn stash(&mut self, mut input: Input<'_>) -> Result<(), ProtocolError> {
        let waiting = self.stash.len() + input.len();
        // Behind a message that waits comes no more than was read already.
        if waiting > MAX_STASH && !self.throttled {
            return Err(PeerMisbehaved::UnansweredFlood { bytes: waiting }.into());
        }
        self.stash.push(input.take_bytes(input.len()));
        Ok(())
    }

    /// Goes on with what arrived behind a step that is answered now.
    pub(crate) fn consume_stash(&mut self, now: Instant) -> Result<(), ProtocolError> {
        let stash = std::mem::take(&mut self.stash);
        // Some steps take no bytes.
        self.consume(now, Input::default())?;
        for piece in stash {
            let input = Input::from(&piece);
            // What follows a step that waits again must not overtake what it left.
            if self.stash.is_empty() { self.consume(now, input) } else { self.stash(input) }?;
        }
        self.session.settle();
        Ok(())
    }

    fn consume(&mut self, now: Instant, mut input: Input<'_>) -> Result<(), ProtocolError> {
        while self.phase != Phase::Knocking
            && let Some(link) = &mut self.link
        {
            if let Some(frame) = link.next_message(&mut input) {
                self.receive(frame)?;
                continue;
            }
            let Some(incoming) = link.feed(&mut input, &mut self.events)? else {
                if self.admit_message(now) {
                    continue;
                }
                break;
            };
            match incoming {
                Incoming::Verified => self.handle_verified(),
                Incoming::Ask(ask) => self.handle_ask(now, ask)?,
                Incoming::Answer(answer) => self.handle_answer(now, answer)?,
                Incoming::Session(SessionFrame::Message(frame)) => self.receive(frame)?,
                Incoming::Session(frame) => {
                    self.fruitful |= !matches!(frame, SessionFrame::Aborted);
                    self.handle_control(now, frame)?;
                }
            }
        }
        if input.is_empty() || self.link.is_none() { Ok(()) } else { self.stash(input) }
    }

    #[inline]
    fn receive(&mut self, frame: MessageFrame) -> Result<(), ProtocolError> {
        self.fruitful = true;
        match self.session.handle_message(frame)? {
            Some(mut message) => {
                message.recv_stamp = Some(self.received_at);
                self.events.push_message(message);
            }
            None => self.config.counters.repeated(1),
        }
        Ok(())
    }

    /// Lets the message in that asks, if there is one and the throttles have room for it.
    fn admit_message(&mut self, now: Instant) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let Some(len) = link.announced() else {
            return false;
        };
        let Throttles { bytes, messages } = &self.throttles;
        let waker = &self.config.waker;
        let waits = &mut self.waits;
        let mut take = |throttle: &Option<Throttle>, amount, held: &mut Grant| match throttle {
            Some(throttle) if held.amount() == 0 && amount > 0 => {
                match throttle.take(amount, waker) {
                    Some(grant) => {
                        *held = grant;
                        if let Some(since) = waits.take() {
                            throttle.add_wait(now.saturating_duration_since(since));
                        }
                        true
                    }
                    None => {
                        waits.get_or_insert(now);
                        false
                    }
                }
            }
            _ => true,
        };
        let let_in = take(messages, 1, &mut self.grants.messages)
            && take(bytes, len, &mut self.grants.bytes);
        if let_in {
            link.admit(std::mem::take(&mut self.grants));
        }
        self.throttled = !let_in;
        let_in
    }

    fn handle_control(&mut self, now: Instant, frame: SessionFrame) -> Result<(), ProtocolError> {
        match frame {
            SessionFrame::Keepalive(stamp) => self.keepalive_ack = Some(stamp),
            SessionFrame::KeepaliveAck(stamp) => {
                self.events.push(Event::KeepaliveAck(stamp));
            }
            SessionFrame::Ack(seq) => self.session.handle_ack(seq)?,
            SessionFrame::Close => self.handle_eof(now),
            SessionFrame::Message(_) | SessionFrame::Aborted => {}
        }
        Ok(())
    }

    pub(crate) fn unexpected(&self, tag: Tag) -> ProtocolError {
        PeerMisbehaved::UnexpectedFrame { tag, stage: self.stage() }.into()
    }

    // ---- links come and go ---------------------------------------------------------------

    /// Asks for a transport.
    fn begin_connecting(&mut self, now: Instant) {
        let Some(target) = self.target else {
            return;
        };
        self.phase = Phase::Connecting;
        self.started = now;
        self.global_seq = self.config.global_seq.next_after(0);
        if self.session.id.server_cookie != 0 {
            self.session.id.connect_seq += 1;
        }
        self.events.push(Event::Connect(target));
    }

    /// The peer was told to wait for us: we do not rest, nor wait any longer ourselves.
    pub(crate) fn expect_by_peer(&mut self, now: Instant) {
        self.awaited = true;
        if let Phase::Backoff(_) = self.phase {
            self.begin_connecting(now);
        }
    }

    fn leave_standby(&mut self, now: Instant) {
        if self.phase == Phase::Standby && !self.policy.server {
            self.begin_connecting(now);
        }
    }

    pub(crate) fn fail(&mut self, now: Instant, error: ProtocolError) {
        self.lose(now, CloseReason::Error(error));
    }

    /// The link is gone, or has to go: decides what becomes of the connection.
    pub(crate) fn lose(&mut self, now: Instant, reason: CloseReason) {
        let stage = match self.phase {
            Phase::Closed | Phase::Standby | Phase::Backoff(_) => return,
            Phase::Open => FaultStage::Open,
            Phase::Connecting => FaultStage::Connecting,
            Phase::Handshake | Phase::Knocking => {
                let accepted = self.link.as_ref().is_some_and(Link::accepted);
                if accepted { FaultStage::Accepting } else { FaultStage::Connecting }
            }
        };
        self.lose_at(now, stage, reason);
    }

    pub(crate) fn lose_at(&mut self, now: Instant, stage: FaultStage, reason: CloseReason) {
        self.config.counters.faults(1);
        let facts = Fault {
            stage,
            policy: self.policy,
            to_send: self.session.unsent() > 0 || self.keepalive.is_some() || self.awaited,
            reachable: self.target.is_some(),
            listening: self.config.addrs.iter().any(|addr| addr.port() != 0),
            fruitful: self.fruitful,
        };
        let next = match fault(&facts) {
            FaultAction::Close => return self.end(reason),
            FaultAction::Standby => {
                self.config.counters.standbys(1);
                self.phase = Phase::Standby;
                Next::Standby
            }
            FaultAction::Reconnect(backoff) => {
                self.config.counters.reconnects(1);
                self.backoff = self.grown(backoff);
                self.phase = Phase::Backoff(now + self.backoff);
                Next::Reconnect { after: self.backoff }
            }
        };
        self.drop_link();
        self.session.link_lost();
        self.events.push(Event::LinkDown { reason, next });
        if self.backoff.is_zero() && matches!(self.phase, Phase::Backoff(_)) {
            self.begin_connecting(now);
        }
    }

    fn grown(&self, backoff: Backoff) -> Duration {
        let ConnectionConfig { initial_backoff, max_backoff, .. } = self.config;
        match backoff {
            Backoff::None => Duration::ZERO,
            Backoff::Max => max_backoff,
            Backoff::Grow if self.backoff.is_zero() => initial_backoff.min(max_backoff),
            Backoff::Grow => self.backoff.saturating_mul(2).min(max_backoff),
        }
    }

    pub(crate) fn drop_link(&mut self) {
        self.link = None;
        self.knock = None;
        self.stash = Rope::new();
        self.grants = Grants::default();
        self.waits = None;
        if std::mem::take(&mut self.throttled) {
            for throttle in [&self.throttles.bytes, &self.throttles.messages].into_iter().flatten()
            {
                throttle.forget(&self.config.waker);
            }
        }
        self.keepalive_ack = None;
        // What it was about to be asked concerns that link.
        self.events.forget(|event| matches!(event, Event::Auth(_) | Event::Knock));
    }

    pub(crate) fn end(&mut self, reason: CloseReason) {
        if !self.is_closed() {
            self.drop_link();
            self.phase = Phase::Closed;
            self.events.push(Event::Closed(reason));
        }
    }
}
