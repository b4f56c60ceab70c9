use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use siphon_wire::buf::{Input, MAX_GATHERING, Rope, SegmentPool, put_gathering, take_gathering};
use siphon_wire::crc32c::{Aligned, crc32c};

use super::header::MessageHeader2;
use super::seal::{BLOCK, Sealer, TAG, padded};
use super::{
    DEFAULT_ALIGNMENT, FIRST_CRC, FLAGS_AT, Framing, INLINE, LATE_STATUS_COMPLETE,
    MAX_PACKED_HEADER, MAX_SEGMENTS, PAGE_ALIGNMENT, PREAMBLE, PREAMBLE_CRC_AT, Protection,
    Revision, SEGMENT_SEED, Tag, preamble_crc,
};
use crate::SessionCounters;
use crate::config::ConnectionConfig;
use crate::message::Payload;
use crate::v2::compression::{Agreed, FLAG_COMPRESSED, FrameCompressor};

/// The longest segments that are copied, in bytes: a buffer holds two.
const MAX_COPIED: usize = MAX_GATHERING / 2;
/// Size in bytes of the buffer that a handshake's frames gather in, which are few and short.
const GATHER_CONTROL: usize = 512;

/// Writes frames. What is small gathers in one buffer across frames, what is large goes into the
/// rope as it is.
#[derive(Debug)]
pub struct Assembler {
    framing: Framing,
    gather: BytesMut,
    /// It is the thread's ([`take_gathering`]).
    of_thread: bool,
    /// Messages are sent, which are worth a large buffer.
    is_busy: bool,
    /// Segments up to so many bytes are copied.
    copied: usize,
    preambles: Preambles,
    seal: Option<Box<SealTo>>,
    /// Where it was agreed on.
    compressor: Option<Box<FrameCompressor>>,
}

/// Secure mode.
#[derive(Debug)]
struct SealTo {
    sealer: Sealer,
    /// Where long texts are put together.
    pool: SegmentPool,
}

/// What a sealed message begins with at most, in bytes: a preamble and 48 bytes of its first segment, the rest of
/// that, and a tag for each.
const SEALED_HEADS: usize =
    PREAMBLE + INLINE + TAG + padded(MAX_PACKED_HEADER as usize - INLINE) + TAG;
/// Bytes of the longest epilogue that is not sealed.
const EPILOGUE: usize = 17;
/// Sealed texts from this many bytes on get a buffer of their own.
const OWN_BUFFER_MIN: usize = 16 << 10;

/// Nonces that a frame uses at most.
const NONCES_PER_FRAME: u64 = 3;
/// Frames that may be written after it was seen that nonces come to an end.
const LAST_FRAMES: u64 = 64;
/// No key is given up sooner, in texts: a session is opened by fewer, and has some use then.
pub(crate) const MIN_REKEY_AFTER: u64 = 2 * NONCES_PER_FRAME * LAST_FRAMES;

