//! A stack that breaks connections on purpose.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

use siphon_wire::buf::{Input, Rope};

use crate::FillBuf;
use crate::driver::{
    Accepted, Completion, Driver, FileId, Interest, ListenOptions, ListenerId, SendStatus,
    SocketId, SocketOptions, Wait,
};

/// Any other driver, of which some operations break their connection: Ceph's
/// `ms_inject_socket_failures`, at the lowest layer.
///
/// Each [`recv`](Driver::recv) and [`send`](Driver::send) is one operation. One in so many closes the
/// connection: of a send, a part of its own choice goes out before. The peer sees the connection end
/// there; the owner sees what is in flight fail with [`io::ErrorKind::ConnectionReset`], and closes
/// the socket as it would any that failed.
pub struct FaultyDriver {
    inner: Box<dyn Driver>,
    one_in: u32,
    /// A splitmix64 generator: nothing hangs on its quality.
    random: u64,
    sockets: HashMap<SocketId, Socket>,
    /// Completions of operations on sockets that we broke.
    failed: VecDeque<(SocketId, Operation)>,
    /// Connections broken, by this driver and by others that count along.
    injected: Arc<AtomicU64>,
}

/// What is in flight on a socket.
#[derive(Debug, Default)]
struct Socket {
    connected: bool,
    receiving: bool,
    sending: bool,
    /// We broke it: the driver knows it no more.
    broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Receive,
    Send,
}

impl FaultyDriver {
    /// Breaks one operation in `one_in` (at least 1) of `inner`'s; which, follows from `seed`.
    pub fn new(inner: Box<dyn Driver>, one_in: u32, seed: u64) -> Self {
        Self {
            inner,
            one_in: one_in.max(1),
            random: seed,
            sockets: HashMap::new(),
            failed: VecDeque::new(),
            injected: Arc::default(),
        }
    }

    /// The same driver, which adds to `injected` for each connection that it breaks.
    #[must_use]
    pub fn counting(self, injected: Arc<AtomicU64>) -> Self {
        Self { injected, ..self }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// Whether this operation is the one.
    fn strikes(&mut self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(|socket| socket.connected && !socket.broken)
            && self.below(u64::from(self.one_in)) == 0
    }

    fn is_broken(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(|socket| socket.broken)
    }

    fn break_now(&mut self, id: SocketId) {
        self.inner.close(id);
        // Nothing else is read by it: a number for people.
        self.injected.fetch_add(1, Ordering::Relaxed);
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.broken = true;
            if socket.receiving {
                self.failed.push_back((id, Operation::Receive));
            }
            if socket.sending {
                self.failed.push_back((id, Operation::Send));
            }
        }
        tracing::debug!(?id, "injected a socket failure");
    }

    fn connected(&mut self, id: SocketId, connected: bool) {
        self.sockets.insert(id, Socket { connected, ..Socket::default() });
    }

    fn check(&self, id: SocketId) -> io::Result<()> {
        if self.is_broken(id) { Err(io::ErrorKind::NotConnected.into()) } else { Ok(()) }
    }
}

fn injected() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "injected by ms_inject_socket_failures")
}

impl Driver for FaultyDriver {
    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn clock(&self) -> Instant {
        self.inner.clock()
    }

    fn submit(&mut self) -> io::Result<()> {
        self.inner.submit()
    }

    fn waited(&self) -> bool {
        self.inner.waited()
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        self.inner.listen(addr, options)
    }

    fn close_listener(&mut self, id: ListenerId) {
        self.inner.close_listener(id);
    }

    fn connect(&mut self, addr: SocketAddr, options: &SocketOptions) -> io::Result<SocketId> {
        let id = self.inner.connect(addr, options)?;
        self.connected(id, false);
        Ok(id)
    }

    fn adopt(&mut self, accepted: Accepted, options: &SocketOptions) -> io::Result<SocketId> {
        let id = self.inner.adopt(accepted, options)?;
        self.connected(id, true);
        Ok(id)
    }

