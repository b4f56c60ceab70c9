use std::fmt;

use super::Algorithm;

/// A rule that a compressed segment breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompressionError {
    /// It is too short to state its length.
    NoLength {
        /// How it is compressed.
        algorithm: Algorithm,
        /// Its bytes.
        found: usize,
    },
    /// It unpacks to more than is accepted: a bomb. Nothing beyond the limit was unpacked, and
    /// nothing at all where the segment states its length.
    TooLong {
        /// How it is compressed.
        algorithm: Algorithm,
        /// The length that it states, or that it has passed, in bytes.
        length: u64,
        /// The most that is accepted.
        limit: usize,
    },
    /// It states a length that so few bytes cannot unpack to.
    Unreachable {
        /// How it is compressed.
        algorithm: Algorithm,
        /// The stated length in bytes.
        stated: u64,
        /// The compressed bytes.
        found: usize,
    },
    /// It unpacks to another length than it states, or states two.
    LengthDiffers {
        /// How it is compressed.
        algorithm: Algorithm,
        /// The length stated first, in bytes.
        stated: u64,
        /// The other one.
        found: u64,
    },
    /// It has more blocks than make sense, or than it has bytes for.
    TooManyBlocks {
        /// The number that it states.
        count: u32,
        /// The most that are accepted of that many bytes.
        limit: usize,
    },
    /// It is not what the algorithm makes.
    Corrupt(Algorithm),
    /// It ends before its end.
    Truncated(Algorithm),
    /// It goes on behind its end.
    TrailingBytes {
        /// How it is compressed.
        algorithm: Algorithm,
        /// How many bytes follow at least.
        count: usize,
    },
}

impl fmt::Display for CompressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLength { algorithm, found } => {
                write!(f, "{algorithm} in {found} bytes, too few to tell the length")
            }
            Self::TooLong { algorithm, length, limit } => {
                write!(f, "{algorithm} unpacks to {length} bytes, at most {limit} are accepted")
            }
            Self::Unreachable { algorithm, stated, found } => {
                write!(f, "{algorithm} states {stated} bytes, {found} cannot unpack to so many")
            }
            Self::LengthDiffers { algorithm, stated, found } => {
                write!(f, "{algorithm} states {stated} bytes, and then has {found}")
            }
            Self::TooManyBlocks { count, limit } => {
                write!(f, "lz4 in {count} blocks, at most {limit} are accepted")
            }
            Self::Corrupt(algorithm) => write!(f, "it is not {algorithm}, or was damaged"),
            Self::Truncated(algorithm) => write!(f, "{algorithm} ends before its end"),
            Self::TrailingBytes { algorithm, count } => {
                write!(f, "{algorithm} is followed by {count} bytes")
            }
        }
    }
}

impl std::error::Error for CompressionError {}
