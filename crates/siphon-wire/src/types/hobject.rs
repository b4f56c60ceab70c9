use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::{ByteString, ParseError, SnapId};
use crate::{Decode, DecodeError, Decoder, Encode, Encoder};

/// An object with all that places it (`hobject_t`): the order of all objects is that of their
/// hashes with reversed bits, so that the objects of a placement group stand together, and stay
/// so when it splits.
///
/// ```
/// use siphon_wire::types::HObject;
/// let object = HObject::new(3, "name", 0x80);
/// assert_eq!(object.to_string(), "3:01000000:::name:head");
/// assert_eq!("3:01000000:::name:head".parse(), Ok(object.clone()));
/// assert!(HObject::min() < object && object < HObject::max());
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HObject {
    /// Its name.
    pub oid: ByteString,
    /// What was hashed in place of the name, if it is not empty.
    pub key: ByteString,
    /// The snapshot.
    pub snap: SnapId,
    /// The hash of its name or key.
    pub hash: u32,
    /// The pool's id. -1 is for metadata; a temporary object of pool n is in pool -2 - n.
    pub pool: i64,
    /// The namespace within the pool.
    pub namespace: ByteString,
    max: bool,
}

impl HObject {
    /// The live object `oid` in a pool's default namespace, with the hash that places it.
    pub fn new(pool: i64, oid: impl Into<ByteString>, hash: u32) -> Self {
        Self { pool, oid: oid.into(), hash, snap: SnapId::HEAD, ..Self::min() }
    }

    /// What no object is less than.
    pub const fn min() -> Self {
        Self {
            oid: ByteString::new(),
            key: ByteString::new(),
            snap: SnapId(0),
            hash: 0,
            pool: i64::MIN,
            namespace: ByteString::new(),
            max: false,
        }
    }

    /// What every object is less than. Its other fields mean nothing.
    pub const fn max() -> Self {
        let mut max = Self::min();
        max.max = true;
        max
    }

    /// Whether it is [`HObject::max`].
    pub const fn is_max(&self) -> bool {
        self.max
    }

    /// Whether it is [`HObject::min`].
    pub const fn is_min(&self) -> bool {
        self.snap.0 == 0 && self.hash == 0 && !self.max && self.pool == i64::MIN
    }

    /// What was hashed: the key, or the name if there is none.
    pub fn effective_key(&self) -> &ByteString {
        if self.key.is_empty() { &self.oid } else { &self.key }
    }

    /// The hash with its bits reversed, by which objects are ordered; above all hashes for the
    /// maximum.
    pub const fn bitwise_key(&self) -> u64 {
        if self.max { 1 << 32 } else { self.hash.reverse_bits() as u64 }
    }

    /// The hash with its nibbles reversed, by which FileStore's folders are named; above all
    /// hashes for the maximum.
    pub const fn nibblewise_key(&self) -> u64 {
        if self.max {
            return 1 << 32;
        }
        let hash = self.hash.swap_bytes();
        ((hash & 0x0f0f_0f0f) << 4 | (hash & 0xf0f0_f0f0) >> 4) as u64
    }
}

/// The minimum.
impl Default for HObject {
    fn default() -> Self {
        Self::min()
    }
}

/// As Ceph's `cmp`; of objects that it takes for equal, the one without key comes first.
impl Ord for HObject {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |object: &Self| (object.max, object.pool, object.bitwise_key());
        place(self)
            .cmp(&place(other))
            .then_with(|| self.namespace.cmp(&other.namespace))
            .then_with(|| self.effective_key().cmp(other.effective_key()))
            .then_with(|| self.oid.cmp(&other.oid))
            .then_with(|| self.snap.cmp(&other.snap))
            .then_with(|| (&self.key, self.hash).cmp(&(&other.key, other.hash)))
    }
}

impl PartialOrd for HObject {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Encode for HObject {
    fn encode(&self, enc: &mut Encoder) {
        // Ceph aborts on a maximum whose other fields are set.
        let canonical;
        let object = if self.max {
            canonical = Self::max();
            &canonical
        } else {
            self
        };
        enc.versioned(4, 3, |enc| {
            enc.value(&object.key);
            enc.value(&object.oid);
            enc.value(&object.snap);
            enc.u32(object.hash);
            enc.bool(object.max);
            enc.value(&object.namespace);
            enc.i64(object.pool);
        });
    }
}

impl Decode for HObject {
    /// Version 0: name, snapshot, hash.
    const MIN_SIZE: usize = 1 + 4 + 8 + 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned_since("hobject_t", 4, 3, 3, |dec, version| {
            let mut object = Self::min();
            if version >= 1 {
                object.key = dec.value()?;
            }
            object.oid = dec.value()?;
            object.snap = dec.value()?;
            object.hash = dec.u32()?;
            object.max = version >= 2 && dec.bool()?;
            if version >= 4 {
                object.namespace = dec.value()?;
                object.pool = dec.i64()?;
            }
            Ok(object.canonical())
        })
    }
}

impl HObject {
    /// Hammer (0.94) encoded the minimum with pool -1, and before it a maximum could have other
    /// fields set: take both for what was meant, as Ceph does.
    fn canonical(mut self) -> Self {
        if self.max {
            return Self::max();
        }
        if self.pool == -1 && self.snap == SnapId(0) && self.hash == 0 && self.oid.is_empty() {
            self.pool = i64::MIN;
        }
        self
    }
}

/// `MIN`, `MAX`, or `pool:reversed hash:namespace:key:name:snapshot`.
impl fmt::Display for HObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.max {
            return f.write_str("MAX");
        }
        if *self == Self::min() {
            return f.write_str("MIN");
        }
        write!(f, "{}:{:08x}", self.pool, self.bitwise_key())?;
        for part in [&self.namespace, &self.key, &self.oid] {
            write!(f, ":{}", Escaped(part))?;
        }
        write!(f, ":{}", self.snap)
    }
}

