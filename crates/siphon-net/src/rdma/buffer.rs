//! Registered buffers for applications to send from.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use siphon_verbs::Chunk;

use super::device::Device;

const MIN_LEN: usize = 4 << 10;
/// The longest buffer, in bytes.
const MAX_LEN: usize = 64 << 20;

/// Registered memory, which an RDMA stack sends from where it is. It is used again when the last
/// reference to what it was frozen to is dropped.
///
/// ```no_run
/// # fn f(device: &siphon_net::RdmaDevice) -> std::io::Result<()> {
/// let mut buffer = device.buffer(64 << 10)?;
/// buffer.fill(7);
/// let data: bytes::Bytes = buffer.freeze(); // to be sent, as often as you like
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RegisteredBuffer {
    /// None only while it is being dropped.
    chunk: Option<Chunk>,
    len: usize,
    home: Arc<Buffers>,
}

/// Free buffers, by their length.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Free>);

#[derive(Debug, Default)]
struct Free {
    by_len: BTreeMap<usize, Vec<Chunk>>,
    /// Bytes that are registered.
    registered: usize,
}

impl Buffers {
    /// A buffer of `len` bytes.
    pub(super) fn take(
        self: &Arc<Self>,
        device: &Device,
        len: usize,
    ) -> io::Result<RegisteredBuffer> {
        let class = len.max(MIN_LEN).next_power_of_two();
        if class > MAX_LEN {
            let message = format!("{len} bytes: a registered buffer has {MAX_LEN} at most");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let most = device.options.send_buffers as usize * device.options.buffer_size;
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = match free.by_len.get_mut(&class).and_then(Vec::pop) {
            Some(chunk) => chunk,
            None if free.registered + class > most => {
                let message = format!(
                    "{most} bytes are registered to send from: see ms_async_rdma_send_buffers"
                );
                return Err(io::Error::new(io::ErrorKind::OutOfMemory, message));
            }
            None => {
                let chunk = device.register(class, 1)?.pop().ok_or(io::ErrorKind::OutOfMemory)?;
                free.registered += class;
                chunk
            }
        };
        Ok(RegisteredBuffer { chunk: Some(chunk), len, home: Arc::clone(self) })
    }
}

impl RegisteredBuffer {
    /// Its bytes, to be sent.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for RegisteredBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.chunk.as_ref().map_or(&[], |chunk| &chunk[..self.len])
    }
}

impl DerefMut for RegisteredBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.chunk.as_mut().map_or(&mut [], |chunk| &mut chunk[..len])
    }
}

impl AsRef<[u8]> for RegisteredBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for RegisteredBuffer {
    fn drop(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            let mut free = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
            free.by_len.entry(chunk.len()).or_default().push(chunk);
        }
    }
}
