//! cephx: shared secrets and tickets.
//!
//! A client proves to a monitor that it has a key, and gets a session key and tickets. A ticket is
//! sealed with a secret that the monitors share with a kind of service and change from time to
//! time; whoever shows one proves that it has the ticket's session key, and the service proves that
//! it could read the ticket.

mod client;
pub mod database;
mod envelope;
mod keyserver;
mod server;
mod shared;
#[cfg(test)]
mod tests;
mod tickets;
pub mod wire;

use std::fmt;

use siphon_wire::DecodeError;
use siphon_wire::types::EntityType;

pub use client::CephxClient;
pub use envelope::SealError;
pub use keyserver::{KeyServer, KeyServerOptions};
pub use server::{CephxServer, ServiceSecrets};
pub use shared::SharedSecret;

pub(crate) use envelope::{fold, head as envelope_head};

use crate::KeyError;

/// Why cephx does not believe a peer, or cannot begin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CephxError {
    /// There is no valid ticket for such a service: no session with a monitor yet, or the key has
    /// no capabilities for it.
    NoTicket(EntityType),
    /// Our key seals nothing.
    Key(KeyError),
    /// What a monitor sent to prove that it has our key does not open with it.
    Session(SealError),
    /// A ticket or a secret does not open with the session key.
    Ticket(SealError),
    /// The service does not prove that it could read the ticket.
    ImpostorService,
    /// The monitor says no.
    Refused {
        /// A negative errno.
        errno: i32,
    },
    /// An answer to a question that was not asked.
    UnknownRequest {
        /// `CEPHX_GET_*`.
        request_type: u16,
    },
    /// Bytes that mean nothing.
    Malformed(DecodeError),
    /// Secure mode without a secret to seal with.
    NoConnectionSecret {
        /// Bytes that came instead.
        len: usize,
    },
}

impl From<DecodeError> for CephxError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl fmt::Display for CephxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTicket(service) => write!(
                f,
                "no valid ticket for a {service}: there was no session with a monitor yet, or the \
                 key has no capabilities for it"
            ),
            Self::Key(error) => write!(f, "our key is of no use: {error}"),
            Self::Session(error) => {
                write!(f, "the monitor does not prove that it has our key: {error}")
            }
            Self::Ticket(error) => write!(f, "a ticket does not open: {error}"),
            Self::ImpostorService => {
                f.write_str("the service does not prove that it could read our ticket")
            }
            Self::Refused { errno } => {
                write!(f, "the monitor refuses us: error {errno}")?;
                f.write_str(if *errno == -13 { " (wrong name or key?)" } else { "" })
            }
            Self::UnknownRequest { request_type } => {
                write!(f, "an answer to request {request_type:#06x}, which was not made")
            }
            Self::Malformed(error) => error.fmt(f),
            Self::NoConnectionSecret { len } => {
                write!(f, "secure mode needs a connection secret of 40 bytes, the peer sent {len}")
            }
        }
    }
}
