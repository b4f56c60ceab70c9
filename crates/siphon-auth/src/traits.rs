use std::fmt;

use bytes::Bytes;
use siphon_wire::types::{AuthName, EntityType};

use crate::cephx::CephxError;
use crate::{AuthMethod, ConnectionMode, Keys};

/// The connection that authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerContext {
    /// What the peer says it is, in its HELLO.
    pub peer_type: EntityType,
    /// Tells the connection from others of its process; 0 if nobody said.
    pub connection: u64,
}

impl PeerContext {
    /// A peer of this kind.
    pub const fn new(peer_type: EntityType) -> Self {
        Self { peer_type, connection: 0 }
    }

    /// The peer of the connection of this number.
    #[must_use]
    pub const fn of_connection(self, connection: u64) -> Self {
        Self { connection, ..self }
    }
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
    /// The server knows the method, and does not believe us.
    Denied {
        /// What it refused.
        refusal: BadMethod,
    },
    /// Method none has no mode but crc, which the configuration does not allow with such a peer.
    NoKeylessMode {
        /// The kind of peer.
        peer_type: EntityType,
    },
    /// cephx failed.
    Cephx(CephxError),
}

impl AuthError {
    /// What a server's refusal means to a client that has one method only.
    pub(crate) fn of_refusal(refusal: BadMethod) -> Self {
        let has_method = refusal.allowed_methods.contains(&refusal.method);
        if has_method { Self::Denied { refusal } } else { Self::NoCommonMethod { refusal } }
    }
}

impl From<CephxError> for AuthError {
    fn from(error: CephxError) -> Self {
        Self::Cephx(error)
    }
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
            Self::Denied { refusal: BadMethod { method, result, allowed_modes, .. } } => {
                write!(f, "the server denies us by {method}: error {result}")?;
                match *result {
                    -13 => f.write_str(" (wrong name, wrong key, or a ticket that ended)"),
                    -95 => {
                        let modes: Vec<_> = allowed_modes.iter().map(ToString::to_string).collect();
                        write!(f, " (it allows connection modes: {})", modes.join(", "))
                    }
                    _ => Ok(()),
                }
            }
            Self::NoKeylessMode { peer_type } => write!(
                f,
                "without a key there is no mode but crc, which is not allowed with a {peer_type}"
            ),
            Self::Cephx(error) => write!(f, "cephx: {error}"),
        }
    }
}

impl std::error::Error for AuthError {}

/// The connecting side of authentication, shared by a messenger's connections.
pub trait AuthClient: fmt::Debug + Send + Sync {
    /// Begins with one peer.
    ///
    /// # Errors
    /// If nothing can be offered to such a peer.
    fn begin(&self, peer: PeerContext) -> Result<Box<dyn ClientExchange>, AuthError>;
}

/// The connecting side with one peer.
pub trait ClientExchange: fmt::Debug + Send {
    /// Opens the exchange.
    ///
    /// # Errors
    /// If nothing can be offered to such a peer.
    fn request(&mut self) -> Result<AuthRequest, AuthError>;

    /// The server refused: another request, or the end.
    ///
    /// # Errors
    /// If nothing else can be offered.
    fn bad_method(&mut self, refusal: BadMethod) -> Result<AuthRequest, AuthError>;

    /// The server wants more: the next payload.
    ///
    /// # Errors
    /// If the method has no such step, or the bytes are not its.
    fn reply_more(&mut self, payload: &Bytes) -> Result<Bytes, AuthError>;

    /// The server is satisfied, and we check whether we are.
    ///
    /// # Errors
    /// If the server did not prove what the method demands.
    fn done(
        &mut self,
        global_id: u64,
        mode: ConnectionMode,
        payload: &Bytes,
    ) -> Result<Keys, AuthError>;
}

/// Whom a server has before it, as authentication proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name: `client.admin`.
    pub name: AuthName,
    /// What it may do here, in the grammar of the service: `allow rw pool=data`.
    pub caps: String,
}

/// What a [`ServerExchange`] says to a request.
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
        /// Who it is, if the method proves that.
        identity: Option<Identity>,
    },
    /// Another round.
    More(Bytes),
    /// Not this way.
    BadMethod(BadMethod),
}

/// The accepting side of authentication, shared by a messenger's connections.
pub trait AuthServer: fmt::Debug + Send + Sync {
    /// Begins with one peer.
    fn begin(&self, peer: PeerContext) -> Box<dyn ServerExchange>;
}

/// The accepting side with one peer.
pub trait ServerExchange: fmt::Debug + Send {
    /// Answers AUTH_REQUEST.
    fn request(&mut self, request: &AuthRequest) -> AuthServerAnswer;

    /// Answers AUTH_REQUEST_MORE.
    fn request_more(&mut self, payload: &Bytes) -> AuthServerAnswer;

    /// The peer's global id, which is chosen before the peer has proven anything; 0 if there is
    /// none (yet). Over msgr v1 it goes with every answer.
    fn global_id(&self) -> u64 {
        0
    }
}
