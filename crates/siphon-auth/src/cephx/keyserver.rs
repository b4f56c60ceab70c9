use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use siphon_wire::Encode as _;
use siphon_wire::types::{AuthName, EntityType, Features, Utime};

use super::envelope::seal;
use super::server::ServiceSecrets;
use super::wire::{
    AuthCaps, AuthTicket, ExpiringCryptoKey, RotatingSecrets, ServiceTicket, ServiceTicketInfo,
    TicketBlob,
};
use crate::{AuthEnv, Caps, CryptoKey, EntityAuth, KeyError, KeyType, KeyUsage, Keyring};

/// Secrets of a service that are kept: the previous, the current and the next
/// (`KEY_ROTATE_NUM` of Ceph's `auth/Auth.h`).
const ROTATING: usize = 3;

/// Services that have rotating secrets.
const SERVICES: [EntityType; 5] =
    [EntityType::AUTH, EntityType::MON, EntityType::OSD, EntityType::MDS, EntityType::MGR];

/// How a [`KeyServer`] makes tickets.
#[derive(Clone, Debug)]
pub struct KeyServerOptions {
    /// How long tickets for monitors' authentication are good (`auth_mon_ticket_ttl`, 72 h).
    pub mon_ticket_ttl: Duration,
    /// How long tickets for services are good (`auth_service_ticket_ttl`, 1 h).
    pub service_ticket_ttl: Duration,
    /// The type of services' secrets (`auth_service_cipher`).
    pub service_key_type: KeyType,
    /// Whether clients from before Pacific may have their global id back without showing the ticket
    /// that came with it (`auth_allow_insecure_global_id_reclaim`; CVE-2021-20288).
    pub allow_insecure_global_id_reclaim: bool,
    /// The first global id that is given away.
    pub first_global_id: u64,
}

impl Default for KeyServerOptions {
    fn default() -> Self {
        Self {
            mon_ticket_ttl: Duration::from_secs(72 * 3600),
            service_ticket_ttl: Duration::from_secs(3600),
            service_key_type: KeyType::AES,
            allow_insecure_global_id_reclaim: false,
            first_global_id: 4100,
        }
    }
}

/// What monitors know of keys: whose they are, and the services' rotating secrets.
#[derive(Debug)]
pub struct KeyServer {
    pub(super) options: KeyServerOptions,
    pub(super) env: Arc<dyn AuthEnv>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keyring: Keyring,
    rotating: BTreeMap<u8, RotatingSecrets>,
    next_global_id: u64,
}

/// Why there is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTicket {
    /// That kind of service has no secrets: it is none, or newer than we are.
    Service,
    /// The monitors do not know the one who asks, or not any more.
    Entity,
    /// One of the keys seals nothing.
    Key(KeyError),
}

impl From<KeyError> for NoTicket {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

/// What the tickets of one reply have in common.
pub(super) struct Grant<'a> {
    pub(super) name: &'a AuthName,
    pub(super) global_id: u64,
    /// The type of the session keys.
    pub(super) key_type: KeyType,
    /// What the client opens them with.
    pub(super) client_key: &'a CryptoKey,
}

impl KeyServer {
    /// A server for the entities of `keyring`.
    pub fn new(keyring: Keyring, options: KeyServerOptions, env: Arc<dyn AuthEnv>) -> Self {
        let next_global_id = options.first_global_id;
        let state = State { keyring, rotating: BTreeMap::new(), next_global_id };
        Self { options, env, state: Mutex::new(state) }
    }

    /// Adds an entity, or replaces it.
    pub fn insert(&self, name: AuthName, auth: EntityAuth) {
        self.state().keyring.insert(name, auth);
    }

    /// Removes an entity: it gets no further tickets, and those that it has end in their time.
    pub fn remove(&self, name: &AuthName) -> Option<EntityAuth> {
        self.state().keyring.remove(name)
    }

    /// The secrets of a kind of service, made or changed if it is time to.
    ///
    /// What is no service has none.
    ///
    /// # Errors
    /// If no secrets of the chosen type can be made.
    pub fn rotating_secrets(&self, service: EntityType) -> Result<RotatingSecrets, KeyError> {
        if !SERVICES.contains(&service) {
            return Ok(RotatingSecrets::default());
        }
        let mut state = self.state();
        let secrets = state.rotating.entry(service.0).or_default();
        self.rotate(service, secrets)?;
        Ok(secrets.clone())
    }

    pub(super) fn entity(&self, name: &AuthName) -> Option<EntityAuth> {
        self.state().keyring.get(name).cloned()
    }

    pub(super) fn new_global_id(&self) -> u64 {
        let mut state = self.state();
        state.next_global_id += 1;
        state.next_global_id - 1
    }

