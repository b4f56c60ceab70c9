use std::sync::Arc;

use bytes::Bytes;
use siphon_wire::buf::{Input, Rope, SegmentBuf, SegmentPool, take_short};
use siphon_wire::crc32c::{Aligned, crc32c};

use super::header::MessageHeader2;
use super::seal::Opener;
use super::sealed::Sealed;
use super::{
    FIRST_CRC, FLAGS_AT, FrameError, Framing, INLINE, LATE_FLAG_ABORTED, LATE_STATUS_ABORTED,
    LATE_STATUS_COMPLETE, LATE_STATUS_MASK, Limits, MAX_PACKED_HEADER, MAX_SEGMENTS,
    PAGE_ALIGNMENT, PREAMBLE, PREAMBLE_CRC_AT, Protection, Revision, SEGMENT_SEED, SegmentName,
    Tag, preamble_crc,
};
use crate::SessionCounters;
use crate::message::{Grants, Message, Payload};
use crate::part::{MIN_DIRECT, Part, Shape};
use crate::v2::compression::{Algorithm, Decompressor, FLAG_COMPRESSED};

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
    /// Its segments, and what it was admitted with ([`Disassembler::admit`]). Its data are where they
    /// arrived, if that was in buffers that can be shared; else in one piece, page-aligned if the sender
    /// asked for it and they fill a page.
    pub message: Message,
    /// The newest message of the receiver's that the sender has seen.
    pub ack_seq: u64,
    /// As in [`MessageHeader2`].
    pub flags: u8,
}

impl MessageFrame {
    /// Its first segment.
    pub fn header(&self) -> MessageHeader2 {
        let Self { message, ack_seq, flags, .. } = self;
        let (seq, ack_seq, flags) = (message.seq, *ack_seq, *flags);
        MessageHeader2 { seq, ack_seq, flags, message: message.header }
    }
}

/// Cuts a byte stream into frames.
///
/// Bytes come in by [`Disassembler::feed`]. What is in buffers that can be shared stays there, where it
/// is not sealed and not a short segment across two of them; anything else is copied once, into its
/// segment. For a long segment [`Disassembler::lend`] hands out its buffer, to be filled by the
/// transport itself and given back with [`Disassembler::give_back`]; until then `feed` must get no
/// bytes.
///
/// What it holds is bounded by [`Limits`]: a preamble that announces more is an error.
#[derive(Debug)]
pub struct Disassembler {
    framing: Framing,
    limits: Limits,
    pool: SegmentPool,
    stage: Stage,
    /// Messages have to be admitted.
    gated: bool,
    /// The preamble, checksum or epilogue that is being collected.
    small: Collect<PREAMBLE>,
    /// The preamble that `frame` is of. Another frame with the same bytes has the same shape, which was
    /// checked already.
    known: Option<[u8; PREAMBLE]>,
    /// Beyond the preamble: the frame. It is changed in place, since it is too large to be moved
    /// from state to state for each of a frame's parts.
    frame: InFrame,
    /// In secure mode.
    sealed: Option<Box<Sealed>>,
    /// Where compression was agreed on.
    unpacking: Option<Box<Unpacking>>,
    /// Bytes that were copied, and not yet told of.
    copied: u64,
}

/// What comes next in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preamble,
    /// The preamble announced a message, which is not admitted yet.
    Gate,
    /// A message's first segment, which is short, of known length, and not compressed.
    Header,
    /// Segment `frame.index`; in secure mode the text that ends the frame.
    Segment,
    /// Secure mode of revision 1: the rest of a control frame's payload.
    Rest,
    /// Revision 1: the four bytes behind the first segment.
    FirstCrc,
    Epilogue,
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
    compressed: bool,
    /// Segment being filled; those before it are done.
    index: usize,
    crcs: [u32; MAX_SEGMENTS],
    header: Collect<{ MessageHeader2::LEN }>,
    /// The segment that is being filled, unless it is the header.
    part: Part,
    /// The first segment, unless it is a message's header as it is.
    first: Bytes,
    /// The message whose other segments are being received.
    message: Option<Message>,
    wire_len: usize,
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
    #[inline]
    fn take(&mut self, wanted: usize, input: &mut Input<'_>) -> bool {
        debug_assert!(self.len <= wanted && wanted <= N, "len <= wanted <= N");
        let taken = input.take(wanted - self.len);
        self.bytes[self.len..self.len + taken.len()].copy_from_slice(taken);
        self.len += taken.len();
        self.len == wanted
    }
}

