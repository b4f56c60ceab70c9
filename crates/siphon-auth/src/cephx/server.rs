use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use siphon_wire::types::{AuthName, EntityType, Features};
use siphon_wire::{Decode as _, DecodeError, Decoder, Encode as _, Encoder};

use super::envelope::{answer, open, seal};
use super::keyserver::{Grant, KeyServer, NoTicket};
use super::wire::{
    Authenticate, Authorize, AuthorizeChallenge, AuthorizeReply, AuthorizerHead, ChallengeBlob,
    GET_AUTH_SESSION_KEY, GET_PRINCIPAL_SESSION_KEY, GET_ROTATING_KEY, MODE_AUTHORIZER,
    MODE_AUTHORIZER_MAX, MODE_MON, MODE_MON_MAX, RequestHeader, ResponseHeader, SecretBytes,
    ServerChallenge, ServiceTicketInfo, ServiceTicketRequest, TicketBlob,
};
use crate::keys::CONNECTION_SECRET_LEN;
use crate::{
    AuthEnv, AuthMethod, AuthRequest, AuthServer, AuthServerAnswer, BadMethod, ConnectionMode,
    CryptoKey, Identity, KeyUsage, Keys, Modes, PeerContext, Secret, ServerExchange, SessionKeys,
};

const EPERM: i32 = -1;
const EACCES: i32 = -13;
const EINVAL: i32 = -22;
const EOPNOTSUPP: i32 = -95;

/// Finds the secret that a ticket is sealed with.
pub trait ServiceSecrets: fmt::Debug + Send + Sync {
    /// The secret of a kind of service, by its id.
    fn secret(&self, service: EntityType, secret_id: u64) -> Option<CryptoKey>;
}

/// The accepting side of cephx: a monitor's, which knows keys, or another daemon's, which can read
/// tickets.
///
/// A client that proves nothing is refused with Ceph's error, `EACCES`, whatever it lacks: neither
/// a wrong key nor an unknown name can be told from the other.
#[derive(Clone, Debug)]
pub struct CephxServer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    we: EntityType,
    modes: Modes,
    keys: Option<Arc<KeyServer>>,
    secrets: Arc<dyn ServiceSecrets>,
    env: Arc<dyn AuthEnv>,
}

impl CephxServer {
    /// A monitor's side.
    pub fn for_monitor(keys: Arc<KeyServer>, modes: Modes) -> Self {
        let (env, secrets) = (Arc::clone(&keys.env), Arc::clone(&keys));
        let we = EntityType::MON;
        Self { inner: Arc::new(Inner { we, modes, keys: Some(keys), secrets, env }) }
    }

    /// The side of a service of kind `we`.
    pub fn for_service(
        we: EntityType,
        secrets: Arc<dyn ServiceSecrets>,
        modes: Modes,
        env: Arc<dyn AuthEnv>,
    ) -> Self {
        Self { inner: Arc::new(Inner { we, modes, keys: None, secrets, env }) }
    }
}

impl AuthServer for CephxServer {
    fn begin(&self, peer: PeerContext) -> Box<dyn ServerExchange> {
        let inner = Arc::clone(&self.inner);
        Box::new(Exchange { inner, peer, mode: ConnectionMode::UNKNOWN, state: State::New })
    }
}

impl Inner {
    fn modes(&self, peer: PeerContext) -> Vec<ConnectionMode> {
        self.modes.between(self.we, peer.peer_type, AuthMethod::CEPHX)
    }

    fn connection_secret(&self, mode: ConnectionMode) -> Secret {
        let mut secret = Vec::new();
        if mode == ConnectionMode::SECURE {
            secret.resize(CONNECTION_SECRET_LEN, 0);
            self.env.fill(&mut secret);
        }
        secret.into()
    }
}

/// One peer that authenticates.
#[derive(Debug)]
struct Exchange {
    inner: Arc<Inner>,
    peer: PeerContext,
    mode: ConnectionMode,
    state: State,
}

#[derive(Debug)]
enum State {
    New,
    /// A client of monitors was sent a challenge.
    Challenged {
        name: AuthName,
        global_id: u64,
        is_new: bool,
        challenge: u64,
    },
    /// A peer with a ticket was sent one.
    TicketChallenged {
        challenge: u64,
    },
    /// It is known, and may ask for more tickets.
    Known {
        name: AuthName,
        global_id: u64,
        challenge: u64,
    },
    Refused,
}

