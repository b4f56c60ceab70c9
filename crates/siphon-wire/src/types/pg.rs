use std::fmt;
use std::str::FromStr;

use super::ParseError;
use crate::{Decode, DecodeError, Decoder, Encode, Encoder, Fixed};

/// A placement group (`pg_t`): its pool and its number within it.
///
/// ```
/// use siphon_wire::types::PgId;
/// let pg: PgId = "3.1f".parse().unwrap();
/// assert_eq!(pg, PgId { pool: 3, seed: 0x1f });
/// assert_eq!(pg.to_string(), "3.1f");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgId {
    /// The pool's id.
    pub pool: u64,
    /// The number within the pool, or the full hash of an object (`ps`).
    pub seed: u32,
}

/// Which part of an erasure-coded object (`shard_id_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[denc(fixed)]
pub struct ShardId(pub i8);

impl ShardId {
    /// The object is whole: its pool is replicated.
    pub const NO_SHARD: Self = Self(-1);
}

/// [`ShardId::NO_SHARD`].
impl Default for ShardId {
    fn default() -> Self {
        Self::NO_SHARD
    }
}

/// A shard of a placement group (`spg_t`), such as `3.1fs2`; `3.1f` if it is not sharded.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[denc(version = 1, name = "spg_t", fixed)]
pub struct SpgId {
    /// The placement group.
    pub pg: PgId,
    /// The shard, if its pool is erasure-coded.
    pub shard: ShardId,
}

impl From<PgId> for SpgId {
    fn from(pg: PgId) -> Self {
        Self { pg, shard: ShardId::NO_SHARD }
    }
}

impl fmt::Display for PgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.pool, self.seed)
    }
}

impl fmt::Debug for PgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PgId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (pool, seed) = text.split_once('.')?;
            Some(Self { pool: pool.parse().ok()?, seed: u32::from_str_radix(seed, 16).ok()? })
        };
        parse().ok_or_else(|| ParseError::new("a placement group, such as 3.1f", text))
    }
}

impl fmt::Display for SpgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pg)?;
        if self.shard == ShardId::NO_SHARD {
            return Ok(());
        }
        // Ceph shows the byte without its sign.
        write!(f, "s{}", self.shard.0.cast_unsigned())
    }
}

impl fmt::Debug for SpgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SpgId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || match text.split_once('s') {
            Some((pg, shard)) => {
                let shard = ShardId(shard.parse::<u8>().ok()?.cast_signed());
                Some(Self { pg: pg.parse().ok()?, shard })
            }
            None => text.parse().ok().map(PgId::into),
        };
        parse().ok_or_else(|| ParseError::new("a placement group's shard, such as 3.1fs2", text))
    }
}

/// Behind a version that is always 1; it ends with what was a preferred OSD, now always -1.
impl Fixed for PgId {
    const SIZE: usize = 17;

    #[inline]
    fn put(self, out: &mut [u8]) {
        (1_u8, self.pool, self.seed, -1_i32).put(out);
    }
}

impl Encode for PgId {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        enc.fixed(*self);
    }
}

impl Decode for PgId {
    const MIN_SIZE: usize = Self::SIZE;

    #[inline]
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("pg_t", |dec| {
            let (_version, pool, seed, _preferred): (u8, u64, u32, i32) = dec.value()?;
            Ok(Self { pool, seed })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Features;

    #[test]
    fn a_pg_still_has_its_preferred_osd() {
        let pg = PgId { pool: 3, seed: 0x1f };
        let wire = b"\x01\x03\0\0\0\0\0\0\0\x1f\0\0\0\xff\xff\xff\xff";
        assert_eq!(&pg.to_bytes(Features::ALL)[..], wire);
        let spg = SpgId { pg, shard: ShardId(2) }.to_bytes(Features::ALL);
        assert_eq!(&spg[..6], b"\x01\x01\x12\0\0\0");
        assert_eq!((&spg[6..23], spg[23]), (&wire[..], 2));
        assert_eq!(SpgId::from_bytes(&spg), Ok(SpgId { pg, shard: ShardId(2) }));
    }

    #[test]
    fn texts() {
        for text in ["0.0", "3.1f", "18446744073709551615.ffffffff", "3.1fs2", "1.0s255"] {
            let spg = text.parse::<SpgId>().unwrap().to_string();
            assert_eq!(spg, if text == "1.0s255" { "1.0" } else { text });
        }
        for text in ["", "3", "3.", ".1f", "3.g", "3.1fs", "3.1fs256", "3.1fs2s3"] {
            assert!(text.parse::<SpgId>().is_err(), "{text}");
        }
    }
}
