//! One worker's share of the stack.

#![expect(clippy::disallowed_methods, reason = "a stack is where time comes from")]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use io_uring::opcode;
use rustix::event::{EventfdFlags, eventfd};
use siphon_wire::buf::Rope;

use super::buffers::Buffers;
use super::file::File;
use super::listener::{Listener, UringTransport};
use super::receiving::Memory;
use super::ring::{Done, Ring, fd};
use super::socket::{Socket, Tools};
use super::token::{Kind, Token};
use crate::FillBuf;
use crate::driver::{
    Accepted, Completion, Driver, FileId, Interest, ListenOptions, ListenerId, SendStatus,
    SocketId, SocketOptions, Wait,
};
use crate::slab::{Key, Slab};
use crate::sys;

/// Most completions that one wait applies; what is beyond comes with the next.
const COMPLETIONS_PER_WAIT: usize = 2048;
/// Sends of a turn that are calls of their own; from then on they go with the next wait. The first
/// way is the shorter one, and lets the peer begin; the second shares one call among all.
const SENDS_AT_ONCE: usize = 16;
/// Calls after which an operation that was told to end should have.
const SETTLING_ROUNDS: usize = 8;
/// How often and how long a driver that is dropped waits for its operations to end.
const ENDING_ROUNDS: usize = 100;
const ENDING_PAUSE: Duration = Duration::from_millis(10);

