use bytes::{Bytes, BytesMut};
use siphon_wire::buf::{SegmentBuf, SegmentPool};
use siphon_wire::crc32c::crc32c;

use super::header::MessageHeader2;
use super::{
    FrameError, Framing, LATE_FLAG_ABORTED, LATE_STATUS_ABORTED, LATE_STATUS_COMPLETE,
    LATE_STATUS_MASK, Limits, MAX_EPILOGUE, MAX_SEGMENTS, PAGE_ALIGNMENT, PREAMBLE,
    PREAMBLE_CRC_AT, Revision, SEGMENT_SEED, SegmentName, Tag,
};

/// A segment with at least this much still to come is worth reading straight into its place.
const MIN_DIRECT: usize = 16 << 10;

/// A frame that arrived whole and undamaged.
#[derive(Debug)]
pub enum Frame {
    /// Any frame but a message.
    Control {
        /// What it is.
        tag: Tag,
        /// Its only segment.
        payload: Bytes,
    },
    /// A message.
    Message(MessageFrame),
    /// The sender gave up on this frame after it had begun; there is nothing in it.
    Aborted,
}

/// The parts of a MESSAGE frame.
#[derive(Debug)]
pub struct MessageFrame {
    /// First segment.
    pub header: MessageHeader2,
    /// Second segment.
    pub front: Bytes,
    /// Third segment.
    pub middle: Bytes,
    /// Fourth segment; page-aligned if the sender asked for it.
    pub data: Bytes,
    /// Bytes of the whole frame on the wire.
    pub wire_len: usize,
}

/// Cuts a byte stream into frames.
///
/// Bytes come in by [`Disassembler::feed`], and are copied once, into their segment. For a long
/// segment [`Disassembler::lend`] hands out its buffer, to be filled by the transport itself and
/// given back with [`Disassembler::give_back`]; until then `feed` must get no bytes.
///
/// What it holds is bounded by [`Limits`]: a preamble that announces more is an error.
#[derive(Debug)]
pub struct Disassembler {
    framing: Framing,
    limits: Limits,
    pool: SegmentPool,
    state: State,
}

#[derive(Debug)]
enum State {
    Preamble(Collect<PREAMBLE>),
    /// In segment `head.index`.
    Segment(InFrame),
    /// Revision 1: the four bytes behind the first segment.
    FirstCrc(InFrame, Collect<4>),
    Epilogue(InFrame, Collect<MAX_EPILOGUE>),
    /// An error was returned: the position in the stream is lost.
    Failed,
}

/// A frame of which the preamble is known.
#[derive(Debug)]
struct InFrame {
    tag: Tag,
    count: usize,
    lengths: [u32; MAX_SEGMENTS],
    page_aligned: [bool; MAX_SEGMENTS],
    /// Segment being filled; those before it are done.
    index: usize,
    crcs: [u32; MAX_SEGMENTS],
    /// A message's first segment, which is short and of known length.
    header: Collect<{ MessageHeader2::LEN }>,
    done: [Bytes; MAX_SEGMENTS],
    filling: Filling,
    wire_len: usize,
}

/// Where the bytes of the current segment go.
#[derive(Debug)]
enum Filling {
    None,
    /// Into `InFrame::header`.
    Header,
    /// Invariant: capacity is the segment's length, so it never moves.
    Small(BytesMut),
    Large(SegmentBuf),
    /// The buffer is with the transport; so many bytes were in it.
    Lent {
        filled: usize,
    },
}

/// Up to `N` bytes that arrive in pieces. Invariant: `len <= N`.
#[derive(Debug)]
struct Collect<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Collect<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// Takes what is missing to `wanted` bytes; true once they are there.
    fn take(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        debug_assert!(self.len <= wanted && wanted <= N, "len <= wanted <= N");
        let (taken, rest) = input.split_at((wanted - self.len).min(input.len()));
        self.bytes[self.len..self.len + taken.len()].copy_from_slice(taken);
        self.len += taken.len();
        *input = rest;
        self.len == wanted
    }
}

impl Disassembler {
    /// A disassembler at the start of a frame. Long segments come from `pool`.
    pub fn new(framing: Framing, limits: Limits, pool: SegmentPool) -> Self {
        Self { framing, limits, pool, state: State::Preamble(Collect::new()) }
    }

    /// What is accepted from the next frame on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether the stream is between two frames: an end here cuts nothing off.
    pub fn is_between_frames(&self) -> bool {
        matches!(&self.state, State::Preamble(collect) if collect.len == 0)
    }

