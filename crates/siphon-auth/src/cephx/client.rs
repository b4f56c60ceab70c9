use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use siphon_wire::types::{AuthName, EntityType, Features, Utime};
use siphon_wire::{Decode as _, Decoder, Encode as _, Encoder};

use super::CephxError;
use super::envelope::{answer, open};
use super::tickets::{Ticket, Tickets};
use super::wire::{
    Authenticate, Authorize, AuthorizeChallenge, AuthorizeReply, ChallengeBlob,
    GET_AUTH_SESSION_KEY, GET_PRINCIPAL_SESSION_KEY, GET_ROTATING_KEY, MODE_MON, RequestHeader,
    ResponseHeader, RotatingSecrets, ServerChallenge, ServiceTicketRequest,
};
use crate::{
    AuthClient, AuthEnv, AuthError, AuthMethod, AuthRequest, BadMethod, ClientExchange,
    ConnectionMode, CryptoKey, KeyType, KeyUsage, Keys, Modes, PeerContext, Secret, SessionKeys,
};

const EACCES: i32 = -13;

/// Most challenges of a service that one authorizer answers.
const MAX_CHALLENGES: u32 = 16;

/// The connecting side of cephx: a name and its key, and the tickets that monitors gave for them.
///
/// To a monitor it proves that it has the key, and gets tickets; to any other daemon it shows the
/// ticket for that kind. Clones share their tickets.
///
/// Tickets end. Whoever keeps a session with a monitor asks [`renewal`](Self::renewal) now and
/// then, sends what it gives in an `MAuth`, and hands the `MAuthReply` to
/// [`handle_reply`](Self::handle_reply).
#[derive(Clone, Debug)]
pub struct CephxClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: AuthName,
    key: CryptoKey,
    modes: Modes,
    want: u32,
    env: Arc<dyn AuthEnv>,
    tickets: Mutex<Tickets>,
    /// The challenge of the monitor with which there is a session.
    challenge: Mutex<Option<u64>>,
}

