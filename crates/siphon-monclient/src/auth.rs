use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use siphon_auth::{
    AuthClient, AuthEnv, AuthError, AuthMethod, AuthNone, AuthRequest, BadMethod, CephxClient,
    ClientExchange, ConnectionMode, Keys, PeerContext,
};
use siphon_common::Config;
use siphon_messages::{MAuth, MAuthReply};
use siphon_msgr::{CredentialsError, SystemEnv, cephx_client, modes};
use siphon_wire::Encoder;
use siphon_wire::types::{AuthName, EntityName, EntityType, Features, Utime};

/// Connections with monitors that may be under way at once; of more, the oldest are forgotten, and
/// cannot be taken any more.
const MAX_FORKS: usize = 1024;

/// How we show who we are: to the monitors by our key, each with a [fork](CephxClient::fork) of its
/// own, of which that of the monitor that was taken counts; to others by the tickets that it brought.
#[derive(Debug)]
pub(crate) struct Authenticator {
    method: Method,
    name: AuthName,
    /// By their connections' numbers.
    forks: Mutex<BTreeMap<u64, Fork>>,
    global_id: AtomicU64,
}

#[derive(Debug)]
enum Method {
    Cephx(CephxClient),
    None(AuthNone),
}

/// What one connection with a monitor brought.
#[derive(Debug)]
struct Fork {
    cephx: Option<CephxClient>,
    global_id: Arc<AtomicU64>,
    /// Over msgr1, what takes the next answer.
    by_messages: Option<ByMessages>,
}

#[derive(Debug)]
enum ByMessages {
    /// Of method none: whether we are let in.
    Verdict,
    /// The monitor's challenge.
    Challenge(Box<dyn ClientExchange>),
    /// The tickets.
    Tickets(Box<dyn ClientExchange>),
}

/// What comes after an answer over msgr1.
#[derive(Debug)]
pub(crate) enum Step {
    Send(MAuth),
    LetIn,
    Refused(AuthError),
}

impl Authenticator {
    /// For `name`, by the methods that `auth_client_required` allows: cephx if there is a key.
    pub(crate) fn new(config: &Config, name: &AuthName) -> Result<Self, CredentialsError> {
        let allows = |method: &str| {
            let mut words = config.auth_client_required.split([',', ' ', ';']);
            words.any(|word| word == method)
        };
        let none = || -> Result<Method, CredentialsError> {
            let entity = EntityName::new(name.kind, EntityName::NEW);
            let none = AuthNone::new(entity, name.id.to_string());
            Ok(Method::None(none.with_modes(modes(config)?)))
        };
        let method = if allows("cephx") {
            match cephx_client(config, name.clone()) {
                Ok(cephx) => Method::Cephx(cephx),
                Err(error @ CredentialsError::NoKeyring { .. }) if allows("none") => {
                    tracing::warn!(%error, "without a key, authentication method none is tried");
                    none()?
                }
                Err(error) => return Err(error),
            }
        } else {
            none()?
        };
        let (name, global_id) = (name.clone(), AtomicU64::new(0));
        Ok(Self { method, name, forks: Mutex::default(), global_id })
    }

    /// Our number, as the monitor that was taken gave it; 0 before.
    pub(crate) fn global_id(&self) -> u64 {
        self.global_id.load(Ordering::Acquire)
    }

    /// The monitor of this connection is taken.
    pub(crate) fn adopt(&self, connection: u64) {
        let Some(fork) = self.forks().remove(&connection) else { return };
        self.global_id.store(fork.global_id.load(Ordering::Acquire), Ordering::Release);
        if let (Method::Cephx(cephx), Some(fork)) = (&self.method, &fork.cephx) {
            cephx.adopt(fork);
        }
    }

    /// A monitor has denied us. If that was for a global id that it does not give back, we ask for
    /// a new one from now on.
    pub(crate) fn denied(&self, connection: u64) {
        let forks = self.forks();
        let fork = forks.get(&connection).and_then(|fork| fork.cephx.as_ref());
        if let (Method::Cephx(cephx), Some(fork)) = (&self.method, fork)
            && fork.global_id() == 0
        {
            cephx.adopt(fork);
        }
    }

    /// A connection is not wanted any more.
    pub(crate) fn forget(&self, connection: u64) {
        self.forks().remove(&connection);
    }

    /// What asks for the tickets that are due.
    pub(crate) fn renewal(&self) -> Result<Option<MAuth>, AuthError> {
        let Method::Cephx(cephx) = &self.method else { return Ok(None) };
        let payload = cephx.renewal()?;
        let protocol = AuthMethod::CEPHX.0;
        Ok(payload.map(|auth_payload| MAuth { protocol, auth_payload, monmap_epoch: 0 }))
    }

    /// The answer to that.
    pub(crate) fn handle_reply(&self, reply: &MAuthReply) -> Result<(), AuthError> {
        let Method::Cephx(cephx) = &self.method else { return Ok(()) };
        if reply.result < 0 {
            return Err(refusal(reply));
        }
        cephx.handle_reply(&reply.auth_payload).map(drop)
    }

    /// When to ask for tickets next.
    #[expect(clippy::disallowed_methods, reason = "tickets end by the wall clock")]
    pub(crate) fn renew_at(&self) -> Option<Instant> {
        let Method::Cephx(cephx) = &self.method else { return None };
        let (at, now) = (cephx.renew_at()?, SystemEnv.now());
        let seconds = |time: Utime| Duration::new(u64::from(time.sec), time.nsec);
        Instant::now().checked_add(seconds(at).saturating_sub(seconds(now)))
    }

