use std::fmt::{self, Write as _};
use std::ops::Deref;

use bytes::Bytes;

use crate::{Decode, DecodeError, Decoder, Encode, Encoder};

/// A `std::string` of Ceph that its users choose freely, such as an object's name: any bytes,
/// usually UTF-8. It is Ceph's `object_t` too.
///
/// ```
/// use siphon_wire::types::ByteString;
/// let name = ByteString::from("rbd_directory");
/// assert_eq!(name, "rbd_directory");
/// assert_eq!(format!("{name}"), "rbd_directory");
/// assert_eq!(format!("{:?}", ByteString::from(&b"a\xff"[..])), r#""a\xff""#);
/// ```
#[derive(Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteString(Bytes);

impl ByteString {
    /// The empty string.
    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// A string that lives as long as the program.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The bytes, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The text, if it is UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl Clone for ByteString {
    #[inline]
    fn clone(&self) -> Self {
        // Many of an object's names are empty.
        if self.is_empty() { Self::new() } else { Self(self.0.clone()) }
    }
}

impl Deref for ByteString {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for ByteString {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for ByteString {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<String> for ByteString {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Vec<u8>> for ByteString {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<&[u8]> for ByteString {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl PartialEq<str> for ByteString {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other.as_bytes()
    }
}

impl PartialEq<&str> for ByteString {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

/// What is not UTF-8 shows as U+FFFD.
impl fmt::Display for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

/// In quotes, and what is not UTF-8 as `\x` escapes.
impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for chunk in self.0.utf8_chunks() {
            write!(f, "{}", chunk.valid().escape_debug())?;
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        f.write_char('"')
    }
}

impl Encode for ByteString {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        enc.bytes(&self.0);
    }
}

/// Shares the input's memory.
impl Decode for ByteString {
    const MIN_SIZE: usize = 4;

    #[inline]
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.bytes().map(Self)
    }
}