    fn detach(&mut self, id: SocketId) -> io::Result<Accepted> {
        self.check(id)?;
        let accepted = self.inner.detach(id)?;
        self.sockets.remove(&id);
        Ok(accepted)
    }

    fn fills(&self) -> bool {
        self.inner.fills()
    }

    fn recv(&mut self, id: SocketId, fill: Option<FillBuf>) {
        if self.strikes(id) {
            self.break_now(id);
        }
        if self.is_broken(id) {
            return self.failed.push_back((id, Operation::Receive));
        }
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.receiving = true;
            self.inner.recv(id, fill);
        }
    }

    fn send(&mut self, id: SocketId, rope: &mut Rope) -> SendStatus {
        if self.strikes(id) {
            let part = self.below(rope.len() as u64) as usize;
            let _ = self.inner.send(id, &mut Rope::from(rope.to_bytes().slice(..part)));
            self.break_now(id);
        }
        if self.is_broken(id) {
            rope.clear();
            self.failed.push_back((id, Operation::Send));
            return SendStatus::Pending;
        }
        let status = self.inner.send(id, rope);
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.sending = status == SendStatus::Pending;
        }
        status
    }

    fn shutdown_write(&mut self, id: SocketId) -> io::Result<()> {
        self.check(id)?;
        self.inner.shutdown_write(id)
    }

    fn close(&mut self, id: SocketId) {
        self.failed.retain(|(failed, _)| *failed != id);
        if self.sockets.remove(&id).is_some_and(|socket| !socket.broken) {
            self.inner.close(id);
        }
    }

    fn local_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        self.check(id)?;
        self.inner.local_addr(id)
    }

    fn peer_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        self.check(id)?;
        self.inner.peer_addr(id)
    }

    fn tcp_socket(&self, id: SocketId) -> Option<BorrowedFd<'_>> {
        self.inner.tcp_socket(id)
    }

    fn register_file(
        &mut self,
        file: BorrowedFd<'_>,
        interest: Interest,
        token: u64,
    ) -> io::Result<FileId> {
        self.inner.register_file(file, interest, token)
    }

    fn modify_file(&mut self, id: FileId, interest: Interest) -> io::Result<()> {
        self.inner.modify_file(id, interest)
    }

    fn deregister_file(&mut self, id: FileId) {
        self.inner.deregister_file(id);
    }

    fn wait(
        &mut self,
        limit: Wait,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) -> io::Result<()> {
        let limit = if self.failed.is_empty() { limit } else { Wait::Poll };
        let sockets = &mut self.sockets;
        self.inner.wait(limit, &mut |now, completion| {
            match &completion {
                Completion::Connected { socket, result } => {
                    if let Some(socket) = sockets.get_mut(socket) {
                        socket.connected = result.is_ok();
                    }
                }
                Completion::Received { socket, .. } => {
                    if let Some(socket) = sockets.get_mut(socket) {
                        socket.receiving = false;
                    }
                }
                Completion::Sent { socket, .. } => {
                    if let Some(socket) = sockets.get_mut(socket) {
                        socket.sending = false;
                    }
                }
                _ => {}
            }
            sink(now, completion);
        })?;
        let now = self.inner.now();
        for (socket, operation) in std::mem::take(&mut self.failed) {
            sink(
                now,
                match operation {
                    Operation::Receive => Completion::Received {
                        socket,
                        result: Err(injected()),
                        fill: None,
                        bytes: Input::default(),
                    },
                    Operation::Send => Completion::Sent { socket, result: Err(injected()) },
                },
            );
        }
        Ok(())
    }
}

impl std::fmt::Debug for FaultyDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyDriver")
            .field("one_in", &self.one_in)
            .field("sockets", &self.sockets.len())
            .finish_non_exhaustive()
    }
}
