use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

use super::{Features, ParseError};
use crate::{Decode, DecodeError, Decoder, Encode, Encoder};

/// Which protocol is spoken at an address (`entity_addr_t::type_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrType(pub u32);

const TYPE_NAMES: [(AddrType, &str); 5] = [
    (AddrType::NONE, "none"),
    (AddrType::LEGACY, "v1"),
    (AddrType::MSGR2, "v2"),
    (AddrType::ANY, "any"),
    (AddrType::CIDR, "cidr"),
];

impl AddrType {
    /// No address.
    pub const NONE: Self = Self(0);
    /// The legacy protocol, msgr1.
    pub const LEGACY: Self = Self(1);
    /// msgr2.
    pub const MSGR2: Self = Self(2);
    /// Either, or not known.
    pub const ANY: Self = Self(3);
    /// Not an address but a network, in a blocklist; its prefix length takes the nonce's place.
    pub const CIDR: Self = Self(4);
}

/// Ceph's name for it, `???` if it has none.
impl fmt::Display for AddrType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = TYPE_NAMES.iter().find(|(kind, _)| kind == self);
        f.write_str(name.map_or("???", |(_, name)| name))
    }
}

/// Linux's numbers for address families, which Ceph puts on the wire.
const AF_UNSPEC: u16 = 0;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// What an address family keeps behind its number, at most: `sizeof(sockaddr_in6)` less two.
const SOCKADDR_DATA_MAX: usize = 26;
/// The same for IPv4: port, address, eight bytes of padding.
const SOCKADDR_IN_DATA: usize = 14;
/// The same for the legacy encoding's `sockaddr_storage`.
const SOCKADDR_STORAGE_DATA: usize = 126;

/// A `sockaddr` as Ceph keeps it: a family and up to 26 bytes, the rest of which are zero.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct RawSockaddr {
    family: u16,
    data: [u8; SOCKADDR_DATA_MAX],
}

impl RawSockaddr {
    const UNSPEC: Self = Self { family: AF_UNSPEC, data: [0; SOCKADDR_DATA_MAX] };

    fn new(addr: SocketAddr) -> Self {
        let mut data = [0; SOCKADDR_DATA_MAX];
        data[..2].copy_from_slice(&addr.port().to_be_bytes());
        let family = match addr {
            SocketAddr::V4(addr) => {
                data[2..6].copy_from_slice(&addr.ip().octets());
                AF_INET
            }
            SocketAddr::V6(addr) => {
                data[2..6].copy_from_slice(&addr.flowinfo().to_le_bytes());
                data[6..22].copy_from_slice(&addr.ip().octets());
                data[22..].copy_from_slice(&addr.scope_id().to_le_bytes());
                AF_INET6
            }
        };
        Self { family, data }
    }

    fn socket_addr(&self) -> Option<SocketAddr> {
        let (port, rest) = self.data.split_first_chunk::<2>()?;
        let port = u16::from_be_bytes(*port);
        let (first, rest) = rest.split_first_chunk::<4>()?;
        match self.family {
            AF_INET => Some(SocketAddrV4::new(Ipv4Addr::from_octets(*first), port).into()),
            AF_INET6 => {
                let (ip, scope) = rest.split_first_chunk::<16>()?;
                let ip = Ipv6Addr::from_octets(*ip);
                let scope = u32::from_le_bytes(*scope.first_chunk()?);
                let flowinfo = u32::from_le_bytes(*first);
                Some(SocketAddrV6::new(ip, port, flowinfo, scope).into())
            }
            _ => None,
        }
    }

    /// How many bytes of `data` belong to the family: what Ceph encodes, and at most decodes.
    fn data_len(&self) -> usize {
        if self.family == AF_INET { SOCKADDR_IN_DATA } else { SOCKADDR_DATA_MAX }
    }
}

