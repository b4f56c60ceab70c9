use std::fmt;
use std::io;
use std::sync::Arc;

use siphon_proto::v2::TooLong;
use siphon_proto::{OutMessage, ProtocolError};
use siphon_wire::types::{EntityAddr, EntityAddrVec};

/// Why a connection ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// Nobody listens at the peer's address.
    Refused {
        /// The address.
        addr: EntityAddr,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The transport failed.
    Transport {
        /// What we were doing, for people.
        doing: &'static str,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The protocol failed.
    Protocol(ProtocolError),
    /// The peer closed the transport.
    PeerClosed {
        /// What we were doing then, for people.
        stage: &'static str,
    },
    /// None of the peer's addresses can be connected to.
    NoUsableAddress {
        /// The peer's addresses.
        addrs: EntityAddrVec,
    },
    /// The same peer opened a new session instead of this lossy one.
    Replaced,
    /// The peer connects to us at the same time, and its attempt comes first.
    Waiting,
    /// A dispatcher panicked over a message or news of it.
    DispatcherPanicked,
    /// What the application gave to it, an encoding or a method of authentication, panicked.
    Panicked,
    /// The application marked it down.
    MarkedDown,
    /// The messenger was shut down.
    Shutdown,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { addr, source } => write!(f, "nobody listens at {addr}: {source}"),
            Self::Transport { doing, source } => {
                write!(f, "transport failed while {doing}: {source}")
            }
            Self::Protocol(error) => write!(f, "{error}"),
            Self::PeerClosed { stage } => write!(f, "the peer closed the connection while {stage}"),
            Self::NoUsableAddress { addrs } => write!(
                f,
                "none of the peer's addresses {addrs} can be used: an IP address with a port, of \
                 type v2, is needed"
            ),
            Self::Waiting => f.write_str("the peer connects to us at the same time"),
            Self::Replaced => f.write_str("the peer opened a new session instead"),
            Self::DispatcherPanicked => f.write_str("a dispatcher panicked"),
            Self::Panicked => f.write_str("a panic while it was served"),
            Self::MarkedDown => f.write_str("marked down"),
            Self::Shutdown => f.write_str("the messenger was shut down"),
        }
    }
}

impl std::error::Error for CloseReason {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused { source, .. } | Self::Transport { source, .. } => Some(source.as_ref()),
            Self::Protocol(error) => Some(error),
            _ => None,
        }
    }
}

impl From<siphon_proto::CloseReason> for CloseReason {
    fn from(reason: siphon_proto::CloseReason) -> Self {
        match reason {
            siphon_proto::CloseReason::Error(error) => Self::Protocol(error),
            siphon_proto::CloseReason::PeerClosed { stage } => Self::PeerClosed { stage },
            siphon_proto::CloseReason::Transport { stage } => Self::Transport {
                doing: stage,
                source: Arc::new(io::ErrorKind::NotConnected.into()),
            },
            siphon_proto::CloseReason::Waiting => Self::Waiting,
            siphon_proto::CloseReason::Stale => Self::Replaced,
            siphon_proto::CloseReason::Local => Self::MarkedDown,
        }
    }
}

/// Why a message was not taken.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The connection has ended.
    Closed(CloseReason),
    /// A part of the message is longer than the protocol's limits.
    TooLong(TooLong),
    /// Too much waits to be sent already. The message comes back.
    Full(OutMessage),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(reason) => write!(f, "the connection has ended: {reason}"),
            Self::TooLong(too_long) => write!(f, "{too_long}"),
            Self::Full(_) => f.write_str(
                "too much waits to be sent on this connection: send_async waits for room, and \
                 MessengerBuilder::send_bound sets the bound",
            ),
        }
    }
}

impl std::error::Error for SendError {}

/// Why a messenger could not bind.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// An address that no socket can have.
    Unusable {
        /// The address.
        addr: EntityAddr,
        /// Why.
        why: &'static str,
    },
    /// The operating system refused.
    Listen {
        /// The address.
        addr: EntityAddr,
        /// What it said.
        source: io::Error,
    },
    /// No port of the range is free, after all retries.
    NoFreePort {
        /// The address without its port.
        addr: EntityAddr,
        /// First port that was tried (`ms_bind_port_min`).
        min: u16,
        /// Last port that was tried (`ms_bind_port_max`).
        max: u16,
        /// How often all were tried.
        tries: u32,
    },
    /// The messenger is shut down.
    Shutdown,
}

impl BindError {
    /// Whether it may be had later: another process has it now.
    pub(crate) fn is_in_use(&self) -> bool {
        match self {
            Self::Listen { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            Self::NoFreePort { .. } => true,
            Self::Unusable { .. } | Self::Shutdown => false,
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable { addr, why } => write!(f, "cannot bind to {addr}: {why}"),
            Self::Listen { addr, source } => {
                write!(f, "cannot bind to {addr}: {source}")?;
                match source.kind() {
                    io::ErrorKind::AddrInUse => {
                        f.write_str("; another process listens there, choose another port")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        f.write_str("; no interface of this machine has that address")
                    }
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; ports below 1024 need a privilege")
                    }
                    _ => Ok(()),
                }
            }
            Self::NoFreePort { addr, min, max, tries } => write!(
                f,
                "cannot bind to {addr}: no port from {min} to {max} is free, tried {tries} times \
                 (ms_bind_port_min, ms_bind_port_max, ms_bind_retry_count)"
            ),
            Self::Shutdown => f.write_str("cannot bind: the messenger was shut down"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } => Some(source),
            _ => None,
        }
    }
}
