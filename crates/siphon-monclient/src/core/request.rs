use std::fmt;
use std::time::Instant;

use siphon_messages::mon::MonMap;
use siphon_messages::{
    MMonGetVersion, MMonGetVersionReply, MessageError, TypedMessage, message_name, msg_type,
};
use siphon_msgr::CloseReason;
use siphon_proto::{Message, OutMessage};
use siphon_wire::types::{ByteString, Release, Uuid};

use super::SessionId;
use crate::{Command, CommandOutput};

/// One monitor of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonTarget {
    /// By its name: `a` of `mon.a`.
    Name(String),
    /// By its rank.
    Rank(usize),
}

impl fmt::Display for MonTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "mon.{name}"),
            Self::Rank(rank) => write!(f, "of rank {rank}"),
        }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// For a session, and no more.
    Session,
    /// Which versions of a map there are.
    Version(ByteString),
    /// Anything that is answered by a message of a certain type with the same `tid`.
    Message { message: OutMessage, reply: u16 },
    /// A command.
    Command(Command),
}

/// Whom it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Whichever monitor we have a session with.
    Monitors,
    /// One monitor, over a connection of its own.
    Monitor(MonTarget),
    /// The active manager; its modules, or, with `tell`, itself.
    Manager { tell: bool },
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// There is a session.
    Session,
    /// The newest version, and the oldest that there still is.
    Version {
        newest: u64,
        oldest: u64,
    },
    Message(Message),
    Command(CommandOutput),
}

/// A question that waits for its answer.
#[derive(Debug)]
pub(super) struct Request<W> {
    pub(super) waiter: W,
    pub(super) question: Question,
    pub(super) route: Route,
    pub(super) asked: Instant,
    pub(super) deadline: Option<Instant>,
    /// The session that it was sent on.
    pub(super) sent: Option<SessionId>,
    /// Of one to a certain monitor: how often that was tried, and what came of it.
    pub(super) attempts: u32,
    pub(super) failure: Option<CloseReason>,
}

impl Question {
    /// The message, for the cluster of this monitor map.
    pub(super) fn message(
        &self,
        tid: u64,
        route: &Route,
        map: &MonMap,
        octopus: bool,
    ) -> Option<OutMessage> {
        let fsid: Uuid = map.fsid;
        let mut message = match self {
            Self::Session => return None,
            Self::Version(what) => MMonGetVersion { handle: tid, what: what.clone() }.into_out(),
            Self::Message { message, .. } => message.clone(),
            // Before Octopus a monitor took what it was told as any other command.
            Self::Command(command) => match route {
                Route::Monitors => command.to_monitor(fsid),
                Route::Monitor(_) if map.min_mon_release < Release::OCTOPUS => {
                    command.to_monitor(fsid)
                }
                Route::Manager { tell: false } if octopus => command.to_manager(fsid),
                Route::Monitor(_) | Route::Manager { .. } => command.to_daemon(fsid),
            },
        };
        message.header_mut().tid = tid;
        Some(message)
    }

    /// The answer, if this message is one.
    pub(super) fn read(&self, message: &Message) -> Option<Result<Answer, MessageError>> {
        let found = message.header.msg_type;
        match self {
            Self::Version(_) if found == MMonGetVersionReply::TYPE => {
                let reply = MMonGetVersionReply::from_message(message);
                Some(reply.map(|reply| Answer::Version {
                    newest: reply.version,
                    oldest: reply.oldest_version,
                }))
            }
            Self::Message { reply, .. } if found == *reply => {
                Some(Ok(Answer::Message(message.clone())))
            }
            Self::Command(_) if is_command_reply(found) => {
                Some(CommandOutput::from_message(message).map(Answer::Command))
            }
            _ => None,
        }
    }
}

pub(super) fn is_command_reply(msg_type: u16) -> bool {
    matches!(
        msg_type,
        msg_type::MSG_MON_COMMAND_ACK
            | msg_type::MSG_COMMAND_REPLY
            | msg_type::MSG_MGR_COMMAND_REPLY
    )
}

/// For errors.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session => f.write_str("who we are"),
            Self::Version(what) => write!(f, "which versions there are of {what}"),
            Self::Message { message, .. } => {
                let msg_type = message.header().msg_type;
                f.write_str(message_name(msg_type).unwrap_or("a message"))
            }
            Self::Command(command) => write!(f, "\"{}\"", command.prefix()),
        }
    }
}