impl CephxClient {
    /// For `name` and its key. Tickets are wanted for monitors, managers, OSDs and metadata servers.
    pub fn new(name: AuthName, key: CryptoKey, modes: Modes, env: Arc<dyn AuthEnv>) -> Self {
        let kinds = [EntityType::MON, EntityType::MDS, EntityType::OSD, EntityType::MGR];
        let services = kinds.iter().map(|kind| u32::from(kind.0)).sum::<u32>();
        let want = services | u32::from(EntityType::AUTH.0);
        let (tickets, challenge) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { name, key, modes, want, env, tickets, challenge }) }
    }

    pub(super) fn insert(&self, service: EntityType, ticket: Ticket) {
        self.inner.tickets().insert(service, ticket);
    }

    /// With whom it is not the key that counts.
    pub(super) fn begin_by_ticket(
        &self,
        peer: PeerContext,
    ) -> Result<Box<dyn ClientExchange>, AuthError> {
        let tickets = self.inner.tickets();
        let ticket = tickets.get(peer.peer_type).filter(|it| it.is_valid(self.inner.env.now()));
        let ticket = ticket.ok_or(CephxError::NoTicket(peer.peer_type))?.clone();
        let (inner, nonce) = (Arc::clone(&self.inner), self.inner.env.random());
        Ok(Box::new(AuthorizerExchange { inner, peer, ticket, nonce, challenges: 0 }))
    }

    /// A client of the same name and key that begins with our tickets, and whose further ones we don't
    /// have: for one of several monitors that are asked at once, of which one will be
    /// [taken](Self::adopt).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use siphon_auth::{AuthEnv, CephxClient, CryptoKey, KeyType, Modes};
    /// # #[derive(Debug)]
    /// # struct Env;
    /// # impl AuthEnv for Env {
    /// #     fn now(&self) -> siphon_wire::types::Utime { Default::default() }
    /// #     fn fill(&self, bytes: &mut [u8]) { bytes.fill(7) }
    /// # }
    /// # let key = CryptoKey::generate(KeyType::AES, &Env)?;
    /// let client = CephxClient::new("client.admin".parse()?, key, Modes::default(), Arc::new(Env));
    /// let fork = client.fork();
    /// // … a session with a monitor is opened with the fork; it is the one to keep:
    /// client.adopt(&fork);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn fork(&self) -> Self {
        let Inner { name, key, modes, want, env, .. } = &*self.inner;
        Self {
            inner: Arc::new(Inner {
                name: name.clone(),
                key: key.clone(),
                modes: modes.clone(),
                want: *want,
                env: Arc::clone(env),
                tickets: Mutex::new(self.inner.tickets().clone()),
                challenge: Mutex::new(*self.inner.challenge()),
            }),
        }
    }

    /// Takes over what a [`fork`](Self::fork) got: its global id and its tickets.
    pub fn adopt(&self, fork: &Self) {
        let (tickets, challenge) = (fork.inner.tickets().clone(), *fork.inner.challenge());
        *self.inner.tickets() = tickets;
        *self.inner.challenge() = challenge;
    }

    /// Who we are.
    pub fn name(&self) -> &AuthName {
        &self.inner.name
    }

    /// The number that the monitors know us by; 0 before the first session.
    pub fn global_id(&self) -> u64 {
        self.inner.tickets().global_id
    }

    /// Whether there is a valid ticket for a kind of service.
    pub fn has_ticket(&self, service: EntityType) -> bool {
        let now = self.inner.env.now();
        self.inner.tickets().get(service).is_some_and(|ticket| ticket.is_valid(now))
    }

    /// The type of the session key that the monitors gave, once they did.
    pub fn session_key_type(&self) -> Option<KeyType> {
        Some(self.inner.tickets().get(EntityType::AUTH)?.session_key.kind())
    }

    /// When the next ticket should be renewed.
    pub fn renew_at(&self) -> Option<Utime> {
        self.inner.tickets().renew_at(self.inner.want)
    }

    /// The payload of an `MAuth` that asks a monitor for the tickets that are missing or due.
    ///
    /// # Errors
    /// If there was no session with a monitor yet.
    pub fn renewal(&self) -> Result<Option<Bytes>, AuthError> {
        let needed = {
            let tickets = self.inner.tickets();
            tickets.needed(self.inner.want, self.inner.env.now())
        };
        if needed == 0 {
            return Ok(None);
        }
        if needed & u32::from(EntityType::AUTH.0) != 0 {
            let challenge = *self.inner.challenge();
            let challenge = challenge.ok_or(CephxError::NoTicket(EntityType::AUTH))?;
            let held = self.inner.tickets().clone();
            return self.inner.authenticate(challenge, needed, &held).map(Some);
        }
        self.inner.ask_for_tickets(needed).map(Some)
    }

    /// The payload of an `MAuth` that asks a monitor for the rotating secrets of our kind, which
    /// daemons need to read the tickets of those who come to them.
    pub fn ask_for_rotating_secrets(&self) -> Bytes {
        RequestHeader { request_type: GET_ROTATING_KEY }.to_bytes(Features::ALL)
    }

    /// What a monitor answered (`MAuthReply`'s `result_bl`): new tickets, or rotating secrets.
    ///
    /// # Errors
    /// If it is not an answer to us.
    pub fn handle_reply(&self, payload: &Bytes) -> Result<Option<RotatingSecrets>, AuthError> {
        let mut dec = Decoder::new(payload);
        let header = ResponseHeader::decode(&mut dec).map_err(CephxError::from)?;
        if header.status < 0 {
            return Err(CephxError::Refused { errno: header.status }.into());
        }
        match header.request_type {
            GET_AUTH_SESSION_KEY => {
                let held = self.inner.tickets().clone();
                self.inner.take_session(&mut dec, &held, held.global_id, None)?;
                Ok(None)
            }
            GET_PRINCIPAL_SESSION_KEY => {
                let mut tickets = self.inner.tickets();
                let auth = tickets.get(EntityType::AUTH);
                let key = &auth.ok_or(CephxError::NoTicket(EntityType::AUTH))?.session_key;
                let taken =
                    tickets.read_reply(key, &mut dec, tickets.global_id, self.inner.env.now());
                let taken = taken.map_err(CephxError::Ticket)?;
                tickets.extend(taken);
                Ok(None)
            }
            GET_ROTATING_KEY => {
                let sealed = dec.bytes().map_err(CephxError::from)?;
                let secrets = open(&self.inner.key, KeyUsage::ROTATING_SECRET, &sealed);
                Ok(Some(secrets.map_err(CephxError::Ticket)?))
            }
            request_type => Err(CephxError::UnknownRequest { request_type }.into()),
        }
    }

    /// Opens authentication over msgr v1, where it goes by messages: the payload of the first
    /// `MAuth`, and the exchange that takes the answers to it and to those that follow.
    pub fn begin_by_messages(&self) -> (Bytes, Box<dyn ClientExchange>) {
        let exchange = MonExchange::new(&self.inner, PeerContext::new(EntityType::MON));
        let mut enc = Encoder::new(Features::ALL);
        enc.u8(1);
        enc.value(&vec![AuthMethod::CEPHX.0]);
        enc.value(&self.inner.name);
        enc.u64(exchange.held.global_id);
        (enc.finish(), Box::new(exchange))
    }
}

