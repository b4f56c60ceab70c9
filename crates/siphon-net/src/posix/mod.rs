//! Kernel sockets and epoll.

mod socket;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use siphon_wire::buf::{Rope, SegmentBuf};

use self::socket::Socket;
use crate::driver::{
    Accepted, Completion, Driver, FileInterest, FileToken, ListenOptions, ListenerId, SendStatus,
    SocketId, SocketOptions, Waker,
};

/// Bytes that one receive takes beyond the segment's own buffer.
const SCRATCH: usize = 256 << 10;
/// Events taken from the kernel at once; the rest is taken next time.
const MAX_EVENTS: usize = 256;
/// Connections accepted from one listener at once.
const MAX_ACCEPTS: usize = 64;
/// How long a listener rests when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The waker's key; sockets, listeners and files have keys from 1 on.
const WAKER_KEY: u64 = 0;

/// Edge-triggered in both directions: the driver remembers what the kernel said.
const SOCKET_EVENTS: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// The posix stack's driver: non-blocking sockets, vectored reads and writes, readiness by epoll.
///
/// A socket is registered once, edge-triggered. What is known of its readiness is kept, so that a
/// steady connection costs one wait, one `readv` and one `sendmsg` for as many messages as fit.
pub struct PosixDriver {
    epoll: OwnedFd,
    wakeup: Arc<OwnedFd>,
    now: Instant,
    next_key: u64,
    sockets: HashMap<u64, Socket>,
    listeners: HashMap<u64, Listener>,
    files: HashMap<u64, OwnedFd>,
    /// Sockets on which a receive is armed and that are worth trying.
    try_recv: Vec<u64>,
    /// Sockets whose pending send or connect may go on.
    try_send: Vec<u64>,
    /// Completions of sends that failed where they were submitted.
    failed_sends: Vec<(SocketId, io::Error)>,
    scratch: Box<[u8]>,
    events: Vec<epoll::Event>,
}

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    /// There may be more to accept.
    ready: bool,
    /// It rests until then.
    paused: Option<Instant>,
}

impl PosixDriver {
    /// A driver for the calling thread.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wakeup = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &wakeup, EventData::new_u64(WAKER_KEY), EventFlags::IN)?;
        Ok(Self {
            epoll,
            wakeup,
            now: Instant::now(),
            next_key: WAKER_KEY + 1,
            sockets: HashMap::new(),
            listeners: HashMap::new(),
            files: HashMap::new(),
            try_recv: Vec::new(),
            try_send: Vec::new(),
            failed_sends: Vec::new(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            events: Vec::with_capacity(MAX_EVENTS),
        })
    }

    fn key(&mut self) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        key
    }

    fn register(&mut self, socket: Socket) -> io::Result<SocketId> {
        let key = self.key();
        epoll::add(&self.epoll, socket.as_fd(), EventData::new_u64(key), SOCKET_EVENTS)?;
        self.sockets.insert(key, socket);
        Ok(SocketId(key))
    }

    /// Asks the kernel, and files what it says with the sockets.
    fn poll_events(
        &mut self,
        timeout: Option<Duration>,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) -> io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.now = Instant::now();
        for event in &self.events {
            let (key, flags) = (event.data.u64(), event.flags);
            if key == WAKER_KEY {
                // Whatever the count was: the mail is in the mailbox.
                let _ = rustix::io::read(&self.wakeup, &mut [0_u8; 8]);
            } else if let Some(socket) = self.sockets.get_mut(&key) {
                let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                if broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP) {
                    socket.readable = true;
                    if socket.receive.is_some() {
                        self.try_recv.push(key);
                    }
                }
                if broken || flags.contains(EventFlags::OUT) {
                    socket.writable = true;
                    if socket.wants_write() {
                        self.try_send.push(key);
                    }
                }
            } else if let Some(listener) = self.listeners.get_mut(&key) {
                listener.ready = true;
            } else if self.files.contains_key(&key) {
                let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                let ready = FileInterest {
                    readable: broken || flags.contains(EventFlags::IN),
                    writable: broken || flags.contains(EventFlags::OUT),
                };
                sink(self.now, Completion::FileReady { file: FileToken(key), ready });
            }
        }
        Ok(())
    }

    fn accept_all(&mut self, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        for (key, listener) in &mut self.listeners {
            if listener.paused.is_some_and(|until| until > self.now) {
                continue;
            }
            listener.ready |= listener.paused.take().is_some();
            let id = ListenerId(*key);
            for _ in 0..MAX_ACCEPTS {
                if !listener.ready {
                    break;
                }
                match socket::accept(listener.socket.as_fd()) {
                    Ok(Some(accepted)) => {
                        sink(self.now, Completion::Accepted { listener: id, accepted });
                    }
                    Ok(None) => listener.ready = false,
                    Err(error) => {
                        listener.ready = false;
                        listener.paused = Some(self.now + ACCEPT_PAUSE);
                        sink(self.now, Completion::AcceptFailed { listener: id, error });
                    }
                }
            }
        }
    }

    /// The time until which `wait` may sleep at most, for listeners that rest.
    fn listener_timeout(&self) -> Option<Duration> {
        let paused = self.listeners.values().filter_map(|listener| listener.paused).min()?;
        Some(paused.saturating_duration_since(self.now))
    }

    fn has_work(&self) -> bool {
        !self.try_recv.is_empty()
            || !self.try_send.is_empty()
            || !self.failed_sends.is_empty()
            || self.listeners.values().any(|listener| listener.ready && listener.paused.is_none())
    }

    fn go_on_sending(&mut self, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        for (socket, error) in self.failed_sends.drain(..) {
            sink(self.now, Completion::Sent { socket, result: Err(error) });
        }
        let mut keys = std::mem::take(&mut self.try_send);
        for key in keys.drain(..) {
            let Some(socket) = self.sockets.get_mut(&key) else {
                continue;
            };
            let id = SocketId(key);
            if !socket.wants_write() {
                continue; // it stood in the list twice
            }
            if let Some(result) = socket.finish_connect() {
                sink(self.now, Completion::Connected { socket: id, result });
            } else if let Some(result) = socket.go_on_sending() {
                sink(self.now, Completion::Sent { socket: id, result });
            } else if socket.wants_write() && socket.writable {
                self.try_send.push(key); // it had its share of this turn
            }
        }
        if self.try_send.is_empty() {
            self.try_send = keys;
        }
    }

    fn receive_all(&mut self, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        let mut keys = std::mem::take(&mut self.try_recv);
        for key in keys.drain(..) {
            let Some(socket) = self.sockets.get_mut(&key) else {
                continue;
            };
            let Some((result, fill, len)) = socket.receive(&mut self.scratch) else {
                continue;
            };
            let bytes = &self.scratch[..len];
            let completion = Completion::Received { socket: SocketId(key), result, fill, bytes };
            sink(self.now, completion);
        }
        self.try_recv = keys;
    }
}

