use std::fmt;

use bytes::Bytes;
use siphon_wire::types::EntityType;

use crate::{AuthMethod, ConnectionMode};

/// The connection that authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerContext {
    /// What the peer says it is, in its HELLO.
    pub peer_type: EntityType,
}

/// What a connecting side opens the exchange with (frame AUTH_REQUEST).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRequest {
    /// The method asked for.
    pub method: AuthMethod,
    /// Acceptable connection modes, the preferred one first.
    pub preferred_modes: Vec<ConnectionMode>,
    /// The method's own bytes.
    pub payload: Bytes,
}

/// A server's refusal of a method (frame AUTH_BAD_METHOD).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMethod {
    /// The method that was asked for.
    pub method: AuthMethod,
    /// Ceph's (Linux's) errno, negative.
    pub result: i32,
    /// Methods that the server allows.
    pub allowed_methods: Vec<AuthMethod>,
    /// Connection modes that the server allows.
    pub allowed_modes: Vec<ConnectionMode>,
}

/// What a finished exchange leaves for signing the handshake and sealing the frames after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keys {
    /// Nothing: the signature is all zeros, and frames have checksums only.
    #[default]
    None,
}

/// Why an exchange ended without a verified peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthError {
    /// The server allows none of the methods that we have.
    NoCommonMethod {
        /// What it refused and what it allows.
        refusal: BadMethod,
    },
    /// The peer sent a step that the method does not have.
    UnexpectedStep {
        /// The method in use.
        method: AuthMethod,
    },
    /// The peer chose a connection mode that was not offered.
    ModeNotOffered {
        /// The mode it chose.
        mode: ConnectionMode,
    },
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCommonMethod { refusal } => {
                write!(f, "the server refuses authentication method {}", refusal.method)?;
                let allowed: Vec<_> =
                    refusal.allowed_methods.iter().map(ToString::to_string).collect();
                write!(f, " (result {}); it allows: {}", refusal.result, allowed.join(", "))
            }
            Self::UnexpectedStep { method } => {
                write!(f, "the peer sent a step that authentication method {method} does not have")
            }
            Self::ModeNotOffered { mode } => {
                write!(f, "the peer chose connection mode {mode}, which was not offered")
            }
        }
    }
}

impl std::error::Error for AuthError {}

/// The connecting side of authentication, shared by a messenger's connections.
pub trait AuthClient: fmt::Debug + Send + Sync {
    /// Opens the exchange.
    ///
    /// # Errors
    /// If nothing can be offered to such a peer.
    fn request(&self, peer: PeerContext) -> Result<AuthRequest, AuthError>;

    /// The server refused: another request, or the end.
    ///
    /// # Errors
    /// If nothing else can be offered.
    fn bad_method(&self, peer: PeerContext, refusal: BadMethod) -> Result<AuthRequest, AuthError>;

    /// The server wants more: the next payload.
    ///
    /// # Errors
    /// If the method has no such step, or the bytes are not its.
    fn reply_more(&self, peer: PeerContext, payload: &Bytes) -> Result<Bytes, AuthError>;

    /// The server is satisfied, and we check whether we are.
    ///
    /// # Errors
    /// If the server did not prove what the method demands.
    fn done(
        &self,
        peer: PeerContext,
        global_id: u64,
        mode: ConnectionMode,
        payload: &Bytes,
    ) -> Result<Keys, AuthError>;
}

/// What an [`AuthServer`] says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthServerAnswer {
    /// The peer is who it says.
    Done {
        /// The peer's global id, 0 if the method gives none.
        global_id: u64,
        /// The connection mode chosen from those the peer prefers.
        mode: ConnectionMode,
        /// The method's own bytes.
        payload: Bytes,
        /// What the method leaves.
        keys: Keys,
    },
    /// Another round.
    More(Bytes),
    /// Not this way.
    BadMethod(BadMethod),
}

/// The accepting side of authentication, shared by a messenger's connections.
pub trait AuthServer: fmt::Debug + Send + Sync {
    /// Answers AUTH_REQUEST.
    fn request(&self, peer: PeerContext, request: &AuthRequest) -> AuthServerAnswer;

    /// Answers AUTH_REQUEST_MORE.
    ///
    /// # Errors
    /// If the method has no such step.
    fn request_more(
        &self,
        peer: PeerContext,
        payload: &Bytes,
    ) -> Result<AuthServerAnswer, AuthError>;
}