/// One worker's share of the uring stack.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use siphon_net::{Completion, Driver, ListenOptions, SocketOptions, UringDriver, Wait};
///
/// let Ok(mut driver) = UringDriver::new() else {
///     return Ok(()); // not on this machine
/// };
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
///
/// It stays on the thread that made it:
///
/// ```compile_fail
/// fn sent<T: Send>() {}
/// sent::<siphon_net::UringDriver>();
/// ```
pub struct UringDriver {
    /// Before all that the kernel may have of ours.
    ring: Ring,
    memory: ManuallyDrop<Memory>,
    sockets: ManuallyDrop<Slab<Socket>>,
    listeners: Slab<Listener>,
    files: Slab<File>,
    wake: Arc<WakeEvent>,
    /// The kernel watches the wake event.
    watching_wake: bool,
    now: Instant,
    waited: bool,
    /// Sockets with something to report, each once, in the order they came to it.
    turns: Vec<Key>,
    /// Sockets that had their share of a wait, and may have more waiting.
    served: Vec<Key>,
    /// Sockets whose receive found no buffer.
    starved: Vec<Key>,
    /// Listeners for which the kernel does not accept, and files that it does not watch.
    idle_listeners: Vec<Key>,
    idle_files: Vec<Key>,
    /// Sends since the last wait.
    sends: usize,
    /// Completions that were taken before their time.
    backlog: VecDeque<Done>,
    /// Emptied in each wait; kept for its allocation.
    current: Vec<Key>,
    /// What made the ring unusable, for the next wait.
    failure: Option<io::Error>,
    /// A ring belongs to one thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl UringDriver {
    /// A driver without sockets, for the calling thread.
    ///
    /// # Errors
    ///
    /// What the system says: it may have no io_uring, one that is too old (before Linux 6.0), or forbid
    /// it.
    pub fn new() -> io::Result<Self> {
        let ring = Ring::open()?;
        let buffers = Buffers::register(&ring)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            ring,
            memory: ManuallyDrop::new(Memory::new(buffers)),
            sockets: ManuallyDrop::new(Slab::new()),
            listeners: Slab::new(),
            files: Slab::new(),
            wake: Arc::new(WakeEvent(wake)),
            watching_wake: false,
            now: Instant::now(),
            waited: false,
            turns: Vec::new(),
            served: Vec::new(),
            starved: Vec::new(),
            idle_listeners: Vec::new(),
            idle_files: Vec::new(),
            sends: 0,
            backlog: VecDeque::new(),
            current: Vec::new(),
            failure: None,
            _not_send: std::marker::PhantomData,
        })
    }

    /// A socket that its owner has, and what it works with.
    fn open_socket(&mut self, id: SocketId) -> Option<(Key, &mut Socket, Tools<'_>)> {
        let key = Key::from_bits(id.bits());
        let socket = self.sockets.get_mut(key).filter(|socket| !socket.is_closed())?;
        Some((key, socket, Tools { ring: &mut self.ring, memory: &mut self.memory }))
    }

    fn peek_socket(&self, id: SocketId) -> io::Result<&Socket> {
        let socket = self.sockets.get(Key::from_bits(id.bits()));
        socket.filter(|it| !it.is_closed()).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn insert_socket(&mut self, socket: Socket) -> (SocketId, Key) {
        let key = self.sockets.insert(socket);
        (SocketId::from_bits(key.bits()), key)
    }

    /// Sees to a socket after a change: it may have a turn to take, have found no buffer, or have come
    /// to its end.
    fn review(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        if socket.is_closed() {
            if !socket.in_flight() {
                // What came after it was closed.
                socket.receiving.discard(&mut self.memory);
                self.sockets.remove(key);
            }
        } else if socket.wants_turn() {
            if !mem::replace(&mut socket.queued, true) {
                self.turns.push(key);
            }
        } else if socket.is_starved() {
            self.starved.push(key);
        }
    }

    /// Gives the kernel what it should have while we sleep.
    fn prepare(&mut self) {
        if !mem::replace(&mut self.watching_wake, true) {
            let entry = opcode::PollAdd::new(fd(self.wake.0.as_raw_fd()), libc::POLLIN as u32);
            // SAFETY: it points to nothing, and the driver has the descriptor until it ends.
            unsafe { self.ring.push(entry.multi(true).build(), Token::WAKE) };
        }
        for key in self.served.drain(..) {
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.receiving.release_buffers(&mut self.memory);
            }
        }
        self.sends = 0;
        self.memory.buffers.reclaim();
        let mut starved = mem::take(&mut self.starved);
        for key in starved.drain(..) {
            if let Some((key, socket, mut tools)) =
                self.open_socket(SocketId::from_bits(key.bits()))
            {
                socket.start(key, &mut tools);
                self.review(key);
            }
        }
        for key in self.idle_files.drain(..) {
            if let Some(file) = self.files.get_mut(key) {
                file.start(key, &mut self.ring);
            }
        }
        let now = self.now;
        self.idle_listeners.retain(|&key| {
            let Some(listener) = self.listeners.get_mut(key) else {
                return false;
            };
            listener.start(key, now, &mut self.ring);
            listener.resume_at().is_some()
        });
    }

    /// Submits, and sleeps.
    fn select(&mut self, limit: Wait) -> io::Result<()> {
        let mut limit = limit;
        if !self.turns.is_empty() || !self.backlog.is_empty() {
            limit = Wait::Poll;
        }
        for &key in &self.idle_listeners {
            let resume_at = self.listeners.get(key).and_then(Listener::resume_at);
            limit = limit.min(resume_at.into());
        }
        self.waited = limit != Wait::Poll && self.ring.has_nothing();
        match limit {
            Wait::Poll if self.ring.is_quiet() => {}
            Wait::Poll => self.ring.enter(0, None)?,
            Wait::Until(at) => {
                self.ring.enter(1, Some(at.saturating_duration_since(self.now)))?;
            }
            Wait::Forever => self.ring.enter(1, None)?,
        }
        self.now = Instant::now();
        Ok(())
    }

    fn apply(&mut self, done: Done, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        let key = done.token.key();
        let now = self.now;
        match done.token.kind() {
            Kind::Ignored => {}
            // The counter need not be read: every write is told.
            Kind::Wake => self.watching_wake = done.more(),
            Kind::Receive | Kind::Send | Kind::Connect => self.apply_to_socket(done, sink),
            Kind::Accept => {
                if let Some(listener) = self.listeners.get_mut(key) {
                    listener.on_accept(key, done, now, sink);
                    if !listener.in_flight() {
                        if listener.is_closed() {
                            self.listeners.remove(key);
                        } else {
                            self.idle_listeners.push(key);
                        }
                    }
                }
            }
            Kind::File => {
                if let Some(file) = self.files.get_mut(key) {
                    if let Some(ready) = file.on_ready(done) {
                        sink(now, ready);
                    }
                    if file.is_closed() {
                        self.files.remove(key);
                    } else {
                        self.idle_files.push(key);
                    }
                }
            }
        }
    }

    fn apply_to_socket(&mut self, done: Done, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        let key = done.token.key();
        let Some(socket) = self.sockets.get_mut(key) else {
            debug_assert!(false, "a socket outlives its operations");
            return;
        };
        let mut tools = Tools { ring: &mut self.ring, memory: &mut self.memory };
        match done.token.kind() {
            Kind::Receive => socket.on_receive(key, done, &mut tools),
            Kind::Send => {
                if let Some(result) = socket.on_send(key, done, &mut tools) {
                    let id = SocketId::from_bits(key.bits());
                    sink(self.now, Completion::Sent { socket: id, result });
                }
            }
            _ => socket.on_connect(key, tools.ring),
        }
        self.review(key);
    }

    /// Gives each queued socket one turn.
    fn run_turns(&mut self, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        let mut current = mem::take(&mut self.current);
        mem::swap(&mut current, &mut self.turns);
        for key in current.drain(..) {
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.queued = false;
                if socket.is_closed() {
                    continue;
                }
                let mut tools = Tools { ring: &mut self.ring, memory: &mut self.memory };
                socket.turn(key, self.now, &mut tools, sink);
                if socket.receiving.has_more() {
                    self.served.push(key);
                }
                self.review(key);
            }
        }
        self.current = current;
    }

    /// Waits, not for long, until an operation that was told to end has. What else came is kept for
    /// the next wait.
    fn settle(&mut self, token: Token, in_flight: impl Fn(&Self, Key) -> bool) -> bool {
        for _ in 0..SETTLING_ROUNDS {
            if !in_flight(self, token.key()) {
                return true;
            }
            if let Err(error) = self.ring.enter(0, None) {
                self.failure = Some(error);
                return false;
            }
            while let Some(done) = self.ring.pop() {
                self.backlog.push_back(done);
            }
            let (its, others) = mem::take(&mut self.backlog)
                .into_iter()
                .partition::<VecDeque<_>, _>(|done| done.token == token);
            self.backlog = others;
            for done in its {
                self.apply(done, &mut |_, _| {});
            }
        }
        !in_flight(self, token.key())
    }

    fn change_file(&mut self, id: FileId, interest: Option<Interest>) -> io::Result<()> {
        let key = Key::from_bits(id.bits());
        let file = self.files.get_mut(key).filter(|file| !file.is_closed());
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        file.change(key, interest, &mut self.ring);
        if file.in_flight() {
            let its = Token::new(Kind::File, key);
            self.settle(its, |driver, key| driver.files.get(key).is_some_and(File::in_flight));
        } else if interest.is_none() {
            self.files.remove(key);
        }
        self.idle_files.push(key);
        Ok(())
    }
}

