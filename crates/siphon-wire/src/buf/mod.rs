//! Buffers: ropes of reference-counted segments, and pooled aligned segments to receive into.

mod pool;
mod rope;

pub use pool::{SegmentBuf, SegmentPool};
pub use rope::Rope;
