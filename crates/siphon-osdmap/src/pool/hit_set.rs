use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

/// How a cache tier remembers which objects were used (`HitSet::Params`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HitSetParams {
    /// Not at all.
    #[default]
    None,
    /// By their hashes.
    ExplicitHash,
    /// By their names.
    ExplicitObject,
    /// By a Bloom filter.
    Bloom {
        /// Wrong hits that are allowed, in millionths.
        fpp_micro: u32,
        /// Objects that are expected.
        target_size: u64,
        /// What the filter's hashes start from.
        seed: u64,
    },
}

impl Encode for HitSetParams {
    fn encode(&self, enc: &mut Encoder) {
        enc.versioned(1, 1, |enc| match self {
            Self::None => enc.u8(0),
            Self::ExplicitHash => enc.u8(1),
            Self::ExplicitObject => enc.u8(2),
            Self::Bloom { fpp_micro, target_size, seed } => {
                enc.u8(3);
                enc.versioned(1, 1, |enc| {
                    enc.u32(*fpp_micro);
                    enc.u64(*target_size);
                    enc.u64(*seed);
                });
            }
        });
    }
}

impl Decode for HitSetParams {
    const MIN_SIZE: usize = 6 + 1;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("HitSet::Params", 1, |dec, _version| match dec.u8()? {
            0 => Ok(Self::None),
            1 => Ok(Self::ExplicitHash),
            2 => Ok(Self::ExplicitObject),
            3 => dec.versioned("BloomHitSet::Params", 1, |dec, _version| {
                Ok(Self::Bloom { fpp_micro: dec.u32()?, target_size: dec.u64()?, seed: dec.u64()? })
            }),
            kind => Err(dec.invalid("a kind of hit set from 0 to 3", u64::from(kind))),
        })
    }
}
