use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Alignment of buffers that want to begin at a page, in bytes.
const PAGE: usize = 4096;

/// Short buffers, cut from a few chunks of memory that are used again and again: in a steady state
/// nothing is asked of the allocator.
///
/// A chunk is used again once everything that was cut from it is gone. So whoever keeps one short
/// buffer for long keeps a chunk with it, and had better copy it. A ring holds at most
/// `most + 1` chunks; what does not get back in time has its memory freed when it is dropped.
struct ChunkRing {
    /// Bytes of a chunk.
    chunk: usize,
    most: usize,
    /// What is left of the chunk in use; empty, so that all of it is capacity.
    current: BytesMut,
    /// There is none: it was not begun, or somebody has it.
    is_away: bool,
    /// Chunks that were used up, the oldest first. Each holds nothing but its share in the memory.
    spent: VecDeque<BytesMut>,
}

impl ChunkRing {
    /// A ring of chunks of so many bytes, which keeps `most` of those that were used up.
    fn new(chunk: usize, most: usize) -> Self {
        Self { chunk, most, current: BytesMut::new(), is_away: true, spent: VecDeque::new() }
    }

    /// An empty buffer that holds `len` bytes without moving. If it is said which, one of them begins a
    /// page. What is longer than a chunk has memory of its own.
    fn take(&mut self, len: usize, page_at: Option<usize>) -> BytesMut {
        let needed = if page_at.is_some() { len + PAGE - 1 } else { len };
        if needed > self.chunk {
            let mut own = BytesMut::with_capacity(needed);
            skip_to(&mut own, page_at);
            return own;
        }
        if skipped(&self.current, page_at) + len > self.current.capacity() {
            self.next_chunk();
        }
        skip_to(&mut self.current, page_at);
        let rest = self.current.split_off(len);
        std::mem::replace(&mut self.current, rest)
    }

    /// A copy of `bytes`, which are no longer than a chunk.
    fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() > self.current.capacity() {
            self.next_chunk();
        }
        self.current.extend_from_slice(bytes);
        self.current.split().freeze()
    }

    fn next_chunk(&mut self) {
        let current = std::mem::take(&mut self.current);
        let spent = (!std::mem::take(&mut self.is_away)).then_some(current);
        self.current = self.renew(spent);
    }

    /// What is left of the chunk in use, if that holds `len` bytes, else another chunk.
    fn take_rest(&mut self, len: usize) -> BytesMut {
        if len > self.current.capacity() {
            self.next_chunk();
        }
        self.is_away = true;
        std::mem::take(&mut self.current)
    }

    /// Goes on with what is left of a chunk.
    fn put_rest(&mut self, rest: BytesMut) {
        debug_assert!(rest.is_empty(), "what is in it would be lost");
        let current = std::mem::replace(&mut self.current, rest);
        if !std::mem::take(&mut self.is_away) {
            self.spent.push_back(current);
            self.bound();
        }
    }

    /// Takes what is left of a chunk that was used up, and gives one of which nothing is used.
    fn renew(&mut self, spent: Option<BytesMut>) -> BytesMut {
        debug_assert!(spent.as_ref().is_none_or(BytesMut::is_empty), "what is in it would be lost");
        self.spent.extend(spent);
        // The newest that is free: it is still in the cache.
        let free = self.spent.iter_mut().rposition(|chunk| chunk.try_reclaim(self.chunk));
        if let Some(chunk) = free.and_then(|at| self.spent.remove(at)) {
            return chunk;
        }
        self.bound();
        BytesMut::with_capacity(self.chunk)
    }

    /// Keeps no more than is to be kept: the oldest is given up.
    fn bound(&mut self) {
        if self.spent.len() > self.most {
            self.spent.pop_front();
        }
    }
}

/// Bytes to be left out, so that the one at this place begins a page.
fn skipped(buffer: &BytesMut, page_at: Option<usize>) -> usize {
    page_at.map_or(0, |at| (buffer.as_ptr() as usize).wrapping_add(at).wrapping_neg() % PAGE)
}

fn skip_to(buffer: &mut BytesMut, page_at: Option<usize>) {
    let skip = skipped(buffer, page_at);
    if skip > 0 {
        *buffer = buffer.split_off(skip);
    }
}

/// Chunks for short buffers: bytes of each, and how many are kept that are still in use.
const SHORT: (usize, usize) = (16 << 10, 16);
/// The same for those that begin at a page: eight pages, and what it takes to find the first.
const SHORT_PAGES: (usize, usize) = (9 * PAGE, 16);
/// The same for frames that are put together.
const GATHERING: (usize, usize) = (64 << 10, 12);
/// What is copied and longer than this has memory of its own, in bytes.
pub(crate) const MAX_SHARED: usize = 1024;

/// What a thread cuts short buffers from.
struct Short {
    any: RefCell<ChunkRing>,
    pages: RefCell<ChunkRing>,
    gathering: RefCell<ChunkRing>,
}

