//! One connected or connecting socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, SendAncillaryBuffer, SendFlags, Shutdown, sockopt};
use siphon_wire::buf::{Input, Rope};
use smallvec::SmallVec;

use super::low_water::LowWater;
use super::{MAX_DIRECT_BYTES, Scratch};
use crate::FillBuf;
use crate::driver::{Completion, SendStatus, SocketId, SocketOptions};
use crate::outgoing::{MAX_SLICES, Outgoing};
use crate::sys;

/// Most bytes that one send, or one turn in a wait, gives to the system. A peer that takes all we
/// have, as fast as we can copy it, is left for the others after this much.
const SEND_TURN_BYTES: usize = 1 << 20;

/// A socket and what is in flight on it.
///
/// Readiness is edge-triggered: `readable` and `writable` are set by events, and cleared where the
/// system did less than asked, since then the next change gives another event: with a low-water mark, the one
/// that reaches it.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    phase: Phase,
    readable: bool,
    writable: bool,
    /// The end of file or an error was announced. No further event will come, so that a short read
    /// must not clear `readable`: the end is still to be read.
    read_ended: bool,
    receive: Receive,
    send: Send,
    outgoing: Outgoing,
    low_water: LowWater,
    /// The end of our direction was asked for and waits for the send in flight, or to be connected.
    shutdown: bool,
    /// Whether the driver's turn queue holds it.
    pub(super) queued: bool,
}

#[derive(Debug)]
enum Phase {
    Connecting,
    /// The outcome is known and not yet reported.
    Settled(io::Result<()>),
    Open,
    /// Connecting failed and was reported: nothing else ever is.
    Dead,
}

#[derive(Debug)]
enum Receive {
    Idle,
    Armed(Option<FillBuf>),
}

#[derive(Debug)]
enum Send {
    Idle,
    InFlight,
    Failed(io::Error),
}

impl Socket {
    /// A socket that started to connect.
    pub(super) fn connecting(fd: OwnedFd, options: &SocketOptions) -> Self {
        Self::new(fd, options, Phase::Connecting)
    }

    /// A socket whose connect failed at once.
    pub(super) fn refused(fd: OwnedFd, options: &SocketOptions, error: io::Error) -> Self {
        Self::new(fd, options, Phase::Settled(Err(error)))
    }

    /// An accepted socket. That it is writable need not be told by an event.
    pub(super) fn accepted(fd: OwnedFd, options: &SocketOptions) -> Self {
        let mut socket = Self::new(fd, options, Phase::Open);
        socket.writable = true;
        socket
    }

    fn new(fd: OwnedFd, options: &SocketOptions, phase: Phase) -> Self {
        Self {
            fd,
            phase,
            readable: false,
            writable: false,
            read_ended: false,
            receive: Receive::Idle,
            send: Send::Idle,
            outgoing: Outgoing::default(),
            low_water: LowWater::new(options),
            shutdown: false,
            queued: false,
        }
    }

    /// Notes what epoll tells.
    pub(super) fn on_event(&mut self, flags: EventFlags) {
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        if broken || flags.contains(EventFlags::RDHUP) {
            self.read_ended = true;
        }
        self.readable |= self.read_ended || flags.contains(EventFlags::IN);
        self.writable |= broken || flags.contains(EventFlags::OUT);
        if self.writable && matches!(self.phase, Phase::Connecting) {
            self.settle();
        }
    }

    /// Whether a [`turn`](Self::turn) would do anything.
    pub(super) fn wants_turn(&self) -> bool {
        match self.phase {
            Phase::Connecting | Phase::Dead => false,
            Phase::Settled(_) => true,
            Phase::Open => {
                let sends = match self.send {
                    Send::Idle => false,
                    Send::InFlight => self.writable,
                    Send::Failed(_) => true,
                };
                sends || (self.readable && matches!(self.receive, Receive::Armed(_)))
            }
        }
    }

    /// Does what can be done now, once, and reports what ended.
    pub(super) fn turn(
        &mut self,
        id: SocketId,
        now: Instant,
        scratch: &mut Scratch,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) {
        if let Phase::Settled(_) = self.phase {
            let Phase::Settled(result) = mem::replace(&mut self.phase, Phase::Open) else {
                unreachable!("matched above");
            };
            if result.is_err() {
                self.phase = Phase::Dead;
            } else if matches!(self.send, Send::Idle) {
                // A shutdown asked for meanwhile.
                self.finish_send();
            }
            sink(now, Completion::Connected { socket: id, result });
        }
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if let Some(result) = self.continue_send() {
            sink(now, Completion::Sent { socket: id, result });
        }
        if self.readable && matches!(self.receive, Receive::Armed(_)) {
            self.receive(id, now, scratch, sink);
        }
    }

