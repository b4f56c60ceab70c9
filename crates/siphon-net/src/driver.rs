//! The contract between a worker and its share of a network stack.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::task::Waker;
use std::time::Instant;

use siphon_wire::buf::{Input, Rope};

use crate::{CongestionControl, FillBuf};

/// One worker's share of a network stack: takes ops, gives completions.
///
/// # Contract
///
/// - **Owned by one thread.** A driver is made on its worker's thread and never leaves it; only its
///   [`waker`](Self::waker) and the [`Accepted`] sockets it hands out cross threads.
/// - **Ops submit, [`wait`](Self::wait) completes.** An op never calls back. Completions come from
///   `wait` alone, and its sink cannot reach the driver, so no callback re-enters. What an op did
///   at once says so in its result ([`SendStatus::Complete`]) and has no completion.
/// - **Errors have two doors.** An `io::Error` returned by an op is this process's trouble (no
///   descriptors, an address in use). What the network or the peer did comes as a completion.
/// - **At most one receive and one send in flight for a socket.** A second one is a bug of the
///   caller, and asserted. Both may be given before [`Completion::Connected`]; they start then.
/// - **After [`close`](Self::close), silence.** No completion for that id follows, and its id is
///   never used again. Ops on a closed id do nothing, give no completion, and drop what they took.
/// - **A failed socket stays until it is closed.** After an error, end of file or a failed connect
///   the owner still calls `close`.
/// - **Order.** The bytes of one socket come in order. Between sockets there is none, but each
///   socket with work is served at most once in a `wait`: a fast peer cannot starve others.
/// - **Time.** [`now`](Self::now) moves only in `wait`. A simulator advances it as it likes.
///
/// Each queue is bounded by the contract: one receive, one send for each socket.
pub trait Driver {
    /// The time at the end of the last [`wait`](Self::wait) (before the first: of creation).
    fn now(&self) -> Instant;

    /// The time at this moment, to measure how long something takes.
    #[expect(clippy::disallowed_methods, reason = "a stack is where time comes from")]
    fn clock(&self) -> Instant {
        Instant::now()
    }

    /// Whether nothing was there when the last [`wait`](Self::wait) began, as far as that can be known: so the
    /// worker has time to spare.
    fn waited(&self) -> bool;

    /// Begins what else would begin with the next [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// As there.
    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Ends a [`wait`](Self::wait) in progress, or else the next one, from any thread.
    ///
    /// Several wakes may end one wait.
    fn waker(&self) -> Waker;

