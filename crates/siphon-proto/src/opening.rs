//! How a session is opened over a link, anew or again, at both ends.

use std::time::Instant;

use siphon_auth::Identity;
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityName, Features};

use crate::connection::{Connection, Phase};
use crate::error::{PeerIncompatible, PeerMisbehaved, ProtocolError};
use crate::event::{CloseReason, Event, PeerInfo, Protocol};
use crate::fault::FaultStage;
use crate::link::{Answer, Ask, Verified};
use crate::policy::Policy;
use crate::resolve::{Existing, ExistingStage, Request, Resolution, Terms, resolve};
use crate::v1::own_addr;
use crate::v2::payload::FLAG_LOSSY;
use crate::v2::{ClientIdent, ReconnectFrame, ServerIdent, Tag};

/// What a peer that came to us wants, and who it is.
#[derive(Debug)]
pub(crate) struct Knock {
    addrs: EntityAddrVec,
    policy: Policy,
    /// By msgr1, whose sessions have no names.
    is_v1: bool,
    wish: Ask,
}

/// What became of a peer that knocked; see [`Connection::meet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Met {
    /// The peer has a session on the connection that it came by.
    Admitted,
    /// The same, and the existing connection, a lossy one or another entity's, is to end.
    Superseded,
    /// The existing connection has taken over the link: give it the transport as well, in place of
    /// the one it may have. This one is nothing any more.
    TakenOver,
    /// The peer was answered, and this connection goes on.
    Answered,
    /// This connection has ended.
    Closed,
}

impl Connection {
    /// The addresses of the peer that knocked, by which its other connections are found.
    pub fn knocking(&self) -> Option<&EntityAddrVec> {
        self.knock.as_ref().map(|knock| &knock.addrs)
    }

    /// Whether the peer that knocked is to be registered under its addresses, so that it finds the
    /// session again. What wants to go on with a session never is.
    pub fn is_registered(&self) -> bool {
        let wish = self.knock.as_ref();
        wish.is_some_and(|knock| matches!(knock.wish, Ask::New(_)) && registered(&knock.policy))
    }

    /// Decides what becomes of a peer that knocked at this connection and that has the connection
    /// `existing` already.
    pub fn meet(&mut self, now: Instant, existing: Option<&mut Self>) -> Met {
        let Some(knock) = self.knock.take() else {
            return Met::Closed;
        };
        let comes = self.link.as_ref().and_then(|link| link.verified());
        let (existing, stranger) = match existing.filter(|existing| !existing.is_closed()) {
            // Somebody else had that address, or the peer speaks another protocol now: nothing of
            // it is for this peer.
            Some(existing) if existing.is_with_other_than(comes) => (None, true),
            Some(existing) if existing.is_v1 != knock.is_v1 => (None, true),
            existing => (existing, false),
        };
        let terms = Terms {
            resetcheck: knock.policy.resetcheck,
            peer_is: rank(knock.is_v1, &knock.addrs).cmp(&rank(knock.is_v1, &self.config.addrs)),
        };
        let view = existing.as_deref().map(Self::as_existing);
        let resolution = resolve(view.as_ref(), &knock.request(), &terms);
        self.count(resolution, view.as_ref());
        let met = match (resolution, existing) {
            (Resolution::Accept | Resolution::Supersede, _) => match self.admit(now, knock) {
                Met::Admitted if stranger || resolution == Resolution::Supersede => Met::Superseded,
                met => met,
            },
            (Resolution::Replace { reset }, Some(existing)) => {
                if reset {
                    existing.reset_session();
                }
                existing.take_over(now, self, knock)
            }
            (Resolution::Resume, Some(existing)) => existing.take_over(now, self, knock),
            (Resolution::Wait, Some(existing)) => {
                existing.expect_by_peer(now);
                self.answer(&Answer::Wait)
            }
            (Resolution::Retry { connect_seq }, _) => self.answer(&Answer::Retry { connect_seq }),
            (Resolution::RetryGlobal { global_seq }, _) => {
                self.answer(&Answer::RetryGlobal { global_seq })
            }
            (Resolution::Reset { full }, _) => self.answer(&Answer::Reset { full }),
            (Resolution::Close, _)
            | (Resolution::Replace { .. } | Resolution::Resume | Resolution::Wait, None) => {
                self.end(CloseReason::Stale);
                Met::Closed
            }
        };
        if met == Met::Answered
            && let Err(error) = self.consume_stash(now)
        {
            self.fail(now, error);
        }
        met
    }

