use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Decode, DecodeError, Decoder, Encode, Encoder};

/// A time since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utime {
    /// Seconds.
    pub sec: u32,
    /// Nanoseconds.
    pub nsec: u32,
}

impl From<SystemTime> for Utime {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { sec: u32::try_from(since.as_secs()).unwrap_or(u32::MAX), nsec: since.subsec_nanos() }
    }
}

impl Encode for Utime {
    fn encode(&self, enc: &mut Encoder) {
        enc.u32(self.sec);
        enc.u32(self.nsec);
    }
}

impl Decode for Utime {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("utime_t", |dec| Ok(Self { sec: dec.u32()?, nsec: dec.u32()? }))
    }
}
