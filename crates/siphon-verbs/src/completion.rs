use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::context::{Context, set_nonblocking};
use crate::error::VerbsError;
use crate::ffi;
use crate::memory::leaked;

/// Which queue a completion is of: never the same for two queues of a process.
///
/// (After 2^32 queues numbers come again; a queue that old has long been destroyed.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueId(u32);

impl QueueId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn work_request(self, slot: u32) -> u64 {
        u64::from(self.0) << 32 | u64::from(slot)
    }
}

/// A work request that ended. It is worth what was posted, and so is used up by getting that back.
#[derive(Debug)]
#[must_use = "what was posted comes back by it"]
pub struct WorkCompletion {
    wr_id: u64,
    status: WorkStatus,
    byte_len: u32,
    qp_num: u32,
}

impl WorkCompletion {
    /// The queue that it was posted to.
    pub fn queue(&self) -> QueueId {
        QueueId((self.wr_id >> 32) as u32)
    }

    /// The number of the queue pair.
    pub fn qp_num(&self) -> u32 {
        self.qp_num
    }

    /// How it ended.
    pub fn status(&self) -> WorkStatus {
        self.status
    }

    /// Bytes that were received; means nothing for a send, or if it failed.
    pub fn byte_len(&self) -> u32 {
        self.byte_len
    }

    pub(crate) fn slot(&self) -> u32 {
        self.wr_id as u32
    }
}

/// `ibv_wc_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkStatus(u32);

impl WorkStatus {
    /// It was done.
    pub const SUCCESS: Self = Self(0);
    /// What arrived is longer than the chunk that was posted for it.
    pub const LOCAL_LENGTH: Self = Self(1);
    /// It was posted when its queue pair was dying.
    pub const FLUSHED: Self = Self(5);
    /// The peer's chunk was too short.
    pub const REMOTE_INVALID_REQUEST: Self = Self(9);
    /// The peer could not do its part.
    pub const REMOTE_OPERATION: Self = Self(11);
    /// The peer did not answer.
    pub const RETRIES_EXCEEDED: Self = Self(12);
    /// The peer had nothing posted for too long.
    pub const RNR_RETRIES_EXCEEDED: Self = Self(13);

    /// Whether it was done.
    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }
}

impl fmt::Display for WorkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 22] = [
            "done",
            "what arrived is longer than the buffer for it",
            "local queue pair failed",
            "local end-to-end context failed",
            "local memory may not be used so",
            "flushed, as its queue pair is dying",
            "memory window failed",
            "an answer that nobody understands",
            "local access is not allowed",
            "the peer takes no such message: its buffer may be shorter",
            "the peer does not allow the access",
            "the peer failed",
            "the peer does not answer",
            "the peer had no buffer for too long",
            "local domain violated",
            "the peer's domain is violated",
            "the peer gave up",
            "invalid end-to-end context",
            "invalid state of the end-to-end context",
            "the device failed",
            "no answer in time",
            "failed",
        ];
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "status {}", self.0),
        }
    }
}

/// Room for what one [`CompletionQueue::poll`] takes, to be kept from poll to poll: most polls of who
/// waits find nothing, and clearing it would take longer than they do.
pub struct PollRoom(Box<[ffi::Wc; Self::LEN]>);

impl PollRoom {
    /// Completions that one poll takes at most: one that takes fewer has taken all there were.
    pub const LEN: usize = 32;
}

impl Default for PollRoom {
    fn default() -> Self {
        Self(Box::new([ffi::Wc::default(); Self::LEN]))
    }
}

impl fmt::Debug for PollRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollRoom").finish_non_exhaustive()
    }
}

/// Tells what of queues ended. Clones are the same.
///
/// It sleeps by its channel: [`arm`](Self::arm) it, poll it once more, then wait for its descriptor.
///
/// ```no_run
/// # fn f(context: &siphon_verbs::Context) -> Result<(), siphon_verbs::VerbsError> {
/// let completions = siphon_verbs::CompletionQueue::new(context, 1024)?;
/// completions.arm()?;
/// let mut room = siphon_verbs::PollRoom::default();
/// completions.poll(&mut room, &mut |done| println!("{}", done.status()))?;
/// // … wait until its descriptor is readable, then
/// completions.take_events()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CompletionQueue(Arc<Inner>);

struct Inner {
    raw: NonNull<ffi::Cq>,
    channel: NonNull<ffi::CompChannel>,
    context: Context,
}