    /// Whether the session is with somebody else than him who comes now: of another kind, or proven to
    /// have another name. (Addresses and cookies, by which sessions are found, are what a peer says.)
    fn is_with_other_than(&self, comes: Option<&Verified>) -> bool {
        let Some(peer) = &self.peer else {
            return false;
        };
        let name = |identity: &Option<Identity>| identity.as_ref().map(|it| it.name.clone());
        let proven = name(&peer.identity);
        comes.is_none_or(|comes| {
            comes.peer_type != peer.name.kind || proven.is_some() && name(&comes.identity) != proven
        })
    }

    // ---- the side that connects ----------------------------------------------------------

    /// The peer is verified. Whoever connects says which session it wants.
    pub(crate) fn handle_verified(&mut self) {
        let Some(link) = &self.link else {
            return;
        };
        let (accepted, peer_type) = (link.accepted(), link.verified().map(|peer| peer.peer_type));
        self.config.addrs = link.addrs().clone();
        if let Some(peer_type) = peer_type
            && self.peer.is_none()
        {
            self.policy = self.config.policies.of(peer_type);
            self.policy.lossy |= self.session.is_lossy();
        }
        if !accepted {
            self.ask();
        }
    }

    fn ask(&mut self) {
        let Some(target) = self.target else {
            return;
        };
        let id = self.session.id;
        let ask = if id.server_cookie == 0 {
            Ask::New(Box::new(ClientIdent {
                addrs: self.config.addrs.clone(),
                target_addr: target,
                gid: self.config.name.num,
                global_seq: self.global_seq,
                supported_features: self.policy.features_supported,
                required_features: self.required(),
                flags: flags(&self.policy),
                cookie: self.session.client_cookie(self.policy.lossy),
            }))
        } else {
            Ask::Resume(ReconnectFrame {
                addrs: self.config.addrs.clone(),
                client_cookie: id.client_cookie,
                server_cookie: id.server_cookie,
                global_seq: self.global_seq,
                connect_seq: id.connect_seq,
                msg_seq: self.session.in_seq(),
            })
        };
        if let Some(link) = &mut self.link {
            link.ask(&ask);
        }
    }

    /// The peer says which session it wants.
    pub(crate) fn handle_ask(&mut self, now: Instant, ask: Ask) -> Result<(), ProtocolError> {
        match ask {
            Ask::New(ident) => self.handle_client_ident(now, *ident),
            Ask::Resume(reconnect) => self.handle_reconnect(reconnect),
        }
    }

    /// The peer says what becomes of the session that we want.
    pub(crate) fn handle_answer(
        &mut self,
        now: Instant,
        answer: Answer,
    ) -> Result<(), ProtocolError> {
        let resuming = self.session.id.server_cookie != 0;
        match answer {
            Answer::Accepted(ident) if !resuming => self.handle_server_ident(*ident)?,
            Answer::LacksFeatures(missing) if !resuming => {
                return Err(PeerIncompatible::WeLackFeatures(missing).into());
            }
            Answer::Resumed { in_seq } if resuming => {
                self.session.handle_ack(in_seq)?;
                self.resumed();
            }
            Answer::Reset { full } if resuming => {
                if full {
                    self.reset_session();
                } else {
                    self.session.introduce_again();
                }
                self.ask();
            }
            Answer::Retry { connect_seq } if resuming => {
                self.session.id.connect_seq = connect_seq;
                self.ask();
            }
            Answer::RetryGlobal { global_seq } if resuming || self.is_v1 => {
                self.global_seq = self.config.global_seq.next_after(global_seq);
                self.ask();
            }
            Answer::Wait => {
                let reason = CloseReason::Waiting;
                self.lose_at(now, FaultStage::Waiting, reason);
            }
            _ => return Err(self.unexpected(answer.tag())),
        }
        Ok(())
    }

