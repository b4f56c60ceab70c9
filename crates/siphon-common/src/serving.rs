//! What small servers for people and programs on this host have in common: the admin socket, Prometheus' endpoint.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// Between two attempts to accept where the system has no descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the other end of `stopped` is gone. `accept` takes one connection of the listener, which does
/// not block; `what` is for the log.
pub(crate) fn accept_until(
    listener: impl AsFd,
    stopped: &UnixStream,
    what: &str,
    mut accept: impl FnMut() -> io::Result<()>,
) {
    loop {
        let mut fds = [PollFd::new(&listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return tracing::error!(%error, "{what} ends"),
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        match accept() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept at {what}");
                thread::sleep(PAUSE);
            }
        }
    }
}

/// A blocking socket that is read and written until a time, however the peer spreads what it does.
pub(crate) struct Until<S> {
    stream: S,
    deadline: Instant,
}

impl<S: AsFd> Until<S> {
    /// From now on, for so long.
    #[expect(clippy::disallowed_methods, reason = "a peer has so much time for all of it")]
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, deadline: Instant::now() + patience }
    }

    /// Has the system wait no longer than to the deadline.
    #[expect(clippy::disallowed_methods, reason = "as above")]
    fn limit(&self, which: Timeout) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Less would mean no limit.
        Ok(set_socket_timeout(&self.stream, which, Some(left.max(Duration::from_millis(1))))?)
    }
}

impl<S: AsFd + Read> Read for Until<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.limit(Timeout::Recv)?;
        self.stream.read(buffer)
    }
}

impl<S: AsFd + Write> Write for Until<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.limit(Timeout::Send)?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_always_has_a_little_more_is_heard_until_the_deadline_and_no_longer() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        peer.write_all(b"ab").unwrap();
        let mut client = Until::new(&ours, Duration::from_secs(60));
        assert_eq!(client.read(&mut [0]).unwrap(), 1);
        client.deadline = Until::new(&ours, Duration::ZERO).deadline;
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(client.write(b"c").unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
