//! CRC-32C (Castagnoli) as Ceph computes it: the caller gives the value to start from, and nothing
//! is inverted at the end, so that a running value can be carried from one piece to the next.
//!
//! The messenger's frames start their segments' checksums from [`SEED`], and their preambles' from
//! 0; RFC 3720's checksum of the same bytes is `!crc32c(!0, bytes)`.

use crc_fast::{CrcAlgorithm, Digest, checksum_combine, crc32_iscsi};

/// The value from which the messenger starts a segment's checksum (Ceph's `-1`).
pub const SEED: u32 = !0;

const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc32Iscsi;

/// Carries `seed` on over `bytes`.
///
/// ```
/// use siphon_wire::crc32c::{SEED, crc32c};
/// let whole = crc32c(SEED, b"foo bar baz");
/// assert_eq!(crc32c(crc32c(SEED, b"foo "), b"bar baz"), whole);
/// ```
#[inline]
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    if bytes.is_empty() {
        return seed;
    }
    if seed == SEED {
        return !crc32_iscsi(bytes); // what most are, without the making of a digest
    }
    let mut digest = Digest::new_with_init_state(ALGORITHM, u64::from(seed));
    digest.update(bytes);
    // CRC-32C inverts at the end, Ceph does not. The value has 32 bits.
    !(digest.finalize() as u32)
}

/// The checksum of a few bytes from 0, as a frame's preamble has it.
///
/// ```
/// use siphon_wire::crc32c::{crc32c, crc32c_from_zero};
/// assert_eq!(crc32c_from_zero(b"siphon"), crc32c(0, b"siphon"));
/// ```
#[inline]
pub fn crc32c_from_zero<const N: usize>(bytes: &[u8; N]) -> u32 {
    // A checksum is linear: what another seed changes depends on the length alone.
    !crc32_iscsi(bytes) ^ const { over_zeros(SEED, N) }
}

/// Few bytes, at a place that is a multiple of eight: what stands before such a place the library takes byte by byte,
/// which costs as much as the rest.
#[derive(Clone, Copy, Debug)]
#[repr(align(8))]
pub struct Aligned<const N: usize>(pub [u8; N]);

impl<const N: usize> Aligned<N> {
    /// Their checksum from [`SEED`].
    ///
    /// ```
    /// use siphon_wire::crc32c::{Aligned, SEED, crc32c};
    /// assert_eq!(Aligned(*b"siphon").crc32c(), crc32c(SEED, b"siphon"));
    /// ```
    #[inline]
    pub fn crc32c(&self) -> u32 {
        crc32c(SEED, &self.0)
    }
}

/// Carries `crc` on over `count` zero bytes, from the definition.
const fn over_zeros(mut crc: u32, count: usize) -> u32 {
    let mut bits = 8 * count;
    while bits > 0 {
        crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        bits -= 1;
    }
    crc
}

/// Carries `crc` on over `count` zero bytes, in time that grows with the logarithm of `count`.
pub fn append_zeros(crc: u32, count: u64) -> u32 {
    // Over zeros alone, it depends on the value that it started from only.
    checksum_combine(ALGORITHM, u64::from(crc), 0, count) as u32
}

/// The checksum of two pieces in a row, from that of the first (from any seed), that of the
/// second from seed 0, and the second's length.
pub fn combine(first: u32, second_from_zero: u32, second_len: u64) -> u32 {
    append_zeros(first, second_len) ^ second_from_zero
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, from the definition.
    fn reference(seed: u32, bytes: &[u8]) -> u32 {
        bytes.iter().fold(seed, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn known_answers() {
        // RFC 3720, B.4.
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(!0, &[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(!crc32c(!0, &rising), 0x46dd_794e);
        // What Ceph's own tests expect.
        assert_eq!(crc32c(0, b"foo bar baz"), 4_119_623_852);
        assert_eq!(crc32c(1234, b"foo bar baz"), 881_700_046);
        assert_eq!(crc32c(0, b"whiz bang boom"), 2_360_230_088);
        assert_eq!(crc32c(5678, b"whiz bang boom"), 3_743_019_208);
        assert_eq!(crc32c(0, &[1; 5]), 2_715_569_182);
        assert_eq!(crc32c(0, &[1; 35]), 440_531_800);
        let big = vec![1; 4_096_000];
        assert_eq!(crc32c(0, &big), 31_583_199);
        assert_eq!(crc32c(1234, &big), 1_400_919_119);
    }

    #[test]
    fn every_length_and_alignment_around_the_vector_sizes() {
        let bytes: Vec<u8> = (0..1200u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for len in (0..300).chain([511, 512, 513, 767, 1023, 1024, 1025, 1100]) {
            for at in [0, 1, 7, 63] {
                let bytes = &bytes[at..at + len];
                for seed in [0x1234_5678, SEED, 0] {
                    assert_eq!(crc32c(seed, bytes), reference(seed, bytes), "{seed} {at} {len}");
                }
            }
        }
    }

    #[test]
    fn no_bytes_leave_the_seed() {
        assert_eq!(crc32c(7, &[]), 7);
        assert_eq!(append_zeros(7, 0), 7);
    }

    #[test]
    fn zeros_and_combinations() {
        for len in [1, 2, 31, 32, 4096, 100_000] {
            let zeros = vec![0; len];
            assert_eq!(append_zeros(0xdead_beef, len as u64), crc32c(0xdead_beef, &zeros));
        }
        let (first, second) = (b"some bytes", b"and some more of them");
        let combined = combine(crc32c(SEED, first), crc32c(0, second), second.len() as u64);
        assert_eq!(combined, crc32c(crc32c(SEED, first), second));
    }
}