    fn handle_server_ident(&mut self, ident: ServerIdent) -> Result<(), ProtocolError> {
        let Some(target) = self.target else {
            return Err(self.unexpected(Tag::SERVER_IDENT));
        };
        if !ident.addrs.contains(&target) {
            let identifies_as = ident.addrs;
            return Err(PeerIncompatible::WrongServer { target, identifies_as }.into());
        }
        let missing = self.policy.features_supported.missing(ident.required_features);
        if missing != Features::NONE {
            return Err(PeerIncompatible::WeLackFeatures(missing).into());
        }
        self.policy.lossy = ident.flags & FLAG_LOSSY != 0 || self.session.is_lossy();
        self.session.id.server_cookie = ident.cookie;
        self.session.id.peer_global_seq = ident.global_seq;
        self.opened(ident.gid, ident.addrs, ident.supported_features)
    }

    // ---- the side that accepts -----------------------------------------------------------

    fn handle_client_ident(
        &mut self,
        now: Instant,
        ident: ClientIdent,
    ) -> Result<(), ProtocolError> {
        if ident.addrs.front().is_blank_ip() {
            return Err(PeerMisbehaved::NoAddress.into());
        }
        if !self.config.addrs.contains(&ident.target_addr) {
            let ours = self.config.addrs.clone();
            return Err(PeerIncompatible::WrongTarget { target: ident.target_addr, ours }.into());
        }
        let missing = ident.supported_features.missing(self.required());
        if missing != Features::NONE
            && let Some(link) = &mut self.link
        {
            link.refuse(PeerIncompatible::PeerLacksFeatures(missing).into());
            link.answer(&Answer::LacksFeatures(missing));
            return Ok(());
        }
        let (addrs, policy) = (ident.addrs.clone(), self.policy);
        let knock = Knock { addrs, policy, is_v1: self.is_v1, wish: Ask::New(Box::new(ident)) };
        if registered(&policy) {
            self.knock(knock);
        } else {
            let _ = self.admit(now, knock); // nobody looks for it, and it looks for nobody
        }
        Ok(())
    }

    fn handle_reconnect(&mut self, reconnect: ReconnectFrame) -> Result<(), ProtocolError> {
        if reconnect.addrs.front().is_blank_ip() {
            return Err(PeerMisbehaved::NoAddress.into());
        }
        let addrs = reconnect.addrs.clone();
        let (policy, is_v1) = (self.policy, self.is_v1);
        self.knock(Knock { addrs, policy, is_v1, wish: Ask::Resume(reconnect) });
        Ok(())
    }

    fn knock(&mut self, knock: Knock) {
        self.knock = Some(knock);
        self.phase = Phase::Knocking;
        self.events.push(Event::Knock);
    }

    /// Opens a new session over our own link.
    fn admit(&mut self, now: Instant, knock: Knock) -> Met {
        let Ask::New(ident) = knock.wish else {
            return Met::Closed;
        };
        let result = self.accept_new(&ident).and_then(|()| self.consume_admitted(now));
        match result {
            Ok(()) => Met::Admitted,
            Err(error) => {
                self.fail(now, error);
                Met::Closed
            }
        }
    }

    /// What came right behind the frame that opened the session. From within the consumption of
    /// bytes there is none: whoever consumes goes on with them.
    fn consume_admitted(&mut self, now: Instant) -> Result<(), ProtocolError> {
        if self.stash.is_empty() { Ok(()) } else { self.consume_stash(now) }
    }

    fn accept_new(&mut self, ident: &ClientIdent) -> Result<(), ProtocolError> {
        let lossy = self.policy.lossy;
        if self.is_v1 {
            self.session.id.connect_seq = 0;
        }
        let cookie = self.session.accept(ident.cookie, ident.global_seq, lossy);
        let answer = ServerIdent {
            addrs: self.config.addrs.clone(),
            gid: self.config.name.num,
            global_seq: self.config.global_seq.next_after(0),
            supported_features: self.policy.features_supported,
            required_features: self.required(),
            flags: flags(&self.policy),
            cookie,
        };
        if let Some(link) = &mut self.link {
            link.answer(&Answer::Accepted(Box::new(answer)));
        }
        self.opened(ident.gid, ident.addrs.clone(), ident.supported_features)
    }

