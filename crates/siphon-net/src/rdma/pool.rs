//! Chunks to receive into, which come back from whoever drops them last, and chunks to send from.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use siphon_verbs::{Chunk, VerbsError};

use super::counters::RdmaCounters;
use super::device::Device;

/// Bytes that are registered at once.
const SLAB_BYTES: usize = 4 << 20;
/// Chunks that are registered at once, at least.
const MIN_SLAB: usize = 8;
/// Bytes of a small chunk to send from.
pub(super) const SMALL: usize = 4 << 10;
/// Small chunks that are registered at once.
const SMALL_SLAB: usize = 64;

/// Free chunks to receive into.
#[derive(Debug)]
pub(super) struct ReceivePool {
    free: Mutex<Vec<Chunk>>,
    /// Nothing is posted: the worker waits for a chunk.
    starving: AtomicBool,
    worker: Waker,
    counters: Arc<RdmaCounters>,
}

impl ReceivePool {
    /// `worker` is woken by a chunk that comes back while it has none.
    pub(super) fn new(worker: Waker, counters: Arc<RdmaCounters>) -> Self {
        Self { free: Mutex::default(), starving: AtomicBool::new(false), worker, counters }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Chunk>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Free chunks.
    pub(super) fn len(&self) -> usize {
        self.free().len()
    }

    pub(super) fn give_back(&self, chunk: Chunk) {
        self.free().push(chunk);
        // Who starves said so before it looked at what is free, and that under the same lock.
        if self.starving.load(Ordering::Acquire) && self.starving.swap(false, Ordering::SeqCst) {
            self.worker.wake_by_ref();
        }
    }

    /// Has the next chunk that comes back wake the worker, or one that has come back just now.
    pub(super) fn starve(&self) {
        self.starving.store(true, Ordering::SeqCst);
        if !self.free().is_empty() && self.starving.swap(false, Ordering::SeqCst) {
            self.worker.wake_by_ref();
        }
    }

    pub(super) fn extend(&self, chunks: Vec<Chunk>) {
        self.free().extend(chunks);
    }

    /// Moves up to `count` free chunks to `chunks`.
    pub(super) fn take(&self, count: usize, chunks: &mut Vec<Chunk>) {
        let mut free = self.free();
        let left = free.len().saturating_sub(count);
        chunks.extend(free.drain(left..));
    }

    /// The first `len` bytes of a chunk, which comes back when the last of them is dropped.
    pub(super) fn lend(self: &Arc<Self>, chunk: Chunk, len: usize) -> Bytes {
        self.counters.rx_bufs_in_use.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Loan { chunk: Some(chunk), len, home: Arc::clone(self) })
    }
}

/// A chunk that the application has.
struct Loan {
    /// None only while it is being dropped.
    chunk: Option<Chunk>,
    len: usize,
    home: Arc<ReceivePool>,
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        self.chunk.as_ref().map_or(&[], |chunk| &chunk[..self.len])
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.home.counters.rx_bufs_in_use.fetch_sub(1, Ordering::Relaxed);
            self.home.give_back(chunk);
        }
    }
}

/// Registers more chunks of `len` bytes, of which there are `have` and may be `max`.
pub(super) fn grow(
    device: &Device,
    len: usize,
    have: &mut usize,
    max: usize,
) -> Result<Vec<Chunk>, VerbsError> {
    let count = (SLAB_BYTES / len).max(MIN_SLAB).min(max.saturating_sub(*have));
    if count == 0 {
        return Ok(Vec::new());
    }
    let chunks = device.register(len, count)?;
    *have += count;
    Ok(chunks)
}

/// Chunks to send from, of two lengths.
#[derive(Debug)]
pub(super) struct SendPool {
    small: Chunks,
    large: Chunks,
    /// Its worker's.
    pub(super) counters: Arc<RdmaCounters>,
}

impl SendPool {
    /// Registers the first chunks of each length.
    ///
    /// # Errors
    ///
    /// What the system says, with what to do: later there would be nobody to tell.
    pub(super) fn new(device: &Device, counters: Arc<RdmaCounters>) -> io::Result<Self> {
        let (most, len) = (device.options.send_buffers as usize, device.options.buffer_size);
        // Chunks that are small anyway are of one length.
        let smalls = if len > SMALL { most } else { 0 };
        let mut pool = Self {
            small: Chunks::new(SMALL, SMALL_SLAB, smalls),
            large: Chunks::new(len, usize::MAX, most),
            counters,
        };
        pool.small.grow(device)?;
        pool.large.grow(device)?;
        Ok(pool)
    }

    /// A chunk for about `len` bytes; none if all are being sent from.
    pub(super) fn take(&mut self, device: &Device, len: usize) -> Option<Chunk> {
        let is_small = len <= self.small.len && self.small.most > 0;
        let chunk = if is_small { self.small.take(device) } else { self.large.take(device) };
        if chunk.is_some() {
            self.counters.inflight_tx_chunks.fetch_add(1, Ordering::Relaxed);
        } else {
            self.counters.tx_no_mem.fetch_add(1, Ordering::Relaxed);
        }
        chunk
    }

    /// Whether more than half of the chunks that there are are being sent from: whoever sends from one
    /// more has the device tell of its end, so that half of them always come back.
    pub(super) fn is_short(&self) -> bool {
        self.small.is_short() || self.large.is_short()
    }

    pub(super) fn give_back(&mut self, chunk: Chunk) {
        self.counters.inflight_tx_chunks.fetch_sub(1, Ordering::Relaxed);
        let home = if chunk.len() < self.large.len { &mut self.small } else { &mut self.large };
        home.free.push(chunk);
    }
}

/// Chunks of one length.
#[derive(Debug)]
struct Chunks {
    len: usize,
    /// How many are registered at once, at most.
    slab: usize,
    free: Vec<Chunk>,
    /// Those that there are, and may be. Invariant: `free.len() <= have <= most`.
    have: usize,
    most: usize,
}

impl Chunks {
    fn new(len: usize, slab: usize, most: usize) -> Self {
        Self { len, slab, free: Vec::new(), have: 0, most }
    }

    fn grow(&mut self, device: &Device) -> Result<(), VerbsError> {
        let most = self.most.min(self.have.saturating_add(self.slab));
        self.free.extend(grow(device, self.len, &mut self.have, most)?);
        Ok(())
    }

    fn take(&mut self, device: &Device) -> Option<Chunk> {
        if self.free.is_empty()
            && self.have < self.most
            && let Err(error) = self.grow(device)
        {
            tracing::warn!(%error, "no more memory to send from can be registered");
            self.most = self.have;
        }
        self.free.pop()
    }

    fn is_short(&self) -> bool {
        self.have - self.free.len() > self.have / 2
    }
}
