//! Buffers that the kernel takes for what arrives, when it arrives: a socket that waits holds none.
//!
//! What is in them is delivered where it is: a buffer is used again when whoever took a part of it has
//! dropped that. Somebody who keeps what he got has [`MAX_LENT`] of them at most; then it is copied.
//!
//! ```text
//!   spare ──▶ with the kernel ──▶ in use ──▶ spare
//!     ▲                             │
//!     └────────── lent ◀────────────┘
//! ```

use std::collections::VecDeque;
use std::io;
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
pub(super) const MAX_BUFFERS: u16 = 128;
/// Buffers of which others may have parts before what arrives is copied.
const MAX_LENT: usize = MAX_BUFFERS as usize / 2;
/// Buffers that one look asks whether they are still in use.
const LOOKS: usize = 16;
/// The kernel's name for the group.
pub(super) const GROUP: u16 = 0;
/// Buffers that come back without the kernel having been short before the ring shrinks.
const CALM: u32 = 4096;

/// A ring of buffers, each with the kernel, in use, lent, or spare.
pub(super) struct Buffers {
    entries: Mapping,
    buffers: Vec<Buffer>,
    tail: u16,
    /// Those of which others have parts.
    lent: VecDeque<u16>,
    /// Those that nobody has.
    spare: Vec<u16>,
    /// Those that the kernel has.
    with_kernel: u16,
    /// How many are in circulation.
    wanted: u16,
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
            spare: Vec::new(),
            with_kernel: 0,
            wanted: FEW,
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
        match self.buffers[usize::from(id)].is_free() {
            true => self.spare.push(id),
            false => self.lent.push_back(id),
        }
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            self.wanted = (self.wanted / 2).max(FEW);
        }
        self.supply();
    }

    /// The kernel had none: more are put into circulation, as long as there are any.
    pub(super) fn exhausted(&mut self) {
        self.calm = 0;
        self.wanted = self.wanted.saturating_mul(2).min(MAX_BUFFERS);
        self.supply();
    }

    /// Takes back what others have dropped.
    pub(super) fn reclaim(&mut self) {
        for _ in 0..self.lent.len().min(LOOKS) {
            if let Some(id) = self.lent.pop_front() {
                match self.buffers[usize::from(id)].is_free() {
                    true => self.spare.push(id),
                    false => self.lent.push_back(id),
                }
            }
        }
        self.supply();
    }

    /// Whether more may be lent.
    pub(super) fn may_lend(&self) -> bool {
        self.lent.len() < MAX_LENT
    }

    /// Whether the kernel has any.
    pub(super) fn has_any(&self) -> bool {
        self.with_kernel > 0
    }

    /// One more, if there may be more.
    fn make(&mut self) -> Option<u16> {
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
}

impl Buffer {
    fn new() -> Self {
        let mut memory = vec![0; BUFFER_BYTES];
        let start = memory.as_mut_ptr(); // which does not move
        Self { start, bytes: Bytes::from(memory) }
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
