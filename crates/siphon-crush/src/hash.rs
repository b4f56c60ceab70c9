//! Robert Jenkins' 32-bit mix as CRUSH uses it (`crush/hash.c`, `CRUSH_HASH_RJENKINS1`): hashes of
//! two to four numbers.

/// What a hash starts from, besides its arguments (`crush_hash_seed`).
const SEED: u32 = 1_315_423_911;
/// What stands in where the mix needs more numbers than were given.
const X: u32 = 231_232;
const Y: u32 = 1232;

/// One round of the mix, which the hash of names in an OSD map is made of as well.
///
/// ```
/// assert_eq!(siphon_crush::hash::mix(0, 0, 0), (0, 0, 0));
/// ```
#[inline(always)]
pub const fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    macro_rules! step {
        ($a:ident $b:ident $c:ident $shift:tt $by:literal) => {
            $a = $a.wrapping_sub($b).wrapping_sub($c) ^ ($c $shift $by);
        };
    }
    step!(a b c >> 13);
    step!(b c a << 8);
    step!(c a b >> 13);
    step!(a b c >> 12);
    step!(b c a << 16);
    step!(c a b >> 5);
    step!(a b c >> 3);
    step!(b c a << 10);
    step!(c a b >> 15);
    (a, b, c)
}

/// The hash of two numbers (`crush_hash32_2`).
///
/// ```
/// // What takes an OSD of weight 0.5 out of half of the mappings.
/// let kept = (0..1000).filter(|x| siphon_crush::hash::hash2(*x, 7) & 0xffff < 0x8000).count();
/// assert!((400..600).contains(&kept));
/// ```
#[inline]
pub const fn hash2(a: u32, b: u32) -> u32 {
    let hash = SEED ^ a ^ b;
    let (a, b, hash) = mix(a, b, hash);
    let (_, _, hash) = mix(X, a, hash);
    let (_, _, hash) = mix(b, Y, hash);
    hash
}

/// The hash of three numbers (`crush_hash32_3`): what straws and permutations are drawn by.
#[inline(always)]
pub const fn hash3(a: u32, b: u32, c: u32) -> u32 {
    let hash = SEED ^ a ^ b ^ c;
    let (a, b, hash) = mix(a, b, hash);
    let (c, x, hash) = mix(c, X, hash);
    let (y, _, hash) = mix(Y, a, hash);
    let (_, _, hash) = mix(b, x, hash);
    let (_, _, hash) = mix(y, c, hash);
    hash
}

/// The hash of four numbers (`crush_hash32_4`): what lists and trees are walked by.
#[inline]
pub const fn hash4(a: u32, b: u32, c: u32, d: u32) -> u32 {
    let hash = SEED ^ a ^ b ^ c ^ d;
    let (a, b, hash) = mix(a, b, hash);
    let (c, d, hash) = mix(c, d, hash);
    let (_, x, hash) = mix(a, X, hash);
    let (y, _, hash) = mix(Y, b, hash);
    let (_, _, hash) = mix(c, x, hash);
    let (_, _, hash) = mix(y, d, hash);
    hash
}

/// How many hashes [`hash3_lanes`] makes at once: what the compiler turns into vectors.
pub(crate) const LANES: usize = 8;

/// [`hash3`] of `x`, each of `items`, and `r`.
#[inline(always)]
pub(crate) fn hash3_lanes(x: u32, items: &[i32; LANES], r: u32) -> [u32; LANES] {
    std::array::from_fn(|lane| hash3(x, items[lane].cast_unsigned(), r))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_as_single_hashes() {
        let items = [0, 1, -1, i32::MIN, i32::MAX, 77, -200, 65_536];
        let lanes = hash3_lanes(12_345, &items, 3);
        for (lane, item) in items.into_iter().enumerate() {
            assert_eq!(lanes[lane], hash3(12_345, item.cast_unsigned(), 3));
        }
    }

    #[test]
    fn every_argument_counts() {
        let hashes = [hash2(1, 2), hash2(2, 1), hash3(1, 2, 0), hash3(1, 2, 3), hash4(1, 2, 3, 0)];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash));
        }
    }
}