/// Where a process listens, or who it is: protocol, socket address, and a nonce that tells it
/// from others that have or had the same address (`entity_addr_t`).
///
/// The order is Ceph's, which compares the bytes of the structure in memory: connection races
/// are won by it. Texts are Ceph's too: `v2:127.0.0.1:3300/0`, `v1:[::1]:6789/42`, `-`.
///
/// ```
/// use siphon_wire::types::{AddrType, EntityAddr};
/// let addr: EntityAddr = "v2:[::1]:3300/7".parse().unwrap();
/// assert_eq!(addr, EntityAddr::msgr2("[::1]:3300".parse().unwrap(), 7));
/// assert_eq!(addr.kind(), AddrType::MSGR2);
/// assert_eq!(addr.to_string(), "v2:[::1]:3300/7");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EntityAddr {
    kind: AddrType,
    nonce: u32,
    sockaddr: RawSockaddr,
}

impl EntityAddr {
    /// No address at all: the default.
    pub const NONE: Self = Self { kind: AddrType::NONE, nonce: 0, sockaddr: RawSockaddr::UNSPEC };

    /// An address of any type; without a socket address, its family is `AF_UNSPEC`.
    pub fn new(kind: AddrType, nonce: u32, addr: Option<SocketAddr>) -> Self {
        Self { kind, nonce, sockaddr: addr.map_or(RawSockaddr::UNSPEC, RawSockaddr::new) }
    }

    /// Where msgr2 is spoken.
    pub fn msgr2(addr: SocketAddr, nonce: u32) -> Self {
        Self::new(AddrType::MSGR2, nonce, Some(addr))
    }

    /// Where msgr1 is spoken.
    pub fn legacy(addr: SocketAddr, nonce: u32) -> Self {
        Self::new(AddrType::LEGACY, nonce, Some(addr))
    }

    /// The protocol.
    pub const fn kind(&self) -> AddrType {
        self.kind
    }

    /// What tells this process from others at the same address.
    pub const fn nonce(&self) -> u32 {
        self.nonce
    }

    /// The IP address and port; none if the address has none, or is of another family.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.sockaddr.socket_addr()
    }

    /// The IP address.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|addr| addr.ip())
    }

    /// The port, 0 if there is none.
    pub fn port(&self) -> u16 {
        self.socket_addr().map_or(0, |addr| addr.port())
    }

    /// The address family's number on Linux: 0 for none, 2 for IPv4, 10 for IPv6.
    pub const fn family(&self) -> u16 {
        self.sockaddr.family
    }

    /// The same address for another protocol.
    #[must_use]
    pub const fn with_kind(self, kind: AddrType) -> Self {
        Self { kind, ..self }
    }

    /// The same address with another nonce.
    #[must_use]
    pub const fn with_nonce(self, nonce: u32) -> Self {
        Self { nonce, ..self }
    }

    /// The same protocol and nonce elsewhere.
    #[must_use]
    pub fn with_socket_addr(self, addr: SocketAddr) -> Self {
        Self { sockaddr: RawSockaddr::new(addr), ..self }
    }

    /// The same address with another port, if it has one.
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        match self.socket_addr() {
            Some(mut addr) => {
                addr.set_port(port);
                self.with_socket_addr(addr)
            }
            None => self,
        }
    }

    /// Whether the IP address is not known: unspecified (`0.0.0.0`, `::`), or none.
    pub fn is_blank_ip(&self) -> bool {
        self.ip().is_none_or(|ip| ip.is_unspecified())
    }

    /// Whether both are at the same IP address.
    pub fn is_same_host(&self, other: &Self) -> bool {
        self.ip().is_some_and(|ip| other.ip() == Some(ip))
    }

    /// Whether both may be the same process, where either may not know its own IP address yet.
    pub fn probably_equals(&self, other: &Self) -> bool {
        self.port() == other.port()
            && self.nonce == other.nonce
            && (self.is_blank_ip() || other.is_blank_ip() || self.sockaddr == other.sockaddr)
    }

    /// The structure as Ceph has it in memory on x86, by which it is compared.
    fn memory(&self) -> [u8; 10 + SOCKADDR_DATA_MAX] {
        let mut memory = [0; 10 + SOCKADDR_DATA_MAX];
        memory[..4].copy_from_slice(&self.kind.0.to_le_bytes());
        memory[4..8].copy_from_slice(&self.nonce.to_le_bytes());
        memory[8..10].copy_from_slice(&self.sockaddr.family.to_le_bytes());
        memory[10..].copy_from_slice(&self.sockaddr.data);
        memory
    }
}

