use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder, Fixed};

/// Which span of an OpenTelemetry trace a message belongs to (`jspan_context`, since Squid).
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

/// A byte tells whether a span follows. It is missing from senders that were built without
/// tracing; it is always written here, because receivers built with it read it unasked.
impl Encode for OtelTrace {
    fn encode(&self, enc: &mut Encoder) {
        match self.span {
            Some(OtelSpan { trace_id, span_id, flags }) => {
                enc.fixed((1_u8, trace_id, span_id, flags).section(1, 1));
            }
            None => enc.fixed(0_u8.section(1, 1)),
        }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use siphon_wire::types::Features;

    use super::*;

    #[test]
    fn with_and_without_a_span() {
        let wire = b"\x01\x01\x1a\0\0\0\x01TRACE-ID-OF-16-BSPAN-ID8\x01";
        let span = OtelSpan { trace_id: *b"TRACE-ID-OF-16-B", span_id: *b"SPAN-ID8", flags: 1 };
        let trace = OtelTrace { span: Some(span) };
        assert_eq!(OtelTrace::from_bytes(&Bytes::from_static(wire)).unwrap(), trace);
        assert_eq!(&trace.to_bytes(Features::ALL)[..], wire);

        let none = OtelTrace::default();
        assert_eq!(&none.to_bytes(Features::ALL)[..], b"\x01\x01\x01\0\0\0\0");
        let untraced: [&[u8]; 2] = [b"\x01\x01\x01\0\0\0\0", b"\x01\x01\0\0\0\0"];
        for wire in untraced {
            assert_eq!(OtelTrace::from_bytes(&Bytes::copy_from_slice(wire)).unwrap(), none);
        }
    }
}