    /// Whether it is connected and nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Open)
            && matches!(self.receive, Receive::Idle)
            && matches!(self.send, Send::Idle)
    }

    /// Ends it, but not the connection.
    pub(super) fn into_fd(mut self) -> OwnedFd {
        self.low_water.reset(&self.fd);
        self.fd
    }

    /// Arms a receive.
    pub(super) fn arm(&mut self, fill: Option<FillBuf>) {
        assert!(matches!(self.receive, Receive::Idle), "one receive at a time for a socket");
        if !self.readable {
            self.expect(fill.as_ref());
        }
        self.receive = Receive::Armed(fill);
    }

    /// Takes `rope` and sends what goes at once.
    pub(super) fn send(&mut self, rope: &mut Rope) -> SendStatus {
        assert!(matches!(self.send, Send::Idle), "one send at a time for a socket");
        self.outgoing.load(rope);
        self.send = Send::InFlight;
        if !matches!(self.phase, Phase::Open) {
            return SendStatus::Pending;
        }
        match self.flush() {
            Ok(true) => {
                self.finish_send();
                SendStatus::Complete
            }
            Ok(false) => SendStatus::Pending,
            Err(errno) => {
                self.outgoing.clear();
                self.send = Send::Failed(errno.into());
                SendStatus::Pending
            }
        }
    }

    /// Ends our direction, after the send in flight.
    pub(super) fn shutdown_write(&mut self) -> io::Result<()> {
        match (&self.phase, &self.send) {
            (Phase::Dead | Phase::Settled(Err(_)), _) | (_, Send::Failed(_)) => {
                Err(io::ErrorKind::NotConnected.into())
            }
            (Phase::Open, Send::Idle) => Ok(net::shutdown(&self.fd, Shutdown::Write)?),
            _ => {
                self.shutdown = true;
                Ok(())
            }
        }
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

    /// Learns how connecting ended, if it did.
    fn settle(&mut self) {
        let result = match sockopt::socket_error(&self.fd) {
            Ok(Ok(())) => match net::getpeername(&self.fd) {
                Ok(_) => Ok(()),
                // An event that was not about connecting: it goes on.
                Err(Errno::NOTCONN) => return,
                Err(errno) => Err(errno),
            },
            Ok(Err(errno)) | Err(errno) => Err(errno),
        };
        self.phase = Phase::Settled(result.map_err(io::Error::from));
    }

    /// The end of the send in flight, if it came to it.
    fn continue_send(&mut self) -> Option<io::Result<()>> {
        match mem::replace(&mut self.send, Send::Idle) {
            Send::Idle => None,
            Send::Failed(error) => Some(Err(error)),
            Send::InFlight => match self.flush() {
                Ok(true) => {
                    self.finish_send();
                    Some(Ok(()))
                }
                Ok(false) => {
                    self.send = Send::InFlight;
                    None
                }
                Err(errno) => {
                    self.outgoing.clear();
                    Some(Err(errno.into()))
                }
            },
        }
    }

    /// Writes until all is out, the system takes no more, or the turn is used up. Whether all is out.
    fn flush(&mut self) -> Result<bool, Errno> {
        let mut turn_left = SEND_TURN_BYTES;
        while self.writable && turn_left > 0 && !self.outgoing.is_empty() {
            let mut slices = SmallVec::<[IoSlice<'_>; MAX_SLICES]>::new();
            let asked = self.outgoing.slices(turn_left, &mut slices);
            let mut control = SendAncillaryBuffer::default();
            // Without NOSIGNAL, a peer that closed would end the process by SIGPIPE.
            match net::sendmsg(&self.fd, &slices, &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    drop(slices);
                    self.outgoing.advance(sent);
                    turn_left -= sent;
                    self.writable = sent == asked;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.writable = false,
                Err(errno) => return Err(errno),
            }
        }
        Ok(self.outgoing.is_empty())
    }

    fn finish_send(&mut self) {
        self.send = Send::Idle;
        self.outgoing.clear();
        if self.shutdown && matches!(self.phase, Phase::Open) {
            self.shutdown = false;
            // It fails only where the connection is gone already, which receiving tells.
            let _ = net::shutdown(&self.fd, Shutdown::Write);
        }
    }

    /// The next event is to tell of what is missing here.
    fn expect(&mut self, fill: Option<&FillBuf>) {
        let missing = fill.map_or(0, FillBuf::remaining);
        self.readable |= self.low_water.expect(&self.fd, missing);
    }

    /// Reads once, into the receive's buffer and then the scratch, and reports it.
    fn receive(
        &mut self,
        id: SocketId,
        now: Instant,
        scratch: &mut Scratch,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) {
        let Receive::Armed(mut fill) = mem::replace(&mut self.receive, Receive::Idle) else {
            return;
        };
        // With more room than one read takes, the scratch stays out of it: the bytes belong there.
        let remaining = fill.as_ref().map_or(0, FillBuf::remaining);
        let room = remaining.min(MAX_DIRECT_BYTES);
        let scratch = match remaining {
            0 => &mut scratch.bytes[..scratch.share],
            _ if room < remaining => &mut [],
            _ => &mut scratch.bytes,
        };
        let read = loop {
            let result = match fill.as_mut().filter(|fill| !fill.is_full()) {
                Some(fill) => {
                    let direct = IoSliceMut::new(&mut fill.unfilled()[..room]);
                    let slices = &mut [direct, IoSliceMut::new(scratch)];
                    rustix::io::readv(&self.fd, slices)
                }
                None => rustix::io::read(&self.fd, &mut *scratch),
            };
            if result != Err(Errno::INTR) {
                break result;
            }
        };
        match read {
            Ok(count) => {
                let in_fill = count.min(room);
                if let Some(fill) = fill.as_mut() {
                    fill.advance(in_fill);
                }
                self.readable = self.read_ended || count == 0 || count == room + scratch.len();
                let bytes = Input::from(&scratch[..count - in_fill]);
                sink(now, Completion::Received { socket: id, result: Ok(count), fill, bytes });
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                self.read_ended = false;
                self.expect(fill.as_ref());
                self.receive = Receive::Armed(fill);
            }
            Err(errno) => {
                let result = Err(errno.into());
                sink(
                    now,
                    Completion::Received { socket: id, result, fill, bytes: Input::default() },
                );
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
