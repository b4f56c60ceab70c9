//! One transport's lifetime with msgr2: banner, framing and handshake.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::{Bytes, BytesMut};
use siphon_auth::{AuthMethod, AuthRequest, BadMethod, ConnectionMode, Keys};
use siphon_wire::buf::{Input, Rope, SegmentBuf};
use siphon_wire::types::{EntityAddrVec, EntityType, Utime};

use crate::config::{ConnectionConfig, Role};
use crate::error::{PeerIncompatible, PeerMisbehaved, ProtocolError};
use crate::event::{AuthAnswer, AuthEvent, Event, Events};
use crate::link::{Answer, Ask, Incoming, SessionFrame, Turn, Verified, learned_addr};
use crate::message::{Grants, Payload};
use crate::v2::compression::Algorithm;
use crate::v2::frame::MIN_REKEY_AFTER;
use crate::v2::payload::ControlFrame;
use crate::v2::{
    Assembler, AuthBadMethodFrame, AuthDoneFrame, AuthPayloadFrame, AuthRequestFrame,
    AuthSignatureFrame, Banner, BannerFeatures, BannerReader, CompressionRequestFrame,
    Disassembler, Frame, Framing, Hello, IdentMissingFeatures, KeepaliveFrame, Limits,
    MessageFrame, MessageHeader2, Protection, Revision, SequenceFrame, SessionResetFrame,
    StreamSeal, Tag,
};

/// Most frames of authentication from one peer: cephx needs three.
const MAX_AUTH_ROUNDS: u32 = 16;

/// Most bytes that either side says before it is authenticated: tickets are long, but not so long.
const MAX_TRANSCRIPT: usize = 256 << 10;

/// Most frames that a peer opens a session with: a reconnect that is reset, an ident that lacks
/// features, and one that does not.
const MAX_OPENING_ROUNDS: u32 = 16;

/// One transport of msgr2, from its banner to its end.
#[derive(Debug)]
pub(crate) struct Link2 {
    config: ConnectionConfig,
    role: Role,
    wire: Wire,
    stage: Stage,
    out: Rope,
    /// All that was said, until authentication ends and it is signed.
    transcript: Option<Box<Transcript>>,
    /// Features of msgr2 that both sides have.
    common: BannerFeatures,
    compression: Option<Algorithm>,
    /// What we refused the peer for, should it now leave.
    refused: Option<ProtocolError>,
}

#[derive(Debug, Default)]
struct Transcript {
    received: BytesMut,
    sent: BytesMut,
}

/// How bytes become frames and back.
#[derive(Debug)]
enum Wire {
    Banner(BannerReader),
    Framed { rx: Box<Disassembler>, tx: Box<Assembler>, revision: Revision },
}

/// How far the handshake is. Each stage holds what is known then and not before.
#[derive(Debug)]
enum Stage {
    Banner,
    Hello,
    Auth {
        peer_type: EntityType,
        turn: Turn,
        rounds: u32,
        method: AuthMethod,
    },
    Sign {
        peer: Verified,
        expected: [u8; 32],
    },
    /// `asked` is what a client asked for.
    Compress {
        peer: Verified,
        asked: Option<CompressionRequestFrame>,
    },
    Opening {
        peer: Verified,
        rounds: u32,
    },
    Ready,
}

impl Link2 {
    /// A link over a transport that is open; the banner is ready to be sent.
    pub(crate) fn new(config: ConnectionConfig, role: Role) -> Self {
        let mut banner = BytesMut::new();
        Self::banner(&config).encode(&mut banner);
        let transcript = Transcript { sent: banner.clone(), received: BytesMut::new() };
        Self {
            config,
            role,
            wire: Wire::Banner(BannerReader::default()),
            stage: Stage::Banner,
            out: banner.freeze().into(),
            transcript: Some(Box::new(transcript)),
            common: BannerFeatures::NONE,
            compression: None,
            refused: None,
        }
    }

    /// Whether bytes must wait for the application's answer.
    pub(crate) fn awaits_application(&self) -> bool {
        matches!(self.stage, Stage::Auth { turn: Turn::Application | Turn::Trust { .. }, .. })
    }

