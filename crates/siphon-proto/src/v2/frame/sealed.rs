//! What a [`Disassembler`](super::Disassembler) receives in secure mode: a head that tells of the
//! frame, and one or two sealed texts behind it.

use bytes::{Bytes, BytesMut};
use siphon_wire::buf::{Input, SegmentBuf, SegmentPool, take_short};

use super::seal::{BLOCK, Forged, Opener, TAG, padded};
use super::{FrameError, INLINE, MAX_SEGMENTS, PREAMBLE, Revision};

/// A text with at least this much still to come is worth reading straight into its place.
const MIN_DIRECT: usize = 16 << 10;
/// Its data begins at a page.
const PAGE: usize = 4096;
/// Bytes of the head in revision 1.
pub(super) const HEAD: usize = PREAMBLE + INLINE + TAG;

impl From<Forged> for FrameError {
    fn from(_: Forged) -> Self {
        Self::Forged
    }
}

/// The receiving side of secure mode.
#[derive(Debug)]
pub(super) struct Sealed {
    opener: Opener,
    revision: Revision,
    head: [u8; HEAD],
    head_len: usize,
    text: Text,
}

/// A sealed text that is under way.
#[derive(Debug)]
enum Text {
    None,
    /// Invariant: its capacity is at least `wanted`.
    Small {
        bytes: BytesMut,
        wanted: usize,
    },
    /// What belongs to the text begins at `skip`.
    Large {
        buffer: SegmentBuf,
        skip: usize,
    },
    /// The buffer is with the transport.
    Lent {
        skip: usize,
    },
}

impl Sealed {
    pub(super) fn new(opener: Opener, revision: Revision) -> Self {
        Self { opener, revision, head: [0; HEAD], head_len: 0, text: Text::None }
    }

    /// Whether nothing of a frame has arrived.
    pub(super) fn is_between_frames(&self) -> bool {
        self.head_len == 0
    }

    pub(super) fn head_len(&self) -> usize {
        match self.revision {
            Revision::Rev0 => PREAMBLE,
            Revision::Rev1 => HEAD,
        }
    }

