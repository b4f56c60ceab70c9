//! How names become numbers, and numbers placement groups (`common/ceph_hash.cc`,
//! `include/rados.h`).

use siphon_crush::hash;

/// How a pool hashes its objects' names (`CEPH_STR_HASH_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StrHash(pub u8);

impl StrHash {
    /// That of Linux' directory cache.
    pub const LINUX: Self = Self(1);
    /// Robert Jenkins': that of all pools.
    pub const RJENKINS: Self = Self(2);

    /// The hash of a name; what is neither of the two hashes everything to 2^32 - 1, as in Ceph.
    ///
    /// ```
    /// use siphon_osdmap::StrHash;
    /// assert_eq!(StrHash::RJENKINS.hash(&[b"foo"]), 0x7fc1f406);
    /// // A name may come in pieces.
    /// assert_eq!(StrHash::LINUX.hash(&[b"f", b"oo"]), StrHash::LINUX.hash(&[b"foo"]));
    /// ```
    pub fn hash(self, pieces: &[&[u8]]) -> u32 {
        match self {
            Self::LINUX => linux(pieces.iter().copied().flatten()),
            Self::RJENKINS => match pieces {
                [whole] => rjenkins(whole),
                _ => rjenkins(&pieces.concat()),
            },
            _ => u32::MAX,
        }
    }
}

fn linux<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    bytes.fold(0, |hash: u32, byte| {
        let byte = u32::from(*byte);
        hash.wrapping_add(byte << 4).wrapping_add(byte >> 4).wrapping_mul(11)
    })
}

fn rjenkins(bytes: &[u8]) -> u32 {
    /// The golden ratio: an arbitrary value.
    const START: u32 = 0x9e37_79b9;
    let (mut a, mut b, mut c) = (START, START, 0_u32);
    let (chunks, rest) = bytes.as_chunks::<12>();
    let mut mix = |words: [u32; 3]| {
        let [x, y, z] = words;
        (a, b, c) = hash::mix(a.wrapping_add(x), b.wrapping_add(y), c.wrapping_add(z));
        c
    };
    for chunk in chunks {
        mix(words(chunk));
    }
    // The lowest byte of the last word is that of the length: the last three bytes move up by one.
    let mut last = [0; 12];
    for (index, byte) in rest.iter().enumerate() {
        last[if index < 8 { index } else { index + 1 }] = *byte;
    }
    let [first, second, third] = words(&last);
    // Ceph counts in 32 bits.
    mix([first, second, third.wrapping_add(bytes.len() as u32)])
}

fn words(bytes: &[u8; 12]) -> [u32; 3] {
    let (words, _) = bytes.as_chunks::<4>();
    std::array::from_fn(|index| u32::from_le_bytes(words[index]))
}

/// Which of `count` placement groups a number is in, so that few numbers move when the count grows
/// (`ceph_stable_mod`). `mask` is the least 2^n - 1 that is not below `count - 1`.
///
/// ```
/// use siphon_osdmap::stable_mod;
/// assert_eq!((0..8).map(|x| stable_mod(x, 6, 7)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 2, 3]);
/// ```
#[inline]
pub const fn stable_mod(x: u32, count: u32, mask: u32) -> u32 {
    if x & mask < count { x & mask } else { x & (mask >> 1) }
}

/// The least 2^n - 1 that is not below `count - 1`.
pub(crate) const fn mask_of(count: u32) -> u32 {
    match count {
        0 | 1 => 0,
        _ => u32::MAX >> (count - 1).leading_zeros(),
    }
}

/// As many bits as a number takes.
pub(crate) const fn bits_of(number: u32) -> u32 {
    u32::BITS - number.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        for (count, mask) in [(0, 0), (1, 0), (2, 1), (3, 3), (4, 3), (5, 7), (1 << 31, !0 >> 1)] {
            assert_eq!(mask_of(count), mask);
        }
        assert_eq!(mask_of(u32::MAX), u32::MAX);
    }
}
