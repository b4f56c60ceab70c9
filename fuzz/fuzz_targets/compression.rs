//! Compressed segments: whatever a peer sends unpacks to no more than the limit, the same in
//! whatever pieces it comes, and what it unpacks to can be compressed again.
//!
//! An input is unpacked as it is; or compressed first and damaged then, so that what is nearly right
//! is seen, too.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use siphon_fuzz::{Pieces, Script};
use siphon_proto::v2::compression::{Algorithm, Compressor, Decompressor};
use siphon_wire::buf::{Rope, SegmentPool};

/// Bit of the first byte: compress the input before.
const COMPRESS: u8 = 4;
/// Most bytes that are damaged.
const MAX_DAMAGE: u8 = 4;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let flags = script.byte();
    let algorithm = Algorithm::ALL[usize::from(flags) % Algorithm::ALL.len()];
    let limit = usize::from(script.u16()) * 4;
    let pieces = script.pieces();
    let damage: Vec<(usize, u8)> = (0..script.byte() % (MAX_DAMAGE + 1))
        .map(|_| (usize::from(script.u16()), script.byte()))
        .collect();

    let mut segment = script.rest().to_vec();
    if flags & COMPRESS != 0 {
        segment = compress(algorithm, &cut(&segment, pieces.clone())).to_vec();
    }
    for (at, bits) in damage {
        if let Some(at) = at.checked_rem(segment.len()) {
            segment[at] ^= bits;
        }
    }

    let mut decompressor = Decompressor::new(algorithm, SegmentPool::new(1 << 20));
    let whole = decompressor.decompress(&Bytes::copy_from_slice(&segment).into(), limit);
    let parts = decompressor.decompress(&cut(&segment, pieces), limit);
    match (whole, parts) {
        (Ok(whole), Ok(parts)) => {
            assert_eq!(whole, parts);
            assert!(whole.len() <= limit, "{} of {limit} bytes", whole.len());
            let again = compress(algorithm, &whole).into();
            assert_eq!(decompressor.decompress(&again, whole.len()), Ok(whole));
        }
        (whole, parts) => assert!(whole.is_err() && parts.is_err(), "{whole:?}, {parts:?}"),
    }
});

fn compress(algorithm: Algorithm, segment: &Rope) -> Bytes {
    let packed = Compressor::new(algorithm).compress(segment);
    packed.expect("no library refuses so little")
}

fn cut(mut bytes: &[u8], mut pieces: Pieces<'_>) -> Rope {
    let mut rope = Rope::new();
    while !bytes.is_empty() {
        let length = pieces.next().unwrap_or(1).min(bytes.len());
        let (piece, rest) = bytes.split_at(length);
        rope.push(Bytes::copy_from_slice(piece));
        bytes = rest;
    }
    rope
}
