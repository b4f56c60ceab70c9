//! Key type `aes`: AES-128 in CBC mode with PKCS #7 padding, always from the same start, as Ceph's
//! `auth/Crypto.cc` has it.

use aws_lc_rs::cipher::{
    AES_128, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;

use super::KeyError;
use crate::Secret;

pub(super) const KEY_LEN: usize = 16;

/// `CEPH_AES_IV` of Ceph's `include/ceph_fs.h`.
const START: [u8; 16] = *b"cephsageyudagreg";

pub(super) fn seal(key: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
    let unusable = |_| KeyError::Unusable(super::KeyType::AES);
    let key = UnboundCipherKey::new(&AES_128, key).map_err(unusable)?;
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).map_err(unusable)?;
    // Room for the padding, so that no copy of the plaintext is left behind.
    let mut buffer = Vec::with_capacity(plaintext.len() + START.len());
    buffer.extend_from_slice(plaintext);
    let start = EncryptionContext::Iv128(FixedLength::from(START));
    key.less_safe_encrypt(&mut buffer, start).map_err(unusable)?;
    Ok(buffer)
}

pub(super) fn open(key: &[u8], sealed: &[u8]) -> Result<Secret, KeyError> {
    let key = UnboundCipherKey::new(&AES_128, key).map_err(|_| KeyError::Damaged)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| KeyError::Damaged)?;
    let mut buffer = zeroize::Zeroizing::new(sealed.to_vec());
    let start = DecryptionContext::Iv128(FixedLength::from(START));
    let plaintext = key.decrypt(&mut buffer, start).map_err(|_| KeyError::Damaged)?;
    Ok(plaintext.to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        let key = [7; KEY_LEN];
        for len in 0..50 {
            let plaintext: Vec<u8> = (0..len).collect();
            let sealed = seal(&key, &plaintext).unwrap();
            assert_eq!(sealed.len(), (plaintext.len() / 16 + 1) * 16);
            assert_eq!(open(&key, &sealed).unwrap().expose(), plaintext);
            assert_eq!(open(&key, &sealed[1..]), Err(KeyError::Damaged));
        }
        assert_eq!(open(&key, &[]), Err(KeyError::Damaged));
    }

    /// NIST SP 800-38A's AES-128 key and first plaintext block, under Ceph's start.
    #[test]
    fn a_block_is_as_openssl_has_it() {
        let key = 0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128.to_be_bytes();
        let block = 0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a_u128.to_be_bytes();
        let sealed = seal(&key, &block).unwrap();
        assert_eq!(sealed[..16], EXPECTED.to_be_bytes());
    }

    /// `openssl enc -aes-128-cbc -K … -iv …` of the same.
    const EXPECTED: u128 = 0xfc9c_1af5_ed78_cfe5_2c9a_f6e7_8acc_047f;
}
