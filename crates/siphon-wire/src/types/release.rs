use std::fmt;

use super::Features;
use crate::{Decode, DecodeError, Decoder, Encode, Encoder};

/// A major release of Ceph by its number (`ceph_release_t`); 0 is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release(pub u8);

/// Names by number, from 0 on.
const NAMES: [&str; 22] = [
    "unknown",
    "argonaut",
    "bobtail",
    "cuttlefish",
    "dumpling",
    "emperor",
    "firefly",
    "giant",
    "hammer",
    "infernalis",
    "jewel",
    "kraken",
    "luminous",
    "mimic",
    "nautilus",
    "octopus",
    "pacific",
    "quincy",
    "reef",
    "squid",
    "tentacle",
    "umbrella",
];

impl Release {
    /// Not known.
    pub const UNKNOWN: Self = Self(0);
    /// 10.
    pub const JEWEL: Self = Self(10);
    /// 11.
    pub const KRAKEN: Self = Self(11);
    /// 12.
    pub const LUMINOUS: Self = Self(12);
    /// 13.
    pub const MIMIC: Self = Self(13);
    /// 14.
    pub const NAUTILUS: Self = Self(14);
    /// 15.
    pub const OCTOPUS: Self = Self(15);
    /// 16.
    pub const PACIFIC: Self = Self(16);
    /// 17.
    pub const QUINCY: Self = Self(17);
    /// 18.
    pub const REEF: Self = Self(18);
    /// 19.
    pub const SQUID: Self = Self(19);
    /// 20.
    pub const TENTACLE: Self = Self(20);

    /// Its name, if we know it.
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0)).copied()
    }

    /// The newest release that a peer with these features is known to be: it may be a newer one, but
    /// no older one. Each release has the features of those before it.
    ///
    /// ```
    /// use siphon_wire::types::{Features, Release};
    /// let peer = Features::SERVER_LUMINOUS | Features::SERVER_MIMIC;
    /// assert_eq!(Release::of_features(peer), Release::MIMIC);
    /// assert_eq!(Release::of_features(Features::NONE), Release::UNKNOWN);
    /// ```
    pub fn of_features(features: Features) -> Self {
        const STEPS: [(Features, Release); 9] = [
            (Features::SERVER_LUMINOUS, Release::LUMINOUS),
            (Features::SERVER_MIMIC, Release::MIMIC),
            (Features::SERVER_NAUTILUS, Release::NAUTILUS),
            (Features::SERVER_OCTOPUS, Release::OCTOPUS),
            (Features::SERVER_PACIFIC, Release::PACIFIC),
            (Features::SERVER_QUINCY, Release::QUINCY),
            (Features::SERVER_REEF, Release::REEF),
            (Features::SERVER_SQUID, Release::SQUID),
            (Features::SERVER_TENTACLE, Release::TENTACLE),
        ];
        let known = STEPS.iter().take_while(|(step, _)| features.contains(*step));
        known.last().map_or(Self::UNKNOWN, |(_, release)| *release)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name().unwrap_or("unknown"))
    }
}

impl Encode for Release {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(self.0);
    }
}

impl Decode for Release {
    const MIN_SIZE: usize = 1;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.u8().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_their_numbers() {
        assert_eq!(Release::KRAKEN.to_string(), "kraken");
        assert_eq!(Release::PACIFIC.to_string(), "pacific");
        assert_eq!(Release::TENTACLE.to_string(), "tentacle");
        assert_eq!(Release::UNKNOWN.to_string(), "unknown");
        assert_eq!(Release(99).to_string(), "unknown");
    }
}
