//! One transport's lifetime, whichever protocol it speaks.

use siphon_auth::{ConnectionMode, Identity};
use siphon_wire::buf::{Input, Rope, SegmentBuf};
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec, EntityType, Features, Utime};

use crate::config::{ConnectionConfig, Role};
use crate::error::ProtocolError;
use crate::event::{AuthAnswer, Events, Protocol};
use crate::message::{Grants, Payload};
use crate::v1::Link1;
use crate::v2::compression::Algorithm;
use crate::v2::{
    ClientIdent, Link2, MessageFrame, MessageHeader2, ReconnectFrame, ServerIdent, Tag,
};

/// What a link makes of bytes, beside the handshake that it keeps to itself.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// The peer is verified; whoever connects says now which session it wants.
    Verified,
    /// The peer wants a session.
    Ask(Ask),
    /// What becomes of the session that we want.
    Answer(Answer),
    /// Something of the open session.
    Session(SessionFrame),
}

/// Which session a connecting side wants.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A new one.
    New(Box<ClientIdent>),
    /// To go on with one.
    Resume(ReconnectFrame),
}

/// What becomes of it.
#[derive(Debug)]
pub(crate) enum Answer {
    Accepted(Box<ServerIdent>),
    LacksFeatures(Features),
    Resumed {
        in_seq: u64,
    },
    Reset {
        full: bool,
    },
    /// When it is sent: ours. When it arrives: what to try next.
    Retry {
        connect_seq: u64,
    },
    RetryGlobal {
        global_seq: u64,
    },
    Wait,
}

impl Answer {
    /// Its name, which is that of the frame in msgr2.
    pub(crate) fn tag(&self) -> Tag {
        match self {
            Self::Accepted(_) => Tag::SERVER_IDENT,
            Self::LacksFeatures(_) => Tag::IDENT_MISSING_FEATURES,
            Self::Resumed { .. } => Tag::SESSION_RECONNECT_OK,
            Self::Reset { .. } => Tag::SESSION_RESET,
            Self::Retry { .. } => Tag::SESSION_RETRY,
            Self::RetryGlobal { .. } => Tag::SESSION_RETRY_GLOBAL,
            Self::Wait => Tag::WAIT,
        }
    }
}

/// What an open session consists of.
#[derive(Debug)]
pub(crate) enum SessionFrame {
    Message(MessageFrame),
    Keepalive(Utime),
    KeepaliveAck(Utime),
    Ack(u64),
    /// The sender gave up on a message.
    Aborted,
    /// The peer ends the session (msgr1).
    Close,
}

/// Who has the next word in authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Peer,
    /// It answers with a request, a payload or a verdict on a client.
    Application,
    /// It says whether it trusts a server that has finished with this.
    Trust {
        global_id: u64,
        mode: ConnectionMode,
    },
}

/// A peer that authentication let pass: nothing but the end of it makes one.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) peer_type: EntityType,
    pub(crate) global_id: u64,
    pub(crate) mode: ConnectionMode,
    pub(crate) identity: Option<Identity>,
}

/// One transport, from its banner to its end.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all links are of msgr2")]
pub(crate) enum Link {
    V2(Link2),
    V1(Box<Link1>),
}

/// The same call on either.
macro_rules! either {
    ($self:expr, $link:ident => $call:expr) => {
        match $self {
            Self::V2($link) => $call,
            Self::V1($link) => $call,
        }
    };
}

impl Link {
    /// A link over a transport that is open; the banner is ready to be sent. Which protocol it is,
    /// the kind of the address says that we connected to, or were connected to by.
    pub(crate) fn new(config: ConnectionConfig, role: Role) -> Self {
        let addr = match &role {
            Role::Client { target, .. } => target,
            Role::Server { peer_addr } => peer_addr,
        };
        match addr.kind() {
            AddrType::LEGACY => Self::V1(Box::new(Link1::new(config, role))),
            _ => Self::V2(Link2::new(config, role)),
        }
    }

