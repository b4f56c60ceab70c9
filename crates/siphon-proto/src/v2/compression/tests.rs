//! What holds for every algorithm.

use bytes::Bytes;
use proptest::prelude::*;
use siphon_wire::buf::{Rope, SegmentPool};

use super::{Algorithm, CompressionError, Compressor, Decompressor};

fn decompress(
    algorithm: Algorithm,
    segment: &Rope,
    limit: usize,
) -> Result<Rope, CompressionError> {
    Decompressor::new(algorithm, SegmentPool::new(1 << 20)).decompress(segment, limit)
}

/// What the plugins of Ceph 16.2.15 (Debian 12) and of 18.2.7 (Debian 13) both make of what [`words`]
/// gives, by `Compressor::create(cct, name)->compress()`.
const BY_CEPH: [(Algorithm, &[u8]); 4] = [
    (Algorithm::Snappy, include_bytes!("../../../tests/data/compression/snappy")),
    (Algorithm::Zlib, include_bytes!("../../../tests/data/compression/zlib")),
    (Algorithm::Zstd, include_bytes!("../../../tests/data/compression/zstd")),
    (Algorithm::Lz4, include_bytes!("../../../tests/data/compression/lz4")),
];

/// Words in an order that a shift register gives.
fn words(length: usize) -> Vec<u8> {
    const WORDS: [&[u8]; 8] =
        [b"msgr2 ", b"osd_op ", b"rbd_data.", &[0; 8], b"crc ", b"secure ", b"frame ", b"snap "];
    let (mut state, mut text) = (1_u32, Vec::new());
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        text.extend_from_slice(WORDS[state as usize % WORDS.len()]);
    }
    text.truncate(length);
    text
}

/// The bytes cut into pieces of these lengths, over and over.
fn cut(bytes: &[u8], lengths: &[usize]) -> Rope {
    let mut rest = bytes;
    let mut lengths = lengths.iter().cycle();
    let pieces = std::iter::from_fn(|| {
        let length = lengths.next().map_or(rest.len(), |length| (*length).min(rest.len()));
        let (piece, tail) = rest.split_at(length);
        rest = tail;
        (!piece.is_empty()).then(|| Bytes::copy_from_slice(piece))
    });
    pieces.collect()
}

#[test]
fn what_ceph_compressed_is_understood() {
    let text = words(1200);
    for (algorithm, packed) in BY_CEPH {
        for lengths in [&[][..], &[1], &[7, 100]] {
            let segment = cut(packed, lengths);
            assert_eq!(decompress(algorithm, &segment, 1200).unwrap(), text[..], "{algorithm}");
        }
        let few = decompress(algorithm, &cut(packed, &[]), 1199);
        let error = CompressionError::TooLong { algorithm, length: 1200, limit: 1199 };
        assert_eq!(few, Err(error));
    }
}

#[test]
fn heads_are_those_that_ceph_writes() {
    let text = cut(&words(1200), &[]);
    // The length as a varint; the mark; length and magic; one block and its length.
    let heads = [2, 1, 8, 8];
    for ((algorithm, by_ceph), head) in BY_CEPH.into_iter().zip(heads) {
        let packed = Compressor::new(algorithm).compress(&text).unwrap();
        assert_eq!(packed[..head], by_ceph[..head], "{algorithm}");
    }
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let zeros: Rope = Bytes::from(vec![0; 8 << 20]).into();
    for algorithm in Algorithm::ALL {
        let packed = Rope::from(Compressor::new(algorithm).compress(&zeros).unwrap());
        assert!(packed.len() < 1 << 20, "{algorithm}: {}", packed.len());
        let limit = 64 << 10;
        let pool = SegmentPool::new(64 << 20);
        let error = Decompressor::new(algorithm, pool.clone()).decompress(&packed, limit);
        let expected = match algorithm {
            // It states no length: the byte that is too much is seen.
            Algorithm::Zlib => limit as u64 + 1,
            _ => 8 << 20,
        };
        let expected = CompressionError::TooLong { algorithm, length: expected, limit };
        assert_eq!(error, Err(expected));
        let most = if algorithm == Algorithm::Zlib { 2 * limit } else { 0 };
        assert!(pool.retained() <= most, "{algorithm} took {} bytes", pool.retained());
    }
}