    pub(crate) fn refused(&mut self) -> Option<ProtocolError> {
        self.refused.take()
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

    /// The peer, once it is verified and before the session is open.
    pub(crate) fn verified(&self) -> Option<&Verified> {
        match &self.stage {
            Stage::Opening { peer, .. } => Some(peer),
            _ => None,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        match &self.wire {
            Wire::Framed { revision, .. } => *revision,
            Wire::Banner(_) => Revision::Rev0,
        }
    }

    /// We refuse the peer's wish for this; it may have another.
    pub(crate) fn refuse(&mut self, why: ProtocolError) {
        self.refused = Some(why);
    }

    /// The session is open: what comes now belongs to it.
    pub(crate) fn open(&mut self) {
        self.stage = Stage::Ready;
        self.refused = None;
        self.set_limits(self.config.limits);
    }

    /// What we are doing, for people.
    pub(crate) fn stage(&self) -> &'static str {
        match &self.stage {
            Stage::Banner => "exchanging banners",
            Stage::Hello => "exchanging hellos",
            Stage::Auth { .. } => "authenticating",
            Stage::Sign { .. } => "exchanging signatures",
            Stage::Compress { .. } => "agreeing on compression",
            Stage::Opening { .. } => "opening a session",
            Stage::Ready => "a session was open",
        }
    }

    /// Takes the next message, if it can be told at once.
    #[inline]
    pub(crate) fn next_message(&mut self, input: &mut Input<'_>) -> Option<MessageFrame> {
        match (&self.stage, &mut self.wire) {
            (Stage::Ready, Wire::Framed { rx, .. }) => rx.next_message(input),
            _ => None,
        }
    }

    /// Takes bytes until something concerns the session, or none is left.
    pub(crate) fn feed(
        &mut self,
        input: &mut Input<'_>,
        events: &mut Events,
    ) -> Result<Option<Incoming>, ProtocolError> {
        loop {
            if self.awaits_application() {
                return Ok(None);
            }
            let before = input.rest();
            match &mut self.wire {
                Wire::Banner(reader) => {
                    let mut rest = before;
                    let banner = reader.feed(&mut rest)?;
                    input.take(before.len() - rest.len());
                    self.record_received(before, rest)?;
                    let Some(banner) = banner else {
                        return Ok(None);
                    };
                    self.handle_banner(banner)?;
                }
                Wire::Framed { rx, .. } => {
                    let frame = rx.feed(input)?;
                    if self.transcript.is_some() {
                        self.record_received(before, input.rest())?;
                    }
                    let Some(frame) = frame else {
                        return Ok(None);
                    };
                    let incoming = match frame {
                        Frame::Message(message) => {
                            self.check_ready(Tag::MESSAGE)?;
                            Some(Incoming::Session(SessionFrame::Message(message)))
                        }
                        // Only messages have several segments, and only they can be aborted.
                        Frame::Aborted => {
                            self.check_ready(Tag::MESSAGE)?;
                            Some(Incoming::Session(SessionFrame::Aborted))
                        }
                        Frame::Control { tag, payload } => {
                            self.handle_control(tag, &payload, events)?
                        }
                    };
                    if incoming.is_some() {
                        return Ok(incoming);
                    }
                }
            }
        }
    }

    /// Keeps what was taken from the front of `before`, to be signed.
    fn record_received(&mut self, before: &[u8], rest: &[u8]) -> Result<(), ProtocolError> {
        if let Some(transcript) = &mut self.transcript {
            transcript.received.extend_from_slice(&before[..before.len() - rest.len()]);
            if transcript.received.len() > MAX_TRANSCRIPT {
                return Err(PeerMisbehaved::EndlessAuthentication.into());
            }
        }
        Ok(())
    }

    pub(crate) fn take_copied(&mut self) -> u64 {
        match &mut self.wire {
            Wire::Framed { rx, .. } => rx.take_copied(),
            Wire::Banner(_) => 0,
        }
    }

    pub(crate) fn lend(&mut self) -> Option<SegmentBuf> {
        match &mut self.wire {
            // What is signed has to be seen.
            Wire::Framed { rx, .. } if self.transcript.is_none() => rx.lend(),
            _ => None,
        }
    }

    pub(crate) fn give_back(&mut self, buffer: SegmentBuf) {
        if let Wire::Framed { rx, .. } = &mut self.wire {
            rx.give_back(buffer);
        }
    }

    /// Has each message ask before it is received.
    pub(crate) fn set_gated(&mut self, gated: bool) {
        if let Wire::Framed { rx, .. } = &mut self.wire {
            rx.set_gated(gated);
        }
    }

    /// The length in bytes of a message that asks.
    pub(crate) fn announced(&self) -> Option<u64> {
        match &self.wire {
            Wire::Framed { rx, .. } => rx.announced(),
            Wire::Banner(_) => None,
        }
    }

    /// Lets the message in that asks.
    pub(crate) fn admit(&mut self, grants: Grants) {
        if let Wire::Framed { rx, .. } = &mut self.wire {
            rx.admit(grants);
        }
    }

    /// Gives up buffers that only a busy link needs.
    pub(crate) fn release(&mut self) {
        if let Wire::Framed { rx, tx, .. } = &mut self.wire {
            rx.release();
            tx.release();
        }
        if self.out.is_empty() {
            self.out = Rope::new();
        }
    }

    /// Says which session we want.
    pub(crate) fn ask(&mut self, ask: &Ask) {
        match ask {
            Ask::New(ident) => self.control(Tag::CLIENT_IDENT, &ident.payload()),
            Ask::Resume(reconnect) => self.control(Tag::SESSION_RECONNECT, &reconnect.payload()),
        }
    }

    /// Says what becomes of the session that the peer wants.
    pub(crate) fn answer(&mut self, answer: &Answer) {
        let payload = match *answer {
            Answer::Accepted(ref ident) => ident.payload(),
            Answer::LacksFeatures(features) => IdentMissingFeatures { features }.payload(),
            Answer::Resumed { in_seq: seq }
            | Answer::Retry { connect_seq: seq }
            | Answer::RetryGlobal { global_seq: seq } => SequenceFrame { seq }.payload(),
            Answer::Reset { full } => SessionResetFrame { full }.payload(),
            Answer::Wait => Bytes::new(),
        };
        self.control(answer.tag(), &payload);
    }

    /// Asks for a sign of life, or gives one.
    pub(crate) fn keepalive(&mut self, stamp: Utime, is_answer: bool) {
        let tag = if is_answer { Tag::KEEPALIVE2_ACK } else { Tag::KEEPALIVE2 };
        self.control(tag, &KeepaliveFrame { stamp }.payload());
    }

    /// Acknowledges messages up to this one.
    pub(crate) fn ack(&mut self, seq: u64) {
        self.control(Tag::ACK, &SequenceFrame { seq }.payload());
    }

    /// Queues a control frame.
    fn control(&mut self, tag: Tag, payload: &[u8]) {
        if let Wire::Framed { tx, .. } = &mut self.wire {
            let before = tx.gathered().len();
            tx.control(tag, payload);
            if let Some(transcript) = &mut self.transcript {
                transcript.sent.extend_from_slice(&tx.gathered()[before..]);
            }
        }
    }

    /// Whether no message may be sent any more: what it is sealed with would come twice.
    pub(crate) fn is_exhausted(&self) -> bool {
        matches!(&self.wire, Wire::Framed { tx, .. } if tx.is_exhausted())
    }

    /// Whether there is a nonce left for a control frame.
    pub(crate) fn can_seal(&self) -> bool {
        !matches!(&self.wire, Wire::Framed { tx, .. } if !tx.can_seal())
    }

    /// Queues a message frame; returns its length in bytes.
    pub(crate) fn message(&mut self, header: &MessageHeader2, payload: &Payload) -> usize {
        let Wire::Framed { tx, .. } = &mut self.wire else {
            return 0;
        };
        let before = self.out.len() + tx.gathered().len();
        tx.message(header, payload, &mut self.out);
        self.out.len() + tx.gathered().len() - before
    }

    /// Bytes that are queued in whole segments, without those still gathering.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.out.len(), self.out.segments().len())
    }