impl std::fmt::Debug for PosixDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PosixDriver")
            .field("sockets", &self.sockets.len())
            .field("listeners", &self.listeners.len())
            .finish_non_exhaustive()
    }
}

impl Driver for PosixDriver {
    fn now(&self) -> Instant {
        self.now
    }

    fn waker(&self) -> Waker {
        let wakeup = Arc::clone(&self.wakeup);
        Waker::new(move || {
            // Fails only if the counter is full, and then the driver is as awake as can be.
            let _ = rustix::io::write(&*wakeup, &1_u64.to_ne_bytes());
        })
    }

    fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let (socket, bound) = socket::listen(addr, options)?;
        let key = self.key();
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.epoll, &socket, EventData::new_u64(key), flags)?;
        self.listeners.insert(key, Listener { socket, ready: false, paused: None });
        Ok((ListenerId(key), bound))
    }

    fn close_listener(&mut self, listener: ListenerId) {
        self.listeners.remove(&listener.0);
    }

    fn connect(&mut self, addr: SocketAddr, options: &SocketOptions) -> io::Result<SocketId> {
        self.register(Socket::connect(addr, options)?)
    }

    fn adopt(&mut self, accepted: Accepted, options: &SocketOptions) -> io::Result<SocketId> {
        self.register(Socket::adopt(accepted, options)?)
    }

    fn recv(&mut self, socket: SocketId, fill: Option<SegmentBuf>) {
        let Some(state) = self.sockets.get_mut(&socket.0) else {
            return;
        };
        debug_assert!(state.receive.is_none(), "one receive is armed at a time");
        state.receive = Some(fill);
        if state.readable {
            self.try_recv.push(socket.0);
        }
    }

    fn send(&mut self, socket: SocketId, rope: &mut Rope) -> SendStatus {
        let Some(state) = self.sockets.get_mut(&socket.0) else {
            rope.clear();
            return SendStatus::Complete;
        };
        match state.send(rope) {
            Some(Ok(())) => SendStatus::Complete,
            Some(Err(error)) => {
                self.failed_sends.push((socket, error));
                SendStatus::Pending
            }
            None => {
                if state.writable {
                    self.try_send.push(socket.0); // it had its share of this turn
                }
                SendStatus::Pending
            }
        }
    }

    fn shutdown_write(&mut self, socket: SocketId) -> io::Result<()> {
        match self.sockets.get(&socket.0) {
            Some(state) => Ok(rustix::net::shutdown(state.as_fd(), rustix::net::Shutdown::Write)?),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn close(&mut self, socket: SocketId) {
        self.sockets.remove(&socket.0);
        self.failed_sends.retain(|(failed, _)| *failed != socket);
    }

    fn local_addr(&self, socket: SocketId) -> io::Result<SocketAddr> {
        let state = self.sockets.get(&socket.0).ok_or(io::ErrorKind::NotConnected)?;
        socket::local_addr(state.as_fd())
    }

    fn watch_file(
        &mut self,
        file: BorrowedFd<'_>,
        interest: FileInterest,
    ) -> io::Result<FileToken> {
        // A descriptor of our own: the owner may close its one whenever it likes.
        let file = file.try_clone_to_owned()?;
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, interest.readable);
        flags.set(EventFlags::OUT, interest.writable);
        let key = self.key();
        epoll::add(&self.epoll, &file, EventData::new_u64(key), flags)?;
        self.files.insert(key, file);
        Ok(FileToken(key))
    }

    fn forget_file(&mut self, file: FileToken) {
        if let Some(file) = self.files.remove(&file.0) {
            // The owner's descriptor keeps the file open, so closing ours would not do it.
            let _ = epoll::delete(&self.epoll, &file);
        }
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) -> io::Result<()> {
        let timeout = match (timeout, self.listener_timeout()) {
            _ if self.has_work() => Some(Duration::ZERO),
            (Some(timeout), Some(pause)) => Some(timeout.min(pause)),
            (timeout, pause) => timeout.or(pause),
        };
        self.poll_events(timeout, sink)?;
        self.accept_all(sink);
        self.go_on_sending(sink);
        self.receive_all(sink);
        Ok(())
    }
}
