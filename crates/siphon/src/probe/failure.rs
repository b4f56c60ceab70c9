use std::io::{self, ErrorKind};
use std::{error, fmt};

use siphon_proto::v2::{BannerError, FrameError, Tag};
use siphon_wire::DecodeError;

/// Why a conversation ended before it was over.
#[derive(Debug)]
pub(super) enum Failure {
    /// The host's name is not known.
    NoHost(io::Error),
    /// The host has no address.
    NoAddress,
    /// The system is still looking for the host.
    NotFoundInTime,
    /// It does not answer to our wish to connect.
    NotConnected,
    /// It can't be connected to.
    Unreachable(io::Error),
    /// The peer closed the connection.
    Closed,
    /// The connection was lost.
    Broken(io::Error),
    /// The time is over.
    TimedOut,
    /// More than anybody needs to say.
    TalksTooMuch,
    /// The banner is damaged, or asks for what we can't do.
    Banner(BannerError),
    /// msgr1 of another version than the 027 that all releases speak.
    OldBanner,
    /// A damaged frame.
    Frame(FrameError),
    /// A frame or structure of this name that can't be read.
    Payload(&'static str, DecodeError),
    /// A frame that has no place here.
    UnexpectedFrame { found: Tag, expected: Tag },
    /// A message, or a frame that its sender gave up on, in the handshake.
    NoControlFrame,
    /// msgr1: an answer that the protocol has not.
    UnknownTag(u8),
    /// msgr1: an authorizer of so many bytes.
    LongAuthorizer(u32),
}

impl Failure {
    /// An error of an open socket.
    pub(super) fn of(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Broken(error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHost(error) => write!(f, "cannot find the host: {error}"),
            Self::NoAddress => f.write_str("the host has no address"),
            Self::NotFoundInTime => f.write_str("the host was not found before the timeout"),
            Self::NotConnected => f.write_str("no answer to connecting before the timeout"),
            Self::Unreachable(error) => write!(f, "cannot connect: {error}"),
            Self::Closed => f.write_str("it closes the connection"),
            Self::Broken(error) => write!(f, "the connection is lost: {error}"),
            Self::TimedOut => f.write_str("it says nothing more before the timeout"),
            Self::TalksTooMuch => f.write_str("it says more than a handshake takes"),
            Self::Banner(error) => error.fmt(f),
            Self::OldBanner => f.write_str("its msgr1 is of another version than 027"),
            Self::Frame(error) => error.fmt(f),
            Self::Payload(name, error) => write!(f, "{name}: {error}"),
            Self::UnexpectedFrame { found, expected } => {
                write!(f, "it says {found} where {expected} is expected")
            }
            Self::NoControlFrame => f.write_str("it sends messages before there is a session"),
            Self::UnknownTag(tag) => write!(f, "it answers {tag}, which means nothing"),
            Self::LongAuthorizer(length) => {
                write!(f, "it announces an authorizer of {length} bytes")
            }
        }
    }
}

impl error::Error for Failure {}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}
