//! Buffers: ropes of reference-counted segments.

mod rope;

pub use rope::Rope;
