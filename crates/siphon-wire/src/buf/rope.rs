use std::fmt;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::crc32c::crc32c;

/// A byte sequence made of reference-counted segments: Ceph's `bufferlist`.
///
/// Invariants: no segment is empty, and `len` is the sum of the segments' lengths.
///
/// ```
/// use bytes::Bytes;
/// use siphon_wire::buf::Rope;
///
/// let mut rope = Rope::from(Bytes::from_static(b"siph"));
/// rope.push(Bytes::from_static(b"on"));
/// assert_eq!(rope, b"siphon"[..]);
/// rope.drain_front(3);
/// assert_eq!(rope.to_bytes(), "hon");
/// ```
#[derive(Clone, Default)]
pub struct Rope {
    segments: SmallVec<[Bytes; 1]>,
    len: usize,
}

impl Rope {
    /// An empty rope.
    pub fn new() -> Self {
        Self::default()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The segments in order.
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// Appends a segment without copying it.
    pub fn push(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.len += segment.len();
            self.segments.push(segment);
        }
    }

    /// Moves all of `other` to the end; `other` is empty afterwards and keeps its capacity.
    pub fn append(&mut self, other: &mut Self) {
        self.len += std::mem::take(&mut other.len);
        if self.segments.is_empty() {
            std::mem::swap(&mut self.segments, &mut other.segments);
        } else {
            self.segments.append(&mut other.segments);
        }
    }

    /// Removes everything, and keeps the capacity.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.len = 0;
    }

    /// Removes `count` bytes from the front.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn drain_front(&mut self, count: usize) {
        assert!(count <= self.len, "drained {count} of {} bytes", self.len);
        self.len -= count;
        let mut left = count;
        let whole = self
            .segments
            .iter()
            .take_while(|segment| {
                let gone = segment.len() <= left;
                if gone {
                    left -= segment.len();
                }
                gone
            })
            .count();
        self.segments.drain(..whole);
        if let Some(first) = self.segments.first_mut() {
            first.advance(left);
        }
    }

    /// The bytes from `range.start` to `range.end`, sharing the segments.
    ///
    /// # Panics
    /// If the range is not within the rope.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        let mut slice = Self::new();
        let mut at = 0;
        for segment in &self.segments {
            let from = range.start.saturating_sub(at).min(segment.len());
            let to = range.end.saturating_sub(at).min(segment.len());
            slice.push(segment.slice(from..to));
            at += segment.len();
        }
        slice
    }

    /// All bytes in one piece: copied only if there are several segments.
    pub fn to_bytes(&self) -> Bytes {
        match &self.segments[..] {
            [] => Bytes::new(),
            [only] => only.clone(),
            several => {
                let mut all = BytesMut::with_capacity(self.len);
                several.iter().for_each(|segment| all.extend_from_slice(segment));
                all.freeze()
            }
        }
    }

    /// Fills `slices` with the first segments, for a vectored write; returns how many.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pairs = slices.iter_mut().zip(&self.segments);
        pairs.map(|(slice, segment)| *slice = IoSlice::new(segment)).count()
    }

    /// CRC-32C of all bytes, begun with `seed`; see [`crc32c`].
    pub fn crc32c(&self, seed: u32) -> u32 {
        self.segments.iter().fold(seed, |crc, segment| crc32c(crc, segment))
    }
}

impl From<Bytes> for Rope {
    fn from(segment: Bytes) -> Self {
        let mut rope = Self::new();
        rope.push(segment);
        rope
    }
}

impl Extend<Bytes> for Rope {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, segments: I) {
        segments.into_iter().for_each(|segment| self.push(segment));
    }
}

impl FromIterator<Bytes> for Rope {
    fn from_iter<I: IntoIterator<Item = Bytes>>(segments: I) -> Self {
        let mut rope = Self::new();
        rope.extend(segments);
        rope
    }
}

/// Ropes are equal if their bytes are, however they are cut.
impl PartialEq for Rope {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |rope: &Self| rope.segments.clone().into_iter().flatten();
        self.len == other.len && bytes(self).eq(bytes(other))
    }
}

impl Eq for Rope {}

impl PartialEq<[u8]> for Rope {
    fn eq(&self, other: &[u8]) -> bool {
        let mut rest = other;
        self.len == other.len()
            && self.segments.iter().all(|segment| {
                let (head, tail) = rest.split_at(segment.len());
                rest = tail;
                segment == head
            })
    }
}

impl fmt::Debug for Rope {
    /// Lengths only: the bytes are payload, long and somebody's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rope({} bytes in {} segments)", self.len, self.segments.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(pieces: &[&'static str]) -> Rope {
        pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect()
    }

    #[test]
    fn bytes_count_and_cuts_do_not() {
        let a = rope(&["abc", "", "defg"]);
        let b = rope(&["ab", "cde", "fg"]);
        assert_eq!(a, b);
        assert_eq!(a.segments().len(), 2, "empty segments are left out");
        assert_eq!(a.crc32c(!0), b.crc32c(!0));
        assert_eq!(a, b"abcdefg"[..]);
        assert_ne!(a, b"abcdefG"[..]);
        assert_ne!(a, rope(&["abcdef"]));
    }

    #[test]
    fn draining_and_slicing_agree_at_every_place() {
        let whole = rope(&["ab", "c", "defg"]);
        for at in 0..=whole.len() {
            let mut drained = whole.clone();
            drained.drain_front(at);
            assert_eq!(drained, whole.slice(at..whole.len()));
            assert_eq!(drained.to_bytes(), &b"abcdefg"[at..]);
        }
    }

    #[test]
    fn appending_leaves_the_other_empty() {
        let (mut a, mut b) = (rope(&["a"]), rope(&["b", "c"]));
        a.append(&mut b);
        assert_eq!((a.to_bytes(), b.len()), (Bytes::from_static(b"abc"), 0));
        b.append(&mut a);
        assert_eq!(b.len(), 3);
    }

    #[test]
    fn a_vectored_write_takes_what_fits() {
        let rope = rope(&["a", "b", "c"]);
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(rope.io_slices(&mut slices), 2);
        assert_eq!(&*slices[1], b"b");
    }
}