// SAFETY: libibverbs locks its completion queues; the pointers are handed to it only.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl CompletionQueue {
    /// With room for so many completions that were not polled, or some more.
    ///
    /// # Errors
    /// What the device says, among it that this is more than it has room for.
    pub fn new(context: &Context, depth: u32) -> Result<Self, VerbsError> {
        let ibv = context.ibv();
        // SAFETY: the context is open.
        let channel = unsafe { (ibv.ibv_create_comp_channel)(context.raw()) };
        let channel =
            NonNull::new(channel).ok_or_else(|| VerbsError::last("ibv_create_comp_channel"))?;
        let depth = i32::try_from(depth).unwrap_or(i32::MAX);
        // SAFETY: context and channel are open; the vector 0 is there always.
        let raw = unsafe {
            (ibv.ibv_create_cq)(context.raw(), depth, std::ptr::null_mut(), channel.as_ptr(), 0)
        };
        let Some(raw) = NonNull::new(raw) else {
            let error = VerbsError::last("ibv_create_cq");
            // SAFETY: nothing uses the channel.
            unsafe { (ibv.ibv_destroy_comp_channel)(channel.as_ptr()) };
            return Err(error);
        };
        let queue = Self(Arc::new(Inner { raw, channel, context: context.clone() }));
        set_nonblocking(queue.as_fd()).map_err(|error| VerbsError::new("fcntl", error))?;
        Ok(queue)
    }

    /// Gives all that ended to `sink`, up to [`PollRoom::LEN`]; returns how many.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn poll(
        &self,
        room: &mut PollRoom,
        sink: &mut dyn FnMut(WorkCompletion),
    ) -> Result<usize, VerbsError> {
        let poll = self.0.context.ops().poll_cq;
        // SAFETY: the queue lives, and the array has room for so many. What a device leaves out, as
        // the length where it means nothing, stays what it was.
        let count = unsafe { poll(self.raw(), PollRoom::LEN as i32, room.0.as_mut_ptr()) };
        let Ok(count) = usize::try_from(count) else {
            return Err(VerbsError::check("ibv_poll_cq", count).unwrap_err());
        };
        for wc in &room.0[..count.min(PollRoom::LEN)] {
            sink(WorkCompletion {
                wr_id: wc.wr_id,
                status: WorkStatus(wc.status),
                byte_len: wc.byte_len,
                qp_num: wc.qp_num,
            });
        }
        Ok(count)
    }

    /// Has the descriptor tell of the next completion. What came before has to be polled after this.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn arm(&self) -> Result<(), VerbsError> {
        let arm = self.0.context.ops().req_notify_cq;
        // SAFETY: the queue lives.
        VerbsError::check("ibv_req_notify_cq", unsafe { arm(self.raw(), 0) })
    }

    /// Takes what the descriptor told.
    ///
    /// # Errors
    /// What the system says.
    pub fn take_events(&self) -> Result<(), VerbsError> {
        let ibv = self.0.context.ibv();
        loop {
            let (mut queue, mut user) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: the channel is open and does not block.
            let result = unsafe {
                (ibv.ibv_get_cq_event)(self.0.channel.as_ptr(), &raw mut queue, &raw mut user)
            };
            if result != 0 {
                let error = VerbsError::last("ibv_get_cq_event");
                let empty = error.raw_os_error() == Some(rustix::io::Errno::AGAIN.raw_os_error());
                return if empty { Ok(()) } else { Err(error) };
            }
            // SAFETY: it is the queue of the event, which is ours, and acknowledged once.
            unsafe { (ibv.ibv_ack_cq_events)(queue, 1) };
        }
    }

    /// Room for completions.
    pub fn depth(&self) -> u32 {
        // SAFETY: the queue lives.
        u32::try_from(unsafe { (*self.raw()).cqe }).unwrap_or(0)
    }

    pub(crate) fn raw(&self) -> *mut ffi::Cq {
        self.0.raw.as_ptr()
    }
}

impl AsFd for CompletionQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel is open for as long as the queue.
        unsafe { BorrowedFd::borrow_raw((*self.0.channel.as_ptr()).fd) }
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionQueue").field("depth", &self.depth()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let ibv = self.context.ibv();
        // SAFETY: queue pairs that use it have a clone of the Arc, so none does any more, and each
        // event was acknowledged.
        unsafe {
            leaked("ibv_destroy_cq", (ibv.ibv_destroy_cq)(self.raw.as_ptr()));
            leaked(
                "ibv_destroy_comp_channel",
                (ibv.ibv_destroy_comp_channel)(self.channel.as_ptr()),
            );
        }
    }
}
