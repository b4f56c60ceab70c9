use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use siphon_wire::buf::{Rope, SegmentBuf};
use siphon_wire::types::{EntityAddrVec, Utime};

use crate::config::{ConnectionConfig, Role};
use crate::error::{PeerMisbehaved, ProtocolError};
use crate::event::{AuthAnswer, CloseReason, Event};
use crate::link::{Incoming, Link};
use crate::message::OutMessage;
use crate::session::Session;
use crate::v2::payload::ControlFrame;
use crate::v2::{Frame, KeepaliveFrame, SequenceFrame, Tag, TooLong};

/// Most bytes that may arrive behind a step of authentication before it is answered.
const MAX_STASH: usize = 64 << 10;

/// A connection with a peer: a session, and the link that carries it.
///
/// It does no IO. There are four kinds of method:
///
/// - getters;
/// - `handle_*`: bytes, time and answers come in;
/// - mutators for the application: [`send`](Self::send), [`keepalive`](Self::keepalive),
///   [`close`](Self::close), [`set_addrs`](Self::set_addrs);
/// - `poll_*`: what is to be done comes out.
///
/// After any call of the second or third kind, poll in this order and until each is empty:
/// [`poll_event`](Self::poll_event) (answering an [`Event::Auth`] by
/// [`handle_auth`](Self::handle_auth)), [`poll_transmit`](Self::poll_transmit),
/// [`poll_timeout`](Self::poll_timeout).
///
/// ```
/// # use std::{sync::Arc, time::{Duration, Instant}};
/// # use siphon_proto::{Connection, ConnectionConfig, Policies, Policy, Role};
/// # use siphon_proto::v2::{BannerFeatures, Limits};
/// # use siphon_wire::{buf::{Rope, SegmentPool}, types::*};
/// let config = ConnectionConfig {
///     name: EntityName::new(EntityType::CLIENT, 0),
///     addrs: EntityAddrVec::default(),
///     nonce: 1,
///     learn_addr: true,
///     policies: Arc::new(Policies::new(Policy::LOSSY_CLIENT)),
///     banner_features: BannerFeatures::REVISION_1,
///     crc_data: true,
///     limits: Limits::SESSION,
///     ready_timeout: Duration::from_secs(10),
///     idle_timeout: Duration::from_secs(900),
///     global_seq: 1,
///     cookie: 4711,
///     pool: SegmentPool::new(0),
/// };
/// let target: EntityAddr = "v2:127.0.0.1:6800/0".parse().unwrap();
/// let role = Role::Client { target, peer_type: Some(EntityType::OSD) };
/// let mut connection = Connection::new(config, role, Instant::now());
/// let mut out = Rope::new();
/// assert!(connection.poll_transmit(&mut out, 65536));
/// assert!(out.to_bytes().starts_with(b"ceph v2\n"));
/// ```
#[derive(Debug)]
pub struct Connection {
    link: Link,
    session: Session,
    events: VecDeque<Event>,
    /// Bytes that wait for the application's answer to a step of authentication.
    stash: BytesMut,
    started: Instant,
    last_active: Instant,
    /// Keepalives to be sent: ours, and the answer to the peer's newest.
    keepalive: Option<Utime>,
    keepalive_ack: Option<Utime>,
    closed: bool,
}

impl Connection {
    /// A connection over a transport that is open since `now`.
    pub fn new(config: ConnectionConfig, role: Role, now: Instant) -> Self {
        Self {
            link: Link::new(config, role),
            session: Session::new(),
            events: VecDeque::new(),
            stash: BytesMut::new(),
            started: now,
            last_active: now,
            keepalive: None,
            keepalive_ack: None,
            closed: false,
        }
    }

    // ---- getters -------------------------------------------------------------------------

    /// Whether the session is open.
    pub fn is_ready(&self) -> bool {
        !self.closed && self.link.is_ready()
    }

