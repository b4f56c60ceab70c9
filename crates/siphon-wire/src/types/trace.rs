use crate::{Decode, DecodeError, Decoder, Encode, Encoder};

/// Which span of a distributed trace a message belongs to (`blkin_trace_info`); all zero if none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlkinTrace {
    /// The trace.
    pub trace_id: i64,
    /// The span within it.
    pub span_id: i64,
    /// The span's parent.
    pub parent_span_id: i64,
}

impl Encode for BlkinTrace {
    fn encode(&self, enc: &mut Encoder) {
        enc.i64(self.trace_id);
        enc.i64(self.span_id);
        enc.i64(self.parent_span_id);
    }
}

impl Decode for BlkinTrace {
    const MIN_SIZE: usize = 24;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("blkin_trace_info", |dec| {
            Ok(Self { trace_id: dec.i64()?, span_id: dec.i64()?, parent_span_id: dec.i64()? })
        })
    }
}
