//! The network's state, and what happens to it in the course of time.

use std::cmp::Ordering as Order;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use std::time::{Duration, Instant};

use super::NetOptions;
use super::conn::{CLIENT, Conn, Fin, Listener, Owner, Phase, SERVER, Send, Shutdown, Socket};
use super::fault::{Direction, Fault, FaultCounts, FaultPlan};
use super::slab::{Key, Slab};
use crate::random::Random;

/// After how long a connect knocks again where a listener's backlog is full: Linux's first
/// retransmission of a SYN.
const RETRY_SYN: Duration = Duration::from_secs(1);

/// A scheduled event. The earliest is first; of the same time, the one scheduled first.
#[derive(Debug)]
struct Scheduled {
    at: Instant,
    order: u64,
    event: Event,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A connect reaches the server's host.
    Knock(Key),
    /// The answer reaches the client.
    Settle(Key, Result<(), io::ErrorKind>),
    /// A piece of a direction arrives.
    Deliver(Key, usize),
    /// A reset reaches a side.
    Reset(Key, usize),
    /// A half-open connection: one side learns that it is none.
    Tell(Key, usize),
    /// A fault whose hour, not byte, was chosen.
    Strike(Key, FaultPlan),
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Order {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) down: bool,
    pub(super) next_port: u16,
    pub(super) next_ephemeral: u16,
}

/// Someone woke the driver, from any thread.
#[derive(Debug, Default)]
pub(super) struct Flag(AtomicBool);

impl Flag {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

#[derive(Debug)]
pub(super) struct DriverState {
    pub(super) host: IpAddr,
    pub(super) woken: Arc<Flag>,
    pub(super) work: VecDeque<Work>,
    /// Its host crashed, or it was dropped.
    pub(super) dead: bool,
}

/// What a driver has to look at in its next wait.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    Socket(Key),
    Listener(Key),
}

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) hosts: [BTreeSet<IpAddr>; 2],
    pub(super) until: Instant,
}

/// Connections whose `Accepted` was dropped. The one thing that another thread could touch.
#[derive(Debug, Default)]
pub(super) struct Drops {
    keys: Mutex<Vec<(Key, usize)>>,
    any: AtomicBool,
}

impl Drops {
    pub(super) fn push(&self, key: Key, side: usize) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).push((key, side));
        self.any.store(true, Ordering::Release);
    }
}

/// By hosts from and to: how many connects are let by before one gets the fault.
pub(super) type Rules = BTreeMap<(IpAddr, IpAddr), Vec<(u64, FaultPlan)>>;

#[derive(Debug)]
pub(super) struct State {
    pub(super) options: NetOptions,
    pub(super) random: Random,
    pub(super) start: Instant,
    pub(super) now: Instant,
    order: u64,
    events: BinaryHeap<Scheduled>,
    pub(super) conns: Slab<Conn>,
    pub(super) sockets: Slab<Socket>,
    pub(super) listeners: Slab<Listener>,
    pub(super) drivers: Vec<DriverState>,
    pub(super) hosts: BTreeMap<IpAddr, Host>,
    pub(super) ports: BTreeMap<(IpAddr, u16), Key>,
    pub(super) partitions: Vec<Partition>,
    pub(super) rules: Rules,
    pub(super) faults_ended: bool,
    pub(super) counts: FaultCounts,
    pub(super) trace: VecDeque<String>,
    pub(super) drops: Arc<Drops>,
}

impl State {
    pub(super) fn new(seed: u64, options: NetOptions, start: Instant) -> Self {
        Self {
            options,
            random: Random::new(seed),
            start,
            now: start,
            order: 0,
            events: BinaryHeap::new(),
            conns: Slab::new(),
            sockets: Slab::new(),
            listeners: Slab::new(),
            drivers: Vec::new(),
            hosts: BTreeMap::new(),
            ports: BTreeMap::new(),
            partitions: Vec::new(),
            rules: Rules::new(),
            faults_ended: false,
            counts: FaultCounts::default(),
            trace: VecDeque::new(),
            drops: Arc::default(),
        }
    }

    pub(super) fn host(&mut self, host: IpAddr) -> &mut Host {
        let first = Host { down: false, next_port: 6800, next_ephemeral: 32_768 };
        self.hosts.entry(host).or_insert(first)
    }

