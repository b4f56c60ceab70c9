//! Foreign descriptors.

use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::opcode;

use super::ring::{Done, Ring, fd};
use super::token::{Kind, Token};
use crate::driver::{Completion, Interest};
use crate::slab::Key;

/// A foreign descriptor. The kernel watches it, once at a time, while somebody is interested.
pub(super) struct File {
    fd: OwnedFd,
    interest: Interest,
    token: u64,
    watched: bool,
    closed: bool,
}

impl File {
    pub(super) fn new(fd: OwnedFd, interest: Interest, token: u64) -> Self {
        Self { fd, interest, token, watched: false, closed: false }
    }

    pub(super) fn in_flight(&self) -> bool {
        self.watched
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Has the kernel tell when it is ready.
    pub(super) fn start(&mut self, key: Key, ring: &mut Ring) {
        if self.closed || self.watched || self.interest == Interest::NONE {
            return;
        }
        let mut events = 0;
        if self.interest.readable {
            events |= libc::POLLIN | libc::POLLRDHUP;
        }
        if self.interest.writable {
            events |= libc::POLLOUT;
        }
        self.watched = true;
        let entry = opcode::PollAdd::new(fd(self.fd.as_raw_fd()), events as u32).build();
        // SAFETY: it points to nothing, and the descriptor stays open while the kernel watches it.
        unsafe { ring.push(entry, Token::new(Kind::File, key)) };
    }

    /// Tells the kernel to watch it no more: with another interest, or none ever again.
    pub(super) fn change(&mut self, key: Key, interest: Option<Interest>, ring: &mut Ring) {
        match interest {
            Some(interest) => self.interest = interest,
            None => self.closed = true,
        }
        if self.watched {
            ring.cancel(Token::new(Kind::File, key));
        }
    }

    /// What the kernel told is, if anything, news.
    pub(super) fn on_ready(&mut self, done: Done) -> Option<Completion<'static>> {
        self.watched = false;
        if self.closed || done.result <= 0 {
            return None;
        }
        let events = done.result as i16;
        let broken = events & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        let readable = broken || events & (libc::POLLIN | libc::POLLRDHUP) != 0;
        let writable = broken || events & libc::POLLOUT != 0;
        Some(Completion::FileReady {
            token: self.token,
            readable: self.interest.readable && readable,
            writable: self.interest.writable && writable,
        })
    }
}