    /// Takes bytes from the front of `input` until a frame is whole, or all are taken.
    ///
    /// # Errors
    /// If the bytes break a rule of the framing. The stream has no meaning after that: all further
    /// bytes are swallowed.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        match self.advance(input) {
            Ok(frame) => Ok(frame),
            Err(error) => {
                self.state = State::Failed;
                Err(error)
            }
        }
    }

    /// The buffer of the current segment, if enough of it is to come. While it is lent, bytes
    /// belong into it and not into [`Disassembler::feed`].
    pub fn lend(&mut self) -> Option<SegmentBuf> {
        let State::Segment(frame) = &mut self.state else {
            return None;
        };
        match std::mem::replace(&mut frame.filling, Filling::None) {
            Filling::Large(buffer) if buffer.remaining() >= MIN_DIRECT => {
                frame.filling = Filling::Lent { filled: buffer.filled().len() };
                Some(buffer)
            }
            other => {
                frame.filling = other;
                None
            }
        }
    }

    /// Takes back what [`Disassembler::lend`] gave, with what the transport filled in.
    pub fn give_back(&mut self, buffer: SegmentBuf) {
        let State::Segment(frame) = &mut self.state else {
            debug_assert!(false, "only a segment's buffer is ever lent");
            return;
        };
        let Filling::Lent { filled } = frame.filling else {
            debug_assert!(false, "a buffer comes back that was not lent");
            return;
        };
        if self.framing.data_crc() || frame.index == 0 {
            let crc = &mut frame.crcs[frame.index];
            *crc = crc32c(*crc, &buffer.filled()[filled..]);
        }
        frame.filling = Filling::Large(buffer);
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        loop {
            match std::mem::replace(&mut self.state, State::Failed) {
                State::Preamble(mut collect) => {
                    if !collect.take(PREAMBLE, input) {
                        self.state = State::Preamble(collect);
                        return Ok(None);
                    }
                    let frame = self.parse_preamble(&collect.bytes)?;
                    self.state = State::Segment(frame);
                }
                State::Segment(mut frame) => {
                    if !frame.fill(self.framing, input) {
                        self.state = State::Segment(frame);
                        return Ok(None);
                    }
                    let own_crc = self.framing.revision == Revision::Rev1
                        && frame.index == 0
                        && frame.lengths[0] > 0;
                    if own_crc {
                        frame.wire_len += 4;
                        self.state = State::FirstCrc(frame, Collect::new());
                    } else {
                        self.next_segment(frame);
                    }
                }
                State::FirstCrc(frame, mut collect) => {
                    if !collect.take(4, input) {
                        self.state = State::FirstCrc(frame, collect);
                        return Ok(None);
                    }
                    frame.check_crc(0, u32::from_le_bytes(collect.bytes))?;
                    self.next_segment(frame);
                }
                State::Epilogue(frame, mut collect) => {
                    let wanted = self.framing.epilogue_len(frame.count);
                    if !collect.take(wanted, input) {
                        self.state = State::Epilogue(frame, collect);
                        return Ok(None);
                    }
                    self.state = State::Preamble(Collect::new());
                    let complete = frame.check_epilogue(self.framing, &collect.bytes[..wanted])?;
                    return Ok(Some(if complete { frame.finish() } else { Frame::Aborted }));
                }
                State::Failed => {
                    *input = &[];
                    return Ok(None);
                }
            }
        }
    }

    /// Goes on behind a segment that is done.
    fn next_segment(&mut self, mut frame: InFrame) {
        frame.index += 1;
        if frame.index < frame.count {
            frame.begin_segment(&self.pool);
            self.state = State::Segment(frame);
        } else {
            self.state = State::Epilogue(frame, Collect::new());
        }
    }

    fn parse_preamble(&self, block: &[u8; PREAMBLE]) -> Result<InFrame, FrameError> {
        let word = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        let expected = word(PREAMBLE_CRC_AT);
        let calculated = crc32c(0, &block[..PREAMBLE_CRC_AT]);
        if calculated != expected {
            return Err(FrameError::PreambleCrc { expected, calculated });
        }
        let tag = Tag::from_wire(block[0]).ok_or(FrameError::UnknownTag(block[0]))?;
        let most = if tag == Tag::MESSAGE { MAX_SEGMENTS } else { 1 };
        let count = usize::from(block[1]);
        if !(1..=most).contains(&count) {
            return Err(FrameError::SegmentCount { tag, count: block[1] });
        }
        let mut lengths = [0; MAX_SEGMENTS];
        let mut page_aligned = [false; MAX_SEGMENTS];
        for index in 0..count {
            let at = 2 + 6 * index;
            lengths[index] = word(at);
            page_aligned[index] =
                u16::from_le_bytes([block[at + 4], block[at + 5]]) >= PAGE_ALIGNMENT;
            self.check_length(tag, index, lengths[index])?;
        }
        if count > 1 && lengths[count - 1] == 0 {
            return Err(FrameError::LastSegmentEmpty { tag });
        }
        let mut frame = InFrame {
            tag,
            count,
            lengths,
            page_aligned,
            index: 0,
            crcs: [SEGMENT_SEED; MAX_SEGMENTS],
            header: Collect::new(),
            done: Default::default(),
            filling: Filling::None,
            wire_len: PREAMBLE + self.framing.epilogue_len(count),
        };
        frame.begin_segment(&self.pool);
        Ok(frame)
    }

    fn check_length(&self, tag: Tag, index: usize, length: u32) -> Result<(), FrameError> {
        let segment = SegmentName::of(tag, index);
        let limit = match segment {
            SegmentName::Header if self.limits.front > 0 => {
                return match length as usize {
                    MessageHeader2::LEN => Ok(()),
                    _ => Err(FrameError::HeaderLength(length)),
                };
            }
            SegmentName::Header | SegmentName::Front => self.limits.front,
            SegmentName::Control => self.limits.control,
            SegmentName::Middle => self.limits.middle,
            SegmentName::Data => self.limits.data,
        };
        if length > limit {
            return Err(FrameError::SegmentTooLong { tag, segment, length, limit });
        }
        Ok(())
    }
}

