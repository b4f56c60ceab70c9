//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net;

use crate::driver::{Accepted, Completion, ListenerId};
use crate::sys::{self, FIRST_PAUSE, LONGEST_PAUSE};

/// Most connections that a listener accepts in one wait.
const ACCEPTS_PER_WAIT: usize = 32;

/// What an accepted connection carries to the worker that adopts it.
#[derive(Debug)]
pub(super) struct PosixTransport(pub(super) OwnedFd);

#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    local: SocketAddr,
    /// Set by an event, cleared when the system has no further connection.
    ready: bool,
    resume_at: Option<Instant>,
    next_pause: Duration,
    /// Whether the driver's accept queue holds it.
    pub(super) queued: bool,
}

impl Listener {
    pub(super) fn new(fd: OwnedFd, local: SocketAddr) -> Self {
        Self { fd, local, ready: false, resume_at: None, next_pause: FIRST_PAUSE, queued: false }
    }

    pub(super) fn on_event(&mut self) {
        self.ready = true;
    }

    /// Whether [`accept`](Self::accept) is worth trying.
    pub(super) fn wants_turn(&self) -> bool {
        self.ready && self.resume_at.is_none()
    }

    /// When a paused listener goes on.
    pub(super) fn resume_at(&self) -> Option<Instant> {
        self.resume_at
    }

    /// Ends the pause if its time has come.
    pub(super) fn resume(&mut self, now: Instant) {
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
        }
    }

    /// Accepts what is there, up to the bound of one wait.
    pub(super) fn accept(
        &mut self,
        id: ListenerId,
        now: Instant,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) {
        for _ in 0..ACCEPTS_PER_WAIT {
            match net::acceptfrom_with(&self.fd, sys::SOCKET_FLAGS) {
                Ok((fd, peer)) => {
                    self.next_pause = FIRST_PAUSE;
                    // A peer that is gone already has no address: nobody to talk to.
                    let peer = peer.and_then(|peer| sys::ip_addr(peer).ok());
                    let local = net::getsockname(&fd).and_then(sys::ip_addr);
                    if let (Some(peer), Ok(local)) = (peer, local) {
                        let accepted = Accepted::new(peer, local, PosixTransport(fd));
                        sink(now, Completion::Accepted { listener: id, accepted });
                    }
                }
                Err(Errno::AGAIN) => {
                    self.ready = false;
                    return;
                }
                Err(errno) if sys::is_the_peers(errno) => {}
                Err(errno) => {
                    tracing::warn!(
                        listener = %self.local, %errno, pause = ?self.next_pause,
                        "cannot accept a connection"
                    );
                    self.resume_at = Some(now + self.next_pause);
                    self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
                    let error = io::Error::from(errno);
                    sink(now, Completion::AcceptFailed { listener: id, error });
                    return;
                }
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
