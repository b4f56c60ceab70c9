//! Ceph authentication without IO: what a connection asks of either side, and method `none`.
//!
//! A messenger holds an [`AuthClient`] for the connections it makes and an [`AuthServer`] for
//! those it accepts. Both are pure: bytes in, an answer out.

#![forbid(unsafe_code)]

mod method;
mod none;
mod traits;

pub use method::{AuthMethod, ConnectionMode};
pub use none::{AuthNone, NoneHello};
pub use traits::{
    AuthClient, AuthError, AuthRequest, AuthServer, AuthServerAnswer, BadMethod, Keys, PeerContext,
};
