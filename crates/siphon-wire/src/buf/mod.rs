//! Buffers: what arrived, ropes of reference-counted segments, and pooled aligned segments to receive
//! into.

mod input;
mod pool;
mod ring;
mod rope;

pub use input::Input;
pub use pool::{SegmentBuf, SegmentPool};
pub use ring::{MAX_GATHERING, put_gathering, take_gathering, take_short};
pub(crate) use ring::{MAX_SHARED, copied};
pub use rope::Rope;
