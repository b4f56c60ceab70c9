//! A frame of Zstandard behind its length (`compressor/zstd/ZstdCompressor.h`).
//!
//! The library is that of Zstandard itself, in C, which Ceph links too: what is written in Rust
//! unpacks at a fraction of its speed and compresses worse. It unpacks in one go, from one piece into
//! one buffer: a stream would need a window, whose size the peer chooses.

use bytes::Bytes;
use siphon_wire::buf::{Rope, SegmentPool};
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective};

use super::decompressor::{check_length, filled};
use super::{Algorithm, CompressionError};

const ALGORITHM: Algorithm = Algorithm::Zstd;
/// Ceph's default of `compressor_zstd_level`.
const LEVEL: i32 = 1;
/// Bytes of the length before the frame.
const LENGTH: usize = 4;
/// Most bytes that a compressed one unpacks to: a block has 128 KiB at most, and 4 bytes at least,
/// but for empty ones (RFC 8878, 3.1.1.2).
const MOST: u64 = 32 << 10;

pub(super) struct Encoder(CCtx<'static>);

impl Default for Encoder {
    fn default() -> Self {
        Self(CCtx::create())
    }
}

impl Encoder {
    pub(super) fn compress(&mut self, segment: &Rope) -> Option<Vec<u8>> {
        let length = u32::try_from(segment.len()).ok()?;
        let mut packed = Vec::with_capacity(LENGTH + zstd_safe::compress_bound(segment.len()));
        packed.extend_from_slice(&length.to_le_bytes());

        self.0.reset(ResetDirective::SessionOnly).ok()?;
        self.0.set_parameter(CParameter::CompressionLevel(LEVEL)).ok()?;
        self.0.set_pledged_src_size(Some(length.into())).ok()?;
        let mut out = OutBuffer::around_pos(&mut packed, LENGTH);
        for piece in segment.segments() {
            self.feed(piece, ZSTD_EndDirective::ZSTD_e_continue, &mut out)?;
        }
        self.feed(&[], ZSTD_EndDirective::ZSTD_e_end, &mut out)?;
        Some(packed)
    }

    /// There is room for all that can become of the segment, so that one call does.
    fn feed(
        &mut self,
        input: &[u8],
        end: ZSTD_EndDirective,
        out: &mut OutBuffer<'_, Vec<u8>>,
    ) -> Option<()> {
        let whole = input.len();
        let mut input = InBuffer::around(input);
        let left = self.0.compress_stream2(out, &mut input, end).ok()?;
        let done = input.pos() == whole
            && (left == 0 || matches!(end, ZSTD_EndDirective::ZSTD_e_continue));
        done.then_some(())
    }
}

pub(super) struct Decoder(DCtx<'static>);

impl Default for Decoder {
    fn default() -> Self {
        Self(DCtx::create())
    }
}

impl Decoder {
    pub(super) fn decompress(
        &mut self,
        segment: &Rope,
        limit: usize,
        pool: &SegmentPool,
    ) -> Result<Bytes, CompressionError> {
        let packed = segment.to_bytes();
        let short = CompressionError::NoLength { algorithm: ALGORITHM, found: packed.len() };
        let (stated, frame) = packed.split_first_chunk::<LENGTH>().ok_or(short)?;
        let stated = u64::from(u32::from_le_bytes(*stated));
        let length = check_length(ALGORITHM, stated, limit, frame.len(), MOST)?;
        match zstd_safe::get_frame_content_size(frame) {
            Ok(Some(found)) if found != stated => {
                return Err(CompressionError::LengthDiffers {
                    algorithm: ALGORITHM,
                    stated,
                    found,
                });
            }
            Ok(_) => {}
            Err(_) => return Err(CompressionError::Corrupt(ALGORITHM)),
        }
        filled(ALGORITHM, length, pool, |buffer| {
            self.0.decompress(buffer, frame).map_err(|_| CompressionError::Corrupt(ALGORITHM))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompress(packed: &[u8]) -> Result<Bytes, CompressionError> {
        let segment = Bytes::copy_from_slice(packed).into();
        Decoder::default().decompress(&segment, 64, &SegmentPool::new(0))
    }

    /// A length, and a frame whose header has the content's size, with one raw block.
    const PACKED: &[u8] = b"\x05\x00\x00\x00\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello";

    #[test]
    fn both_lengths_count() {
        assert_eq!(decompress(PACKED).unwrap(), "hello");
        let mut lies = PACKED.to_vec();
        lies[0] = 6;
        let error = CompressionError::LengthDiffers { algorithm: ALGORITHM, stated: 6, found: 5 };
        assert_eq!(decompress(&lies), Err(error));
        lies[9] = 6; // now they agree, and the block does not
        assert_eq!(decompress(&lies), Err(CompressionError::Corrupt(ALGORITHM)));
    }

    #[test]
    fn a_frame_that_states_no_size_is_held_to_the_other() {
        // No single segment: a window descriptor (of 1 MiB) in place of the content's size.
        let mut packed = PACKED.to_vec();
        packed[8] = 0;
        packed[9] = 0x50;
        assert_eq!(decompress(&packed).unwrap(), "hello");
        packed[0] = 6;
        let error = CompressionError::LengthDiffers { algorithm: ALGORITHM, stated: 6, found: 5 };
        assert_eq!(decompress(&packed), Err(error));
        packed[0] = 4;
        assert_eq!(decompress(&packed), Err(CompressionError::Corrupt(ALGORITHM)));
    }
}
