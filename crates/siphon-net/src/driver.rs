use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use siphon_wire::buf::{Rope, SegmentBuf};

/// A socket of one driver. Ids are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(pub(crate) u64);

/// A listening socket of one driver. Ids are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(crate) u64);

/// A foreign file descriptor that one driver watches. Ids are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileToken(pub(crate) u64);

/// What to watch a foreign file descriptor for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileInterest {
    /// It can be read from.
    pub readable: bool,
    /// It can be written to.
    pub writable: bool,
}

/// Options of every connected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// `ms_tcp_nodelay`: small messages leave at once.
    pub nodelay: bool,
    /// `ms_tcp_rcvbuf`: the kernel's receive buffer in bytes; 0 leaves it to the kernel.
    pub recv_buffer: usize,
    /// The kernel's send buffer in bytes; 0 leaves it to the kernel.
    pub send_buffer: usize,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { nodelay: true, recv_buffer: 0, send_buffer: 0 }
    }
}

/// Options of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// `ms_tcp_listen_backlog`: connections that wait to be accepted.
    pub backlog: u32,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 512 }
    }
}

/// A connection that a listener took, on its way to the worker that will own it.
#[derive(Debug)]
pub struct Accepted {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: SocketAddr,
}

impl Accepted {
    /// The peer's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
}

/// How far [`Driver::send`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendStatus {
    /// All bytes are with the operating system. No completion follows.
    Complete,
    /// One [`Completion::Sent`] follows.
    Pending,
}

/// What has happened.
#[derive(Debug)]
pub enum Completion<'a> {
    /// A peer connected.
    Accepted {
        /// To this listener.
        listener: ListenerId,
        /// Over this socket, which any worker of the stack may adopt.
        accepted: Accepted,
    },
    /// A peer could not be accepted, for lack of descriptors or memory. The listener tries again
    /// by itself after a while.
    AcceptFailed {
        /// The listener.
        listener: ListenerId,
        /// What the operating system said.
        error: io::Error,
    },
    /// A connection attempt is over.
    Connected {
        /// The socket.
        socket: SocketId,
        /// Whether it is connected.
        result: io::Result<()>,
    },
    /// The receive that was armed is over.
    Received {
        /// The socket.
        socket: SocketId,
        /// Bytes in `fill` and `bytes` together; 0 at the end of the stream.
        result: io::Result<usize>,
        /// The buffer that came with the receive; it was filled first.
        fill: Option<SegmentBuf>,
        /// The rest, in memory of the driver's.
        bytes: &'a [u8],
    },
    /// A pending send is over.
    Sent {
        /// The socket.
        socket: SocketId,
        /// Whether all bytes are with the operating system.
        result: io::Result<()>,
    },
    /// A foreign file descriptor is ready.
    FileReady {
        /// Which.
        file: FileToken,
        /// For what, of what it is watched for.
        ready: FileInterest,
    },
}

/// Wakes a driver that waits; from any thread, and as often as one likes.
#[derive(Clone)]
pub struct Waker {
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Waker {
    /// A waker that does this.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { wake: Arc::new(wake) }
    }

    /// Wakes the driver.
    pub fn wake(&self) {
        (self.wake)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// One worker's share of a network stack. It belongs to the worker's thread.
///
/// Operations are submitted, and their ends come out of [`wait`](Self::wait) as [`Completion`]s.
/// After [`close`](Self::close) no completion comes for that socket. An id that is not known (any
/// more) is never an error: what was asked for it is dropped, since its end may just be on the way.
pub trait Driver {
    /// The time of the last wait; virtual where time is simulated.
    fn now(&self) -> Instant;

    /// Wakes this driver's [`wait`](Self::wait).
    fn waker(&self) -> Waker;

    /// Listens at `addr`; returns the address with the port it got.
    ///
    /// # Errors
    /// As the operating system says.
    fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)>;

    /// Stops listening.
    fn close_listener(&mut self, listener: ListenerId);

    /// Begins to connect; one [`Completion::Connected`] follows.
    ///
    /// # Errors
    /// If not even the attempt can be made.
    fn connect(&mut self, addr: SocketAddr, options: &SocketOptions) -> io::Result<SocketId>;

    /// Takes over a socket that a driver of this stack accepted.
    ///
    /// # Errors
    /// As the operating system says; the connection is closed then.
    fn adopt(&mut self, accepted: Accepted, options: &SocketOptions) -> io::Result<SocketId>;

    /// Arms one receive: one [`Completion::Received`] follows. The bytes go into `fill` first, if
    /// it comes along; that is a hint, and a driver that has buffers of its own may ignore it.
    fn recv(&mut self, socket: SocketId, fill: Option<SegmentBuf>);

    /// Sends all of `rope`, which is empty afterwards. One send may be pending for a socket.
    fn send(&mut self, socket: SocketId, rope: &mut Rope) -> SendStatus;

    /// Tells the peer that nothing more will be sent.
    ///
    /// # Errors
    /// As the operating system says.
    fn shutdown_write(&mut self, socket: SocketId) -> io::Result<()>;

    /// Closes a socket. A pending send is dropped.
    fn close(&mut self, socket: SocketId);

    /// The address of our side.
    ///
    /// # Errors
    /// As the operating system says, and if the socket is not known.
    fn local_addr(&self, socket: SocketId) -> io::Result<SocketAddr>;

    /// Watches a foreign file descriptor, level-triggered, until it is forgotten. Whoever owns it
    /// keeps it open until then.
    ///
    /// # Errors
    /// If it cannot be watched.
    fn watch_file(&mut self, file: BorrowedFd<'_>, interest: FileInterest)
    -> io::Result<FileToken>;

    /// Forgets a foreign file descriptor.
    fn forget_file(&mut self, file: FileToken);

    /// Waits until something has happened, `timeout` has passed (`None`: for ever) or the waker
    /// was used, and hands out what has happened, with the time as [`now`](Self::now) then has it.
    /// `sink` never calls the driver.
    ///
    /// # Errors
    /// If the operating system's own waiting fails, which leaves the worker nothing to go on with.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) -> io::Result<()>;
}
