use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, ipproto, sockopt,
};
use siphon_wire::buf::{Rope, SegmentBuf};

use crate::driver::{Accepted, ListenOptions, SocketOptions};

/// Entries of one vectored write; the kernel takes 1024 at most.
const MAX_SLICES: usize = 256;
/// Writes of one socket before others have their turn.
const MAX_WRITES: usize = 16;

/// A connected or connecting socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    connecting: bool,
    /// What the kernel said last; true until it says otherwise.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The armed receive, with its buffer.
    pub(super) receive: Option<Option<SegmentBuf>>,
    /// What is still to be sent; empty if no send is pending.
    pending: Rope,
}

impl Socket {
    pub(super) fn connect(addr: SocketAddr, options: &SocketOptions) -> io::Result<Self> {
        let fd = stream_socket(addr)?;
        set_options(&fd, options)?;
        match net::connect(&fd, &addr) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Readiness to write tells the end of the attempt, even if it is over already.
        Ok(Self::new(fd, true))
    }

    pub(super) fn adopt(accepted: Accepted, options: &SocketOptions) -> io::Result<Self> {
        set_options(&accepted.socket, options)?;
        Ok(Self::new(accepted.socket, false))
    }

    fn new(fd: OwnedFd, connecting: bool) -> Self {
        let writable = !connecting;
        Self { fd, connecting, readable: false, writable, receive: None, pending: Rope::new() }
    }

    pub(super) fn wants_write(&self) -> bool {
        self.connecting || !self.pending.is_empty()
    }

    /// How the attempt to connect ended, if it was under way.
    pub(super) fn finish_connect(&mut self) -> Option<io::Result<()>> {
        if !self.connecting {
            return None;
        }
        self.connecting = false;
        Some(match sockopt::socket_error(&self.fd) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) | Err(error) => Err(error.into()),
        })
    }

    /// Reads once into the armed buffer and the scratch. None if there was nothing after all, and
    /// the receive stays armed; else the result, the buffer, and bytes in the scratch.
    pub(super) fn receive(
        &mut self,
        scratch: &mut [u8],
    ) -> Option<(io::Result<usize>, Option<SegmentBuf>, usize)> {
        let mut fill = self.receive.take()?;
        let scratch_len = scratch.len();
        let direct = fill.as_ref().map_or(0, SegmentBuf::remaining);
        let result = rustix::io::retry_on_intr(|| match &mut fill {
            Some(buffer) => {
                let slices = &mut [IoSliceMut::new(buffer.unfilled()), IoSliceMut::new(scratch)];
                rustix::io::readv(&self.fd, slices)
            }
            None => rustix::io::read(&self.fd, &mut *scratch),
        });
        match result {
            Ok(len) => {
                // A short read has emptied the kernel's buffer; more to come is told by an edge.
                self.readable = len == direct + scratch_len;
                if let Some(buffer) = &mut fill {
                    buffer.advance(len.min(direct));
                }
                Some((Ok(len), fill, len.saturating_sub(direct)))
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                self.receive = Some(fill);
                None
            }
            Err(error) => Some((Err(error.into()), fill, 0)),
        }
    }

    /// Takes all of `rope` and sends what goes now: Some at the end, None if some is pending.
    pub(super) fn send(&mut self, rope: &mut Rope) -> Option<io::Result<()>> {
        debug_assert!(self.pending.is_empty(), "one send is pending at a time");
        std::mem::swap(&mut self.pending, rope);
        let result = self.go_on_sending();
        if result.is_some() {
            self.pending.clear();
            std::mem::swap(&mut self.pending, rope); // the caller keeps its capacity
        }
        result
    }

    /// Sends more of what is pending: Some at the end.
    pub(super) fn go_on_sending(&mut self) -> Option<io::Result<()>> {
        if self.pending.is_empty() {
            return Some(Ok(()));
        }
        for _ in 0..MAX_WRITES {
            if !self.writable || self.connecting {
                return None;
            }
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.pending.io_slices(&mut slices);
            let wanted: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            let mut no_control = SendAncillaryBuffer::default();
            let flags = SendFlags::NOSIGNAL;
            match net::sendmsg(&self.fd, &slices[..count], &mut no_control, flags) {
                Ok(len) => {
                    self.pending.drain_front(len);
                    // A short write has filled the kernel's buffer; room is told by an edge.
                    self.writable = len == wanted;
                    if self.pending.is_empty() {
                        return Some(Ok(()));
                    }
                }
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.pending.clear();
                    return Some(Err(error.into()));
                }
            }
        }
        None
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A listening socket, and the address it got.
pub(super) fn listen(
    addr: SocketAddr,
    options: &ListenOptions,
) -> io::Result<(OwnedFd, SocketAddr)> {
    let fd = stream_socket(addr)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if addr.is_ipv6() {
        // IPv4 has addresses and sockets of its own.
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    net::bind(&fd, &addr)?;
    net::listen(&fd, i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let bound = local_addr(fd.as_fd())?;
    Ok((fd, bound))
}

/// The next connection, if one waits.
pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<Accepted>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        return match net::acceptfrom_with(listener, flags) {
            Ok((socket, Some(peer))) => match SocketAddr::try_from(peer) {
                Ok(peer) => Ok(Some(Accepted { socket, peer })),
                Err(_) => continue, // not an IP socket, and not ours
            },
            // The peer is gone already.
            Ok((_, None)) | Err(Errno::CONNABORTED | Errno::INTR) => continue,
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
}

pub(super) fn local_addr(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(net::getsockname(socket)?)?)
}

fn stream_socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?)
}

fn set_options(fd: &OwnedFd, options: &SocketOptions) -> io::Result<()> {
    sockopt::set_tcp_nodelay(fd, options.nodelay)?;
    if options.recv_buffer > 0 {
        sockopt::set_socket_recv_buffer_size(fd, options.recv_buffer)?;
    }
    if options.send_buffer > 0 {
        sockopt::set_socket_send_buffer_size(fd, options.send_buffer)?;
    }
    Ok(())
}