    /// Whether the end has come.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the transport should be read from: not while the application owes an answer.
    pub fn wants_recv(&self) -> bool {
        !self.closed && !self.link.awaits_application()
    }

    /// Messages that were not sent yet, and on a lossless session those not acknowledged yet.
    pub fn unsent(&self) -> usize {
        self.session.unsent()
    }

    /// What the connection is doing, for people: "authenticating".
    pub fn stage(&self) -> &'static str {
        self.link.stage()
    }

    // ---- inputs --------------------------------------------------------------------------

    /// Gives out the buffer of a long segment that is under way, so that a transport can read
    /// straight into it; it comes back by [`handle_recv`](Self::handle_recv).
    pub fn lend_buffer(&mut self) -> Option<SegmentBuf> {
        if self.closed { None } else { self.link.lend() }
    }

    /// Bytes arrived: first those in the `lent` buffer, then `bytes`.
    pub fn handle_recv(&mut self, now: Instant, lent: Option<SegmentBuf>, bytes: &[u8]) {
        if self.closed {
            return;
        }
        self.last_active = now;
        if let Some(buffer) = lent {
            self.link.give_back(buffer);
        }
        let result =
            if self.link.awaits_application() { self.stash(bytes) } else { self.consume(bytes) };
        if let Err(error) = result {
            self.fail(error);
        }
    }

    /// The silence until `now` says nothing of the peer: we did not read.
    pub fn touch(&mut self, now: Instant) {
        self.last_active = now;
    }

    /// The peer closed the transport.
    pub fn handle_eof(&mut self) {
        let reason = match self.link.refused() {
            Some(error) => CloseReason::Error(error),
            None => CloseReason::PeerClosed { stage: self.link.stage() },
        };
        self.end(reason);
    }

    /// The application answers an [`Event::Auth`].
    pub fn handle_auth(&mut self, answer: AuthAnswer) {
        if self.closed {
            return;
        }
        let stash = self.stash.split();
        let result = self.link.handle_auth(answer).and_then(|()| self.consume(&stash));
        if let Err(error) = result {
            self.fail(error);
        }
    }

    /// Time passed: call it at [`poll_timeout`](Self::poll_timeout)'s time or later.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|deadline| now < deadline) {
            return;
        }
        let error = match (self.link.refused(), self.link.is_ready()) {
            (Some(refused), _) => refused,
            (None, true) => ProtocolError::IdleTimeout,
            (None, false) => ProtocolError::ReadyTimeout,
        };
        self.fail(error);
    }

    // ---- the application -----------------------------------------------------------------

    /// Queues a message. It is sent once the session is open; after the end it is dropped. One that
    /// exceeds the limits ends the connection: check it before, where its payload is known.
    pub fn send(&mut self, message: OutMessage) {
        if !self.closed {
            self.session.push(message);
        }
    }

    /// Asks the peer for a sign of life; `stamp` is the time now, and comes back in
    /// [`Event::KeepaliveAck`].
    pub fn keepalive(&mut self, stamp: Utime) {
        self.keepalive = Some(stamp);
    }

    /// Sets our addresses, once they are known.
    pub fn set_addrs(&mut self, addrs: EntityAddrVec) {
        self.link.set_addrs(addrs);
    }

    /// Nothing of the session is worth keeping across a fault: it becomes lossy.
    pub fn mark_disposable(&mut self) {
        self.session.make_lossy();
    }

    /// Ends the connection without a word to the peer: `mark_down`.
    pub fn close(&mut self) {
        self.end(CloseReason::Local);
    }

    // ---- outputs -------------------------------------------------------------------------

    /// The next thing that the application should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends frames to `out` until about `budget` bytes or 512 segments are in it; false if
    /// there was nothing to send. A message is never split: the last one may exceed the budget. If
    /// this ends the connection, the reason is an event: poll those once more.
    pub fn poll_transmit(&mut self, out: &mut Rope, budget: usize) -> bool {
        if self.closed {
            return false;
        }
        if self.link.is_ready()
            && let Err(too_long) = self.transmit_session(budget)
        {
            self.fail(ProtocolError::ApiMisuse(too_long));
            return false;
        }
        let before = out.len();
        self.link.transmit(out);
        out.len() > before
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, unless bytes arrive before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let config = self.link.config();
        if self.link.is_ready() {
            self.last_active.checked_add(config.idle_timeout)
        } else {
            self.started.checked_add(config.ready_timeout)
        }
    }

    fn transmit_session(&mut self, budget: usize) -> Result<(), TooLong> {
        /// Leaves half of a vectored write's 1024 entries for the last message's segments.
        const MAX_SEGMENTS: usize = 512;
        if let Some(stamp) = self.keepalive.take() {
            self.link.control(Tag::KEEPALIVE2, &KeepaliveFrame { stamp }.payload());
        }
        if let Some(stamp) = self.keepalive_ack.take() {
            self.link.control(Tag::KEEPALIVE2_ACK, &KeepaliveFrame { stamp }.payload());
        }
        loop {
            let (bytes, segments) = self.link.queued();
            if bytes >= budget || segments >= MAX_SEGMENTS {
                return Ok(());
            }
            let Some((header, payload)) = self.session.next_outgoing() else {
                break;
            };
            self.link.config().limits.check(&payload)?;
            self.link.message(&header, &payload);
        }
        if let Some(seq) = self.session.ack_due() {
            self.link.control(Tag::ACK, &SequenceFrame { seq }.payload());
        }
        Ok(())
    }

    fn stash(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let waiting = self.stash.len() + bytes.len();
        if waiting > MAX_STASH {
            return Err(PeerMisbehaved::UnansweredFlood { bytes: waiting }.into());
        }
        self.stash.extend_from_slice(bytes);
        Ok(())
    }

    fn consume(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let mut input = bytes;
        while let Some(incoming) = self.link.feed(&mut input, &mut self.events)? {
            match incoming {
                Incoming::Opened(peer) => {
                    self.session.open(peer.policy.lossy, peer.features);
                    self.events.push_back(Event::Ready(peer));
                }
                Incoming::Session(Frame::Message(frame)) => {
                    if let Some(message) = self.session.handle_message(frame)? {
                        self.events.push_back(Event::Message(message));
                    }
                }
                Incoming::Session(Frame::Control { tag, payload }) => {
                    self.handle_control(tag, &payload)?;
                }
                Incoming::Session(Frame::Aborted) => {}
            }
        }
        if input.is_empty() { Ok(()) } else { self.stash(input) }
    }

    fn handle_control(&mut self, tag: Tag, payload: &bytes::Bytes) -> Result<(), ProtocolError> {
        let invalid = |error| ProtocolError::InvalidPayload { tag, error };
        match tag {
            Tag::KEEPALIVE2 => {
                let KeepaliveFrame { stamp } = ControlFrame::parse(payload).map_err(invalid)?;
                self.keepalive_ack = Some(stamp);
            }
            Tag::KEEPALIVE2_ACK => {
                let KeepaliveFrame { stamp } = ControlFrame::parse(payload).map_err(invalid)?;
                self.events.push_back(Event::KeepaliveAck(stamp));
            }
            Tag::ACK => {
                let SequenceFrame { seq } = ControlFrame::parse(payload).map_err(invalid)?;
                self.session.handle_ack(seq)?;
            }
            _ => return Err(self.link.unexpected(tag)),
        }
        Ok(())
    }

    fn fail(&mut self, error: ProtocolError) {
        self.end(CloseReason::Error(error));
    }

    fn end(&mut self, reason: CloseReason) {
        if !self.closed {
            self.closed = true;
            self.stash = BytesMut::new();
            self.events.push_back(Event::Closed(reason));
        }
    }
}
