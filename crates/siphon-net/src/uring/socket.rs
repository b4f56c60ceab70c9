//! One connected or connecting socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use io_uring::opcode;
use rustix::io::Errno;
use rustix::net::{self, Shutdown, sockopt};
use siphon_wire::buf::{Input, Rope};

use super::receiving::{Delivery, End, Memory, Receiving};
use super::ring::{Done, Ring, fd};
use super::sending::Sending;
use super::token::{Kind, Token};
use crate::FillBuf;
use crate::driver::{Completion, SendStatus, SocketId};
use crate::slab::Key;
use crate::sys;

/// A socket and what is in flight on it.
///
/// Invariant: it stays, with its descriptor and all that the kernel reads and writes, until
/// [`in_flight`](Self::in_flight) says that the kernel has nothing of it any more. A descriptor that
/// was closed earlier could be another's when the operations that name it are submitted.
pub(super) struct Socket {
    fd: OwnedFd,
    phase: Phase,
    /// The kernel watches whether it is connected.
    connecting: bool,
    /// Its owner is gone.
    closed: bool,
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
    /// The end of our direction was asked for and waits for the send in flight, or to be connected.
    shutdown: bool,
    /// Whether the driver's turn queue holds it.
    pub(super) queued: bool,
}

enum Phase {
    Connecting,
    /// The outcome is known and not yet reported.
    Settled(io::Result<()>),
    Open,
    /// Connecting failed and was reported: nothing else ever is.
    Dead,
}

/// What a socket works with.
pub(super) struct Tools<'a> {
    pub(super) ring: &'a mut Ring,
    pub(super) memory: &'a mut Memory,
}

impl Socket {
    /// A socket that started to connect.
    pub(super) fn connecting(fd: OwnedFd) -> Self {
        Self::new(fd, Phase::Connecting, Receiving::new())
    }

    /// A socket whose connect failed at once.
    pub(super) fn refused(fd: OwnedFd, error: io::Error) -> Self {
        Self::new(fd, Phase::Settled(Err(error)), Receiving::new())
    }

    /// A connected socket, and what arrived on it where it was before.
    pub(super) fn connected(fd: OwnedFd, bytes: Vec<u8>, end: Option<End>) -> Self {
        Self::new(fd, Phase::Open, Receiving::with(bytes, end))
    }

