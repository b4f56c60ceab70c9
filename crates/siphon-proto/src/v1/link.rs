//! One transport's lifetime with msgr1.

mod accepting;
mod connecting;

use std::collections::VecDeque;

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use siphon_auth::{AuthError, AuthMethod, ConnectionMode, Identity, Keys};
use siphon_wire::Decode as _;
use siphon_wire::buf::{Input, Rope, SegmentBuf};
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec, EntityType, Features, Utime};

use super::stream::{InMessage, Terms, write_message};
use super::wire::{
    ADDR, BANNER, Connect, ConnectReply, Footer, Header, MAX_AUTHORIZER, ServerAddrs, tag,
};
use crate::config::{ConnectionConfig, Role};
use crate::error::{PeerIncompatible, PeerMisbehaved, ProtocolError};
use crate::event::{AuthAnswer, AuthEvent, Event, Events};
use crate::link::{Incoming, SessionFrame, Turn, Verified};
use crate::message::{Grants, Payload};
use crate::v2::{BannerError, FrameError, MessageHeader2, Tag};

/// Most attempts to open a session over one link: a challenge, and what a race takes.
const MAX_ROUNDS: u32 = 16;
/// What a challenge, an authorizer and a refusal are answered with.
const EACCES: i32 = -13;

/// One transport of msgr1, from its banner to its end.
#[derive(Debug)]
pub(crate) struct Link1 {
    config: ConnectionConfig,
    role: Role,
    stage: Stage,
    /// Who has the next word in authentication.
    turn: Turn,
    /// The structure that is being collected.
    partial: BytesMut,
    /// What is told one by one.
    pending: VecDeque<Incoming>,
    gather: BytesMut,
    out: Rope,
    verified: Option<Verified>,
    /// The peer's address, as it told it.
    peer_addr: EntityAddr,
    /// The connecting side: how it proves itself.
    authorizer: Option<(AuthMethod, Bytes)>,
    /// The connecting side: a challenge was answered over this link.
    challenged: bool,
    /// The connecting side: the next challenge, for an exchange that is yet to begin.
    challenge: Option<Bytes>,
    /// The connecting side: the session is to be a new one, whatever its `connect_seq`.
    asks_new: bool,
    /// What opened, or is to open, the session.
    connect: Connect,
    reply: ConnectReply,
    /// The accepting side's part of authentication, until it is sent.
    proof: Bytes,
    terms: Terms,
    /// The last message that arrived before this link.
    in_seq: u64,
    rounds: u32,
    gated: bool,
    refused: Option<ProtocolError>,
    /// Bytes that were copied, and not yet told of.
    copied: u64,
}

/// What comes next in the stream.
#[derive(Debug)]
enum Stage {
    Banner,
    Addrs,
    /// Accepting: what the client wants.
    Connect,
    ConnectAuthorizer,
    /// Connecting: what the server makes of it.
    Reply,
    ReplyAuthorizer,
    /// Connecting: the last message that the server has.
    Acked,
    /// It is decided whether, and which, session is open.
    Opening,
    /// Accepting: the last message that the client has.
    Seq,
    /// Between messages.
    Open,
    Header,
    /// A message asks to be let in.
    Gate(Box<InMessage>),
    Parts(Box<InMessage>),
    Footer(Box<InMessage>),
    Ack,
    Keepalive {
        is_answer: bool,
    },
}

impl Link1 {
    pub(crate) fn new(config: ConnectionConfig, role: Role) -> Self {
        let mut gather = BytesMut::with_capacity(512);
        gather.put_slice(BANNER);
        if let Role::Server { peer_addr } = &role {
            let server = own_addr(&config.addrs);
            ServerAddrs { server, client: *peer_addr }.encode(&mut gather);
        }
        let terms = Terms { features: Features::NONE, keys: Keys::None, crc_data: config.crc_data };
        Self {
            config,
            role,
            stage: Stage::Banner,
            turn: Turn::Peer,
            partial: BytesMut::new(),
            pending: VecDeque::new(),
            copied: 0,
            gather,
            out: Rope::new(),
            verified: None,
            peer_addr: EntityAddr::default(),
            authorizer: None,
            challenged: false,
            challenge: None,
            asks_new: false,
            connect: Connect::default(),
            reply: ConnectReply::default(),
            proof: Bytes::new(),
            terms,
            in_seq: 0,
            rounds: 0,
            gated: false,
            refused: None,
        }
    }

    pub(crate) fn awaits_application(&self) -> bool {
        self.turn != Turn::Peer
    }

    pub(crate) fn refused(&mut self) -> Option<ProtocolError> {
        self.refused.take()
    }

