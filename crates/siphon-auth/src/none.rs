use bytes::Bytes;
use siphon_wire::types::{EntityName, EntityType, Features};
use siphon_wire::{Encode, Encoder};

use crate::{
    AuthClient, AuthError, AuthMethod, AuthRequest, AuthServer, AuthServerAnswer, BadMethod,
    ClientExchange, ConnectionMode, Keys, Modes, PeerContext, ServerExchange,
};

/// `-EOPNOTSUPP`, which Ceph answers to a method or mode it does not have.
const EOPNOTSUPP: i32 = -95;

/// Authentication method `none`: both sides believe each other's names. Connection mode is `crc`,
/// since there is no key for another.
///
/// ```
/// use siphon_auth::{AuthClient, AuthMethod, AuthNone, PeerContext};
/// use siphon_wire::types::{EntityName, EntityType};
///
/// let client = AuthNone::new(EntityName::new(EntityType::CLIENT, 0), "admin");
/// let request = client.begin(PeerContext::new(EntityType::MON)).unwrap().request().unwrap();
/// assert_eq!(request.method, AuthMethod::NONE);
/// ```
#[derive(Clone, Debug)]
pub struct AuthNone {
    name: EntityName,
    id: String,
    global_id: u64,
    modes: Modes,
}

/// What a client tells a monitor or another daemon of itself with method `none`
/// (`AuthNoneAuthorizer` of Ceph's `auth/none/AuthNoneProtocol.h`, and `MonConnection` of
/// `mon/MonClient.cc`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoneHello {
    /// 10 (`AUTH_MODE_MON`) towards a monitor, 1 (`AUTH_MODE_AUTHORIZER`) towards others.
    pub mode: u8,
    /// The kind of client.
    pub entity_type: EntityType,
    /// Its id: `admin` of `client.admin`.
    pub id: String,
    /// Its global id, 0 if it has none yet.
    pub global_id: u64,
}

impl Encode for NoneHello {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(self.mode);
        enc.u32(u32::from(self.entity_type.0));
        enc.bytes(self.id.as_bytes());
        enc.u64(self.global_id);
    }
}

impl NoneHello {
    /// `AUTH_MODE_AUTHORIZER`.
    pub const AUTHORIZER: u8 = 1;
    /// `AUTH_MODE_MON`.
    pub const MON: u8 = 10;
}

impl AuthNone {
    /// For an entity `name`, known to daemons by `id` (`admin` of `client.admin`).
    pub fn new(name: EntityName, id: impl Into<String>) -> Self {
        Self { name, id: id.into(), global_id: 0, modes: Modes::default() }
    }

    /// With the global id that a monitor gave before, which it gives again if it is asked for it; 0 asks
    /// for a new one.
    ///
    /// ```
    /// use siphon_auth::{AuthClient, AuthNone, PeerContext};
    /// use siphon_wire::types::{EntityName, EntityType};
    ///
    /// let client = AuthNone::new(EntityName::new(EntityType::CLIENT, 0), "admin");
    /// let known = client.with_global_id(4151);
    /// let request = known.begin(PeerContext::new(EntityType::MON)).unwrap().request().unwrap();
    /// assert!(request.payload.ends_with(&4151_u64.to_le_bytes()));
    /// ```
    #[must_use]
    pub fn with_global_id(mut self, global_id: u64) -> Self {
        self.global_id = global_id;
        self
    }

    /// With these modes in place of Ceph's defaults. Towards whom `crc` is not among them, this
    /// method is refused: to insist on secure mode is to insist on a key.
    pub fn with_modes(mut self, modes: Modes) -> Self {
        self.modes = modes;
        self
    }

    fn modes(&self, peer: PeerContext) -> Vec<ConnectionMode> {
        self.modes.between(self.name.kind, peer.peer_type, AuthMethod::NONE)
    }
}

impl AuthClient for AuthNone {
    fn begin(&self, peer: PeerContext) -> Result<Box<dyn ClientExchange>, AuthError> {
        if self.modes(peer).is_empty() {
            return Err(AuthError::NoKeylessMode { peer_type: peer.peer_type });
        }
        let mode = match peer.peer_type {
            // Monitors authorize each other as other daemons do.
            EntityType::MON if self.name.kind != EntityType::MON => NoneHello::MON,
            _ => NoneHello::AUTHORIZER,
        };
        let (entity_type, id, global_id) = (self.name.kind, self.id.clone(), self.global_id);
        Ok(Box::new(NoneHello { mode, entity_type, id, global_id }))
    }
}

