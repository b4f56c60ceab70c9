//! One worker's share of a simulated host's stack.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use siphon_net::{
    Accepted, Completion, Driver, FileId, FillBuf, Interest, ListenOptions, ListenerId, SendStatus,
    SocketId, SocketOptions, Wait,
};
use siphon_wire::buf::Rope;

use super::conn::{
    CLIENT, Conn, End, Fin, Listener, Owner, Phase, Pipe, SERVER, Send, Shutdown, Socket,
};
use super::engine::{Drops, Event, State, Work};
use super::fault::{Direction, Fault, FaultPlan};
use super::slab::Key;

/// Listening failed; inside an [`io::Error`] of the kind that says why.
#[derive(Debug)]
struct CannotListen(SocketAddr, io::ErrorKind);

impl fmt::Display for CannotListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.0, self.1)
    }
}

impl Error for CannotListen {}

/// What an [`Accepted`] carries. Dropped without being adopted, it closes its side.
struct Transport {
    conn: Key,
    side: usize,
    host: IpAddr,
    drops: Arc<Drops>,
    /// It has an owner, who closes it.
    adopted: bool,
}

impl Drop for Transport {
    fn drop(&mut self) {
        if !self.adopted {
            self.drops.push(self.conn, self.side);
        }
    }
}

/// A completion without its id; a receive's bytes are in the driver's scratch.
enum Done {
    Connected(io::Result<()>),
    Sent(io::Result<()>),
    Received(io::Result<usize>, Option<FillBuf>),
}

pub(super) struct SimDriver {
    state: Rc<RefCell<State>>,
    index: usize,
    scratch: Vec<u8>,
    done: Vec<Done>,
    /// The time of the last wait, and whether it had passed since the one before.
    looked: Instant,
    waited: bool,
}

impl SimDriver {
    pub(super) fn new(state: Rc<RefCell<State>>, index: usize) -> Self {
        let looked = state.borrow().now;
        Self { state, index, scratch: Vec::new(), done: Vec::new(), looked, waited: true }
    }

    /// Does what a socket can do, once; what ended is in `done`.
    fn turn(&mut self, id: Key) {
        let state = &mut *self.state.borrow_mut();
        self.scratch.clear();
        let Some(socket) = state.sockets.get_mut(id) else { return };
        socket.queued = false;
        if let Phase::Settled(result) = socket.phase {
            socket.phase = if result.is_ok() { Phase::Open } else { Phase::Dead };
            if result.is_err() {
                socket.receive = None;
                socket.outgoing.clear();
            }
            self.done.push(Done::Connected(result.map_err(io::Error::from)));
        }
        if socket.phase != Phase::Open {
            return;
        }
        if let Send::Ended(result) = socket.send {
            socket.send = Send::Idle;
            self.done.push(Done::Sent(result.map_err(io::Error::from)));
        }
        self.done.extend(state.receive(id, &mut self.scratch));
        state.enqueue(id);
    }

    /// The next connection of a listener, if it still is one.
    fn accept(&mut self, key: Key) -> Option<Accepted> {
        let state = &mut *self.state.borrow_mut();
        let listener = state.listeners.get_mut(key)?;
        listener.queued = false;
        let mut accepted = None;
        while let Some(conn) = state.listeners.get_mut(key)?.waiting.pop_front() {
            let host = state.drivers[self.index].host;
            if state.owner(conn, SERVER) == Some(Owner::Waiting) {
                accepted = state.hand_out(conn, SERVER, host);
                break;
            }
        }
        state.enqueue_listener(key);
        accepted
    }
}

impl Driver for SimDriver {
    fn now(&self) -> Instant {
        self.state.borrow().now
    }

    fn clock(&self) -> Instant {
        self.now()
    }

