//! Frames: how msgr2 cuts a byte stream into pieces with a tag and up to four segments.
//!
//! In crc mode a frame is
//!
//! ```text
//! revision 0: preamble 32 | segment 1..4                     | epilogue 17
//! revision 1: preamble 32 | segment 1 | crc 4 | segment 2..4 | epilogue 13, if more than 1 segment
//!
//! preamble:   tag u8 | segments u8 | 4 x (length u32, alignment u16) | flags u8 | reserved u8 | crc u32
//! epilogue 0: late flags u8  | 4 x crc u32
//! epilogue 1: late status u8 | 3 x crc u32
//! ```
//!
//! In secure mode everything is padded with zeros to blocks of 16 bytes, and sealed; a tag of 16
//! bytes stands behind what was sealed together (in brackets). The epilogue is one block, with the
//! late flags or status in its first byte.
//!
//! ```text
//! revision 0: [ preamble 32 | segment 1..4 | epilogue 16 ]
//! revision 1: [ preamble 32 | first 48 of segment 1 ] [ rest of segment 1, if there is one ]
//!             [ segment 2..4 | epilogue 16, if more than 1 segment ]
//! ```

mod assembler;
mod disassembler;
mod header;
mod seal;
mod sealed;
mod tag;

use std::fmt;

pub use assembler::Assembler;
pub(crate) use assembler::MIN_REKEY_AFTER;
pub use disassembler::{Disassembler, Frame, MessageFrame};
pub use header::MessageHeader2;
pub use seal::StreamSeal;
pub use tag::Tag;

use siphon_wire::crc32c::crc32c_from_zero;

use crate::message::Payload;
use crate::v2::compression::CompressionError;

/// Most segments that a frame has.
pub(crate) const MAX_SEGMENTS: usize = 4;
/// The longest that a message's header is after compression, in bytes: some methods add a few.
pub(crate) const MAX_PACKED_HEADER: u32 = 128;
/// Bytes of a preamble.
pub(crate) const PREAMBLE: usize = 32;
/// Bytes of a preamble that its checksum covers.
pub(crate) const PREAMBLE_CRC_AT: usize = PREAMBLE - 4;
/// Where a preamble has its flags ([`FLAG_COMPRESSED`](super::compression::FLAG_COMPRESSED)).
pub(crate) const FLAGS_AT: usize = 26;
/// The checksum of all of a preamble but itself.
pub(crate) fn preamble_crc(preamble: &[u8; PREAMBLE]) -> u32 {
    let (covered, _) = preamble.split_first_chunk::<PREAMBLE_CRC_AT>().expect("28 of 32 bytes");
    crc32c_from_zero(covered)
}

/// Bytes of the checksum behind the first segment, in revision 1.
pub(crate) const FIRST_CRC: usize = 4;
/// Seed of a segment's checksum; a preamble's is 0.
pub(crate) const SEGMENT_SEED: u32 = u32::MAX;
/// Alignment that a sender asks for a message's data.
pub(crate) const PAGE_ALIGNMENT: u16 = 4096;
/// Alignment that a sender asks for everything else.
pub(crate) const DEFAULT_ALIGNMENT: u16 = 8;

/// Bytes of the first segment that secure mode has beside the preamble, in revision 1.
pub(crate) const INLINE: usize = 48;

/// `FRAME_LATE_FLAG_ABORTED` of revision 0.
pub(crate) const LATE_FLAG_ABORTED: u8 = 1;
/// `FRAME_LATE_STATUS_*` of revision 1: one nibble, far apart in Hamming distance.
pub(crate) const LATE_STATUS_MASK: u8 = 0x0f;
pub(crate) const LATE_STATUS_ABORTED: u8 = 0x01;
pub(crate) const LATE_STATUS_COMPLETE: u8 = 0x0e;

/// Revision of the framing, agreed by the banners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Revision {
    /// msgr2.0: one epilogue for all segments, always.
    Rev0,
    /// msgr2.1: the first segment has a checksum of its own.
    Rev1,
}

/// How frames are protected, agreed by authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protection {
    /// Checksums. `data` is Ceph's `ms_crc_data`: whether the segments behind the first are
    /// covered; if not, their checksums are sent as 0 and not looked at.
    Crc {
        /// `ms_crc_data`.
        data: bool,
    },
    /// AES-128-GCM, with what [`StreamSeal`] holds.
    Secure,
}

/// Everything that decides how a frame looks on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// Layout.
    pub revision: Revision,
    /// Checksums or encryption.
    pub protection: Protection,
}

impl Framing {
    pub(crate) fn data_crc(self) -> bool {
        matches!(self.protection, Protection::Crc { data: true })
    }

    /// Bytes of the epilogue of a frame with `segments` segments.
    pub(crate) fn epilogue_len(self, segments: usize) -> usize {
        match self.revision {
            Revision::Rev0 => 17,
            Revision::Rev1 if segments > 1 => 13,
            Revision::Rev1 => 0,
        }
    }
}

/// The longest segments that are accepted, in bytes. A preamble that announces more ends the
/// connection before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Payload of every frame that is not a message.
    pub control: u32,
    /// A message's front; 0 refuses messages.
    pub front: u32,
    /// A message's middle.
    pub middle: u32,
    /// A message's data.
    pub data: u32,
}