    /// Opens authentication over msgr1, where the monitor lets everybody in first.
    pub(crate) fn begin_by_messages(&self, connection: u64) -> MAuth {
        let mut fork = self.fork();
        let (auth_payload, next) = match &fork.cephx {
            Some(cephx) => {
                let (payload, exchange) = cephx.begin_by_messages();
                (payload, ByMessages::Challenge(exchange))
            }
            None => (self.offer_of_none(), ByMessages::Verdict),
        };
        fork.by_messages = Some(next);
        self.keep(connection, fork);
        MAuth { protocol: 0, auth_payload, monmap_epoch: 0 }
    }

    /// Takes a monitor's answer over msgr1; none if nothing was asked on this connection.
    pub(crate) fn continue_by_messages(&self, connection: u64, reply: &MAuthReply) -> Option<Step> {
        let mut forks = self.forks();
        let fork = forks.get_mut(&connection)?;
        let step = fork.by_messages.take()?;
        if reply.result < 0 {
            return Some(Step::Refused(refusal(reply)));
        }
        fork.global_id.store(reply.global_id, Ordering::Release);
        let payload = &reply.auth_payload;
        Some(match step {
            ByMessages::Verdict => Step::LetIn,
            ByMessages::Challenge(mut exchange) => match exchange.reply_more(payload) {
                Ok(auth_payload) => {
                    fork.by_messages = Some(ByMessages::Tickets(exchange));
                    let protocol = AuthMethod::CEPHX.0;
                    Step::Send(MAuth { protocol, auth_payload, monmap_epoch: 0 })
                }
                Err(error) => Step::Refused(error),
            },
            ByMessages::Tickets(mut exchange) => {
                match exchange.done(reply.global_id, ConnectionMode::CRC, payload) {
                    Ok(_) => Step::LetIn,
                    Err(error) => Step::Refused(error),
                }
            }
        })
    }

    fn offer_of_none(&self) -> Bytes {
        let mut enc = Encoder::new(Features::ALL);
        enc.u8(1);
        enc.value(&vec![AuthMethod::NONE.0]);
        enc.value(&self.name);
        enc.u64(self.global_id());
        enc.finish()
    }

    /// By the number that we have: a monitor would give another one (`MonConnection::get_auth_request` of
    /// mon/MonClient.cc, 16.2.7).
    fn known(&self, none: &AuthNone) -> AuthNone {
        none.clone().with_global_id(self.global_id())
    }

    fn fork(&self) -> Fork {
        let cephx = match &self.method {
            Method::Cephx(cephx) => Some(cephx.fork()),
            Method::None(_) => None,
        };
        Fork { cephx, global_id: Arc::default(), by_messages: None }
    }

    fn keep(&self, connection: u64, fork: Fork) {
        let mut forks = self.forks();
        forks.insert(connection, fork);
        if forks.len() > MAX_FORKS {
            forks.pop_first();
        }
    }

    fn forks(&self) -> MutexGuard<'_, BTreeMap<u64, Fork>> {
        self.forks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(reply: &MAuthReply) -> AuthError {
    let method = AuthMethod(reply.protocol);
    AuthError::Denied {
        refusal: BadMethod {
            method,
            result: reply.result,
            allowed_methods: vec![method],
            allowed_modes: vec![ConnectionMode::CRC],
        },
    }
}

impl AuthClient for Authenticator {
    fn begin(&self, peer: PeerContext) -> Result<Box<dyn ClientExchange>, AuthError> {
        if peer.peer_type != EntityType::MON {
            return match &self.method {
                Method::Cephx(cephx) => cephx.begin(peer),
                Method::None(none) => self.known(none).begin(peer),
            };
        }
        let fork = self.fork();
        let exchange = match (&self.method, &fork.cephx) {
            (Method::None(none), _) => self.known(none).begin(peer)?,
            (Method::Cephx(_), Some(cephx)) => cephx.begin(peer)?,
            (Method::Cephx(cephx), None) => cephx.begin(peer)?,
        };
        let global_id = Arc::clone(&fork.global_id);
        self.keep(peer.connection, fork);
        Ok(Box::new(Numbered { exchange, global_id }))
    }
}

/// An exchange that remembers the number which it brought: method none has no other place for it.
#[derive(Debug)]
struct Numbered {
    exchange: Box<dyn ClientExchange>,
    global_id: Arc<AtomicU64>,
}

impl ClientExchange for Numbered {
    fn request(&mut self) -> Result<AuthRequest, AuthError> {
        self.exchange.request()
    }

    fn bad_method(&mut self, refusal: BadMethod) -> Result<AuthRequest, AuthError> {
        self.exchange.bad_method(refusal)
    }

    fn reply_more(&mut self, payload: &Bytes) -> Result<Bytes, AuthError> {
        self.exchange.reply_more(payload)
    }

    fn done(
        &mut self,
        global_id: u64,
        mode: ConnectionMode,
        payload: &Bytes,
    ) -> Result<Keys, AuthError> {
        let keys = self.exchange.done(global_id, mode, payload)?;
        self.global_id.store(global_id, Ordering::Release);
        Ok(keys)
    }
}