impl AuthClient for CephxClient {
    fn begin(&self, peer: PeerContext) -> Result<Box<dyn ClientExchange>, AuthError> {
        let by_key = peer.peer_type == EntityType::MON && self.inner.name.kind != EntityType::MON;
        if by_key {
            return Ok(Box::new(MonExchange::new(&self.inner, peer)));
        }
        self.begin_by_ticket(peer)
    }
}

impl Inner {
    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn challenge(&self) -> MutexGuard<'_, Option<u64>> {
        self.challenge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn modes(&self, peer: PeerContext) -> Vec<ConnectionMode> {
        self.modes.between(self.name.kind, peer.peer_type, AuthMethod::CEPHX)
    }

    /// The answer to a monitor's challenge; shows the ticket that came with a global id of `held`.
    fn authenticate(
        &self,
        server_challenge: u64,
        needed: u32,
        held: &Tickets,
    ) -> Result<Bytes, AuthError> {
        let client_challenge = self.env.random();
        let blob = ChallengeBlob { server_challenge, client_challenge };
        let key = answer(&self.key, &blob, &*self.env).map_err(CephxError::Key)?;
        let old_ticket = held.get(EntityType::AUTH).map(|ticket| ticket.blob.clone());
        let authenticate = Authenticate {
            client_challenge,
            key,
            old_ticket: old_ticket.unwrap_or_default(),
            other_keys: needed,
            is_legacy: false,
        };
        let mut enc = Encoder::new(Features::ALL);
        enc.value(&RequestHeader { request_type: GET_AUTH_SESSION_KEY });
        enc.value(&authenticate);
        Ok(enc.finish())
    }

    /// Asks for more tickets, by that for monitors' authentication.
    fn ask_for_tickets(&self, needed: u32) -> Result<Bytes, AuthError> {
        let tickets = self.tickets();
        let auth = tickets.get(EntityType::AUTH).ok_or(CephxError::NoTicket(EntityType::AUTH))?;
        let proof = Authorize { nonce: self.env.random(), challenge_plus_one: None };
        let mut enc = Encoder::new(Features::ALL);
        enc.value(&RequestHeader { request_type: GET_PRINCIPAL_SESSION_KEY });
        let authorizer = auth.authorizer(EntityType::AUTH, &proof, &*self.env);
        enc.raw(&authorizer.map_err(CephxError::Key)?.finish());
        enc.value(&ServiceTicketRequest { keys: needed });
        Ok(enc.finish())
    }

