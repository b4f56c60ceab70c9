use std::error::Error;
use std::fmt;
use std::io;

/// A call that failed: which, why, and what to look at.
#[derive(Debug)]
pub struct VerbsError {
    call: &'static str,
    source: io::Error,
}

impl VerbsError {
    pub(crate) fn new(call: &'static str, source: io::Error) -> Self {
        Self { call, source }
    }

    /// What `errno` says after a call that returned a null pointer or -1.
    pub(crate) fn last(call: &'static str) -> Self {
        Self::new(call, io::Error::last_os_error())
    }

    /// From a call that returns 0 or an errno, as most of libibverbs do.
    pub(crate) fn check(call: &'static str, result: i32) -> Result<(), Self> {
        match result {
            0 => Ok(()),
            -1 => Err(Self::last(call)),
            errno => Err(Self::new(call, io::Error::from_raw_os_error(errno.abs()))),
        }
    }

    /// The function of libibverbs or librdmacm.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// The system's error number, if it gave one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// What is worth a look, for the mistakes that are usual.
    pub fn advice(&self) -> Option<&'static str> {
        const ENOENT: i32 = 2;
        const ENOMEM: i32 = 12;
        const EACCES: i32 = 13;
        const ENODEV: i32 = 19;
        const EINVAL: i32 = 22;
        const EADDRNOTAVAIL: i32 = 99;
        const ETIMEDOUT: i32 = 110;
        Some(match (self.call, self.raw_os_error()?) {
            ("ibv_reg_mr", ENOMEM) => {
                "memory that may be locked is used up: see `ulimit -l` (RLIMIT_MEMLOCK; \
                 LimitMEMLOCK= of a systemd unit), or lower ms_async_rdma_receive_queue_len, \
                 ms_async_rdma_send_buffers or ms_async_rdma_buffer_size"
            }
            ("ibv_create_cq" | "ibv_create_qp" | "ibv_create_srq" | "rdma_create_qp", ENOMEM) => {
                "the device has no room, or memory that may be locked is used up: see `rdma resource \
                 show` and `ulimit -l`, or lower the queues' lengths"
            }
            ("ibv_create_qp" | "ibv_create_srq" | "ibv_create_cq" | "rdma_create_qp", EINVAL) => {
                "a queue is longer, or has more segments, than the device allows: see `siphon rdma \
                 devices`"
            }
            ("ibv_modify_qp (RTR)", EINVAL | ENODEV | ENOENT | EADDRNOTAVAIL | ETIMEDOUT) => {
                "the peer's GID can't be reached from ours: see that both have the same type (RoCE \
                 v1 or v2) and that the index is that of an address in the peer's network"
            }
            // libibverbs has no such file where it may not open it, too.
            ("ibv_open_device", EACCES | ENOENT) | ("rdma_create_event_channel", EACCES) => {
                "see the permissions of /dev/infiniband; a container needs its devices"
            }
            ("rdma_create_event_channel", ENODEV | ENOENT) => {
                "the kernel has no RDMA-CM: modprobe rdma_ucm"
            }
            ("rdma_resolve_addr" | "rdma_bind_addr", ENODEV | EADDRNOTAVAIL) => {
                "no RDMA device has this address: see `rdma link` and `ip address`"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for VerbsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed", self.call)?;
        match self.advice() {
            Some(advice) => write!(f, " ({}): {advice}", self.source),
            None => write!(f, ": {}", self.source),
        }
    }
}

impl Error for VerbsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

impl From<VerbsError> for io::Error {
    fn from(error: VerbsError) -> Self {
        Self::new(error.source.kind(), error)
    }
}
