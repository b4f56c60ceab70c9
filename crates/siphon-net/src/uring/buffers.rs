//! Buffers that the kernel takes for what arrives, when it arrives: a socket that waits holds none.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use rustix::mm::{self, MapFlags, ProtFlags};

use super::ring::Ring;

/// Bytes of a buffer.
pub(super) const BUFFER_BYTES: usize = 32 << 10;
/// Buffers that the kernel may have at first. Few, so that they stay in the processor's cache: it
/// takes them in turn.
const FEW: u16 = 8;
/// Buffers that a worker may have; a power of two.
pub(super) const MAX_BUFFERS: u16 = 128;
/// The kernel's name for the group.
pub(super) const GROUP: u16 = 0;
/// Buffers that come back without the kernel having been short before the ring shrinks.
const CALM: u32 = 4096;

/// A ring of buffers, each with the kernel, in use, or spare.
pub(super) struct Buffers {
    entries: Mapping,
    memory: Mapping,
    tail: u16,
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
        let memory = Mapping::new(usize::from(MAX_BUFFERS) * BUFFER_BYTES)?;
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
        let spare = (0..MAX_BUFFERS).rev().collect();
        let mut buffers =
            Self { entries, memory, tail: 0, spare, with_kernel: 0, wanted: FEW, calm: 0 };
        buffers.supply();
        Ok(buffers)
    }

    /// The kernel took this one. Its bytes.
    pub(super) fn bytes(&self, id: u16) -> &[u8] {
        let start = usize::from(id) * BUFFER_BYTES;
        assert!(start < self.memory.len);
        // SAFETY: it lies in the mapping; the kernel has filled it and does not touch it until it is
        // given back, and whoever asks holds it.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(start), BUFFER_BYTES) }
    }

    /// Notes that the kernel took one.
    pub(super) fn taken(&mut self) {
        self.with_kernel = self.with_kernel.saturating_sub(1);
    }

    /// Gives back one that was taken.
    pub(super) fn give_back(&mut self, id: u16) {
        self.spare.push(id);
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

    /// Whether whoever holds one had better copy it.
    pub(super) fn is_short(&self) -> bool {
        self.spare.len() + usize::from(self.with_kernel) < usize::from(MAX_BUFFERS / 2)
    }

    /// Whether the kernel has any.
    pub(super) fn has_any(&self) -> bool {
        self.with_kernel > 0
    }

    /// Gives the kernel what it may have.
    fn supply(&mut self) {
        let mut added = false;
        while self.with_kernel < self.wanted
            && let Some(id) = self.spare.pop()
        {
            let slot = usize::from(self.tail & (MAX_BUFFERS - 1));
            // SAFETY: the slot lies in the mapping, and the kernel does not read it before the tail
            // moves over it.
            unsafe {
                let entry = self.entries.start.as_ptr().cast::<BufRingEntry>().add(slot);
                let start = self.memory.start.as_ptr().add(usize::from(id) * BUFFER_BYTES);
                (*entry).set_addr(start as u64);
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