impl ServerExchange for Exchange {
    fn request(&mut self, request: &AuthRequest) -> AuthServerAnswer {
        let method = request.method;
        if !matches!(self.state, State::New) {
            return self.refuse(method, EACCES);
        }
        if method != AuthMethod::CEPHX {
            return self.refuse(method, EOPNOTSUPP);
        }
        let (we, peer) = (self.inner.we, self.peer.peer_type);
        let Some(mode) = self.inner.modes.pick(we, peer, method, &request.preferred_modes) else {
            return self.refuse(method, EOPNOTSUPP);
        };
        self.mode = mode;
        let answer = match request.payload.first().copied() {
            Some(MODE_AUTHORIZER..=MODE_AUTHORIZER_MAX) => self.check_authorizer(&request.payload),
            Some(MODE_MON..=MODE_MON_MAX) => self.challenge(&request.payload),
            _ => Err(EACCES),
        };
        answer.unwrap_or_else(|errno| self.refuse(method, errno))
    }

    fn request_more(&mut self, payload: &Bytes) -> AuthServerAnswer {
        let answer = match &self.state {
            State::TicketChallenged { .. } => self.check_authorizer(payload),
            State::Challenged { .. } | State::Known { .. } => self.handle_request(payload),
            State::New | State::Refused => Err(EACCES),
        };
        answer.unwrap_or_else(|errno| self.refuse(AuthMethod::CEPHX, errno))
    }
}

impl Exchange {
    fn refuse(&mut self, method: AuthMethod, result: i32) -> AuthServerAnswer {
        if result != EOPNOTSUPP {
            self.state = State::Refused;
        }
        AuthServerAnswer::BadMethod(BadMethod {
            method,
            result,
            allowed_methods: vec![AuthMethod::CEPHX],
            allowed_modes: self.inner.modes(self.peer),
        })
    }

    /// A client that wants to prove that it has a key.
    fn challenge(&mut self, payload: &Bytes) -> Result<AuthServerAnswer, i32> {
        let keys = self.inner.keys.as_ref().ok_or(EACCES)?;
        let (name, claimed) = parse_hello(payload).map_err(|_| EACCES)?;
        let is_new = claimed == 0;
        let global_id = if is_new { keys.new_global_id() } else { claimed };
        let challenge = self.inner.env.random().max(1);
        self.state = State::Challenged { name, global_id, is_new, challenge };
        let challenge = ServerChallenge { server_challenge: challenge };
        Ok(AuthServerAnswer::More(challenge.to_bytes(Features::ALL)))
    }

    /// What a client of monitors asks for.
    fn handle_request(&mut self, payload: &Bytes) -> Result<AuthServerAnswer, i32> {
        let mut dec = Decoder::new(payload);
        let RequestHeader { request_type } = dec.value().map_err(|_| EPERM)?;
        match request_type {
            GET_AUTH_SESSION_KEY => self.open_session(&mut dec),
            GET_PRINCIPAL_SESSION_KEY => self.give_tickets(&mut dec),
            GET_ROTATING_KEY => self.give_secrets(),
            _ => Err(EINVAL),
        }
    }

    /// Checks what a client made of the challenge (`CephxServiceHandler::handle_request` of Ceph's
    /// `auth/cephx/CephxServiceHandler.cc`).
    fn open_session(&mut self, dec: &mut Decoder<'_>) -> Result<AuthServerAnswer, i32> {
        let (name, global_id, is_new, challenge) = match &self.state {
            State::Challenged { name, global_id, is_new, challenge } => {
                (name.clone(), *global_id, *is_new, *challenge)
            }
            // Once known, it may renew its session key under the same challenge.
            State::Known { name, global_id, challenge } => {
                (name.clone(), *global_id, false, *challenge)
            }
            _ => return Err(EACCES),
        };
        let keys = self.inner.keys.clone().ok_or(EACCES)?;
        let request: Authenticate = dec.value().map_err(|_| EPERM)?;
        let entity = keys.entity(&name).ok_or(EACCES)?;
        let challenges = ChallengeBlob {
            server_challenge: challenge,
            client_challenge: request.client_challenge,
        };
        let expected = answer(&entity.key, &challenges, &*self.inner.env).map_err(|_| EACCES)?;
        let given = Secret::from(request.key.to_le_bytes().to_vec());
        if given != Secret::from(expected.to_le_bytes().to_vec()) {
            return Err(EACCES);
        }
        let claim = (!is_new).then_some((&name, global_id));
        let old_key = self.check_old_ticket(&keys, &request, claim)?;
        if entity.caps.get("mon").is_none_or(String::is_empty) {
            return Err(EACCES);
        }

        let mut enc = Encoder::new(Features::ALL);
        enc.value(&ResponseHeader { request_type: GET_AUTH_SESSION_KEY, status: 0 });
        let key_type = entity.key.kind();
        let grant = Grant { name: &name, global_id, key_type, client_key: &entity.key };
        let session_key =
            self.put_tickets(&mut enc, &keys, &[EntityType::AUTH], &grant, old_key.as_ref())?;
        let connection_secret = self.inner.connection_secret(self.mode);
        if request.other_keys != 0 {
            let (env, usage) = (&*self.inner.env, KeyUsage::CONNECTION_SECRET);
            let sealed = seal(&session_key, usage, &SecretBytes(&connection_secret), env);
            let sealed = sealed.map_err(|_| EACCES)?;
            enc.length_prefixed(|enc| enc.value(&sealed));
            let grant = Grant { client_key: &session_key, ..grant };
            let mut extra = Encoder::new(Features::ALL);
            // Without any of them, the client is still known.
            let services = services(request.other_keys);
            let _ = self.put_tickets(&mut extra, &keys, &services, &grant, None);
            enc.value(&extra.finish());
        }
        let identity =
            Identity { name: name.clone(), caps: caps_text(&entity.caps, self.inner.we) };
        self.state = State::Known { name, global_id, challenge };
        Ok(AuthServerAnswer::Done {
            global_id,
            mode: self.mode,
            payload: enc.finish(),
            keys: Keys::Session(SessionKeys { key: session_key, connection_secret }),
            identity: Some(identity),
        })
    }

