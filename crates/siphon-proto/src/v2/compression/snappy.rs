//! Snappy without framing (`compressor/snappy/SnappyCompressor.h`): the library wants the bytes in
//! one piece, as does the `RawCompress` of Ceph's own.

use bytes::Bytes;
use siphon_wire::buf::{Rope, SegmentPool};

use super::decompressor::{check_length, filled};
use super::{Algorithm, CompressionError};

/// Most bytes that a compressed one unpacks to: a copy of 64 bytes takes 3.
const MOST: u64 = 22;

pub(super) struct Encoder(snap::raw::Encoder);

impl Default for Encoder {
    fn default() -> Self {
        Self(snap::raw::Encoder::new())
    }
}

impl Encoder {
    pub(super) fn compress(&mut self, segment: &Rope) -> Option<Vec<u8>> {
        self.0.compress_vec(&segment.to_bytes()).ok()
    }
}

pub(super) fn decompress(
    segment: &Rope,
    limit: usize,
    pool: &SegmentPool,
) -> Result<Bytes, CompressionError> {
    const ALGORITHM: Algorithm = Algorithm::Snappy;
    let packed = segment.to_bytes();
    let stated = snap::raw::decompress_len(&packed).map_err(|error| match error {
        snap::Error::TooBig { given, .. } => {
            CompressionError::TooLong { algorithm: ALGORITHM, length: given, limit }
        }
        _ => CompressionError::NoLength { algorithm: ALGORITHM, found: packed.len() },
    })?;
    let length = check_length(ALGORITHM, stated as u64, limit, packed.len(), MOST)?;
    filled(ALGORITHM, length, pool, |buffer| {
        snap::raw::Decoder::new().decompress(&packed, buffer).map_err(|error| match error {
            snap::Error::HeaderMismatch { expected_len: stated, got_len: found } => {
                CompressionError::LengthDiffers { algorithm: ALGORITHM, stated, found }
            }
            _ => CompressionError::Corrupt(ALGORITHM),
        })
    })
}
