//! The side that connects.

use bytes::{BufMut as _, Bytes};
use siphon_auth::{AuthError, AuthMethod, BadMethod, ConnectionMode};
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType, Features};

use super::{EACCES, Link1, Stage, authenticates_by_messages, invalid, own_addr};
use crate::config::Role;
use crate::error::{PeerIncompatible, PeerMisbehaved, ProtocolError};
use crate::event::{AuthEvent, Event, Events};
use crate::link::{Answer, Ask, Incoming, Turn, learned_addr};
use crate::v1::wire::{Connect, ConnectReply, LOSSY, ServerAddrs, protocol_version, put_addr, tag};
use crate::v2::payload::FLAG_LOSSY;
use crate::v2::{FrameError, ReconnectFrame, ServerIdent, Tag};

impl Link1 {
    pub(super) fn handle_server_addrs(
        &mut self,
        bytes: &Bytes,
        events: &mut Events,
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
        events.push(Event::LearnedAddr(ours));
        put_addr(&own_addr(&self.config.addrs), &mut self.gather);
        let peer_type = peer_type.unwrap_or(EntityType::ANY);
        self.stage = Stage::Opening;
        // It does not say what it is. Nothing is taken from it before it proves itself.
        self.verify(peer_type, 0, None);
        if authenticates_by_messages(self.config.name.kind, peer_type) {
            self.pending.push_back(Incoming::Verified);
        } else {
            self.turn = Turn::Application;
            events.push(Event::Auth(AuthEvent::Begin { peer_type }));
        }
        Ok(())
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
        self.asks_new = matches!(ask, Ask::New(_));
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

    pub(super) fn send_connect(&mut self) {
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

    pub(super) fn handle_reply(
        &mut self,
        proof: &Bytes,
        events: &mut Events,
    ) -> Result<(), ProtocolError> {
        let ConnectReply { tag, features, global_seq, connect_seq, .. } = self.reply;
        let ours = self.connect.features;
        self.stage = Stage::Opening;
        let answer = match tag {
            tag::CHALLENGE_AUTHORIZER => return self.handle_challenge(proof, events),
            tag::SEQ | tag::READY if self.authorizer.is_some() => {
                let (global_id, mode) = (0, ConnectionMode::CRC);
                self.turn = Turn::Trust { global_id, mode };
                let payload = proof.clone();
                events.push(Event::Auth(AuthEvent::Done { global_id, mode, payload }));
                return Ok(());
            }
            tag::SEQ | tag::READY => return self.handle_ready(),
            tag::FEATURES => Answer::LacksFeatures(ours.missing(features)),
            tag::RESETSESSION if self.asks_new && self.connect.connect_seq > 0 => {
                self.ask_again(0); // that which it wanted a higher number for is gone
                return Ok(());
            }
            tag::RESETSESSION => Answer::Reset { full: true },
            tag::RETRY_SESSION if connect_seq <= self.connect.connect_seq => {
                let (tag, stage) = (Tag::SESSION_RETRY, self.stage());
                return Err(PeerMisbehaved::UnexpectedFrame { tag, stage }.into());
            }
            // It stands by, and never had a session with us.
            tag::RETRY_SESSION if self.asks_new => {
                self.ask_again(connect_seq);
                return Ok(());
            }
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

    fn ask_again(&mut self, connect_seq: u32) {
        self.connect.connect_seq = connect_seq;
        self.send_connect();
    }

    /// A server that hands our link to a session which it has forgets that it challenged us
    /// (`reset_security` of `ProtocolV1.cc`), and does so again. An exchange answers one challenge:
    /// the next one needs another.
    fn handle_challenge(
        &mut self,
        challenge: &Bytes,
        events: &mut Events,
    ) -> Result<(), ProtocolError> {
        if self.authorizer.is_none() {
            let (tag, stage) = (Tag::AUTH_REPLY_MORE, self.stage());
            return Err(PeerMisbehaved::UnexpectedFrame { tag, stage }.into());
        }
        self.turn = Turn::Application;
        if std::mem::replace(&mut self.challenged, true) {
            let peer_type = self.verified.as_ref().map_or(EntityType::ANY, |peer| peer.peer_type);
            self.challenge = Some(challenge.clone());
            events.push(Event::Auth(AuthEvent::Begin { peer_type }));
        } else {
            events.push(Event::Auth(AuthEvent::ReplyMore(challenge.clone())));
        }
        Ok(())
    }

    /// The server lets us in, and we it.
    pub(super) fn handle_ready(&mut self) -> Result<(), ProtocolError> {
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
    pub(super) fn opened(&mut self, acked: u64) {
        self.stage = Stage::Opening;
        let lossy = self.reply.flags & LOSSY != 0;
        let answer = if !self.asks_new {
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
}
