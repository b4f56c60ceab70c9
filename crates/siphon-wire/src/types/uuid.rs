use std::fmt;
use std::str::FromStr;

use super::ParseError;
use crate::{Decode, DecodeError, Decoder, Encode, Encoder};

/// A universally unique identifier (`uuid_d`): 16 bytes, in the order in which they are written.
///
/// ```
/// use siphon_wire::types::Uuid;
/// let fsid: Uuid = "f4a2c8f6-6a39-4a3f-9d1e-0e7a7c1f4b5d".parse().unwrap();
/// assert_eq!(fsid.to_string(), "f4a2c8f6-6a39-4a3f-9d1e-0e7a7c1f4b5d");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

/// What identifies a cluster (`fsid`).
pub type CephFsid = Uuid;

impl Uuid {
    /// Whether all bits are zero: no identifier.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// The identifier made of 16 random bytes: their version and variant bits are overwritten,
    /// as RFC 9562 demands of version 4.
    pub const fn from_random(mut random: [u8; 16]) -> Self {
        random[6] = random[6] & 0x0f | 0x40;
        random[8] = random[8] & 0x3f | 0x80;
        Self(random)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads 32 hexadecimal digits, with dashes in their places or without any.
impl FromStr for Uuid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::new("a UUID", text);
        let digits = match text.len() {
            32 => text.to_owned(),
            36 if text.match_indices('-').map(|(at, _)| at).eq([8, 13, 18, 23]) => {
                text.replace('-', "")
            }
            _ => return Err(error()),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(error());
        }
        let number = u128::from_str_radix(&digits, 16).map_err(|_| error())?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl Encode for Uuid {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        enc.raw(&self.0);
    }
}

impl Decode for Uuid {
    const MIN_SIZE: usize = 16;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("uuid_d", |dec| dec.array().map(Self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Features;

    #[test]
    fn the_bytes_are_in_the_order_of_the_text() {
        let uuid: Uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f".parse().unwrap();
        let wire = uuid.to_bytes(Features::ALL);
        assert_eq!(&wire[..], (0..16).collect::<Vec<u8>>());
        assert_eq!(Uuid::from_bytes(&wire), Ok(uuid));
        assert_eq!("000102030405060708090A0b0c0d0e0f".parse(), Ok(uuid));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "00010203-0405-0607-0809-0a0b0c0d0e0",
            "0001020304050-607-0809-0a0b0c0d0e0f-",
            "+00102030405060708090a0b0c0d0e0f",
            "g0010203-0405-0607-0809-0a0b0c0d0e0f",
        ] {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }

    #[test]
    fn random_ones_are_of_version_4() {
        let text = Uuid::from_random([0xff; 16]).to_string();
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