    /// Moves everything queued to the end of `out`.
    pub(crate) fn transmit(&mut self, out: &mut Rope) {
        if let Wire::Framed { tx, .. } = &mut self.wire {
            tx.finish(&mut self.out);
        }
        out.append(&mut self.out);
    }

    fn banner(config: &ConnectionConfig) -> Banner {
        Banner { supported: config.banner_features, required: BannerFeatures::NONE }
    }

    fn handle_banner(&mut self, theirs: Banner) -> Result<(), ProtocolError> {
        let ours = Self::banner(&self.config);
        theirs.check(ours)?;
        self.common = BannerFeatures(theirs.supported.0 & ours.supported.0);
        let has_revision_1 = self.common.contains(BannerFeatures::REVISION_1);
        let revision = if has_revision_1 { Revision::Rev1 } else { Revision::Rev0 };
        let protection = Protection::Crc { data: self.config.crc_data };
        let framing = Framing { revision, protection };
        let rx = Disassembler::new(framing, Limits::BEFORE_HELLO, self.config.pool.clone());
        let (rx, mut tx) = (Box::new(rx), Box::new(Assembler::new(framing)));
        tx.copy_up_to(self.config.copied);
        self.wire = Wire::Framed { rx, tx, revision };
        self.stage = Stage::Hello;
        let peer_addr = match &self.role {
            Role::Client { target, .. } => *target,
            Role::Server { peer_addr } => *peer_addr,
        };
        let hello = Hello { entity_type: self.config.name.kind, peer_addr };
        self.control(Tag::HELLO, &hello.payload());
        Ok(())
    }

