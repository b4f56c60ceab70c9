//! The `rdma` stack: reliable connections of RDMA, by InfiniBand, RoCE or iWARP.
//!
//! Queue pairs are connected by Ceph's exchange of text records over TCP, or by RDMA-CM. Bytes go in
//! messages of SEND, each into a chunk of registered memory that the other side has posted; one of no
//! bytes is the end of the stream. What arrives is delivered in the chunk it arrived in, which is
//! posted again when the last reference to it is dropped; what is sent goes from where it is if that is
//! registered memory, and is copied into a chunk if not.
//!
//! Each worker has a completion queue, by whose channel it sleeps, a shared receive queue, and a
//! [`PosixDriver`](crate::PosixDriver) for the exchange and for everything else that has a descriptor.

mod buffer;
mod completing;
mod connecting;
mod connector;
mod counters;
mod device;
mod driver;
mod dying;
mod pool;
mod record;
mod socket;
mod source;

use std::io;
use std::sync::Arc;

pub use buffer::RegisteredBuffer;
pub use counters::RdmaCounts;
pub use device::{GidChoice, RdmaConnect, RdmaOptions, rdma_gid};
pub use driver::RdmaDriver;

/// A device that is open for the workers of a stack. Clones are the same.
#[derive(Clone, Debug)]
pub struct RdmaDevice {
    device: Arc<device::Device>,
    buffers: Arc<buffer::Buffers>,
}

impl RdmaDevice {
    pub(crate) fn open(options: RdmaOptions) -> io::Result<Self> {
        let device = Arc::new(device::Device::open(options)?);
        Ok(Self { device, buffers: Arc::default() })
    }

    /// What was counted until now, by all workers.
    pub fn counts(&self) -> RdmaCounts {
        self.device.counts()
    }

    /// The same, by one of them, whose number is that of its thread.
    pub fn worker_counts(&self, worker: usize) -> RdmaCounts {
        self.device.counters_of(worker).counts()
    }

    /// A registered buffer of `len` bytes, to send from without a copy.
    ///
    /// # Errors
    ///
    /// If it is longer than 64 MiB, if `send_buffers` times `buffer_size` bytes are registered for this
    /// already, or what the system says.
    pub fn buffer(&self, len: usize) -> io::Result<RegisteredBuffer> {
        self.buffers.take(&self.device, len)
    }

    pub(crate) fn driver(&self, worker: usize) -> io::Result<RdmaDriver> {
        RdmaDriver::new(Arc::clone(&self.device), worker)
    }
}
