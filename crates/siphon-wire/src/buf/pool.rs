use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Alignment of every segment, and the unit of their capacities, in bytes.
const PAGE: usize = 4096;
/// Largest capacity that is kept for reuse, in pages: 64 MiB.
const MAX_CLASS_PAGES: usize = 1 << 14;

/// Memory that is aligned like a page.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// Recycles page-aligned segments, so that the steady state neither asks the system for memory nor
/// clears it. Clones are the same pool; segments come back to it from whatever thread drops them.
///
/// ```
/// use siphon_wire::buf::SegmentPool;
///
/// let pool = SegmentPool::new(1 << 20);
/// let mut segment = pool.take(5000);
/// segment.unfilled()[..3].copy_from_slice(b"abc");
/// segment.advance(3);
/// let bytes = segment.freeze();
/// assert_eq!(&bytes[..], b"abc");
/// assert_eq!(bytes.as_ptr() as usize % 4096, 0);
/// ```
#[derive(Clone)]
pub struct SegmentPool {
    shared: Arc<Shared>,
}

struct Shared {
    max_retained: usize,
    free: Mutex<Free>,
}

/// Invariant: `retained` is the sum of the capacities in `classes`, and at most `max_retained`.
#[derive(Default)]
struct Free {
    retained: usize,
    classes: Vec<(usize, Vec<Pages>)>,
}

/// Initialised pages: zeroed once, then recycled as they are.
type Pages = Box<[Page]>;

/// A page-aligned buffer that is filled from its front: `filled <= len <= capacity`. Its bytes are
/// always initialised, with whatever they last held.
pub struct SegmentBuf {
    /// Empty only while it is being dropped.
    pages: Pages,
    len: usize,
    filled: usize,
    home: Arc<Shared>,
}

impl SegmentPool {
    /// A pool that keeps at most `max_retained` bytes of segments that nobody uses.
    pub fn new(max_retained: usize) -> Self {
        Self { shared: Arc::new(Shared { max_retained, free: Mutex::default() }) }
    }

    /// A segment for `len` bytes. Its capacity is at most a quarter more, rounded up to a page.
    pub fn take(&self, len: usize) -> SegmentBuf {
        let pages = class_of(len);
        let recycled = self.shared.lock().take(pages);
        let pages = recycled.unwrap_or_else(|| zeroed(pages));
        let segment = SegmentBuf { pages, len, filled: 0, home: Arc::clone(&self.shared) };
        segment.invariants();
        segment
    }

    /// Bytes of segments that are kept and not in use.
    pub fn retained(&self) -> usize {
        self.shared.lock().retained
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, pages: Pages) {
        let bytes = pages.len() * PAGE;
        let mut free = self.lock();
        if pages.is_empty()
            || pages.len() > MAX_CLASS_PAGES
            || free.retained + bytes > self.max_retained
        {
            drop(free); // the system takes it, outside of the lock
            return;
        }
        free.retained += bytes;
        match free.classes.iter_mut().find(|(class, _)| *class == pages.len()) {
            Some((_, segments)) => segments.push(pages),
            None => free.classes.push((pages.len(), vec![pages])),
        }
    }
}

impl Free {
    fn take(&mut self, pages: usize) -> Option<Pages> {
        let (_, segments) = self.classes.iter_mut().find(|(class, _)| *class == pages)?;
        let segment = segments.pop()?;
        self.retained -= pages * PAGE;
        Some(segment)
    }
}

impl SegmentBuf {
    /// Bytes that it is for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is for no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that are still to be filled.
    pub fn remaining(&self) -> usize {
        self.len - self.filled
    }

    /// Whether all is filled.
    pub fn is_full(&self) -> bool {
        self.remaining() == 0
    }

    /// What was filled so far.
    pub fn filled(&self) -> &[u8] {
        &self.bytes()[..self.filled]
    }

    /// What was filled so far, to be changed in its place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        let filled = self.filled;
        &mut self.bytes_mut()[..filled]
    }

    /// Where the next bytes go.
    pub fn unfilled(&mut self) -> &mut [u8] {
        let (filled, len) = (self.filled, self.len);
        &mut self.bytes_mut()[filled..len]
    }

    /// Says that `count` bytes more were filled.
    ///
    /// # Panics
    /// If that is more than remain.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "advanced by {count} of {}", self.remaining());
        self.filled += count;
        self.invariants();
    }

    /// What was filled, as shared bytes. The memory goes back to the pool when the last of them is
    /// dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    fn invariants(&self) {
        assert!(self.filled <= self.len && self.len <= self.pages.len() * PAGE);
    }

    fn bytes(&self) -> &[u8] {
        bytes_of(&self.pages)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        bytes_of_mut(&mut self.pages)
    }
}

