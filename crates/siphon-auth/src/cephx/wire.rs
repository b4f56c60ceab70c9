//! The structures of cephx, as Ceph's `auth/cephx/CephxProtocol.h` and `auth/Auth.h` have them: most
//! begin with a version byte of their own, without a length.

use std::collections::BTreeMap;

use bytes::Bytes;
use siphon_wire::types::{AuthName, ByteString, EntityType, Utime};
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

use crate::{CryptoKey, Secret};

/// `CEPHX_GET_AUTH_SESSION_KEY`.
pub const GET_AUTH_SESSION_KEY: u16 = 0x0100;
/// `CEPHX_GET_PRINCIPAL_SESSION_KEY`.
pub const GET_PRINCIPAL_SESSION_KEY: u16 = 0x0200;
/// `CEPHX_GET_ROTATING_KEY`.
pub const GET_ROTATING_KEY: u16 = 0x0400;

/// `AUTH_MODE_AUTHORIZER`: the version of an authorizer, and the first byte of an AUTH_REQUEST that
/// carries one.
pub const MODE_AUTHORIZER: u8 = 1;
/// `AUTH_MODE_AUTHORIZER_MAX`.
pub const MODE_AUTHORIZER_MAX: u8 = 9;
/// `AUTH_MODE_MON`: the first byte of an AUTH_REQUEST to a monitor.
pub const MODE_MON: u8 = 10;
/// `AUTH_MODE_MON_MAX`.
pub const MODE_MON_MAX: u8 = 19;

/// `CEPH_AUTH_UID_DEFAULT`, where there once was a number of the user.
const OLD_AUID: u64 = u64::MAX;

/// Structs that are their fields in order, behind a version byte if one is given.
macro_rules! structs {
    ($($(#[$meta:meta])* $name:ident $ceph:literal $(v $version:literal)? {
        $($(#[$field_meta:meta])* $field:ident: $ty:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl Encode for $name {
            fn encode(&self, enc: &mut Encoder) {
                $(enc.u8($version);)?
                $(enc.value(&self.$field);)*
            }
        }

        impl Decode for $name {
            fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                dec.typed($ceph, |dec| {
                    $(let _: u8 = { let _ = $version; dec.u8()? };)?
                    Ok(Self { $($field: dec.value()?,)* })
                })
            }
        }
    )*};
}

structs! {
    /// A monitor's first word: what the client has to seal.
    ServerChallenge "CephXServerChallenge" v 1 {
        /// A random number.
        server_challenge: u64,
    }

    /// What a request is for.
    RequestHeader "CephXRequestHeader" {
        /// `GET_*`.
        request_type: u16,
    }

    /// What a response answers.
    ResponseHeader "CephXResponseHeader" {
        /// `GET_*`.
        request_type: u16,
        /// 0, or a negative errno.
        status: i32,
    }

    /// A ticket, which only the service can read.
    TicketBlob "CephXTicketBlob" v 1 {
        /// Which of the service's rotating secrets it is sealed with.
        secret_id: u64,
        /// A sealed [`ServiceTicketInfo`].
        blob: Bytes,
    }

    /// Both challenges, to be sealed with the client's key.
    ChallengeBlob "CephXChallengeBlob" {
        /// The monitor's.
        server_challenge: u64,
        /// The client's.
        client_challenge: u64,
    }

    /// What a client wants tickets for.
    ServiceTicketRequest "CephXServiceTicketRequest" v 1 {
        /// Kinds of services, as bits.
        keys: u32,
    }

    /// A ticket's session key, for whoever asked for it.
    ServiceTicket "CephXServiceTicket" v 1 {
        /// Known to the client and the service.
        session_key: CryptoKey,
        /// How long the ticket is good for.
        validity: Utime,
    }

    /// What a ticket holds, for the service.
    ServiceTicketInfo "CephXServiceTicketInfo" v 1 {
        /// Who has it.
        ticket: AuthTicket,
        /// Known to the client and the service.
        session_key: CryptoKey,
    }

    /// A service's challenge to an authorizer.
    AuthorizeChallenge "CephXAuthorizeChallenge" v 1 {
        /// A random number.
        server_challenge: u64,
    }

    /// One of a service's secrets.
    ExpiringCryptoKey "ExpiringCryptoKey" v 1 {
        /// The secret.
        key: CryptoKey,
        /// Until when it is used.
        expiration: Utime,
    }

    /// A service's secrets, by their ids: the previous, the current and the next.
    RotatingSecrets "RotatingSecrets" v 1 {
        /// By id, which counts up.
        secrets: BTreeMap<u64, ExpiringCryptoKey>,
        /// The newest id.
        max_ver: u64,
    }
}

/// Capabilities, as a ticket carries them to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthCaps {
    /// Everything is allowed.
    pub allow_all: bool,
    /// An encoded string, which the service's grammar reads; or nothing.
    pub caps: Bytes,
}

impl Encode for AuthCaps {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(1);
        enc.bool(self.allow_all);
        enc.value(&self.caps);
    }
}

impl Decode for AuthCaps {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("AuthCapsInfo", |dec| {
            let _version = dec.u8()?;
            Ok(Self { allow_all: dec.u8()? != 0, caps: dec.value()? })
        })
    }
}

/// Who has a ticket, and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthTicket {
    /// Its name.
    pub name: AuthName,
    /// Its global id.
    pub global_id: u64,
    /// When the ticket was made.
    pub created: Utime,
    /// When it ends.
    pub expires: Utime,
    /// What it allows.
    pub caps: AuthCaps,
    /// Unused.
    pub flags: u32,
}