impl Ord for EntityAddr {
    fn cmp(&self, other: &Self) -> Ordering {
        self.memory().cmp(&other.memory())
    }
}

impl PartialOrd for EntityAddr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What stands before an encoded address: the first byte of the legacy form's type, always 0,
/// or the number of the form.
pub(super) const MARKER_LEGACY: u8 = 0;
pub(super) const MARKER_ADDR2: u8 = 1;

impl EntityAddr {
    /// The legacy form: `ceph_entity_addr` of `include/msgr.h`. Its family is big-endian.
    pub(super) fn encode_legacy(&self, enc: &mut Encoder) {
        enc.u32(0);
        enc.u32(self.nonce);
        enc.raw(&self.sockaddr.family.to_be_bytes());
        enc.raw(&self.sockaddr.data);
        enc.raw(&[0; SOCKADDR_STORAGE_DATA - SOCKADDR_DATA_MAX]);
    }

    /// The legacy form behind its marker. As in Ceph, other families than IPv4 and IPv6 are
    /// taken for no address.
    fn decode_legacy(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.skip(3)?;
        let nonce = dec.u32()?;
        let family = u16::from_be_bytes(dec.array()?);
        let mut data = dec.array()?;
        dec.skip(SOCKADDR_STORAGE_DATA - SOCKADDR_DATA_MAX)?;
        if family == AF_INET {
            data[SOCKADDR_IN_DATA..].fill(0);
        }
        let none = !matches!(family, AF_INET | AF_INET6);
        let kind = if none { AddrType::NONE } else { AddrType::LEGACY };
        let sockaddr = if none { RawSockaddr::UNSPEC } else { RawSockaddr { family, data } };
        Ok(Self { kind, nonce, sockaddr })
    }

    /// The form that `MSG_ADDR2` brought, behind its marker.
    fn decode_addr2(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("entity_addr_t", 1, |dec, _version| {
            let (kind, nonce, len): (u32, u32, u32) = dec.value()?;
            let (kind, len) = (AddrType(kind), len as usize);
            if len == 0 {
                return Ok(Self { kind, nonce, sockaddr: RawSockaddr::UNSPEC });
            }
            let mut sockaddr = RawSockaddr { family: dec.u16()?, data: [0; _] };
            match len.checked_sub(2) {
                Some(len) if len <= sockaddr.data_len() => {
                    sockaddr.data[..len].copy_from_slice(dec.slice(len)?);
                    Ok(Self { kind, nonce, sockaddr })
                }
                _ => Err(dec.invalid("a sockaddr's length", len as u64)),
            }
        })
    }

    /// Either form behind `marker`.
    pub(super) fn decode_marked(dec: &mut Decoder<'_>, marker: u8) -> Result<Self, DecodeError> {
        match marker {
            MARKER_LEGACY => Self::decode_legacy(dec),
            MARKER_ADDR2 => Self::decode_addr2(dec),
            _ => Err(dec.invalid("an address marker of 0 or 1", u64::from(marker))),
        }
    }
}

