use std::sync::Arc;

use siphon_wire::types::{AuthName, EntityType, Utime};

use super::client::CephxClient;
use super::envelope::seal;
use super::server::{CephxServer, ServiceSecrets};
use super::tickets::Ticket;
use super::wire::{AuthTicket, ServiceTicketInfo, TicketBlob};
use crate::{AuthEnv, CryptoKey, KeyError, KeyUsage, Modes};

/// cephx between two sides that share a secret, without monitors: the client makes its tickets
/// itself. For benchmarks and tests, and for programs that are no cluster.
///
/// ```
/// # use std::sync::Arc;
/// # use siphon_auth::{AuthEnv, CryptoKey, KeyType, Modes, SharedSecret};
/// # use siphon_wire::types::{EntityType, Utime};
/// # #[derive(Debug)]
/// # struct Env;
/// # impl AuthEnv for Env {
/// #     fn now(&self) -> Utime { Utime::default() }
/// #     fn fill(&self, bytes: &mut [u8]) { bytes.fill(7) }
/// # }
/// # let env = Arc::new(Env);
/// let key = CryptoKey::generate(KeyType::AES256K, &*env)?;
/// let secret = SharedSecret::new(key, Modes::default(), env);
/// let client = secret.client("client.perf".parse().unwrap(), EntityType::OSD)?;
/// assert!(client.has_ticket(EntityType::OSD));
/// let server = secret.server(EntityType::OSD);
/// # Ok::<(), siphon_auth::KeyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SharedSecret {
    key: CryptoKey,
    modes: Modes,
    env: Arc<dyn AuthEnv>,
}

impl SharedSecret {
    /// Of two sides that use these modes.
    pub fn new(key: CryptoKey, modes: Modes, env: Arc<dyn AuthEnv>) -> Self {
        Self { key, modes, env }
    }

    /// The connecting side, with a ticket for a kind of service that does not end.
    ///
    /// # Errors
    /// If the key seals nothing.
    pub fn client(&self, name: AuthName, service: EntityType) -> Result<CephxClient, KeyError> {
        let session_key = CryptoKey::generate(self.key.kind(), &*self.env)?;
        let ticket = AuthTicket {
            name: name.clone(),
            created: self.env.now(),
            expires: Utime::new(u32::MAX, 0),
            ..AuthTicket::default()
        };
        let info = ServiceTicketInfo { ticket, session_key: session_key.clone() };
        let blob = seal(&self.key, KeyUsage::TICKET_INFO, &info, &*self.env)?;
        let ticket = Ticket::endless(session_key, TicketBlob { secret_id: 0, blob });
        let env = Arc::clone(&self.env);
        let client = CephxClient::new(name, self.key.clone(), self.modes.clone(), env);
        client.insert(service, ticket);
        Ok(client)
    }

    /// The accepting side of a service of kind `we`.
    pub fn server(&self, we: EntityType) -> CephxServer {
        let (secrets, env) = (Arc::new(self.clone()), Arc::clone(&self.env));
        CephxServer::for_service(we, secrets, self.modes.clone(), env)
    }
}

impl ServiceSecrets for SharedSecret {
    fn secret(&self, _: EntityType, _: u64) -> Option<CryptoKey> {
        Some(self.key.clone())
    }
}