    /// Notes a line, which is made only where it is kept.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.options.trace_lines == 0 {
            return;
        }
        if self.trace.len() >= self.options.trace_lines {
            self.trace.pop_front();
        }
        let at = self.now - self.start;
        self.trace.push_back(format!("{:>13.6} {}", at.as_secs_f64(), line()));
    }

    pub(super) fn schedule(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.events.push(Scheduled { at: at.max(self.now), order: self.order, event });
    }

    pub(super) fn schedule_soon(&mut self, event: Event) {
        let latency = self.random.between(self.options.latency_min, self.options.latency_max);
        self.schedule(self.now + latency, event);
    }

    pub(super) fn next_event(&self) -> Option<Instant> {
        self.events.peek().map(|first| first.at)
    }

    pub(super) fn advance_to(&mut self, to: Instant) {
        self.sweep();
        while let Some(first) = self.events.peek().filter(|first| first.at <= to) {
            self.now = self.now.max(first.at);
            let event = first.event;
            self.events.pop();
            self.execute(event);
        }
        self.now = self.now.max(to);
    }

    /// Closes the connections whose `Accepted` was dropped meanwhile.
    pub(super) fn sweep(&mut self) {
        if !self.drops.any.swap(false, Ordering::AcqRel) {
            return;
        }
        let drops = Arc::clone(&self.drops);
        let keys = std::mem::take(&mut *drops.keys.lock().unwrap_or_else(PoisonError::into_inner));
        for (key, side) in keys {
            // Of a connection adopted, or gone with its host, nothing is left to close.
            if self.owner(key, side) == Some(Owner::Waiting) {
                self.abandon(key, side);
            }
        }
    }

    /// Lets what waits for a partition or a stall go on; forgets faults to come.
    pub(super) fn hasten(&mut self) {
        let mut old = std::mem::take(&mut self.events);
        while let Some(Scheduled { at, event, .. }) = old.pop() {
            let late = at > self.now + self.options.latency_max;
            match event {
                Event::Strike(..) | Event::Tell(..) if self.faults_ended => {}
                Event::Deliver(..)
                | Event::Reset(..)
                | Event::Knock(_)
                | Event::Settle(_, Ok(()))
                    if late =>
                {
                    self.schedule_soon(event);
                }
                _ => self.schedule(at, event),
            }
        }
    }

    pub(super) fn owner(&self, key: Key, side: usize) -> Option<Owner> {
        self.conns.get(key).map(|conn| conn.ends[side].owner)
    }

    fn execute(&mut self, event: Event) {
        match event {
            Event::Knock(key) => self.knock(key),
            Event::Settle(key, result) => self.settle(key, result),
            Event::Deliver(key, side) => self.deliver(key, side),
            Event::Reset(key, side) => self.reset_arrives(key, side),
            Event::Tell(key, side) => {
                if self.conns.get(key).is_some_and(|conn| conn.half_open) {
                    self.reset(key, side);
                }
            }
            Event::Strike(key, plan) => {
                if !self.faults_ended {
                    self.strike(key, plan.direction.index(), plan.fault);
                }
            }
        }
    }

    /// Until when no byte passes between two hosts, where a partition is in force.
    fn blocked(&mut self, hosts: [IpAddr; 2]) -> Option<Instant> {
        if self.partitions.is_empty() {
            return None;
        }
        let now = self.now;
        self.partitions.retain(|partition| partition.until > now);
        let [a, b] = hosts;
        let parted = self.partitions.iter().filter(|Partition { hosts: [left, right], .. }| {
            (left.contains(&a) && right.contains(&b)) || (left.contains(&b) && right.contains(&a))
        });
        parted.map(|partition| partition.until).max()
    }

    fn blocked_conn(&mut self, key: Key) -> Option<Instant> {
        let hosts = self.conns.get(key)?.addrs.map(|addr| addr.ip());
        self.blocked(hosts)
    }

    /// Tries a connect again at `at`, or lets it fail where its time is out before.
    fn knock_again(&mut self, key: Key, at: Instant) {
        let Some(conn) = self.conns.get(key) else { return };
        let deadline = conn.started + self.options.connect_timeout;
        if at < deadline {
            self.schedule(at, Event::Knock(key));
        } else {
            self.schedule(deadline, Event::Settle(key, Err(io::ErrorKind::TimedOut)));
        }
    }

    fn knock(&mut self, key: Key) {
        if let Some(until) = self.blocked_conn(key) {
            return self.knock_again(key, until);
        }
        let Some(conn) = self.conns.get(key) else { return };
        if conn.held {
            return self.knock_again(key, self.now + RETRY_SYN);
        }
        let (server, refuse) = (conn.addrs[SERVER], conn.refuse);
        let down = self.hosts.get(&server.ip()).is_some_and(|host| host.down);
        if refuse || down {
            self.counts.refused += 1;
            self.note(|| format!("{key:?} refused by a fault"));
            return self.schedule_soon(Event::Settle(key, Err(io::ErrorKind::ConnectionRefused)));
        }
        let found = self.ports.get(&(server.ip(), server.port())).copied();
        let Some(listener_key) = found else {
            return self.schedule_soon(Event::Settle(key, Err(io::ErrorKind::ConnectionRefused)));
        };
        let Some(listener) = self.listeners.get_mut(listener_key) else { return };
        if listener.waiting.len() >= listener.backlog {
            return self.knock_again(key, self.now + RETRY_SYN);
        }
        listener.waiting.push_back(key);
        if let Some(conn) = self.conns.get_mut(key) {
            conn.ends[SERVER].owner = Owner::Waiting;
        }
        self.enqueue_listener(listener_key);
        self.schedule_soon(Event::Settle(key, Ok(())));
    }

    fn settle(&mut self, key: Key, result: Result<(), io::ErrorKind>) {
        if result.is_ok()
            && let Some(until) = self.blocked_conn(key)
        {
            return self.schedule(until, Event::Settle(key, result));
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        let result = conn.ends[CLIENT].error.map_or(result, Err);
        conn.open = result.is_ok();
        let owner = conn.ends[CLIENT].owner;
        self.note(|| format!("{key:?} connect: {result:?}"));
        if result == Err(io::ErrorKind::TimedOut) {
            self.counts.timeouts += 1;
        }
        if let Owner::Socket(id) = owner {
            let Some(socket) = self.sockets.get_mut(id) else { return };
            socket.phase = Phase::Settled(result);
            if result.is_ok() {
                self.pump(key, CLIENT);
            }
            self.enqueue(id);
        }
        if result.is_ok() {
            self.kick(key, CLIENT);
            self.kick(key, SERVER);
            self.strike_due(key);
        }
    }

    /// Schedules the next piece of a direction, where there is one and nothing holds it.
    pub(super) fn kick(&mut self, key: Key, side: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let halted = !conn.open || conn.held || conn.half_open;
        let pipe = &mut conn.pipes[side];
        if halted || pipe.scheduled || !pipe.has_more() {
            return;
        }
        pipe.scheduled = true;
        self.schedule_soon(Event::Deliver(key, side));
    }

    fn deliver(&mut self, key: Key, side: usize) {
        let blocked = self.blocked_conn(key);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let (held, gone) = (conn.held || conn.half_open, conn.ends[1 - side].owner == Owner::Gone);
        let pipe = &mut conn.pipes[side];
        pipe.scheduled = false;
        if held || !pipe.has_more() {
            return;
        }
        let stalled = pipe.stalled_until.filter(|&until| until > now);
        if let Some(until) = blocked.max(stalled) {
            pipe.scheduled = true;
            return self.schedule(until, Event::Deliver(key, side));
        }
        if gone && pipe.queued.len > 0 {
            // Nobody is there to read it, which the sender is told.
            pipe.queued.clear();
            return self.schedule_soon(Event::Reset(key, side));
        }
        let delivered = pipe.delivered;
        let due = |plan: &&FaultPlan| plan.direction.index() == side && plan.after > delivered;
        let ahead = conn.plans.iter().filter(due).map(|plan| plan.after - delivered).min();
        let limit = ahead.unwrap_or(u64::MAX).min(pipe.queued.len as u64) as usize;
        let count = self.random.piece(limit.min(self.options.max_piece));
        pipe.arrive(count);
        if pipe.queued.len == 0 && pipe.fin == Fin::Queued {
            let struck = conn.plans.iter().any(|plan| {
                plan.direction.index() == side && plan.after <= conn.pipes[side].delivered
            });
            if !struck {
                conn.pipes[side].fin = Fin::Delivered;
            }
        }
        let (total, ended) = (conn.pipes[side].delivered, conn.pipes[side].fin == Fin::Delivered);
        self.note(|| {
            let end = if ended { ", the end" } else { "" };
            format!("{key:?} {:?} {count} to {total}{end}", Direction::from_index(side))
        });
        self.wake(key, 1 - side);
        self.strike_due(key);
        self.kick(key, side);
    }

    /// Lets the faults happen whose byte has come.
    pub(super) fn strike_due(&mut self, key: Key) {
        while let Some(conn) = self.conns.get_mut(key) {
            let delivered = [conn.pipes[0].delivered, conn.pipes[1].delivered];
            let due = |plan: &FaultPlan| plan.after <= delivered[plan.direction.index()];
            let Some(at) = conn.plans.iter().position(due).filter(|_| conn.open) else { return };
            let plan = conn.plans.remove(at);
            self.strike(key, plan.direction.index(), plan.fault);
        }
    }

    /// Lets a fault happen now, in the direction of pipe `side`. Whether it took effect.
    pub(super) fn strike(&mut self, key: Key, side: usize, fault: Fault) -> bool {
        if !self.is_live(key) {
            return false;
        }
        let Some(conn) = self.conns.get_mut(key) else { return false };
        match fault {
            Fault::Cut | Fault::Refuse => {
                self.counts.cuts += 1;
                if self.random.chance(0.5) {
                    let way = &mut conn.pipes[1 - side];
                    way.arrive(way.queued.len);
                }
                self.reset(key, 0);
                self.reset(key, 1);
            }
            Fault::Close => {
                if conn.pipes[side].fin == Fin::Delivered {
                    return false;
                }
                self.counts.closes += 1;
                conn.pipes[side].queued.clear();
                conn.pipes[side].fin = Fin::Delivered;
                conn.ends[side].broken = true;
                if let Owner::Socket(id) = conn.ends[side].owner {
                    self.fail_send(id, io::ErrorKind::BrokenPipe);
                }
                self.wake(key, 1 - side);
            }
            Fault::HalfOpen => {
                if conn.half_open {
                    return false;
                }
                self.counts.half_opens += 1;
                self.fall_silent(key);
            }
            Fault::Stall(time) => {
                self.counts.stalls += 1;
                let until = self.now + time;
                let pipe = &mut conn.pipes[side];
                pipe.stalled_until = pipe.stalled_until.max(Some(until));
            }
        }
        self.note(|| format!("{key:?} {:?} fault: {fault:?}", Direction::from_index(side)));
        true
    }

    /// Delivers nothing more; one side may learn of it, later.
    pub(super) fn fall_silent(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.half_open = true;
        if self.random.chance(self.options.tell_half_open) {
            let side = self.random.below(2) as usize;
            let after = self.random.between(Duration::ZERO, self.options.tell_within);
            self.schedule(self.now + after, Event::Tell(key, side));
        }
    }

    /// Whether it is open, and neither side knows of an end.
    pub(super) fn is_live(&self, key: Key) -> bool {
        self.conns.get(key).is_some_and(|conn| {
            conn.open && conn.ends.iter().all(|end| end.error.is_none() && end.owner != Owner::Gone)
        })
    }

    fn reset_arrives(&mut self, key: Key, side: usize) {
        let blocked = self.blocked_conn(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.held {
            conn.late_reset[side] = true;
        } else if let Some(until) = blocked {
            self.schedule(until, Event::Reset(key, side));
        } else if !conn.half_open {
            self.reset(key, side);
        }
    }

    /// Tells a side that its connection is gone. What it has to read, it still can.
    pub(super) fn reset(&mut self, key: Key, side: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.ends[side].error.is_some() || conn.ends[side].owner == Owner::Gone {
            return;
        }
        conn.ends[side].error = Some(io::ErrorKind::ConnectionReset);
        for pipe in &mut conn.pipes {
            pipe.queued.clear();
        }
        // What cannot come any more must not hide the reset.
        if conn.pipes[1 - side].fin == Fin::Queued {
            conn.pipes[1 - side].fin = Fin::Open;
        }
        let owner = conn.ends[side].owner;
        self.note(|| format!("{key:?} reset at side {side}"));
        if let Owner::Socket(id) = owner {
            self.fail_send(id, io::ErrorKind::ConnectionReset);
        }
        self.wake(key, side);
    }

    /// Ends the send in flight, if any.
    fn fail_send(&mut self, id: Key, kind: io::ErrorKind) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if socket.send == Send::InFlight {
            socket.outgoing.clear();
            socket.send = Send::Ended(Err(kind));
        }
        self.enqueue(id);
    }

    /// Moves what the side's socket has to send to where there is room.
    pub(super) fn pump(&mut self, key: Key, side: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Owner::Socket(id) = conn.ends[side].owner else { return };
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let open = matches!(socket.phase, Phase::Open | Phase::Settled(Ok(())));
        if !open || conn.ends[side].error.is_some() {
            return;
        }
        let pipe = &mut conn.pipes[side];
        if socket.send == Send::InFlight {
            let count = pipe.room().min(socket.outgoing.len());
            if count == socket.outgoing.len() {
                std::mem::take(&mut socket.outgoing).into_iter().for_each(|s| pipe.queued.push(s));
                socket.send = Send::Ended(Ok(()));
                self.enqueue(id);
            } else if count > 0 {
                let part = socket.outgoing.split_to(count);
                part.into_iter().for_each(|segment| pipe.queued.push(segment));
            }
        }
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if socket.shutdown == Shutdown::Asked && socket.send != Send::InFlight {
            socket.shutdown = Shutdown::Done;
            if let Some(conn) = self.conns.get_mut(key) {
                conn.pipes[side].fin = conn.pipes[side].fin.max_queued();
            }
        }
        self.kick(key, side);
    }

    /// The side's owner gives it up: what it sent still arrives, unless it left bytes unread.
    pub(super) fn abandon(&mut self, key: Key, side: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let unread = conn.pipes[1 - side].inbox.len > 0;
        conn.ends[side].owner = Owner::Gone;
        conn.pipes[1 - side].inbox.clear();
        if conn.ends[1 - side].owner == Owner::Gone {
            self.conns.remove(key);
            return;
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        if unread && conn.ends[side].error.is_none() {
            conn.pipes[side].queued.clear();
            self.schedule_soon(Event::Reset(key, 1 - side));
        } else if conn.ends[side].error.is_none() {
            conn.pipes[side].fin = conn.pipes[side].fin.max_queued();
            self.kick(key, side);
        }
        self.kick(key, 1 - side);
    }

    /// Puts the side's socket into its driver's queue.
    pub(super) fn wake(&mut self, key: Key, side: usize) {
        if let Some(Owner::Socket(id)) = self.owner(key, side) {
            self.enqueue(id);
        }
    }

    /// Puts a socket with something to do into its driver's queue.
    pub(super) fn enqueue(&mut self, id: Key) {
        if !self.wants_turn(id) {
            return;
        }
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if !std::mem::replace(&mut socket.queued, true) {
            self.drivers[socket.driver].work.push_back(Work::Socket(id));
        }
    }

    pub(super) fn enqueue_listener(&mut self, key: Key) {
        let Some(listener) = self.listeners.get_mut(key) else { return };
        if !listener.waiting.is_empty() && !std::mem::replace(&mut listener.queued, true) {
            self.drivers[listener.driver].work.push_back(Work::Listener(key));
        }
    }

    /// Whether a turn of the socket would give a completion.
    pub(super) fn wants_turn(&self, id: Key) -> bool {
        let Some(socket) = self.sockets.get(id) else { return false };
        match socket.phase {
            Phase::Connecting | Phase::Dead => false,
            Phase::Settled(_) => true,
            Phase::Open => {
                matches!(socket.send, Send::Ended(_))
                    || (socket.receive.is_some() && self.is_readable(socket))
            }
        }
    }

    pub(super) fn is_readable(&self, socket: &Socket) -> bool {
        self.conns.get(socket.conn).is_some_and(|conn| {
            let pipe = &conn.pipes[1 - socket.side];
            let ended = pipe.fin == Fin::Delivered || conn.ends[socket.side].error.is_some();
            pipe.inbox.len > 0 || ended
        })
    }
}

impl Fin {
    /// The end was asked for, and may have been before.
    fn max_queued(self) -> Self {
        if self == Self::Delivered { Self::Delivered } else { Self::Queued }
    }
}
