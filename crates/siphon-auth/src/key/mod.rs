//! Keys: what is secret between two parties, and what they do with it.

mod aes;
mod aes256k;

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use siphon_wire::types::{Features, Utime};
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{AuthEnv, Secret};

/// A kind of key, by its wire number (`CEPH_CRYPTO_*` of Ceph's `include/ceph_fs.h`). The stronger
/// kind has the higher number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyType(pub u16);

impl KeyType {
    /// No key.
    pub const NONE: Self = Self(0);
    /// AES-128-CBC with a fixed start, without a proof of integrity: all that there was before
    /// 19.2.6 and 20.2.4.
    pub const AES: Self = Self(1);
    /// AES256-CTS-HMAC-SHA384-192 of RFC 8009 (CVE-2025-30156).
    pub const AES256K: Self = Self(2);

    /// Whether what is sealed cannot be changed unnoticed.
    pub(crate) const fn proves_integrity(self) -> bool {
        self.0 == Self::AES256K.0
    }

    /// Bytes of its secrets.
    const fn secret_len(self) -> Option<usize> {
        match self {
            Self::AES => Some(aes::KEY_LEN),
            Self::AES256K => Some(aes256k::KEY_LEN),
            _ => None,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.write_str("none"),
            Self::AES => f.write_str("aes"),
            Self::AES256K => f.write_str("aes256k"),
            Self(other) => write!(f, "key type {other}"),
        }
    }
}

impl FromStr for KeyType {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        match text {
            "aes" => Ok(Self::AES),
            "aes256k" => Ok(Self::AES256K),
            _ => Err(KeyError::NoSuchType),
        }
    }
}

/// What is sealed with a key: `aes256k` derives other keys for each use (`CEPHX_KEY_USAGE_*` of
/// Ceph's `auth/cephx/CephxProtocol.h`, from 19.2.6 on), `aes` makes no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsage(pub u32);

impl KeyUsage {
    /// The answer to a server's challenge.
    pub const CHALLENGE: Self = Self(0);
    /// A connection secret, with the session key of the ticket for monitors.
    pub const CONNECTION_SECRET: Self = Self(0x03);
    /// A ticket's session key, for whoever asked for the ticket.
    pub const TICKET_SESSION_KEY: Self = Self(0x04);
    /// A ticket in place of an older one, with the session key of that.
    pub const TICKET_BLOB: Self = Self(0x05);
    /// The proof that one has a ticket's session key.
    pub const AUTHORIZE: Self = Self(0x10);
    /// A service's challenge to it.
    pub const AUTHORIZE_CHALLENGE: Self = Self(0x11);
    /// A service's proof that it could read the ticket.
    pub const AUTHORIZE_REPLY: Self = Self(0x12);
    /// Rotating secrets, for a daemon.
    pub const ROTATING_SECRET: Self = Self(0x20);
    /// What a ticket holds, for the service.
    pub const TICKET_INFO: Self = Self(0x30);
}

/// Why a key is none, or does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is not base64.
    NotBase64,
    /// The bytes end within the key.
    Truncated,
    /// A type without a name of its own.
    NoSuchType,
    /// A type that seals nothing.
    Unusable(KeyType),
    /// A secret that is too short for its type.
    TooShort {
        /// The key's type.
        kind: KeyType,
        /// Bytes of its secret.
        len: usize,
    },
    /// What was sealed with another key, or changed since.
    Damaged,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBase64 => f.write_str("a key is written in base64, such as AQ…== or Ag…=="),
            Self::Truncated => f.write_str("the key is cut off"),
            Self::NoSuchType => f.write_str("a key type is aes or aes256k"),
            Self::Unusable(kind) => write!(f, "a key of type {kind} seals nothing"),
            Self::TooShort { kind, len } => {
                write!(f, "a secret of {len} bytes is too short for a key of type {kind}")
            }
            Self::Damaged => f.write_str("sealed with another key, or changed since"),
        }
    }
}

impl std::error::Error for KeyError {}

/// A secret key, as keyrings and tickets hold it (`CryptoKey` of Ceph's `auth/Crypto.h`).
///
/// ```
/// use siphon_auth::{CryptoKey, KeyType};
/// let key: CryptoKey = "AQBRlwhhAAAAABAA6ZQPdGcyCtGm2z+KcnYZyA==".parse()?;
/// assert_eq!(key.kind(), KeyType::AES);
/// assert_eq!(format!("{key:?}"), "CryptoKey(aes)");
/// # Ok::<(), siphon_auth::KeyError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CryptoKey {
    kind: KeyType,
    created: Utime,
    secret: Secret,
}

