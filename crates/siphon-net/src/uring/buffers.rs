//! Buffers that the kernel takes for what arrives, when it arrives: a socket that waits holds none.
//!
//! What is in them is delivered where it is: a buffer is used again when whoever took a part of it has
//! dropped that. Others have parts of [`MAX_LENT`] of them at most; then it is copied.
//!
//! ```text
//!   spare ──▶ with the kernel ──▶ in use ──▶ spare
//!     ▲                             │
//!     └────────── lent ◀────────────┘
//! ```

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering, fence};

use bytes::Bytes;
use io_uring::types::BufRingEntry;
use rustix::mm::{self, MapFlags, ProtFlags};

use super::ring::Ring;

/// Bytes of a buffer: the more it holds, the fewer receives a burst takes.
pub(super) const BUFFER_BYTES: usize = 128 << 10;
/// Buffers that the kernel may have at first. Few, so that they stay in the processor's cache: it
/// takes them in turn.
const FEW: u16 = 2;
/// Buffers that a worker may have; a power of two.
pub(super) const MAX_BUFFERS: u16 = 64;
/// Buffers of which others may have parts before what arrives is copied.
const MAX_LENT: usize = MAX_BUFFERS as usize / 2;
/// Buffers that one look asks whether they are still in use.
const LOOKS: usize = 16;
/// The kernel's name for the group.
pub(super) const GROUP: u16 = 0;
/// Buffers that come back without the kernel having been short before the ring shrinks, and gives up memory.
const CALM: u32 = 4096;

/// A ring of buffers, each with the kernel, in use, lent, spare, or without memory.
pub(super) struct Buffers {
    entries: Mapping,
    buffers: Vec<Buffer>,
    tail: u16,
    /// Those that came back while others had parts of them.
    lent: VecDeque<u16>,
    /// How many there are of which others got parts since they were spare: at most [`MAX_LENT`].
    shared: usize,
    /// Those that nobody has.
    spare: Vec<u16>,
    /// Those without memory.
    vacant: Vec<u16>,
    /// Those that the kernel has.
    with_kernel: u16,
    /// How many the kernel is to have.
    wanted: u16,
    /// It had none since that was looked at.
    short: bool,
    calm: u32,
}

impl Buffers {
    /// Buffers for `ring`, which must end before they do.
    pub(super) fn register(ring: &Ring) -> io::Result<Self> {
        let entries = Mapping::new(usize::from(MAX_BUFFERS) * size_of::<BufRingEntry>())?;
        // SAFETY: the mapping has room for so many entries, and lives as long as the ring: the
        // driver drops it only when nothing is in flight.
        unsafe {
            ring.as_ring().submitter().register_buf_ring_with_flags(
                entries.start.as_ptr() as u64,
                MAX_BUFFERS,
                GROUP,
                0,
            )?;
        }
        let mut buffers = Self {
            entries,
            buffers: Vec::new(),
            tail: 0,
            lent: VecDeque::new(),
            shared: 0,
            spare: Vec::new(),
            vacant: Vec::new(),
            with_kernel: 0,
            wanted: FEW,
            short: false,
            calm: 0,
        };
        buffers.supply();
        Ok(buffers)
    }

    /// The bytes of one that the kernel took.
    pub(super) fn bytes(&self, id: u16) -> &Bytes {
        &self.buffers[usize::from(id)].bytes
    }

    /// Notes that the kernel took one.
    pub(super) fn taken(&mut self) {
        self.with_kernel = self.with_kernel.saturating_sub(1);
    }

    /// Gives back one that was taken.
    pub(super) fn give_back(&mut self, id: u16) {
        self.keep(id);
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            self.wanted = (self.wanted / 2).max(FEW);
            self.shrink();
        }
        self.supply();
    }

    /// The kernel had none. However often that is said, it will have twice as many, as long as there are any, from the
    /// next [`reclaim`](Self::reclaim) on.
    pub(super) fn exhausted(&mut self) {
        self.calm = 0;
        self.short = true;
    }

    /// Takes back what others have dropped.
    pub(super) fn reclaim(&mut self) {
        if mem::take(&mut self.short) {
            self.wanted = self.wanted.saturating_mul(2).min(MAX_BUFFERS);
        }
        for _ in 0..self.lent.len().min(LOOKS) {
            if let Some(id) = self.lent.pop_front() {
                self.keep(id);
            }
        }
        self.supply();
    }

    /// A part of one that the kernel took, to be kept for as long as somebody wants it; none if others have parts of as
    /// many as they may.
    pub(super) fn lend(&mut self, id: u16, part: Range<usize>) -> Option<Bytes> {
        let buffer = &mut self.buffers[usize::from(id)];
        if !buffer.shared {
            if self.shared == MAX_LENT {
                return None;
            }
            buffer.shared = true;
            self.shared += 1;
        }
        Some(buffer.bytes.slice(part))
    }

    /// Puts one that the kernel does not have where it belongs.
    fn keep(&mut self, id: u16) {
        let buffer = &mut self.buffers[usize::from(id)];
        if !buffer.is_free() {
            return self.lent.push_back(id);
        }
        self.shared -= usize::from(mem::take(&mut buffer.shared));
        self.spare.push(id);
    }

    /// Gives up the memory of those that nobody needs.
    fn shrink(&mut self) {
        let needless = self.spare.len().saturating_sub(usize::from(self.wanted));
        for id in self.spare.drain(..needless) {
            self.buffers[usize::from(id)] = Buffer::without_memory();
            self.vacant.push(id);
        }
    }

    /// Whether the kernel has any.
    pub(super) fn has_any(&self) -> bool {
        self.with_kernel > 0
    }

    /// One more, if there may be more.
    fn make(&mut self) -> Option<u16> {
        if let Some(id) = self.vacant.pop() {
            self.buffers[usize::from(id)] = Buffer::new();
            return Some(id);
        }
        let id = u16::try_from(self.buffers.len()).ok().filter(|id| *id < MAX_BUFFERS)?;
        self.buffers.push(Buffer::new());
        Some(id)
    }

    /// Gives the kernel what it may have.
    fn supply(&mut self) {
        let mut added = false;
        while self.with_kernel < self.wanted
            && let Some(id) = self.spare.pop().or_else(|| self.make())
        {
            let slot = usize::from(self.tail & (MAX_BUFFERS - 1));
            // SAFETY: the slot lies in the mapping, and the kernel does not read it before the tail
            // moves over it.
            unsafe {
                let entry = self.entries.start.as_ptr().cast::<BufRingEntry>().add(slot);
                (*entry).set_addr(self.buffers[usize::from(id)].start as u64);
                (*entry).set_len(BUFFER_BYTES as u32);
                (*entry).set_bid(id);
            }
            self.tail = self.tail.wrapping_add(1);
            self.with_kernel += 1;
            added = true;
        }
        if added {
            // SAFETY: the tail lies in the first entry of the mapping, where its other half is not
            // touched by `set_*` above; it is aligned, and only read by the kernel.
            let tail = unsafe {
                let tail = BufRingEntry::tail(self.entries.start.as_ptr().cast());
                AtomicU16::from_ptr(tail.cast_mut())
            };
            tail.store(self.tail, Ordering::Release);
        }
    }
}