    /// Not inlined where messages come, who are many.
    #[inline(never)]
    fn handle_control(
        &mut self,
        tag: Tag,
        payload: &Bytes,
        events: &mut Events,
    ) -> Result<Option<Incoming>, ProtocolError> {
        let client = matches!(self.role, Role::Client { .. });
        self.count_opening_round()?;
        match (&self.stage, client, tag) {
            (Stage::Hello, _, Tag::HELLO) => self.handle_hello(parse(tag, payload)?, events)?,
            (Stage::Auth { turn: Turn::Peer, .. }, _, _) => {
                let event = self.handle_auth_frame(client, tag, payload)?;
                events.push(Event::Auth(event));
            }
            (Stage::Sign { .. }, _, Tag::AUTH_SIGNATURE) => {
                self.handle_signature(&parse(tag, payload)?)?;
                let agreed = matches!(self.stage, Stage::Opening { .. });
                return Ok(agreed.then_some(Incoming::Verified));
            }
            (Stage::Compress { .. }, ..) => {
                self.handle_compression(client, tag, payload)?;
                return Ok(Some(Incoming::Verified));
            }
            (Stage::Opening { .. }, ..) => return self.opening_frame(client, tag, payload),
            (Stage::Ready, ..) => return self.session_frame(tag, payload),
            _ => return Err(self.unexpected(tag)),
        }
        Ok(None)
    }

    /// A client may try to open a session again, and is answered each time; not for ever.
    fn count_opening_round(&mut self) -> Result<(), ProtocolError> {
        if let Stage::Opening { rounds, .. } = &mut self.stage {
            *rounds += 1;
            if *rounds > MAX_OPENING_ROUNDS {
                return Err(PeerMisbehaved::EndlessHandshake.into());
            }
        }
        Ok(())
    }

