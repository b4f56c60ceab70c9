use std::collections::BTreeMap;

use siphon_wire::types::{EntityType, Features, Utime};
use siphon_wire::{Decode as _, Decoder, Encoder};

use super::envelope::{SealError, open, seal};
use super::wire::{Authorize, AuthorizerHead, ServiceTicket, TicketBlob, take_service};
use crate::{AuthEnv, CryptoKey, KeyError, KeyUsage};

/// Most tickets in one reply: there are eight kinds of services.
const MAX_TICKETS: u32 = 32;

/// Leave to use a service for a while.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    /// Whose it is.
    global_id: u64,
    pub(super) session_key: CryptoKey,
    pub(super) blob: TicketBlob,
    /// When to ask for another; never, if it is for ever.
    renew_after: Option<Utime>,
    expires: Option<Utime>,
}

impl Ticket {
    pub(super) fn endless(session_key: CryptoKey, blob: TicketBlob) -> Self {
        Self { global_id: 0, session_key, blob, renew_after: None, expires: None }
    }

    pub(super) fn is_valid(&self, now: Utime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    fn is_due(&self, now: Utime) -> bool {
        self.renew_after.is_some_and(|renew_after| renew_after <= now)
    }

    /// An authorizer.
    pub(super) fn authorizer(
        &self,
        service: EntityType,
        proof: &Authorize,
        env: &dyn AuthEnv,
    ) -> Result<Encoder, KeyError> {
        let ticket = self.blob.clone();
        let mut enc = Encoder::new(Features::ALL);
        enc.value(&AuthorizerHead { global_id: self.global_id, service, ticket });
        enc.value(&seal(&self.session_key, KeyUsage::AUTHORIZE, proof, env)?);
        Ok(enc)
    }
}

/// A client's tickets, by service.
#[derive(Clone, Debug, Default)]
pub(super) struct Tickets {
    /// The number that the monitors gave us, whose ticket is that for authentication; 0 if none did.
    pub(super) global_id: u64,
    by_service: BTreeMap<u8, Ticket>,
}

impl Tickets {
    /// None yet, for that global id.
    pub(super) fn of(global_id: u64) -> Self {
        Self { global_id, by_service: BTreeMap::new() }
    }

    pub(super) fn get(&self, service: EntityType) -> Option<&Ticket> {
        self.by_service.get(&service.0)
    }

    pub(super) fn insert(&mut self, service: EntityType, ticket: Ticket) {
        self.by_service.insert(service.0, ticket);
    }

    pub(super) fn extend(&mut self, tickets: BTreeMap<u8, Ticket>) {
        self.by_service.extend(tickets);
    }

    /// Gives up a global id, if it is still ours, and its ticket. Services take theirs until they
    /// end.
    pub(super) fn forget(&mut self, global_id: u64) {
        if self.global_id == global_id {
            self.global_id = 0;
            self.by_service.remove(&EntityType::AUTH.0);
        }
    }

    /// Of the services in `want`, those whose tickets are missing or should be renewed.
    pub(super) fn needed(&self, want: u32, now: Utime) -> u32 {
        let needs = |bit: u32| {
            let ticket = u8::try_from(bit).ok().and_then(|kind| self.by_service.get(&kind));
            ticket.is_none_or(|ticket| ticket.is_due(now) || !ticket.is_valid(now))
        };
        (0..8).map(|shift| 1 << shift).filter(|bit| want & bit != 0 && needs(*bit)).sum()
    }

    /// When the first of the tickets in `want` should be renewed.
    pub(super) fn renew_at(&self, want: u32) -> Option<Utime> {
        let wanted = self.by_service.iter().filter(|(kind, _)| want & u32::from(**kind) != 0);
        wanted.filter_map(|(_, ticket)| ticket.renew_after).min()
    }

    /// The tickets of a reply, which are sealed with `key`, and some for a second time with the
    /// session keys of those that they replace.
    pub(super) fn read_reply(
        &self,
        key: &CryptoKey,
        dec: &mut Decoder<'_>,
        global_id: u64,
        now: Utime,
    ) -> Result<BTreeMap<u8, Ticket>, SealError> {
        let _version = dec.u8()?;
        let count = dec.u32()?;
        if count > MAX_TICKETS {
            return Err(dec.invalid("at most 32 tickets", u64::from(count)).into());
        }
        let mut taken = BTreeMap::new();
        for _ in 0..count {
            let service = take_service(dec)?;
            let _version = dec.u8()?;
            let grant: ServiceTicket = open(key, KeyUsage::TICKET_SESSION_KEY, &dec.bytes()?)?;
            let is_sealed = dec.u8()? != 0;
            let mut blob = dec.bytes()?;
            if is_sealed {
                // In place of an older one, under the session key of that.
                let old = self.get(service).ok_or(KeyError::Damaged)?;
                blob = open(&old.session_key, KeyUsage::TICKET_BLOB, &blob)?;
            }
            let blob = TicketBlob::decode(&mut Decoder::new(&blob))?;
            let ServiceTicket { session_key, validity } = grant;
            let limited = !validity.is_zero();
            // A quarter of its time before it ends, as Ceph's clients do.
            let margin = validity.sec / 4;
            let expires = Utime::new(now.sec.saturating_add(validity.sec), now.nsec);
            let renew_after = Utime::new(expires.sec.saturating_sub(margin), now.nsec);
            let ticket = Ticket {
                global_id,
                session_key,
                blob,
                renew_after: limited.then_some(renew_after),
                expires: limited.then_some(expires),
            };
            taken.insert(service.0, ticket);
        }
        Ok(taken)
    }
}
