//! CRC-32C (Castagnoli) in Ceph's convention: the seed goes in as it is, and nothing is inverted at
//! the end, so that `crc32c(crc32c(seed, a), b)` is the checksum of `a` and `b` together.

/// Checksum of `bytes`, begun with `seed`: `ceph_crc32c` of Ceph's `include/crc32c.h`.
///
/// ```
/// use siphon_wire::crc32c::crc32c;
/// assert_eq!(crc32c(0, b"foo bar baz"), 4_119_623_852);
/// assert_eq!(crc32c(1234, b"foo bar baz"), 881_700_046);
/// ```
#[inline]
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    // The usual convention inverts before and after.
    !::crc32c::crc32c_append(!seed, bytes)
}
