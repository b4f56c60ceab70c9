use std::fmt;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::crc32c::crc32c;

/// A byte sequence made of reference-counted segments: Ceph's `bufferlist`.
///
/// It remembers its checksum once that was [computed](Self::remember_crc32c), with all its clones,
/// until bytes are added or taken.
///
/// Invariants: no segment is empty, `len` is the sum of the segments' lengths, and `crc` that of
/// their bytes.
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
#[derive(Default)]
pub struct Rope {
    segments: SmallVec<[Bytes; 1]>,
    len: usize,
    /// A seed, and the CRC-32C of all bytes that was begun with it.
    crc: Option<(u32, u32)>,
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
            self.crc = None;
            self.len += segment.len();
            self.segments.push(segment);
        }
    }

    /// Puts a segment before the others without copying it, and moves their handles by one place.
    pub fn push_front(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.crc = None;
            self.len += segment.len();
            self.segments.insert(0, segment);
        }
    }

    /// Moves all of `other` to the end; `other` is empty afterwards and keeps its capacity.
    pub fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
        } else if !other.is_empty() {
            self.crc = None;
            other.crc = None;
            self.len += std::mem::take(&mut other.len);
            self.segments.append(&mut other.segments);
        }
    }

    /// Appends the bytes of `other` without copying them: both share them, and their checksum if there are no
    /// others.
    #[inline]
    pub fn append_shared(&mut self, other: &Self) {
        if !other.is_empty() {
            self.crc = other.crc.filter(|_| self.is_empty());
            self.len += other.len;
            self.segments.extend(other.segments.iter().cloned());
        }
    }

    /// Removes everything, and the capacity of more than one segment: what a new one is, in its place.
    #[inline]
    pub fn reset(&mut self) {
        if self.segments.spilled() {
            self.segments = SmallVec::new();
        }
        self.clear();
    }

    /// Removes everything, and keeps the capacity.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.len = 0;
        self.crc = None;
    }

    /// Removes `count` bytes from the front.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn drain_front(&mut self, count: usize) {
        assert!(count <= self.len, "drained {count} of {} bytes", self.len);
        self.len -= count;
        self.crc = None;
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

    /// Takes the first `at` bytes off.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn split_to(&mut self, at: usize) -> Self {
        let tail = self.split_off(at);
        std::mem::replace(self, tail)
    }

    /// Keeps the first `at` bytes, and takes the others off.
    ///
    /// # Panics
    /// If there are fewer than `at`.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let tail = self.slice(at..self.len);
        self.truncate(at);
        tail
    }

    /// Keeps `len` bytes at most, from the front.
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            self.crc = None;
            let excess = self.len - len;
            let last = self.segments.last_mut().expect("bytes are in segments");
            if last.len() > excess {
                last.truncate(last.len() - excess);
                self.len = len;
            } else {
                self.len -= last.len();
                self.segments.pop();
            }
        }
    }

    /// The bytes in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        self.segments.iter().flatten().copied()
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
        match self.crc {
            Some((begun_with, crc)) if begun_with == seed => crc,
            _ => self.segments.iter().fold(seed, |crc, segment| crc32c(crc, segment)),
        }
    }

    /// Computes the checksum that [`crc32c`](Self::crc32c) answers with from here on. Data that is
    /// sent several times pays once.
    ///
    /// ```
    /// use siphon_wire::buf::Rope;
    /// use siphon_wire::crc32c::SEED;
    ///
    /// let mut data = Rope::from(bytes::Bytes::from(vec![7; 4 << 20]));
    /// data.remember_crc32c(SEED);
    /// let copies: Vec<Rope> = vec![data; 3]; // for three replicas, with the checksum
    /// ```
    pub fn remember_crc32c(&mut self, seed: u32) {
        self.crc = Some((seed, self.crc32c(seed)));
    }

    /// Takes a checksum that was computed as the bytes arrived.
    pub fn set_crc32c(&mut self, seed: u32, crc: u32) {
        debug_assert_eq!(self.crc32c(seed), crc, "the checksum of these bytes");
        self.crc = Some((seed, crc));
    }
}

impl Clone for Rope {
    #[inline]
    fn clone(&self) -> Self {
        // What a message carries is mostly in one piece.
        let segments = match &self.segments[..] {
            [] => SmallVec::new(),
            [only] => SmallVec::from_buf([only.clone()]),
            _ => self.segments.clone(),
        };
        Self { segments, ..*self }
    }
}

impl From<Bytes> for Rope {
    #[inline]
    fn from(segment: Bytes) -> Self {
        match segment.len() {
            0 => Self::new(),
            len => Self { segments: SmallVec::from_buf([segment]), len, crc: None },
        }
    }
}

/// Without a copy.
impl From<Vec<u8>> for Rope {
    fn from(segment: Vec<u8>) -> Self {
        Bytes::from(segment).into()
    }
}

/// Without a copy.
impl From<String> for Rope {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static [u8]> for Rope {
    fn from(segment: &'static [u8]) -> Self {
        Bytes::from_static(segment).into()
    }
}

impl<const N: usize> From<&'static [u8; N]> for Rope {
    fn from(segment: &'static [u8; N]) -> Self {
        Bytes::from_static(segment).into()
    }
}

impl From<&'static str> for Rope {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
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

impl IntoIterator for Rope {
    type Item = Bytes;
    type IntoIter = smallvec::IntoIter<[Bytes; 1]>;