impl Assembler {
    /// An assembler for this framing.
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            gather: BytesMut::new(),
            of_thread: false,
            is_busy: false,
            copied: ConnectionConfig::COPIED,
            preambles: Preambles::new(),
            seal: None,
            compressor: None,
        }
    }

    /// Copies segments of up to so many bytes, and leaves longer ones where they are;
    /// [`ConnectionConfig::COPIED`] if it is not said. More than 32 KiB is taken for 32 KiB.
    pub fn copy_up_to(&mut self, bytes: usize) {
        self.copied = bytes.min(MAX_COPIED);
    }

    /// Seals every frame from here on.
    pub(crate) fn seal(&mut self, sealer: Sealer, pool: SegmentPool) {
        self.framing.protection = Protection::Secure;
        self.seal = Some(Box::new(SealTo { sealer, pool }));
    }

    /// Compresses frames from here on, where they become shorter by it.
    pub(crate) fn compress(&mut self, agreed: Agreed, counters: Arc<SessionCounters>) {
        self.compressor = Some(Box::new(FrameCompressor::new(agreed, counters)));
    }

    /// Whether no further message may be written, since nonces would come twice before long.
    pub(crate) fn is_exhausted(&self) -> bool {
        let reserve = NONCES_PER_FRAME * LAST_FRAMES;
        self.seal.as_ref().is_some_and(|seal| seal.sealer.left() < reserve)
    }

    /// Whether there is a nonce left for a control frame.
    pub(crate) fn can_seal(&self) -> bool {
        self.seal.as_ref().is_none_or(|seal| seal.sealer.left() >= NONCES_PER_FRAME)
    }

    /// What has gathered and was not flushed yet.
    pub(crate) fn gathered(&self) -> &[u8] {
        &self.gather
    }

    /// Appends a control frame with one segment.
    pub fn control(&mut self, tag: Tag, payload: &[u8]) {
        if let Some(compressor) = &mut self.compressor {
            let payload = Rope::from(Bytes::copy_from_slice(payload));
            let segments = [payload, Rope::new(), Rope::new(), Rope::new()];
            if let Some([packed, ..]) = compressor.compress(&segments) {
                return self.control_frame(tag, &packed, FLAG_COMPRESSED);
            }
        }
        self.control_frame(tag, payload, 0);
    }

    fn control_frame(&mut self, tag: Tag, payload: &[u8], flags: u8) {
        // Callers are our own frames, all far below Limits::HANDSHAKE.
        let length = u32::try_from(payload.len()).expect("a control frame under 4 GiB");
        if self.seal.is_some() {
            return self.sealed_control(tag, payload, length, flags);
        }
        self.reserve(PREAMBLE + payload.len() + 32);
        self.gather.put_slice(self.preambles.of(tag, &[(length, DEFAULT_ALIGNMENT)], flags));
        self.gather.put_slice(payload);
        let crc = crc32c(SEGMENT_SEED, payload);
        match self.framing.revision {
            Revision::Rev0 => self.epilogue_rev0(&[crc]),
            Revision::Rev1 if length > 0 => self.gather.put_u32_le(crc),
            Revision::Rev1 => {}
        }
    }

    /// Appends a message to `out`, whose lengths were checked against [`super::Limits`].
    pub fn message(&mut self, header: &MessageHeader2, payload: &Payload, out: &mut Rope) {
        self.is_busy = true;
        if let Some(compressor) = &mut self.compressor {
            let first = Bytes::copy_from_slice(&header.encode());
            let parts = [first, payload.front.to_bytes(), payload.middle.clone()];
            let [first, front, middle] = parts.map(Rope::from);
            let segments = [first, front, middle, payload.data.clone()];
            if let Some([first, front, middle, data]) = compressor.compress(&segments) {
                let packed = Payload { front: front.into(), middle, data: data.into() };
                return self.packed_message(&first, &packed, out);
            }
        }
        let (segments, used) = shape_of(MessageHeader2::LEN, payload);
        let segments = &segments[..used];
        if self.seal.is_some() {
            return self.sealed_message(&header.encode(), payload, segments, 0, out);
        }
        self.make_room(PREAMBLE + MessageHeader2::LEN + FIRST_CRC, out);
        self.gather.put_slice(self.preambles.of(Tag::MESSAGE, segments, 0));
        // The header is written twice, not copied: what was written by words is not there yet to be read as
        // anything larger.
        let mut first = Aligned([0; MessageHeader2::LEN]);
        header.put(&mut first.0);
        let at = self.gather.len();
        self.gather.put_slice(&[0; MessageHeader2::LEN]);
        header.put(self.gather[at..].first_chunk_mut().expect("it was just appended"));
        self.behind_header(first.crc32c(), payload, used, out);
    }

    /// A message of which the segments are compressed.
    fn packed_message(&mut self, first: &[u8], payload: &Payload, out: &mut Rope) {
        let (segments, used) = shape_of(first.len(), payload);
        let segments = &segments[..used];
        if self.seal.is_some() {
            return self.sealed_message(first, payload, segments, FLAG_COMPRESSED, out);
        }
        self.make_room(PREAMBLE + first.len() + FIRST_CRC, out);
        self.gather.put_slice(self.preambles.of(Tag::MESSAGE, segments, FLAG_COMPRESSED));
        self.gather.put_slice(first);
        self.behind_header(crc32c(SEGMENT_SEED, first), payload, used, out);
    }

    /// Ends a message that is not sealed, and of which the first of `used` segments has this checksum.
    #[inline]
    fn behind_header(&mut self, header_crc: u32, payload: &Payload, used: usize, out: &mut Rope) {
        if self.framing.revision == Revision::Rev1 {
            self.gather.put_u32_le(header_crc);
            if used == 1 {
                return;
            }
        }
        let mut crcs = [header_crc, 0, 0, 0];
        if self.framing.data_crc() {
            crcs[1] = crc32c(SEGMENT_SEED, &payload.front);
            crcs[2] = crc32c(SEGMENT_SEED, &payload.middle);
            crcs[3] = payload.data.crc32c(SEGMENT_SEED);
            crcs[used..].fill(0);
        }
        for part in [Input::from(&payload.front), Input::from(&payload.middle)] {
            if !part.is_empty() {
                self.piece(part, out);
            }
        }
        for piece in payload.data.segments() {
            self.piece(piece.into(), out);
        }
        match self.framing.revision {
            Revision::Rev0 => self.epilogue_rev0(&crcs[..used]),
            Revision::Rev1 => self.epilogue_rev1(&[crcs[1], crcs[2], crcs[3]]),
        }
    }

    /// Gives up the buffer in which nothing gathers: messages are not expected soon.
    pub fn release(&mut self) {
        if let Some(compressor) = &mut self.compressor {
            compressor.release();
        }
        if self.gather.is_empty() {
            self.put_back();
            self.is_busy = false;
        }
    }

    /// Hands what gathered so far to `out`, and the buffer to who sends next.
    pub fn finish(&mut self, out: &mut Rope) {
        self.flush(out);
        self.put_back();
    }

    fn put_back(&mut self) {
        let rest = std::mem::take(&mut self.gather);
        if std::mem::take(&mut self.of_thread) {
            put_gathering(rest);
        }
    }

    /// Hands what gathered so far to `out`.
    pub fn flush(&mut self, out: &mut Rope) {
        if !self.gather.is_empty() {
            out.push(self.gather.split().freeze());
        }
    }

    /// Makes room for so many bytes, and an epilogue behind them, rather than have what gathered moved to
    /// a larger buffer.
    fn make_room(&mut self, additional: usize, out: &mut Rope) {
        if !self.has_room(additional + EPILOGUE) {
            self.flush(out);
            self.reserve(additional + EPILOGUE);
        }
    }

    /// Makes room without splitting a frame's head over two buffers.
    fn reserve(&mut self, additional: usize) {
        if self.has_room(additional) {
            return;
        }
        if self.gather.is_empty() && self.is_busy && additional <= MAX_GATHERING {
            let spent = std::mem::take(&mut self.gather);
            self.gather = take_gathering(additional, self.of_thread.then_some(spent));
            self.of_thread = true;
        } else {
            // It may grow here, and is of nobody else any more.
            self.of_thread = false;
            self.gather.reserve(additional.max(GATHER_CONTROL));
        }
    }

    fn has_room(&self, additional: usize) -> bool {
        self.gather.capacity() - self.gather.len() >= additional
    }

    fn sealed_control(&mut self, tag: Tag, payload: &[u8], length: u32, flags: u8) {
        let head = *self.preambles.of(tag, &[(length, DEFAULT_ALIGNMENT)], flags);
        if self.framing.revision == Revision::Rev0 {
            let len = PREAMBLE + padded(payload.len()) + BLOCK;
            return self.seal_gathered(len, |text| put(text, [&head[..], payload].into_iter()));
        }
        let (inline, rest) = payload.split_at(payload.len().min(INLINE));
        self.seal_gathered(PREAMBLE + INLINE, |text| put(text, [&head[..], inline].into_iter()));
        if !rest.is_empty() {
            self.seal_gathered(padded(rest.len()), |text| put(text, [rest].into_iter()));
        }
    }

    fn sealed_message(
        &mut self,
        first: &[u8],
        payload: &Payload,
        segments: &[(u32, u16)],
        flags: u8,
        out: &mut Rope,
    ) {
        self.make_room(SEALED_HEADS, out);
        let head = *self.preambles.of(Tag::MESSAGE, segments, flags);
        let (inline, rest) = first.split_at(first.len().min(INLINE));
        let parts = [payload.front.len(), payload.middle.len(), payload.data.len()];
        let body: usize = parts.into_iter().map(padded).sum();
        let put_body = |text: &mut [u8], late: u8| {
            let (front, rest) = text.split_at_mut(padded(payload.front.len()));
            put(front, [&payload.front[..]].into_iter());
            let (middle, rest) = rest.split_at_mut(padded(payload.middle.len()));
            put(middle, [&payload.middle[..]].into_iter());
            let (data, epilogue) = rest.split_at_mut(padded(payload.data.len()));
            put(data, payload.data.segments().iter().map(|piece| &piece[..]));
            epilogue.fill(0);
            epilogue[0] = late;
        };
        match self.framing.revision {
            Revision::Rev0 => {
                let start = PREAMBLE + padded(first.len());
                self.seal_text(start + body + BLOCK, out, |text| {
                    let (start, rest) = text.split_at_mut(start);
                    put(start, [&head[..], first].into_iter());
                    put_body(rest, 0);
                });
            }
            Revision::Rev1 => {
                self.seal_gathered(PREAMBLE + INLINE, |text| {
                    put(text, [&head[..], inline].into_iter());
                });
                if !rest.is_empty() {
                    self.seal_gathered(padded(rest.len()), |text| put(text, [rest].into_iter()));
                }
                if segments.len() > 1 {
                    let put_body = |text: &mut [u8]| put_body(text, LATE_STATUS_COMPLETE);
                    self.seal_text(body + BLOCK, out, put_body);
                }
            }
        }
    }

    /// Appends a sealed text of `len` bytes, which `fill` writes.
    fn seal_text(&mut self, len: usize, out: &mut Rope, fill: impl FnOnce(&mut [u8])) {
        if len < OWN_BUFFER_MIN {
            if !self.has_room(len + TAG) {
                self.flush(out);
            }
            return self.seal_gathered(len, fill);
        }
        self.flush(out);
        let Some(seal) = &mut self.seal else {
            return;
        };
        let mut buffer = seal.pool.take(len + TAG);
        let (text, tag) = buffer.unfilled().split_at_mut(len);
        fill(text);
        tag.copy_from_slice(&seal.sealer.seal(text));
        buffer.advance(len + TAG);
        out.push(buffer.freeze());
    }

    fn seal_gathered(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        self.reserve(len + TAG);
        let Some(seal) = &mut self.seal else {
            return;
        };
        let at = self.gather.len();
        self.gather.put_bytes(0, len);
        fill(&mut self.gather[at..]);
        let tag = seal.sealer.seal(&mut self.gather[at..]);
        self.gather.put_slice(&tag);
    }

    /// Appends a piece of a segment.
    fn piece(&mut self, mut piece: Input<'_>, out: &mut Rope) {
        if piece.len() <= self.copied {
            self.make_room(piece.len(), out);
            self.gather.put_slice(piece.rest());
        } else {
            self.flush(out);
            out.push(piece.take_bytes(piece.len()));
        }
    }

    fn epilogue_rev0(&mut self, crcs: &[u32]) {
        self.reserve(EPILOGUE);
        self.gather.put_u8(0);
        for index in 0..MAX_SEGMENTS {
            self.gather.put_u32_le(crcs.get(index).copied().unwrap_or(0));
        }
    }

    fn epilogue_rev1(&mut self, crcs: &[u32; 3]) {
        let mut epilogue = [0; 13];
        epilogue[0] = LATE_STATUS_COMPLETE;
        for (place, crc) in epilogue[1..].chunks_exact_mut(4).zip(crcs) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        self.reserve(epilogue.len());
        self.gather.put_slice(&epilogue);
    }
}

