use std::fmt;

use bytes::Bytes;
use siphon_wire::buf::Rope;

use super::{Algorithm, lz4, snappy, zlib, zstd};

/// Compresses segments by one algorithm, in the format of Ceph's plugin of that name, with the level
/// that Ceph has by default.
///
/// What the algorithm needs to work with, up to 1 MiB, is made at the first use and kept.
///
/// ```
/// use bytes::Bytes;
/// use siphon_proto::v2::compression::{Algorithm, Compressor, Decompressor};
/// use siphon_wire::buf::SegmentPool;
///
/// let segment = Bytes::from(vec![7; 4096]).into();
/// let packed = Compressor::new(Algorithm::Zstd).compress(&segment).unwrap();
/// assert!(packed.len() < 64);
///
/// let mut decompressor = Decompressor::new(Algorithm::Zstd, SegmentPool::new(1 << 20));
/// assert_eq!(decompressor.decompress(&packed.clone().into(), 4096), Ok(segment));
/// assert!(decompressor.decompress(&packed.into(), 4095).is_err());
/// ```
pub struct Compressor {
    algorithm: Algorithm,
    /// Only ever that of `algorithm`.
    encoder: Option<Encoder>,
}

enum Encoder {
    Snappy(Box<snappy::Encoder>),
    Zlib(zlib::Encoder),
    Zstd(zstd::Encoder),
    Lz4(lz4::Encoder),
}

impl Compressor {
    /// A compressor by this algorithm.
    pub fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, encoder: None }
    }

    /// How it compresses.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The segment compressed, which may be longer than it was. Empty segments stay empty.
    ///
    /// `None` if the library refuses, which leaves the segment to be sent as it is: what is longer
    /// than about 2 GiB does not fit the formats.
    pub fn compress(&mut self, segment: &Rope) -> Option<Bytes> {
        if segment.is_empty() {
            return Some(Bytes::new());
        }
        let packed = match self.encoder.get_or_insert_with(|| Encoder::new(self.algorithm)) {
            Encoder::Snappy(encoder) => encoder.compress(segment),
            Encoder::Zlib(encoder) => encoder.compress(segment),
            Encoder::Zstd(encoder) => encoder.compress(segment),
            Encoder::Lz4(encoder) => encoder.compress(segment),
        };
        packed.map(fitted)
    }

    /// Gives up what it works with: segments are not expected soon.
    pub fn release(&mut self) {
        self.encoder = None;
    }
}

impl Encoder {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Snappy => Self::Snappy(Box::default()),
            Algorithm::Zlib => Self::Zlib(zlib::Encoder::default()),
            Algorithm::Zstd => Self::Zstd(zstd::Encoder::default()),
            Algorithm::Lz4 => Self::Lz4(lz4::Encoder::default()),
        }
    }
}

/// The buffer was made for the worst case: of what compressed well, most goes back.
fn fitted(mut packed: Vec<u8>) -> Bytes {
    if packed.len() < packed.capacity() / 2 {
        packed.shrink_to_fit();
    }
    packed.into()
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compressor({})", self.algorithm)
    }
}