impl Encode for AuthTicket {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(2);
        enc.value(&self.name);
        enc.u64(self.global_id);
        enc.u64(OLD_AUID);
        enc.value(&self.created);
        enc.value(&self.expires);
        enc.value(&self.caps);
        enc.u32(self.flags);
    }
}

impl Decode for AuthTicket {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("AuthTicket", |dec| {
            let version = dec.u8()?;
            let (name, global_id) = (dec.value()?, dec.u64()?);
            if version >= 2 {
                let _auid = dec.u64()?;
            }
            Ok(Self {
                name,
                global_id,
                created: dec.value()?,
                expires: dec.value()?,
                caps: dec.value()?,
                flags: dec.u32()?,
            })
        })
    }
}

/// A client's answer to a monitor's challenge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authenticate {
    /// The client's own challenge.
    pub client_challenge: u64,
    /// Both challenges under the client's key, folded.
    pub key: u64,
    /// The ticket that the client had, if it wants its global id back.
    pub old_ticket: TicketBlob,
    /// Services that it wants tickets for, as bits.
    pub other_keys: u32,
    /// From clients that may not know that they owe an old ticket (before Pacific: struct version
    /// below 3).
    pub is_legacy: bool,
}

impl Encode for Authenticate {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(if self.is_legacy { 2 } else { 3 });
        enc.u64(self.client_challenge);
        enc.u64(self.key);
        enc.value(&self.old_ticket);
        enc.u32(self.other_keys);
    }
}

impl Decode for Authenticate {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("CephXAuthenticate", |dec| {
            let version = dec.u8()?;
            Ok(Self {
                client_challenge: dec.u64()?,
                key: dec.u64()?,
                old_ticket: dec.value()?,
                other_keys: if version >= 2 { dec.u32()? } else { 0 },
                is_legacy: version < 3,
            })
        })
    }
}

/// The sealed part of an authorizer: the proof that the client has the session key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorize {
    /// A random number.
    pub nonce: u64,
    /// The service's challenge plus one, once it has sent one.
    pub challenge_plus_one: Option<u64>,
}

impl Encode for Authorize {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(2);
        enc.u64(self.nonce);
        enc.bool(self.challenge_plus_one.is_some());
        enc.u64(self.challenge_plus_one.unwrap_or(0));
    }
}

impl Decode for Authorize {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("CephXAuthorize", |dec| {
            let version = dec.u8()?;
            let nonce = dec.u64()?;
            let (challenged, plus_one) =
                if version >= 2 { (dec.bool()?, dec.u64()?) } else { (false, 0) };
            Ok(Self { nonce, challenge_plus_one: challenged.then_some(plus_one) })
        })
    }
}

/// A service's proof that it could read the ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizeReply {
    /// The client's nonce plus one.
    pub nonce_plus_one: u64,
    /// What frames are sealed with; empty in crc mode.
    pub connection_secret: Secret,
}

impl Encode for AuthorizeReply {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(if self.connection_secret.is_empty() { 1 } else { 2 });
        enc.u64(self.nonce_plus_one);
        if !self.connection_secret.is_empty() {
            enc.bytes(self.connection_secret.expose());
        }
    }
}

impl Decode for AuthorizeReply {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("CephXAuthorizeReply", |dec| {
            let version = dec.u8()?;
            let nonce_plus_one = dec.u64()?;
            let secret = if version >= 2 { dec.bytes()?.to_vec() } else { Vec::new() };
            Ok(Self { nonce_plus_one, connection_secret: secret.into() })
        })
    }
}

/// A secret behind its length, without a copy that nobody wipes.
pub(super) struct SecretBytes<'a>(pub(super) &'a Secret);

impl Encode for SecretBytes<'_> {
    fn encode(&self, enc: &mut Encoder) {
        enc.bytes(self.0.expose());
    }
}

/// The clear part of an authorizer, behind which an [`Authorize`] is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizerHead {
    /// Whose ticket it is.
    pub global_id: u64,
    /// For which kind of service.
    pub service: EntityType,
    /// The ticket.
    pub ticket: TicketBlob,
}

impl Encode for AuthorizerHead {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(MODE_AUTHORIZER);
        enc.u64(self.global_id);
        enc.u32(u32::from(self.service.0));
        enc.value(&self.ticket);
    }
}

impl Decode for AuthorizerHead {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("CephXAuthorizer", |dec| {
            let _version = dec.u8()?;
            let global_id = dec.u64()?;
            Ok(Self { global_id, service: take_service(dec)?, ticket: dec.value()? })
        })
    }
}

/// A kind of service, in 32 bits.
pub(super) fn take_service(dec: &mut Decoder<'_>) -> Result<EntityType, DecodeError> {
    let service = dec.u32()?;
    let small = u8::try_from(service);
    small.map(EntityType).map_err(|_| dec.invalid("a service below 256", u64::from(service)))
}

/// A key with capabilities, as monitors keep it (`EntityAuth`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredAuth {
    /// The key.
    pub key: CryptoKey,
    /// By service, each an encoded string.
    pub caps: BTreeMap<ByteString, Bytes>,
    /// The key that takes over when it is first used (from Reef on).
    pub pending_key: CryptoKey,
}

impl Encode for StoredAuth {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(3);
        enc.u64(OLD_AUID);
        enc.value(&self.key);
        enc.value(&self.caps);
        enc.value(&self.pending_key);
    }
}

impl Decode for StoredAuth {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("EntityAuth", |dec| {
            let version = dec.u8()?;
            if version >= 2 {
                let _auid = dec.u64()?;
            }
            let (key, caps) = (dec.value()?, dec.value()?);
            let pending_key = if version >= 3 { dec.value()? } else { CryptoKey::default() };
            Ok(Self { key, caps, pending_key })
        })
    }
}