impl Limits {
    /// Before the peer has said hello: next to nothing, and no message.
    pub const BEFORE_HELLO: Self = Self { control: 1 << 10, front: 0, middle: 0, data: 0 };
    /// During authentication, whose payloads carry tickets; still no message.
    pub const HANDSHAKE: Self = Self { control: 64 << 10, front: 0, middle: 0, data: 0 };
    /// With a session: maps travel in front (tens of MiB on the largest clusters), objects in data
    /// (`osd_max_write_size` is 90 MiB).
    pub const SESSION: Self =
        Self { control: 64 << 10, front: 128 << 20, middle: 64 << 20, data: 128 << 20 };
}

/// A part of a message that is longer than [`Limits`] allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Which part.
    pub segment: SegmentName,
    /// Its length in bytes.
    pub length: usize,
    /// The longest that is allowed.
    pub limit: u32,
}

impl Limits {
    /// The longest segment of a kind. A message's header has a length of its own; where messages are
    /// refused, it is refused as well.
    pub(crate) fn of(&self, segment: SegmentName) -> u32 {
        match segment {
            SegmentName::Control => self.control,
            SegmentName::Header | SegmentName::Front => self.front,
            SegmentName::Middle => self.middle,
            SegmentName::Data => self.data,
        }
    }

    /// Whether a message with this payload may be sent.
    ///
    /// # Errors
    /// If a part of it is too long.
    pub fn check(&self, payload: &Payload) -> Result<(), TooLong> {
        let parts = [
            (SegmentName::Front, payload.front.len(), self.front),
            (SegmentName::Middle, payload.middle.len(), self.middle),
            (SegmentName::Data, payload.data.len(), self.data),
        ];
        for (segment, length, limit) in parts {
            if length > limit as usize {
                return Err(TooLong { segment, length, limit });
            }
        }
        Ok(())
    }
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, length, limit } = self;
        write!(f, "the message's {segment} has {length} bytes, at most {limit} are allowed")
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::SESSION
    }
}

/// A part of a frame, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentName {
    /// The only segment of a control frame.
    Control,
    /// A message's header.
    Header,
    /// A message's front.
    Front,
    /// A message's middle.
    Middle,
    /// A message's data.
    Data,
}

impl SegmentName {
    pub(crate) fn of(tag: Tag, index: usize) -> Self {
        match (tag, index) {
            (Tag::MESSAGE, 0) => Self::Header,
            (Tag::MESSAGE, 1) => Self::Front,
            (Tag::MESSAGE, 2) => Self::Middle,
            (Tag::MESSAGE, _) => Self::Data,
            _ => Self::Control,
        }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "payload",
            Self::Header => "header",
            Self::Front => "front",
            Self::Middle => "middle",
            Self::Data => "data",
        })
    }
}

/// A rule of the framing that the bytes break.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The preamble's checksum is wrong.
    PreambleCrc {
        /// What the preamble says.
        expected: u32,
        /// What its bytes have.
        calculated: u32,
    },
    /// A segment's checksum is wrong.
    SegmentCrc {
        /// The frame's tag.
        tag: Tag,
        /// The segment.
        segment: SegmentName,
        /// What the frame says.
        expected: u32,
        /// What its bytes have.
        calculated: u32,
    },
    /// A tag that no version of the protocol has.
    UnknownTag(u8),
    /// A number of segments outside what the frame may have.
    SegmentCount {
        /// The frame's tag.
        tag: Tag,
        /// The number it announces.
        count: u8,
    },
    /// The last of several segments is empty: a sender leaves such segments out.
    LastSegmentEmpty {
        /// The frame's tag.
        tag: Tag,
    },
    /// A segment is longer than is accepted at this stage.
    SegmentTooLong {
        /// The frame's tag.
        tag: Tag,
        /// The segment.
        segment: SegmentName,
        /// Its announced length in bytes.
        length: u32,
        /// The longest accepted one.
        limit: u32,
    },
    /// A message whose first segment is not a message header.
    HeaderLength(u32),
    /// The epilogue's late status is neither complete nor aborted.
    LateStatus(u8),
    /// A compressed frame, where no compression was agreed on.
    CompressedUnasked {
        /// The frame's tag.
        tag: Tag,
    },
    /// A compressed segment that does not unpack, or unpacks to more than is accepted.
    Compression {
        /// The frame's tag.
        tag: Tag,
        /// The segment.
        segment: SegmentName,
        /// What is wrong with it.
        error: CompressionError,
    },
    /// In secure mode: bytes that were changed, left out, repeated or brought into another order.
    Forged,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreambleCrc { expected, calculated } => {
                write!(f, "the preamble's crc is {calculated:#010x}, it says {expected:#010x}")
            }
            Self::SegmentCrc { tag, segment, expected, calculated } => write!(
                f,
                "the crc of {tag}'s {segment} is {calculated:#010x}, the frame says {expected:#010x}"
            ),
            Self::UnknownTag(tag) => write!(f, "unknown tag {tag}"),
            Self::SegmentCount { tag, count } => write!(f, "{tag} with {count} segments"),
            Self::LastSegmentEmpty { tag } => write!(f, "the last segment of {tag} is empty"),
            Self::SegmentTooLong { tag, segment, length, limit } => write!(
                f,
                "{tag} announces {length} bytes of {segment}, at most {limit} are accepted now"
            ),
            Self::HeaderLength(length) => write!(f, "a message header of {length} bytes"),
            Self::LateStatus(status) => write!(f, "late status {status:#04x}"),
            Self::CompressedUnasked { tag } => {
                write!(f, "{tag} is compressed, which was not agreed on")
            }
            Self::Compression { tag, segment, error } => write!(f, "{tag}'s {segment}: {error}"),
            Self::Forged => f.write_str("it was not sealed by the peer, or not for this place"),
        }
    }
}

impl std::error::Error for FrameError {}