impl CryptoKey {
    /// A key from its secret.
    ///
    /// # Errors
    /// If the type is unknown, or the secret too short for it.
    pub fn new(kind: KeyType, created: Utime, secret: Secret) -> Result<Self, KeyError> {
        let key = Self { kind, created, secret };
        if !key.secret.is_empty() && kind != KeyType::NONE {
            key.usable()?;
        }
        Ok(key)
    }

    /// A new key.
    ///
    /// # Errors
    /// If the type has no keys.
    pub fn generate(kind: KeyType, env: &dyn AuthEnv) -> Result<Self, KeyError> {
        let mut secret = vec![0; kind.secret_len().ok_or(KeyError::Unusable(kind))?];
        env.fill(&mut secret);
        Ok(Self { kind, created: env.now(), secret: secret.into() })
    }

    /// Its type.
    pub fn kind(&self) -> KeyType {
        self.kind
    }

    /// When it was made.
    pub fn created(&self) -> Utime {
        self.created
    }

    /// The text that keyrings hold.
    pub fn to_base64(&self) -> Zeroizing<String> {
        let mut raw = self.to_bytes(Features::ALL).try_into_mut().unwrap_or_default();
        let text = Zeroizing::new(STANDARD.encode(&raw));
        raw.as_mut().zeroize();
        text
    }

    /// Encrypts `plaintext`; with `aes256k` nobody can change it unnoticed either.
    ///
    /// # Errors
    /// If the key has no secret.
    pub fn seal(
        &self,
        usage: KeyUsage,
        plaintext: &[u8],
        env: &dyn AuthEnv,
    ) -> Result<Vec<u8>, KeyError> {
        let secret = self.usable()?;
        if self.kind == KeyType::AES {
            return aes::seal(secret, plaintext);
        }
        let mut confounder = [0; aes256k::BLOCK_LEN];
        env.fill(&mut confounder);
        aes256k::seal(secret, usage, &confounder, plaintext)
    }

    /// Decrypts what [`CryptoKey::seal`] made.
    ///
    /// # Errors
    /// If the key has no secret, or was another.
    pub fn open(&self, usage: KeyUsage, sealed: &[u8]) -> Result<Secret, KeyError> {
        let secret = self.usable()?;
        if self.kind == KeyType::AES {
            return aes::open(secret, sealed);
        }
        aes256k::open(secret, usage, sealed)
    }

    /// HMAC-SHA256 of `parts`, one after the other, under the whole secret.
    pub fn hmac_sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose());
        let mut context = hmac::Context::with_key(&key);
        parts.iter().for_each(|part| context.update(part));
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// Whether it seals anything.
    ///
    /// # Errors
    /// If the type has no keys, or the secret is too short for it.
    pub(crate) fn check(&self) -> Result<(), KeyError> {
        self.usable().map(drop)
    }

    /// The part of the secret that the type uses.
    fn usable(&self) -> Result<&[u8], KeyError> {
        let secret = self.secret.expose();
        let Some(len) = self.kind.secret_len() else {
            return Err(KeyError::Unusable(self.kind));
        };
        let too_short = KeyError::TooShort { kind: self.kind, len: secret.len() };
        match self.kind {
            // Longer ones are cut, as Ceph does.
            KeyType::AES => secret.get(..len).ok_or(too_short),
            _ if secret.len() >= len => Ok(secret),
            _ => Err(too_short),
        }
    }
}

impl FromStr for CryptoKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let raw = STANDARD.decode(text.trim()).map_err(|_| KeyError::NotBase64)?;
        let raw = Secret::from(raw).into_bytes();
        let mut dec = Decoder::new(&raw);
        let (kind, created, secret) = take_parts(&mut dec).map_err(|_| KeyError::Truncated)?;
        Self::new(kind, created, secret.to_vec().into())
    }
}

fn take_parts(dec: &mut Decoder<'_>) -> Result<(KeyType, Utime, Bytes), DecodeError> {
    let (kind, created) = (KeyType(dec.u16()?), dec.value()?);
    let len = dec.u16()?;
    Ok((kind, created, dec.raw(usize::from(len))?))
}

impl Encode for CryptoKey {
    fn encode(&self, enc: &mut Encoder) {
        enc.u16(self.kind.0);
        enc.value(&self.created);
        // Secrets are 16 or 32 bytes, or were decoded from such a length.
        enc.u16(u16::try_from(self.secret.len()).unwrap_or(u16::MAX));
        enc.raw(self.secret.expose());
    }
}

impl Decode for CryptoKey {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("CryptoKey", |dec| {
            let (kind, created, secret) = take_parts(dec)?;
            let len = secret.len() as u64;
            Self::new(kind, created, secret.to_vec().into())
                .map_err(|_| dec.invalid("a key of a known type with a secret for it", len))
        })
    }
}

impl fmt::Debug for CryptoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CryptoKey({})", self.kind)
    }
}