/// Memory that the kernel writes to, and others read.
struct Buffer {
    start: *mut u8,
    /// All of it. Others may have parts.
    bytes: Bytes,
    /// Whether others got any since it was spare.
    shared: bool,
}

impl Buffer {
    fn new() -> Self {
        let mut memory = vec![0; BUFFER_BYTES];
        let start = memory.as_mut_ptr(); // which does not move
        Self { start, bytes: Bytes::from(memory), shared: false }
    }

    fn without_memory() -> Self {
        Self { start: ptr::null_mut(), bytes: Bytes::new(), shared: false }
    }

    /// Whether nobody else has a part of it, nor will get one.
    fn is_free(&self) -> bool {
        let free = self.bytes.is_unique();
        // What others read, they have read before the kernel writes again.
        fence(Ordering::Acquire);
        free
    }
}

/// Anonymous memory.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, wherever the system wants it.
        let start =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::PRIVATE)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody has a reference into it. It fails only for arguments that
        // are no mapping.
        let _ = unsafe { mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Buffers of a ring by which nothing is received: a test says itself what the kernel took.
    fn buffers() -> Option<(Buffers, Ring)> {
        let ring = Ring::open().inspect_err(|error| eprintln!("SKIPPED: no io_uring: {error}"));
        let ring = ring.ok()?;
        Some((Buffers::register(&ring).unwrap(), ring))
    }

    fn with_memory(buffers: &Buffers) -> usize {
        buffers.buffers.iter().filter(|buffer| !buffer.bytes.is_empty()).count()
    }

    /// The kernel is short again and again: once in a wait its buffers are doubled, up to all.
    fn grow(buffers: &mut Buffers) {
        for expected in [4, 8, 16, 32, 64, 64] {
            (0..100).for_each(|_| buffers.exhausted());
            buffers.reclaim();
            assert_eq!(with_memory(buffers), expected);
        }
    }

    #[test]
    fn who_waits_for_buffers_doubles_them_once_in_a_wait_and_memory_goes_again() {
        let Some((mut buffers, _ring)) = buffers() else { return };
        grow(&mut buffers);
        for _ in 0..20 * CALM {
            let with_kernel =
                |id: &u16| !buffers.spare.contains(id) && !buffers.vacant.contains(id);
            let id = (0..MAX_BUFFERS).find(with_kernel).unwrap();
            buffers.taken();
            buffers.give_back(id);
        }
        assert!(with_memory(&buffers) <= 2 * usize::from(FEW), "with the kernel, and spare");
        grow(&mut buffers);
        let starts: HashSet<_> = buffers.buffers.iter().map(|buffer| buffer.start).collect();
        assert_eq!((starts.len(), starts.contains(&ptr::null_mut())), (64, false));
    }

    #[test]
    fn parts_of_so_many_are_lent_and_of_no_more() {
        let Some((mut buffers, _ring)) = buffers() else { return };
        grow(&mut buffers);
        let mut parts = Vec::new();
        for id in 0..MAX_BUFFERS {
            let lent = usize::from(id) < MAX_LENT;
            for part in [0..10, 10..BUFFER_BYTES] {
                let part = buffers.lend(id, part);
                assert_eq!(part.is_some(), lent);
                parts.extend(part);
            }
        }
        for id in 0..MAX_BUFFERS {
            buffers.taken();
            buffers.give_back(id);
        }
        let mut all = parts.into_iter();
        let firsts: Vec<_> = std::iter::from_fn(|| Some((all.next()?, all.next()?).0)).collect();
        (0..MAX_LENT / LOOKS + 1).for_each(|_| buffers.reclaim());
        assert_eq!((buffers.lent.len(), buffers.shared), (MAX_LENT, MAX_LENT));
        assert!(buffers.lend(MAX_BUFFERS - 1, 0..1).is_none(), "a part of each is still kept");
        drop(firsts);
        (0..MAX_LENT / LOOKS + 1).for_each(|_| buffers.reclaim());
        assert_eq!((buffers.lent.len(), buffers.shared), (0, 0));
        assert!(buffers.lend(MAX_BUFFERS - 1, 0..1).is_some());
    }
}