impl AsRef<[u8]> for SegmentBuf {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl Drop for SegmentBuf {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.pages));
    }
}

impl fmt::Debug for SegmentBuf {
    /// Without its contents, which may be anybody's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentBuf({} of {})", self.filled, self.len)
    }
}

impl fmt::Debug for SegmentPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentPool")
            .field("max_retained", &self.shared.max_retained)
            .field("retained", &self.retained())
            .finish()
    }
}

/// Pages of a segment for `len` bytes: up to 8 pages exact, then four sizes an octave.
fn class_of(len: usize) -> usize {
    let pages = len.div_ceil(PAGE);
    if pages <= 8 || pages > MAX_CLASS_PAGES {
        return pages;
    }
    let step = (pages.next_power_of_two() >> 3).max(1);
    pages.next_multiple_of(step)
}

#[allow(unsafe_code)]
fn zeroed(pages: usize) -> Pages {
    let pages = Box::<[Page]>::new_zeroed_slice(pages);
    // SAFETY: a Page is an array of bytes, for which all zeros is a value.
    unsafe { pages.assume_init() }
}

#[allow(unsafe_code)]
fn bytes_of(pages: &[Page]) -> &[u8] {
    // SAFETY: Page is repr(C) around [u8; PAGE] and exactly as large, so that a slice of pages is
    // initialised bytes without gaps; the lifetime is that of the borrow.
    unsafe { std::slice::from_raw_parts(pages.as_ptr().cast(), std::mem::size_of_val(pages)) }
}

#[allow(unsafe_code)]
fn bytes_of_mut(pages: &mut [Page]) -> &mut [u8] {
    // SAFETY: as in bytes_of; every byte that is written leaves a valid Page, and the borrow is
    // exclusive.
    unsafe {
        std::slice::from_raw_parts_mut(pages.as_mut_ptr().cast(), std::mem::size_of_val(pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_wastes_at_most_a_quarter() {
        for pages in 1..=MAX_CLASS_PAGES + 10 {
            let class = class_of(pages * PAGE);
            assert!(class >= pages && class * 4 <= pages * 5, "{pages} pages got {class}");
        }
        assert_eq!(class_of(4 << 20), 1024, "common sizes fit exactly");
        assert_eq!(class_of(0), 0);
    }

    #[test]
    fn memory_comes_back_when_the_last_reference_goes() {
        let pool = SegmentPool::new(1 << 20);
        let mut segment = pool.take(10_000);
        segment.unfilled().fill(7);
        segment.advance(10_000);
        assert!(segment.is_full());
        let bytes = segment.freeze();
        let slice = bytes.slice(5000..);
        let at = bytes.as_ptr();
        drop(bytes);
        assert_eq!(pool.retained(), 0, "a slice still holds it");
        assert_eq!(slice, [7; 5000][..]);
        drop(slice);
        assert_eq!(pool.retained(), 3 * PAGE);
        let again = pool.take(12_000);
        assert_eq!(again.filled().len(), 0);
        assert_eq!(again.freeze().len(), 0);
        assert_eq!(pool.take(12_288).freeze().as_ptr() as usize % PAGE, 0);
        let mut reused = pool.take(9000);
        reused.advance(1);
        assert_eq!(reused.freeze().as_ptr(), at, "the same memory");
    }

    #[test]
    fn what_is_retained_is_bounded() {
        let pool = SegmentPool::new(10 * PAGE);
        let segments: Vec<_> = (0..20).map(|_| pool.take(PAGE)).collect();
        drop(segments);
        assert_eq!(pool.retained(), 10 * PAGE);
        drop(pool.take(100 << 20));
        assert_eq!(pool.retained(), 10 * PAGE);
    }

    #[test]
    #[should_panic(expected = "advanced by 11 of 10")]
    fn nobody_fills_beyond_the_end() {
        SegmentPool::new(0).take(10).advance(11);
    }
}
