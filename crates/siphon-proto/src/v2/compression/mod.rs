//! Compression on the wire, as Ceph has it from Quincy on.
//!
//! Both sides say in their banners that they know of it ([`BannerFeatures::COMPRESSION`]); then,
//! and only then, the client sends COMPRESSION_REQUEST behind the signatures and the server answers
//! with COMPRESSION_DONE ([`CompressionOptions`] decides for either side). From the next frame on,
//! each side may compress any frame, whatever its tag.
//!
//! A frame is compressed as a whole: every segment on its own, empty ones staying empty, with
//! [`FLAG_COMPRESSED`] in the preamble. The preamble's lengths, the checksums and the sealing are
//! those of the compressed bytes. (`FrameAssembler::asm_compress`, `disassemble_decompress` and
//! `fill_preamble` of `msg/async/frames_v2.cc`; nothing else of a frame changes.)
//!
//! What a compressed segment looks like is up to Ceph's compressor plugins (`src/compressor/`), which
//! bluestore uses too. The message that a plugin may pass beside the bytes does not travel: both ends
//! of `msg/async/compression_onwire.cc` drop it, so that zlib has its default window.
//!
//! ```text
//! snappy: length, a varint | elements
//! zlib:   mark u8 | raw deflate, window of 32 KiB
//! zstd:   length u32 | a frame of zstd
//! lz4:    blocks u32 | blocks x (length u32, compressed length u32) | blocks
//! ```
//!
//! Numbers are little-endian, lengths those of the bytes before. A block of lz4 may refer to what
//! the blocks before it unpacked to; Ceph writes one only.
//!
//! [`BannerFeatures::COMPRESSION`]: super::BannerFeatures::COMPRESSION

mod algorithm;
mod compressor;
mod decompressor;
mod error;
mod frame;
mod lz4;
mod negotiation;
mod snappy;
#[cfg(test)]
mod tests;
mod zlib;
mod zstd;

pub use algorithm::{Algorithm, CompressionMethod, Mode, UnknownName};
pub use compressor::Compressor;
pub use decompressor::Decompressor;
pub use error::CompressionError;
pub use frame::FrameCompressor;
pub use negotiation::{Agreed, CompressionOptions, NegotiationError};

/// `FRAME_EARLY_DATA_COMPRESSED` of Ceph's `frames_v2.h`: the first of the two bytes of a preamble
/// that are reserved without compression.
pub const FLAG_COMPRESSED: u8 = 1;
