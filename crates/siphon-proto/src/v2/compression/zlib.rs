//! Raw deflate behind a byte that tells Ceph's variants apart: 0 of zlib, 1 of ISA-L
//! (`compressor/zlib/ZlibCompressor.cc`, which doesn't look at it when it reads).

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use siphon_wire::buf::{Rope, SegmentBuf, SegmentPool};

use super::{Algorithm, CompressionError};

const ALGORITHM: Algorithm = Algorithm::Zlib;
/// Ceph's default of `compressor_zlib_level`.
const LEVEL: u32 = 5;
/// The mark of zlib, as we write it.
const MARK: u8 = 0;
/// Room in bytes that output gets when it has run out.
const STEP: usize = 16 << 10;
/// Size of an unpacked piece in bytes: a multiple of what is packed, within these.
const PIECE: std::ops::RangeInclusive<usize> = 4 << 10..=1 << 20;
/// What a byte is taken to unpack to, for a guess.
const USUAL: usize = 4;

pub(super) struct Encoder(Compress);

impl Default for Encoder {
    fn default() -> Self {
        Self(Compress::new(Compression::new(LEVEL), false))
    }
}

impl Encoder {
    pub(super) fn compress(&mut self, segment: &Rope) -> Option<Vec<u8>> {
        self.0.reset();
        let mut packed = Vec::with_capacity(1 + segment.len() / 2 + STEP);
        packed.push(MARK);
        for piece in segment.segments() {
            self.feed(piece, FlushCompress::None, &mut packed)?;
        }
        self.feed(&[], FlushCompress::Finish, &mut packed)?;
        Some(packed)
    }

    fn feed(&mut self, mut input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) -> Option<()> {
        loop {
            if out.len() == out.capacity() {
                out.reserve(STEP);
            }
            let before = self.0.total_in();
            let status = self.0.compress_vec(input, out, flush).ok()?;
            input = &input[(self.0.total_in() - before) as usize..];
            let full = out.len() == out.capacity();
            match flush {
                FlushCompress::Finish if status == Status::StreamEnd => return Some(()),
                FlushCompress::None if input.is_empty() && !full => return Some(()),
                // Without room it would go on; with it, it does not get on.
                _ if !full => return None,
                _ => {}
            }
        }
    }
}

pub(super) struct Decoder(Decompress);

impl Default for Decoder {
    fn default() -> Self {
        Self(Decompress::new(false))
    }
}

impl Decoder {
    pub(super) fn decompress(
        &mut self,
        segment: &Rope,
        limit: usize,
        pool: &SegmentPool,
    ) -> Result<Rope, CompressionError> {
        self.0.reset(false);
        let guess = segment.len().saturating_mul(USUAL).clamp(*PIECE.start(), *PIECE.end());
        let mut out = Output { done: Rope::new(), piece: None, size: guess, limit, pool };
        let mut left = segment.len() - 1;
        let mut marked = false;
        for piece in segment.segments() {
            let input = if marked { &piece[..] } else { &piece[1..] };
            marked = true;
            left -= input.len();
            if let Some(rest) = self.feed(input, &mut out)? {
                return match left + rest {
                    0 => Ok(out.finish()),
                    count => Err(CompressionError::TrailingBytes { algorithm: ALGORITHM, count }),
                };
            }
        }
        Err(CompressionError::Truncated(ALGORITHM))
    }

    /// Unpacks a piece; at the end of the stream, returns how many bytes of the piece are left.
    fn feed(
        &mut self,
        mut input: &[u8],
        out: &mut Output<'_>,
    ) -> Result<Option<usize>, CompressionError> {
        loop {
            let piece = out.room()?;
            let (taken, given) = (self.0.total_in(), self.0.total_out());
            let status = self
                .0
                .decompress(input, piece.unfilled(), FlushDecompress::None)
                .map_err(|_| CompressionError::Corrupt(ALGORITHM))?;
            input = &input[(self.0.total_in() - taken) as usize..];
            piece.advance((self.0.total_out() - given) as usize);
            let full = piece.is_full();
            if status == Status::StreamEnd {
                if full {
                    out.room()?; // the stream ends, but beyond the limit
                }
                return Ok(Some(input.len()));
            }
            if !full {
                // It has room, so that it wants more input, of which there is none here.
                return if input.is_empty() {
                    Ok(None)
                } else {
                    Err(CompressionError::Corrupt(ALGORITHM))
                };
            }
        }
    }
}

/// What was unpacked so far, one byte more than the limit at most.
struct Output<'a> {
    done: Rope,
    piece: Option<SegmentBuf>,
    /// Size in bytes of a piece.
    size: usize,
    limit: usize,
    pool: &'a SegmentPool,
}

impl Output<'_> {
    /// A piece with room in it.
    fn room(&mut self) -> Result<&mut SegmentBuf, CompressionError> {
        if let Some(piece) = self.piece.take_if(|piece| piece.is_full()) {
            self.done.push(piece.freeze());
        }
        if self.done.len() > self.limit {
            let (length, limit) = (self.done.len() as u64, self.limit);
            return Err(CompressionError::TooLong { algorithm: ALGORITHM, length, limit });
        }
        // The byte more: room for nothing would not tell an end from what goes on.
        let most = (self.limit - self.done.len()).saturating_add(1);
        Ok(self.piece.get_or_insert_with(|| self.pool.take(self.size.min(most))))
    }

    fn finish(mut self) -> Rope {
        if let Some(piece) = self.piece.take() {
            // A few bytes don't keep a whole piece.
            self.done.push(match piece.filled() {
                few if few.len() < piece.len() / 4 => Bytes::copy_from_slice(few),
                _ => piece.freeze(),
            });
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompress(packed: &[u8], limit: usize) -> Result<Rope, CompressionError> {
        let segment = packed.chunks(3).map(Bytes::copy_from_slice).collect();
        Decoder::default().decompress(&segment, limit, &SegmentPool::new(0))
    }

    /// A block of deflate that is stored and the last.
    const STORED: &[u8] = b"\x00\x01\x05\x00\xfa\xffhello";

    #[test]
    fn the_mark_is_not_looked_at() {
        for mark in [0, 1, 0xff] {
            let mut packed = STORED.to_vec();
            packed[0] = mark;
            assert_eq!(decompress(&packed, 5).unwrap(), b"hello");
        }
    }

    #[test]
    fn a_stream_ends_where_its_segment_does() {
        for len in 1..STORED.len() {
            let error = CompressionError::Truncated(ALGORITHM);
            assert_eq!(decompress(&STORED[..len], 5), Err(error), "{len} bytes");
        }
        let longer = [STORED, b"abcd"].concat();
        let error = CompressionError::TrailingBytes { algorithm: ALGORITHM, count: 4 };
        assert_eq!(decompress(&longer, 5), Err(error));
    }

    #[test]
    fn not_a_byte_beyond_the_limit_is_kept() {
        for limit in 0..5 {
            let length = limit as u64 + 1;
            let error = CompressionError::TooLong { algorithm: ALGORITHM, length, limit };
            assert_eq!(decompress(STORED, limit), Err(error));
        }
    }

    #[test]
    fn long_results_come_in_pieces() {
        let zeros: Rope = Bytes::from(vec![0; 3 << 20]).into();
        let packed = Encoder::default().compress(&zeros).unwrap();
        let unpacked = decompress(&packed, 3 << 20).unwrap();
        assert_eq!(unpacked, zeros);
        assert!(unpacked.segments().len() > 1);
    }
}
