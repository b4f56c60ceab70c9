//! Encoding and decoding, as Ceph's `include/encoding.h` and `include/denc.h` define it.
//!
//! All integers are little-endian. A string, a byte sequence and a container begin with a 32-bit
//! count. Most structures stand in a *versioned section*:
//!
//! ```text
//! +----------+--------+------------+---------------------+
//! | struct_v | compat | length u32 | length bytes        |
//! +----------+--------+------------+---------------------+
//! ```
//!
//! `struct_v` is the version of what was encoded, `compat` the oldest version a decoder must
//! understand to make sense of it; a decoder skips what newer versions appended.

mod decode;
mod encode;
mod error;
mod fixed;
mod impls;

pub use decode::{Decode, Decoder};
pub use encode::{Encode, Encoder};
pub use error::{DecodeError, DecodeErrorKind, DecodeErrorParts};
pub use fixed::Fixed;