    /// Whoever wants a global id back shows the ticket that came with it (CVE-2021-20288), and that
    /// he himself got: tickets are seen by others on their way. Returns that ticket's session key,
    /// under which the new ticket goes.
    fn check_old_ticket(
        &self,
        keys: &KeyServer,
        request: &Authenticate,
        claim: Option<(&AuthName, u64)>,
    ) -> Result<Option<CryptoKey>, i32> {
        let Some(claim) = claim else {
            let has_ticket = !request.old_ticket.blob.is_empty();
            return if has_ticket { Err(EINVAL) } else { Ok(None) };
        };
        let old = self.read_ticket(EntityType::AUTH, &request.old_ticket);
        match old.filter(|old| (&old.ticket.name, old.ticket.global_id) == claim) {
            Some(old) => Ok(Some(old.session_key)),
            None if keys.options.allow_insecure_global_id_reclaim && request.is_legacy => Ok(None),
            None => Err(EACCES),
        }
    }

    /// More tickets, for one that shows the ticket for authentication.
    fn give_tickets(&mut self, dec: &mut Decoder<'_>) -> Result<AuthServerAnswer, i32> {
        let keys = self.inner.keys.clone().ok_or(EACCES)?;
        let head: AuthorizerHead = dec.value().map_err(|_| EPERM)?;
        // One error for whatever is wrong until the proof is there: by another, anybody could find
        // out which tickets open.
        let ticket = self.read_ticket(head.service, &head.ticket).ok_or(EACCES)?;
        let sealed = dec.bytes().map_err(|_| EACCES)?;
        let _: Authorize =
            open(&ticket.session_key, KeyUsage::AUTHORIZE, &sealed).map_err(|_| EACCES)?;
        if ticket.ticket.global_id != head.global_id || head.service != EntityType::AUTH {
            return Err(EACCES);
        }
        let ServiceTicketRequest { keys: wanted } = dec.value().map_err(|_| EPERM)?;
        let mut enc = Encoder::new(Features::ALL);
        enc.value(&ResponseHeader { request_type: GET_PRINCIPAL_SESSION_KEY, status: 0 });
        let grant = Grant {
            name: &ticket.ticket.name,
            global_id: ticket.ticket.global_id,
            key_type: ticket.session_key.kind(),
            client_key: &ticket.session_key,
        };
        self.put_tickets(&mut enc, &keys, &services(wanted), &grant, None)?;
        Ok(AuthServerAnswer::More(enc.finish()))
    }

    fn give_secrets(&mut self) -> Result<AuthServerAnswer, i32> {
        let (State::Known { name, .. }, Some(keys)) = (&self.state, &self.inner.keys) else {
            return Err(EACCES);
        };
        let sealed = keys.sealed_rotating_secrets(name).ok_or(EACCES)?;
        let mut enc = Encoder::new(Features::ALL);
        enc.value(&ResponseHeader { request_type: GET_ROTATING_KEY, status: 0 });
        enc.value(&sealed);
        Ok(AuthServerAnswer::More(enc.finish()))
    }