    /// Takes the link of a connection by which the peer came, and does there what it wants.
    fn take_over(&mut self, now: Instant, from: &mut Self, knock: Knock) -> Met {
        let (link, stash) = (from.link.take(), std::mem::take(&mut from.stash));
        from.phase = Phase::Closed;
        if self.link.is_some() {
            self.config.counters.faults(1);
        }
        self.drop_link();
        self.session.link_lost();
        self.link = link;
        (self.stash, self.received_at) = (stash, from.received_at);
        self.config.addrs = from.config.addrs.clone();
        self.last_active = now;
        let result = match knock.wish {
            Ask::New(ident) => {
                if self.peer.is_none() {
                    self.policy = knock.policy;
                }
                self.accept_new(&ident)
            }
            Ask::Resume(reconnect) => self.accept_resume(&reconnect),
        };
        let result = result.and_then(|()| self.consume_stash(now));
        if let Err(error) = result {
            self.fail(now, error);
        }
        Met::TakenOver
    }

    fn accept_resume(&mut self, reconnect: &ReconnectFrame) -> Result<(), ProtocolError> {
        self.session.id.connect_seq = reconnect.connect_seq;
        self.session.id.peer_global_seq = reconnect.global_seq;
        let acked = self.session.handle_ack(reconnect.msg_seq);
        if let Some(link) = &mut self.link {
            link.answer(&Answer::Resumed { in_seq: self.session.in_seq() });
        }
        self.resumed();
        acked.map_err(Into::into)
    }

    // ---- both ----------------------------------------------------------------------------

    fn opened(
        &mut self,
        gid: i64,
        addrs: EntityAddrVec,
        theirs: Features,
    ) -> Result<(), ProtocolError> {
        let Some(verified) = self.link.as_ref().and_then(|link| link.verified()).cloned() else {
            return Err(self.unexpected(Tag::SERVER_IDENT));
        };
        if self.target.is_none() {
            let addr = if self.is_v1 { addrs.legacy() } else { addrs.msgr2() };
            self.target = addr.filter(|addr| addr.port() != 0 && !addr.is_blank_ip());
        }
        let features = Features(theirs.0 & self.policy.features_supported.0);
        self.session.open(self.policy.lossy, features);
        self.config.counters.opened(1);
        self.peer = Some(PeerInfo {
            name: EntityName::new(verified.peer_type, gid),
            global_id: verified.global_id,
            addrs,
            features,
            policy: self.policy,
            protocol: Protocol::Msgr1, // as the link says in a moment
            mode: verified.mode,
            compression: None,
            identity: verified.identity,
        });
        self.tell_ready();
        Ok(())
    }

    fn resumed(&mut self) {
        self.config.counters.resumed(1);
        self.tell_ready();
    }

    /// The session has a link again, or for the first time.
    fn tell_ready(&mut self) {
        let (Some(link), Some(peer)) = (&mut self.link, &mut self.peer) else {
            return;
        };
        if let Some(verified) = link.verified() {
            peer.global_id = verified.global_id;
            peer.mode = verified.mode;
            peer.identity.clone_from(&verified.identity);
        }
        (peer.protocol, peer.compression) = (link.protocol(), link.compression());
        peer.policy = self.policy;
        if link.is_v1() {
            // It counts the links of a session from 1.
            self.session.id.connect_seq += 1;
        }
        let accepted = link.accepted();
        self.throttles = self.config.policies.throttles_of(peer.name.kind);
        link.set_gated(self.throttles.bytes.is_some() || self.throttles.messages.is_some());
        link.open();
        self.phase = Phase::Open;
        self.awaited = false;
        self.fruitful = false;
        self.events.push(Event::Ready { peer: Box::new(peer.clone()), accepted });
    }

