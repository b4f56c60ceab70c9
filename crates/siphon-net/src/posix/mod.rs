//! The `posix` stack: the system's TCP sockets, readiness by epoll.
//!
//! A socket is registered once, edge-triggered, for everything. Its state remembers whether it is
//! readable and writable, so that in a steady state a worker's turn costs one `epoll_wait`, one
//! `readv` for each socket that has something, and one `sendmsg` for each batch.

#![expect(clippy::disallowed_methods, reason = "a stack is where time comes from")]

mod listener;
mod low_water;
mod socket;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use siphon_wire::buf::Rope;

use self::listener::{Listener, PosixTransport};
use self::socket::Socket;
use crate::FillBuf;
use crate::driver::{
    Accepted, Completion, Driver, FileId, Interest, ListenOptions, ListenerId, SendStatus,
    SocketId, SocketOptions, Wait,
};
use crate::slab::{Key, Slab};
use crate::sys;

/// Bytes of a worker's scratch: what one receive takes beyond its own buffer.
pub const SCRATCH_BYTES: usize = 256 << 10;
/// Bytes that one receive takes at least between long segments, if there are so many.
const MIN_SHARE_BYTES: usize = 32 << 10;
/// Bytes that one receive reads straight into a segment's own buffer: what was read is still in
/// the processor's cache when its checksum is taken, and the sender goes on meanwhile.
const MAX_DIRECT_BYTES: usize = 128 << 10;

/// A wait that takes no longer has found something at once: the system call and what goes with it.
const MIN_SLEEP: Duration = Duration::from_micros(3);

/// Most events that one wait takes from the system; what is beyond comes with the next.
const EVENTS_PER_WAIT: usize = 256;

/// One worker's share of the posix stack.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use siphon_net::{Completion, Driver, ListenOptions, PosixDriver, SocketOptions, Wait};
///
/// let mut driver = PosixDriver::new()?;
/// let (_, addr) = driver.listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default())?;
/// let socket = driver.connect(addr, &SocketOptions::default())?;
/// let mut connected = false;
/// while !connected {
///     driver.wait(Wait::Forever, &mut |_, completion| {
///         if let Completion::Connected { socket: id, result } = completion {
///             assert_eq!(id, socket);
///             connected = result.is_ok();
///         }
///     })?;
/// }
/// # Ok(()) }
/// ```
pub struct PosixDriver {
    epoll: OwnedFd,
    wake: Arc<WakeEvent>,
    now: Instant,
    /// When somebody looked at the clock last.
    looked: Cell<Instant>,
    waited: bool,
    sockets: Slab<Socket>,
    listeners: Slab<Listener>,
    files: Slab<File>,
    /// Sockets with something to do, each once, in the order they came to it.
    turns: Vec<Key>,
    /// Listeners that may have a connection, each once.
    accepts: Vec<Key>,
    /// Listeners whose accepting pauses.
    paused: Vec<Key>,
    scratch: Scratch,
    events: Vec<Event>,
    /// Emptied in each wait; kept for their allocation.
    current_turns: Vec<Key>,
    current_accepts: Vec<Key>,
}

/// A foreign descriptor. It is in epoll's set while its interest is not `NONE`.
#[derive(Debug)]
struct File {
    fd: OwnedFd,
    interest: Interest,
    token: u64,
}

/// What an epoll event is about; it takes the two bits that indices leave free.
#[derive(Clone, Copy)]
enum Kind {
    Wake = 0,
    Socket = 1,
    Listener = 2,
    File = 3,
}

const KIND_SHIFT: u32 = 30;
const KIND_MASK: u64 = 3 << KIND_SHIFT;