/// In the form that came with `MSG_ADDR2`, or the legacy one for peers without it, which has no
/// room for the protocol.
impl Encode for EntityAddr {
    fn encode(&self, enc: &mut Encoder) {
        if !enc.features().has(Features::MSG_ADDR2) {
            return self.encode_legacy(enc);
        }
        // Peers before Nautilus do not know `any`, which for them means legacy.
        let any_is_known = enc.features().has(Features::SERVER_NAUTILUS);
        let kind = match self.kind {
            AddrType::ANY if !any_is_known => AddrType::LEGACY,
            kind => kind,
        };
        enc.u8(MARKER_ADDR2);
        enc.versioned(1, 1, |enc| {
            let data = &self.sockaddr.data[..self.sockaddr.data_len()];
            enc.fixed((kind.0, self.nonce, 2 + data.len() as u32, self.sockaddr.family));
            enc.raw(data);
        });
    }
}

impl Decode for EntityAddr {
    /// The marker, the section's head, type, nonce, and no socket address.
    const MIN_SIZE: usize = 1 + 6 + 12;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("entity_addr_t", |dec| {
            let marker = dec.u8()?;
            Self::decode_marked(dec, marker)
        })
    }
}

impl fmt::Display for EntityAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            AddrType::NONE => return f.write_str("-"),
            AddrType::ANY => {}
            kind => write!(f, "{kind}:")?,
        }
        match self.socket_addr() {
            // A network has no port.
            Some(addr) if self.kind == AddrType::CIDR => write!(f, "{}", addr.ip())?,
            Some(addr @ SocketAddr::V4(_)) => write!(f, "{addr}")?,
            // Without the scope, which `SocketAddrV6` would show.
            Some(SocketAddr::V6(addr)) => write!(f, "[{}]:{}", addr.ip(), addr.port())?,
            None => write!(f, "(unrecognized address family {})", self.family())?,
        }
        write!(f, "/{}", self.nonce)
    }
}

impl fmt::Debug for EntityAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads what `Display` writes, and, as Ceph does, addresses without protocol (which mean
/// msgr2), port or nonce (which are 0 then).
impl FromStr for EntityAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse_prefix(text)
            .filter(|(_, rest)| rest.is_empty())
            .map(|(addr, _)| addr)
            .ok_or_else(|| ParseError::new("an address such as v2:127.0.0.1:3300/0", text))
    }
}