    pub(crate) fn refuse(&mut self, why: ProtocolError) {
        self.refused = Some(why);
    }

    pub(crate) fn set_addrs(&mut self, addrs: EntityAddrVec) {
        self.config.addrs = addrs;
    }

    pub(crate) fn addrs(&self) -> &EntityAddrVec {
        &self.config.addrs
    }

    pub(crate) fn accepted(&self) -> bool {
        matches!(self.role, Role::Server { .. })
    }

    pub(crate) fn verified(&self) -> Option<&Verified> {
        self.verified.as_ref()
    }

    /// Whether the peer has not yet told which messages it has: until then none is sent, since it
    /// might be one of them.
    pub(crate) fn awaits_seq(&self) -> bool {
        matches!(self.stage, Stage::Seq)
    }

    pub(crate) fn open(&mut self) {
        self.verified = None;
        self.refused = None;
        if !self.awaits_seq() {
            self.stage = Stage::Open;
        }
    }

    pub(crate) fn stage(&self) -> &'static str {
        match &self.stage {
            Stage::Banner | Stage::Addrs => "exchanging banners",
            Stage::Connect | Stage::Reply if self.verified.is_none() => "authenticating",
            Stage::Connect | Stage::ConnectAuthorizer | Stage::Reply | Stage::ReplyAuthorizer => {
                "opening a session"
            }
            Stage::Acked | Stage::Opening => "opening a session",
            _ => "a session was open",
        }
    }

    /// Takes bytes until something concerns the session, or none is left.
    pub(crate) fn feed(
        &mut self,
        input: &mut Input<'_>,
        events: &mut Events,
    ) -> Result<Option<Incoming>, ProtocolError> {
        loop {
            if let Some(incoming) = self.pending.pop_front() {
                return Ok(Some(incoming));
            }
            if self.awaits_application() {
                return Ok(None);
            }
            if let Some(challenge) = self.challenge.take() {
                self.turn = Turn::Application;
                events.push(Event::Auth(AuthEvent::ReplyMore(challenge)));
                return Ok(None);
            }
            if !self.advance(input, events)? {
                return Ok(None);
            }
        }
    }

    /// One step; false if it takes more bytes.
    fn advance(
        &mut self,
        input: &mut Input<'_>,
        events: &mut Events,
    ) -> Result<bool, ProtocolError> {
        match &mut self.stage {
            Stage::Gate(_) | Stage::Opening => return Ok(false),
            Stage::Parts(message) => {
                if !message.fill(input, &self.config.pool, &mut self.copied) {
                    return Ok(false);
                }
                if let Stage::Parts(message) = std::mem::replace(&mut self.stage, Stage::Open) {
                    self.stage = Stage::Footer(message);
                }
                return Ok(true);
            }
            _ => {}
        }
        let wanted = self.wanted();
        self.partial.extend_from_slice(input.take(wanted - self.partial.len()));
        self.check_banner()?;
        if self.partial.len() < wanted {
            return Ok(false);
        }
        let bytes = self.partial.split().freeze();
        self.handle(&bytes, events)?;
        Ok(true)
    }

    /// Bytes of what comes next.
    fn wanted(&self) -> usize {
        match &self.stage {
            Stage::Banner => BANNER.len(),
            Stage::Addrs if self.accepted() => ADDR,
            Stage::Addrs => ServerAddrs::LEN,
            Stage::Connect => Connect::LEN,
            Stage::ConnectAuthorizer => self.connect.authorizer_len as usize,
            Stage::Reply => ConnectReply::LEN,
            Stage::ReplyAuthorizer => self.reply.authorizer_len as usize,
            Stage::Acked | Stage::Seq | Stage::Ack | Stage::Keepalive { .. } => 8,
            Stage::Open => 1,
            Stage::Header => Header::LEN,
            Stage::Footer(_) => Footer::len(self.terms.features),
            Stage::Gate(_) | Stage::Parts(_) | Stage::Opening => 0,
        }
    }

    /// Sees at the first byte that is another whom we talk to.
    fn check_banner(&self) -> Result<(), BannerError> {
        let is_banner = matches!(self.stage, Stage::Banner);
        if is_banner && !BANNER.starts_with(&self.partial) {
            let mut found = [0; 8];
            let len = self.partial.len().min(8);
            found[..len].copy_from_slice(&self.partial[..len]);
            return Err(if found.starts_with(b"ceph v2") {
                BannerError::V2Peer
            } else {
                BannerError::NotCeph { found }
            });
        }
        Ok(())
    }

    fn handle(&mut self, bytes: &Bytes, events: &mut Events) -> Result<(), ProtocolError> {
        match std::mem::replace(&mut self.stage, Stage::Open) {
            Stage::Banner => self.stage = Stage::Addrs,
            Stage::Addrs if self.accepted() => self.handle_client_addr(bytes)?,
            Stage::Addrs => self.handle_server_addrs(bytes, events)?,
            Stage::Connect => {
                self.count_round()?;
                let before = std::mem::replace(&mut self.connect, Connect::decode(bytes));
                check_authorizer(self.connect.authorizer_len)?;
                let (expected, found) = (before.peer_type(), self.connect.peer_type());
                if self.rounds > 1 && found != expected {
                    // Who it is was asked as for the other kind.
                    return Err(PeerIncompatible::WrongEntityType { expected, found }.into());
                }
                self.stage = Stage::ConnectAuthorizer;
            }
            Stage::ConnectAuthorizer => self.handle_connect(bytes, events),
            Stage::Reply => {
                self.count_round()?;
                self.reply = ConnectReply::decode(bytes);
                check_authorizer(self.reply.authorizer_len)?;
                self.stage = Stage::ReplyAuthorizer;
            }
            Stage::ReplyAuthorizer => self.handle_reply(bytes, events)?,
            Stage::Acked => {
                self.gather.put_u64_le(self.in_seq);
                self.opened(number(bytes));
            }
            Stage::Seq => self.tell(SessionFrame::Ack(number(bytes))),
            Stage::Ack => self.tell(SessionFrame::Ack(number(bytes))),
            Stage::Keepalive { is_answer } => {
                let stamp = Utime::from_bytes(bytes);
                let stamp = stamp.map_err(|error| invalid(Tag::KEEPALIVE2, error))?;
                self.tell(match is_answer {
                    true => SessionFrame::KeepaliveAck(stamp),
                    false => SessionFrame::Keepalive(stamp),
                });
            }
            Stage::Open => self.handle_tag(bytes[0])?,
            Stage::Header => {
                let message = Box::new(InMessage::begin(bytes, &self.config.limits)?);
                self.stage = if self.gated { Stage::Gate(message) } else { Stage::Parts(message) };
            }
            Stage::Footer(message) => self.tell(match message.finish(&self.terms, bytes)? {
                Some(message) => SessionFrame::Message(message),
                None => SessionFrame::Aborted,
            }),
            Stage::Gate(_) | Stage::Parts(_) | Stage::Opening => {}
        }
        Ok(())
    }

    fn tell(&mut self, frame: SessionFrame) {
        self.pending.push_back(Incoming::Session(frame));
    }

    fn count_round(&mut self) -> Result<(), PeerMisbehaved> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS { Err(PeerMisbehaved::EndlessHandshake) } else { Ok(()) }
    }

    fn handle_tag(&mut self, found: u8) -> Result<(), ProtocolError> {
        self.stage = match found {
            tag::MSG => Stage::Header,
            tag::ACK => Stage::Ack,
            tag::KEEPALIVE2 => Stage::Keepalive { is_answer: false },
            tag::KEEPALIVE2_ACK => Stage::Keepalive { is_answer: true },
            tag::KEEPALIVE => Stage::Open, // of old, which nobody answers
            tag::CLOSE => {
                self.tell(SessionFrame::Close);
                Stage::Opening // nothing comes after it
            }
            other => return Err(FrameError::UnknownTag(other).into()),
        };
        Ok(())
    }

    /// Authentication let the peer pass.
    fn verify(&mut self, peer_type: EntityType, global_id: u64, identity: Option<Identity>) {
        let mode = ConnectionMode::CRC;
        self.verified = Some(Verified { peer_type, global_id, mode, identity });
    }

    /// The application's word.
    pub(crate) fn handle_auth(&mut self, answer: AuthAnswer) -> Result<(), ProtocolError> {
        let turn = std::mem::replace(&mut self.turn, Turn::Peer);
        if turn == Turn::Peer {
            return Ok(()); // it answers a question of a stage that is over
        }
        let client = !self.accepted();
        match (answer, turn) {
            (AuthAnswer::Request(request), _) if client => {
                self.authorizer = Some((request.method, request.payload));
                if self.challenge.is_none() {
                    self.pending.push_back(Incoming::Verified);
                }
            }
            (AuthAnswer::More(payload), _) if client => {
                let method = AuthMethod(self.connect.authorizer_protocol);
                self.authorizer = Some((method, payload));
                self.send_connect();
            }
            (AuthAnswer::Trust(keys), Turn::Trust { .. }) => {
                self.terms.keys = keys;
                self.handle_ready()?;
            }
            (AuthAnswer::More(payload), _) => {
                self.proof = payload;
                self.send_reply(tag::CHALLENGE_AUTHORIZER, Features::NONE, 0, 0);
            }
            (AuthAnswer::Accept { global_id, mode, payload, keys, identity }, _) => {
                if mode != ConnectionMode::CRC {
                    return Err(PeerIncompatible::ModeUnsupported(mode).into());
                }
                self.proof = payload;
                self.let_ask(global_id, keys, identity);
            }
            (AuthAnswer::Refuse(refusal), _) => {
                self.refused = Some(AuthError::NoCommonMethod { refusal }.into());
                self.send_reply(tag::BADAUTHORIZER, Features::NONE, 0, 0);
            }
            (AuthAnswer::Reject(error), _) => return Err(error.into()),
            (AuthAnswer::Request(_) | AuthAnswer::Trust(_), _) => {
                let (tag, stage) = (Tag::AUTH_DONE, self.stage());
                return Err(PeerMisbehaved::UnexpectedFrame { tag, stage }.into());
            }
        }
        Ok(())
    }

    pub(crate) fn take_copied(&mut self) -> u64 {
        std::mem::take(&mut self.copied)
    }

    pub(crate) fn lend(&mut self) -> Option<SegmentBuf> {
        match &mut self.stage {
            Stage::Parts(message) => message.lend(&self.config.pool),
            _ => None,
        }
    }

    pub(crate) fn give_back(&mut self, buffer: SegmentBuf) {
        if let Stage::Parts(message) = &mut self.stage {
            message.give_back(buffer);
        }
    }

    pub(crate) fn set_gated(&mut self, gated: bool) {
        self.gated = gated;
    }

    pub(crate) fn announced(&self) -> Option<u64> {
        match &self.stage {
            Stage::Gate(message) => Some(message.payload_len()),
            _ => None,
        }
    }

    pub(crate) fn admit(&mut self, grants: Grants) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Open) {
            Stage::Gate(mut message) => {
                message.set_grants(grants);
                Stage::Parts(message)
            }
            other => other,
        };
    }

    pub(crate) fn release(&mut self) {
        if self.gather.is_empty() {
            self.gather = BytesMut::new();
        }
        if self.partial.is_empty() {
            self.partial = BytesMut::new();
        }
        if self.out.is_empty() {
            self.out = Rope::new();
        }
    }

    pub(crate) fn keepalive(&mut self, stamp: Utime, is_answer: bool) {
        self.gather.put_u8(if is_answer { tag::KEEPALIVE2_ACK } else { tag::KEEPALIVE2 });
        self.gather.put_u32_le(stamp.sec);
        self.gather.put_u32_le(stamp.nsec);
    }

    pub(crate) fn ack(&mut self, seq: u64) {
        self.gather.put_u8(tag::ACK);
        self.gather.put_u64_le(seq);
    }

    pub(crate) fn message(&mut self, header: &MessageHeader2, payload: &Payload) -> usize {
        let before = self.out.len() + self.gather.len();
        let src = self.config.name;
        write_message(&self.terms, src, header, payload, &mut self.gather, &mut self.out);
        self.out.len() + self.gather.len() - before
    }

    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.out.len(), self.out.segments().len())
    }

    pub(crate) fn transmit(&mut self, out: &mut Rope) {
        if !self.gather.is_empty() {
            self.out.push(self.gather.split().freeze());
        }
        out.append(&mut self.out);
    }
}