/// Lengths and alignments of a message's segments, and how many there are: empty ones at the end are left out, but
/// for the first.
#[inline]
fn shape_of(first: usize, payload: &Payload) -> ([(u32, u16); MAX_SEGMENTS], usize) {
    let lengths = [payload.front.len(), payload.middle.len(), payload.data.len()];
    let used = 1 + lengths.iter().rposition(|len| *len > 0).map_or(0, |last| last + 1);
    let mut segments = [(first as u32, DEFAULT_ALIGNMENT); MAX_SEGMENTS];
    for (segment, length) in segments[1..].iter_mut().zip(lengths) {
        segment.0 = u32::try_from(length).expect("lengths were checked");
    }
    segments[3].1 = PAGE_ALIGNMENT;
    (segments, used)
}

/// Makes preambles, and keeps the last: the next frame is often of the same shape, and needs no other.
#[derive(Debug)]
struct Preambles {
    tag: Tag,
    flags: u8,
    count: usize,
    segments: [(u32, u16); MAX_SEGMENTS],
    block: [u8; PREAMBLE],
}

impl Preambles {
    fn new() -> Self {
        let segments = [(0, 0); MAX_SEGMENTS];
        Self { tag: Tag::HELLO, flags: 0, count: 0, segments, block: [0; PREAMBLE] }
    }