    /// A frame that a session is opened with, from whoever may send it.
    fn opening_frame(
        &self,
        client: bool,
        tag: Tag,
        payload: &Bytes,
    ) -> Result<Option<Incoming>, ProtocolError> {
        if !client {
            let ask = match tag {
                Tag::CLIENT_IDENT => Ask::New(Box::new(parse(tag, payload)?)),
                Tag::SESSION_RECONNECT => Ask::Resume(parse(tag, payload)?),
                _ => return Err(self.unexpected(tag)),
            };
            return Ok(Some(Incoming::Ask(ask)));
        }
        let seq = || parse::<SequenceFrame>(tag, payload).map(|frame| frame.seq);
        let answer = match tag {
            Tag::SERVER_IDENT => Answer::Accepted(Box::new(parse(tag, payload)?)),
            Tag::IDENT_MISSING_FEATURES => {
                Answer::LacksFeatures(parse::<IdentMissingFeatures>(tag, payload)?.features)
            }
            Tag::SESSION_RECONNECT_OK => Answer::Resumed { in_seq: seq()? },
            Tag::SESSION_RESET => {
                Answer::Reset { full: parse::<SessionResetFrame>(tag, payload)?.full }
            }
            // The peer tells its own; ours has to be above it.
            Tag::SESSION_RETRY => Answer::Retry { connect_seq: seq()?.saturating_add(1) },
            Tag::SESSION_RETRY_GLOBAL => Answer::RetryGlobal { global_seq: seq()? },
            Tag::WAIT => Answer::Wait,
            _ => return Err(self.unexpected(tag)),
        };
        Ok(Some(Incoming::Answer(answer)))
    }

    /// A frame of an open session that is no message.
    fn session_frame(&self, tag: Tag, payload: &Bytes) -> Result<Option<Incoming>, ProtocolError> {
        let stamp = || parse::<KeepaliveFrame>(tag, payload).map(|frame| frame.stamp);
        let frame = match tag {
            Tag::KEEPALIVE2 => SessionFrame::Keepalive(stamp()?),
            Tag::KEEPALIVE2_ACK => SessionFrame::KeepaliveAck(stamp()?),
            Tag::ACK => SessionFrame::Ack(parse::<SequenceFrame>(tag, payload)?.seq),
            _ => return Err(self.unexpected(tag)),
        };
        Ok(Some(Incoming::Session(frame)))
    }

    #[inline]
    fn check_ready(&self, tag: Tag) -> Result<(), ProtocolError> {
        match self.stage {
            Stage::Ready => Ok(()),
            _ => Err(self.unexpected(tag)),
        }
    }

    fn unexpected(&self, tag: Tag) -> ProtocolError {
        PeerMisbehaved::UnexpectedFrame { tag, stage: self.stage() }.into()
    }

    fn handle_hello(&mut self, hello: Hello, events: &mut Events) -> Result<(), ProtocolError> {
        let peer_type = hello.entity_type;
        let client = matches!(self.role, Role::Client { .. });
        if client && self.config.learn_addr && self.config.addrs.is_empty() {
            // Until the application says what it makes of it; others connect to no port of ours.
            let learned = learned_addr(hello.peer_addr, self.config.nonce);
            self.config.addrs = EntityAddrVec::from(learned);
        }
        events.push(Event::LearnedAddr(hello.peer_addr));
        self.set_limits(Limits::HANDSHAKE);
        let turn = match &self.role {
            Role::Client { peer_type: Some(expected), .. } if *expected != peer_type => {
                let expected = *expected;
                return Err(PeerIncompatible::WrongEntityType { expected, found: peer_type }.into());
            }
            Role::Client { .. } => {
                events.push(Event::Auth(AuthEvent::Begin { peer_type }));
                Turn::Application
            }
            Role::Server { .. } => Turn::Peer,
        };
        self.stage = Stage::Auth { peer_type, turn, rounds: 0, method: AuthMethod::UNKNOWN };
        Ok(())
    }