    /// Listens on `addr`; gives the address with the port that the system chose for port 0.
    ///
    /// # Errors
    ///
    /// What the system says, with the address named; an address in use has
    /// [`io::ErrorKind::AddrInUse`].
    fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)>;

    /// Stops listening. Connections that the system has but that were not delivered are reset.
    fn close_listener(&mut self, id: ListenerId);

    /// Starts to connect; one [`Completion::Connected`] follows.
    ///
    /// # Errors
    ///
    /// The lack of a socket. An unreachable or refusing peer comes in the completion.
    fn connect(&mut self, addr: SocketAddr, options: &SocketOptions) -> io::Result<SocketId>;

    /// Takes over a socket accepted on this or any other worker of the same stack.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] where it comes from another stack; else what the system says.
    fn adopt(&mut self, accepted: Accepted, options: &SocketOptions) -> io::Result<SocketId>;

    /// Gives up a connected socket, for any worker of the same stack to [`adopt`](Self::adopt).
    ///
    /// Bytes that arrived and were not delivered go with it. The id is as after a `close`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotConnected`] for a closed id or one without a peer,
    /// [`io::ErrorKind::WouldBlock`] while a receive or a send is in flight, and
    /// [`io::ErrorKind::Unsupported`] by a stack whose sockets cannot move. The socket stays then.
    fn detach(&mut self, id: SocketId) -> io::Result<Accepted>;

    /// Arms one receive; exactly one [`Completion::Received`] follows.
    ///
    /// Bytes go to `fill` first, as far as it has room, and what comes beyond is delivered as
    /// `bytes`. A stack that has its own buffers may leave `fill` empty and deliver everything in
    /// `bytes`: `fill` is a hint about where a large segment is wanted. It comes back either way.
    fn recv(&mut self, id: SocketId, fill: Option<FillBuf>);

    /// Whether a receive may fill the buffer given with it; if not, it is not worth giving one.
    fn fills(&self) -> bool {
        true
    }

    /// Sends all of `rope`, which is left empty.
    ///
    /// A failure to send is [`SendStatus::Pending`] followed by a [`Completion::Sent`] with the
    /// error. `rope` may get another allocation than it came with, so that neither side allocates
    /// in a steady state.
    fn send(&mut self, id: SocketId, rope: &mut Rope) -> SendStatus;

    /// Ends our direction once the send in flight, if any, is done. The peer reads end of file.
    ///
    /// Later sends fail with [`io::ErrorKind::BrokenPipe`]; receiving goes on. Where a send is in
    /// flight or the socket still connects, the end follows by itself.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotConnected`] where there is nobody to tell it to (any more).
    fn shutdown_write(&mut self, id: SocketId) -> io::Result<()>;

    /// Closes the socket and drops the receive and the send in flight.
    ///
    /// What a completed send gave to the system is still delivered, as far as the system does that
    /// (with bytes left unread, TCP resets the connection): a clean end is
    /// [`shutdown_write`](Self::shutdown_write), then reading to the end of file, then `close`.
    fn close(&mut self, id: SocketId);

    /// Our end of a connection.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotConnected`] for a closed id; else what the system says.
    fn local_addr(&self, id: SocketId) -> io::Result<SocketAddr>;

    /// The peer's end of a connection.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotConnected`] where it is not connected.
    fn peer_addr(&self, id: SocketId) -> io::Result<SocketAddr>;

    /// The TCP socket of a connection, if it has one.
    fn tcp_socket(&self, _id: SocketId) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Reports the readiness of a foreign descriptor (a pipe, a device's completion channel) as
    /// [`Completion::FileReady`] with `token`.
    ///
    /// Level-triggered: every `wait` reports it while it is ready. The driver keeps a duplicate of
    /// the descriptor until [`deregister_file`](Self::deregister_file).
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] by a stack without descriptors (a simulator); else what the
    /// system says, among it `EPERM` for a file that cannot be polled.
    fn register_file(
        &mut self,
        file: BorrowedFd<'_>,
        interest: Interest,
        token: u64,
    ) -> io::Result<FileId>;

    /// Changes what is reported about a file. With [`Interest::NONE`], nothing is.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] for a deregistered id; else what the system says.
    fn modify_file(&mut self, id: FileId, interest: Interest) -> io::Result<()>;

    /// Ends the reports about a file: no completion for this id afterwards.
    fn deregister_file(&mut self, id: FileId);

    /// Waits for completions and gives each to `sink`, with the time of this wait.
    ///
    /// Returns after the first completions, a wake, or when `limit` is reached, be it without any
    /// completion; never later than `limit` by more than the clock's grain and the work done since
    /// the last wait. An interrupted wait (a signal) returns early and without an error.
    ///
    /// # Errors
    ///
    /// Only what makes the whole driver unusable: the worker ends.
    fn wait(
        &mut self,
        limit: Wait,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) -> io::Result<()>;
}

/// How long a [`Driver::wait`] may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Take what is there.
    Poll,
    /// Until then, at most.
    Until(Instant),
    /// Until something happens.
    Forever,
}

impl Wait {
    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self, other) {
            (Self::Poll, _) | (_, Self::Poll) => Self::Poll,
            (Self::Until(a), Self::Until(b)) => Self::Until(a.min(b)),
            (Self::Until(at), Self::Forever) | (Self::Forever, Self::Until(at)) => Self::Until(at),
            (Self::Forever, Self::Forever) => Self::Forever,
        }
    }
}

impl From<Option<Instant>> for Wait {
    /// Until the instant, if there is one, else forever.
    fn from(deadline: Option<Instant>) -> Self {
        deadline.map_or(Self::Forever, Self::Until)
    }
}

