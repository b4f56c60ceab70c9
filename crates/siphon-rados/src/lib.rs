//! Objects in Ceph clusters.

#![forbid(unsafe_code)]

mod error;
mod lock;
mod op;

pub use error::Error;
pub use lock::Lock;
pub use op::{InvalidOp, ObjectOp, Out, Outputs, ReadOp, Reading, WriteOp, Writing};
