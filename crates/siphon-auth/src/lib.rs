//! Ceph authentication without IO: what a connection asks of either side, methods `none` and `cephx`,
//! keys and keyrings.
//!
//! A messenger holds an [`AuthClient`] for the connections it makes and an [`AuthServer`] for
//! those it accepts. Each begins an exchange with a peer, which is pure: bytes in, an answer out.

#![forbid(unsafe_code)]

pub mod cephx;
mod env;
mod key;
mod keyring;
mod keys;
mod messages;
mod method;
mod modes;
mod none;
mod secret;
mod traits;

pub use cephx::{CephxClient, CephxError, CephxServer, KeyServer, KeyServerOptions, SharedSecret};
pub use env::AuthEnv;
pub use key::{CryptoKey, KeyError, KeyType, KeyUsage};
pub use keyring::{Caps, EntityAuth, Keyring, KeyringError, KeyringRule};
pub use keys::{Keys, SessionKeys, SignedMessage, StreamKeys};
pub use messages::{MessageAnswer, MessageExchange};
pub use method::{AuthMethod, ConnectionMode};
pub use modes::{ModeError, ModeList, Modes};
pub use none::{AuthNone, NoneHello};
pub use secret::Secret;
pub use traits::{
    AuthClient, AuthError, AuthRequest, AuthServer, AuthServerAnswer, BadMethod, ClientExchange,
    Identity, PeerContext, ServerExchange,
};
