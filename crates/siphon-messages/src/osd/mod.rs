//! What clients and OSDs talk about.

mod calls;
mod flags;
mod op;
mod opcode;
mod otel;
mod outputs;
mod session;
mod watch;

pub use calls::{Checksum, CmpOp, CmpValue};
pub use flags::{AllocHintFlags, OsdFlags, OsdOpFlags};
pub use op::{Extent, OsdOp};
pub use opcode::OsdOpCode;
pub use otel::{OtelSpan, OtelTrace};
pub use outputs::{
    Checksums, CloneInfo, ListObject, ObjListSnapResponse, ObjListWatchResponse, ObjectStat,
    OmapPart, PgNlsResponse, SparseData, WatchItem, decode_output,
};
pub use session::{BackoffOp, WatchEventKind, WatchOp};

pub(crate) use op::{DataCursor, append_data, decode_ops, encode_ops, print_ops};