/// What a [`Driver`] reports.
#[derive(Debug)]
pub enum Completion<'a> {
    /// A peer connected. Dropping `accepted` closes the connection.
    Accepted {
        /// Which listener.
        listener: ListenerId,
        /// To be adopted by any worker of the stack.
        accepted: Accepted,
    },
    /// The system has no room for another connection (`EMFILE` and its like). Accepting pauses and
    /// goes on by itself; a peer's own failure while it connects is not reported.
    AcceptFailed {
        /// Which listener.
        listener: ListenerId,
        /// Why.
        error: io::Error,
    },
    /// The end of a [`Driver::connect`].
    Connected {
        /// Which socket.
        socket: SocketId,
        /// On an error, no other completion comes for this socket.
        result: io::Result<()>,
    },
    /// The end of a [`Driver::recv`]. Where what came lies in several pieces, some stacks complete it
    /// once for each, in order and within one [`Driver::wait`].
    Received {
        /// Which socket.
        socket: SocketId,
        /// How many bytes came, in `fill` and `bytes` together; 0 is the end of file.
        result: io::Result<usize>,
        /// The buffer given, advanced by what it took; with an error it may be missing.
        fill: Option<FillBuf>,
        /// What came behind the part in `fill`: valid during the call only, unless the stack's own
        /// buffer can be shared.
        bytes: Input<'a>,
    },
    /// The end of a [`Driver::send`] that was pending: the system has taken all of it.
    Sent {
        /// Which socket.
        socket: SocketId,
        /// After an error an unknown part was sent.
        result: io::Result<()>,
    },
    /// A registered file is ready.
    FileReady {
        /// As given to [`Driver::register_file`].
        token: u64,
        /// Reading would not block: there are bytes, the end of file or an error.
        readable: bool,
        /// Writing would not block: there is room, or an error.
        writable: bool,
    },
}

/// What [`Driver::send`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum SendStatus {
    /// All of it was handed over; no completion follows.
    Complete,
    /// One [`Completion::Sent`] follows.
    Pending,
}

/// A connection accepted but not yet owned by a worker. Dropping it closes the connection.
pub struct Accepted {
    peer: SocketAddr,
    local: SocketAddr,
    transport: Box<dyn Any + Send>,
}

impl Accepted {
    /// Made by a stack, with whatever its [`Driver::adopt`] needs to go on.
    pub fn new(peer: SocketAddr, local: SocketAddr, transport: impl Any + Send) -> Self {
        Self { peer, local, transport: Box::new(transport) }
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The address it connected to, never a wildcard.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Takes the transport out, for the stack that made it.
    ///
    /// # Errors
    ///
    /// Another stack's connection is given back.
    pub fn into_transport<T: Any>(self) -> Result<T, Self> {
        match self.transport.downcast() {
            Ok(transport) => Ok(*transport),
            Err(transport) => Err(Self { transport, ..self }),
        }
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("peer", &self.peer)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

/// Options of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Send small segments at once (`TCP_NODELAY`, Ceph's `ms_tcp_nodelay`).
    pub nodelay: bool,
    /// Size of the system's receive buffer in bytes (`SO_RCVBUF`, Ceph's `ms_tcp_rcvbuf`); 0 leaves
    /// it to the system, which then adapts it.
    pub recv_buffer: usize,
    /// Size of the system's send buffer in bytes (`SO_SNDBUF`); 0 leaves it to the system.
    pub send_buffer: usize,
    /// By which algorithm it sends; none leaves it to the system.
    pub congestion_control: Option<CongestionControl>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { nodelay: true, recv_buffer: 0, send_buffer: 0, congestion_control: None }
    }
}

/// Options of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections that the system may hold for us (Ceph's `ms_tcp_listen_backlog`).
    pub backlog: u32,
    /// Take an address whose last owner's connections linger (`SO_REUSEADDR`).
    pub reuse_address: bool,
    /// An IPv6 listener takes IPv6 only, so that both families can have the same port.
    pub ipv6_only: bool,
    /// As [`SocketOptions::recv_buffer`]; TCP settles its window scale before a connection is
    /// accepted, so that the listener needs it too.
    pub recv_buffer: usize,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 512, reuse_address: true, ipv6_only: true, recv_buffer: 0 }
    }
}

/// What a registered file is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Report when reading would not block.
    pub readable: bool,
    /// Report when writing would not block.
    pub writable: bool,
}

impl Interest {
    /// Neither.
    pub const NONE: Self = Self { readable: false, writable: false };
    /// Reading only.
    pub const READABLE: Self = Self { readable: true, writable: false };
    /// Writing only.
    pub const WRITABLE: Self = Self { readable: false, writable: true };
    /// Both.
    pub const BOTH: Self = Self { readable: true, writable: true };
}

macro_rules! driver_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// Meaningful to the driver that gave it only, which never gives it twice.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// For a [`Driver`] to make; the meaning of the bits is the driver's own.
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits)
            }

            /// What the driver made it from.
            pub const fn bits(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    )*};
}

driver_ids! {
    /// A connection of one driver.
    SocketId;
    /// A listener of one driver.
    ListenerId;
    /// A registered file of one driver.
    FileId;
}
