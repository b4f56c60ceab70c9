//! Authentication by messages, `MAuth` and `MAuthReply`: all of it over msgr v1, where monitors let
//! their clients in first, and the renewal of tickets over either protocol
//! (`AuthMonitor::prep_auth` of Ceph's `mon/AuthMonitor.cc`).

use bytes::Bytes;
use siphon_wire::types::{AuthName, EntityType, Features};
use siphon_wire::{Decode as _, DecodeError, Decoder, Encoder};

use crate::{
    AuthMethod, AuthRequest, AuthServer, AuthServerAnswer, ConnectionMode, Identity, NoneHello,
    PeerContext, ServerExchange,
};

const EINVAL: i32 = -22;
const EOPNOTSUPP: i32 = -95;
/// What an `MAuth` names that offers methods in place of naming one.
const OFFER: AuthMethod = AuthMethod(0);

/// What an `MAuthReply` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageAnswer {
    /// The method in use.
    pub method: AuthMethod,
    /// 0, or Ceph's (Linux's) errno, negative.
    pub result: i32,
    /// The client's number; 0 before it has one.
    pub global_id: u64,
    /// The method's own bytes.
    pub payload: Bytes,
    /// Who the client is, in the answer that lets it in.
    pub identity: Option<Identity>,
}

/// A monitor's side with one client, for as long as its session lasts.
///
/// ```
/// use siphon_auth::{AuthMethod, AuthNone, MessageExchange};
/// use siphon_wire::types::{EntityName, EntityType};
///
/// let server = AuthNone::new(EntityName::mon(0), "a");
/// let mut exchange = MessageExchange::new(&server, EntityType::CLIENT);
/// // The payload of an MAuth: version, methods, name, global id.
/// let mut payload = vec![1, 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0];
/// payload.extend_from_slice(b"admin");
/// payload.extend_from_slice(&[0; 8]);
/// let answer = exchange.handle(AuthMethod(0), &payload.into());
/// assert_eq!((answer.method, answer.result), (AuthMethod::NONE, 0));
/// ```
#[derive(Debug)]
pub struct MessageExchange {
    exchange: Box<dyn ServerExchange>,
    /// What was agreed on; none before the client has offered anything.
    method: Option<AuthMethod>,
}

impl MessageExchange {
    /// With a client that was let in over msgr v1 and has not said who it is.
    pub fn new(server: &dyn AuthServer, peer_type: EntityType) -> Self {
        let exchange = server.begin(PeerContext::new(peer_type));
        Self { exchange, method: None }
    }

    /// With a client that authenticated by `exchange` over msgr v2.
    pub fn with_known(exchange: Box<dyn ServerExchange>) -> Self {
        Self { exchange, method: Some(AuthMethod::CEPHX) }
    }

    /// Answers an `MAuth`: its `protocol`, and its `auth_payload`.
    pub fn handle(&mut self, protocol: AuthMethod, payload: &Bytes) -> MessageAnswer {
        let answer = match self.method {
            Some(_) => Ok(self.exchange.request_more(payload)),
            None if protocol == OFFER => self.begin(payload),
            None => Err(EINVAL),
        };
        let mut reply = MessageAnswer {
            method: self.method.unwrap_or(OFFER),
            result: 0,
            global_id: self.exchange.global_id(),
            payload: Bytes::new(),
            identity: None,
        };
        match answer {
            Ok(AuthServerAnswer::More(payload)) => reply.payload = payload,
            Ok(AuthServerAnswer::Done { global_id, payload, identity, .. }) => {
                reply = MessageAnswer { global_id, payload, identity, ..reply };
            }
            Ok(AuthServerAnswer::BadMethod(refusal)) => reply.result = refusal.result,
            Err(errno) => reply.result = errno,
        }
        reply
    }

    /// The best of what the client offers, as if it had asked for that over msgr v2.
    fn begin(&mut self, payload: &Bytes) -> Result<AuthServerAnswer, i32> {
        let Offer { methods, name, global_id } = Offer::parse(payload).map_err(|_| EINVAL)?;
        let mut hello = Encoder::new(Features::ALL);
        hello.u8(NoneHello::MON);
        hello.value(&name);
        hello.u64(global_id);
        let hello = hello.finish();
        for method in [AuthMethod::CEPHX, AuthMethod::NONE] {
            if !methods.contains(&method.0) {
                continue;
            }
            let preferred_modes = vec![ConnectionMode::CRC]; // msgr v1 has no other
            let request = AuthRequest { method, preferred_modes, payload: hello.clone() };
            match self.exchange.request(&request) {
                AuthServerAnswer::BadMethod(refusal) if refusal.result == EOPNOTSUPP => {}
                answer => {
                    self.method = Some(method);
                    return Ok(answer);
                }
            }
        }
        Err(EOPNOTSUPP)
    }
}

/// What a client says first.
struct Offer {
    methods: Vec<u32>,
    name: AuthName,
    /// The number that it had, 0 for none.
    global_id: u64,
}

impl Offer {
    fn parse(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut dec = Decoder::new(payload);
        let _version = dec.u8()?;
        Ok(Self { methods: Vec::decode(&mut dec)?, name: dec.value()?, global_id: dec.u64()? })
    }
}