    /// Whether it is one of msgr1.
    pub(crate) fn is_v1(&self) -> bool {
        matches!(self, Self::V1(_))
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Self::V2(link) => Protocol::Msgr2(link.revision()),
            Self::V1(_) => Protocol::Msgr1,
        }
    }

    /// How frames are compressed, if they are.
    pub(crate) fn compression(&self) -> Option<Algorithm> {
        match self {
            Self::V2(link) => link.compression(),
            Self::V1(_) => None,
        }
    }

    /// Whether bytes must wait for the application's answer.
    pub(crate) fn awaits_application(&self) -> bool {
        either!(self, link => link.awaits_application())
    }

    /// What we refused the peer for, should it now leave.
    pub(crate) fn refused(&mut self) -> Option<ProtocolError> {
        either!(self, link => link.refused())
    }

    pub(crate) fn set_addrs(&mut self, addrs: EntityAddrVec) {
        either!(self, link => link.set_addrs(addrs));
    }

    pub(crate) fn addrs(&self) -> &EntityAddrVec {
        either!(self, link => link.addrs())
    }

    pub(crate) fn accepted(&self) -> bool {
        either!(self, link => link.accepted())
    }

    /// The peer, once it is verified and before the session is open.
    pub(crate) fn verified(&self) -> Option<&Verified> {
        either!(self, link => link.verified())
    }

    /// We refuse the peer's wish for this; it may have another.
    pub(crate) fn refuse(&mut self, why: ProtocolError) {
        either!(self, link => link.refuse(why));
    }

    /// The session is open: what comes now belongs to it.
    pub(crate) fn open(&mut self) {
        either!(self, link => link.open());
    }

    /// What we are doing, for people.
    pub(crate) fn stage(&self) -> &'static str {
        either!(self, link => link.stage())
    }

    /// Takes the next message of a session, if it can be told at once; else nothing.
    #[inline]
    pub(crate) fn next_message(&mut self, input: &mut Input<'_>) -> Option<MessageFrame> {
        match self {
            Self::V2(link) => link.next_message(input),
            Self::V1(_) => None,
        }
    }

    /// Takes bytes until something concerns the session, or none is left.
    pub(crate) fn feed(
        &mut self,
        input: &mut Input<'_>,
        events: &mut Events,
    ) -> Result<Option<Incoming>, ProtocolError> {
        either!(self, link => link.feed(input, events))
    }

    pub(crate) fn handle_auth(&mut self, answer: AuthAnswer) -> Result<(), ProtocolError> {
        either!(self, link => link.handle_auth(answer))
    }

    /// Bytes of messages' parts that were copied since it was asked last.
    pub(crate) fn take_copied(&mut self) -> u64 {
        either!(self, link => link.take_copied())
    }

    pub(crate) fn lend(&mut self) -> Option<SegmentBuf> {
        either!(self, link => link.lend())
    }

    pub(crate) fn give_back(&mut self, buffer: SegmentBuf) {
        either!(self, link => link.give_back(buffer));
    }

    /// Has each message ask before it is received.
    pub(crate) fn set_gated(&mut self, gated: bool) {
        either!(self, link => link.set_gated(gated));
    }

    /// The length in bytes of a message that asks.
    pub(crate) fn announced(&self) -> Option<u64> {
        either!(self, link => link.announced())
    }

    /// Lets the message in that asks.
    pub(crate) fn admit(&mut self, grants: Grants) {
        either!(self, link => link.admit(grants));
    }

    /// Gives up buffers that only a busy link needs.
    pub(crate) fn release(&mut self) {
        either!(self, link => link.release());
    }

    /// Whether no message may be sent any more: what it is sealed with would come twice.
    pub(crate) fn is_exhausted(&self) -> bool {
        matches!(self, Self::V2(link) if link.is_exhausted())
    }

    /// Whether a frame without a message may still be sent.
    pub(crate) fn can_seal(&self) -> bool {
        !matches!(self, Self::V2(link) if !link.can_seal())
    }

    /// Whether messages have to wait.
    pub(crate) fn holds_messages(&self) -> bool {
        self.is_exhausted() || matches!(self, Self::V1(link) if link.awaits_seq())
    }

    /// Says which session we want.
    pub(crate) fn ask(&mut self, ask: &Ask) {
        either!(self, link => link.ask(ask));
    }

    /// Says what becomes of the session that the peer wants.
    pub(crate) fn answer(&mut self, answer: &Answer) {
        either!(self, link => link.answer(answer));
    }

    /// Asks for a sign of life, or gives one.
    pub(crate) fn keepalive(&mut self, stamp: Utime, is_answer: bool) {
        either!(self, link => link.keepalive(stamp, is_answer));
    }

    /// Acknowledges messages up to this one.
    pub(crate) fn ack(&mut self, seq: u64) {
        either!(self, link => link.ack(seq));
    }

    /// Whether a message's header acknowledges what arrived.
    pub(crate) fn acks_by_messages(&self) -> bool {
        !self.is_v1()
    }

    /// Queues a message; returns the length of its frame in bytes.
    pub(crate) fn message(&mut self, header: &MessageHeader2, payload: &Payload) -> usize {
        either!(self, link => link.message(header, payload))
    }

    /// Bytes that are queued in whole segments, without those still gathering.
    pub(crate) fn queued(&self) -> (usize, usize) {
        either!(self, link => link.queued())
    }

    /// Moves everything queued to the end of `out`.
    pub(crate) fn transmit(&mut self, out: &mut Rope) {
        either!(self, link => link.transmit(out));
    }
}

/// The address of an entity that listens nowhere, as peers see it: without a port, told from others
/// at its host by a nonce (`AsyncMessenger::learned_addr` of Ceph's `msg/async/AsyncMessenger.cc`).
///
/// ```
/// use siphon_wire::types::EntityAddr;
/// let seen: EntityAddr = "v2:192.168.1.2:40000/0".parse().unwrap();
/// assert_eq!(siphon_proto::learned_addr(seen, 7).to_string(), "192.168.1.2:0/7");
/// ```
pub fn learned_addr(seen: EntityAddr, nonce: u32) -> EntityAddr {
    seen.with_kind(AddrType::ANY).with_port(0).with_nonce(nonce)
}
