use std::fmt;

use super::{ByteString, EntityName};
use crate::{Decode, DecodeError, Decoder, Encode, Encoder, Fixed};

/// A snapshot's number (`snapid_t`).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[denc(fixed)]
pub struct SnapId(pub u64);

impl SnapId {
    /// No snapshot but the live object (`CEPH_NOSNAP`), shown as `head`.
    pub const HEAD: Self = Self(u64::MAX - 1);
    /// The object that holds a deleted one's snapshots (`CEPH_SNAPDIR`), in old pools.
    pub const SNAPDIR: Self = Self(u64::MAX);
    /// The largest number of a snapshot (`CEPH_MAXSNAP`).
    pub const MAX: Self = Self(u64::MAX - 2);
}

impl fmt::Display for SnapId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::HEAD => f.write_str("head"),
            Self::SNAPDIR => f.write_str("snapdir"),
            Self(number) => write!(f, "{number:x}"),
        }
    }
}

impl fmt::Debug for SnapId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What determines an object's placement besides its name (`object_locator_t`): above all its
/// pool.
///
/// Either `key` or `hash` may be set, not both.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectLocator {
    /// The pool's id; -1 if there is none.
    pub pool: i64,
    /// What is hashed in place of the object's name, if it is not empty.
    pub key: ByteString,
    /// The namespace within the pool.
    pub namespace: ByteString,
    /// What takes the place of the hash itself, if it is not negative.
    pub hash: i64,
}

impl ObjectLocator {
    /// A place in a pool's default namespace.
    pub const fn new(pool: i64) -> Self {
        Self { pool, key: ByteString::new(), namespace: ByteString::new(), hash: -1 }
    }

    /// Whether there is no pool, and so no place.
    pub const fn is_empty(&self) -> bool {
        self.pool == -1
    }
}

/// No place.
impl Default for ObjectLocator {
    fn default() -> Self {
        Self::new(-1)
    }
}

impl fmt::Display for ObjectLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.pool)?;
        if !self.namespace.is_empty() {
            write!(f, ";{}", self.namespace)?;
        }
        if !self.key.is_empty() {
            write!(f, ":{}", self.key)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ObjectLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        if self.hash >= 0 { write!(f, "#{:x}", self.hash) } else { Ok(()) }
    }
}

impl Encode for ObjectLocator {
    fn encode(&self, enc: &mut Encoder) {
        // Who does not know the hash would look for the object elsewhere.
        let compat = if self.hash == -1 { 3 } else { 6 };
        enc.versioned(6, compat, |enc| {
            enc.fixed((self.pool, -1_i32)); // the latter was a preferred OSD once
            enc.value(&self.key);
            enc.value(&self.namespace);
            enc.i64(self.hash);
        });
    }
}

impl Decode for ObjectLocator {
    /// Version 1: pool and preferred OSD in 6 bytes, and an empty key.
    const MIN_SIZE: usize = 1 + 6 + 4;

    #[inline]
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned_since("object_locator_t", 6, 3, 3, |dec, version| {
            let pool = if version < 2 {
                let pool = i64::from(dec.i32()?);
                let _preferred = dec.i16()?;
                pool
            } else {
                let (pool, _preferred): (i64, i32) = dec.value()?;
                pool
            };
            Ok(Self {
                pool,
                key: dec.value()?,
                namespace: if version >= 5 { dec.value()? } else { ByteString::new() },
                hash: if version >= 6 { dec.i64()? } else { -1 },
            })
        })
    }
}

/// Where an OSD sends a client that asked for an object (`request_redirect_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestRedirect {
    /// The place.
    pub locator: ObjectLocator,
    /// The object's name there; empty if it is the same.
    pub object: ByteString,
}

impl Encode for RequestRedirect {
    fn encode(&self, enc: &mut Encoder) {
        enc.versioned(1, 1, |enc| {
            enc.value(&self.locator);
            enc.value(&self.object);
            enc.u32(0); // instructions for the OSD, once
        });
    }
}