/// What unpacks compressed frames.
#[derive(Debug)]
struct Unpacking {
    decompressor: Decompressor,
    counters: Arc<SessionCounters>,
}

impl Disassembler {
    /// A disassembler at the start of a frame. Long segments come from `pool`.
    pub fn new(framing: Framing, limits: Limits, pool: SegmentPool) -> Self {
        Self {
            framing,
            limits,
            pool,
            stage: Stage::Preamble,
            gated: false,
            small: Collect::new(),
            known: None,
            frame: InFrame::new(),
            sealed: None,
            unpacking: None,
            copied: 0,
        }
    }

    /// Every frame from here on is sealed.
    pub(crate) fn seal(&mut self, opener: Opener) {
        self.framing.protection = Protection::Secure;
        self.sealed = Some(Box::new(Sealed::new(opener, self.framing.revision)));
    }

    /// Frames from here on may be compressed.
    pub(crate) fn decompress(&mut self, algorithm: Algorithm, counters: Arc<SessionCounters>) {
        let decompressor = Decompressor::new(algorithm, self.pool.clone());
        self.unpacking = Some(Box::new(Unpacking { decompressor, counters }));
    }

    /// Gives up what only a busy link needs.
    pub(crate) fn release(&mut self) {
        if let Some(unpacking) = &mut self.unpacking {
            unpacking.decompressor.release();
        }
    }