/// Monitors let everybody in but each other, and learn by messages who it is.
fn authenticates_by_messages(client: EntityType, server: EntityType) -> bool {
    server == EntityType::MON && client != EntityType::MON
}

/// Our address as msgr1 knows it: the legacy one, or that which was learned, or else that of
/// msgr2, without which the peer takes all of a host that have none for one
/// (`entity_addrvec_t::as_legacy_addr`).
pub(crate) fn own_addr(addrs: &EntityAddrVec) -> EntityAddr {
    let known = addrs.legacy().or_else(|| addrs.of_type(AddrType::ANY));
    known.unwrap_or_else(|| addrs.front()).with_kind(AddrType::LEGACY)
}

fn number(mut bytes: &[u8]) -> u64 {
    bytes.get_u64_le()
}

fn check_authorizer(length: u32) -> Result<(), FrameError> {
    if length > MAX_AUTHORIZER {
        let (tag, segment, limit) =
            (Tag::AUTH_REQUEST, crate::v2::SegmentName::Control, MAX_AUTHORIZER);
        return Err(FrameError::SegmentTooLong { tag, segment, length, limit });
    }
    Ok(())
}

fn invalid(tag: Tag, error: siphon_wire::DecodeError) -> ProtocolError {
    ProtocolError::InvalidPayload { tag, error }
}
