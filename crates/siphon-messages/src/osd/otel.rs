use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

/// Which span of an OpenTelemetry trace a message belongs to (`jspan_context`, since Reef).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OtelTrace {
    /// The span; `None` if the sender does not trace.
    pub span: Option<OtelSpan>,
}

/// A span and its trace, as in W3C's trace context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OtelSpan {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span within it.
    pub span_id: [u8; 8],
    /// Whether the trace is sampled, and more.
    pub flags: u8,
}

/// Senders that were built without tracing write an empty section, others a byte that tells
/// whether a span follows. Without a span we write the former.
impl Encode for OtelTrace {
    fn encode(&self, enc: &mut Encoder) {
        enc.versioned(1, 1, |enc| {
            if let Some(span) = &self.span {
                enc.bool(true);
                enc.raw(&span.trace_id);
                enc.raw(&span.span_id);
                enc.u8(span.flags);
            }
        });
    }
}

impl Decode for OtelTrace {
    const MIN_SIZE: usize = 6;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("jspan_context", 1, |dec, _version| {
            let traced = dec.remaining() != 0 && dec.bool()?;
            if !traced {
                return Ok(Self::default());
            }
            let span = OtelSpan { trace_id: dec.array()?, span_id: dec.array()?, flags: dec.u8()? };
            Ok(Self { span: Some(span) })
        })
    }
}
