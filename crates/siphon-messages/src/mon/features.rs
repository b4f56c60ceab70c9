use std::fmt;
use std::ops::BitOr;

use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

use super::Release;

/// A set of features that monitors agree on among themselves (`mon_feature_t`); apart from the
/// [`Features`](siphon_wire::types::Features) of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MonFeatures(pub u64);

/// Features and their names, by bit.
const NAMES: [(MonFeatures, &str); 13] = [
    (MonFeatures::KRAKEN, "kraken"),
    (MonFeatures::LUMINOUS, "luminous"),
    (MonFeatures::MIMIC, "mimic"),
    (MonFeatures::OSDMAP_PRUNE, "osdmap-prune"),
    (MonFeatures::NAUTILUS, "nautilus"),
    (MonFeatures::OCTOPUS, "octopus"),
    (MonFeatures::PACIFIC, "pacific"),
    (MonFeatures::PINGING, "elector-pinging"),
    (MonFeatures::QUINCY, "quincy"),
    (MonFeatures::REEF, "reef"),
    (MonFeatures::SQUID, "squid"),
    (MonFeatures::TENTACLE, "tentacle"),
    (MonFeatures::RESERVED, "reserved"),
];

impl MonFeatures {
    /// Kraken (11).
    pub const KRAKEN: Self = Self(1 << 0);
    /// Luminous (12).
    pub const LUMINOUS: Self = Self(1 << 1);
    /// Mimic (13).
    pub const MIMIC: Self = Self(1 << 2);
    /// Old OSD maps may be pruned.
    pub const OSDMAP_PRUNE: Self = Self(1 << 3);
    /// Nautilus (14): ranks are what the map says, not the order of addresses.
    pub const NAUTILUS: Self = Self(1 << 4);
    /// Octopus (15).
    pub const OCTOPUS: Self = Self(1 << 5);
    /// Pacific (16).
    pub const PACIFIC: Self = Self(1 << 6);
    /// Monitors ping each other, which election strategies and stretch mode build on.
    pub const PINGING: Self = Self(1 << 7);
    /// Quincy (17).
    pub const QUINCY: Self = Self(1 << 8);
    /// Reef (18).
    pub const REEF: Self = Self(1 << 9);
    /// Squid (19).
    pub const SQUID: Self = Self(1 << 10);
    /// Tentacle (20).
    pub const TENTACLE: Self = Self(1 << 11);
    /// Never used.
    pub const RESERVED: Self = Self(1 << 63);

    /// Whether all features of `other` are in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The features in this set by bit, each with its name if we know it.
    pub fn iter(self) -> impl Iterator<Item = (Self, Option<&'static str>)> {
        (0..u64::BITS).map(|bit| Self(1 << bit)).filter(move |one| self.contains(*one)).map(|one| {
            (one, NAMES.iter().find(|(feature, _)| *feature == one).map(|(_, name)| *name))
        })
    }

    /// The oldest release that may take part, as far as these features tell.
    pub fn min_release(self) -> Release {
        const RELEASES: [(MonFeatures, Release); 10] = [
            (MonFeatures::TENTACLE, Release::TENTACLE),
            (MonFeatures::SQUID, Release::SQUID),
            (MonFeatures::REEF, Release::REEF),
            (MonFeatures::QUINCY, Release::QUINCY),
            (MonFeatures::PACIFIC, Release::PACIFIC),
            (MonFeatures::OCTOPUS, Release::OCTOPUS),
            (MonFeatures::NAUTILUS, Release::NAUTILUS),
            (MonFeatures::MIMIC, Release::MIMIC),
            (MonFeatures::LUMINOUS, Release::LUMINOUS),
            (MonFeatures::KRAKEN, Release::KRAKEN),
        ];
        let newest = RELEASES.iter().find(|(feature, _)| self.contains(*feature));
        newest.map_or(Release::UNKNOWN, |(_, release)| *release)
    }
}

impl BitOr for MonFeatures {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for MonFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (n, (_, name)) in self.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{}", name.unwrap_or("unknown"))?;
        }
        f.write_str("]")
    }
}

impl Encode for MonFeatures {
    fn encode(&self, enc: &mut Encoder) {
        enc.versioned(1, 1, |enc| enc.u64(self.0));
    }
}

impl Decode for MonFeatures {
    const MIN_SIZE: usize = 14;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("mon_feature_t", 1, |dec, _version| dec.u64().map(Self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_names_and_imply_a_release() {
        let set = MonFeatures::KRAKEN | MonFeatures::OSDMAP_PRUNE | MonFeatures::PACIFIC;
        assert_eq!(set.to_string(), "[kraken,osdmap-prune,pacific]");
        assert_eq!(set.min_release(), Release::PACIFIC);
        assert_eq!(MonFeatures::default().to_string(), "[]");
        assert_eq!(MonFeatures::default().min_release(), Release::UNKNOWN);
        assert_eq!(MonFeatures(1 << 40).to_string(), "[unknown]");
    }
}