    /// Rotating secrets for a daemon of the kind, sealed with its own key; clients get none.
    pub(super) fn sealed_rotating_secrets(&self, name: &AuthName) -> Option<Bytes> {
        let auth = self.entity(name).filter(|_| SERVICES.contains(&name.kind))?;
        let secrets = self.rotating_secrets(name.kind).ok()?;
        seal(&auth.key, KeyUsage::ROTATING_SECRET, &secrets, &*self.env).ok()
    }

    /// A ticket for `service`: its session key, that under the client's key, and the ticket itself.
    pub(super) fn ticket(
        &self,
        service: EntityType,
        grant: &Grant<'_>,
    ) -> Result<(CryptoKey, Bytes, TicketBlob), NoTicket> {
        let entity = self.entity(grant.name).ok_or(NoTicket::Entity)?;
        let secrets = self.rotating_secrets(service)?;
        let now = self.env.now();
        let (secret_id, secret) = current(&secrets, now).ok_or(NoTicket::Service)?;
        let ttl = self.ttl(service);
        let key_type = match service {
            EntityType::AUTH => grant.key_type,
            _ => grant.key_type.min(secret.key.kind()),
        };
        let session_key = CryptoKey::generate(key_type, &*self.env)?;
        let ticket = AuthTicket {
            name: grant.name.clone(),
            global_id: grant.global_id,
            created: now,
            expires: Utime::new(now.sec.saturating_add(ttl), now.nsec),
            caps: caps_for(service, &entity.caps),
            flags: 0,
        };
        let info = ServiceTicketInfo { ticket, session_key: session_key.clone() };
        let blob = seal(&secret.key, KeyUsage::TICKET_INFO, &info, &*self.env)?;
        let for_client =
            ServiceTicket { session_key: session_key.clone(), validity: Utime::new(ttl, 0) };
        let usage = KeyUsage::TICKET_SESSION_KEY;
        let for_client = seal(grant.client_key, usage, &for_client, &*self.env)?;
        Ok((session_key, for_client, TicketBlob { secret_id, blob }))
    }

    /// How long a ticket is good, in seconds: at least one, since clients take none for ever.
    fn ttl(&self, service: EntityType) -> u32 {
        let ttl = match service {
            EntityType::AUTH => self.options.mon_ticket_ttl,
            _ => self.options.service_ticket_ttl,
        };
        u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).max(1)
    }

    /// Adds secrets until there are three, of which the middle one is in use (`_rotate_secret` of
    /// Ceph's `auth/cephx/CephxKeyServer.cc`).
    fn rotate(&self, service: EntityType, rotating: &mut RotatingSecrets) -> Result<(), KeyError> {
        let now = self.env.now();
        let ttl = self.ttl(service);
        let later = |from: Utime| Utime::new(from.sec.saturating_add(ttl), from.nsec);
        // As many as there can be are enough, however long nobody asked: each of them ends after now.
        for _ in 0..ROTATING {
            let in_use = rotating.secrets.values().nth(1);
            if rotating.secrets.len() == ROTATING && in_use.is_some_and(|it| it.expiration > now) {
                break;
            }
            let key = CryptoKey::generate(self.options.service_key_type, &*self.env)?;
            let expiration = match rotating.secrets.values().next_back() {
                None => later(now),
                Some(newest) => later(later(now).max(newest.expiration)),
            };
            rotating.max_ver += 1;
            rotating.secrets.insert(rotating.max_ver, ExpiringCryptoKey { key, expiration });
            while rotating.secrets.len() > ROTATING {
                rotating.secrets.pop_first();
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServiceSecrets for KeyServer {
    /// One that has been replaced since opens nothing, even if nobody asked for tickets meanwhile.
    fn secret(&self, service: EntityType, secret_id: u64) -> Option<CryptoKey> {
        let secrets = self.rotating_secrets(service).ok()?;
        Some(secrets.secrets.get(&secret_id)?.key.clone())
    }
}

impl ServiceSecrets for (EntityType, Mutex<RotatingSecrets>) {
    fn secret(&self, service: EntityType, secret_id: u64) -> Option<CryptoKey> {
        let secrets = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let found = secrets.secrets.get(&secret_id).filter(|_| service == self.0)?;
        Some(found.key.clone())
    }
}

/// The secret that tickets are sealed with: the second oldest, unless it has just ended.
fn current(rotating: &RotatingSecrets, now: Utime) -> Option<(u64, &ExpiringCryptoKey)> {
    let mut secrets = rotating.secrets.iter().skip(usize::from(rotating.secrets.len() > 1));
    let (id, secret) = secrets.find(|(_, secret)| secret.expiration >= now)?;
    Some((*id, secret))
}

/// What a ticket tells a service of capabilities; monitors look them up themselves.
fn caps_for(service: EntityType, caps: &Caps) -> AuthCaps {
    let caps = caps.get(&service.to_string()).filter(|_| service != EntityType::MON);
    let caps = caps.map(|caps| caps.to_bytes(Features::ALL)).unwrap_or_default();
    AuthCaps { allow_all: false, caps }
}
