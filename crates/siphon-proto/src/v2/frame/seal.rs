//! AES-128-GCM of secure mode: one key for both directions, and a count of nonces for each
//! (`msg/async/crypto_onwire.cc` of Ceph).

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use siphon_auth::StreamKeys;

use super::{PREAMBLE, Revision};

/// Bytes of a tag, and of a block that everything is padded to.
pub(super) const TAG: usize = 16;
pub(super) const BLOCK: usize = 16;

/// A length in whole blocks.
pub(super) const fn padded(len: usize) -> usize {
    len.next_multiple_of(BLOCK)
}

/// What seals and opens the frames of one connection.
#[derive(Debug)]
pub struct StreamSeal {
    pub(crate) tx: Sealer,
    pub(crate) rx: Opener,
}

impl StreamSeal {
    /// For one side of a connection whose frames have this revision.
    ///
    /// Returns `None` for a key that is none of AES-128.
    pub fn new(keys: &StreamKeys, revision: Revision, is_client: bool) -> Option<Self> {
        let (ours, theirs) = match is_client {
            true => (keys.from_client, keys.from_server),
            false => (keys.from_server, keys.from_client),
        };
        let key = || {
            let key = UnboundKey::new(&AES_128_GCM, keys.key.expose()).ok()?;
            Some(LessSafeKey::new(key))
        };
        let counter = UnboundCipherKey::new(&AES_128, keys.key.expose()).ok()?;
        Some(Self {
            tx: Sealer { key: key()?, nonces: Nonces::new(ours, revision) },
            rx: Opener {
                key: key()?,
                counter: DecryptingKey::ctr(counter).ok()?,
                nonces: Nonces::new(theirs, revision),
            },
        })
    }
}

/// Nonces, none of which comes twice. Revision 0 counts in the first 32 bits, revision 1 in the last
/// 64.
struct Nonces {
    next: [u8; 12],
    revision: Revision,
    left: u64,
}

impl Nonces {
    fn new(first: [u8; 12], revision: Revision) -> Self {
        let left = match revision {
            Revision::Rev0 => 1 << 32,
            Revision::Rev1 => u64::MAX,
        };
        Self { next: first, revision, left }
    }

    /// The nonce that comes next.
    fn peek(&self) -> Option<[u8; 12]> {
        (self.left > 0).then_some(self.next)
    }

    fn take(&mut self) -> Option<Nonce> {
        let nonce = self.peek()?;
        self.left -= 1;
        let [a, b, c, d, rest @ ..] = &mut self.next;
        match self.revision {
            Revision::Rev0 => {
                let count = u32::from_le_bytes([*a, *b, *c, *d]).wrapping_add(1);
                [*a, *b, *c, *d] = count.to_le_bytes();
            }
            Revision::Rev1 => *rest = u64::from_le_bytes(*rest).wrapping_add(1).to_le_bytes(),
        }
        Some(Nonce::assume_unique_for_key(nonce))
    }
}

/// Seals what we send.
pub(crate) struct Sealer {
    key: LessSafeKey,
    nonces: Nonces,
}

impl Sealer {
    /// Encrypts a text in its place, and returns its tag.
    ///
    /// # Panics
    /// If no nonce is left: callers look at [`Sealer::left`] before they begin a frame.
    pub(super) fn seal(&mut self, text: &mut [u8]) -> [u8; TAG] {
        let nonce = self.nonces.take().expect("callers stop before nonces repeat");
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), text);
        let tag = sealed.expect("a frame is shorter than 64 GiB");
        let mut bytes = [0; TAG];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Seals no more than `most` texts.
    pub(crate) fn limit(&mut self, most: u64) {
        self.nonces.left = self.nonces.left.min(most);
    }

    /// How many texts can still be sealed.
    pub(crate) fn left(&self) -> u64 {
        self.nonces.left
    }
}

/// Opens what the peer sent.
pub(crate) struct Opener {
    key: LessSafeKey,
    counter: DecryptingKey,
    nonces: Nonces,
}

/// A text that was changed, or sealed for another place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forged;

impl Opener {
    /// Decrypts a text in its place, whose tag stands behind it. If it is forged, what is there then
    /// means nothing.
    pub(super) fn open(&mut self, text_and_tag: &mut [u8]) -> Result<(), Forged> {
        let nonce = self.nonces.take().ok_or(Forged)?;
        self.key.open_in_place(nonce, Aad::empty(), text_and_tag).map_err(|_| Forged)?;
        Ok(())
    }

    /// The beginning of the next text, decrypted and not verified: revision 0 has lengths in it that
    /// tell where its tag is.
    pub(super) fn peek(&self, sealed: &[u8; PREAMBLE]) -> Result<[u8; PREAMBLE], Forged> {
        let nonce = self.nonces.peek().ok_or(Forged)?;
        let mut block = [0; 16];
        block[..12].copy_from_slice(&nonce);
        block[15] = 2; // counter 1 is the tag's
        let mut text = *sealed;
        let start = DecryptionContext::Iv128(FixedLength::from(block));
        self.counter.decrypt(&mut text, start).map_err(|_| Forged)?;
        Ok(text)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({} left)", self.nonces.left)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({} left)", self.nonces.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST's test case 4 of GCM has additional data, which msgr2 has not; this is test case 3.
    #[test]
    fn nists_vector_is_sealed() {
        let key = 0xfeff_e992_8665_731c_6d6a_8f94_6730_8308_u128.to_be_bytes().to_vec();
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&0xcafe_babe_face_dbad_deca_f888_u128.to_be_bytes()[4..]);
        let keys = StreamKeys { key: key.into(), from_server: nonce, from_client: nonce };
        let words: [u128; 4] = [
            0xd931_3225_f884_06e5_a559_09c5_aff5_269a,
            0x86a7_a953_1534_f7da_2e4c_303d_8a31_8a72,
            0x1c3c_0c95_9568_0953_2fcf_0e24_49a6_b525,
            0xb16a_edf5_aa0d_e657_ba63_7b39_1aaf_d255,
        ];
        let mut text: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let mut seal = StreamSeal::new(&keys, Revision::Rev1, true).unwrap();
        let tag = seal.tx.seal(&mut text);
        assert_eq!(text[..16], 0x4283_1ec2_2177_7424_4b72_21b7_84d0_d49c_u128.to_be_bytes());
        assert_eq!(tag, 0x4d5c_2af3_27cd_64a6_2cf3_5abd_2ba6_fab4_u128.to_be_bytes());
        // What begins a text can be looked at before its tag is there.
        let head = text[..PREAMBLE].try_into().unwrap();
        let peeked = seal.rx.peek(&head).unwrap();
        assert_eq!(peeked[..16], words[0].to_be_bytes());
        text.extend_from_slice(&tag);
        seal.rx.open(&mut text).unwrap();
        assert_eq!(text[48..64], words[3].to_be_bytes());
    }

    #[test]
    fn nonces_count_where_their_revision_has_them_and_end() {
        let mut first = [0xff; 12];
        first[11] = 1;
        let mut rev0 = Nonces::new(first, Revision::Rev0);
        rev0.take().unwrap();
        assert_eq!(rev0.next[..5], [0, 0, 0, 0, 0xff]);
        let mut rev1 = Nonces::new(first, Revision::Rev1);
        rev1.take().unwrap();
        assert_eq!(rev1.next, [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 2]);
        rev0.left = 1;
        assert!(rev0.take().is_some());
        assert!(rev0.take().is_none(), "the next one would be the first again");
    }
}
