use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use siphon_auth::{AuthRequest, BadMethod, ConnectionMode, Identity, Keys};
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityType, Features, Utime};

use crate::error::ProtocolError;
use crate::message::Message;
use crate::policy::Policy;
use crate::v2::Revision;
use crate::v2::compression::Algorithm;

/// What a connection tells the application.
#[derive(Debug)]
pub enum Event {
    /// A step of authentication that the application answers with
    /// [`Connection::handle_auth`](crate::Connection::handle_auth). Nothing goes on before that.
    Auth(AuthEvent),
    /// The peer tells how our address looks from there.
    LearnedAddr(EntityAddr),
    /// Open a transport to this address, and call
    /// [`Connection::handle_connected`](crate::Connection::handle_connected) or
    /// [`Connection::handle_lost`](crate::Connection::handle_lost).
    Connect(EntityAddr),
    /// The peer said which session it wants: call [`Connection::meet`](crate::Connection::meet).
    Knock,
    /// The session is open in both directions: for the first time, or again after a fault.
    Ready {
        /// The other side.
        peer: Box<PeerInfo>,
        /// The peer came to us.
        accepted: bool,
    },
    /// The peer had forgotten the session. What waited to be sent is dropped, what had arrived and
    /// was not dispatched yet should be, and a new one begins.
    RemoteReset,
    /// There is no link any more: close the transport, if there is one.
    LinkDown {
        /// Why.
        reason: CloseReason,
        /// What comes next.
        next: Next,
    },
    /// A message, in the order in which the peer sent it.
    Message(Message),
    /// The peer answered a keepalive that we sent at this time.
    KeepaliveAck(Utime),
    /// The end: nothing comes after this.
    Closed(CloseReason),
}

/// What the application is to be told, in order. Messages, which are many, take two words each.
#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: VecDeque<Queued>,
    /// How many of them are no messages.
    others: usize,
}

#[derive(Debug)]
enum Queued {
    Message(Message),
    Other(Box<Event>),
}

impl Events {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether something else than messages is there.
    pub(crate) fn has_others(&self) -> bool {
        self.others > 0
    }

    #[inline]
    pub(crate) fn push_message(&mut self, message: Message) {
        self.queue.push_back(Queued::Message(message));
    }

    /// Adds what is no message.
    pub(crate) fn push(&mut self, event: Event) {
        self.queue.push_back(Queued::Other(Box::new(event)));
        self.others += 1;
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Event> {
        Some(match self.queue.pop_front()? {
            Queued::Message(message) => Event::Message(message),
            Queued::Other(event) => {
                self.others -= 1;
                *event
            }
        })
    }

    pub(crate) fn forget_messages(&mut self) {
        self.queue.retain(|queued| !matches!(queued, Queued::Message(_)));
    }

    /// Takes back events that are not messages.
    pub(crate) fn forget(&mut self, which: impl Fn(&Event) -> bool) {
        self.queue.retain(|queued| !matches!(queued, Queued::Other(event) if which(event)));
        self.others = self.queue.iter().filter(|it| matches!(it, Queued::Other(_))).count();
    }
}

/// Steps of authentication, towards the application.
#[derive(Debug)]
pub enum AuthEvent {
    /// We connect: which method do we ask for? Answer: [`AuthAnswer::Request`].
    Begin {
        /// What the peer says it is.
        peer_type: EntityType,
    },
    /// The server refused. Answer: [`AuthAnswer::Request`] again, or [`AuthAnswer::Reject`].
    BadMethod(BadMethod),
    /// The server wants more. Answer: [`AuthAnswer::More`].
    ReplyMore(bytes::Bytes),
    /// The server is satisfied. Answer: [`AuthAnswer::Trust`].
    Done {
        /// Our global id.
        global_id: u64,
        /// The connection mode that the server chose.
        mode: ConnectionMode,
        /// The method's own bytes.
        payload: bytes::Bytes,
    },
    /// We accept, and a client asks. Answer: [`AuthAnswer::Accept`], [`AuthAnswer::More`] or
    /// [`AuthAnswer::Refuse`].
    Request {
        /// What the peer says it is.
        peer_type: EntityType,
        /// What it asks for.
        request: AuthRequest,
    },
    /// The client's next step. Answers as to `Request`.
    RequestMore(bytes::Bytes),
}

/// The application's answer to an [`AuthEvent`].
#[derive(Debug)]
pub enum AuthAnswer {
    /// Client: ask for this.
    Request(AuthRequest),
    /// Either side: the next payload.
    More(bytes::Bytes),
    /// Client: the server proved itself.
    Trust(Keys),
    /// Server: the client is who it says.
    Accept {
        /// The client's global id.
        global_id: u64,
        /// The connection mode that we choose.
        mode: ConnectionMode,
        /// The method's own bytes.
        payload: bytes::Bytes,
        /// What the method leaves.
        keys: Keys,
        /// Who it is, if the method proves that.
        identity: Option<Identity>,
    },
    /// Server: not this way; the client may try another.
    Refuse(BadMethod),
    /// Either side: the end.
    Reject(siphon_auth::AuthError),
}

/// The other side of an open session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its name, from what it authenticated as and the number it gave.
    pub name: EntityName,
    /// Its global id as authentication gave it; 0 with method `none`.
    pub global_id: u64,
    /// The addresses it goes by.
    pub addrs: EntityAddrVec,
    /// Features that both sides have.
    pub features: Features,
    /// How the session treats faults, after both sides' say.
    pub policy: Policy,
    /// What is spoken.
    pub protocol: Protocol,
    /// How frames are protected.
    pub mode: ConnectionMode,
    /// How frames are compressed, if they are.
    pub compression: Option<Algorithm>,
    /// Whom the peer authenticated as, if it came to us and the method proves that.
    pub identity: Option<Identity>,
}

/// A protocol of Ceph's messenger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// That of before Nautilus.
    Msgr1,
    /// That of since, in a revision of its framing.
    Msgr2(Revision),
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Msgr1 => "msgr1",
            Self::Msgr2(Revision::Rev0) => "msgr2.0",
            Self::Msgr2(Revision::Rev1) => "msgr2.1",
        })
    }
}

/// What a connection without a link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It connects again.
    Reconnect {
        /// After this time.
        after: Duration,
    },
    /// It waits for the peer, or for something to send.
    Standby,
}

/// Why there is no link any more, or no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The protocol failed.
    Error(ProtocolError),
    /// The peer closed the transport.
    PeerClosed {
        /// What we were doing then, for people.
        stage: &'static str,
    },
    /// The transport failed, or there was none to be had; the application knows more.
    Transport {
        /// What we were doing then, for people.
        stage: &'static str,
    },
    /// The peer connects to us at the same time, and its attempt comes first.
    Waiting,
    /// The peer has a newer connection than this one.
    Stale,
    /// We closed.
    Local,
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Error(error) => write!(f, "{error}"),
            Self::PeerClosed { stage } => write!(f, "the peer closed the connection while {stage}"),
            Self::Transport { stage } => write!(f, "the transport failed while {stage}"),
            Self::Waiting => f.write_str("the peer connects to us at the same time"),
            Self::Stale => f.write_str("the peer has a newer connection"),
            Self::Local => f.write_str("closed by us"),
        }
    }
}
