use std::fmt;
use std::ops::{BitAnd, BitOr, Sub};

use crate::{Decode, DecodeError, Decoder, Encode, Encoder};

/// A set of Ceph's feature bits (`include/ceph_features.h`), by which two peers agree on what
/// they may send each other.
///
/// Bits are scarce and are used again once no supported release gives them their old meaning. A
/// feature on such a bit comes with the bits that mark its *incarnation*, so that an old peer's
/// use of the bit is not mistaken for it: the constants here are those masks, and
/// [`contains`](Self::contains) is Ceph's `HAVE_FEATURE`.
///
/// ```
/// use siphon_wire::types::Features;
/// let peer = Features::MSG_ADDR2 | Features::SERVER_LUMINOUS;
/// assert!(peer.contains(Features::MSG_ADDR2));
/// assert!(!peer.contains(Features::SERVER_NAUTILUS));
/// assert_eq!(peer.missing(Features::MSG_ADDR2 | Features::CEPHX_V2).to_string(), "CEPHX_V2");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Features(pub u64);

/// What the bits of each incarnation come with (`CEPH_FEATURE_INCARNATION_*`), by its number.
const INCARNATIONS: [u64; 4] = [0, 0, 1 << 57, 1 << 57 | 1 << 28];

/// A row of the table: a bit's meaning.
struct Meaning {
    bit: u32,
    incarnation: usize,
    name: &'static str,
}

impl Meaning {
    const fn mask(&self) -> Features {
        Features(1 << self.bit | INCARNATIONS[self.incarnation])
    }
}

macro_rules! features {
    ($($bit:literal $incarnation:literal $name:ident;)*) => {
        impl Features {
            $(
                #[doc = concat!("`CEPH_FEATUREMASK_", stringify!($name), "`: bit ",
                    stringify!($bit), ", incarnation ", stringify!($incarnation), ".")]
                pub const $name: Self = Meaning {
                    bit: $bit, incarnation: $incarnation, name: stringify!($name)
                }.mask();
            )*
        }

        const MEANINGS: &[Meaning] = &[$(
            Meaning { bit: $bit, incarnation: $incarnation, name: stringify!($name) },
        )*];
    };
}

