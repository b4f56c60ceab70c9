//! What clients and OSDs talk about.

mod flags;
mod op;
mod opcode;
mod otel;
mod session;
mod watch;

pub use flags::{OsdFlags, OsdOpFlags};
pub use op::{Extent, OsdOp};
pub use opcode::OsdOpCode;
pub use otel::{OtelSpan, OtelTrace};
pub use session::{BackoffOp, WatchEventKind, WatchOp};

pub(crate) use op::{decode_ops, encode_ops, merge_data, print_ops};