    fn new(fd: OwnedFd, phase: Phase, receiving: Receiving) -> Self {
        Self {
            fd,
            phase,
            connecting: false,
            closed: false,
            receiving,
            sending: Sending::default(),
            shutdown: false,
            queued: false,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the kernel has an operation of it.
    pub(super) fn in_flight(&self) -> bool {
        self.connecting || self.receiving.in_flight() || self.sending.in_flight()
    }

    /// Whether it is connected and nothing was asked of it that is not done.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Open)
            && !self.receiving.is_armed()
            && !self.receiving.is_direct()
            && self.sending.is_idle()
    }

    /// Whether a [`turn`](Self::turn) would report anything.
    pub(super) fn wants_turn(&self) -> bool {
        match self.phase {
            _ if self.closed => false,
            Phase::Connecting | Phase::Dead => false,
            Phase::Settled(_) => true,
            Phase::Open => self.sending.has_failed() || self.receiving.wants_turn(),
        }
    }

    /// Whether its receive waits for a buffer to be free.
    pub(super) fn is_starved(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.receiving.is_starved()
    }

    /// Has the kernel tell when it is connected.
    pub(super) fn watch(&mut self, key: Key, ring: &mut Ring) {
        let entry = opcode::PollAdd::new(fd(self.fd.as_raw_fd()), libc::POLLOUT as u32).build();
        self.connecting = true;
        // SAFETY: it points to nothing, and the socket stays open while the kernel has it.
        unsafe { ring.push(entry, Token::new(Kind::Connect, key)) };
    }

    /// Connecting has come to an end, or not.
    pub(super) fn on_connect(&mut self, key: Key, ring: &mut Ring) {
        self.connecting = false;
        if self.closed || !matches!(self.phase, Phase::Connecting) {
            return;
        }
        let result = match sockopt::socket_error(&self.fd) {
            Ok(Ok(())) => match net::getpeername(&self.fd) {
                // The kernel waits for a socket only where it may block.
                Ok(_) => rustix::io::ioctl_fionbio(&self.fd, false),
                Err(Errno::NOTCONN) => return self.watch(key, ring),
                Err(errno) => Err(errno),
            },
            Ok(Err(errno)) | Err(errno) => Err(errno),
        };
        self.phase = Phase::Settled(result.map_err(io::Error::from));
    }

    /// Has the kernel do what was asked for and can be done.
    pub(super) fn start(&mut self, key: Key, tools: &mut Tools<'_>) {
        if self.closed || !matches!(self.phase, Phase::Open) {
            return;
        }
        let socket = self.fd.as_raw_fd();
        self.sending.start(key, socket, tools.ring);
        self.receiving.start(key, socket, tools.ring, tools.memory);
    }

    /// Takes a receive.
    pub(super) fn recv(&mut self, key: Key, fill: Option<FillBuf>, tools: &mut Tools<'_>) {
        self.receiving.arm(fill);
        self.start(key, tools);
    }

    /// Takes a send. With `now`, what goes at once does so.
    pub(super) fn send(
        &mut self,
        key: Key,
        rope: &mut Rope,
        now: bool,
        tools: &mut Tools<'_>,
    ) -> SendStatus {
        self.sending.load(rope);
        if now && matches!(self.phase, Phase::Open) && self.sending.send_now(self.fd.as_fd()) {
            return SendStatus::Complete;
        }
        self.start(key, tools);
        SendStatus::Pending
    }

    /// The kernel did something about the receive.
    pub(super) fn on_receive(&mut self, key: Key, done: Done, tools: &mut Tools<'_>) {
        self.receiving.done(done, !self.closed, tools.memory);
        if self.closed {
            return;
        }
        if self.receiving.is_ahead() {
            self.receiving.stop(key, tools.ring);
        }
        self.start(key, tools);
    }

    /// The kernel did something about the send. Gives its end, if it is that.
    pub(super) fn on_send(
        &mut self,
        key: Key,
        done: Done,
        tools: &mut Tools<'_>,
    ) -> Option<io::Result<()>> {
        let result = self.sending.done(done);
        if self.closed {
            return None;
        }
        match &result {
            Some(_) => self.finish_shutdown(),
            None => self.start(key, tools),
        }
        result
    }

    /// Reports what has come to its end, once for each.
    pub(super) fn turn(
        &mut self,
        key: Key,
        now: Instant,
        tools: &mut Tools<'_>,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) {
        let socket = SocketId::from_bits(key.bits());
        if let Phase::Settled(_) = self.phase {
            let Phase::Settled(result) = std::mem::replace(&mut self.phase, Phase::Open) else {
                unreachable!("matched above");
            };
            if result.is_err() {
                self.phase = Phase::Dead;
            } else if self.sending.is_idle() {
                // A shutdown asked for meanwhile.
                self.finish_shutdown();
            }
            self.start(key, tools);
            sink(now, Completion::Connected { socket, result });
        }
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if let Some(error) = self.sending.take_failure() {
            sink(now, Completion::Sent { socket, result: Err(error) });
        }
        if self.receiving.wants_turn() {
            self.receiving.deliver(tools.memory, &mut |delivery| {
                sink(now, received(socket, delivery));
            });
        }
    }

    /// Ends our direction, after the send in flight.
    pub(super) fn shutdown_write(&mut self) -> io::Result<()> {
        match &self.phase {
            Phase::Dead | Phase::Settled(Err(_)) => Err(io::ErrorKind::NotConnected.into()),
            _ if self.sending.has_failed() => Err(io::ErrorKind::NotConnected.into()),
            Phase::Open if self.sending.is_idle() => Ok(net::shutdown(&self.fd, Shutdown::Write)?),
            _ => {
                self.shutdown = true;
                Ok(())
            }
        }
    }

    /// Its owner is gone. What the kernel still has is ended: a send that goes at once has gone before,
    /// since it was submitted before.
    pub(super) fn close(&mut self, key: Key, tools: &mut Tools<'_>) {
        self.closed = true;
        self.receiving.discard(tools.memory);
        if self.receiving.in_flight() {
            self.receiving.stop(key, tools.ring);
        }
        if self.sending.in_flight() {
            tools.ring.cancel(Token::new(Kind::Send, key));
        }
        if self.connecting {
            tools.ring.cancel(Token::new(Kind::Connect, key));
        }
    }

    /// Ends it, but not the connection.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(sys::ip_addr(net::getsockname(&self.fd)?)?)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(sys::ip_addr(net::getpeername(&self.fd)?.ok_or(Errno::NOTCONN)?)?)
    }

    fn finish_shutdown(&mut self) {
        if std::mem::take(&mut self.shutdown) {
            // It fails only where the connection is gone already, which receiving tells.
            let _ = net::shutdown(&self.fd, Shutdown::Write);
        }
    }
}

fn received(socket: SocketId, delivery: Delivery<'_>) -> Completion<'_> {
    match delivery {
        Delivery::Bytes { count, fill, bytes } => {
            Completion::Received { socket, result: Ok(count), fill, bytes }
        }
        Delivery::End { result, fill } => {
            Completion::Received { socket, result, fill, bytes: Input::default() }
        }
    }
}