impl ClientExchange for NoneHello {
    fn request(&mut self) -> Result<AuthRequest, AuthError> {
        Ok(AuthRequest {
            method: AuthMethod::NONE,
            preferred_modes: vec![ConnectionMode::CRC],
            payload: self.to_bytes(Features::ALL),
        })
    }

    fn bad_method(&mut self, refusal: BadMethod) -> Result<AuthRequest, AuthError> {
        Err(AuthError::of_refusal(refusal))
    }

    fn reply_more(&mut self, _: &Bytes) -> Result<Bytes, AuthError> {
        Err(AuthError::UnexpectedStep { method: AuthMethod::NONE })
    }

    fn done(&mut self, _: u64, mode: ConnectionMode, _: &Bytes) -> Result<Keys, AuthError> {
        match mode {
            ConnectionMode::CRC => Ok(Keys::None),
            _ => Err(AuthError::ModeNotOffered { mode }),
        }
    }
}

impl AuthServer for AuthNone {
    fn begin(&self, peer: PeerContext) -> Box<dyn ServerExchange> {
        Box::new(NoneServer { modes: self.modes(peer) })
    }
}

/// The accepting side.
#[derive(Debug)]
struct NoneServer {
    /// `crc`, or nothing.
    modes: Vec<ConnectionMode>,
}

impl NoneServer {
    fn refusal(&self, method: AuthMethod) -> AuthServerAnswer {
        AuthServerAnswer::BadMethod(BadMethod {
            method,
            result: EOPNOTSUPP,
            allowed_methods: vec![AuthMethod::NONE],
            allowed_modes: self.modes.clone(),
        })
    }
}

impl ServerExchange for NoneServer {
    fn request(&mut self, request: &AuthRequest) -> AuthServerAnswer {
        // A peer that names no preference takes what it is given.
        let crc = request.preferred_modes.is_empty()
            || request.preferred_modes.contains(&ConnectionMode::CRC);
        if request.method != AuthMethod::NONE || !crc || self.modes.is_empty() {
            return self.refusal(request.method);
        }
        AuthServerAnswer::Done {
            global_id: 0,
            mode: ConnectionMode::CRC,
            payload: Bytes::new(),
            keys: Keys::None,
            identity: None,
        }
    }

    fn request_more(&mut self, _: &Bytes) -> AuthServerAnswer {
        self.refusal(AuthMethod::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MON: PeerContext = PeerContext::new(EntityType::MON);

    fn auth() -> AuthNone {
        AuthNone::new(EntityName::new(EntityType::CLIENT, 0), "admin")
    }

    #[test]
    fn a_monitor_is_told_name_and_global_id() {
        let request = AuthClient::begin(&auth(), MON).unwrap().request().unwrap();
        let mut expected = vec![10, 8, 0, 0, 0, 5, 0, 0, 0];
        expected.extend_from_slice(b"admin");
        expected.extend_from_slice(&[0; 8]);
        assert_eq!(&request.payload[..], &expected[..]);
    }

    #[test]
    fn who_insists_on_secure_mode_insists_on_a_key() {
        let secure = Modes::all(&"secure".parse().unwrap());
        let auth = auth().with_modes(secure);
        let error = AuthClient::begin(&auth, MON).unwrap_err();
        assert_eq!(error, AuthError::NoKeylessMode { peer_type: EntityType::MON });
        let request = AuthRequest {
            method: AuthMethod::NONE,
            preferred_modes: vec![ConnectionMode::CRC],
            payload: Bytes::new(),
        };
        let AuthServerAnswer::BadMethod(refusal) = AuthServer::begin(&auth, MON).request(&request)
        else {
            panic!("accepted");
        };
        assert_eq!((refusal.result, refusal.allowed_modes.len()), (EOPNOTSUPP, 0));
    }

    #[test]
    fn cephx_and_secure_only_are_refused_with_what_is_allowed() {
        let cephx = AuthRequest {
            method: AuthMethod::CEPHX,
            preferred_modes: vec![ConnectionMode::CRC],
            payload: Bytes::new(),
        };
        let secure = AuthRequest {
            method: AuthMethod::NONE,
            preferred_modes: vec![ConnectionMode::SECURE],
            payload: Bytes::new(),
        };
        for request in [cephx, secure] {
            let answer = AuthServer::begin(&auth(), MON).request(&request);
            let AuthServerAnswer::BadMethod(refusal) = answer else {
                panic!("accepted {request:?}");
            };
            assert_eq!(refusal.allowed_methods, [AuthMethod::NONE]);
            assert_eq!(refusal.allowed_modes, [ConnectionMode::CRC]);
        }
    }
}
