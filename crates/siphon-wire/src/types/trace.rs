use crate::{Decode, Encode, Encoder};

/// Which span of a distributed trace a message belongs to (`blkin_trace_info`); all zero if none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Decode)]
#[denc(name = "blkin_trace_info")]
pub struct BlkinTrace {
    /// The trace.
    pub trace_id: i64,
    /// The span within it.
    pub span_id: i64,
    /// The span's parent.
    pub parent_span_id: i64,
}

impl Encode for BlkinTrace {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        enc.fixed((self.trace_id, self.span_id, self.parent_span_id));
    }
}