impl Decode for RequestRedirect {
    const MIN_SIZE: usize = 6 + ObjectLocator::MIN_SIZE + 4 + 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("request_redirect_t", 1, |dec, _version| {
            let redirect = Self { locator: dec.value()?, object: dec.value()? };
            let _instructions = dec.bytes()?;
            Ok(redirect)
        })
    }
}

/// What identifies a request to an OSD, also when it is sent again (`osd_reqid_t`).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReqId {
    /// Who asks.
    pub name: EntityName,
    /// Which of its lives.
    pub incarnation: i32,
    /// The request's number in it.
    pub tid: u64,
}

impl fmt::Display for ReqId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}:{}", self.name, self.incarnation, self.tid)
    }
}

impl fmt::Debug for ReqId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Fixed for ReqId {
    const SIZE: usize = 6 + EntityName::SIZE + 8 + 4;

    #[inline]
    fn put(self, out: &mut [u8]) {
        (self.name, self.tid, self.incarnation).section(2, 2).put(out);
    }
}

impl Encode for ReqId {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        enc.fixed(*self);
    }
}

impl Decode for ReqId {
    const MIN_SIZE: usize = Self::SIZE;

    #[inline]
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("osd_reqid_t", 2, |dec, _version| {
            let (name, tid, incarnation) = dec.value()?;
            Ok(Self { name, incarnation, tid })
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Features;

    #[test]
    fn a_locator() {
        let wire = b"\x06\x03\x1f\0\0\0\x02\0\0\0\0\0\0\0\xff\xff\xff\xff\
            \x01\0\0\0k\x02\0\0\0ns\xff\xff\xff\xff\xff\xff\xff\xff";
        let locator =
            ObjectLocator { key: "k".into(), namespace: "ns".into(), ..ObjectLocator::new(2) };
        assert_eq!(&locator.to_bytes(Features::ALL)[..], wire);
        assert_eq!(ObjectLocator::from_bytes(&Bytes::from_static(wire)), Ok(locator.clone()));
        assert_eq!(locator.to_string(), "@2;ns:k");
    }

    #[test]
    fn a_locator_with_a_hash_is_for_those_who_know_it() {
        let locator = ObjectLocator { hash: 9, ..ObjectLocator::new(2) };
        let wire = locator.to_bytes(Features::ALL);
        assert_eq!(wire[..2], [6, 6]);
        assert_eq!(ObjectLocator::from_bytes(&wire), Ok(locator));
    }

    #[test]
    fn old_locators() {
        let first = Bytes::from_static(b"\x01\x02\0\0\0\xff\xff\x01\0\0\0k");
        let keyed = ObjectLocator { key: "k".into(), ..ObjectLocator::new(2) };
        assert_eq!(ObjectLocator::from_bytes(&first), Ok(keyed));
        let second = b"\x02\x02\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0";
        let second = ObjectLocator::from_bytes(&Bytes::from_static(second));
        assert_eq!(second, Ok(ObjectLocator::new(2)));
    }

    #[test]
    fn a_redirect_keeps_an_empty_place_for_instructions() {
        let redirect = RequestRedirect { locator: ObjectLocator::new(1), object: "o".into() };
        let wire = redirect.to_bytes(Features::ALL);
        assert_eq!(&wire[wire.len() - 9..], b"\x01\0\0\0o\0\0\0\0");
        assert_eq!(RequestRedirect::from_bytes(&wire), Ok(redirect));
    }

    #[test]
    fn a_request_id() {
        let id = ReqId { name: EntityName::client(7), incarnation: 1, tid: 9 };
        let wire = b"\x02\x02\x15\0\0\0\x08\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x01\0\0\0";
        assert_eq!(&id.to_bytes(Features::ALL)[..], wire);
        assert_eq!(ReqId::from_bytes(&Bytes::from_static(wire)), Ok(id));
        assert_eq!(id.to_string(), "client.7.1:9");
    }

    #[test]
    fn snapshots_show_what_they_mean() {
        assert_eq!(SnapId::HEAD.to_string(), "head");
        assert_eq!(SnapId::SNAPDIR.to_string(), "snapdir");
        assert_eq!(SnapId(0x1f).to_string(), "1f");
    }
}
