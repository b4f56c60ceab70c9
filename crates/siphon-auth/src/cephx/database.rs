//! The keys of a cluster as monitors keep and replicate them (`auth/cephx/CephxKeyServer.h` and
//! `mon/AuthMonitor.h` of Ceph).

use std::collections::BTreeMap;

use bytes::Bytes;
use siphon_wire::types::AuthName;
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

use super::wire::{RotatingSecrets, StoredAuth};

/// All keys (`KeyServerData`, and `KeyServer`, which is the same).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyServerData {
    /// Of the entities' keys.
    pub version: u64,
    /// Of the services' secrets.
    pub rotating_version: u64,
    /// By entity.
    pub secrets: BTreeMap<AuthName, StoredAuth>,
    /// By service (`CEPH_ENTITY_TYPE_*`).
    pub rotating_secrets: BTreeMap<u32, RotatingSecrets>,
}

impl Encode for KeyServerData {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(1);
        enc.u64(self.version);
        enc.u64(self.rotating_version);
        enc.value(&self.secrets);
        enc.value(&self.rotating_secrets);
    }
}

impl Decode for KeyServerData {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("KeyServerData", |dec| {
            let _version = dec.u8()?;
            let (version, rotating_version) = (dec.u64()?, dec.u64()?);
            let (secrets, rotating_secrets) = (dec.value()?, dec.value()?);
            Ok(Self { version, rotating_version, secrets, rotating_secrets })
        })
    }
}

/// A change of keys (`KeyServerData::Incremental`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyServerChange {
    /// None.
    Nothing(AuthName, StoredAuth),
    /// An entity has this key from now on.
    Add(AuthName, StoredAuth),
    /// An entity is no more.
    Remove(AuthName, StoredAuth),
    /// The services have other secrets: [`RotatingSecrets`] by service, encoded.
    SetRotating(Bytes),
}

impl Encode for KeyServerChange {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(1);
        let (operation, name, auth) = match self {
            Self::Nothing(name, auth) => (0, name, auth),
            Self::Add(name, auth) => (1, name, auth),
            Self::Remove(name, auth) => (2, name, auth),
            Self::SetRotating(secrets) => {
                enc.u32(3);
                return enc.value(secrets);
            }
        };
        enc.u32(operation);
        enc.value(name);
        enc.value(auth);
    }
}

impl Decode for KeyServerChange {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("KeyServerData::Incremental", |dec| {
            let _version = dec.u8()?;
            Ok(match dec.u32()? {
                0 => Self::Nothing(dec.value()?, dec.value()?),
                1 => Self::Add(dec.value()?, dec.value()?),
                2 => Self::Remove(dec.value()?, dec.value()?),
                3 => Self::SetRotating(dec.value()?),
                other => return Err(dec.invalid("an operation from 0 to 3", u64::from(other))),
            })
        })
    }
}

/// A change that monitors agree on (`AuthMonitor::Incremental`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthChange {
    /// Global ids up to this one may be given.
    GlobalId(u64),
    /// Of a method's data: of cephx (2) a [`KeyServerChange`], encoded.
    Data {
        /// `CEPH_AUTH_*`.
        method: u32,
        /// The change.
        data: Bytes,
    },
}

impl Encode for AuthChange {
    fn encode(&self, enc: &mut Encoder) {
        enc.versioned(2, 2, |enc| match self {
            Self::GlobalId(max) => {
                enc.u32(0);
                enc.u64(*max);
            }
            Self::Data { method, data } => {
                enc.u32(1);
                enc.u32(*method);
                enc.value(data);
            }
        });
    }
}

impl Decode for AuthChange {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("AuthMonitor::Incremental", 2, |dec, _| {
            Ok(match dec.u32()? {
                0 => Self::GlobalId(dec.u64()?),
                1 => Self::Data { method: dec.u32()?, data: dec.value()? },
                other => return Err(dec.invalid("a kind of 0 or 1", u64::from(other))),
            })
        })
    }
}
