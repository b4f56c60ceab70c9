use std::fmt;
use std::str::FromStr;

use super::{ByteString, ParseError};
use crate::{Decode, DecodeError, Decoder, Encode, Encoder};

/// What kind of process takes part (`CEPH_ENTITY_TYPE_*` of `include/msgr.h`). Each is a bit, so
/// that a set of kinds can be told in one byte too.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[denc(fixed)]
pub struct EntityType(pub u8);

const TYPE_NAMES: [(EntityType, &str); 6] = [
    (EntityType::MON, "mon"),
    (EntityType::MDS, "mds"),
    (EntityType::OSD, "osd"),
    (EntityType::CLIENT, "client"),
    (EntityType::MGR, "mgr"),
    (EntityType::AUTH, "auth"),
];

impl EntityType {
    /// No kind: not known yet.
    pub const NONE: Self = Self(0);
    /// A monitor.
    pub const MON: Self = Self(1);
    /// A metadata server.
    pub const MDS: Self = Self(2);
    /// An object storage daemon.
    pub const OSD: Self = Self(4);
    /// A client.
    pub const CLIENT: Self = Self(8);
    /// A manager.
    pub const MGR: Self = Self(16);
    /// The authentication service, which issues tickets.
    pub const AUTH: Self = Self(32);
    /// Any kind.
    pub const ANY: Self = Self(255);

    /// The name that Ceph gives it, if it is one of the constants.
    pub fn name(self) -> Option<&'static str> {
        TYPE_NAMES.iter().find(|(kind, _)| *kind == self).map(|(_, name)| *name)
    }
}

/// Ceph's name for it, `unknown` if it has none.
impl fmt::Display for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name().unwrap_or("unknown"))
    }
}

impl fmt::Debug for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "EntityType({})", self.0),
        }
    }
}

impl FromStr for EntityType {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = TYPE_NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(kind, _)| *kind).ok_or_else(|| {
            ParseError::new("an entity type: mon, mds, osd, client, mgr or auth", text)
        })
    }
}

/// A process in the cluster: its kind and number (`entity_name_t`), such as `osd.3`.
///
/// ```
/// use siphon_wire::types::{EntityName, EntityType};
/// let name: EntityName = "osd.3".parse().unwrap();
/// assert_eq!(name, EntityName::osd(3));
/// assert_eq!(EntityName::new(EntityType::CLIENT, EntityName::NEW).to_string(), "client.?");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[denc(name = "entity_name_t", fixed)]
pub struct EntityName {
    /// The kind of process.
    pub kind: EntityType,
    /// Its number among its kind; negative if none is assigned yet.
    pub num: i64,
}

impl EntityName {
    /// The number of a process that has none yet.
    pub const NEW: i64 = -1;

    /// Process `num` of a kind.
    pub const fn new(kind: EntityType, num: i64) -> Self {
        Self { kind, num }
    }

    /// A monitor, by its rank.
    pub const fn mon(num: i64) -> Self {
        Self::new(EntityType::MON, num)
    }

    /// A metadata server.
    pub const fn mds(num: i64) -> Self {
        Self::new(EntityType::MDS, num)
    }

    /// An OSD.
    pub const fn osd(num: i64) -> Self {
        Self::new(EntityType::OSD, num)
    }

    /// A client, by its global id.
    pub const fn client(num: i64) -> Self {
        Self::new(EntityType::CLIENT, num)
    }

    /// A manager.
    pub const fn mgr(num: i64) -> Self {
        Self::new(EntityType::MGR, num)
    }

    /// Whether no number is assigned yet.
    pub const fn is_new(self) -> bool {
        self.num < 0
    }
}

impl fmt::Display for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_new() {
            write!(f, "{}.?", self.kind)
        } else {
            write!(f, "{}.{}", self.kind, self.num)
        }
    }
}

impl fmt::Debug for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads what `Display` writes, for the kinds that have numbers: all but `auth`.
impl FromStr for EntityName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (kind, num) = text.split_once('.')?;
            let kind = kind.parse().ok().filter(|kind| *kind != EntityType::AUTH)?;
            let num = if num == "?" { Self::NEW } else { num.parse().ok()? };
            Some(Self { kind, num })
        };
        parse().ok_or_else(|| ParseError::new("an entity name, such as osd.3 or client.?", text))
    }
}

/// Whom the monitors know by a key and capabilities: kind and id, such as `client.admin` (the
/// class that Ceph calls `EntityName`).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthName {
    /// The kind of process.
    pub kind: EntityType,
    /// What stands behind the dot.
    pub id: ByteString,
}

impl AuthName {
    /// The name `kind.id`.
    pub fn new(kind: EntityType, id: impl Into<ByteString>) -> Self {
        Self { kind, id: id.into() }
    }
}

impl fmt::Display for AuthName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, self.id)
    }
}

impl fmt::Debug for AuthName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AuthName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (kind, id) = text.split_once('.')?;
            Some(Self::new(kind.parse().ok()?, id))
        };
        parse().ok_or_else(|| ParseError::new("a name such as client.admin", text))
    }
}

impl Encode for AuthName {
    fn encode(&self, enc: &mut Encoder) {
        enc.u32(u32::from(self.kind.0));
        enc.value(&self.id);
    }
}

impl Decode for AuthName {
    const MIN_SIZE: usize = 8;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("EntityName", |dec| {
            let kind = dec.u32()?;
            let kind = u8::try_from(kind)
                .map_err(|_| dec.invalid("an entity type below 256", u64::from(kind)))?;
            Ok(Self { kind: EntityType(kind), id: dec.value()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Features;

    #[test]
    fn a_name_is_nine_bytes() {
        let wire = [4, 3, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(&EntityName::osd(3).to_bytes(Features::ALL)[..], wire);
        assert_eq!(EntityName::from_bytes(&Bytes::copy_from_slice(&wire)), Ok(EntityName::osd(3)));
    }

    #[test]
    fn an_auth_name_has_a_wide_kind() {
        let name = AuthName::new(EntityType::CLIENT, "admin");
        assert_eq!(&name.to_bytes(Features::ALL)[..], b"\x08\0\0\0\x05\0\0\0admin");
        let error = AuthName::from_bytes(&Bytes::from_static(&[0, 1, 0, 0, 0, 0, 0, 0]));
        assert_eq!(error.unwrap_err().type_name, "EntityName");
    }

    #[test]
    fn names_are_written_and_read_as_ceph_does() {
        for text in ["mon.0", "mds.2", "osd.17", "client.4123", "mgr.9", "client.?"] {
            assert_eq!(text.parse::<EntityName>().unwrap().to_string(), text);
        }
        for text in ["", "osd", "osd.", "osd.x", "osd. 1", "auth.1", "unknown.1", "osd.1.2"] {
            assert!(text.parse::<EntityName>().is_err(), "{text}");
        }
        assert_eq!(EntityName::default().to_string(), "unknown.0");
        assert_eq!("client.admin".parse::<AuthName>().unwrap().to_string(), "client.admin");
        assert!("admin".parse::<AuthName>().is_err());
    }
}