    /// The tickets that come with a session, and the secret of a connection in this mode. All of it is read before any
    /// of it counts: half of a reply would leave a ticket without its global id.
    fn take_session(
        &self,
        dec: &mut Decoder<'_>,
        held: &Tickets,
        global_id: u64,
        mode: Option<ConnectionMode>,
    ) -> Result<SessionKeys, AuthError> {
        let now = self.env.now();
        let mut taken =
            held.read_reply(&self.key, dec, global_id, now).map_err(CephxError::Session)?;
        let auth = taken.get(&EntityType::AUTH.0);
        let key = auth.ok_or(CephxError::NoTicket(EntityType::AUTH))?.session_key.clone();
        let mut connection_secret = Secret::default();
        if dec.remaining() > 0 {
            // From Nautilus on.
            let sealed = dec.bytes().map_err(CephxError::from)?;
            let extra = dec.bytes().map_err(CephxError::from)?;
            if !sealed.is_empty() {
                let sealed = Decoder::new(&sealed).bytes().map_err(CephxError::from)?;
                let secret: Bytes =
                    open(&key, KeyUsage::CONNECTION_SECRET, &sealed).map_err(CephxError::Ticket)?;
                connection_secret = secret.to_vec().into();
            }
            if !extra.is_empty() {
                let mut extra = Decoder::new(&extra);
                let more = held.read_reply(&key, &mut extra, global_id, now);
                taken.append(&mut more.map_err(CephxError::Ticket)?);
            }
        }
        let keys = SessionKeys { key, connection_secret };
        mode.map_or(Ok(()), |mode| keys.check(mode))?;
        let mut tickets = self.tickets();
        if tickets.global_id != global_id {
            *tickets = Tickets::of(global_id); // whoever we were, we are another now
        }
        tickets.extend(taken);
        Ok(keys)
    }
}

/// With a monitor: by the key.
///
/// Several may be under way at once, since whoever looks for a monitor asks several. Each goes on
/// from what was held when it began, whatever the others bring meanwhile.
#[derive(Debug)]
struct MonExchange {
    inner: Arc<Inner>,
    peer: PeerContext,
    /// The global id that it claims, and the tickets that came with it.
    held: Tickets,
    challenge: Option<u64>,
}

impl MonExchange {
    fn new(inner: &Arc<Inner>, peer: PeerContext) -> Self {
        let held = inner.tickets().clone();
        Self { inner: Arc::clone(inner), peer, held, challenge: None }
    }
}

impl ClientExchange for MonExchange {
    fn request(&mut self) -> Result<AuthRequest, AuthError> {
        let mut enc = Encoder::new(Features::ALL);
        enc.u8(MODE_MON);
        enc.value(&self.inner.name);
        enc.u64(self.held.global_id);
        Ok(AuthRequest {
            method: AuthMethod::CEPHX,
            preferred_modes: self.inner.modes(self.peer),
            payload: enc.finish(),
        })
    }

    fn bad_method(&mut self, refusal: BadMethod) -> Result<AuthRequest, AuthError> {
        if refusal.result == EACCES {
            // Perhaps it does not give the global id back: its ticket has ended for it, or it is
            // another cluster by now. The next attempt asks for a new one.
            self.inner.tickets().forget(self.held.global_id);
        }
        Err(AuthError::of_refusal(refusal))
    }

    fn reply_more(&mut self, payload: &Bytes) -> Result<Bytes, AuthError> {
        if self.challenge.is_some() {
            return Err(AuthError::UnexpectedStep { method: AuthMethod::CEPHX });
        }
        let challenge = ServerChallenge::from_bytes(payload).map_err(CephxError::from)?;
        let challenge = challenge.server_challenge;
        self.challenge = Some(challenge);
        self.inner.authenticate(challenge, self.inner.want, &self.held)
    }

