use std::fmt;

use bytes::Bytes;
use siphon_wire::buf::{Rope, SegmentPool};

use super::{Algorithm, CompressionError, lz4, snappy, zlib, zstd};

/// Results from this many bytes on are page-aligned and of the pool; shorter ones would keep a page
/// each.
const POOLED_MIN: usize = 2048;

/// Unpacks segments that a peer compressed, and takes nothing for granted: see
/// [`Compressor`](super::Compressor) for an example.
pub struct Decompressor {
    algorithm: Algorithm,
    pool: SegmentPool,
    zlib: Option<zlib::Decoder>,
    zstd: Option<zstd::Decoder>,
}

impl Decompressor {
    /// A decompressor by this algorithm, whose results are of the pool.
    pub fn new(algorithm: Algorithm, pool: SegmentPool) -> Self {
        Self { algorithm, pool, zlib: None, zstd: None }
    }

    /// How it unpacks.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The segment unpacked, `limit` bytes at most. Empty segments are empty.
    ///
    /// snappy, zstd and lz4 state the length, so that it is checked before memory for it is taken;
    /// zlib does not, and takes memory as it goes, up to the limit. A result of zlib may have several
    /// pieces, the others have one.
    ///
    /// # Errors
    /// If the segment is no such thing as the algorithm makes, or too long. The decompressor can be
    /// used further.
    pub fn decompress(&mut self, segment: &Rope, limit: usize) -> Result<Rope, CompressionError> {
        if segment.is_empty() {
            return Ok(Rope::new());
        }
        match self.algorithm {
            Algorithm::Snappy => snappy::decompress(segment, limit, &self.pool).map(Rope::from),
            Algorithm::Lz4 => lz4::decompress(segment, limit, &self.pool).map(Rope::from),
            Algorithm::Zlib => {
                self.zlib.get_or_insert_default().decompress(segment, limit, &self.pool)
            }
            Algorithm::Zstd => self
                .zstd
                .get_or_insert_default()
                .decompress(segment, limit, &self.pool)
                .map(Rope::from),
        }
    }

    /// Gives up what it works with: segments are not expected soon.
    pub fn release(&mut self) {
        self.zlib = None;
        self.zstd = None;
    }
}

/// Checks a length that a segment of `found` bytes states, where a byte unpacks to `most` at most.
pub(super) fn check_length(
    algorithm: Algorithm,
    stated: u64,
    limit: usize,
    found: usize,
    most: u64,
) -> Result<usize, CompressionError> {
    let length = usize::try_from(stated)
        .ok()
        .filter(|length| *length <= limit)
        .ok_or(CompressionError::TooLong { algorithm, length: stated, limit })?;
    if stated > most.saturating_mul(found as u64) {
        return Err(CompressionError::Unreachable { algorithm, stated, found });
    }
    Ok(length)
}

/// `length` bytes that `fill` writes, every one of them: a pooled buffer has somebody's old bytes.
pub(super) fn filled(
    algorithm: Algorithm,
    length: usize,
    pool: &SegmentPool,
    fill: impl FnOnce(&mut [u8]) -> Result<usize, CompressionError>,
) -> Result<Bytes, CompressionError> {
    let check = |written: usize| {
        let (stated, found) = (length as u64, written as u64);
        let same = stated == found;
        same.then_some(()).ok_or(CompressionError::LengthDiffers { algorithm, stated, found })
    };
    if length < POOLED_MIN {
        let mut buffer = vec![0; length];
        check(fill(&mut buffer)?)?;
        return Ok(buffer.into());
    }
    let mut buffer = pool.take(length);
    check(fill(buffer.unfilled())?)?;
    buffer.advance(length);
    Ok(buffer.freeze())
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decompressor({})", self.algorithm)
    }
}
