//! Errors that say what was being done.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Listening failed; inside an [`io::Error`] of the same [`kind`](io::Error::kind).
#[derive(Debug)]
pub struct ListenError {
    addr: SocketAddr,
    source: io::Error,
}

impl ListenError {
    pub(crate) fn wrap(addr: SocketAddr, source: impl Into<io::Error>) -> io::Error {
        let source = source.into();
        io::Error::new(source.kind(), Self { addr, source })
    }

    /// The address that was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.addr, self.source)
    }
}

impl Error for ListenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// A name that no network stack has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownStack(pub(crate) String);

impl fmt::Display for UnknownStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown network stack {:?}: expected \"async+posix\", \"async+uring\" or \"async+rdma\"",
            self.0
        )
    }
}

impl Error for UnknownStack {}

/// How a worker ended before its handler was done.
#[derive(Debug)]
pub struct WorkerError {
    /// Which worker.
    pub worker: usize,
    /// What ended it.
    pub cause: WorkerFailure,
}

/// The cause of a [`WorkerError`].
#[derive(Debug)]
pub enum WorkerFailure {
    /// Its handler (or the factory of it) panicked, with this message.
    Panicked(String),
    /// Its driver failed.
    Driver(io::Error),
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            WorkerFailure::Panicked(message) => {
                write!(f, "messenger worker {} panicked: {message}", self.worker)
            }
            WorkerFailure::Driver(error) => {
                write!(f, "the driver of messenger worker {} failed: {error}", self.worker)
            }
        }
    }
}

impl Error for WorkerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            WorkerFailure::Panicked(_) => None,
            WorkerFailure::Driver(error) => Some(error),
        }
    }
}
