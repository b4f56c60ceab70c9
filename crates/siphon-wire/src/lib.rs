//! Ceph's wire encoding: ropes of reference-counted segments, CRC-32C, `denc` (Ceph's own name
//! for its encoding framework) and the base types that every message is made of.
//!
//! Nothing here opens a socket, reads a clock or starts a thread.

// The derives name their traits by this crate's name, also within it.
extern crate self as siphon_wire;

pub mod buf;
pub mod crc32c;
pub mod denc;
pub mod types;

pub use denc::{
    Decode, DecodeError, DecodeErrorKind, DecodeErrorParts, Decoder, Encode, Encoder, Fixed,
};
pub use siphon_wire_derive::{Decode, Encode};
