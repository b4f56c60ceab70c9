//! A socket's way out.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use io_uring::opcode;
use rustix::io::Errno;
use rustix::net::{self, SendAncillaryBuffer, SendFlags};
use siphon_wire::buf::Rope;
use smallvec::SmallVec;

use super::ring::{Done, Ring, empty_header, fd};
use super::token::{Kind, Token};
use crate::outgoing::{MAX_SLICES, Outgoing};
use crate::slab::Key;

/// Most bytes of one operation. A peer that takes all we have, as fast as we can copy it, is left for
/// the others after this much.
const SEND_BYTES: usize = 1 << 20;

/// The send of a socket.
///
/// Invariant: while `in_flight`, the kernel reads `operation` and the segments of `outgoing`; neither
/// is touched.
#[derive(Default)]
pub(super) struct Sending {
    state: State,
    outgoing: Outgoing,
    /// Made with the first send, and used again.
    operation: Option<Box<Operation>>,
    in_flight: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    /// Given, and not all out.
    Given,
    /// It cannot be done; to be reported.
    Failed(io::Error),
}

/// What the kernel reads of a send, where it does not move.
struct Operation {
    header: libc::msghdr,
    slices: Vec<libc::iovec>,
}

impl Sending {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    pub(super) fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// Whether it failed, and that is not reported yet.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed(_))
    }

    /// Takes `rope`.
    pub(super) fn load(&mut self, rope: &mut Rope) {
        assert!(self.is_idle(), "one send at a time for a socket");
        self.outgoing.load(rope);
        self.state = State::Given;
    }

    /// Sends what goes at once. Whether all is out.
    pub(super) fn send_now(&mut self, socket: BorrowedFd<'_>) -> bool {
        let mut slices = SmallVec::<[IoSlice<'_>; MAX_SLICES]>::new();
        self.outgoing.slices(SEND_BYTES, &mut slices);
        let mut control = SendAncillaryBuffer::default();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = net::sendmsg(socket, &slices, &mut control, flags);
        drop(slices);
        match sent {
            Ok(sent) => self.outgoing.advance(sent),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => self.fail(errno),
        }
        if self.outgoing.is_empty() && !self.has_failed() {
            self.finish();
        }
        self.is_idle()
    }

    /// Hands what is left, or a part of it, to the kernel, if something was given.
    pub(super) fn start(&mut self, key: Key, socket: i32, ring: &mut Ring) {
        if self.in_flight || !matches!(self.state, State::Given) {
            return;
        }
        let operation = self.operation.get_or_insert_with(|| {
            Box::new(Operation { header: empty_header(), slices: Vec::new() })
        });
        operation.slices.clear();
        let (segments, mut offset) = self.outgoing.segments();
        let mut left = SEND_BYTES;
        for segment in segments.iter().take(MAX_SLICES) {
            let part = &segment[offset..segment.len().min(offset + left)];
            operation.slices.push(libc::iovec {
                iov_base: part.as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            });
            left -= part.len();
            offset = 0;
            if left == 0 {
                break;
            }
        }
        operation.header.msg_iov = operation.slices.as_mut_ptr();
        operation.header.msg_iovlen = operation.slices.len();
        // Without NOSIGNAL, a peer that closed would end the process by SIGPIPE. With WAITALL, the
        // kernel goes on by itself where the socket's buffer was full.
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let entry =
            opcode::SendMsg::new(fd(socket), &raw const operation.header).flags(flags).build();
        self.in_flight = true;
        // SAFETY: the header and its slices are boxed and the segments reference-counted; by the
        // invariant all stay as they are until the operation ends, and the socket with them.
        unsafe { ring.push(entry, Token::new(Kind::Send, key)) };
    }

    /// Notes what the kernel did. Gives the end of the send, if it is that; else it is to be started
    /// again.
    pub(super) fn done(&mut self, done: Done) -> Option<io::Result<()>> {
        self.in_flight = false;
        match done.result {
            sent if sent >= 0 => {
                self.outgoing.advance(sent as usize);
                if !self.outgoing.is_empty() {
                    return None;
                }
                self.finish();
                Some(Ok(()))
            }
            again if again == -libc::EINTR || again == -libc::EAGAIN => None,
            errno => {
                self.finish();
                Some(Err(io::Error::from_raw_os_error(-errno)))
            }
        }
    }

    /// A failure to be reported.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        match std::mem::take(&mut self.state) {
            State::Failed(error) => Some(error),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Drops what was given, of which nothing is with the kernel, and fails with `errno`.
    pub(super) fn fail(&mut self, errno: Errno) {
        debug_assert!(!self.in_flight);
        self.finish();
        self.state = State::Failed(errno.into());
    }

    fn finish(&mut self) {
        self.outgoing.clear();
        self.state = State::Idle;
    }
}
