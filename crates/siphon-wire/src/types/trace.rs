use crate::{Decode, Encode};

/// Which span of a distributed trace a message belongs to (`blkin_trace_info`); all zero if none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[denc(name = "blkin_trace_info", fixed)]
pub struct BlkinTrace {
    /// The trace.
    pub trace_id: i64,
    /// The span within it.
    pub span_id: i64,
    /// The span's parent.
    pub parent_span_id: i64,
}