    /// Appends a reply with tickets, of which there has to be one; returns the session key of the
    /// last.
    fn put_tickets(
        &self,
        enc: &mut Encoder,
        keys: &KeyServer,
        services: &[EntityType],
        grant: &Grant<'_>,
        old_key: Option<&CryptoKey>,
    ) -> Result<CryptoKey, i32> {
        let mut made = Vec::with_capacity(services.len());
        for service in services {
            match keys.ticket(*service, grant) {
                Ok(ticket) => made.push((*service, ticket)),
                // Clients may know services that we do not.
                Err(NoTicket::Service) => {}
                Err(NoTicket::Entity | NoTicket::Key(_)) => return Err(EACCES),
            }
        }
        if made.is_empty() {
            return Err(EACCES);
        }
        enc.u8(1);
        enc.count(made.len());
        let mut last = None;
        for (service, (session_key, for_client, ticket)) in made {
            enc.u32(u32::from(service.0));
            enc.u8(1);
            enc.value(&for_client);
            let ticket = ticket.to_bytes(Features::ALL);
            enc.bool(old_key.is_some());
            match old_key {
                Some(key) => {
                    let sealed = seal(key, KeyUsage::TICKET_BLOB, &ticket, &*self.inner.env);
                    enc.value(&sealed.map_err(|_| EACCES)?);
                }
                None => enc.value(&ticket),
            }
            last = Some(session_key);
        }
        last.ok_or(EACCES)
    }

    /// What a ticket holds, if it was made with a secret that we know and has not ended.
    fn read_ticket(&self, service: EntityType, ticket: &TicketBlob) -> Option<ServiceTicketInfo> {
        let secret = self.inner.secrets.secret(service, ticket.secret_id)?;
        let info: ServiceTicketInfo = open(&secret, KeyUsage::TICKET_INFO, &ticket.blob).ok()?;
        (self.inner.env.now() < info.ticket.expires).then_some(info)
    }

    /// A peer that shows a ticket (`cephx_verify_authorizer` of Ceph's
    /// `auth/cephx/CephxProtocol.cc`): first it is challenged, so that what somebody recorded is
    /// worth nothing (CVE-2018-1128).
    fn check_authorizer(&mut self, payload: &Bytes) -> Result<AuthServerAnswer, i32> {
        let mut dec = Decoder::new(payload);
        let head: AuthorizerHead = dec.value().map_err(|_| EACCES)?;
        if head.service != self.inner.we {
            return Err(EACCES);
        }
        let ServiceTicketInfo { ticket, session_key } =
            self.read_ticket(head.service, &head.ticket).ok_or(EACCES)?;
        let sealed = dec.bytes().map_err(|_| EACCES)?;
        let proof: Authorize =
            open(&session_key, KeyUsage::AUTHORIZE, &sealed).map_err(|_| EACCES)?;
        if ticket.global_id != head.global_id {
            return Err(EACCES);
        }
        // Whoever is no monitor shows monitors its key, so that they see whether it still has one.
        if self.inner.keys.is_some() && ticket.name.kind != EntityType::MON {
            return Err(EACCES);
        }
        let env = Arc::clone(&self.inner.env);
        let State::TicketChallenged { challenge } = self.state else {
            let server_challenge = env.random();
            self.state = State::TicketChallenged { challenge: server_challenge };
            let challenge = AuthorizeChallenge { server_challenge };
            let sealed = seal(&session_key, KeyUsage::AUTHORIZE_CHALLENGE, &challenge, &*env);
            return Ok(AuthServerAnswer::More(sealed.map_err(|_| EACCES)?));
        };
        if proof.challenge_plus_one != Some(challenge.wrapping_add(1)) {
            return Err(EACCES);
        }
        let connection_secret = self.inner.connection_secret(self.mode);
        let reply = AuthorizeReply {
            nonce_plus_one: proof.nonce.wrapping_add(1),
            connection_secret: connection_secret.clone(),
        };
        let sealed = seal(&session_key, KeyUsage::AUTHORIZE_REPLY, &reply, &*env);
        let mut enc = Encoder::new(Features::ALL);
        enc.value(&sealed.map_err(|_| EACCES)?);
        self.state = State::Refused; // nothing is to come
        Ok(AuthServerAnswer::Done {
            global_id: ticket.global_id,
            mode: self.mode,
            payload: enc.finish(),
            keys: Keys::Session(SessionKeys { key: session_key, connection_secret }),
            identity: Some(Identity { name: ticket.name, caps: decode_caps(&ticket.caps.caps) }),
        })
    }
}

/// What a client of monitors says first: its name, and the global id that it had.
fn parse_hello(payload: &Bytes) -> Result<(AuthName, u64), DecodeError> {
    let mut dec = Decoder::new(payload);
    let _mode = dec.u8()?;
    Ok((dec.value()?, dec.u64()?))
}

/// The services whose bits are set; not authentication itself, whose ticket goes first.
fn services(bits: u32) -> Vec<EntityType> {
    let kinds = (0..8u8).map(|shift| 1 << shift).filter(|bit| bits & u32::from(*bit) != 0);
    kinds.map(EntityType).filter(|kind| *kind != EntityType::AUTH).collect()
}

fn caps_text(caps: &crate::Caps, service: EntityType) -> String {
    caps.get(&service.to_string()).cloned().unwrap_or_default()
}

fn decode_caps(caps: &Bytes) -> String {
    String::from_bytes(caps).unwrap_or_default()
}
