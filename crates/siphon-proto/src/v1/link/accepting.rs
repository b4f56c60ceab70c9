//! The side that accepts.

use bytes::{BufMut as _, Bytes};
use siphon_auth::{AuthMethod, AuthRequest, ConnectionMode, Identity, Keys};
use siphon_wire::Decode as _;
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec, EntityName, Features};

use super::{Link1, Stage, authenticates_by_messages, invalid, own_addr};
use crate::config::Role;
use crate::error::{PeerIncompatible, ProtocolError};
use crate::event::{AuthEvent, Event, Events};
use crate::link::{Answer, Ask, Incoming, Turn};
use crate::v1::wire::{Connect, ConnectReply, LOSSY, protocol_version, tag};
use crate::v2::payload::FLAG_LOSSY;
use crate::v2::{ClientIdent, ReconnectFrame, Tag};

impl Link1 {
    pub(super) fn handle_client_addr(&mut self, bytes: &Bytes) -> Result<(), ProtocolError> {
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

    pub(super) fn handle_connect(&mut self, authorizer: &Bytes, events: &mut Events) {
        let (we, peer_type) = (self.config.name.kind, self.connect.peer_type());
        self.stage = Stage::Opening;
        self.proof = Bytes::new();
        let ours = protocol_version(peer_type, we);
        if self.connect.protocol_version != ours {
            let theirs = self.connect.protocol_version;
            self.refused = Some(PeerIncompatible::ProtocolVersion { ours, theirs }.into());
            return self.send_reply(tag::BADPROTOVER, Features::NONE, 0, 0);
        }
        let method = AuthMethod(self.connect.authorizer_protocol);
        let mut required = self.config.policies.of(peer_type).features_required;
        if method == AuthMethod::CEPHX {
            // Who knows of no challenge could show anybody's record (CVE-2018-1128).
            required = required | Features::CEPHX_V2;
        }
        let missing = self.connect.features.missing(required);
        if missing != Features::NONE {
            self.refused = Some(PeerIncompatible::PeerLacksFeatures(missing).into());
            return self.answer(&Answer::LacksFeatures(missing));
        }
        if authorizer.is_empty() && authenticates_by_messages(peer_type, we) {
            return self.let_ask(0, Keys::None, None);
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
        events.push(Event::Auth(event));
    }

    /// The peer is who it says: what it wants is told.
    pub(super) fn let_ask(&mut self, global_id: u64, keys: Keys, identity: Option<Identity>) {
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
            Answer::Reset { .. } => self.send_reply(tag::RESETSESSION, common, 0, 0),
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

    pub(super) fn send_reply(
        &mut self,
        tag: u8,
        features: Features,
        global_seq: u64,
        connect_seq: u64,
    ) {
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
}