    /// Features that a peer must have. Nobody can decode an address vector without `MSG_ADDR2`
    /// (`msgr2_required` of Ceph's `frames_v2.h`); msgr1 has none.
    fn required(&self) -> Features {
        let addrs = if self.is_v1 { Features::NONE } else { Features::MSG_ADDR2 };
        self.policy.features_required | addrs
    }

    fn reset_session(&mut self) {
        self.config.counters.resets(1);
        self.session.reset();
        // What has not been taken yet belongs to the session that is no more.
        self.events.forget_messages();
        self.events.push(Event::RemoteReset);
    }

    fn answer(&mut self, answer: &Answer) -> Met {
        if let Some(link) = &mut self.link {
            link.answer(answer);
        }
        self.phase = Phase::Handshake;
        Met::Answered
    }

    fn as_existing(&self) -> Existing {
        let id = self.session.id;
        Existing {
            stage: match self.phase {
                Phase::Open => ExistingStage::Open,
                Phase::Standby => ExistingStage::Standby,
                _ => ExistingStage::Connecting,
            },
            lossy: self.policy.lossy,
            server: self.policy.server,
            client_cookie: id.client_cookie,
            server_cookie: id.server_cookie,
            connect_seq: id.connect_seq,
            peer_global_seq: id.peer_global_seq,
        }
    }

    fn count(&self, resolution: Resolution, existing: Option<&Existing>) {
        let counters = &self.config.counters;
        let racing = existing.is_some_and(|it| it.stage == ExistingStage::Connecting);
        match resolution {
            Resolution::Replace { .. } | Resolution::Resume if racing => counters.races_won(1),
            Resolution::Wait => counters.races_lost(1),
            Resolution::Retry { .. } | Resolution::RetryGlobal { .. } => counters.retries(1),
            Resolution::Supersede => counters.superseded(1),
            _ => {}
        }
    }
}

impl Knock {
    fn request(&self) -> Request {
        match &self.wish {
            Ask::New(ident) if self.is_v1 => {
                Request::V1 { global_seq: ident.global_seq, connect_seq: 0 }
            }
            Ask::Resume(reconnect) if self.is_v1 => {
                Request::V1 { global_seq: reconnect.global_seq, connect_seq: reconnect.connect_seq }
            }
            Ask::New(ident) => {
                Request::New { client_cookie: ident.cookie, global_seq: ident.global_seq }
            }
            Ask::Resume(reconnect) => Request::Resume {
                client_cookie: reconnect.client_cookie,
                global_seq: reconnect.global_seq,
                connect_seq: reconnect.connect_seq,
            },
        }
    }
}

/// A lossy client of a server comes back as somebody new: there is nothing to find again.
fn registered(policy: &Policy) -> bool {
    !(policy.server && policy.lossy) || policy.register_lossy_clients
}

/// By which a race is decided: the address that both sides know by that protocol.
fn rank(is_v1: bool, addrs: &EntityAddrVec) -> EntityAddr {
    if is_v1 { own_addr(addrs) } else { addrs.msgr2().unwrap_or_else(|| addrs.front()) }
}

fn flags(policy: &Policy) -> u64 {
    if policy.lossy { FLAG_LOSSY } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each has two addresses, and over msgr1 hears the legacy one of the other only.
    #[test]
    fn two_that_race_agree_on_who_comes_first() {
        let addrs = |port: u16| -> EntityAddrVec {
            let v2 = EntityAddr::msgr2(([10, 0, 0, 1], port).into(), 1);
            let v1 = EntityAddr::legacy(([10, 0, 0, 1], port + 1).into(), 1);
            [v2, v1].into_iter().collect()
        };
        let (low, high) = (addrs(6800), addrs(6802));
        for is_v1 in [true, false] {
            let heard = |addrs: &EntityAddrVec| match is_v1 {
                true => EntityAddrVec::from(own_addr(addrs)),
                false => addrs.clone(),
            };
            assert!(rank(is_v1, &heard(&low)) < rank(is_v1, &high));
            assert!(rank(is_v1, &heard(&high)) > rank(is_v1, &low));
        }
    }
}