// Bit, incarnation, name; of one bit, the newest incarnation first, and of one incarnation the
// name that says most first: it is the one that is shown. Bits above Pacific's are from Ceph's
// main branch of 2025. Names whose bit is free again are those that Luminous (12) or later
// still advertised.
features! {
    0 1 UID;
    1 1 NOSRCADDR;
    2 3 SERVER_NAUTILUS;
    3 1 FLOCK;
    4 1 SUBSCRIBE2;
    5 1 MONNAMES;
    6 1 RECONNECT_SEQ;
    7 1 DIRLAYOUTHASH;
    8 1 OBJECTLOCATOR;
    9 1 PGID64;
    10 1 INCSUBOSDMAP;
    11 1 PGPOOL3;
    12 1 OSDREPLYMUX;
    13 1 OSDENC;
    14 2 SERVER_KRAKEN;
    15 1 MONENC;
    16 3 SERVER_OCTOPUS;
    16 3 OSD_REPOP_MLCOD;
    17 3 OS_PERF_STAT_NS;
    18 1 CRUSH_TUNABLES;
    19 2 OSD_PGLOG_HARDLIMIT;
    20 3 SERVER_PACIFIC;
    21 2 SERVER_LUMINOUS;
    21 2 RESEND_ON_SPLIT;
    21 2 RADOS_BACKOFF;
    21 2 OSDMAP_PG_UPMAP;
    21 2 CRUSH_CHOOSE_ARGS;
    22 2 OSD_FIXED_COLLECTION_LIST;
    23 1 MSG_AUTH;
    24 2 RECOVERY_RESERVATION_2;
    25 1 CRUSH_TUNABLES2;
    26 1 CREATEPOOLID;
    27 1 REPLY_CREATE_INODE;
    28 2 SERVER_MIMIC;
    29 1 MDSENC;
    30 1 OSDHASHPSPOOL;
    31 3 SERVER_REEF;
    31 1 MON_SINGLE_PAXOS;
    32 3 STRETCH_MODE;
    33 3 SERVER_QUINCY;
    34 3 RANGE_BLOCKLIST;
    35 1 OSD_CACHEPOOL;
    36 1 CRUSH_V2;
    37 1 EXPORT_PEER;
    38 2 CRUSH_MSR;
    38 1 OSD_ERASURE_CODES;
    39 1 OSDMAP_ENC;
    40 1 MDS_INLINE_DATA;
    41 1 CRUSH_TUNABLES3;
    41 1 OSD_PRIMARY_AFFINITY;
    42 1 MSGR_KEEPALIVE2;
    43 1 OSD_POOLRESEND;
    44 2 NVMEOFHA;
    44 1 ERASURE_CODE_PLUGINS_V2;
    45 2 NVMEOFHAMAP;
    46 1 OSD_FADVISE_FLAGS;
    47 1 MDS_QUOTA;
    48 1 CRUSH_V4;
    49 2 SERVER_SQUID;
    50 2 SERVER_TENTACLE;
    50 1 MON_METADATA;
    51 2 SERVER_UMBRELLA;
    51 2 NVMEOF_BEACON_DIFF;
    51 2 POOL_MIGRATION;
    51 1 OSD_BITWISE_HOBJ_SORT;
    52 1 OSD_PROXY_WRITE_FEATURES;
    53 1 ERASURE_CODE_PLUGINS_V3;
    54 1 OSD_HITSET_GMT;
    55 1 HAMMER_0_94_4;
    56 1 NEW_OSDOP_ENCODING;
    57 1 SERVER_JEWEL;
    57 1 MON_STATEFUL_SUB;
    57 1 MON_ROUTE_OSDMAP;
    58 1 NEW_OSDOPREPLY_ENCODING;
    58 1 CRUSH_TUNABLES5;
    58 1 FS_FILE_LAYOUT_V2;
    59 1 MSG_ADDR2;
    59 1 FS_BTIME;
    59 1 FS_CHANGE_ATTR;
    60 1 OSD_RECOVERY_DELETES;
    61 1 CEPHX_V2;
    62 1 RESERVED;
    63 1 RESERVED_BROKEN;
}

impl Features {
    /// No feature.
    pub const NONE: Self = Self(0);

    /// What a daemon of Pacific (16.2) supports: its `CEPH_FEATURES_SUPPORTED_DEFAULT`.
    pub const PACIFIC: Self = Self(0x3f01_cfb9_fffd_ffff);

    /// What a daemon of Reef (18.2) supports: its `CEPH_FEATURES_SUPPORTED_DEFAULT`.
    pub const REEF: Self = Self(0x3f01_cfbf_fffd_ffff);

    /// What we support (`CEPH_FEATURES_SUPPORTED_DEFAULT`): the same as Reef.
    pub const ALL_SUPPORTED: Self = Self::REEF;

    /// All that this crate encodes for.
    pub const ALL: Self = Self::ALL_SUPPORTED;

    /// Whether all of `features` are in this set: `HAVE_FEATURE` of Ceph.
    #[inline]
    pub const fn contains(self, features: Self) -> bool {
        self.0 & features.0 == features.0
    }

    /// The same as [`contains`](Self::contains), for one feature.
    #[inline]
    pub const fn has(self, feature: Self) -> bool {
        self.contains(feature)
    }

    /// What is in either set.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    #[inline]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this set and not in `other`.
    #[inline]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What of `required` is missing from this set.
    #[inline]
    pub const fn missing(self, required: Self) -> Self {
        required.difference(self)
    }

