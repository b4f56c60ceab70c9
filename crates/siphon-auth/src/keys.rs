use std::fmt;

use crate::cephx::CephxError;
use crate::{AuthError, ConnectionMode, CryptoKey, KeyType, KeyUsage, Secret};

/// What a finished exchange leaves for signing the handshake and sealing the frames after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keys {
    /// Nothing: the signature is all zeros, and frames have checksums only.
    #[default]
    None,
    /// Keys that both sides have, and nobody else.
    Session(SessionKeys),
}

/// Keys of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKeys {
    /// The session key, of the ticket that was used.
    pub key: CryptoKey,
    /// The connection's own secret: an AES-128 key and two nonces of 12 bytes, and more that is not
    /// used. Empty in crc mode.
    pub connection_secret: Secret,
}

/// Bytes of a connection secret that are used.
const CONNECTION_SECRET_USED: usize = 16 + 2 * 12;
/// Bytes of a connection secret in secure mode (`get_connection_secret_length` of Ceph's
/// `auth/Auth.h`).
pub(crate) const CONNECTION_SECRET_LEN: usize = 64;

/// An AES-128-GCM key and the first nonces of either direction.
#[derive(Clone)]
pub struct StreamKeys {
    /// The key, which both directions share.
    pub key: Secret,
    /// The first nonce of what the accepting side sends.
    pub from_server: [u8; 12],
    /// The first nonce of what the connecting side sends.
    pub from_client: [u8; 12],
}

impl fmt::Debug for StreamKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamKeys")
    }
}

impl Keys {
    /// The signature of what was said before authentication ended: HMAC-SHA256 under the session
    /// key, zeros where there is none.
    pub fn sign(&self, transcript: &[u8]) -> [u8; 32] {
        match self {
            Self::None => [0; 32],
            Self::Session(keys) => keys.key.hmac_sha256(&[transcript]),
        }
    }

    /// What frames are sealed with in secure mode, if there is something to seal them with.
    pub fn stream_keys(&self) -> Option<StreamKeys> {
        let Self::Session(keys) = self else {
            return None;
        };
        let secret = keys.connection_secret.expose();
        // As `create_handler_pair` of Ceph's `msg/async/crypto_onwire.cc` cuts it.
        let (key, rest) = secret.split_at_checked(16)?;
        let (from_server, rest) = rest.split_first_chunk()?;
        let (from_client, _) = rest.split_first_chunk()?;
        Some(StreamKeys {
            key: key.to_vec().into(),
            from_server: *from_server,
            from_client: *from_client,
        })
    }

    /// The signature of a message of msgr v1 (`CephxSessionHandler::_calc_signature` of Ceph's
    /// `auth/cephx/CephxSessionHandler.cc`); none without a session key.
    pub fn sign_message(&self, message: &SignedMessage) -> Option<u64> {
        let Self::Session(SessionKeys { key, .. }) = self else {
            return None;
        };
        let block = message.block();
        if key.kind() != KeyType::AES {
            let digest = key.hmac_sha256(&[&block]);
            return Some(crate::cephx::fold(&digest));
        }
        // Deterministic: the environment's random numbers are not used by this type of key.
        let sealed = key.seal(KeyUsage::CHALLENGE, &block, &NoEnv).ok()?;
        let used = if message.cephx_v2 { sealed.get(..32) } else { sealed.get(..8) };
        Some(crate::cephx::fold(used?))
    }
}

/// What the signature of a message of msgr v1 covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignedMessage {
    /// Both sides have `CEPHX_V2` (from Mimic on): lengths and the sequence number are covered too.
    pub cephx_v2: bool,
    /// The header's checksum.
    pub header_crc: u32,
    /// Checksum and length in bytes of the front.
    pub front: (u32, u32),
    /// The same of the middle.
    pub middle: (u32, u32),
    /// The same of the data.
    pub data: (u32, u32),
    /// The lower half of the sequence number.
    pub seq: u32,
}

impl SignedMessage {
    fn block(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(32);
        let mut put = |word: u32| block.extend_from_slice(&word.to_le_bytes());
        if self.cephx_v2 {
            let parts = [self.front, self.middle, self.data];
            put(self.header_crc);
            parts.iter().for_each(|(crc, len)| [*crc, *len].into_iter().for_each(&mut put));
            put(self.seq);
            return block;
        }
        for word in [16, self.header_crc, self.front.0, self.middle.0, self.data.0] {
            put(word);
        }
        let mut with_head = crate::cephx::envelope_head();
        with_head.extend_from_slice(&block);
        with_head
    }
}

impl SessionKeys {
    /// Whether there is what the mode needs.
    pub(crate) fn check(&self, mode: ConnectionMode) -> Result<(), AuthError> {
        let len = self.connection_secret.len();
        if mode == ConnectionMode::SECURE && len < CONNECTION_SECRET_USED {
            return Err(CephxError::NoConnectionSecret { len }.into());
        }
        Ok(())
    }
}

/// For keys that need neither the time nor random numbers.
#[derive(Debug)]
struct NoEnv;

impl crate::AuthEnv for NoEnv {
    fn now(&self) -> siphon_wire::types::Utime {
        siphon_wire::types::Utime::default()
    }

    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}