    /// What is accepted from the next frame on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.known = None;
    }

    /// Whether messages have to be [admitted](Self::admit) before they are received.
    pub fn set_gated(&mut self, gated: bool) {
        self.gated = gated;
    }

    /// The length in bytes of a message's payload that is announced and not admitted yet. Until it
    /// is, no bytes are taken.
    pub fn announced(&self) -> Option<u64> {
        let lengths = &self.frame.lengths[1..self.frame.count.max(1)];
        (self.stage == Stage::Gate).then(|| lengths.iter().map(|len| u64::from(*len)).sum())
    }

    /// Has the announced message received; it carries the grants from then on.
    pub fn admit(&mut self, grants: Grants) {
        if self.stage == Stage::Gate {
            self.begin_payload();
            if let Some(message) = &mut self.frame.message {
                message.grants = grants;
            }
        }
    }

    /// Whether the stream is between two frames: an end here cuts nothing off.
    pub fn is_between_frames(&self) -> bool {
        let begun = match &self.sealed {
            Some(sealed) => !sealed.is_between_frames(),
            None => self.small.len > 0,
        };
        self.stage == Stage::Preamble && !begun
    }

    /// Takes bytes from the front of `input` until a frame is whole, or all are taken.
    ///
    /// # Errors
    /// If the bytes break a rule of the framing. The stream has no meaning after that: all further
    /// bytes are swallowed.
    pub fn feed(&mut self, input: &mut Input<'_>) -> Result<Option<Frame>, FrameError> {
        let result = self.advance(input);
        if result.is_err() {
            self.stage = Stage::Failed;
        }
        result
    }

    /// Takes the next frame if it is a message of the same shape as the frame before, undamaged and there as
    /// a whole: what most are in a busy stream. Of anything else it takes nothing, and
    /// [`feed`](Self::feed) tells what it is.
    pub fn next_message(&mut self, input: &mut Input<'_>) -> Option<MessageFrame> {
        let may_be = self.stage == Stage::Preamble && self.small.len == 0 && !self.gated;
        let is_plain = self.sealed.is_none() && self.frame.tag == Tag::MESSAGE;
        let preamble = input.rest().first_chunk()?;
        if !(may_be && is_plain && !self.frame.compressed && self.known.as_ref() == Some(preamble))
        {
            return None;
        }
        self.take_whole(PREAMBLE, input)
    }

    /// The buffer of the current segment, if enough of it is to come. While it is lent, bytes
    /// belong into it and not into [`Disassembler::feed`].
    pub fn lend(&mut self) -> Option<SegmentBuf> {
        if self.stage != Stage::Segment {
            return None;
        }
        if let Some(sealed) = &mut self.sealed {
            return sealed.lend();
        }
        self.frame.part.lend(&self.pool)
    }

    /// Takes back what [`Disassembler::lend`] gave, with what the transport filled in.
    pub fn give_back(&mut self, buffer: SegmentBuf) {
        if let Some(sealed) = &mut self.sealed {
            return sealed.give_back(buffer);
        }
        let index = self.frame.index;
        let filled = self.frame.part.give_back(buffer);
        if self.framing.data_crc() || index == 0 {
            let crc = &mut self.frame.crcs[index];
            *crc = crc32c(*crc, filled);
        }
    }

    /// Bytes of segments that were copied since it was asked last: all but those that are where they
    /// arrived, or that a transport filled in.
    pub fn take_copied(&mut self) -> u64 {
        std::mem::take(&mut self.copied)
    }

    fn advance(&mut self, input: &mut Input<'_>) -> Result<Option<Frame>, FrameError> {
        loop {
            match self.stage {
                Stage::Preamble => {
                    let Some(block) = self.take_preamble(input)? else {
                        return Ok(None);
                    };
                    if self.known != Some(block) {
                        self.known = None;
                        self.parse_preamble(&block)?;
                        self.known = Some(block);
                    }
                    self.frame.begin(self.framing);
                    if self.gated && self.frame.tag == Tag::MESSAGE {
                        self.next_is(Stage::Gate);
                    } else {
                        self.begin_payload();
                    }
                }
                Stage::Gate => return Ok(None),
                Stage::Rest | Stage::Segment if self.sealed.is_some() => {
                    return self.advance_sealed(input);
                }
                Stage::Header => {
                    if self.frame.header.len == 0
                        && let Some(message) = self.take_whole(0, input)
                    {
                        self.next_is(Stage::Preamble);
                        return Ok(Some(Frame::Message(message)));
                    }
                    if !self.frame.header.take(MessageHeader2::LEN, input) {
                        return Ok(None);
                    }
                    self.frame.crcs[0] = crc32c(SEGMENT_SEED, &self.frame.header.bytes);
                    self.segment_is_done();
                }
                Stage::Segment | Stage::Rest => {
                    self.copied += self.frame.fill(self.framing, input, &self.pool);
                    if !self.frame.part.is_full() {
                        return Ok(None);
                    }
                    self.frame.keep_segment();
                    self.segment_is_done();
                }
                Stage::FirstCrc => {
                    if !self.small.take(FIRST_CRC, input) {
                        return Ok(None);
                    }
                    self.frame.wire_len += FIRST_CRC;
                    let [a, b, c, d, ..] = self.small.bytes;
                    self.frame.check_crc(0, u32::from_le_bytes([a, b, c, d]))?;
                    self.next_segment();
                }
                Stage::Epilogue => {
                    let wanted = self.framing.epilogue_len(self.frame.count);
                    if !self.small.take(wanted, input) {
                        return Ok(None);
                    }
                    let epilogue = &self.small.bytes[..wanted];
                    let complete = self.frame.check_epilogue(self.framing, epilogue)?;
                    self.next_is(Stage::Preamble);
                    return self.finish(complete).map(Some);
                }
                Stage::Failed => {
                    *input = Input::default();
                    return Ok(None);
                }
            }
        }
    }

    fn next_is(&mut self, stage: Stage) {
        self.small.len = 0;
        self.stage = stage;
    }

    /// Takes the message of which the preamble is known, behind the first `skip` bytes, if it is there as a whole and
    /// in order. Else it takes nothing: what is not there yet, damaged or given up goes from stage to stage.
    fn take_whole(&mut self, skip: usize, input: &mut Input<'_>) -> Option<MessageFrame> {
        let Self { framing, frame, .. } = self;
        let [_, front, middle, data] = frame.lengths.map(|length| length as usize);
        let payload_len = front + middle + data;
        let epilogue_len = framing.epilogue_len(frame.count);
        let len = MessageHeader2::LEN + FIRST_CRC + payload_len + epilogue_len;
        let has_place = input.is_shared() || payload_len < MIN_DIRECT;
        if framing.revision != Revision::Rev1 || !has_place || input.len() < skip + len {
            return None;
        }
        let (header, rest) = input.rest()[skip..].split_first_chunk()?;
        let (header_crc, rest) = rest.split_first_chunk()?;
        if Aligned(*header).crc32c() != u32::from_le_bytes(*header_crc) {
            return None;
        }
        let (payload, epilogue) = rest.split_at(payload_len);
        let mut data_crc = None;
        if let Some((late, crcs)) = epilogue[..epilogue_len].split_first() {
            if late & LATE_STATUS_MASK != LATE_STATUS_COMPLETE {
                return None;
            }
            let (front, behind) = payload.split_at(front);
            let (middle, data) = behind.split_at(middle);
            let segments = [front, middle, data].into_iter().take(frame.count - 1);
            for (segment, expected) in segments.zip(crcs.chunks_exact(4)) {
                if framing.data_crc() {
                    let crc = crc32c(SEGMENT_SEED, segment);
                    if crc.to_le_bytes() != *expected {
                        return None;
                    }
                    data_crc = Some(crc);
                }
            }
        }
        input.take(skip + MessageHeader2::LEN + FIRST_CRC);
        let mut message = frame.message.take().unwrap_or_default();
        if input.shares(front) {
            message.payload.front = input.take_bytes(front).into();
        } else {
            self.copied += front as u64;
            message.payload.front.set(input.take(front));
        }
        // Mostly there is nothing else, or only data.
        let mut parts = Bytes::new();
        if middle + data > 0 {
            parts = if input.is_shared() {
                input.take_bytes(middle + data)
            } else {
                self.copied += (middle + data) as u64;
                let page_at = (data > 0 && frame.page_aligned[3]).then_some(middle);
                let mut own = take_short(middle + data, page_at);
                own.extend_from_slice(input.take(middle + data));
                own.freeze()
            };
        }
        input.take(epilogue_len);
        let header = MessageHeader2::decode(header);
        message.header = header.message;
        message.seq = header.seq;
        message.wire_len = PREAMBLE + len;
        if middle > 0 {
            message.payload.middle = parts.split_to(middle);
        }
        if data > 0 {
            message.payload.data = parts.into();
            if let Some(crc) = data_crc {
                message.payload.data.set_crc32c(SEGMENT_SEED, crc);
            }
        }
        let MessageHeader2 { ack_seq, flags, .. } = header;
        Some(MessageFrame { message, ack_seq, flags })
    }

    /// Goes on behind a segment.
    fn segment_is_done(&mut self) {
        let frame = &self.frame;
        if self.framing.revision == Revision::Rev1 && frame.index == 0 && frame.lengths[0] > 0 {
            self.next_is(Stage::FirstCrc);
        } else {
            self.next_segment();
        }
    }

    /// Goes on behind a segment and its checksum.
    fn next_segment(&mut self) {
        self.frame.index += 1;
        if self.frame.index < self.frame.count {
            self.frame.begin_segment();
            self.next_is(Stage::Segment);
        } else {
            self.next_is(Stage::Epilogue);
        }
    }

    fn take_preamble(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Option<[u8; PREAMBLE]>, FrameError> {
        match &mut self.sealed {
            Some(sealed) => sealed.take_head(input),
            None if self.small.len == 0
                && let Some(block) = input.take_array() =>
            {
                Ok(Some(*block))
            }
            None => Ok(self.small.take(PREAMBLE, input).then_some(self.small.bytes)),
        }
    }

    /// The preamble is known, and what it announces let in.
    fn begin_payload(&mut self) {
        let frame = &mut self.frame;
        frame.message = (frame.tag == Tag::MESSAGE).then(Message::default);
        let Some(sealed) = &mut self.sealed else {
            if frame.message.is_some() && !frame.compressed {
                frame.wire_len += MessageHeader2::LEN;
                return self.next_is(Stage::Header);
            }
            frame.begin_segment();
            return self.next_is(Stage::Segment);
        };
        let is_rev0 = self.framing.revision == Revision::Rev0;
        let first = frame.lengths[0] as usize;
        frame.wire_len = sealed.head_len();
        if is_rev0 || frame.count > 1 {
            let page_aligned = frame.count == MAX_SEGMENTS && frame.page_aligned[3];
            let lengths = &frame.lengths[..frame.count];
            frame.wire_len += sealed.begin_body(lengths, page_aligned, &self.pool);
        }
        if !is_rev0 && first > INLINE {
            frame.wire_len += sealed.begin_rest(first);
            return self.next_is(Stage::Rest); // a control frame, which has one segment
        }
        self.next_is(Stage::Segment);
    }

    /// Goes on with a sealed text, and returns the frame once it is whole.
    fn advance_sealed(&mut self, input: &mut Input<'_>) -> Result<Option<Frame>, FrameError> {
        let (Some(sealed), frame) = (&mut self.sealed, &mut self.frame) else {
            return Ok(None);
        };
        let before = input.len();
        let whole = sealed.fill(input);
        self.copied += (before - input.len()) as u64;
        if !whole {
            return Ok(None);
        }
        let revision = self.framing.revision;
        let lengths = &frame.lengths[..frame.count];
        let first = lengths[0] as usize;
        let mut complete = true;
        if revision == Revision::Rev0 || frame.count > 1 {
            let (segments, late) = sealed.finish_body(lengths)?;
            complete = is_complete(revision, late)?;
            let [first, front, middle, data] = segments;
            frame.first = first;
            if let Some(message) = &mut frame.message {
                message.payload = Payload { front: front.into(), middle, data: data.into() };
            }
        }
        if revision == Revision::Rev1 {
            frame.first = match self.stage {
                Stage::Rest => sealed.finish_rest(first)?,
                _ => {
                    let inline = sealed.inline(first);
                    let mut bytes = take_short(inline.len(), None);
                    bytes.extend_from_slice(inline);
                    bytes.freeze()
                }
            };
        }
        // A compressed one is none yet.
        if let Ok(header) = frame.first[..].try_into() {
            frame.header.bytes = header;
        }
        sealed.begin_head();
        self.next_is(Stage::Preamble);
        self.finish(complete).map(Some)
    }

    /// The frame, whose segments are all there.
    fn finish(&mut self, complete: bool) -> Result<Frame, FrameError> {
        let frame = &mut self.frame;
        if !complete {
            frame.first = Bytes::new();
            frame.message = None;
            return Ok(Frame::Aborted);
        }
        if frame.compressed {
            let tag = frame.tag;
            let unpacking = self.unpacking.as_mut();
            let Unpacking { decompressor, counters } =
                &mut **unpacking.ok_or(FrameError::CompressedUnasked { tag })?;
            counters.decompressed(1);
            let mut unpack = |index: usize, packed: &Rope| {
                let segment = SegmentName::of(tag, index);
                let limit = match segment {
                    SegmentName::Header => MessageHeader2::LEN,
                    _ => self.limits.of(segment) as usize,
                };
                let unpacked = decompressor.decompress(packed, limit);
                unpacked.map_err(|error| FrameError::Compression { tag, segment, error })
            };
            let packed = Rope::from(std::mem::take(&mut frame.first));
            frame.first = unpack(0, &packed)?.to_bytes();
            if let Some(message) = &mut frame.message {
                let length = frame.first.len() as u32;
                let header = frame.first[..].try_into();
                frame.header.bytes = header.map_err(|_| FrameError::HeaderLength(length))?;
                let Payload { front, middle, data } = &mut message.payload;
                if frame.count > 1 {
                    *front = unpack(1, &front.to_bytes().into())?.to_bytes().into();
                }
                if frame.count > 2 {
                    *middle = unpack(2, &std::mem::take(middle).into())?.to_bytes();
                }
                if frame.count == MAX_SEGMENTS {
                    *data = unpack(MAX_SEGMENTS - 1, data)?;
                }
            }
        } else if self.framing.data_crc()
            && let Some(message) = &mut frame.message
        {
            message.payload.data.set_crc32c(SEGMENT_SEED, frame.crcs[MAX_SEGMENTS - 1]);
        }
        Ok(frame.finish())
    }

    /// Makes `frame` the one that a preamble announces.
    fn parse_preamble(&mut self, block: &[u8; PREAMBLE]) -> Result<(), FrameError> {
        let word = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        let expected = word(PREAMBLE_CRC_AT);
        let calculated = preamble_crc(block);
        if calculated != expected {
            // Revision 0 has not seen the tag yet, and sees here already that it will not fit.
            return Err(match self.sealed {
                Some(_) => FrameError::Forged,
                None => FrameError::PreambleCrc { expected, calculated },
            });
        }
        let tag = Tag::from_wire(block[0]).ok_or(FrameError::UnknownTag(block[0]))?;
        let most = if tag == Tag::MESSAGE { MAX_SEGMENTS } else { 1 };
        let count = usize::from(block[1]);
        self.frame.compressed = block[FLAGS_AT] & FLAG_COMPRESSED != 0;
        if self.frame.compressed && self.unpacking.is_none() {
            return Err(FrameError::CompressedUnasked { tag });
        }
        if !(1..=most).contains(&count) {
            return Err(FrameError::SegmentCount { tag, count: block[1] });
        }
        let mut lengths = [0; MAX_SEGMENTS];
        for (index, length) in lengths.iter_mut().enumerate().take(count) {
            let at = 2 + 6 * index;
            *length = word(at);
            // What does not fill a page would take one, and is nothing that must begin at one.
            let alignment = u16::from_le_bytes([block[at + 4], block[at + 5]]);
            self.frame.page_aligned[index] =
                alignment >= PAGE_ALIGNMENT && *length >= u32::from(PAGE_ALIGNMENT);
            self.check_length(tag, index, *length)?;
        }
        if count > 1 && lengths[count - 1] == 0 {
            return Err(FrameError::LastSegmentEmpty { tag });
        }
        self.frame.tag = tag;
        self.frame.count = count;
        self.frame.lengths = lengths;
        Ok(())
    }

    fn check_length(&self, tag: Tag, index: usize, length: u32) -> Result<(), FrameError> {
        let segment = SegmentName::of(tag, index);
        let limit = match segment {
            SegmentName::Header if self.limits.front > 0 && self.frame.compressed => {
                MAX_PACKED_HEADER
            }
            SegmentName::Header if self.limits.front > 0 => {
                return match length as usize {
                    MessageHeader2::LEN => Ok(()),
                    _ => Err(FrameError::HeaderLength(length)),
                };
            }
            _ => self.limits.of(segment),
        };
        if length > limit {
            return Err(FrameError::SegmentTooLong { tag, segment, length, limit });
        }
        Ok(())
    }
}

