use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use super::addr::{MARKER_ADDR2, MARKER_LEGACY};
use super::{AddrType, EntityAddr, Features, ParseError};
use crate::{Decode, DecodeError, Decoder, Encode, Encoder};

/// The addresses of one process, usually one for each protocol (`entity_addrvec_t`).
///
/// ```
/// use siphon_wire::types::EntityAddrVec;
/// let addrs: EntityAddrVec = "[v2:127.0.0.1:3300/0,v1:127.0.0.1:6789/0]".parse().unwrap();
/// assert_eq!(addrs.msgr2().unwrap().port(), 3300);
/// assert_eq!(addrs.legacy().unwrap().port(), 6789);
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityAddrVec(pub Vec<EntityAddr>);

impl EntityAddrVec {
    /// No address.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The first address of a type.
    pub fn of_type(&self, kind: AddrType) -> Option<EntityAddr> {
        self.iter().find(|addr| addr.kind() == kind).copied()
    }

    /// Where msgr2 is spoken.
    pub fn msgr2(&self) -> Option<EntityAddr> {
        self.of_type(AddrType::MSGR2)
    }

    /// Where msgr1 is spoken.
    pub fn legacy(&self) -> Option<EntityAddr> {
        self.of_type(AddrType::LEGACY)
    }

    /// The first address, or none at all.
    pub fn front(&self) -> EntityAddr {
        self.first().copied().unwrap_or_default()
    }

    /// The legacy address, or else the first one: how Ceph's logs name a process.
    pub fn legacy_or_front(&self) -> EntityAddr {
        self.legacy().unwrap_or_else(|| self.front())
    }

    /// Whether any of them is at the IP address of `other`.
    pub fn is_same_host(&self, other: &EntityAddr) -> bool {
        self.iter().any(|addr| addr.is_same_host(other))
    }

    /// Whether both may be the same process, where either may not know its own IP address yet:
    /// as many addresses, and pairwise [probably equal](EntityAddr::probably_equals).
    pub fn probably_equals(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.iter().zip(other.iter()).all(|(a, b)| a.probably_equals(b))
    }

    /// Whether both are equal as far as a peer that knows one legacy address only can tell.
    pub fn legacy_equals(&self, other: &Self) -> bool {
        let sole_legacy = |addrs: &Self| match addrs[..] {
            [addr] if addr.kind() == AddrType::LEGACY => Some(addr),
            _ => None,
        };
        self == other
            || sole_legacy(self).is_some_and(|addr| other.legacy() == Some(addr))
            || sole_legacy(other).is_some_and(|addr| self.legacy() == Some(addr))
    }
}

impl Deref for EntityAddrVec {
    type Target = [EntityAddr];

    fn deref(&self) -> &[EntityAddr] {
        &self.0
    }
}

impl From<EntityAddr> for EntityAddrVec {
    fn from(addr: EntityAddr) -> Self {
        Self(vec![addr])
    }
}

impl From<Vec<EntityAddr>> for EntityAddrVec {
    fn from(addrs: Vec<EntityAddr>) -> Self {
        Self(addrs)
    }
}

impl FromIterator<EntityAddr> for EntityAddrVec {
    fn from_iter<I: IntoIterator<Item = EntityAddr>>(addrs: I) -> Self {
        Self(addrs.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a EntityAddrVec {
    type Item = &'a EntityAddr;
    type IntoIter = std::slice::Iter<'a, EntityAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What stands before a vector; the other values stand before a single address.
const MARKER_VEC: u8 = 2;

/// For peers without `MSG_ADDR2`, the legacy address alone.
impl Encode for EntityAddrVec {
    fn encode(&self, enc: &mut Encoder) {
        if enc.features().has(Features::MSG_ADDR2) {
            enc.u8(MARKER_VEC);
            enc.value(&self.0);
        } else {
            self.legacy().unwrap_or_default().encode_legacy(enc);
        }
    }
}

/// Accepts a single address too, of either form.
impl Decode for EntityAddrVec {
    const MIN_SIZE: usize = 5;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("entity_addrvec_t", |dec| match dec.u8()? {
            marker @ (MARKER_LEGACY | MARKER_ADDR2) => {
                EntityAddr::decode_marked(dec, marker).map(Self::from)
            }
            MARKER_VEC => dec.value().map(Self),
            marker => Err(dec.invalid("an address vector's marker of 0 to 2", u64::from(marker))),
        })
    }
}

/// Several addresses stand in brackets; one stands alone, and of none nothing is seen.
impl fmt::Display for EntityAddrVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [addr] = self[..] {
            return write!(f, "{addr}");
        }
        let mut separator = "[";
        for addr in self {
            write!(f, "{separator}{addr}")?;
            separator = ",";
        }
        if self.is_empty() { Ok(()) } else { f.write_str("]") }
    }
}

impl fmt::Debug for EntityAddrVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// Reads one address, or several in brackets; never none.
impl FromStr for EntityAddrVec {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        // `[::1]:6789` begins with a bracket too, and is one address.
        if let Ok(addr) = text.parse::<EntityAddr>() {
            return Ok(addr.into());
        }
        parse_bracketed(text).ok_or_else(|| {
            let expected = "addresses such as [v2:127.0.0.1:3300/0,v1:127.0.0.1:6789/0]";
            ParseError::new(expected, text)
        })
    }
}

