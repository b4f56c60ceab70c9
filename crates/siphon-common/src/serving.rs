//! What small servers for people and programs on this host have in common: the admin socket, Prometheus' endpoint.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// Clients that a server has at once; the next are refused.
pub(crate) const MAX_CLIENTS: usize = 32;
/// Between two attempts to accept where the system has no descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the other end of `stopped` is gone. `accept` takes one connection of the listener, which does
/// not block; `what` is for the log.
fn accept_until(
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

/// Serves each connection on a thread of its own, at most [`MAX_CLIENTS`] at once, until the other end of `stopped`
/// is gone. The listener does not block; `what` is for the log, `name` for the threads.
pub(crate) fn serve_each<L: AsFd, S: Send + 'static>(
    (listener, stopped): (L, &UnixStream),
    (name, what): (&str, &'static str),
    accept: impl Fn(&L) -> io::Result<S>,
    refuse: impl Fn(S) -> io::Result<()>,
    answer: impl Fn(S) -> io::Result<()> + Send + Sync + 'static,
) {
    // Each client's thread shares it: so many references, so many clients.
    let answer = Arc::new(answer);
    let told = move |result: io::Result<()>| {
        if let Err(error) = result {
            tracing::debug!(%error, "a client of {what} went away");
        }
    };
    accept_until(&listener, stopped, what, || {
        let stream = accept(&listener)?;
        if Arc::strong_count(&answer) > MAX_CLIENTS {
            tracing::debug!("too many clients of {what}");
            told(refuse(stream));
            return Ok(());
        }
        let answer = Arc::clone(&answer);
        let serving = move || told(answer(stream));
        thread::Builder::new().name(name.to_owned()).spawn(serving).map(drop)
    });
}

/// A patience beyond all time is this.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A blocking socket that is read and written until a time, however the peer spreads what it does.
pub(crate) struct Until<S> {
    stream: S,
    deadline: Instant,
}

impl<S: AsFd> Until<S> {
    /// From now on, for so long.
    #[expect(clippy::disallowed_methods, reason = "a peer has so much time for all of it")]
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        let now = Instant::now();
        let deadline = now.checked_add(patience).unwrap_or(now + LONGEST);
        Self { stream, deadline }
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
