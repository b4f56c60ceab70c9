//! One part of a message while it arrives.

use bytes::{Bytes, BytesMut};
use siphon_wire::buf::{Input, Rope, SegmentBuf, SegmentPool, take_short};

/// A part with at least this much still to come is worth reading straight into its place.
pub(crate) const MIN_DIRECT: usize = 16 << 10;

/// A part of known length. What arrives in buffers that can be shared stays there; anything else is
/// copied once, into a place of the part's own, which is not taken before its first byte is there.
#[derive(Debug, Default)]
pub(crate) struct Part {
    shape: Shape,
    place: Place,
}

/// How a part is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    /// Bytes.
    pub(crate) len: usize,
    /// A place of its own begins at a page.
    pub(crate) page_aligned: bool,
    /// It may be made of several pieces.
    pub(crate) pieces: bool,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    None,
    /// Invariant: its capacity is at least the part's length, so it never moves.
    Small(BytesMut),
    Large(SegmentBuf),
    /// The buffer is with the transport; so many bytes were in it.
    Lent {
        filled: usize,
    },
    /// Where it arrived.
    Shared(Rope),
}

impl Part {
    /// Begins another part.
    pub(crate) fn begin(&mut self, shape: Shape) {
        debug_assert!(matches!(self.place, Place::None), "the part before was taken");
        self.shape = shape;
    }

    /// Whether all of it is there.
    pub(crate) fn is_full(&self) -> bool {
        self.missing() == 0
    }

    /// Moves bytes into it, and returns them to be looked at.
    pub(crate) fn fill<'a>(&mut self, input: &mut Input<'a>, pool: &SegmentPool) -> &'a [u8] {
        if input.is_empty() {
            return &[];
        }
        let missing = self.missing();
        if missing > 0 && matches!(self.place, Place::None) {
            self.place = self.choose(input, pool);
        }
        match &mut self.place {
            Place::None => &[],
            Place::Lent { .. } => {
                debug_assert!(false, "bytes overtake a lent buffer");
                &[]
            }
            Place::Small(buffer) => {
                let taken = input.take(missing);
                buffer.extend_from_slice(taken);
                taken
            }
            Place::Large(buffer) => {
                let taken = input.take(missing);
                buffer.unfilled()[..taken.len()].copy_from_slice(taken);
                buffer.advance(taken.len());
                taken
            }
            Place::Shared(rope) => {
                let before = input.rest();
                let piece = input.take_bytes(missing);
                let taken = &before[..piece.len()];
                rope.push(piece);
                taken
            }
        }
    }

    /// Whether bytes that come now are copied.
    pub(crate) fn copies(&self) -> bool {
        !matches!(self.place, Place::Shared(_))
    }

    /// The part's buffer, if enough of it is to come. While it is lent, bytes belong into it.
    pub(crate) fn lend(&mut self, pool: &SegmentPool) -> Option<SegmentBuf> {
        if self.missing() < MIN_DIRECT {
            return None;
        }
        let buffer = match std::mem::take(&mut self.place) {
            Place::None => pool.take(self.shape.len),
            Place::Large(buffer) => buffer,
            other => {
                self.place = other;
                return None;
            }
        };
        self.place = Place::Lent { filled: buffer.filled().len() };
        Some(buffer)
    }

    /// Takes back what [`lend`](Self::lend) gave; returns what the transport has filled in.
    pub(crate) fn give_back(&mut self, buffer: SegmentBuf) -> &[u8] {
        let Place::Lent { filled } = self.place else {
            debug_assert!(false, "a buffer comes back that was not lent");
            return &[];
        };
        self.place = Place::Large(buffer);
        match &self.place {
            Place::Large(buffer) => &buffer.filled()[filled..],
            _ => &[],
        }
    }

    /// Takes it out, in pieces.
    pub(crate) fn take(&mut self) -> Rope {
        self.shape = Shape::default();
        match std::mem::take(&mut self.place) {
            Place::None | Place::Lent { .. } => Rope::new(),
            Place::Small(buffer) => buffer.freeze().into(),
            Place::Large(buffer) => buffer.freeze().into(),
            Place::Shared(rope) => rope,
        }
    }

    /// Takes it out, in one piece.
    pub(crate) fn take_bytes(&mut self) -> Bytes {
        self.shape = Shape::default();
        match std::mem::take(&mut self.place) {
            Place::None | Place::Lent { .. } => Bytes::new(),
            Place::Small(buffer) => buffer.freeze(),
            Place::Large(buffer) => buffer.freeze(),
            Place::Shared(rope) => rope.to_bytes(),
        }
    }

    fn missing(&self) -> usize {
        let have = match &self.place {
            Place::None => 0,
            Place::Small(buffer) => buffer.len(),
            Place::Large(buffer) => buffer.filled().len(),
            Place::Lent { filled } => *filled,
            Place::Shared(rope) => rope.len(),
        };
        self.shape.len - have
    }

    fn choose(&self, input: &Input<'_>, pool: &SegmentPool) -> Place {
        let Shape { len, page_aligned, pieces } = self.shape;
        if input.is_shared() && (pieces || input.len() >= len) {
            Place::Shared(Rope::new())
        } else if len >= MIN_DIRECT {
            Place::Large(pool.take(len))
        } else {
            Place::Small(take_short(len, page_aligned.then_some(0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(len: usize, pieces: bool) -> Part {
        let mut part = Part::default();
        part.begin(Shape { len, page_aligned: false, pieces });
        part
    }

    #[test]
    fn what_arrived_in_shared_buffers_stays_there() {
        let pool = SegmentPool::new(0);
        let chunks = [Bytes::from(vec![1; 40_000]), Bytes::from(vec![2; 40_000])];
        let mut data = part(50_000, true);
        for chunk in &chunks {
            data.fill(&mut Input::from(chunk), &pool);
        }
        assert!(data.is_full() && !data.copies());
        let data = data.take();
        let at = data.segments().iter().map(|it| (it.as_ptr(), it.len()));
        let expected = [(chunks[0].as_ptr(), 40_000), (chunks[1].as_ptr(), 10_000)];
        assert!(at.eq(expected));
    }

    #[test]
    fn what_is_wanted_in_one_piece_is_shared_only_as_one() {
        let pool = SegmentPool::new(0);
        let chunk = Bytes::from(vec![7; 100]);
        let mut front = part(100, false);
        front.fill(&mut Input::from(&chunk), &pool);
        assert_eq!(front.take_bytes().as_ptr(), chunk.as_ptr());
        front.begin(Shape { len: 150, ..Shape::default() });
        let mut input = Input::from(&chunk);
        assert_eq!(front.fill(&mut input, &pool).len(), 100);
        assert!(front.copies() && !front.is_full());
        input = Input::from(&chunk);
        front.fill(&mut input, &pool);
        assert_eq!((front.take_bytes().len(), input.len()), (150, 50));
    }

    #[test]
    fn a_long_part_is_lent_before_its_first_byte_and_behind_it() {
        let pool = SegmentPool::new(0);
        let mut data = part(40_000, true);
        for wanted in [40_000, 30_000, 20_000] {
            let mut buffer = data.lend(&pool).unwrap();
            assert_eq!(buffer.remaining(), wanted);
            buffer.unfilled()[..10_000].fill(3);
            buffer.advance(10_000);
            assert_eq!(data.give_back(buffer), [3; 10_000]);
        }
        assert!(data.lend(&pool).is_none(), "the rest is short");
        data.fill(&mut Input::from(&[3; 10_000][..]), &pool);
        assert_eq!(data.take_bytes(), [3; 40_000][..]);
    }
}
