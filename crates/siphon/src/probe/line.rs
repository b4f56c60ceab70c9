//! A socket that hears a bounded number of bytes, in a bounded time.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};

use super::failure::Failure;

/// Most bytes that are heard of one address: a greeting, and the longest authorizer.
const MAX_HEARD: usize = 128 << 10;
/// Most bytes that are taken at once.
const READ: usize = 4 << 10;
/// Most addresses of one host that are tried.
const MAX_TRIED: usize = 8;

/// A connection with one deadline for all that is said on it.
///
/// What was heard and not taken yet is seen by [`Line::heard`] and taken by [`Line::take`]; each call
/// that waits for more ends at the deadline, however many bytes trickle in until then.
#[derive(Debug)]
pub(super) struct Line {
    socket: TcpStream,
    peer: SocketAddr,
    deadline: Instant,
    heard: BytesMut,
    /// Bytes that may still be heard.
    left: usize,
}

impl Line {
    /// Connects to the first of these addresses that answers. Each has its share of the time.
    ///
    /// # Errors
    /// What the last of them answered.
    pub(super) fn connect(addrs: &[SocketAddr], deadline: Instant) -> Result<Self, Failure> {
        let addrs = &addrs[..addrs.len().min(MAX_TRIED)];
        let mut failure = Failure::NoAddress;
        for (tried, peer) in addrs.iter().enumerate() {
            let share = time_left(deadline)? / u32::try_from(addrs.len() - tried).unwrap_or(1);
            match TcpStream::connect_timeout(peer, share.max(Duration::from_millis(1))) {
                Ok(socket) => {
                    let (peer, heard) = (*peer, BytesMut::new());
                    return Ok(Self { socket, peer, deadline, heard, left: MAX_HEARD });
                }
                Err(error) if is_timeout(error.kind()) => failure = Failure::NotConnected,
                Err(error) => failure = Failure::Unreachable(error),
            }
        }
        Err(failure)
    }

    /// Whom we talk to.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What was heard and not taken.
    pub(super) fn heard(&self) -> &[u8] {
        &self.heard
    }

    /// Takes up to `len` bytes of it.
    pub(super) fn take(&mut self, len: usize) -> Bytes {
        self.heard.split_to(len.min(self.heard.len())).freeze()
    }

    /// Takes `len` bytes, once they were heard.
    ///
    /// # Errors
    /// As [`Line::listen`].
    pub(super) fn exactly(&mut self, len: usize) -> Result<Bytes, Failure> {
        while self.heard.len() < len {
            self.listen()?;
        }
        Ok(self.take(len))
    }

    /// Takes what `parse` makes something of, and feeds it until it does.
    ///
    /// # Errors
    /// As [`Line::listen`], and what `parse` finds wrong.
    pub(super) fn parse<T>(
        &mut self,
        mut parse: impl FnMut(&mut &[u8]) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        loop {
            let mut rest = &self.heard[..];
            let parsed = parse(&mut rest)?;
            let taken = self.heard.len() - rest.len();
            self.heard.advance(taken);
            match parsed {
                Some(parsed) => return Ok(parsed),
                None => self.listen()?,
            }
        }
    }

    /// Waits for more.
    ///
    /// # Errors
    /// At the deadline, at the peer's end, and when it has said too much.
    pub(super) fn listen(&mut self) -> Result<(), Failure> {
        self.listen_until(self.deadline).and_then(|more| match more {
            true => Ok(()),
            false => Err(Failure::TimedOut),
        })
    }

    /// Waits for more until some time before the deadline; false if nothing came.
    ///
    /// # Errors
    /// As [`Line::listen`].
    pub(super) fn listen_until(&mut self, until: Instant) -> Result<bool, Failure> {
        let mut bytes = [0; READ];
        loop {
            let Ok(wait) = time_left(until.min(self.deadline)) else {
                return Ok(false);
            };
            self.socket.set_read_timeout(Some(wait)).map_err(Failure::Broken)?;
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(Failure::Closed),
                Ok(len) => {
                    self.left = self.left.checked_sub(len).ok_or(Failure::TalksTooMuch)?;
                    self.heard.extend_from_slice(&bytes[..len]);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(error.kind()) => {} // then it is late enough
                Err(error) => return Err(Failure::of(error)),
            }
        }
    }

    /// Says something short.
    ///
    /// # Errors
    /// At the deadline, or if the connection is lost.
    pub(super) fn say(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let wait = time_left(self.deadline)?;
        self.socket.set_write_timeout(Some(wait)).map_err(Failure::Broken)?;
        match self.socket.write_all(bytes) {
            Ok(()) => Ok(()),
            Err(error) if is_timeout(error.kind()) => Err(Failure::TimedOut),
            Err(error) => Err(Failure::of(error)),
        }
    }

    /// The end of the first quarter of the time that is left, but at most of so much.
    pub(super) fn quarter(&self, most: Duration) -> Instant {
        let left = time_left(self.deadline).unwrap_or_default();
        self.deadline - (left - (left / 4).min(most))
    }
}

/// The time until then.
///
/// # Errors
/// If none is left.
#[expect(clippy::disallowed_methods, reason = "a person waits for the answer")]
pub(super) fn time_left(until: Instant) -> Result<Duration, Failure> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Failure::TimedOut) } else { Ok(left) }
}

/// Sockets with a timeout tell its end by one or the other.
fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
