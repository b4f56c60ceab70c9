//! Messenger protocol version 2, as Ceph's `doc/dev/msgr2.rst` and `msg/async/frames_v2.h` have it.

mod banner;
pub mod compression;
mod frame;
mod link;
pub(crate) mod payload;

pub use banner::{Banner, BannerError, BannerFeatures, BannerReader};
pub use frame::{
    Assembler, Disassembler, Frame, FrameError, Framing, Limits, MessageFrame, MessageHeader2,
    Protection, Revision, SegmentName, StreamSeal, Tag, TooLong,
};
pub(crate) use link::Link2;
pub use payload::{
    AuthBadMethodFrame, AuthDoneFrame, AuthPayloadFrame, AuthRequestFrame, AuthSignatureFrame,
    ClientIdent, CompressionDoneFrame, CompressionRequestFrame, Hello, IdentMissingFeatures,
    KeepaliveFrame, ReconnectFrame, SequenceFrame, ServerIdent, SessionResetFrame,
};