    /// Collects the head, and returns the preamble once it is there: verified in revision 1, and
    /// only decrypted in revision 0, which seals a frame as a whole.
    pub(super) fn take_head(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Option<[u8; PREAMBLE]>, FrameError> {
        let wanted = self.head_len();
        let taken = input.take(wanted - self.head_len);
        self.head[self.head_len..self.head_len + taken.len()].copy_from_slice(taken);
        self.head_len += taken.len();
        if self.head_len < wanted {
            return Ok(None);
        }
        let mut preamble = [0; PREAMBLE];
        preamble.copy_from_slice(&self.head[..PREAMBLE]);
        match self.revision {
            Revision::Rev0 => Ok(Some(self.opener.peek(&preamble)?)),
            Revision::Rev1 => {
                self.opener.open(&mut self.head)?;
                preamble.copy_from_slice(&self.head[..PREAMBLE]);
                Ok(Some(preamble))
            }
        }
    }

    /// What of the first segment stood in the head, up to `len` bytes; revision 1.
    pub(super) fn inline(&self, len: usize) -> &[u8] {
        &self.head[PREAMBLE..PREAMBLE + len.min(INLINE)]
    }

    /// Begins the rest of a control frame's payload, if it was too long for the head.
    pub(super) fn begin_rest(&mut self, len: usize) -> usize {
        let wanted = padded(len) + TAG - INLINE;
        self.text = Text::Small { bytes: BytesMut::with_capacity(wanted), wanted };
        wanted
    }

    /// Begins the text that ends the frame; returns its bytes on the wire that are still to come.
    pub(super) fn begin_body(
        &mut self,
        lengths: &[u32],
        page_aligned: bool,
        pool: &SegmentPool,
    ) -> usize {
        let before = match self.revision {
            Revision::Rev0 => PREAMBLE,
            Revision::Rev1 => 0,
        };
        let wanted = before + self.segments(lengths).map(padded).sum::<usize>() + BLOCK + TAG;
        // The data, which is the last segment, begins at a page.
        let last = lengths.last().map_or(0, |len| padded(*len as usize));
        let data_at = wanted - BLOCK - TAG - last;
        if wanted < MIN_DIRECT {
            let mut bytes = take_short(wanted, page_aligned.then_some(data_at));
            bytes.extend_from_slice(&self.head[..before]);
            self.text = Text::Small { bytes, wanted };
            return wanted - before;
        }
        let skip = if page_aligned { data_at.next_multiple_of(PAGE) - data_at } else { 0 };
        let mut buffer = pool.take(skip + wanted);
        buffer.advance(skip);
        buffer.unfilled()[..before].copy_from_slice(&self.head[..before]);
        buffer.advance(before);
        self.text = Text::Large { buffer, skip };
        wanted - before
    }

    /// Moves bytes into the text; true once it is whole.
    pub(super) fn fill(&mut self, input: &mut Input<'_>) -> bool {
        let missing = match &self.text {
            Text::None => 0,
            Text::Small { bytes, wanted, .. } => wanted - bytes.len(),
            Text::Large { buffer, .. } => buffer.remaining(),
            Text::Lent { .. } => {
                debug_assert!(input.is_empty(), "bytes overtake a lent buffer");
                return false;
            }
        };
        let taken = input.take(missing);
        match &mut self.text {
            Text::None | Text::Lent { .. } => {}
            Text::Small { bytes, .. } => bytes.extend_from_slice(taken),
            Text::Large { buffer, .. } => {
                buffer.unfilled()[..taken.len()].copy_from_slice(taken);
                buffer.advance(taken.len());
            }
        }
        taken.len() == missing
    }

    pub(super) fn lend(&mut self) -> Option<SegmentBuf> {
        match std::mem::replace(&mut self.text, Text::None) {
            Text::Large { buffer, skip } if buffer.remaining() >= MIN_DIRECT => {
                self.text = Text::Lent { skip };
                Some(buffer)
            }
            other => {
                self.text = other;
                None
            }
        }
    }

    pub(super) fn give_back(&mut self, buffer: SegmentBuf) {
        match self.text {
            Text::Lent { skip } => self.text = Text::Large { buffer, skip },
            _ => debug_assert!(false, "a buffer comes back that was not lent"),
        }
    }

    /// Opens the text, which is whole.
    fn open_text(&mut self) -> Result<Bytes, FrameError> {
        match std::mem::replace(&mut self.text, Text::None) {
            Text::Small { mut bytes, .. } => {
                self.opener.open(&mut bytes)?;
                Ok(bytes.freeze())
            }
            Text::Large { mut buffer, skip } => {
                self.opener.open(&mut buffer.filled_mut()[skip..])?;
                Ok(buffer.freeze().slice(skip..))
            }
            Text::None | Text::Lent { .. } => Err(FrameError::Forged),
        }
    }

    /// The first segment, of which the end came in a text of its own.
    pub(super) fn finish_rest(&mut self, len: usize) -> Result<Bytes, FrameError> {
        let rest = self.open_text()?;
        let mut whole = BytesMut::with_capacity(len);
        whole.extend_from_slice(self.inline(len));
        whole.extend_from_slice(&rest[..len - whole.len()]);
        Ok(whole.freeze())
    }

    /// The segments of the body, and the epilogue's first byte.
    pub(super) fn finish_body(
        &mut self,
        lengths: &[u32],
    ) -> Result<([Bytes; MAX_SEGMENTS], u8), FrameError> {
        let text = self.open_text()?;
        let (first, mut at) = match self.revision {
            Revision::Rev0 => (0, PREAMBLE),
            Revision::Rev1 => (1, 0),
        };
        let mut segments: [Bytes; MAX_SEGMENTS] = Default::default();
        for (place, length) in segments[first..].iter_mut().zip(self.segments(lengths)) {
            *place = text.slice(at..at + length);
            at += padded(length);
        }
        Ok((segments, text[at]))
    }

    /// Ready for the next frame.
    pub(super) fn begin_head(&mut self) {
        self.head_len = 0;
    }

    /// Lengths of the segments that are in the body.
    fn segments<'a>(&self, lengths: &'a [u32]) -> impl Iterator<Item = usize> + 'a {
        let first = match self.revision {
            Revision::Rev0 => 0,
            Revision::Rev1 => 1,
        };
        lengths.iter().skip(first).map(|len| *len as usize)
    }
}

/// What somebody can do who has the keys.
#[cfg(test)]
mod tests {
    use siphon_auth::StreamKeys;
    use siphon_wire::crc32c::crc32c;