impl PosixDriver {
    /// A driver without sockets.
    ///
    /// # Errors
    ///
    /// What the system says to an epoll and an event descriptor.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &wake, EventData::new_u64(Kind::Wake as u64), flags)?;
        let now = Instant::now();
        Ok(Self {
            epoll,
            wake: Arc::new(WakeEvent(wake)),
            now,
            looked: Cell::new(now),
            waited: false,
            sockets: Slab::new(),
            listeners: Slab::new(),
            files: Slab::new(),
            turns: Vec::new(),
            accepts: Vec::new(),
            paused: Vec::new(),
            scratch: Scratch::new(),
            events: Vec::with_capacity(EVENTS_PER_WAIT),
            current_turns: Vec::new(),
            current_accepts: Vec::new(),
        })
    }

    /// Moves the time, for a driver around this one that had no need to wait.
    pub(crate) fn tick(&mut self) {
        self.now = Instant::now();
    }

    fn add_socket(&mut self, socket: Socket) -> io::Result<SocketId> {
        let key = self.sockets.next_key();
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &socket, event_data(Kind::Socket, key), flags)?;
        Ok(self.insert_socket(socket))
    }

    fn insert_socket(&mut self, socket: Socket) -> SocketId {
        let key = self.sockets.insert(socket);
        self.queue_turn(key);
        SocketId::from_bits(key.bits())
    }

    fn socket(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets.get_mut(Key::from_bits(id.bits()))
    }

    /// Queues a socket if it has something to do and is not queued yet.
    fn queue_turn(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get_mut(key)
            && !socket.queued
            && socket.wants_turn()
        {
            socket.queued = true;
            self.turns.push(key);
        }
    }

    fn queue_accept(&mut self, key: Key) {
        if let Some(listener) = self.listeners.get_mut(key)
            && !listener.queued
            && listener.wants_turn()
        {
            listener.queued = true;
            self.accepts.push(key);
        }
    }

    /// Sleeps, and takes the system's events into `events`.
    fn select(&mut self, limit: Wait) -> io::Result<()> {
        let mut limit = limit;
        if !self.turns.is_empty() || !self.accepts.is_empty() {
            limit = Wait::Poll;
        }
        for &key in &self.paused {
            let resume_at = self.listeners.get(key).and_then(Listener::resume_at);
            limit = limit.min(resume_at.into());
        }
        let timeout = match limit {
            Wait::Poll => Some(Timespec::default()),
            // Beyond what a Timespec holds is as good as forever.
            Wait::Until(at) => Timespec::try_from(at.saturating_duration_since(self.now)).ok(),
            Wait::Forever => None,
        };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.now = Instant::now();
        let asleep = self.now.saturating_duration_since(self.looked.replace(self.now));
        let has_slept = limit != Wait::Poll && asleep > MIN_SLEEP;
        let found_nothing = self.events.is_empty() && self.turns.is_empty();
        self.waited = has_slept || found_nothing;
        self.scratch.begin_turn(self.waited);
        Ok(())
    }

    /// Notes the events, and reports those of files.
    fn apply_events(&mut self, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        let mut events = mem::take(&mut self.events);
        for event in events.drain(..) {
            let (kind, key) = event_source(event.data);
            match kind {
                // Edge-triggered, so that the counter need not be read: every write is an edge.
                Kind::Wake => {}
                Kind::Socket => {
                    if let Some(socket) = self.sockets.get_mut(key) {
                        socket.on_event(event.flags);
                        self.queue_turn(key);
                    }
                }
                Kind::Listener => {
                    if let Some(listener) = self.listeners.get_mut(key) {
                        listener.on_event();
                        self.queue_accept(key);
                    }
                }
                Kind::File => {
                    if let Some(file) = self.files.get(key) {
                        sink(self.now, file.completion(event.flags));
                    }
                }
            }
        }
        self.events = events;
    }

    /// Gives each queued socket one turn.
    fn run_turns(&mut self, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        let mut current = mem::take(&mut self.current_turns);
        mem::swap(&mut current, &mut self.turns);
        for key in current.drain(..) {
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.queued = false;
                let id = SocketId::from_bits(key.bits());
                socket.turn(id, self.now, &mut self.scratch, sink);
                self.queue_turn(key);
            }
        }
        self.current_turns = current;
    }

    /// Lets each listener with connections accept some of them.
    fn run_accepts(&mut self, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        let now = self.now;
        let mut current = mem::take(&mut self.current_accepts);
        mem::swap(&mut current, &mut self.paused);
        for key in current.drain(..) {
            if let Some(listener) = self.listeners.get_mut(key) {
                listener.resume(now);
                if listener.resume_at().is_some() {
                    self.paused.push(key);
                } else {
                    self.queue_accept(key);
                }
            }
        }
        mem::swap(&mut current, &mut self.accepts);
        for key in current.drain(..) {
            if let Some(listener) = self.listeners.get_mut(key) {
                listener.queued = false;
                listener.accept(ListenerId::from_bits(key.bits()), now, sink);
                if listener.resume_at().is_some() {
                    self.paused.push(key);
                } else {
                    self.queue_accept(key);
                }
            }
        }
        self.current_accepts = current;
    }
}

