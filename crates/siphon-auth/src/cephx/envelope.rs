//! How cephx seals a structure: behind a version and a magic number, under a key
//! (`encode_encrypt_enc_bl` and its relatives of Ceph's `auth/cephx/CephxProtocol.h`).

use bytes::Bytes;
use siphon_wire::types::Features;
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};
use zeroize::Zeroize as _;

use super::wire::ChallengeBlob;
use crate::{AuthEnv, CryptoKey, KeyError, KeyType, KeyUsage};

/// `AUTH_ENC_MAGIC`: by it Ceph tells whether `aes` opened with the right key.
const MAGIC: u64 = 0xff00_9cad_8826_aa55;

/// Room for what is sealed, so that no growing buffer leaves copies behind: tickets with long
/// capabilities are the largest.
const ROOM: usize = 4096;

/// What did not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealError {
    /// Not with this key.
    Key(KeyError),
    /// It opened, and what was in it is something else.
    Content(DecodeError),
}

impl From<KeyError> for SealError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<DecodeError> for SealError {
    fn from(error: DecodeError) -> Self {
        Self::Content(error)
    }
}

impl std::fmt::Display for SealError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::Content(error) => error.fmt(f),
        }
    }
}

/// Encodes and seals `value`.
pub(super) fn seal<T: Encode + ?Sized>(
    key: &CryptoKey,
    usage: KeyUsage,
    value: &T,
    env: &dyn AuthEnv,
) -> Result<Bytes, KeyError> {
    let mut enc = Encoder::with_buffer(Vec::with_capacity(ROOM), Features::ALL);
    enc.u8(1);
    enc.u64(MAGIC);
    enc.value(value);
    let mut plain = enc.into_buffer();
    let sealed = key.seal(usage, &plain, env);
    plain.zeroize();
    sealed.map(Into::into)
}

/// What stands before everything that is sealed.
pub(crate) fn head() -> Vec<u8> {
    let mut head = vec![1];
    head.extend_from_slice(&MAGIC.to_le_bytes());
    head
}

/// Opens and decodes what [`seal`] made.
///
/// Nothing may stand behind the value if the key does not prove integrity: blocks that somebody
/// appends to what he recorded would tell him, by whether they open, what other blocks hold. No
/// release of Ceph has appended a field to one of these structures.
pub(super) fn open<T: Decode>(
    key: &CryptoKey,
    usage: KeyUsage,
    sealed: &[u8],
) -> Result<T, SealError> {
    let plain = key.open(usage, sealed)?.into_bytes();
    let mut dec = Decoder::new(&plain);
    let _version = dec.u8()?;
    if dec.u64()? != MAGIC {
        return Err(KeyError::Damaged.into());
    }
    let value = dec.value()?;
    if !key.kind().proves_integrity() {
        dec.finish()?;
    }
    Ok(value)
}

/// The answer to a monitor's challenge: both challenges under the key, folded into 64 bits
/// (`cephx_calc_client_server_challenge`). A key whose sealing is never twice the same hashes them.
pub(super) fn answer(
    key: &CryptoKey,
    challenges: &ChallengeBlob,
    env: &dyn AuthEnv,
) -> Result<u64, KeyError> {
    key.check()?; // a key without a secret has answers that anybody can give
    if key.kind() != KeyType::AES {
        let blob = challenges.to_bytes(Features::ALL);
        return Ok(fold(&key.hmac_sha256(&[&blob])));
    }
    let sealed = seal(key, KeyUsage::CHALLENGE, challenges, env)?;
    let mut enc = Encoder::new(Features::ALL);
    enc.value(&sealed); // with its length in front
    Ok(fold(&enc.finish()))
}

/// All whole words, exclusively or'ed.
pub(crate) fn fold(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    words.map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default())).fold(0, |a, b| a ^ b)
}