impl Driver for UringDriver {
    fn now(&self) -> Instant {
        self.now
    }

    fn submit(&mut self) -> io::Result<()> {
        self.sends = 0;
        if self.ring.has_pushed() { self.ring.enter(0, None) } else { Ok(()) }
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
        rustix::io::ioctl_fionbio(&fd, false)?;
        let key = self.listeners.insert(Listener::new(fd, local));
        self.idle_listeners.push(key);
        Ok((ListenerId::from_bits(key.bits()), local))
    }

    fn close_listener(&mut self, id: ListenerId) {
        let key = Key::from_bits(id.bits());
        let Some(listener) = self.listeners.get_mut(key).filter(|it| !it.is_closed()) else {
            return;
        };
        listener.close(key, &mut self.ring);
        if listener.in_flight() {
            // So that the address is free when we return.
            let its = Token::new(Kind::Accept, key);
            self.settle(its, |driver, key| {
                driver.listeners.get(key).is_some_and(Listener::in_flight)
            });
        } else {
            self.listeners.remove(key);
        }
    }

    fn connect(&mut self, addr: SocketAddr, options: &SocketOptions) -> io::Result<SocketId> {
        let (fd, started) = sys::connect(addr, options)?;
        let socket = match started {
            Ok(()) => Socket::connecting(fd),
            Err(errno) => Socket::refused(fd, errno.into()),
        };
        let (id, key) = self.insert_socket(socket);
        if started.is_ok()
            && let Some((key, socket, tools)) = self.open_socket(id)
        {
            socket.watch(key, tools.ring);
        }
        self.review(key);
        Ok(id)
    }

