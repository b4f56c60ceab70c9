//! Blocks of LZ4 behind a table of their lengths (`compressor/lz4/LZ4Compressor.h`). Ceph brings the
//! bytes into one piece before it compresses, so that it writes one block; it reads any number.

use bytes::Bytes;
use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into_with_dict, get_maximum_output_size,
};
use siphon_wire::buf::{Rope, SegmentPool};

use super::decompressor::{check_length, filled};
use super::{Algorithm, CompressionError};

const ALGORITHM: Algorithm = Algorithm::Lz4;
/// Most bytes that a compressed one unpacks to: each byte of a match's length counts up to 255.
const MOST: u64 = 255;
/// Bytes before the table: how many blocks there are.
const COUNT: usize = 4;
/// Bytes of the table for each block.
const ENTRY: usize = 8;
/// Most blocks that are read.
const MAX_BLOCKS: usize = 1024;
/// How far back a block refers.
const WINDOW: usize = 64 << 10;
/// Longest segment that fits into one block (`LZ4_MAX_INPUT_SIZE`).
const MAX_BLOCK: usize = 0x7e00_0000;

#[derive(Default)]
pub(super) struct Encoder(CompressTable);

impl Encoder {
    pub(super) fn compress(&mut self, segment: &Rope) -> Option<Vec<u8>> {
        const HEAD: usize = COUNT + ENTRY;
        if segment.len() > MAX_BLOCK {
            return None;
        }
        let input = segment.to_bytes();
        let mut packed = vec![0; HEAD + get_maximum_output_size(input.len())];
        let (head, block) = packed.split_at_mut(HEAD);
        let length = compress_into_with_table(&input, block, &mut self.0).ok()?;
        let numbers = [1, u32::try_from(input.len()).ok()?, u32::try_from(length).ok()?];
        for (place, number) in head.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        packed.truncate(HEAD + length);
        Some(packed)
    }
}

pub(super) fn decompress(
    segment: &Rope,
    limit: usize,
    pool: &SegmentPool,
) -> Result<Bytes, CompressionError> {
    let packed = segment.to_bytes();
    let (table, blocks) = split(&packed)?;
    let lengths = || table.chunks_exact(ENTRY).map(entry);

    // The whole table is checked before memory is taken for what it states.
    let stated = lengths().map(|(length, _)| u64::from(length)).sum();
    let length = check_length(ALGORITHM, stated, limit, blocks.len(), MOST)?;
    let compressed: u64 = lengths().map(|(_, length)| u64::from(length)).sum();
    let found = blocks.len() as u64;
    if compressed > found {
        return Err(CompressionError::Truncated(ALGORITHM));
    }
    if compressed < found {
        let count = (found - compressed) as usize;
        return Err(CompressionError::TrailingBytes { algorithm: ALGORITHM, count });
    }
    filled(ALGORITHM, length, pool, |buffer| unpack(lengths(), blocks, buffer))
}

/// The table of lengths, and the blocks.
fn split(packed: &[u8]) -> Result<(&[u8], &[u8]), CompressionError> {
    let short = CompressionError::NoLength { algorithm: ALGORITHM, found: packed.len() };
    let (count, rest) = packed.split_first_chunk::<COUNT>().ok_or(short)?;
    let count = u32::from_le_bytes(*count);
    let limit = MAX_BLOCKS.min(rest.len() / ENTRY);
    if count as usize > limit {
        return Err(CompressionError::TooManyBlocks { count, limit });
    }
    Ok(rest.split_at(count as usize * ENTRY))
}

/// A block's length, and its compressed length.
fn entry(bytes: &[u8]) -> (u32, u32) {
    let (length, compressed) = bytes.split_at(ENTRY / 2);
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("half of an entry"));
    (number(length), number(compressed))
}

/// Unpacks the blocks, whose lengths add up to `blocks` and `buffer`; returns the bytes written.
fn unpack(
    lengths: impl Iterator<Item = (u32, u32)>,
    mut blocks: &[u8],
    buffer: &mut [u8],
) -> Result<usize, CompressionError> {
    let mut at = 0;
    for (length, compressed) in lengths {
        let (block, rest) = blocks.split_at(compressed as usize);
        blocks = rest;
        let (before, after) = buffer.split_at_mut(at);
        let window = &before[at.saturating_sub(WINDOW)..];
        let place = &mut after[..length as usize];
        let written = decompress_into_with_dict(block, place, window)
            .map_err(|_| CompressionError::Corrupt(ALGORITHM))?;
        if written != place.len() {
            let (stated, found) = (u64::from(length), written as u64);
            return Err(CompressionError::LengthDiffers { algorithm: ALGORITHM, stated, found });
        }
        at += written;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment of these blocks, each with the length that it is said to have.
    fn segment(blocks: &[(u32, &[u8])]) -> Rope {
        let mut packed = (blocks.len() as u32).to_le_bytes().to_vec();
        for (length, block) in blocks {
            packed.extend(length.to_le_bytes());
            packed.extend((block.len() as u32).to_le_bytes());
        }
        blocks.iter().for_each(|(_, block)| packed.extend(*block));
        Bytes::from(packed).into()
    }

    fn decompress(segment: &Rope) -> Result<Bytes, CompressionError> {
        super::decompress(segment, 1 << 20, &SegmentPool::new(0))
    }

    /// Five literals; then a match of 4 + 4 bytes five back, and five literals.
    const FIRST: &[u8] = b"\x50abcde";
    const SECOND: &[u8] = b"\x04\x05\x00\x50fghij";

    #[test]
    fn a_block_refers_to_the_one_before() {
        let both = segment(&[(5, FIRST), (13, SECOND)]);
        assert_eq!(decompress(&both).unwrap(), "abcdeabcdeabcfghij");
        let alone = segment(&[(13, SECOND)]);
        assert_eq!(decompress(&alone), Err(CompressionError::Corrupt(ALGORITHM)));
    }

    #[test]
    fn a_table_that_lies_is_found_out() {
        let of = |stated, found| {
            Err(CompressionError::LengthDiffers { algorithm: ALGORITHM, stated, found })
        };
        assert_eq!(decompress(&segment(&[(6, FIRST)])), of(6, 5));
        assert_eq!(
            decompress(&segment(&[(4, FIRST)])),
            Err(CompressionError::Corrupt(ALGORITHM)),
            "more than fits"
        );
        let mut whole = segment(&[(5, FIRST)]);
        whole.push(Bytes::from_static(b"xy"));
        let trailing = CompressionError::TrailingBytes { algorithm: ALGORITHM, count: 2 };
        assert_eq!(decompress(&whole), Err(trailing));
        whole.truncate(whole.len() - 3);
        assert_eq!(decompress(&whole), Err(CompressionError::Truncated(ALGORITHM)));
    }

    #[test]
    fn many_blocks_are_refused_before_the_table_is_read() {
        for (count, limit) in [(u32::MAX, 0), (1, 0)] {
            let few = Bytes::copy_from_slice(&count.to_le_bytes()).into();
            let error = CompressionError::TooManyBlocks { count, limit };
            assert_eq!(decompress(&few), Err(error));
        }
        let many = segment(&vec![(0, &b"\0"[..]); MAX_BLOCKS + 1]);
        let count = MAX_BLOCKS as u32 + 1;
        let error = CompressionError::TooManyBlocks { count, limit: MAX_BLOCKS };
        assert_eq!(decompress(&many), Err(error));
        let most = segment(&vec![(1, &b"\x10a"[..]); MAX_BLOCKS]);
        assert_eq!(decompress(&most).unwrap(), vec![b'a'; MAX_BLOCKS]);
    }
}