thread_local! {
    /// Of the thread, and not of who takes: so nothing is locked.
    static SHORT_BUFFERS: Short = Short {
        any: RefCell::new(ChunkRing::new(SHORT.0, SHORT.1)),
        pages: RefCell::new(ChunkRing::new(SHORT_PAGES.0, SHORT_PAGES.1)),
        gathering: RefCell::new(ChunkRing::new(GATHERING.0, GATHERING.1)),
    };
}

/// An empty buffer that holds `len` bytes without moving, for what is short; if it is said which, one of
/// them begins a page. It shares a chunk of memory with others of its thread, at most 17 of 16 KiB, and as many
/// of 36 KiB for those with a page. Any thread may drop it; a chunk is used again once all that was cut from it
/// is gone, so whoever keeps one short buffer for long keeps a chunk with it, and had better copy it.
///
/// ```
/// let mut buffer = siphon_wire::buf::take_short(5, Some(0));
/// buffer.extend_from_slice(b"bytes");
/// assert_eq!(buffer.as_ptr() as usize % 4096, 0);
/// ```
pub fn take_short(len: usize, page_at: Option<usize>) -> BytesMut {
    SHORT_BUFFERS.with(|short| {
        let ring = if page_at.is_some() { &short.pages } else { &short.any };
        ring.borrow_mut().take(len, page_at)
    })
}

/// The longest that [`take_gathering`] gives, in bytes.
pub const MAX_GATHERING: usize = GATHERING.0;

/// An empty buffer in which a train of frames is put together, and which holds at least `len` bytes, at
/// most [`MAX_GATHERING`]. Without `spent` it is what is left of the thread's chunk, for who gives back what he
/// leaves ([`put_gathering`]); with it another chunk, and `spent` is what was left of the one before.
///
/// A thread keeps at most 13 chunks of 64 KiB, whoever sends: a connection holds none between two trains.
///
/// ```
/// use siphon_wire::buf::{put_gathering, take_gathering};
///
/// let mut buffer = take_gathering(5, None);
/// buffer.extend_from_slice(b"bytes");
/// let train = buffer.split().freeze();
/// put_gathering(buffer);
/// assert_eq!(train, "bytes");
/// ```
pub fn take_gathering(len: usize, spent: Option<BytesMut>) -> BytesMut {
    debug_assert!(len <= MAX_GATHERING, "{len} bytes do not fit");
    SHORT_BUFFERS.with(|short| {
        let mut ring = short.gathering.borrow_mut();
        match spent {
            Some(spent) => ring.renew(Some(spent)),
            None => ring.take_rest(len),
        }
    })
}

/// Gives back what is left of what [`take_gathering`] gave: nothing may be in it.
pub fn put_gathering(rest: BytesMut) {
    SHORT_BUFFERS.with(|short| short.gathering.borrow_mut().put_rest(rest));
}

/// A copy of `bytes`. In a steady state, a short one asks nothing of the allocator.
pub(crate) fn copied(bytes: &[u8]) -> Bytes {
    match bytes.len() {
        0 => Bytes::new(),
        1..=MAX_SHARED => SHORT_BUFFERS.with(|short| short.any.borrow_mut().copy(bytes)),
        _ => Bytes::copy_from_slice(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_when_all_that_was_cut_from_it_is_gone() {
        let mut ring = ChunkRing::new(100, 2);
        let mut seen = std::collections::HashSet::new();
        let mut held = VecDeque::new();
        for round in 0..100_u8 {
            let mut buffer = ring.take(40, None);
            assert!((40..=100).contains(&buffer.capacity()));
            seen.insert(buffer.as_ptr() as usize);
            buffer.extend_from_slice(&[round; 40]);
            held.push_back(buffer.freeze());
            if held.len() > 3 {
                held.pop_front();
            }
            for (age, bytes) in held.iter().rev().enumerate() {
                assert_eq!(bytes[..], [round - age as u8; 40], "nobody writes over what is held");
            }
        }
        assert!(seen.len() <= 6, "two places in each of three chunks: {}", seen.len());
    }

    #[test]
    fn what_is_kept_for_long_stays_as_it_is_and_the_ring_is_bounded() {
        let mut ring = ChunkRing::new(64, 2);
        let kept: Vec<_> = (0..50_u8)
            .map(|n| {
                let mut buffer = ring.take(64, None);
                buffer.extend_from_slice(&[n; 64]);
                buffer.freeze()
            })
            .collect();
        assert!(ring.spent.len() <= 2);
        assert!(kept.iter().enumerate().all(|(n, bytes)| bytes[..] == [n as u8; 64]));
    }

    #[test]
    fn pages_are_aligned_and_what_is_too_long_has_its_own_memory() {
        let mut ring = ChunkRing::new(4 * PAGE, 2);
        for len in [1, 64, PAGE, PAGE + 1, 3 * PAGE, 9 * PAGE] {
            for page_at in [0, 1, 240, len, 0] {
                let mut buffer = ring.take(len, Some(page_at));
                let at = buffer.as_ptr();
                assert_eq!((at as usize + page_at) % PAGE, 0);
                buffer.extend_from_slice(&vec![7; len]);
                assert_eq!(buffer.as_ptr(), at, "it does not move");
            }
        }
        assert!(ring.take(65_000, None).capacity() >= 65_000);
    }
}