    /// The segments.
    fn into_iter(self) -> Self::IntoIter {
        self.segments.into_iter()
    }
}

/// Reads from the front, and drops what was read.
impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.segments.first().map_or(&[], |segment| segment)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.io_slices(slices)
    }

    fn advance(&mut self, count: usize) {
        self.drain_front(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.split_to(len).to_bytes()
    }
}

/// Ropes are equal if their bytes are, however they are cut.
impl PartialEq for Rope {
    fn eq(&self, other: &Self) -> bool {
        let mut rest = self.clone();
        self.len == other.len
            && other.segments.iter().all(|segment| {
                let same = rest.starts_with(segment);
                rest.drain_front(segment.len());
                same
            })
    }
}

impl Eq for Rope {}

impl PartialEq<[u8]> for Rope {
    fn eq(&self, other: &[u8]) -> bool {
        self.len == other.len() && self.starts_with(other)
    }
}

impl PartialEq<&[u8]> for Rope {
    fn eq(&self, other: &&[u8]) -> bool {
        *self == **other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Rope {
    fn eq(&self, other: &[u8; N]) -> bool {
        *self == other[..]
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Rope {
    fn eq(&self, other: &&[u8; N]) -> bool {
        *self == other[..]
    }
}

impl PartialEq<Bytes> for Rope {
    fn eq(&self, other: &Bytes) -> bool {
        *self == other[..]
    }
}

impl Rope {
    fn starts_with(&self, mut bytes: &[u8]) -> bool {
        for segment in &self.segments {
            let (head, tail) = bytes.split_at(segment.len().min(bytes.len()));
            if !segment.starts_with(head) {
                return false;
            }
            bytes = tail;
        }
        bytes.is_empty()
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
    fn what_bytes_are_made_of_is_not_copied() {
        let text = String::from("abc");
        let place = text.as_ptr();
        let from_text = Rope::from(text);
        assert_eq!(from_text.segments()[0].as_ptr(), place);
        let bytes = vec![b'a', b'b', b'c'];
        let place = bytes.as_ptr();
        let from_bytes = Rope::from(bytes);
        assert_eq!(from_bytes.segments()[0].as_ptr(), place);
        for rope in [from_text, from_bytes, "abc".into(), b"abc".into(), b"abc"[..].into()] {
            assert_eq!(rope, b"abc");
        }
        assert!(Rope::from("").is_empty() && Rope::from(Vec::new()).segments().is_empty());
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
    fn a_checksum_is_remembered_until_the_bytes_change() {
        let mut known = rope(&["ab", "c", "defg"]);
        known.remember_crc32c(5);
        let all = crc32c(5, b"abcdefg");
        assert_eq!((known.crc, known.clone().crc), (Some((5, all)), Some((5, all))));
        let mut appended = rope(&[]);
        appended.append(&mut known.clone());
        assert_eq!(appended.crc, known.crc);
        let mut shared = rope(&[]);
        shared.append_shared(&known);
        shared.append_shared(&rope(&[]));
        assert_eq!((&shared, shared.crc), (&known, known.crc));
        let changes: [fn(&mut Rope); 8] = [
            |it| it.push(Bytes::from_static(b"x")),
            |it| it.push_front(Bytes::from_static(b"x")),
            |it| it.append(&mut rope(&["xyz"])),
            |it| it.append_shared(&it.clone()),
            |it| it.drain_front(2),
            |it| it.truncate(4),
            |it| drop(it.split_to(3)),
            |it| it.clear(),
        ];
        for change in changes {
            let mut changed = known.clone();
            change(&mut changed);
            assert_eq!(changed.crc32c(5), crc32c(5, &changed.to_bytes()));
        }
        assert_eq!(known.slice(1..3).crc32c(5), crc32c(5, b"bc"));
        assert_eq!(known.crc32c(6), crc32c(6, b"abcdefg"), "from another seed it is another");
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
    fn every_cut_gives_two_ropes_that_make_the_whole() {
        let whole = b"abcdefg";
        for at in 0..=7 {
            let mut head = rope(&["ab", "c", "defg"]);
            let mut tail = head.split_off(at);
            assert_eq!(
                (&head, &tail),
                (&rope(&["abcdefg"]).slice(0..at), &rope(&["abcdefg"]).slice(at..7))
            );
            head.append(&mut tail);
            assert_eq!(head, whole);
            let front = head.split_to(at);
            assert_eq!(front, whole[..at]);
            assert_eq!(head, whole[at..]);
            assert!(front.iter().chain(head.iter()).eq(*whole));
        }
    }

    #[test]
    fn the_front_grows_too() {
        let mut rope = rope(&["b"]);
        rope.push_front(Bytes::from_static(b"a"));
        rope.push_front(Bytes::new());
        assert_eq!((rope.len(), rope.segments().len()), (2, 2));
        assert_eq!(rope, b"ab");
    }

    #[test]
    fn it_reads_like_any_buffer() {
        let mut rope = rope(&["abc", "defgh", "i"]);
        assert_eq!(rope.get_u32(), u32::from_be_bytes(*b"abcd"));
        assert_eq!(rope.copy_to_bytes(5), "efghi");
        assert!(!rope.has_remaining());
        assert!(rope.chunk().is_empty());
    }

    #[test]
    fn a_vectored_write_takes_what_fits() {
        let rope = rope(&["a", "b", "c"]);
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(rope.io_slices(&mut slices), 2);
        assert_eq!(&*slices[1], b"b");
    }
}