    /// A frame of authentication, when it is the peer's turn.
    fn handle_auth_frame(
        &mut self,
        client: bool,
        frame_tag: Tag,
        payload: &Bytes,
    ) -> Result<AuthEvent, ProtocolError> {
        let unexpected = self.unexpected(frame_tag);
        let Stage::Auth { peer_type, turn, rounds, method } = &mut self.stage else {
            return Err(unexpected);
        };
        *rounds += 1;
        if *rounds > MAX_AUTH_ROUNDS {
            return Err(PeerMisbehaved::EndlessAuthentication.into());
        }
        let event = match (client, frame_tag) {
            (true, Tag::AUTH_BAD_METHOD) => {
                let frame: AuthBadMethodFrame = parse(frame_tag, payload)?;
                AuthEvent::BadMethod(BadMethod {
                    method: frame.method,
                    result: frame.result,
                    allowed_methods: frame.allowed_methods,
                    allowed_modes: frame.allowed_modes,
                })
            }
            (true, Tag::AUTH_REPLY_MORE) => {
                let frame: AuthPayloadFrame = parse(frame_tag, payload)?;
                AuthEvent::ReplyMore(frame.payload)
            }
            (true, Tag::AUTH_DONE) => {
                let AuthDoneFrame { global_id, mode, payload } = parse(frame_tag, payload)?;
                *turn = Turn::Trust { global_id, mode };
                return Ok(AuthEvent::Done { global_id, mode, payload });
            }
            (false, Tag::AUTH_REQUEST) => {
                let frame: AuthRequestFrame = parse(frame_tag, payload)?;
                *method = frame.method;
                let request = AuthRequest {
                    method: frame.method,
                    preferred_modes: frame.preferred_modes,
                    payload: frame.payload,
                };
                AuthEvent::Request { peer_type: *peer_type, request }
            }
            (false, Tag::AUTH_REQUEST_MORE) if *method != AuthMethod::UNKNOWN => {
                let frame: AuthPayloadFrame = parse(frame_tag, payload)?;
                AuthEvent::RequestMore(frame.payload)
            }
            _ => return Err(unexpected),
        };
        *turn = Turn::Application;
        Ok(event)
    }

    /// The application's word.
    pub(crate) fn handle_auth(&mut self, answer: AuthAnswer) -> Result<(), ProtocolError> {
        let Stage::Auth { peer_type, turn, .. } = &mut self.stage else {
            return Ok(()); // it answers a question of a stage that is over
        };
        let peer_type = *peer_type;
        let turn = std::mem::replace(turn, Turn::Peer);
        match (answer, turn) {
            (AuthAnswer::Request(request), _) => {
                let frame = AuthRequestFrame {
                    method: request.method,
                    preferred_modes: request.preferred_modes,
                    payload: request.payload,
                };
                self.control(Tag::AUTH_REQUEST, &frame.payload());
            }
            (AuthAnswer::More(payload), _) => {
                let tag = match self.role {
                    Role::Client { .. } => Tag::AUTH_REQUEST_MORE,
                    Role::Server { .. } => Tag::AUTH_REPLY_MORE,
                };
                self.control(tag, &AuthPayloadFrame { payload }.payload());
            }
            (AuthAnswer::Refuse(bad), _) => {
                let frame = AuthBadMethodFrame {
                    method: bad.method,
                    result: bad.result,
                    allowed_methods: bad.allowed_methods.clone(),
                    allowed_modes: bad.allowed_modes.clone(),
                };
                self.control(Tag::AUTH_BAD_METHOD, &frame.payload());
                let refusal = siphon_auth::AuthError::NoCommonMethod { refusal: bad };
                self.refused = Some(refusal.into());
            }
            (AuthAnswer::Accept { global_id, mode, payload, keys, identity }, _) => {
                let frame = AuthDoneFrame { global_id, mode, payload };
                self.control(Tag::AUTH_DONE, &frame.payload());
                self.sign(Verified { peer_type, global_id, mode, identity }, &keys)?;
            }
            (AuthAnswer::Trust(keys), Turn::Trust { global_id, mode }) => {
                self.sign(Verified { peer_type, global_id, mode, identity: None }, &keys)?;
            }
            // Our own application trusts a server that has not finished: a mistake that must not
            // let the peer in.
            (AuthAnswer::Trust(_), _) => return Err(self.unexpected(Tag::AUTH_DONE)),
            (AuthAnswer::Reject(error), _) => return Err(error.into()),
        }
        Ok(())
    }

