//! A ring: what was pushed goes to the kernel with the wait that follows it.

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};

use super::token::Token;

/// Entries of the submission queue; what is beyond is submitted early.
const SUBMISSIONS: u32 = 256;
/// Entries of the completion queue; what is beyond waits in the kernel.
const COMPLETIONS: u32 = 2048;

/// What [`Ring::enter`] tells the kernel: to run what it put off, and that an argument is extended.
const GETEVENTS: u32 = 1;
const EXT_ARG: u32 = 8;

/// The newest of the operations that the driver takes for granted, of Linux 6.0: with it came
/// receives of more than one shot.
const NEEDED: &[(&str, u8)] = &[
    ("SENDMSG", opcode::SendMsg::CODE),
    ("RECVMSG", opcode::RecvMsg::CODE),
    ("RECV", opcode::Recv::CODE),
    ("ACCEPT", opcode::Accept::CODE),
    ("POLL_ADD", opcode::PollAdd::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ("SEND_ZC", opcode::SendZc::CODE),
];

/// What the kernel says of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) token: Token,
    pub(super) result: i32,
    flags: u32,
}

impl Done {
    /// Whether more will come of the same operation.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The buffer of the ring that it took.
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// A ring and what is under way on it.
pub(super) struct Ring {
    ring: IoUring,
    /// The kernel tells in our memory that it has put something off.
    tells: bool,
    /// Operations that the kernel has, or will have with the next [`enter`](Self::enter), and that
    /// have not ended.
    in_flight: usize,
    /// Why something could not be submitted: told by the next `enter`.
    failure: Option<io::Error>,
}

impl Ring {
    /// A ring for the calling thread, with as much as the kernel has.
    ///
    /// # Errors
    ///
    /// What the kernel says, or what of io_uring it lacks.
    pub(super) fn open() -> io::Result<Self> {
        let (ring, choice) = build()?;
        let tells = choice.contains("TASKRUN");
        let params = ring.params();
        if !params.is_feature_ext_arg() || !params.is_feature_nodrop() {
            return Err(lacking("waits with a time limit (Linux 5.11)"));
        }
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        for (name, code) in NEEDED {
            if !probe.is_supported(*code) {
                return Err(lacking(&format!("{name}: Linux 6.0 has all that is needed")));
            }
        }
        tracing::debug!(setup = choice, "io_uring");
        Ok(Self { ring, tells, in_flight: 0, failure: None })
    }

    pub(super) fn as_ring(&self) -> &IoUring {
        &self.ring
    }

    /// Operations that have not ended.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues an operation for the next [`enter`](Self::enter).
    ///
    /// # Safety
    ///
    /// What `entry` points to, and its descriptor, stay as they are until the last [`Done`] with its
    /// token.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, token: Token) {
        self.in_flight += 1;
        // SAFETY: as promised to us.
        unsafe { self.push_entry(&entry.user_data(token.bits())) };
    }

    /// Has the operations with this token ended before their time.
    pub(super) fn cancel(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.bits()).build();
        // SAFETY: it points to nothing.
        unsafe { self.push_entry(&entry.user_data(Token::IGNORED.bits())) };
    }

    /// Has all operations ended.
    pub(super) fn cancel_all(&mut self) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: it points to nothing.
        unsafe { self.push_entry(&entry.user_data(Token::IGNORED.bits())) };
    }

    /// # Safety
    ///
    /// As [`push`](Self::push).
    unsafe fn push_entry(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: as promised to us.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            if let Err(error) = self.enter(0, None) {
                // It is lost, and so is the driver: what it would have touched is never given back.
                self.failure = Some(error);
                return;
            }
        }
    }

    /// Whether an [`enter`](Self::enter) that does not wait would do nothing.
    pub(super) fn is_quiet(&mut self) -> bool {
        let submission = self.ring.submission();
        self.tells
            && self.failure.is_none()
            && submission.is_empty()
            && !submission.taskrun()
            && !submission.cq_overflow()
    }

    /// Whether something is there to be submitted.
    pub(super) fn has_pushed(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Whether an [`enter`](Self::enter) that waits would find nothing and sleep, as far as the kernel tells.
    pub(super) fn has_nothing(&mut self) -> bool {
        let submission = self.ring.submission();
        let put_off = !self.tells || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        !put_off && self.ring.completion().is_empty()
    }

    /// Submits what was pushed, and waits until there are `want` completions or the time is over.
    ///
    /// # Errors
    ///
    /// What makes the ring unusable.
    pub(super) fn enter(&mut self, want: u32, limit: Option<Duration>) -> io::Result<()> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let pushed = self.ring.submission().len() as u32;
        let time =
            limit.map(|limit| Timespec::new().sec(limit.as_secs()).nsec(limit.subsec_nanos()));
        let args = SubmitArgs::new();
        let args = match &time {
            Some(time) => args.timespec(time),
            None => args,
        };
        // SAFETY: the argument is what EXT_ARG announces.
        let entered =
            unsafe { self.ring.submitter().enter(pushed, want, GETEVENTS | EXT_ARG, Some(&args)) };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The time is over; a signal; completions must be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// The next completion.
    pub(super) fn pop(&mut self) -> Option<Done> {
        let entry = self.ring.completion().next()?;
        let done = Done {
            token: Token::from_bits(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        };
        if !done.more() && done.token != Token::IGNORED {
            self.in_flight -= 1;
        }
        Some(done)
    }
}

/// The best ring that the kernel can make: work that it does for us is done in our own waits only
/// (6.1), or at least without interrupting us (5.19).
fn build() -> io::Result<(IoUring, &'static str)> {
    let mut failure = None;
    for choice in ["SINGLE_ISSUER|DEFER_TASKRUN", "SINGLE_ISSUER|COOP_TASKRUN", "COOP_TASKRUN", ""]
    {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(COMPLETIONS).setup_clamp().setup_submit_all();
        if choice.contains("SINGLE_ISSUER") {
            builder.setup_single_issuer();
        }
        if choice.contains("DEFER_TASKRUN") {
            builder.setup_defer_taskrun().setup_taskrun_flag();
        }
        if choice.contains("COOP_TASKRUN") {
            builder.setup_coop_taskrun().setup_taskrun_flag();
        }
        match builder.build(SUBMISSIONS) {
            Ok(ring) => return Ok((ring, choice)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => failure = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| lacking("all of it")))
}

fn lacking(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("the kernel's io_uring lacks {what}"))
}

/// A descriptor for an operation.
pub(super) fn fd(fd: RawFd) -> io_uring::types::Fd {
    io_uring::types::Fd(fd)
}

/// A header of nothing.
pub(super) fn empty_header() -> libc::msghdr {
    libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}