impl InFrame {
    /// A place for frames; what it holds means nothing before the first preamble.
    fn new() -> Self {
        Self {
            tag: Tag::HELLO,
            count: 0,
            lengths: [0; MAX_SEGMENTS],
            page_aligned: [false; MAX_SEGMENTS],
            compressed: false,
            index: 0,
            crcs: [SEGMENT_SEED; MAX_SEGMENTS],
            header: Collect::new(),
            part: Part::default(),
            first: Bytes::new(),
            message: None,
            wire_len: 0,
        }
    }

    /// Begins with the first segment.
    fn begin(&mut self, framing: Framing) {
        self.index = 0;
        self.crcs = [SEGMENT_SEED; MAX_SEGMENTS];
        self.header.len = 0;
        self.wire_len = PREAMBLE + framing.epilogue_len(self.count);
    }

    fn begin_segment(&mut self) {
        let len = self.lengths[self.index] as usize;
        self.wire_len += len;
        let page_aligned = self.page_aligned[self.index];
        self.part.begin(Shape { len, page_aligned, pieces: self.index == MAX_SEGMENTS - 1 });
    }

    /// Moves bytes into the current segment; returns how many of them were copied.
    fn fill(&mut self, framing: Framing, input: &mut Input<'_>, pool: &SegmentPool) -> u64 {
        let taken = self.part.fill(input, pool);
        if self.index == 0 || framing.data_crc() {
            self.crcs[self.index] = crc32c(self.crcs[self.index], taken);
        }
        if self.part.copies() { taken.len() as u64 } else { 0 }
    }