    fn adopt(&mut self, accepted: Accepted, options: &SocketOptions) -> io::Result<SocketId> {
        let Ok(transport) = accepted.into_transport::<UringTransport>() else {
            let message = "the connection was accepted by another network stack";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let UringTransport { fd, bytes, end } = transport;
        sys::apply(&fd, options);
        Ok(self.insert_socket(Socket::connected(fd, bytes, end)).0)
    }

    fn detach(&mut self, id: SocketId) -> io::Result<Accepted> {
        let key = Key::from_bits(id.bits());
        let socket = self.peek_socket(id)?;
        if !socket.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (peer, local) = (socket.peer_addr()?, socket.local_addr()?);
        if let Some((key, socket, tools)) = self.open_socket(id) {
            socket.receiving.stop(key, tools.ring);
        }
        let its = Token::new(Kind::Receive, key);
        if !self.settle(its, |driver, key| driver.sockets.get(key).is_some_and(Socket::in_flight)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut socket = self.sockets.remove(key).ok_or(io::ErrorKind::NotConnected)?;
        let (bytes, end) = socket.receiving.take_waiting(&mut self.memory);
        let transport = UringTransport { fd: socket.into_fd(), bytes, end };
        Ok(Accepted::new(peer, local, transport))
    }

    fn recv(&mut self, id: SocketId, fill: Option<FillBuf>) {
        if let Some((key, socket, mut tools)) = self.open_socket(id) {
            socket.recv(key, fill, &mut tools);
            self.review(key);
        }
    }

    fn send(&mut self, id: SocketId, rope: &mut Rope) -> SendStatus {
        let now = self.sends < SENDS_AT_ONCE;
        self.sends += 1;
        match self.open_socket(id) {
            Some((key, socket, mut tools)) => {
                let status = socket.send(key, rope, now, &mut tools);
                self.review(key);
                status
            }
            None => {
                rope.clear();
                SendStatus::Pending
            }
        }
    }

    fn shutdown_write(&mut self, id: SocketId) -> io::Result<()> {
        let (_, socket, _) = self.open_socket(id).ok_or(io::ErrorKind::NotConnected)?;
        socket.shutdown_write()
    }

    fn close(&mut self, id: SocketId) {
        if let Some((key, socket, mut tools)) = self.open_socket(id) {
            socket.close(key, &mut tools);
            self.review(key);
        }
    }

    fn local_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        self.peek_socket(id)?.local_addr()
    }

    fn peer_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        self.peek_socket(id)?.peer_addr()
    }

    fn tcp_socket(&self, id: SocketId) -> Option<BorrowedFd<'_>> {
        Some(self.peek_socket(id).ok()?.fd())
    }

    fn register_file(
        &mut self,
        file: BorrowedFd<'_>,
        interest: Interest,
        token: u64,
    ) -> io::Result<FileId> {
        let fd = rustix::io::fcntl_dupfd_cloexec(file, 0)?;
        let key = self.files.insert(File::new(fd, interest, token));
        self.idle_files.push(key);
        Ok(FileId::from_bits(key.bits()))
    }

    fn modify_file(&mut self, id: FileId, interest: Interest) -> io::Result<()> {
        self.change_file(id, Some(interest))
    }

    fn deregister_file(&mut self, id: FileId) {
        let _ = self.change_file(id, None); // it may be deregistered already
    }

    fn wait(
        &mut self,
        limit: Wait,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) -> io::Result<()> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.prepare();
        self.select(limit)?;
        for _ in 0..COMPLETIONS_PER_WAIT {
            let Some(done) = self.backlog.pop_front().or_else(|| self.ring.pop()) else {
                break;
            };
            self.apply(done, sink);
        }
        self.run_turns(sink);
        Ok(())
    }
}

impl Drop for UringDriver {
    /// What was given and goes at once still goes; everything else is ended.
    fn drop(&mut self) {
        let mut alive = self.ring.enter(0, None).is_ok();
        self.ring.cancel_all();
        for _ in 0..ENDING_ROUNDS {
            while let Some(done) = self.backlog.pop_front().or_else(|| self.ring.pop()) {
                let key = done.token.key();
                if done.token.kind() == Kind::Accept
                    && let Some(listener) = self.listeners.get_mut(key)
                {
                    listener.on_accept(key, done, self.now, &mut |_, _| {}); // closes what came
                }
            }
            if self.ring.in_flight() == 0 || !alive {
                break;
            }
            alive = self.ring.enter(1, Some(ENDING_PAUSE)).is_ok();
        }
        if self.ring.in_flight() > 0 {
            tracing::error!(
                operations = self.ring.in_flight(),
                "the kernel does not end what a worker began: its memory is left to it"
            );
            return;
        }
        // SAFETY: neither is used again, and the kernel has nothing of them.
        unsafe {
            ManuallyDrop::drop(&mut self.sockets);
            ManuallyDrop::drop(&mut self.memory);
        }
    }
}

impl fmt::Debug for UringDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringDriver")
            .field("now", &self.now)
            .field("in_flight", &self.ring.in_flight())
            .field("turns", &self.turns.len())
            .finish_non_exhaustive()
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