impl Driver for PosixDriver {
    fn now(&self) -> Instant {
        self.now
    }

    fn clock(&self) -> Instant {
        let now = Instant::now();
        self.looked.set(now);
        now
    }

    fn waited(&self) -> bool {
        self.waited
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.wake))
    }

    fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let (fd, local) = sys::listen(addr, options)?;
        let key = self.listeners.next_key();
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.epoll, &fd, event_data(Kind::Listener, key), flags)?;
        let key = self.listeners.insert(Listener::new(fd, local));
        Ok((ListenerId::from_bits(key.bits()), local))
    }

    fn close_listener(&mut self, id: ListenerId) {
        self.listeners.remove(Key::from_bits(id.bits()));
    }

    fn connect(&mut self, addr: SocketAddr, options: &SocketOptions) -> io::Result<SocketId> {
        let (fd, started) = sys::connect(addr, options)?;
        match started {
            Ok(()) => self.add_socket(Socket::connecting(fd, options)),
            Err(errno) => Ok(self.insert_socket(Socket::refused(fd, options, errno.into()))),
        }
    }

    fn adopt(&mut self, accepted: Accepted, options: &SocketOptions) -> io::Result<SocketId> {
        let Ok(PosixTransport(fd)) = accepted.into_transport() else {
            let message = "the connection was accepted by another network stack";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        sys::apply(&fd, options);
        self.add_socket(Socket::accepted(fd, options))
    }

    fn detach(&mut self, id: SocketId) -> io::Result<Accepted> {
        let key = Key::from_bits(id.bits());
        let socket = self.sockets.get(key).ok_or(io::ErrorKind::NotConnected)?;
        if !socket.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (peer, local) = (socket.peer_addr()?, socket.local_addr()?);
        epoll::delete(&self.epoll, socket)?;
        let socket = self.sockets.remove(key).ok_or(io::ErrorKind::NotConnected)?;
        Ok(Accepted::new(peer, local, PosixTransport(socket.into_fd())))
    }

    fn recv(&mut self, id: SocketId, fill: Option<FillBuf>) {
        if let Some(socket) = self.socket(id) {
            socket.arm(fill);
            self.queue_turn(Key::from_bits(id.bits()));
        }
    }

    fn send(&mut self, id: SocketId, rope: &mut Rope) -> SendStatus {
        let Some(socket) = self.socket(id) else {
            rope.clear();
            return SendStatus::Pending;
        };
        let status = socket.send(rope);
        if status == SendStatus::Pending {
            self.queue_turn(Key::from_bits(id.bits()));
        }
        status
    }

    fn shutdown_write(&mut self, id: SocketId) -> io::Result<()> {
        self.socket(id).ok_or(io::ErrorKind::NotConnected)?.shutdown_write()
    }

    fn close(&mut self, id: SocketId) {
        // Closing the only descriptor of a socket takes it out of epoll's set.
        self.sockets.remove(Key::from_bits(id.bits()));
    }

    fn local_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        let socket = self.sockets.get(Key::from_bits(id.bits()));
        socket.ok_or(io::ErrorKind::NotConnected)?.local_addr()
    }

    fn peer_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        let socket = self.sockets.get(Key::from_bits(id.bits()));
        socket.ok_or(io::ErrorKind::NotConnected)?.peer_addr()
    }

    fn tcp_socket(&self, id: SocketId) -> Option<BorrowedFd<'_>> {
        Some(self.sockets.get(Key::from_bits(id.bits()))?.fd())
    }

    fn register_file(
        &mut self,
        file: BorrowedFd<'_>,
        interest: Interest,
        token: u64,
    ) -> io::Result<FileId> {
        let fd = rustix::io::fcntl_dupfd_cloexec(file, 0)?;
        let id = FileId::from_bits(self.files.next_key().bits());
        self.files.insert(File { fd, interest: Interest::NONE, token });
        if let Err(error) = self.modify_file(id, interest) {
            self.files.remove(Key::from_bits(id.bits()));
            return Err(error);
        }
        Ok(id)
    }

    fn modify_file(&mut self, id: FileId, interest: Interest) -> io::Result<()> {
        let key = Key::from_bits(id.bits());
        let file = self.files.get_mut(key).ok_or(io::ErrorKind::NotFound)?;
        let (data, flags) = (event_data(Kind::File, key), interest_flags(interest));
        // Out of the set where nothing is wanted: epoll reports a hang-up in any case, and
        // level-triggered that would be in every wait.
        match (file.interest == Interest::NONE, interest == Interest::NONE) {
            (true, true) => {}
            (true, false) => epoll::add(&self.epoll, &file.fd, data, flags)?,
            (false, true) => epoll::delete(&self.epoll, &file.fd)?,
            (false, false) => epoll::modify(&self.epoll, &file.fd, data, flags)?,
        }
        file.interest = interest;
        Ok(())
    }

    fn deregister_file(&mut self, id: FileId) {
        // Closing a duplicate would leave it in epoll's set, since the file stays open elsewhere.
        if self.modify_file(id, Interest::NONE).is_ok() {
            self.files.remove(Key::from_bits(id.bits()));
        }
    }

    fn wait(
        &mut self,
        limit: Wait,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) -> io::Result<()> {
        self.select(limit)?;
        self.apply_events(sink);
        self.run_accepts(sink);
        self.run_turns(sink);
        Ok(())
    }
}