    /// Puts the current segment, which is filled, to those that are done.
    fn keep_segment(&mut self) {
        match (self.index, &mut self.message) {
            (1, Some(message)) => message.payload.front = self.part.take_bytes().into(),
            (2, Some(message)) => message.payload.middle = self.part.take_bytes(),
            (3, Some(message)) => message.payload.data = self.part.take(),
            _ => self.first = self.part.take_bytes(),
        }
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
        is_complete(framing.revision, *late)
    }

    /// The frame, whose segments are all done.
    fn finish(&mut self) -> Frame {
        let first = std::mem::take(&mut self.first);
        let Some(mut message) = self.message.take() else {
            return Frame::Control { tag: self.tag, payload: first };
        };
        let header = MessageHeader2::decode(&self.header.bytes);
        message.header = header.message;
        message.seq = header.seq;
        message.wire_len = self.wire_len;
        let MessageHeader2 { ack_seq, flags, .. } = header;
        Frame::Message(MessageFrame { message, ack_seq, flags })
    }
}

/// What the epilogue's first byte says: false if the sender aborted the frame.
fn is_complete(revision: Revision, late: u8) -> Result<bool, FrameError> {
    match (revision, late & LATE_STATUS_MASK) {
        (Revision::Rev0, _) => Ok(late & LATE_FLAG_ABORTED == 0),
        (Revision::Rev1, LATE_STATUS_COMPLETE) => Ok(true),
        (Revision::Rev1, LATE_STATUS_ABORTED) => Ok(false),
        (Revision::Rev1, _) => Err(FrameError::LateStatus(late)),
    }
}