    use super::super::seal::StreamSeal;
    use super::super::{
        Disassembler, Frame, FrameError, Framing, Limits, MessageHeader2, PREAMBLE_CRC_AT,
        Protection, Revision, SegmentName, Tag,
    };
    use super::*;

    fn stream(is_client: bool, revision: Revision) -> StreamSeal {
        let keys =
            StreamKeys { key: vec![3; 16].into(), from_server: [1; 12], from_client: [2; 12] };
        StreamSeal::new(&keys, revision, is_client).unwrap()
    }

    /// A preamble that announces these lengths, behind which `body` is sealed.
    fn announce(revision: Revision, tag: Tag, lengths: &[u32], body: usize) -> Vec<u8> {
        let mut text = vec![0; PREAMBLE + body];
        (text[0], text[1]) = (tag.to_wire(), lengths.len() as u8);
        for (at, length) in lengths.iter().take(4).enumerate() {
            text[2 + 6 * at..6 + 6 * at].copy_from_slice(&length.to_le_bytes());
        }
        let crc = crc32c(0, &text[..PREAMBLE_CRC_AT]);
        text[PREAMBLE_CRC_AT..PREAMBLE].copy_from_slice(&crc.to_le_bytes());
        let tag = stream(true, revision).tx.seal(&mut text);
        text.extend_from_slice(&tag);
        text
    }

    fn receive(revision: Revision, bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        let framing = Framing { revision, protection: Protection::Secure };
        let mut disassembler = Disassembler::new(framing, Limits::SESSION, SegmentPool::new(0));
        disassembler.seal(stream(false, revision).rx);
        disassembler.feed(&mut bytes.into())
    }

    #[test]
    fn lengths_that_lie_end_it_before_anything_is_allocated() {
        let header = MessageHeader2::LEN as u32;
        for revision in [Revision::Rev0, Revision::Rev1] {
            let sent =
                |tag, lengths: &[u32]| receive(revision, &announce(revision, tag, lengths, 48));
            for length in [(128 << 20) + 1, u32::MAX] {
                let error = sent(Tag::MESSAGE, &[header, 1, 1, length]).unwrap_err();
                let segment = SegmentName::Data;
                assert!(
                    matches!(error, FrameError::SegmentTooLong { segment: it, .. } if it == segment)
                );
                assert!(matches!(
                    sent(Tag::ACK, &[length]).unwrap_err(),
                    FrameError::SegmentTooLong { .. }
                ));
            }
            assert_eq!(sent(Tag::MESSAGE, &[40]).unwrap_err(), FrameError::HeaderLength(40));
            let tag = Tag::MESSAGE;
            assert_eq!(sent(tag, &[header, 0]).unwrap_err(), FrameError::LastSegmentEmpty { tag });
            let count = FrameError::SegmentCount { tag, count: 5 };
            assert_eq!(sent(tag, &[header, 1, 1, 1, 1]).unwrap_err(), count);
        }
    }

    #[test]
    fn a_length_that_lies_by_a_little_is_forged() {
        // In revision 0 the tag stands where the lengths say.
        for length in [0, 1, 15, 33] {
            let mut bytes = announce(Revision::Rev0, Tag::ACK, &[length], 16 + 16);
            bytes.resize(bytes.len() + 64, 0);
            let right = length > 0 && length <= 16;
            let outcome = receive(Revision::Rev0, &bytes);
            assert_eq!(outcome.is_ok(), right, "{length}: {outcome:?}");
        }
    }

    #[test]
    fn a_long_control_frame_is_put_together_from_both_its_texts() {
        let payload: Vec<u8> = (0..5000).map(|n| n as u8).collect();
        for revision in [Revision::Rev0, Revision::Rev1] {
            for len in [0, 1, 47, 48, 49, 64, 65, 5000] {
                let framing = Framing { revision, protection: Protection::Secure };
                let mut assembler = super::super::Assembler::new(framing);
                assembler.seal(stream(true, revision).tx, SegmentPool::new(0));
                assembler.control(Tag::AUTH_SIGNATURE, &payload[..len]);
                let Ok(Some(Frame::Control { payload: found, .. })) =
                    receive(revision, assembler.gathered())
                else {
                    panic!("{revision:?}, {len} bytes");
                };
                assert_eq!(found[..], payload[..len]);
            }
        }
    }
}
