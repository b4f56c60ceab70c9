use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::completion::{QueueId, WorkCompletion, WorkStatus};
use crate::error::VerbsError;
use crate::ffi;
use crate::memory::{Chunk, InFlight, ProtectionDomain, leaked};

/// Work requests that are handed to the device at once.
const CHAIN: usize = 32;

/// A chunk that came back from a receive queue.
#[derive(Debug)]
pub struct Received {
    /// The chunk, of which the first `len` bytes were received.
    pub chunk: Chunk,
    /// Bytes that were received; 0 if it failed.
    pub len: usize,
    /// How it ended.
    pub status: WorkStatus,
    /// The number of the queue pair.
    pub qp_num: u32,
}

/// Chunks for whatever arrives at any of several queue pairs.
pub struct SharedReceiveQueue {
    shared: Arc<Shared>,
    id: QueueId,
}

/// Lives as long as the queue pairs that take from it.
pub(crate) struct Shared {
    raw: NonNull<ffi::Srq>,
    domain: ProtectionDomain,
    slots: Mutex<InFlight>,
}

// SAFETY: libibverbs locks its queues; the pointer is handed to it only.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl SharedReceiveQueue {
    /// With room for so many chunks.
    ///
    /// # Errors
    /// What the device says, among it that this is more than it has room for.
    pub fn new(domain: &ProtectionDomain, depth: u32) -> Result<Self, VerbsError> {
        let mut attr = ffi::SrqInitAttr {
            srq_context: std::ptr::null_mut(),
            max_wr: depth,
            max_sge: 1,
            srq_limit: 0,
        };
        // SAFETY: the domain lives, and the attributes are whole.
        let raw = unsafe { (domain.ibv().ibv_create_srq)(domain.raw(), &raw mut attr) };
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("ibv_create_srq"))?;
        let shared = Shared { raw, domain: domain.clone(), slots: Mutex::default() };
        Ok(Self { shared: Arc::new(shared), id: QueueId::next() })
    }

    /// Which queue it is.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Chunks that are posted.
    pub fn len(&self) -> usize {
        self.shared.slots().len()
    }

    /// Whether none is posted: peers have to wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Posts all chunks, which are taken out. What the device has no room for is left.
    ///
    /// # Errors
    /// What the device says: the chunks that it did not take are left.
    pub fn post(&self, chunks: &mut Vec<Chunk>) -> Result<(), VerbsError> {
        let raw = self.shared.raw.as_ptr();
        let post = self.shared.domain.context().ops().post_srq_recv;
        let domain = &self.shared.domain;
        post_chunks(&mut self.shared.slots(), self.id, domain, chunks, |first, bad| {
            // SAFETY: the queue lives, and the chain is whole.
            let result = unsafe { post(raw, first, bad) };
            VerbsError::check("ibv_post_srq_recv", result)
        })
    }

    /// The chunk of a receive that ended.
    ///
    /// # Errors
    /// The completion, if it is not of this queue.
    pub fn complete(&self, done: WorkCompletion) -> Result<Received, WorkCompletion> {
        complete(&mut self.shared.slots(), self.id, done)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl fmt::Debug for SharedReceiveQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReceiveQueue").field("posted", &self.len()).finish()
    }
}

impl Shared {
    pub(crate) fn raw(&self) -> *mut ffi::Srq {
        self.raw.as_ptr()
    }

    fn slots(&self) -> MutexGuard<'_, InFlight> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: queue pairs that take from it have a clone of the Arc, so none does any more. The
        // chunks that are posted go after this.
        let result = unsafe { (self.domain.ibv().ibv_destroy_srq)(self.raw.as_ptr()) };
        leaked("ibv_destroy_srq", result);
    }
}

/// Posts chunks as chains of receives.
pub(crate) fn post_chunks(
    slots: &mut InFlight,
    id: QueueId,
    domain: &ProtectionDomain,
    chunks: &mut Vec<Chunk>,
    mut post: impl FnMut(*mut ffi::RecvWr, *mut *mut ffi::RecvWr) -> Result<(), VerbsError>,
) -> Result<(), VerbsError> {
    while !chunks.is_empty() {
        let first = chunks.len().saturating_sub(CHAIN);
        let mut sges = SmallVec::<[ffi::Sge; CHAIN]>::new();
        let mut wrs = SmallVec::<[ffi::RecvWr; CHAIN]>::new();
        for chunk in chunks.drain(first..) {
            assert!(chunk.region().domain().is(domain), "a chunk of another protection domain");
            sges.push(chunk.sge(chunk.len()));
            let wr_id = id.work_request(slots.insert(chunk));
            let (next, sg_list) = (std::ptr::null_mut(), std::ptr::null_mut());
            wrs.push(ffi::RecvWr { wr_id, next, sg_list, num_sge: 1 });
        }
        link(&mut wrs, &mut sges);
        let mut bad = std::ptr::null_mut();
        if let Err(error) = post(wrs.as_mut_ptr(), &raw mut bad) {
            // A device that does not say which one it refused may have all of them.
            let taken = wrs.iter().position(|wr| std::ptr::eq(wr, bad)).unwrap_or(wrs.len());
            chunks.extend(wrs[taken..].iter().filter_map(|wr| slots.take(wr.wr_id as u32)));
            return Err(error);
        }
    }
    Ok(())
}

/// Makes a chain of them, each with one piece of memory.
fn link(wrs: &mut [ffi::RecvWr], sges: &mut [ffi::Sge]) {
    let mut next = std::ptr::null_mut();
    for (wr, sge) in wrs.iter_mut().zip(sges).rev() {
        (wr.next, wr.sg_list) = (next, sge);
        next = wr;
    }
}

pub(crate) fn complete(
    slots: &mut InFlight,
    id: QueueId,
    done: WorkCompletion,
) -> Result<Received, WorkCompletion> {
    if done.queue() != id {
        return Err(done);
    }
    let Some(chunk) = slots.complete(&done) else {
        return Err(done);
    };
    let (status, qp_num) = (done.status(), done.qp_num());
    let len = if status.is_success() { (done.byte_len() as usize).min(chunk.len()) } else { 0 };
    Ok(Received { chunk, len, status, qp_num })
}