    fn waited(&self) -> bool {
        self.waited
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.state.borrow().drivers[self.index].woken))
    }

    fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let state = &mut *self.state.borrow_mut();
        let fail = |kind| Err(io::Error::new(kind, CannotListen(addr, kind)));
        let (host, dead) = state.standing(self.index);
        if dead {
            return fail(io::ErrorKind::NetworkDown);
        }
        let ip = addr.ip();
        if ip != host && !ip.is_unspecified() && !ip.is_loopback() {
            return fail(io::ErrorKind::AddrNotAvailable);
        }
        let mut port = addr.port();
        if port == 0 {
            let Some(free) = state.free_port(host) else {
                return fail(io::ErrorKind::AddrInUse);
            };
            port = free;
        } else if state.ports.contains_key(&(host, port)) {
            return fail(io::ErrorKind::AddrInUse);
        }
        let addr = SocketAddr::new(ip, port);
        let backlog = options.backlog.max(1) as usize;
        let listener = Listener {
            driver: self.index,
            port: (host, port),
            backlog,
            waiting: VecDeque::new(),
            queued: false,
        };
        let key = state.listeners.insert(listener);
        state.ports.insert((host, port), key);
        Ok((ListenerId::from_bits(key.0), addr))
    }

    fn close_listener(&mut self, id: ListenerId) {
        let state = &mut *self.state.borrow_mut();
        let key = Key(id.bits());
        if state.listeners.get(key).is_some_and(|listener| listener.driver == self.index) {
            state.stop_listening(key);
        }
    }

    fn connect(&mut self, addr: SocketAddr, _: &SocketOptions) -> io::Result<SocketId> {
        let state = &mut *self.state.borrow_mut();
        let (host, dead) = state.standing(self.index);
        if dead {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        let id = state.begin_connect(self.index, host, addr);
        Ok(SocketId::from_bits(id.0))
    }

    fn adopt(&mut self, accepted: Accepted, _: &SocketOptions) -> io::Result<SocketId> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let mut transport = accepted.into_transport::<Transport>().map_err(invalid)?;
        let state = &mut *self.state.borrow_mut();
        let driver = &state.drivers[self.index];
        if !Arc::ptr_eq(&transport.drops, &state.drops) || transport.host != driver.host {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (key, side) = (transport.conn, transport.side);
        if driver.dead || state.owner(key, side) != Some(Owner::Waiting) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        transport.adopted = true;
        let mut socket = Socket::new(self.index, key, side, Phase::Open);
        if let Some(conn) = state.conns.get(key)
            && conn.pipes[side].fin != Fin::Open
            && !conn.ends[side].broken
        {
            socket.shutdown = Shutdown::Done;
        }
        let id = state.sockets.insert(socket);
        if let Some(conn) = state.conns.get_mut(key) {
            conn.ends[side].owner = Owner::Socket(id);
        }
        Ok(SocketId::from_bits(id.0))
    }

    fn detach(&mut self, id: SocketId) -> io::Result<Accepted> {
        let state = &mut *self.state.borrow_mut();
        let id = Key(id.bits());
        let socket = state.own(self.index, id).ok_or(io::ErrorKind::NotConnected)?;
        if socket.phase != Phase::Open {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if socket.receive.is_some() || socket.send != Send::Idle {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (key, side) = (socket.conn, socket.side);
        let host = state.drivers[self.index].host;
        let accepted = state.hand_out(key, side, host).ok_or(io::ErrorKind::NotConnected)?;
        state.sockets.remove(id);
        if let Some(conn) = state.conns.get_mut(key) {
            conn.ends[side].owner = Owner::Waiting;
        }
        Ok(accepted)
    }

    fn recv(&mut self, id: SocketId, fill: Option<FillBuf>) {
        let state = &mut *self.state.borrow_mut();
        let id = Key(id.bits());
        let Some(socket) = state.own(self.index, id) else { return };
        if matches!(socket.phase, Phase::Dead | Phase::Settled(Err(_))) {
            return;
        }
        assert!(socket.receive.is_none(), "one receive at a time for a socket");
        socket.receive = Some(fill);
        state.enqueue(id);
    }

    fn send(&mut self, id: SocketId, rope: &mut Rope) -> SendStatus {
        let state = &mut *self.state.borrow_mut();
        let id = Key(id.bits());
        let status = state.begin_send(self.index, id, rope);
        rope.clear();
        status
    }

    fn shutdown_write(&mut self, id: SocketId) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        let socket = state.own(self.index, Key(id.bits())).ok_or(io::ErrorKind::NotConnected)?;
        if matches!(socket.phase, Phase::Dead | Phase::Settled(Err(_))) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let (key, side) = (socket.conn, socket.side);
        if socket.shutdown == Shutdown::No {
            socket.shutdown = Shutdown::Asked;
        }
        if state.conns.get(key).is_none_or(|conn| conn.ends[side].error.is_some()) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        state.pump(key, side);
        Ok(())
    }

    fn close(&mut self, id: SocketId) {
        let state = &mut *self.state.borrow_mut();
        if state.own(self.index, Key(id.bits())).is_some() {
            state.close_socket(Key(id.bits()));
        }
    }

    fn local_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        let state = &mut *self.state.borrow_mut();
        let socket = state.own(self.index, Key(id.bits())).ok_or(io::ErrorKind::NotConnected)?;
        let (key, side) = (socket.conn, socket.side);
        let conn = state.conns.get(key).ok_or(io::ErrorKind::NotConnected)?;
        Ok(conn.addrs[side])
    }

    fn peer_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        let state = &mut *self.state.borrow_mut();
        let socket = state.own(self.index, Key(id.bits())).ok_or(io::ErrorKind::NotConnected)?;
        let (key, side) = (socket.conn, socket.side);
        if !matches!(socket.phase, Phase::Open | Phase::Settled(Ok(()))) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let conn = state.conns.get(key).ok_or(io::ErrorKind::NotConnected)?;
        if conn.ends[side].error.is_some() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(conn.addrs[1 - side])
    }

    fn register_file(&mut self, _: BorrowedFd<'_>, _: Interest, _: u64) -> io::Result<FileId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn modify_file(&mut self, _: FileId, _: Interest) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn deregister_file(&mut self, _: FileId) {}

    fn wait(&mut self, _: Wait, sink: &mut dyn FnMut(Instant, Completion<'_>)) -> io::Result<()> {
        let (now, count) = {
            let mut state = self.state.borrow_mut();
            state.sweep();
            let driver = &state.drivers[self.index];
            driver.woken.clear();
            (state.now, driver.work.len())
        };
        self.waited = now > std::mem::replace(&mut self.looked, now);
        // What comes back into the queue meanwhile is for the next wait. The state is not borrowed
        // while the sink runs.
        for _ in 0..count {
            let Some(work) = self.state.borrow_mut().drivers[self.index].work.pop_front() else {
                break;
            };
            match work {
                Work::Listener(key) => {
                    if let Some(accepted) = self.accept(key) {
                        let listener = ListenerId::from_bits(key.0);
                        sink(now, Completion::Accepted { listener, accepted });
                    }
                }
                Work::Socket(key) => {
                    self.turn(key);
                    let socket = SocketId::from_bits(key.0);
                    for done in self.done.drain(..) {
                        sink(now, done.completion(socket, &self.scratch));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Drop for SimDriver {
    /// As a process that ends: the system closes what it had.
    fn drop(&mut self) {
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        if std::mem::replace(&mut state.drivers[self.index].dead, true) {
            return;
        }
        for key in state.sockets.keys() {
            if state.own(self.index, key).is_some() {
                state.close_socket(key);
            }
        }
        for key in state.listeners.keys() {
            if state.listeners.get(key).is_some_and(|l| l.driver == self.index) {
                state.stop_listening(key);
            }
        }
        state.drivers[self.index].work = VecDeque::new();
    }
}

impl Done {
    fn completion(self, socket: SocketId, bytes: &[u8]) -> Completion<'_> {
        match self {
            Self::Connected(result) => Completion::Connected { socket, result },
            Self::Sent(result) => Completion::Sent { socket, result },
            Self::Received(result, fill) => {
                Completion::Received { socket, result, fill, bytes: bytes.into() }
            }
        }
    }
}

impl State {
    /// A socket, if it is of this driver: another's id means nothing to it.
    fn own(&mut self, driver: usize, id: Key) -> Option<&mut Socket> {
        self.sockets.get_mut(id).filter(|socket| socket.driver == driver)
    }

    /// A driver's host, and whether that crashed.
    fn standing(&self, driver: usize) -> (IpAddr, bool) {
        let driver = &self.drivers[driver];
        (driver.host, driver.dead)
    }

    fn free_port(&mut self, host: IpAddr) -> Option<u16> {
        for _ in 0..=u16::MAX {
            let next = &mut self.host(host).next_port;
            let port = *next;
            *next = next.checked_add(1).unwrap_or(1024);
            if !self.ports.contains_key(&(host, port)) {
                return Some(port);
            }
        }
        None
    }

    /// The next client port. Two connections may share one: nothing goes by it.
    fn ephemeral_port(&mut self, host: IpAddr) -> u16 {
        let next = &mut self.host(host).next_ephemeral;
        let port = *next;
        *next = next.checked_add(1).unwrap_or(32_768);
        port
    }

    fn stop_listening(&mut self, key: Key) {
        let Some(listener) = self.listeners.remove(key) else { return };
        self.ports.remove(&listener.port);
        for conn in listener.waiting {
            if self.owner(conn, SERVER) == Some(Owner::Waiting) {
                self.abandon_with_reset(conn, SERVER);
            }
        }
    }

    /// Gives a side to whoever adopts it.
    fn hand_out(&mut self, key: Key, side: usize, host: IpAddr) -> Option<Accepted> {
        let conn = self.conns.get(key)?;
        let (peer, local) = (conn.addrs[1 - side], conn.addrs[side]);
        let transport =
            Transport { conn: key, side, host, drops: Arc::clone(&self.drops), adopted: false };
        Some(Accepted::new(peer, local, transport))
    }

    fn begin_connect(&mut self, driver: usize, host: IpAddr, addr: SocketAddr) -> Key {
        let itself = addr.ip().is_unspecified() || addr.ip().is_loopback();
        let target = SocketAddr::new(if itself { host } else { addr.ip() }, addr.port());
        let source = SocketAddr::new(host, self.ephemeral_port(host));
        let pipes = [self.new_pipe(), self.new_pipe()];
        let end = |owner| End { owner, error: None, broken: false };
        let mut conn = Conn {
            addrs: [source, target],
            ends: [end(Owner::Waiting), end(Owner::Gone)],
            pipes,
            open: false,
            half_open: false,
            held: false,
            late_reset: [false; 2],
            plans: Vec::new(),
            refuse: false,
            started: self.now,
        };
        let mut strike = None;
        if let Some(plan) = self.draw_fault(host, target.ip()) {
            if plan.fault == Fault::Refuse {
                conn.refuse = true;
            } else if plan.after == u64::MAX {
                let within = self.options.fault_within;
                strike = Some((self.random.between(Duration::ZERO, within), plan));
            } else {
                conn.plans.push(plan);
            }
        }
        let key = self.conns.insert(conn);
        let id = self.sockets.insert(Socket::new(driver, key, CLIENT, Phase::Connecting));
        if let Some(conn) = self.conns.get_mut(key) {
            conn.ends[CLIENT].owner = Owner::Socket(id);
        }
        self.note(|| format!("{key:?} connects from {source} to {target}"));
        if let Some((after, plan)) = strike {
            self.schedule(self.now + after, Event::Strike(key, plan));
        }
        let nowhere = match target.ip() {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.is_multicast(),
            IpAddr::V6(ip) => ip.is_multicast(),
        };
        if nowhere {
            self.schedule_soon(Event::Settle(key, Err(io::ErrorKind::NetworkUnreachable)));
        } else {
            self.schedule_soon(Event::Knock(key));
        }
        id
    }

    fn new_pipe(&mut self) -> Pipe {
        let min = self.options.buffer_min.max(1);
        let spread = self.options.buffer_max.saturating_sub(min) as u64;
        Pipe::new(min + self.random.below(spread.saturating_add(1)) as usize)
    }

    /// A rule's fault, or one that the seed draws. After `u64::MAX` bytes stands for a time.
    fn draw_fault(&mut self, from: IpAddr, to: IpAddr) -> Option<FaultPlan> {
        let mut ruled = None;
        if let Some(rules) = self.rules.get_mut(&(from, to)) {
            rules.retain_mut(|(skip, plan)| {
                let due = *skip == 0 && ruled.is_none();
                if due {
                    ruled = Some(*plan);
                } else {
                    *skip = skip.saturating_sub(1);
                }
                !due
            });
        }
        if ruled.is_some() || self.faults_ended {
            return ruled;
        }
        let options = &self.options;
        let stall = self.random.between(Duration::ZERO, options.stall_max);
        let kinds = [
            (options.cut, Fault::Cut),
            (options.close, Fault::Close),
            (options.half_open, Fault::HalfOpen),
            (options.stall, Fault::Stall(stall)),
            (options.refuse, Fault::Refuse),
        ];
        let mut drawn = self.random.unit();
        let fault = kinds.into_iter().find_map(|(likely, fault)| {
            let hit = drawn < likely;
            drawn -= likely;
            hit.then_some(fault)
        })?;
        let direction = Direction::from_index(self.random.below(2) as usize);
        let by_time = self.random.chance(options.fault_by_time);
        let after = if by_time { u64::MAX } else { self.random.log_below(options.fault_bytes) };
        Some(FaultPlan { fault, direction, after })
    }

    fn begin_send(&mut self, driver: usize, id: Key, rope: &mut Rope) -> SendStatus {
        let Some(socket) = self.own(driver, id) else { return SendStatus::Complete };
        assert!(socket.send == Send::Idle, "one send at a time for a socket");
        let (key, side) = (socket.conn, socket.side);
        match socket.phase {
            Phase::Dead | Phase::Settled(Err(_)) => return SendStatus::Pending,
            Phase::Connecting | Phase::Settled(Ok(())) | Phase::Open => {}
        }
        let closed = socket.shutdown != Shutdown::No;
        let connecting = socket.phase == Phase::Connecting;
        let Some(conn) = self.conns.get_mut(key) else { return SendStatus::Complete };
        let broken = conn.ends[side].broken;
        let failed = match conn.ends[side].error {
            _ if closed || broken => Some(io::ErrorKind::BrokenPipe),
            error => error,
        };
        let room = conn.pipes[side].room();
        if failed.is_none() && !connecting && rope.len() <= room {
            let queued = &mut conn.pipes[side].queued;
            std::mem::take(rope).into_iter().for_each(|segment| queued.push(segment));
            self.kick(key, side);
            return SendStatus::Complete;
        }
        let Some(socket) = self.sockets.get_mut(id) else { return SendStatus::Complete };
        if let Some(kind) = failed {
            socket.send = Send::Ended(Err(kind));
            if broken {
                self.reset(key, side);
            }
            self.enqueue(id);
            return SendStatus::Pending;
        }
        socket.send = Send::InFlight;
        std::mem::swap(&mut socket.outgoing, rope);
        self.pump(key, side);
        SendStatus::Pending
    }

    /// Reads once, if a receive is armed and there is something.
    fn receive(&mut self, id: Key, scratch: &mut Vec<u8>) -> Option<Done> {
        let socket = self.sockets.get(id)?;
        if socket.receive.is_none() || !self.is_readable(socket) {
            return None;
        }
        let socket = self.sockets.get_mut(id)?;
        let mut fill = socket.receive.take()?;
        let (key, side) = (socket.conn, socket.side);
        let conn = self.conns.get_mut(key)?;
        let pipe = &mut conn.pipes[1 - side];
        if pipe.inbox.len == 0 {
            let result = match conn.ends[side].error {
                Some(kind) if pipe.fin != Fin::Delivered => Err(kind.into()),
                _ => Ok(0),
            };
            return Some(Done::Received(result, fill));
        }
        let count = self.random.piece(pipe.inbox.len);
        let mut direct = fill.as_mut().filter(|_| self.random.chance(self.options.use_fill));
        let mut left = count;
        while left > 0 {
            let room = direct.as_ref().map_or(0, |fill| fill.remaining());
            let chunk = pipe.inbox.pop(if room > 0 { left.min(room) } else { left });
            left -= chunk.len();
            match direct.as_mut().filter(|_| room > 0) {
                Some(fill) => {
                    fill.unfilled()[..chunk.len()].copy_from_slice(&chunk);
                    fill.advance(chunk.len());
                }
                None => scratch.extend_from_slice(&chunk),
            }
        }
        self.pump(key, 1 - side);
        Some(Done::Received(Ok(count), fill))
    }

    fn close_socket(&mut self, id: Key) {
        let Some(socket) = self.sockets.remove(id) else { return };
        self.abandon(socket.conn, socket.side);
    }

    /// Ends a side that nobody took, as a listener does that closes.
    fn abandon_with_reset(&mut self, key: Key, side: usize) {
        self.schedule_soon(Event::Reset(key, 1 - side));
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.ends[side].error = Some(io::ErrorKind::ConnectionReset);
        self.abandon(key, side);
    }
}