impl EntityAddr {
    /// Reads an address from the front of `text`, and gives what follows it.
    pub(super) fn parse_prefix(text: &str) -> Option<(Self, &str)> {
        if let Some(rest) = text.strip_prefix('-') {
            return Some((Self::NONE, rest));
        }
        let named = TYPE_NAMES[1..]
            .iter()
            .find_map(|(kind, name)| Some((*kind, text.strip_prefix(name)?.strip_prefix(':')?)));
        let (kind, rest) = named.unwrap_or((AddrType::MSGR2, text));
        let (ip, rest) = match rest.strip_prefix('[') {
            Some(rest) => {
                rest.split_once(']').and_then(|(ip, rest)| Some((parse_ip(ip)?, rest)))?
            }
            None => parse_bare_ip(rest)?,
        };
        let (port, rest) = parse_number(rest, ':')?;
        let (nonce, rest) = parse_number(rest, '/')?;
        let addr = SocketAddr::new(ip, port.unwrap_or(0));
        Some((Self::new(kind, nonce.unwrap_or(0), Some(addr)), rest))
    }
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// An IPv4 address, or an IPv6 address that takes every colon for its own.
fn parse_bare_ip(text: &str) -> Option<(IpAddr, &str)> {
    let split = |part_of_ip: fn(char) -> bool| {
        let end = text.find(|c| !part_of_ip(c)).unwrap_or(text.len());
        let (ip, rest) = text.split_at(end);
        Some((parse_ip(ip)?, rest))
    };
    split(|c| matches!(c, '0'..='9' | '.'))
        .or_else(|| split(|c| matches!(c, '0'..='9' | 'a'..='f' | 'A'..='F' | ':' | '.')))
}

/// A number behind `mark`, if the text goes on with that; none if the number is out of range.
fn parse_number<T: FromStr>(text: &str, mark: char) -> Option<(Option<T>, &str)> {
    let Some(text) = text.strip_prefix(mark) else {
        return Some((None, text));
    };
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((Some(number.parse().ok()?), rest))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn addr(text: &str) -> EntityAddr {
        text.parse().unwrap()
    }

    const LUMINOUS: Features = Features(Features::SERVER_LUMINOUS.0 | Features::MSG_ADDR2.0);

    #[test]
    fn ipv4_as_addr2() {
        let wire = b"\x01\x01\x01\x1c\0\0\0\x02\0\0\0\x07\0\0\0\x10\0\0\0\
            \x02\0\x0c\xe4\x7f\0\0\x01\0\0\0\0\0\0\0\0";
        assert_eq!(&addr("v2:127.0.0.1:3300/7").to_bytes(Features::ALL)[..], wire);
        let decoded = EntityAddr::from_bytes(&Bytes::from_static(wire));
        assert_eq!(decoded.unwrap(), addr("v2:127.0.0.1:3300/7"));
    }

    #[test]
    fn ipv6_as_addr2_keeps_flow_and_scope() {
        let wire = b"\x01\x01\x01\x28\0\0\0\x01\0\0\0\0\0\0\0\x1c\0\0\0\
            \x0a\0\x1a\x85\x01\0\0\0\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x09\x02\0\0\0";
        let ip = "fe80::9".parse().unwrap();
        let expected = EntityAddr::legacy(SocketAddrV6::new(ip, 6789, 1, 2).into(), 0);
        assert_eq!(&expected.to_bytes(Features::ALL)[..], wire);
        let decoded = EntityAddr::from_bytes(&Bytes::from_static(wire)).unwrap();
        assert_eq!(decoded, expected);
        assert_eq!(decoded.to_string(), "v1:[fe80::9]:6789/0");
    }

    #[test]
    fn the_legacy_form_is_136_bytes_with_a_big_endian_family() {
        let legacy = addr("v1:10.0.0.1:6789/5").to_bytes(Features::NONE);
        assert_eq!(legacy.len(), 136);
        assert_eq!(&legacy[..16], b"\0\0\0\0\x05\0\0\0\0\x02\x1a\x85\x0a\0\0\x01");
        assert!(legacy[16..].iter().all(|byte| *byte == 0));
        assert_eq!(EntityAddr::from_bytes(&legacy).unwrap(), addr("v1:10.0.0.1:6789/5"));
        // The protocol does not fit in.
        let msgr2 = addr("v2:10.0.0.1:6789/5").to_bytes(Features::NONE);
        assert_eq!(msgr2, legacy);
        let none = EntityAddr::from_bytes(&EntityAddr::NONE.to_bytes(Features::NONE));
        assert_eq!(none.unwrap(), EntityAddr::NONE);
    }

    #[test]
    fn any_is_legacy_for_peers_before_nautilus() {
        let any = addr("any:1.2.3.4:0/0");
        let decode = |features| EntityAddr::from_bytes(&any.to_bytes(features)).unwrap().kind();
        assert_eq!(decode(LUMINOUS), AddrType::LEGACY);
        assert_eq!(decode(Features::ALL), AddrType::ANY);
    }

    #[test]
    fn other_families_survive() {
        let wire = b"\x01\x01\x01\x28\0\0\0\x02\0\0\0\0\0\0\0\x1c\0\0\0\
            \x01\0/run/ceph/a-unix-socket-..";
        let decoded = EntityAddr::from_bytes(&Bytes::from_static(wire)).unwrap();
        assert_eq!((decoded.family(), decoded.socket_addr()), (1, None));
        assert_eq!(&decoded.to_bytes(Features::ALL)[..], wire);
        assert_eq!(decoded.to_string(), "v2:(unrecognized address family 1)/0");
    }

    #[test]
    fn sockaddr_lengths_are_checked() {
        let decode = |len: u8, tail: &[u8]| {
            let mut wire = vec![1, 1, 1, 12 + tail.len() as u8, 0, 0, 0];
            wire.extend([2, 0, 0, 0, 0, 0, 0, 0, len, 0, 0, 0]);
            wire.extend(tail);
            EntityAddr::from_bytes(&wire.into())
        };
        assert_eq!(decode(0, &[]).unwrap(), EntityAddr::NONE.with_kind(AddrType::MSGR2));
        assert!(decode(1, &[2, 0]).is_err());
        assert_eq!(decode(4, &[2, 0, 0, 9]).unwrap().port(), 9);
        assert!(decode(17, &[2, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(EntityAddr::from_bytes(&Bytes::from_static(&[2])).is_err());
    }

    #[test]
    fn texts_are_cephs() {
        for text in [
            "-",
            "v2:127.0.0.1:3300/0",
            "v1:10.1.2.3:6789/4294967295",
            "v2:[::1]:3300/9",
            "v1:[fe80::1]:0/0",
            "cidr:10.0.0.0/8",
        ] {
            assert_eq!(addr(text).to_string(), text);
        }
        assert_eq!(addr("any:1.2.3.4:5/6").to_string(), "1.2.3.4:5/6");
        assert_eq!(addr("1.2.3.4"), addr("v2:1.2.3.4:0/0"));
        assert_eq!(addr("::1"), addr("v2:[::1]:0/0"));
        assert_eq!(addr("[::1]:5"), addr("v2:[::1]:5/0"));
        assert_eq!(addr("[1.2.3.4]:5"), addr("v2:1.2.3.4:5/0"));
        for text in [
            "",
            "v2:",
            "v3:1.2.3.4:5/6",
            "1.2.3",
            "1.2.3.4:65536",
            "1.2.3.4:",
            "[::1",
            "::1]:5",
            "1.2.3.4:5/4294967296",
            "1.2.3.4:5/6 ",
            "1.2.3.4x",
            "localhost:6789",
            "--",
        ] {
            assert!(text.parse::<EntityAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_order_is_that_of_the_bytes_in_memory() {
        // The nonce is compared before the address, and its lowest byte first.
        assert!(addr("1.1.1.1:1/256") < addr("1.1.1.1:1/1"));
        assert!(addr("9.9.9.9:1/1") < addr("1.1.1.1:1/2"));
        assert!(addr("v1:9.9.9.9:1/2") < addr("v2:1.1.1.1:1/1"));
        // The port comes before the address, in network order.
        assert!(addr("9.9.9.9:255/1") < addr("1.1.1.1:256/1"));
    }

    #[test]
    fn a_blank_address_is_probably_anyone_with_its_port_and_nonce() {
        let blank = addr("0.0.0.0:6789/5");
        assert!(blank.is_blank_ip() && EntityAddr::NONE.is_blank_ip());
        assert!(blank.probably_equals(&addr("10.0.0.1:6789/5")));
        assert!(!blank.probably_equals(&addr("10.0.0.1:6789/6")));
        assert!(!blank.probably_equals(&addr("10.0.0.1:6790/5")));
        assert!(!addr("10.0.0.2:6789/5").probably_equals(&addr("10.0.0.1:6789/5")));
        assert!(addr("10.0.0.1:1/2").is_same_host(&addr("v1:10.0.0.1:3/4")));
        assert!(!EntityAddr::NONE.is_same_host(&EntityAddr::NONE));
    }

    #[test]
    fn parts_can_be_replaced() {
        let changed = addr("v2:0.0.0.0:0/1").with_port(7).with_nonce(8).with_kind(AddrType::LEGACY);
        assert_eq!(changed, addr("v1:0.0.0.0:7/8"));
        assert_eq!(EntityAddr::NONE.with_port(7), EntityAddr::NONE);
    }
}