impl InFrame {
    fn begin_segment(&mut self, pool: &SegmentPool) {
        let length = self.lengths[self.index] as usize;
        self.wire_len += length;
        self.filling = if self.tag == Tag::MESSAGE && self.index == 0 {
            Filling::Header
        } else if length == 0 {
            Filling::None
        } else if self.page_aligned[self.index] || length >= MIN_DIRECT {
            Filling::Large(pool.take(length))
        } else {
            Filling::Small(BytesMut::with_capacity(length))
        };
    }

    /// Moves bytes into the current segment; true once it is full, and then it is in `done`.
    fn fill(&mut self, framing: Framing, input: &mut &[u8]) -> bool {
        let length = self.lengths[self.index] as usize;
        let missing = match &self.filling {
            Filling::None => 0,
            Filling::Header => length - self.header.len,
            Filling::Small(buffer) => length - buffer.len(),
            Filling::Large(buffer) => buffer.remaining(),
            Filling::Lent { .. } => {
                debug_assert!(input.is_empty(), "bytes overtake a lent buffer");
                return false;
            }
        };
        let (taken, rest) = input.split_at(missing.min(input.len()));
        if self.index == 0 || framing.data_crc() {
            self.crcs[self.index] = crc32c(self.crcs[self.index], taken);
        }
        match &mut self.filling {
            Filling::None | Filling::Lent { .. } => {}
            Filling::Header => {
                self.header.take(length, &mut &taken[..]);
            }
            Filling::Small(buffer) => buffer.extend_from_slice(taken),
            Filling::Large(buffer) => {
                buffer.unfilled()[..taken.len()].copy_from_slice(taken);
                buffer.advance(taken.len());
            }
        }
        *input = rest;
        if taken.len() < missing {
            return false;
        }
        self.done[self.index] = match std::mem::replace(&mut self.filling, Filling::None) {
            Filling::Small(buffer) => buffer.freeze(),
            Filling::Large(buffer) => buffer.freeze(),
            Filling::None | Filling::Header | Filling::Lent { .. } => Bytes::new(),
        };
        true
    }

    fn check_crc(&self, index: usize, expected: u32) -> Result<(), FrameError> {
        let calculated = self.crcs[index];
        if calculated == expected {
            return Ok(());
        }
        let segment = SegmentName::of(self.tag, index);
        Err(FrameError::SegmentCrc { tag: self.tag, segment, expected, calculated })
    }

    /// Checks the checksums that the epilogue has; false if the sender aborted the frame.
    fn check_epilogue(&self, framing: Framing, epilogue: &[u8]) -> Result<bool, FrameError> {
        let Some((late, crcs)) = epilogue.split_first() else {
            return Ok(true); // revision 1 with one segment: all was checked
        };
        let first = match framing.revision {
            Revision::Rev0 => 0,
            Revision::Rev1 => 1,
        };
        let crcs = crcs.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
        for (index, expected) in (first..self.count).zip(crcs) {
            if index == 0 || framing.data_crc() {
                self.check_crc(index, expected)?;
            }
        }
        match (framing.revision, late & LATE_STATUS_MASK) {
            (Revision::Rev0, _) => Ok(late & LATE_FLAG_ABORTED == 0),
            (Revision::Rev1, LATE_STATUS_COMPLETE) => Ok(true),
            (Revision::Rev1, LATE_STATUS_ABORTED) => Ok(false),
            (Revision::Rev1, _) => Err(FrameError::LateStatus(*late)),
        }
    }

    fn finish(self) -> Frame {
        let [first, front, middle, data] = self.done;
        if self.tag != Tag::MESSAGE {
            return Frame::Control { tag: self.tag, payload: first };
        }
        let header = MessageHeader2::decode(&self.header.bytes);
        Frame::Message(MessageFrame { header, front, middle, data, wire_len: self.wire_len })
    }
}
