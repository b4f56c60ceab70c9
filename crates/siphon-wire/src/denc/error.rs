use std::fmt;
use std::ops::{Deref, DerefMut};

/// What a decoder found wrong, where, and in which type: its [parts](DecodeErrorParts) in memory of their own, so that
/// a value that is decoded need not pass through memory that an error has room in.
///
/// ```
/// use siphon_wire::{Decode, DecodeErrorKind};
/// let error = u32::from_bytes(&bytes::Bytes::from_static(&[1])).unwrap_err();
/// assert_eq!((error.type_name, error.offset), ("value", 0));
/// assert_eq!(error.kind, DecodeErrorKind::Truncated { needed: 4, available: 1 });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(Box<DecodeErrorParts>);

const _: () = assert!(size_of::<DecodeError>() == size_of::<usize>(), "one word");

/// What a [`DecodeError`] consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeErrorParts {
    /// Ceph's name of the innermost type being decoded (`entity_addr_t`).
    pub type_name: &'static str,
    /// Byte offset from the start of the decoder's input.
    pub offset: usize,
    /// The rule that was broken.
    pub kind: DecodeErrorKind,
}

/// One variant for each rule that encoded bytes can break.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The input, or the versioned section, ends before the value does.
    Truncated {
        /// Bytes the value needs from `offset` on.
        needed: u64,
        /// Bytes that are left.
        available: usize,
    },
    /// The encoder says that only decoders of a newer version understand this section.
    TooNew {
        /// The oldest version that may decode it.
        compat: u8,
        /// The newest version that we understand.
        understood: u8,
    },
    /// The version is older than any that we decode.
    TooOld {
        /// The encoded version.
        version: u8,
        /// The oldest version that we decode.
        oldest: u8,
    },
    /// A count announces more elements than the remaining bytes can hold.
    ImpossibleCount {
        /// The announced number of elements.
        count: u32,
        /// Bytes that are left.
        available: usize,
    },
    /// A value outside its type's domain.
    InvalidValue {
        /// What was expected, in a few words.
        expected: &'static str,
        /// What was found.
        found: u64,
    },
    /// A string that must be UTF-8 is not.
    InvalidUtf8,
    /// Bytes are left over after the last field.
    TrailingBytes {
        /// How many.
        count: usize,
    },
}

impl From<DecodeErrorParts> for DecodeError {
    fn from(parts: DecodeErrorParts) -> Self {
        Self(Box::new(parts))
    }
}

impl Deref for DecodeError {
    type Target = DecodeErrorParts;

    fn deref(&self) -> &DecodeErrorParts {
        &self.0
    }
}

impl DerefMut for DecodeError {
    fn deref_mut(&mut self) -> &mut DecodeErrorParts {
        &mut self.0
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.type_name, self.offset, self.kind)
    }
}

impl fmt::Display for DecodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { needed, available } => {
                write!(f, "needs {needed} bytes, {available} are left")
            }
            Self::TooNew { compat, understood } => write!(
                f,
                "encoded for decoders of version {compat} or newer, this one understands {understood}"
            ),
            Self::TooOld { version, oldest } => {
                write!(f, "encoded at version {version}, the oldest understood is {oldest}")
            }
            Self::ImpossibleCount { count, available } => {
                write!(f, "announces {count} elements in {available} bytes")
            }
            Self::InvalidValue { expected, found } => {
                write!(f, "expected {expected}, found {found:#x}")
            }
            Self::InvalidUtf8 => f.write_str("a string is not UTF-8"),
            Self::TrailingBytes { count } => write!(f, "{count} bytes follow the last field"),
        }
    }
}

impl std::error::Error for DecodeError {}