#[test]
fn a_length_out_of_reach_takes_no_memory() {
    let stated = 100 << 20;
    let bytes = (stated as u32).to_le_bytes();
    for (algorithm, packed) in [
        (Algorithm::Snappy, b"\x80\x80\x80\x32\0a".to_vec()),
        (Algorithm::Zstd, [&bytes[..], b"\x28\xb5\x2f\xfd\0\0"].concat()),
        (Algorithm::Lz4, [&[1, 0, 0, 0], &bytes[..], &[2, 0, 0, 0, 0x10, 0x61]].concat()),
    ] {
        let pool = SegmentPool::new(1 << 30);
        let segment = Rope::from(Bytes::from(packed));
        let error = Decompressor::new(algorithm, pool.clone()).decompress(&segment, 128 << 20);
        assert!(
            matches!(error, Err(CompressionError::Unreachable { stated: found, .. }) if found == stated),
            "{algorithm}: {error:?}"
        );
        assert_eq!(pool.retained(), 0);
    }
}

#[test]
fn nothing_stays_nothing() {
    for algorithm in Algorithm::ALL {
        assert_eq!(Compressor::new(algorithm).compress(&Rope::new()), Some(Bytes::new()));
        assert_eq!(decompress(algorithm, &Rope::new(), 0), Ok(Rope::new()));
    }
}

#[test]
fn no_part_of_a_segment_is_the_segment() {
    let text = words(600);
    for algorithm in Algorithm::ALL {
        let packed = Compressor::new(algorithm).compress(&cut(&text, &[])).unwrap();
        let mut decompressor = Decompressor::new(algorithm, SegmentPool::new(0));
        for length in 1..packed.len() {
            let part = packed.slice(..length).into();
            let unpacked = decompressor.decompress(&part, 600);
            assert!(unpacked.is_err(), "{algorithm}: {length} of {}", packed.len());
        }
        assert_eq!(decompressor.decompress(&packed.into(), 600).unwrap(), text[..]);
    }
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    proptest::sample::select(&Algorithm::ALL[..])
}

/// Bytes of any kind: random, of few values, or words.
fn contents() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..3000),
        proptest::collection::vec(0..3_u8, 0..3000),
        (0..200_000_usize).prop_map(words),
    ]
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(1..5000_usize, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_compressed_comes_back(
        algorithm in algorithms(),
        segments in proptest::collection::vec((contents(), pieces(), pieces()), 1..3),
    ) {
        let mut compressor = Compressor::new(algorithm);
        let mut decompressor = Decompressor::new(algorithm, SegmentPool::new(1 << 20));
        for (content, sent, received) in segments {
            let segment = cut(&content, &sent);
            let packed = compressor.compress(&segment).unwrap();
            prop_assert_eq!(packed.is_empty(), content.is_empty());
            let packed = cut(&packed, &received);
            let unpacked = decompressor.decompress(&packed, content.len());
            prop_assert_eq!(unpacked, Ok(segment));
            if let Some(limit) = content.len().checked_sub(1) {
                let refused = decompressor.decompress(&packed, limit);
                let refused = matches!(refused, Err(CompressionError::TooLong { .. }));
                prop_assert!(refused);
            }
        }
    }

    #[test]
    fn damage_is_an_error_or_other_bytes_within_the_limit(
        algorithm in algorithms(),
        content in contents(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cuts in pieces(),
    ) {
        let packed = Compressor::new(algorithm).compress(&cut(&content, &[])).unwrap();
        let mut packed = packed.to_vec();
        for (at, bits) in damage {
            if !packed.is_empty() {
                let at = at.index(packed.len());
                packed[at] ^= bits;
            }
        }
        let limit = content.len();
        if let Ok(unpacked) = decompress(algorithm, &cut(&packed, &cuts), limit) {
            prop_assert!(unpacked.len() <= limit);
        }
    }

    #[test]
    fn garbage_is_an_error_or_bytes_within_the_limit(
        algorithm in algorithms(),
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
        limit in 0..10_000_usize,
    ) {
        if let Ok(unpacked) = decompress(algorithm, &cut(&garbage, &[13]), limit) {
            prop_assert!(unpacked.len() <= limit);
        }
    }
}
