//! Chunks to receive into, which come back from whoever drops them last, and chunks to send from.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use siphon_verbs::{Chunk, VerbsError};

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
#[derive(Debug, Default)]
pub(super) struct ReceivePool {
    free: Mutex<Vec<Chunk>>,
}

impl ReceivePool {
    fn free(&self) -> MutexGuard<'_, Vec<Chunk>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn give_back(&self, chunk: Chunk) {
        self.free().push(chunk);
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
#[derive(Debug, Default)]
pub(super) struct SendPool {
    small: Vec<Chunk>,
    large: Vec<Chunk>,
    smalls: usize,
    larges: usize,
}

impl SendPool {
    /// A chunk for about `len` bytes; none if all are being sent from.
    pub(super) fn take(&mut self, device: &Device, len: usize) -> Option<Chunk> {
        let max = device.options.send_buffers as usize;
        let (free, have, chunk_len, count) = match len <= SMALL
            && SMALL < device.options.buffer_size
        {
            true => (&mut self.small, &mut self.smalls, SMALL, SMALL_SLAB),
            false => (&mut self.large, &mut self.larges, device.options.buffer_size, usize::MAX),
        };
        if free.is_empty() && *have < max {
            match grow(device, chunk_len, have, max.min((*have).saturating_add(count))) {
                Ok(chunks) => free.extend(chunks),
                Err(error) => {
                    tracing::warn!(%error, "no more memory to send from can be registered");
                    if *have == 0 {
                        return None;
                    }
                }
            }
        }
        let chunk = free.pop();
        if chunk.is_none() {
            device.counters.tx_no_mem.fetch_add(1, Ordering::Relaxed);
        }
        chunk
    }

    /// Whether more than half of the chunks that there may be are being sent from.
    pub(super) fn is_short(&self, device: &Device) -> bool {
        let most = device.options.send_buffers as usize;
        let used = |have: usize, free: usize| have - free > most / 2;
        used(self.smalls, self.small.len()) || used(self.larges, self.large.len())
    }

    pub(super) fn give_back(&mut self, chunk: Chunk) {
        if chunk.len() == SMALL { self.small.push(chunk) } else { self.large.push(chunk) }
    }
}