impl fmt::Debug for PosixDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PosixDriver")
            .field("now", &self.now)
            .field("turns", &self.turns.len())
            .finish_non_exhaustive()
    }
}

impl File {
    fn completion(&self, flags: EventFlags) -> Completion<'static> {
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let readable = broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
        let writable = broken || flags.contains(EventFlags::OUT);
        Completion::FileReady {
            token: self.token,
            readable: self.interest.readable && readable,
            writable: self.interest.writable && writable,
        }
    }
}

/// Where a worker's receives take what has no buffer of its own.
///
/// Whoever takes all that is in flight answers it in one go, and lets the peer wait meanwhile: a worker that
/// had to wait takes less at once, so that both work at the same time. One that is never without work
/// takes more, and makes fewer system calls.
#[derive(Debug)]
struct Scratch {
    bytes: Box<[u8]>,
    /// Bytes that one receive takes between long segments.
    share: usize,
}

impl Scratch {
    fn new() -> Self {
        Self { bytes: vec![0; SCRATCH_BYTES].into_boxed_slice(), share: MIN_SHARE_BYTES }
    }

    /// A turn begins, for which the worker `waited` or not.
    fn begin_turn(&mut self, waited: bool) {
        self.share = match waited {
            true => (self.share / 2).max(MIN_SHARE_BYTES),
            false => (self.share + self.share / 8).min(SCRATCH_BYTES),
        };
    }
}

/// Ends a wait by an event descriptor.
#[derive(Debug)]
struct WakeEvent(OwnedFd);

impl Wake for WakeEvent {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // It can fail only where the counter is at its end, 2^64 - 2 wakes from here.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

fn event_data(kind: Kind, key: Key) -> EventData {
    EventData::new_u64(key.bits() | (kind as u64) << KIND_SHIFT)
}

fn event_source(data: EventData) -> (Kind, Key) {
    let bits = data.u64();
    let kind = match (bits & KIND_MASK) >> KIND_SHIFT {
        0 => Kind::Wake,
        1 => Kind::Socket,
        2 => Kind::Listener,
        _ => Kind::File,
    };
    (kind, Key::from_bits(bits & !KIND_MASK))
}

fn interest_flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN | EventFlags::RDHUP, interest.readable);
    flags.set(EventFlags::OUT, interest.writable);
    flags
}
