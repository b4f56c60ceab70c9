//! One transport's lifetime with msgr1.

use std::collections::VecDeque;

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use siphon_auth::{AuthError, AuthMethod, AuthRequest, BadMethod, ConnectionMode, Identity, Keys};
use siphon_wire::Decode as _;
use siphon_wire::buf::{Rope, SegmentBuf};
use siphon_wire::types::{
    AddrType, EntityAddr, EntityAddrVec, EntityName, EntityType, Features, Utime,
};

use super::stream::{InMessage, Terms, write_message};
use super::wire::{
    ADDR, BANNER, Connect, ConnectReply, Footer, Header, LOSSY, MAX_AUTHORIZER, ServerAddrs,
    protocol_version, put_addr, tag,
};
use crate::config::{ConnectionConfig, Role};
use crate::error::{PeerIncompatible, PeerMisbehaved, ProtocolError};
use crate::event::{AuthAnswer, AuthEvent, Event};
use crate::link::{Answer, Ask, Incoming, SessionFrame, Turn, Verified, learned_addr};
use crate::message::{Grants, Payload};
use crate::v2::payload::FLAG_LOSSY;
use crate::v2::{
    BannerError, ClientIdent, FrameError, MessageHeader2, ReconnectFrame, ServerIdent, Tag,
};

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
            gather,
            out: Rope::new(),
            verified: None,
            peer_addr: EntityAddr::default(),
            authorizer: None,
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
        input: &mut &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<Option<Incoming>, ProtocolError> {
        loop {
            if let Some(incoming) = self.pending.pop_front() {
                return Ok(Some(incoming));
            }
            if self.awaits_application() || !self.advance(input, events)? {
                return Ok(None);
            }
        }
    }

    /// One step; false if it takes more bytes.
    fn advance(
        &mut self,
        input: &mut &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<bool, ProtocolError> {
        match &mut self.stage {
            Stage::Gate(_) | Stage::Opening => return Ok(false),
            Stage::Parts(message) => {
                if !message.fill(input, &self.config.pool) {
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
        let taken = input.len().min(wanted - self.partial.len());
        self.partial.extend_from_slice(&input[..taken]);
        *input = &input[taken..];
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

    fn handle(&mut self, bytes: &Bytes, events: &mut VecDeque<Event>) -> Result<(), ProtocolError> {
        match std::mem::replace(&mut self.stage, Stage::Open) {
            Stage::Banner => self.stage = Stage::Addrs,
            Stage::Addrs if self.accepted() => self.handle_client_addr(bytes)?,
            Stage::Addrs => self.handle_server_addrs(bytes, events)?,
            Stage::Connect => {
                self.count_round()?;
                self.connect = Connect::decode(bytes);
                check_authorizer(self.connect.authorizer_len)?;
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

    // ---- the side that connects ----------------------------------------------------------

    fn handle_server_addrs(
        &mut self,
        bytes: &Bytes,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ProtocolError> {
        let Role::Client { target, peer_type } = self.role.clone() else {
            return Ok(());
        };
        let addrs = ServerAddrs::decode(bytes).map_err(|error| invalid(Tag::HELLO, error))?;
        let ServerAddrs { server: theirs, client: ours } = addrs;
        let same_place = theirs.port() == target.port() && theirs.nonce() == target.nonce();
        // A server that is bound to no address in particular may not know its own.
        let is_target = theirs.socket_addr() == target.socket_addr() || theirs.is_blank_ip();
        if !(is_target && same_place) {
            let identifies_as = EntityAddrVec::from(theirs);
            return Err(PeerIncompatible::WrongServer { target, identifies_as }.into());
        }
        self.peer_addr = target;
        if self.config.learn_addr && self.config.addrs.is_empty() {
            let learned = learned_addr(ours, self.config.nonce);
            self.config.addrs = EntityAddrVec::from(learned);
        }
        events.push_back(Event::LearnedAddr(ours));
        put_addr(&own_addr(&self.config.addrs), &mut self.gather);
        let peer_type = peer_type.unwrap_or(EntityType::ANY);
        self.stage = Stage::Opening;
        // It does not say what it is. Nothing is taken from it before it proves itself.
        self.verify(peer_type, 0, None);
        if authenticates_by_messages(self.config.name.kind, peer_type) {
            self.pending.push_back(Incoming::Verified);
        } else {
            self.turn = Turn::Application;
            events.push_back(Event::Auth(AuthEvent::Begin { peer_type }));
        }
        Ok(())
    }

    fn verify(&mut self, peer_type: EntityType, global_id: u64, identity: Option<Identity>) {
        let mode = ConnectionMode::CRC;
        self.verified = Some(Verified { peer_type, global_id, mode, identity });
    }

    pub(crate) fn ask(&mut self, ask: &Ask) {
        let peer_type = self.verified.as_ref().map_or(EntityType::ANY, |peer| peer.peer_type);
        let we = self.config.name.kind;
        let policy = self.config.policies.of(peer_type);
        let (global_seq, connect_seq, in_seq, flags) = match ask {
            Ask::New(ident) => (ident.global_seq, 0, 0, ident.flags),
            Ask::Resume(ReconnectFrame { global_seq, connect_seq, msg_seq, .. }) => {
                (*global_seq, *connect_seq, *msg_seq, 0)
            }
        };
        self.in_seq = in_seq;
        self.connect = Connect {
            features: policy.features_supported,
            host_type: u32::from(we.0),
            global_seq: global_seq as u32,
            connect_seq: connect_seq as u32,
            protocol_version: protocol_version(we, peer_type),
            authorizer_protocol: 0,
            authorizer_len: 0,
            flags: if flags & FLAG_LOSSY != 0 { LOSSY } else { 0 },
        };
        self.send_connect();
    }

    fn send_connect(&mut self) {
        let authorizer = self.authorizer.clone();
        if let Some((method, payload)) = &authorizer {
            self.connect.authorizer_protocol = method.0;
            self.connect.authorizer_len = payload.len() as u32;
        }
        self.connect.encode(&mut self.gather);
        if let Some((_, payload)) = &authorizer {
            self.gather.put_slice(payload);
        }
        self.stage = Stage::Reply;
    }

    fn handle_reply(
        &mut self,
        proof: &Bytes,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ProtocolError> {
        let ConnectReply { tag, features, global_seq, connect_seq, .. } = self.reply;
        let ours = self.connect.features;
        self.stage = Stage::Opening;
        let answer = match tag {
            tag::CHALLENGE_AUTHORIZER => {
                self.turn = Turn::Application;
                events.push_back(Event::Auth(AuthEvent::ReplyMore(proof.clone())));
                return Ok(());
            }
            tag::SEQ | tag::READY if self.authorizer.is_some() => {
                let (global_id, mode) = (0, ConnectionMode::CRC);
                self.turn = Turn::Trust { global_id, mode };
                let payload = proof.clone();
                events.push_back(Event::Auth(AuthEvent::Done { global_id, mode, payload }));
                return Ok(());
            }
            tag::SEQ | tag::READY => return self.handle_ready(),
            tag::FEATURES => Answer::LacksFeatures(ours.missing(features)),
            tag::RESETSESSION => Answer::Reset { full: true },
            tag::RETRY_SESSION => Answer::Retry { connect_seq: u64::from(connect_seq) },
            tag::RETRY_GLOBAL => Answer::RetryGlobal { global_seq: u64::from(global_seq) },
            tag::WAIT => Answer::Wait,
            tag::BADPROTOVER => {
                let (ours, theirs) = (self.connect.protocol_version, self.reply.protocol_version);
                return Err(PeerIncompatible::ProtocolVersion { ours, theirs }.into());
            }
            tag::BADAUTHORIZER => {
                let method = AuthMethod(self.connect.authorizer_protocol);
                let (allowed_methods, allowed_modes) = (vec![method], vec![ConnectionMode::CRC]);
                let refusal = BadMethod { method, result: EACCES, allowed_methods, allowed_modes };
                return Err(AuthError::Denied { refusal }.into());
            }
            other => return Err(FrameError::UnknownTag(other).into()),
        };
        self.pending.push_back(Incoming::Answer(answer));
        Ok(())
    }

    /// The server lets us in, and we it.
    fn handle_ready(&mut self) -> Result<(), ProtocolError> {
        let peer_type = self.verified.as_ref().map_or(EntityType::ANY, |peer| peer.peer_type);
        let required = self.config.policies.of(peer_type).features_required;
        let missing = self.reply.features.missing(required);
        if missing != Features::NONE {
            return Err(PeerIncompatible::PeerLacksFeatures(missing).into());
        }
        self.terms.features = Features(self.reply.features.0 & self.connect.features.0);
        match self.reply.tag {
            tag::SEQ => self.stage = Stage::Acked,
            _ => self.opened(0),
        }
        Ok(())
    }

    /// The session is open; the server has our messages up to `acked`.
    fn opened(&mut self, acked: u64) {
        self.stage = Stage::Opening;
        let lossy = self.reply.flags & LOSSY != 0;
        let answer = if self.connect.connect_seq > 0 {
            Answer::Resumed { in_seq: acked }
        } else {
            Answer::Accepted(Box::new(ServerIdent {
                addrs: EntityAddrVec::from(self.peer_addr),
                gid: EntityName::NEW,
                global_seq: u64::from(self.reply.global_seq),
                supported_features: self.reply.features,
                required_features: Features::NONE,
                flags: if lossy { FLAG_LOSSY } else { 0 },
                // It has no names for sessions: this one says that there is something to resume.
                cookie: u64::from(!lossy),
            }))
        };
        self.pending.push_back(Incoming::Answer(answer));
    }

    // ---- the side that accepts -----------------------------------------------------------

    fn handle_client_addr(&mut self, bytes: &Bytes) -> Result<(), ProtocolError> {
        let Role::Server { peer_addr } = self.role else {
            return Ok(());
        };
        let told = EntityAddr::from_bytes(bytes).map_err(|error| invalid(Tag::HELLO, error))?;
        let told = told.with_kind(AddrType::LEGACY);
        self.peer_addr = match peer_addr.socket_addr() {
            // It does not know where it is: we do.
            Some(seen) if told.is_blank_ip() => {
                let port = told.port();
                EntityAddr::legacy(seen, told.nonce()).with_port(port)
            }
            _ => told,
        };
        self.stage = Stage::Connect;
        Ok(())
    }

    fn handle_connect(&mut self, authorizer: &Bytes, events: &mut VecDeque<Event>) {
        let (we, peer_type) = (self.config.name.kind, self.connect.peer_type());
        self.stage = Stage::Opening;
        self.proof = Bytes::new();
        let ours = protocol_version(peer_type, we);
        if self.connect.protocol_version != ours {
            let theirs = self.connect.protocol_version;
            self.refused = Some(PeerIncompatible::ProtocolVersion { ours, theirs }.into());
            return self.send_reply(tag::BADPROTOVER, Features::NONE, 0, 0);
        }
        if authorizer.is_empty() && authenticates_by_messages(peer_type, we) {
            return self.let_ask(0, Keys::None, None);
        }
        let method = AuthMethod(self.connect.authorizer_protocol);
        if method == AuthMethod::CEPHX && !self.connect.features.contains(Features::CEPHX_V2) {
            // It knows of no challenge: what it shows could be anybody's record (CVE-2018-1128).
            let lacks = PeerIncompatible::PeerLacksFeatures(Features::CEPHX_V2);
            self.refused = Some(lacks.into());
            return self.send_reply(tag::FEATURES, Features::CEPHX_V2, 0, 0);
        }
        self.turn = Turn::Application;
        let payload = authorizer.clone();
        let event = if self.reply.tag == tag::CHALLENGE_AUTHORIZER {
            AuthEvent::RequestMore(payload)
        } else {
            let preferred_modes = vec![ConnectionMode::CRC];
            let request = AuthRequest { method, preferred_modes, payload };
            AuthEvent::Request { peer_type, request }
        };
        events.push_back(Event::Auth(event));
    }

    /// The peer is who it says: what it wants is told.
    fn let_ask(&mut self, global_id: u64, keys: Keys, identity: Option<Identity>) {
        self.verify(self.connect.peer_type(), global_id, identity);
        self.terms.keys = keys;
        let Connect { features, global_seq, connect_seq, flags, .. } = self.connect;
        let (addrs, global_seq) = (EntityAddrVec::from(self.peer_addr), u64::from(global_seq));
        let ask = if connect_seq == 0 {
            Ask::New(Box::new(ClientIdent {
                addrs,
                target_addr: own_addr(&self.config.addrs),
                gid: i64::try_from(global_id).ok().filter(|id| *id > 0).unwrap_or(EntityName::NEW),
                global_seq,
                supported_features: features,
                required_features: Features::NONE,
                flags: if flags & LOSSY != 0 { FLAG_LOSSY } else { 0 },
                cookie: 0,
            }))
        } else {
            Ask::Resume(ReconnectFrame {
                addrs,
                client_cookie: 0,
                server_cookie: 0,
                global_seq,
                connect_seq: u64::from(connect_seq),
                msg_seq: 0, // it tells later
            })
        };
        self.pending.extend([Incoming::Verified, Incoming::Ask(ask)]);
    }

    pub(crate) fn answer(&mut self, answer: &Answer) {
        let supported = self.config.policies.of(self.connect.peer_type()).features_supported;
        let common = Features(supported.0 & self.connect.features.0);
        let next_seq = u64::from(self.connect.connect_seq) + 1;
        match answer {
            Answer::Accepted(ident) => {
                let lossy = ident.flags & FLAG_LOSSY != 0;
                self.let_in(supported, common, ident.global_seq, 0, lossy);
            }
            Answer::Resumed { in_seq } => {
                let global_seq = self.config.global_seq.next_after(0);
                self.let_in(supported, common, global_seq, *in_seq, false);
            }
            Answer::LacksFeatures(missing) => {
                self.send_reply(tag::FEATURES, common | *missing, 0, 0);
            }
            Answer::Reset { .. } => self.send_reply(tag::RESETSESSION, common, 0, next_seq),
            Answer::Retry { connect_seq } => {
                self.send_reply(tag::RETRY_SESSION, common, 0, *connect_seq);
            }
            Answer::RetryGlobal { global_seq } => {
                self.send_reply(tag::RETRY_GLOBAL, common, *global_seq, 0);
            }
            Answer::Wait => self.send_reply(tag::WAIT, common, 0, 0),
        }
    }

    /// Opens the session, of which we have the peer's messages up to `in_seq`.
    fn let_in(
        &mut self,
        supported: Features,
        common: Features,
        global_seq: u64,
        in_seq: u64,
        lossy: bool,
    ) {
        self.terms.features = common;
        self.reply.flags = if lossy { LOSSY } else { 0 };
        let next_seq = u64::from(self.connect.connect_seq) + 1;
        let exchanges = self.connect.features.contains(Features::RECONNECT_SEQ);
        let tag = if exchanges { tag::SEQ } else { tag::READY };
        self.send_reply(tag, supported, global_seq, next_seq);
        self.stage = Stage::Opening;
        if exchanges {
            self.gather.put_u64_le(in_seq);
            self.stage = Stage::Seq;
        }
    }

    fn send_reply(&mut self, tag: u8, features: Features, global_seq: u64, connect_seq: u64) {
        let proof = std::mem::take(&mut self.proof);
        self.reply = ConnectReply {
            tag,
            features,
            global_seq: global_seq as u32,
            connect_seq: connect_seq as u32,
            protocol_version: protocol_version(self.connect.peer_type(), self.config.name.kind),
            authorizer_len: proof.len() as u32,
            flags: if matches!(tag, tag::SEQ | tag::READY) { self.reply.flags } else { 0 },
        };
        self.reply.encode(&mut self.gather);
        self.gather.put_slice(&proof);
        self.stage = Stage::Connect; // it may try again
    }

    // ---- both ----------------------------------------------------------------------------

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
                self.pending.push_back(Incoming::Verified);
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

    pub(crate) fn lend(&mut self) -> Option<SegmentBuf> {
        match &mut self.stage {
            Stage::Parts(message) => message.lend(),
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

    pub(crate) fn message(&mut self, header: &MessageHeader2, payload: &Payload) {
        let src = self.config.name;
        write_message(&self.terms, src, header, payload, &mut self.gather, &mut self.out);
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

/// Our address as msgr1 knows it: the legacy one, or that which was learned.
fn own_addr(addrs: &EntityAddrVec) -> EntityAddr {
    let known = addrs.legacy().or_else(|| addrs.of_type(AddrType::ANY));
    known.unwrap_or_default().with_kind(AddrType::LEGACY)
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