    fn done(
        &mut self,
        global_id: u64,
        mode: ConnectionMode,
        payload: &Bytes,
    ) -> Result<Keys, AuthError> {
        if !self.inner.modes(self.peer).contains(&mode) {
            return Err(AuthError::ModeNotOffered { mode });
        }
        if self.challenge.is_none() {
            return Err(AuthError::UnexpectedStep { method: AuthMethod::CEPHX });
        }
        let mut dec = Decoder::new(payload);
        let header = ResponseHeader::decode(&mut dec).map_err(CephxError::from)?;
        if header.status < 0 {
            return Err(CephxError::Refused { errno: header.status }.into());
        }
        if header.request_type != GET_AUTH_SESSION_KEY {
            let request_type = header.request_type;
            return Err(CephxError::UnknownRequest { request_type }.into());
        }
        let keys = self.inner.take_session(&mut dec, &self.held, global_id, Some(mode))?;
        *self.inner.challenge() = self.challenge;
        Ok(Keys::Session(keys))
    }
}

/// With any other daemon: by a ticket.
#[derive(Debug)]
struct AuthorizerExchange {
    inner: Arc<Inner>,
    peer: PeerContext,
    ticket: Ticket,
    nonce: u64,
    challenges: u32,
}

impl AuthorizerExchange {
    fn authorizer(&self, challenge_plus_one: Option<u64>) -> Result<Bytes, AuthError> {
        let proof = Authorize { nonce: self.nonce, challenge_plus_one };
        let service = self.peer.peer_type;
        let authorizer = self.ticket.authorizer(service, &proof, &*self.inner.env);
        Ok(authorizer.map_err(CephxError::Key)?.finish())
    }
}

impl ClientExchange for AuthorizerExchange {
    fn request(&mut self) -> Result<AuthRequest, AuthError> {
        Ok(AuthRequest {
            method: AuthMethod::CEPHX,
            preferred_modes: self.inner.modes(self.peer),
            payload: self.authorizer(None)?,
        })
    }

    fn bad_method(&mut self, refusal: BadMethod) -> Result<AuthRequest, AuthError> {
        Err(AuthError::of_refusal(refusal))
    }

    fn reply_more(&mut self, payload: &Bytes) -> Result<Bytes, AuthError> {
        // Over msgr v1 a session may take several attempts, each of which may be challenged.
        self.challenges += 1;
        if self.challenges > MAX_CHALLENGES {
            return Err(AuthError::UnexpectedStep { method: AuthMethod::CEPHX });
        }
        let key = &self.ticket.session_key;
        let challenge: AuthorizeChallenge = open(key, KeyUsage::AUTHORIZE_CHALLENGE, payload)
            .map_err(|_| CephxError::ImpostorService)?;
        self.authorizer(Some(challenge.server_challenge.wrapping_add(1)))
    }

    fn done(
        &mut self,
        _global_id: u64,
        mode: ConnectionMode,
        payload: &Bytes,
    ) -> Result<Keys, AuthError> {
        if !self.inner.modes(self.peer).contains(&mode) {
            return Err(AuthError::ModeNotOffered { mode });
        }
        // Who can seal our own nonce, plus one, could read the ticket.
        let sealed = Decoder::new(payload).bytes().map_err(CephxError::from)?;
        let key = self.ticket.session_key.clone();
        let reply: AuthorizeReply = open(&key, KeyUsage::AUTHORIZE_REPLY, &sealed)
            .map_err(|_| CephxError::ImpostorService)?;
        if reply.nonce_plus_one != self.nonce.wrapping_add(1) {
            return Err(CephxError::ImpostorService.into());
        }
        let keys = SessionKeys { key, connection_secret: reply.connection_secret };
        keys.check(mode)?;
        Ok(Keys::Session(keys))
    }
}