fn parse_bracketed(text: &str) -> Option<EntityAddrVec> {
    let mut rest = text.strip_prefix('[')?.strip_suffix(']')?;
    let mut addrs = Vec::new();
    loop {
        let (addr, tail) = EntityAddr::parse_prefix(rest)?;
        addrs.push(addr);
        if tail.is_empty() {
            return Some(EntityAddrVec(addrs));
        }
        rest = tail.strip_prefix(',')?;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const BOTH: &str = "[v2:127.0.0.1:3300/0,v1:127.0.0.1:6789/0]";

    fn addrs(text: &str) -> EntityAddrVec {
        text.parse().unwrap()
    }

    #[test]
    fn a_vector_of_two() {
        let wire = b"\x02\x02\0\0\0\
            \x01\x01\x01\x1c\0\0\0\x02\0\0\0\0\0\0\0\x10\0\0\0\x02\0\x0c\xe4\x7f\0\0\x01\0\0\0\0\0\0\0\0\
            \x01\x01\x01\x1c\0\0\0\x01\0\0\0\0\0\0\0\x10\0\0\0\x02\0\x1a\x85\x7f\0\0\x01\0\0\0\0\0\0\0\0";
        assert_eq!(&addrs(BOTH).to_bytes(Features::ALL)[..], wire);
        assert_eq!(EntityAddrVec::from_bytes(&Bytes::from_static(wire)).unwrap(), addrs(BOTH));
    }

    #[test]
    fn peers_without_addr2_get_the_legacy_address() {
        let wire = addrs(BOTH).to_bytes(Features::NONE);
        assert_eq!(wire, addrs("v1:127.0.0.1:6789/0").front().to_bytes(Features::NONE));
        assert_eq!(EntityAddrVec::from_bytes(&wire).unwrap(), addrs("v1:127.0.0.1:6789/0"));
        let none = EntityAddrVec::new().to_bytes(Features::NONE);
        assert_eq!(EntityAddrVec::from_bytes(&none).unwrap(), EntityAddr::NONE.into());
    }

    #[test]
    fn a_single_addr2_address_is_a_vector_of_one() {
        let addr = addrs("v2:1.2.3.4:5/6").front();
        let wire = addr.to_bytes(Features::ALL);
        assert_eq!(EntityAddrVec::from_bytes(&wire).unwrap(), addr.into());
        assert!(EntityAddrVec::from_bytes(&Bytes::from_static(&[3])).is_err());
    }

    #[test]
    fn texts_are_cephs() {
        for text in [BOTH, "v2:1.2.3.4:5/6", "v2:[::1]:3300/0", "[v2:[::1]:3300/0,-]", "-"] {
            assert_eq!(addrs(text).to_string(), text);
        }
        assert_eq!(addrs("[::1]:6789").to_string(), "v2:[::1]:6789/0");
        assert_eq!(EntityAddrVec::new().to_string(), "");
        for text in ["", "[]", "[v2:1.2.3.4:5/6", "[v2:1.2.3.4:5/6,]", "[1.2.3.4;1.2.3.5]"] {
            assert!(text.parse::<EntityAddrVec>().is_err(), "{text}");
        }
    }

    #[test]
    fn equality_with_peers_that_know_less() {
        let blank = addrs("[v2:0.0.0.0:3300/0,v1:0.0.0.0:6789/0]");
        assert!(blank.probably_equals(&addrs(BOTH)));
        assert!(!blank.probably_equals(&addrs("v2:0.0.0.0:3300/0")));
        assert!(addrs(BOTH).legacy_equals(&addrs("v1:127.0.0.1:6789/0")));
        assert!(addrs("v1:127.0.0.1:6789/0").legacy_equals(&addrs(BOTH)));
        assert!(!addrs("v2:127.0.0.1:3300/0").legacy_equals(&addrs(BOTH)));
    }
}
