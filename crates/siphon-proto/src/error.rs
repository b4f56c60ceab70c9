use std::fmt;

use siphon_auth::AuthError;
use siphon_wire::DecodeError;
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityType, Features};

use crate::v2::compression::NegotiationError;
use crate::v2::{BannerError, FrameError, Tag, TooLong};

/// Why a connection ended, by whose fault it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The peer's first bytes are not those of msgr2.
    Banner(BannerError),
    /// Bytes that are not a frame, or a frame damaged under way.
    InvalidFrame(FrameError),
    /// A frame whose payload does not decode.
    InvalidPayload {
        /// The frame's tag.
        tag: Tag,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The peer broke a rule of the protocol.
    PeerMisbehaved(PeerMisbehaved),
    /// Both sides are right, and don't fit.
    PeerIncompatible(PeerIncompatible),
    /// The peer could not be verified, or did not accept us.
    AuthRejected(AuthError),
    /// Our own application encoded a message that no peer would take.
    ApiMisuse(TooLong),
    /// The peer did not finish the handshake in time.
    ReadyTimeout,
    /// Nothing arrived for longer than the idle timeout.
    IdleTimeout,
    /// So much was sealed with the link's key that nonces would repeat: another link, with another
    /// key, goes on.
    NoncesExhausted,
}

/// Rules that a peer can break.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A frame that has no place in this stage of the connection.
    UnexpectedFrame {
        /// Its tag.
        tag: Tag,
        /// The stage we were in.
        stage: &'static str,
    },
    /// The peer acknowledged a message that we never sent.
    AckOfUnsent {
        /// The acknowledged sequence number.
        acked: u64,
        /// The last one that we sent.
        sent: u64,
    },
    /// The signature of the handshake is wrong.
    BadSignature,
    /// The signature of a message is wrong (msgr1).
    BadMessageSignature {
        /// The message's number.
        seq: u64,
    },
    /// It chose a compression that was not up to it.
    Compression(NegotiationError),
    /// Secure mode was agreed on, and no secret to seal with.
    NoConnectionSecret,
    /// A client that names no address of its own.
    NoAddress,
    /// More rounds of authentication than any method has.
    EndlessAuthentication,
    /// More attempts to open a session than make sense.
    EndlessHandshake,
    /// So many bytes behind a step of authentication that it cannot be waiting for the answer.
    UnansweredFlood {
        /// Bytes that are waiting.
        bytes: usize,
    },
}

/// Ways in which two correct sides don't fit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerIncompatible {
    /// We lack features that the peer requires.
    WeLackFeatures(Features),
    /// The peer lacks features that we require.
    PeerLacksFeatures(Features),
    /// We reached another kind of daemon than we looked for.
    WrongEntityType {
        /// What we looked for.
        expected: EntityType,
        /// What the peer says it is.
        found: EntityType,
    },
    /// The server we reached goes by other addresses.
    WrongServer {
        /// The address we connected to.
        target: EntityAddr,
        /// The addresses it goes by.
        identifies_as: EntityAddrVec,
    },
    /// A client looks for somebody else here.
    WrongTarget {
        /// The address it looks for.
        target: EntityAddr,
        /// Our addresses.
        ours: EntityAddrVec,
    },
    /// The kinds of daemons speak another version of what msgr1 carries.
    ProtocolVersion {
        /// Ours.
        ours: u32,
        /// The peer's.
        theirs: u32,
    },
    /// The sides agreed on a connection mode that this version does not speak.
    ModeUnsupported(siphon_auth::ConnectionMode),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Banner(error) => write!(f, "{error}"),
            Self::InvalidFrame(error) => write!(f, "invalid frame: {error}"),
            Self::InvalidPayload { tag, error } => write!(f, "invalid {tag} frame: {error}"),
            Self::PeerMisbehaved(what) => write!(f, "the peer broke the protocol: {what}"),
            Self::PeerIncompatible(what) => write!(f, "the peer is incompatible: {what}"),
            Self::AuthRejected(error) => write!(f, "authentication failed: {error}"),
            Self::ApiMisuse(what) => write!(f, "a message of ours cannot be sent: {what}"),
            Self::ReadyTimeout => f.write_str(
                "the peer did not finish the handshake in time (ms_connection_ready_timeout)",
            ),
            Self::IdleTimeout => {
                f.write_str("the peer was silent for too long (ms_connection_idle_timeout)")
            }
            Self::NoncesExhausted => {
                f.write_str("the link's key has sealed as much as it may: a new link takes over")
            }
        }
    }
}

impl fmt::Display for PeerMisbehaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedFrame { tag, stage } => {
                write!(f, "it sent {tag} while {stage}")
            }
            Self::AckOfUnsent { acked, sent } => {
                write!(f, "it acknowledged message {acked}, but only {sent} were sent")
            }
            Self::BadSignature => f.write_str("the signature of its handshake is wrong"),
            Self::BadMessageSignature { seq } => {
                write!(f, "the signature of its message {seq} is wrong")
            }
            Self::Compression(error) => error.fmt(f),
            Self::NoConnectionSecret => {
                f.write_str("it chose secure mode, and left no secret to seal frames with")
            }
            Self::NoAddress => f.write_str("it identifies itself without an address"),
            Self::EndlessAuthentication => {
                f.write_str("its authentication does not come to an end")
            }
            Self::EndlessHandshake => f.write_str("it does not come to open a session"),
            Self::UnansweredFlood { bytes } => {
                write!(
                    f,
                    "it sent {bytes} bytes without waiting for the answer to its authentication"
                )
            }
        }
    }
}

impl fmt::Display for PeerIncompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WeLackFeatures(missing) => write!(f, "it requires features we lack: {missing}"),
            Self::PeerLacksFeatures(missing) => {
                write!(f, "it lacks features we require: {missing}")
            }
            Self::WrongEntityType { expected, found } => {
                write!(f, "expected a {expected}, it is a {found}")
            }
            Self::WrongServer { target, identifies_as } => {
                write!(f, "we connected to {target}, it identifies as {identifies_as}")
            }
            Self::WrongTarget { target, ours } => {
                write!(f, "it looks for {target}, we are {ours}")
            }
            Self::ProtocolVersion { ours, theirs } => {
                write!(f, "it speaks version {theirs} of its protocol, we speak {ours}")
            }
            Self::ModeUnsupported(mode) => write!(f, "connection mode {mode} is not supported"),
        }
    }
}

impl std::error::Error for ProtocolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Banner(error) => Some(error),
            Self::InvalidFrame(error) => Some(error),
            Self::InvalidPayload { error, .. } => Some(error),
            Self::AuthRejected(error) => Some(error),
            _ => None,
        }
    }
}

impl From<FrameError> for ProtocolError {
    fn from(error: FrameError) -> Self {
        Self::InvalidFrame(error)
    }
}

impl From<BannerError> for ProtocolError {
    fn from(error: BannerError) -> Self {
        Self::Banner(error)
    }
}

impl From<PeerMisbehaved> for ProtocolError {
    fn from(what: PeerMisbehaved) -> Self {
        Self::PeerMisbehaved(what)
    }
}

impl From<PeerIncompatible> for ProtocolError {
    fn from(what: PeerIncompatible) -> Self {
        Self::PeerIncompatible(what)
    }
}

impl From<AuthError> for ProtocolError {
    fn from(error: AuthError) -> Self {
        Self::AuthRejected(error)
    }
}