    /// Authentication has ended: what was said until now is signed, and what is said from now on is
    /// protected as was agreed.
    fn sign(&mut self, peer: Verified, keys: &Keys) -> Result<(), ProtocolError> {
        let transcript = self.transcript.take().unwrap_or_default();
        let is_client = !self.accepted();
        if let Wire::Framed { rx, tx, revision } = &mut self.wire {
            match peer.mode {
                ConnectionMode::CRC => {}
                ConnectionMode::SECURE => {
                    let mut seal = keys
                        .stream_keys()
                        .and_then(|keys| StreamSeal::new(&keys, *revision, is_client))
                        .ok_or(PeerMisbehaved::NoConnectionSecret)?;
                    seal.tx.limit(self.config.rekey_after.max(MIN_REKEY_AFTER));
                    // What was said in the open goes out before.
                    tx.flush(&mut self.out);
                    tx.seal(seal.tx, self.config.pool.clone());
                    rx.seal(seal.rx);
                }
                mode => return Err(PeerIncompatible::ModeUnsupported(mode).into()),
            }
        }
        let frame = AuthSignatureFrame { signature: keys.sign(&transcript.received) };
        self.control(Tag::AUTH_SIGNATURE, &frame.payload());
        self.refused = None;
        self.stage = Stage::Sign { peer, expected: keys.sign(&transcript.sent) };
        Ok(())
    }

    fn handle_signature(&mut self, frame: &AuthSignatureFrame) -> Result<(), ProtocolError> {
        let Stage::Sign { expected, .. } = &self.stage else {
            return Err(self.unexpected(Tag::AUTH_SIGNATURE));
        };
        verify_slices_are_equal(&frame.signature, expected)
            .map_err(|_| PeerMisbehaved::BadSignature)?;
        let Stage::Sign { peer, .. } = std::mem::replace(&mut self.stage, Stage::Ready) else {
            return Err(self.unexpected(Tag::AUTH_SIGNATURE));
        };
        if !self.common.contains(BannerFeatures::COMPRESSION) {
            self.stage = Stage::Opening { peer, rounds: 0 };
            return Ok(());
        }
        // Whoever knows of compression talks of it, wanted or not.
        let asked = (!self.accepted()).then(|| {
            let secure = peer.mode == ConnectionMode::SECURE;
            self.config.compression.request(peer.peer_type, secure)
        });
        if let Some(request) = &asked {
            self.control(Tag::COMPRESSION_REQUEST, &request.payload());
        }
        self.stage = Stage::Compress { peer, asked };
        Ok(())
    }

    /// The peer asks for compression, or answers.
    fn handle_compression(
        &mut self,
        client: bool,
        tag: Tag,
        payload: &Bytes,
    ) -> Result<(), ProtocolError> {
        let unexpected = self.unexpected(tag);
        let Stage::Compress { peer, asked } = std::mem::replace(&mut self.stage, Stage::Ready)
        else {
            return Err(unexpected);
        };
        let secure = peer.mode == ConnectionMode::SECURE;
        let agreed = match (tag, asked) {
            (Tag::COMPRESSION_REQUEST, None) if !client => {
                let request = parse(tag, payload)?;
                let options = &self.config.compression;
                let (done, agreed) = options.answer(&request, peer.peer_type, secure);
                self.control(Tag::COMPRESSION_DONE, &done.payload());
                agreed
            }
            (Tag::COMPRESSION_DONE, Some(request)) if client => {
                let accepted = self.config.compression.accept(&request, &parse(tag, payload)?);
                accepted.map_err(PeerMisbehaved::Compression)?
            }
            _ => return Err(unexpected),
        };
        if let (Some(agreed), Wire::Framed { rx, tx, .. }) = (agreed, &mut self.wire) {
            self.compression = Some(agreed.algorithm);
            let counters = || Arc::clone(&self.config.counters);
            tx.compress(agreed, counters());
            rx.decompress(agreed.algorithm, counters());
        }
        self.stage = Stage::Opening { peer, rounds: 0 };
        Ok(())
    }

    pub(crate) fn compression(&self) -> Option<Algorithm> {
        self.compression
    }

    fn set_limits(&mut self, limits: Limits) {
        if let Wire::Framed { rx, .. } = &mut self.wire {
            rx.set_limits(limits);
        }
    }
}

fn parse<T: ControlFrame>(tag: Tag, payload: &Bytes) -> Result<T, ProtocolError> {
    T::parse(payload).map_err(|error| ProtocolError::InvalidPayload { tag, error })
}
