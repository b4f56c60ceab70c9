use std::fmt;

use crate::{Decode, DecodeError, Decoder, Encode, Encoder, Fixed};

/// The number of a map, which grows by one with each change (`epoch_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[denc(fixed)]
pub struct Epoch(pub u32);

/// The number of a change (`version_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[denc(fixed)]
pub struct Version(pub u64);

/// A change to an object: the map under which it was made, and its number (`eversion_t`).
///
/// ```
/// use siphon_wire::types::{EVersion, Epoch, Version};
/// let change = EVersion { epoch: Epoch(12), version: Version(34) };
/// assert_eq!(change.to_string(), "12'34");
/// ```
// The fields stand in the order by which versions are compared; on the wire it is the other.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EVersion {
    /// The OSD map's epoch.
    pub epoch: Epoch,
    /// The change's number within its placement group.
    pub version: Version,
}

impl EVersion {
    /// Change `version` under epoch `epoch`.
    pub const fn new(epoch: u32, version: u64) -> Self {
        Self { epoch: Epoch(epoch), version: Version(version) }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for EVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}'{}", self.epoch, self.version)
    }
}

impl fmt::Debug for EVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Fixed for EVersion {
    const SIZE: usize = Version::SIZE + Epoch::SIZE;

    #[inline]
    fn put(self, out: &mut [u8]) {
        (self.version, self.epoch).put(out);
    }
}

impl Encode for EVersion {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        enc.fixed(*self);
    }
}

impl Decode for EVersion {
    const MIN_SIZE: usize = Self::SIZE;

    #[inline]
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("eversion_t", |dec| {
            let (version, epoch) = dec.value()?;
            Ok(Self { epoch, version })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Features;

    #[test]
    fn the_number_comes_first_on_the_wire_and_the_epoch_in_order() {
        let wire = EVersion::new(1, 2).to_bytes(Features::ALL);
        assert_eq!(&wire[..], [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(EVersion::from_bytes(&wire), Ok(EVersion::new(1, 2)));
        assert!(EVersion::new(1, 9) < EVersion::new(2, 1));
    }
}
