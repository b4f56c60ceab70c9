//! The payloads of all control frames: what decodes, encodes, and decodes to the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use siphon_fuzz::{Script, decode_and_back};
use siphon_proto::v2::{
    AuthBadMethodFrame, AuthDoneFrame, AuthPayloadFrame, AuthRequestFrame, AuthSignatureFrame,
    ClientIdent, CompressionDoneFrame, CompressionRequestFrame, Hello, IdentMissingFeatures,
    KeepaliveFrame, ReconnectFrame, SequenceFrame, ServerIdent, SessionResetFrame,
};
use siphon_wire::{Decode, Decoder, Encode};

/// The frames, in the order of their tags.
const FRAMES: [fn(&Bytes); 15] = [
    check::<Hello>,
    check::<AuthRequestFrame>,
    check::<AuthBadMethodFrame>,
    check::<AuthPayloadFrame>,
    check::<AuthDoneFrame>,
    check::<AuthSignatureFrame>,
    check::<ClientIdent>,
    check::<ServerIdent>,
    check::<IdentMissingFeatures>,
    check::<ReconnectFrame>,
    check::<SessionResetFrame>,
    check::<SequenceFrame>,
    check::<KeepaliveFrame>,
    check::<CompressionRequestFrame>,
    check::<CompressionDoneFrame>,
];

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let frame = usize::from(script.byte()) % FRAMES.len();
    FRAMES[frame](&Bytes::copy_from_slice(script.rest()));
});

/// A connection ignores what newer senders append; without it, the payload is a value.
fn check<T: Encode + Decode + PartialEq + std::fmt::Debug>(payload: &Bytes) {
    let mut decoder = Decoder::new(payload);
    match T::decode(&mut decoder) {
        Ok(_) => decode_and_back::<T>(&payload.slice(..decoder.offset())),
        Err(error) => assert!(error.offset <= payload.len(), "{error}"),
    }
}