    fn of(&mut self, tag: Tag, segments: &[(u32, u16)], flags: u8) -> &[u8; PREAMBLE] {
        let same =
            (self.tag, self.flags) == (tag, flags) && self.segments[..self.count] == *segments;
        if !same {
            self.make(tag, segments, flags);
        }
        &self.block
    }

    fn make(&mut self, tag: Tag, segments: &[(u32, u16)], flags: u8) {
        (self.tag, self.flags, self.count) = (tag, flags, segments.len());
        self.segments[..segments.len()].copy_from_slice(segments);
        let block = &mut self.block;
        *block = [0; PREAMBLE];
        block[0] = tag.to_wire();
        block[1] = segments.len() as u8;
        for (entry, (length, alignment)) in block[2..26].chunks_exact_mut(6).zip(segments) {
            entry[..4].copy_from_slice(&length.to_le_bytes());
            entry[4..].copy_from_slice(&alignment.to_le_bytes());
        }
        block[FLAGS_AT] = flags;
        let crc = preamble_crc(block);
        block[PREAMBLE_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Writes pieces one behind the other, and zeros behind them.
fn put<'a>(mut text: &mut [u8], pieces: impl Iterator<Item = &'a [u8]>) {
    for piece in pieces {
        let (place, rest) = text.split_at_mut(piece.len());
        place.copy_from_slice(piece);
        text = rest;
    }
    text.fill(0);
}