    /// Whether no bit is set.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The features' names, one for each bit that is set and known, from the lowest bit up.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        (0..u64::BITS).filter_map(move |bit| self.name_of(bit))
    }

    /// The name of `bit` within this set: its newest meaning whose incarnation is marked. A bit
    /// without its marks, as in a set of what is missing, goes by its newest name.
    fn name_of(self, bit: u32) -> Option<&'static str> {
        if self.0 & 1 << bit == 0 {
            return None;
        }
        let mut meanings = MEANINGS.iter().filter(|meaning| meaning.bit == bit);
        let newest = meanings.clone().next()?;
        Some(meanings.find(|meaning| self.contains(meaning.mask())).unwrap_or(newest).name)
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitAnd for Features {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        self.intersection(other)
    }
}

impl Sub for Features {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.difference(other)
    }
}

/// The names, separated by `|`; `bit52` where there is no name, `none` for the empty set.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for bit in (0..u64::BITS).filter(|bit| self.0 & 1 << bit != 0) {
            match self.name_of(bit) {
                Some(name) => write!(f, "{separator}{name}")?,
                None => write!(f, "{separator}bit{bit}")?,
            }
            separator = "|";
        }
        Ok(())
    }
}

/// In hexadecimal; `{:#?}` adds the names.
impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#x}", self.0)?;
        if f.alternate() {
            write!(f, ": {self}")?;
        }
        f.write_str(")")
    }
}

impl fmt::LowerHex for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl Encode for Features {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        enc.u64(self.0);
    }
}

impl Decode for Features {
    const MIN_SIZE: usize = 8;

    #[inline]
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.u64().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_carry_their_incarnation() {
        assert_eq!(Features::PGID64.0, 1 << 9);
        assert_eq!(Features::SERVER_LUMINOUS.0, 1 << 21 | 1 << 57);
        assert_eq!(Features::SERVER_NAUTILUS.0, 1 << 2 | 1 << 28 | 1 << 57);
    }

    #[test]
    fn a_bit_of_an_older_incarnation_is_not_the_feature() {
        assert!(!Features(1 << 50).contains(Features::SERVER_TENTACLE));
        assert_eq!(Features(1 << 50).to_string(), "MON_METADATA");
        assert_eq!(
            Features::SERVER_TENTACLE.to_string(),
            "SERVER_TENTACLE|SERVER_JEWEL",
            "the mark is a bit with a name of its own"
        );
    }

    #[test]
    fn releases_are_what_their_headers_add_up_to() {
        let reef = Features::PACIFIC
            | Features::SERVER_QUINCY
            | Features::RANGE_BLOCKLIST
            | Features::SERVER_REEF;
        assert_eq!(reef, Features::REEF);
        // Everything above bit 34 that Pacific has, by name.
        for meaning in MEANINGS.iter().filter(|m| m.bit > 34 && m.bit < 62) {
            let expected = !matches!(meaning.bit, 38 | 44 | 45 | 49..=55);
            assert_eq!(Features::PACIFIC.contains(meaning.mask()), expected, "{}", meaning.name);
        }
    }

    #[test]
    fn the_newest_meaning_of_a_bit_comes_first() {
        for pair in MEANINGS.windows(2) {
            let key = |m: &Meaning| (m.bit, std::cmp::Reverse(m.incarnation));
            assert!(key(&pair[0]) <= key(&pair[1]), "{}", pair[1].name);
        }
    }

    #[test]
    fn sets_show_their_names() {
        assert_eq!(Features::NONE.to_string(), "none");
        assert_eq!((Features::UID | Features::CEPHX_V2).to_string(), "UID|CEPHX_V2");
        assert_eq!(format!("{:?}", Features::UID), "Features(0x1)");
        assert_eq!(format!("{:#?}", Features::UID), "Features(0x1: UID)");
        assert_eq!(Features(1 << 17).names().collect::<Vec<_>>(), ["OS_PERF_STAT_NS"]);
    }

    #[test]
    fn missing_is_what_the_peer_lacks() {
        let peer = Features::REEF - Features::MSG_ADDR2;
        assert_eq!(peer.missing(Features::REEF), Features::MSG_ADDR2);
        assert!(peer.missing(Features::UID).is_empty());
    }
}