impl fmt::Debug for HObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Percent-escapes what would be mistaken for a separator, and what is not printable ASCII.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'%' | b':' | b'/' | 0..32 | 127.. => write!(f, "%{byte:02x}")?,
                _ => write!(f, "{}", char::from(byte))?,
            }
        }
        Ok(())
    }
}

fn unescape(text: &str) -> Option<ByteString> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let byte = if *first == b'%' {
            let (digits, tail) = rest.split_first_chunk::<2>()?;
            rest = tail;
            u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
        } else {
            *first
        };
        bytes.push(byte);
    }
    Some(bytes.into())
}

fn parse_snap(text: &str) -> Option<SnapId> {
    match text {
        "head" => Some(SnapId::HEAD),
        "snapdir" => Some(SnapId::SNAPDIR),
        _ => u64::from_str_radix(text, 16).ok().map(SnapId),
    }
}

/// Reads what `Display` writes.
impl FromStr for HObject {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let mut parts = text.split(':');
            let mut next = || parts.next();
            let object = Self {
                pool: next()?.parse().ok()?,
                hash: u32::from_str_radix(next()?, 16).ok()?.reverse_bits(),
                namespace: unescape(next()?)?,
                key: unescape(next()?)?,
                oid: unescape(next()?)?,
                snap: parse_snap(next()?)?,
                max: false,
            };
            next().is_none().then_some(object)
        };
        match text {
            "MIN" => Ok(Self::min()),
            "MAX" => Ok(Self::max()),
            _ => parse()
                .ok_or_else(|| ParseError::new("an object such as 3:01000000:::name:head", text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Features;

    fn object(pool: i64, hash: u32, oid: &str) -> HObject {
        HObject::new(pool, oid, hash)
    }

    #[test]
    fn version_4() {
        let wire = b"\x04\x03\x25\0\0\0\x01\0\0\0k\x01\0\0\0o\xfe\xff\xff\xff\xff\xff\xff\xff\
            \x44\x33\x22\x11\0\x02\0\0\0ns\x05\0\0\0\0\0\0\0";
        let expected =
            HObject { key: "k".into(), namespace: "ns".into(), ..object(5, 0x1122_3344, "o") };
        assert_eq!(&expected.to_bytes(Features::ALL)[..], wire);
        assert_eq!(HObject::from_bytes(&Bytes::from_static(wire)), Ok(expected));
    }

    #[test]
    fn old_versions_lack_pool_and_namespace() {
        let tail = b"\x01\0\0\0o\x01\0\0\0\0\0\0\0\x09\0\0\0";
        let decode =
            |head: &[u8], tail: &[u8]| HObject::from_bytes(&[head, tail].concat().into()).unwrap();
        let expected = HObject { oid: "o".into(), snap: SnapId(1), hash: 9, ..HObject::min() };
        assert_eq!(decode(&[0], tail), expected);
        assert_eq!(decode(&[1, 0, 0, 0, 0], tail), expected);
        let third = [&[3, 3, 22, 0, 0, 0, 0, 0, 0, 0], &tail[..]].concat();
        assert_eq!(decode(&third, &[0]), expected);
        assert_eq!(decode(&third, &[1]), HObject::max());
    }

    #[test]
    fn hammers_minimum_is_the_minimum() {
        let mut hammer = HObject::min();
        hammer.pool = -1;
        let decoded = HObject::from_bytes(&hammer.to_bytes(Features::ALL)).unwrap();
        assert!(decoded.is_min());
        assert_eq!(decoded, HObject::min());
    }

    #[test]
    fn keys() {
        let object = object(0, 0x1234_5678, "o");
        assert_eq!(object.nibblewise_key(), 0x8765_4321);
        assert_eq!(object.bitwise_key(), u64::from(0x1234_5678u32.reverse_bits()));
        assert_eq!(HObject::max().bitwise_key(), 1 << 32);
        assert_eq!(HObject::max().nibblewise_key(), 1 << 32);
    }

    #[test]
    fn objects_are_ordered_by_pool_reversed_hash_namespace_key_name_and_snapshot() {
        let keyed = |key: &str| HObject { key: key.into(), ..object(1, 1, "m") };
        let sorted = [
            HObject::min(),
            object(1, 2, "z"),
            object(1, 1, "a"),
            keyed("b"),
            HObject { snap: SnapId(3), ..object(1, 1, "m") },
            object(1, 1, "m"),
            keyed("n"),
            HObject { namespace: "a".into(), ..object(1, 1, "a") },
            object(2, 0, ""),
            HObject::max(),
        ];
        for pair in sorted.windows(2) {
            assert!(pair[0] < pair[1], "{:?} < {:?}", pair[0], pair[1]);
        }
    }

    #[test]
    fn texts() {
        let odd = HObject {
            namespace: "a:b".into(),
            key: ByteString::from(&b"\xff%"[..]),
            snap: SnapId(0x10),
            ..object(-3, 1, "o/p")
        };
        assert_eq!(odd.to_string(), "-3:80000000:a%3ab:%ff%25:o%2fp:10");
        for object in [odd, object(5, 7, "x y"), HObject::min(), HObject::max()] {
            assert_eq!(object.to_string().parse(), Ok(object));
        }
        for text in ["", "1:2", "1:0:::o:head:", "1:0:::%4:head", "1:0:::o:tail", "x:0:::o:head"] {
            assert!(text.parse::<HObject>().is_err(), "{text}");
        }
    }
}
