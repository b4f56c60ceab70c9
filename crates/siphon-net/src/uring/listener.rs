//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::opcode;
use rustix::io::Errno;
use rustix::net;

use super::receiving::End;
use super::ring::{Done, Ring, fd};
use super::token::{Kind, Token};
use crate::driver::{Accepted, Completion, ListenerId};
use crate::slab::Key;
use crate::sys::{self, FIRST_PAUSE, LONGEST_PAUSE};

/// What a connection carries to the worker that adopts it.
pub(super) struct UringTransport {
    pub(super) fd: OwnedFd,
    /// What arrived and was not delivered.
    pub(super) bytes: Vec<u8>,
    pub(super) end: Option<End>,
}

pub(super) struct Listener {
    fd: OwnedFd,
    local: SocketAddr,
    /// The kernel accepts for it.
    accepting: bool,
    closed: bool,
    resume_at: Option<Instant>,
    next_pause: Duration,
}

impl Listener {
    pub(super) fn new(fd: OwnedFd, local: SocketAddr) -> Self {
        Self {
            fd,
            local,
            accepting: false,
            closed: false,
            resume_at: None,
            next_pause: FIRST_PAUSE,
        }
    }

    pub(super) fn in_flight(&self) -> bool {
        self.accepting
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// When a paused listener goes on.
    pub(super) fn resume_at(&self) -> Option<Instant> {
        self.resume_at
    }

    /// Has the kernel accept until further notice, if a pause does not forbid it.
    pub(super) fn start(&mut self, key: Key, now: Instant, ring: &mut Ring) {
        if self.closed || self.accepting || self.resume_at.is_some_and(|at| at > now) {
            return;
        }
        self.resume_at = None;
        self.accepting = true;
        let entry =
            opcode::AcceptMulti::new(fd(self.fd.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: it points to nothing, and the socket stays open while the kernel accepts.
        unsafe { ring.push(entry, Token::new(Kind::Accept, key)) };
    }

    /// Tells the kernel to accept no more.
    pub(super) fn close(&mut self, key: Key, ring: &mut Ring) {
        self.closed = true;
        if self.accepting {
            ring.cancel(Token::new(Kind::Accept, key));
        }
    }

    /// The kernel accepted a connection, or failed to.
    pub(super) fn on_accept(
        &mut self,
        key: Key,
        done: Done,
        now: Instant,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) {
        self.accepting = done.more();
        let id = ListenerId::from_bits(key.bits());
        if done.result >= 0 {
            // SAFETY: the kernel has just made it, and nobody else knows of it.
            let fd = unsafe { OwnedFd::from_raw_fd(done.result) };
            self.next_pause = FIRST_PAUSE;
            if self.closed {
                return;
            }
            // A peer that is gone already has no address: nobody to talk to.
            let peer = net::getpeername(&fd).ok().flatten();
            let peer = peer.and_then(|peer| sys::ip_addr(peer).ok());
            let local = net::getsockname(&fd).and_then(sys::ip_addr);
            if let (Some(peer), Ok(local)) = (peer, local) {
                let transport = UringTransport { fd, bytes: Vec::new(), end: None };
                let accepted = Accepted::new(peer, local, transport);
                sink(now, Completion::Accepted { listener: id, accepted });
            }
            return;
        }
        let errno = Errno::from_raw_os_error(-done.result);
        if self.closed || errno == Errno::CANCELED || errno == Errno::AGAIN {
            return;
        }
        if sys::is_the_peers(errno) {
            return;
        }
        tracing::warn!(
            listener = %self.local, %errno, pause = ?self.next_pause,
            "cannot accept a connection"
        );
        self.resume_at = Some(now + self.next_pause);
        self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
        sink(now, Completion::AcceptFailed { listener: id, error: io::Error::from(errno) });
    }
}
