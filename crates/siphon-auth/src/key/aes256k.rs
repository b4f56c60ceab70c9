//! Key type `aes256k`: AES256-CTS-HMAC-SHA384-192 of RFC 8009.
//!
//! For each use, an encryption and an integrity key are derived. A message is a random block and the
//! plaintext, encrypted with AES-256 in CBC mode with ciphertext stealing from a start of zeros, and
//! 24 bytes of HMAC-SHA384 over the start and the ciphertext.

use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

use super::{KeyError, KeyType, KeyUsage};
use crate::Secret;

pub(super) const KEY_LEN: usize = 32;
pub(super) const BLOCK_LEN: usize = 16;
const INTEGRITY_KEY_LEN: usize = 24;
const MAC_LEN: usize = 24;

/// What a key is derived for (RFC 8009, section 5).
const ENCRYPTION: u8 = 0xaa;
const INTEGRITY: u8 = 0x55;

const START: [u8; BLOCK_LEN] = [0; BLOCK_LEN];

/// `confounder` is random in all but tests.
pub(super) fn seal(
    secret: &[u8],
    usage: KeyUsage,
    confounder: &[u8; BLOCK_LEN],
    plaintext: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let unusable = |_| KeyError::Unusable(KeyType::AES256K);
    let len = BLOCK_LEN + plaintext.len();
    let mut sealed = Vec::with_capacity(len.next_multiple_of(BLOCK_LEN) + MAC_LEN);
    sealed.extend_from_slice(confounder);
    sealed.extend_from_slice(plaintext);
    sealed.resize(len.next_multiple_of(BLOCK_LEN), 0);
    let key = derive(secret, usage, ENCRYPTION, KEY_LEN);
    let key = UnboundCipherKey::new(&AES_256, &key).map_err(unusable)?;
    let key = EncryptingKey::cbc(key).map_err(unusable)?;
    let start = EncryptionContext::Iv128(FixedLength::from(START));
    key.less_safe_encrypt(&mut sealed, start).map_err(unusable)?;
    // Ciphertext stealing: the last two blocks change places, and what was padding is cut off.
    if let Some(at) = sealed.len().checked_sub(2 * BLOCK_LEN) {
        let (before_last, last) = sealed[at..].split_at_mut(BLOCK_LEN);
        before_last.swap_with_slice(last);
        sealed.truncate(len);
    }
    let mac = mac(secret, usage, &sealed);
    sealed.extend_from_slice(&mac);
    Ok(sealed)
}

pub(super) fn open(secret: &[u8], usage: KeyUsage, sealed: &[u8]) -> Result<Secret, KeyError> {
    let split = sealed.len().checked_sub(MAC_LEN).filter(|len| *len >= BLOCK_LEN);
    let (text, expected) = sealed.split_at(split.ok_or(KeyError::Damaged)?);
    let mac = mac(secret, usage, text);
    verify_slices_are_equal(&mac, expected).map_err(|_| KeyError::Damaged)?;

    let key = derive(secret, usage, ENCRYPTION, KEY_LEN);
    let mut buffer = Zeroizing::new(text.to_vec());
    if text.len() > BLOCK_LEN {
        give_back_stolen(&key, &mut buffer)?;
    }
    let key = UnboundCipherKey::new(&AES_256, &key).map_err(|_| KeyError::Damaged)?;
    let key = DecryptingKey::cbc(key).map_err(|_| KeyError::Damaged)?;
    let start = DecryptionContext::Iv128(FixedLength::from(START));
    let plaintext = key.decrypt(&mut buffer, start).map_err(|_| KeyError::Damaged)?;
    let plaintext = plaintext.get(BLOCK_LEN..text.len()).unwrap_or_default();
    Ok(plaintext.to_vec().into())
}

/// Puts the last two blocks back into their places, whole.
fn give_back_stolen(key: &[u8], buffer: &mut Vec<u8>) -> Result<(), KeyError> {
    let len = buffer.len();
    let at = (len - 1) / BLOCK_LEN * BLOCK_LEN - BLOCK_LEN; // of the last whole block
    let key = UnboundCipherKey::new(&AES_256, key).map_err(|_| KeyError::Damaged)?;
    let key = DecryptingKey::ecb(key).map_err(|_| KeyError::Damaged)?;
    let mut last = Zeroizing::new(buffer[at..at + BLOCK_LEN].to_vec());
    let block = last.to_vec();
    key.decrypt(&mut last, DecryptionContext::None).map_err(|_| KeyError::Damaged)?;
    // What padding of zeros became, under the block before: its stolen end.
    let stolen = &last[len - at - BLOCK_LEN..];
    let mut restored = buffer[at + BLOCK_LEN..].to_vec();
    restored.extend_from_slice(stolen);
    restored.extend_from_slice(&block);
    buffer.truncate(at);
    buffer.extend_from_slice(&restored);
    Ok(())
}

fn mac(secret: &[u8], usage: KeyUsage, text: &[u8]) -> [u8; MAC_LEN] {
    let key = derive(secret, usage, INTEGRITY, INTEGRITY_KEY_LEN);
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA384, &key));
    context.update(&START);
    context.update(text);
    let mut mac = [0; MAC_LEN];
    mac.copy_from_slice(&context.sign().as_ref()[..MAC_LEN]);
    mac
}

/// `KDF-HMAC-SHA2` of RFC 8009, section 3: one block of HMAC-SHA384 is enough.
fn derive(secret: &[u8], usage: KeyUsage, purpose: u8, len: usize) -> Zeroizing<Vec<u8>> {
    let bits = (len as u32) * 8;
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA384, secret));
    context.update(&1u32.to_be_bytes());
    context.update(&usage.0.to_be_bytes());
    context.update(&[purpose, 0]);
    context.update(&bits.to_be_bytes());
    Zeroizing::new(context.sign().as_ref()[..len].to_vec())
}

/// RFC 8009, appendix A.
#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: KeyUsage = KeyUsage(2);
    const SECRET: &str = "6d404d37faf79f9df0d33568d320669800eb4836472ea8a026d16b7182460c52";

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    #[test]
    fn keys_are_derived_as_the_rfc_has_them() {
        let ke = "56ab22bee63d82d7bc5227f6773f8ea7a5eb1c825160c38312980c442e5c7e49";
        let ki = "69b16514e3cd8e56b82010d5c73012b622c4d00ffc23ed1f";
        assert_eq!(*derive(&hex(SECRET), USAGE, ENCRYPTION, 32), hex(ke));
        assert_eq!(*derive(&hex(SECRET), USAGE, INTEGRITY, 24), hex(ki));
    }

    #[test]
    fn the_rfcs_messages_are_sealed_and_opened() {
        let rows = [
            ("f764e9fa15c276478b2c7d0c4e5f58e4", "", RFC_0),
            ("b80d3251c1f6471494256ffe712d0b9a", "000102030405", RFC_6),
            ("53bf8a0d105265d4e276428624ce5e63", "000102030405060708090a0b0c0d0e0f", RFC_16),
            (
                "763e65367e864f02f55153c7e3b58af1",
                "000102030405060708090a0b0c0d0e0f1011121314",
                RFC_21,
            ),
        ];
        for (confounder, plaintext, sealed) in rows {
            let confounder = hex(confounder).try_into().unwrap();
            let ours = seal(&hex(SECRET), USAGE, &confounder, &hex(plaintext)).unwrap();
            assert_eq!(ours, hex(sealed));
            let opened = open(&hex(SECRET), USAGE, &hex(sealed)).unwrap();
            assert_eq!(opened.expose(), hex(plaintext));
        }
    }

    const RFC_0: &str =
        "41f53fa5bfe7026d91faf9be959195a058707273a96a40f0a01960621ac612748b9bbfbe7eb4ce3c";
    const RFC_6: &str = "4ed7b37c2bcac8f74f23c1cf07e62bc7b75fb3f637b9f559c7f664f69eab7b6092237526ea0d1f61cb20d69d10f2";
    const RFC_16: &str = "bc47ffec7998eb91e8115cf8d19dac4bbbe2e163e87dd37f49beca92027764f68cf51f14d798c2273f35df574d1f932e40c4ff255b36a266";
    const RFC_21: &str = "40013e2df58e8751957d2878bcd2d6fe101ccfd556cb1eae79db3c3ee86429f2b2a602ac86fef6ecb647d6295fae077a1feb517508d2c16b4192e01f62";

    #[test]
    fn every_length_opens_and_every_change_is_seen() {
        let secret = hex(SECRET);
        for len in 0..70u8 {
            let plaintext: Vec<_> = (0..len).collect();
            let sealed = seal(&secret, USAGE, &[9; 16], &plaintext).unwrap();
            assert_eq!(sealed.len(), 16 + plaintext.len() + 24);
            assert_eq!(open(&secret, USAGE, &sealed).unwrap().expose(), plaintext);
            assert_eq!(open(&secret, KeyUsage(3), &sealed), Err(KeyError::Damaged));
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(open(&secret, USAGE, &changed), Err(KeyError::Damaged));
                assert_eq!(open(&secret, USAGE, &sealed[..at]), Err(KeyError::Damaged));
            }
        }
    }
}
