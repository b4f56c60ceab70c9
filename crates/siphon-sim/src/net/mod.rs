//! The network of the simulator.
//!
//! A [`Net`] has hosts, each an IP address; [`Net::driver`] makes a worker's share of a host's
//! stack. Nothing happens by itself: [`Net::advance_to`] moves the time and lets happen what is
//! due, and a driver's `wait` gives what is there, and never blocks.
//!
//! ```
//! use siphon_net::{Completion, ListenOptions, SocketOptions, Wait};
//! use siphon_sim::net::{Net, NetOptions};
//!
//! let net = Net::new(42, NetOptions::default());
//! let mut server = net.driver("10.0.0.1".parse().unwrap());
//! let mut client = net.driver("10.0.0.2".parse().unwrap());
//! let (_, addr) =
//!     server.listen("10.0.0.1:6789".parse().unwrap(), &ListenOptions::default()).unwrap();
//! let socket = client.connect(addr, &SocketOptions::default()).unwrap();
//! while let Some(at) = net.next_event() {
//!     net.advance_to(at);
//! }
//! let mut connected = false;
//! client
//!     .wait(Wait::Poll, &mut |_, completion| {
//!         connected |= matches!(completion, Completion::Connected { result: Ok(()), .. });
//!     })
//!     .unwrap();
//! assert!(connected, "{socket:?}");
//! ```

mod conn;
mod driver;
mod engine;
mod fault;
mod slab;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use siphon_net::Driver;

use conn::Owner;
use driver::SimDriver;
use engine::{DriverState, Event, Partition, State};
pub use fault::{Direction, Fault, FaultCounts, FaultPlan};
use slab::Key;

/// How a network behaves. The default has no faults of its own.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// Least time that a piece of bytes, or a step of connecting, is on its way.
    pub latency_min: Duration,
    /// Most time of it.
    pub latency_max: Duration,
    /// Most bytes that arrive at once; at least 1.
    pub max_piece: usize,
    /// Least bytes, sent and not yet read, that a direction holds; at least 1.
    pub buffer_min: usize,
    /// Most bytes of it. Each direction draws its own.
    pub buffer_max: usize,
    /// How likely a receive's own buffer is filled.
    pub use_fill: f64,
    /// After how long a connect without an answer fails.
    pub connect_timeout: Duration,
    /// How likely a new connection gets a [`Fault::Cut`]. The sum of this and the next four is 1
    /// at most: a connection gets one fault.
    pub cut: f64,
    /// How likely a [`Fault::Close`].
    pub close: f64,
    /// How likely a [`Fault::HalfOpen`].
    pub half_open: f64,
    /// How likely a [`Fault::Stall`].
    pub stall: f64,
    /// How likely a [`Fault::Refuse`].
    pub refuse: f64,
    /// Drawn faults hit after fewer bytes than this, each order of magnitude as likely as another.
    pub fault_bytes: u64,
    /// How likely a drawn fault waits for a time instead of a byte.
    pub fault_by_time: f64,
    /// Most time for which such a fault waits.
    pub fault_within: Duration,
    /// Longest drawn stall.
    pub stall_max: Duration,
    /// How likely one side of a half-open connection learns of it.
    pub tell_half_open: f64,
    /// Most time until then.
    pub tell_within: Duration,
    /// How likely a crash is silent to a peer, instead of a reset.
    pub silent_crash: f64,
    /// Lines of trace that are kept; 0 makes none.
    pub trace_lines: usize,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            latency_min: Duration::from_micros(20),
            latency_max: Duration::from_millis(2),
            max_piece: 64 << 10,
            buffer_min: 16 << 10,
            buffer_max: 256 << 10,
            use_fill: 0.5,
            connect_timeout: Duration::from_secs(127),
            cut: 0.0,
            close: 0.0,
            half_open: 0.0,
            stall: 0.0,
            refuse: 0.0,
            fault_bytes: 1 << 20,
            fault_by_time: 0.25,
            fault_within: Duration::from_secs(5),
            stall_max: Duration::from_secs(30),
            tell_half_open: 0.5,
            tell_within: Duration::from_secs(60),
            silent_crash: 0.5,
            trace_lines: 200,
        }
    }
}

/// One of a network's drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverId(usize);

/// One of a network's connections, from the connect to its last side's close.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(Key);

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({:?})", self.0)
    }
}

/// A connection, as [`Net::connections`] lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// Which.
    pub id: ConnId,
    /// The end that connected.
    pub client: SocketAddr,
    /// The end that accepts.
    pub server: SocketAddr,
    /// Bytes that arrived at the server, read or not.
    pub to_server: u64,
    /// Bytes that arrived at the client.
    pub to_client: u64,
    /// Whether it is open, and neither side knows of an end.
    pub live: bool,
}

/// A simulated network. Clones are the same network; all of it stays in one thread.
#[derive(Clone, Debug)]
pub struct Net {
    state: Rc<RefCell<State>>,
}

impl Net {
    /// A network whose every choice follows from `seed`.
    pub fn new(seed: u64, options: NetOptions) -> Self {
        #[expect(clippy::disallowed_methods, reason = "only differences to this base are seen")]
        let start = Instant::now();
        Self { state: Rc::new(RefCell::new(State::new(seed, options, start))) }
    }

    /// A worker's share of the stack of `host`. Several of one host can adopt each other's sockets.
    pub fn driver(&self, host: IpAddr) -> Box<dyn Driver> {
        self.driver_with_id(host).1
    }

    /// As [`driver`](Self::driver), with its name for the scheduler.
    pub fn driver_with_id(&self, host: IpAddr) -> (DriverId, Box<dyn Driver>) {
        let mut state = self.state.borrow_mut();
        state.host(host);
        let index = state.drivers.len();
        let woken = Arc::default();
        let work = VecDeque::new();
        state.drivers.push(DriverState { host, woken, work, dead: false });
        drop(state);
        (DriverId(index), Box::new(SimDriver::new(Rc::clone(&self.state), index)))
    }

    /// Whether a `wait` of the driver would give something, or it was woken.
    ///
    /// Mail is not seen here: a mailbox wakes only a worker that sleeps, and one that is stepped
    /// has taken its mail and is awake. Step the workers in turn until none applies anything.
    pub fn has_work(&self, driver: DriverId) -> bool {
        let mut state = self.state.borrow_mut();
        state.sweep();
        state.drivers.get(driver.0).is_some_and(|driver| {
            !driver.dead && (!driver.work.is_empty() || driver.woken.is_set())
        })
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.state.borrow().now
    }

    /// The virtual time since the network was made.
    pub fn elapsed(&self) -> Duration {
        let state = self.state.borrow();
        state.now - state.start
    }

    /// When the next thing happens on the network.
    pub fn next_event(&self) -> Option<Instant> {
        let mut state = self.state.borrow_mut();
        state.sweep();
        state.next_event()
    }

    /// Lets happen what is due until `to`, in the order of time, and moves the time there.
    pub fn advance_to(&self, to: Instant) {
        self.state.borrow_mut().advance_to(to);
    }

    /// Lets a fault happen now to a live connection that the seed chooses, in a direction that it
    /// chooses. `None` where there is no connection that it could happen to.
    pub fn inject(&self, fault: Fault) -> Option<ConnId> {
        let mut state = self.state.borrow_mut();
        let places = state.conns.places();
        let first = state.random.below(places as u64) as usize;
        let side = state.random.below(2) as usize;
        let key = (0..places)
            .filter_map(|step| state.conns.key_at((first + step) % places))
            .find(|&key| state.is_live(key))?;
        state.strike(key, side, fault).then_some(ConnId(key))
    }

    /// Lets a fault happen now to a connection. Whether it took effect: not on one that ended.
    pub fn inject_on(&self, conn: ConnId, direction: Direction, fault: Fault) -> bool {
        self.state.borrow_mut().strike(conn.0, direction.index(), fault)
    }

    /// Lets a fault happen to a connection when its byte has come, which may be now. Whether there
    /// is such a connection.
    pub fn plan(&self, conn: ConnId, plan: FaultPlan) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(entry) = state.conns.get_mut(conn.0) else { return false };
        entry.plans.push(plan);
        state.strike_due(conn.0);
        true
    }

    /// Plans a [`Fault::Cut`] after exactly `bytes` of a direction.
    pub fn cut_after(&self, conn: ConnId, direction: Direction, bytes: u64) -> bool {
        self.plan(conn, FaultPlan { fault: Fault::Cut, direction, after: bytes })
    }

    /// A rule: the connect from `from` to `to` before which `skip` others come gets this fault.
    pub fn on_connect(&self, from: IpAddr, to: IpAddr, skip: u64, plan: FaultPlan) {
        self.state.borrow_mut().rules.entry((from, to)).or_default().push((skip, plan));
    }

    /// Stops to deliver anything of a connection, until [`release`](Self::release).
    pub fn hold(&self, conn: ConnId) {
        if let Some(conn) = self.state.borrow_mut().conns.get_mut(conn.0) {
            conn.held = true;
        }
    }

    /// Goes on with a connection that was held.
    pub fn release(&self, conn: ConnId) {
        let mut state = self.state.borrow_mut();
        let Some(entry) = state.conns.get_mut(conn.0) else { return };
        entry.held = false;
        let resets = std::mem::take(&mut entry.late_reset);
        for side in [0, 1] {
            if resets[side] {
                state.schedule_soon(Event::Reset(conn.0, side));
            }
            state.kick(conn.0, side);
        }
    }

    /// Makes a half-open connection whole: what was under way arrives after all.
    pub fn heal(&self, conn: ConnId) {
        let mut state = self.state.borrow_mut();
        let Some(entry) = state.conns.get_mut(conn.0) else { return };
        entry.half_open = false;
        state.kick(conn.0, 0);
        state.kick(conn.0, 1);
    }

    /// Parts two sets of hosts for a time: bytes and connects wait.
    pub fn partition(&self, left: &[IpAddr], right: &[IpAddr], time: Duration) {
        let mut state = self.state.borrow_mut();
        state.counts.partitions += 1;
        let until = state.now + time;
        state.note(|| format!("partition of {left:?} and {right:?} for {time:?}"));
        let hosts = [left, right].map(|set| set.iter().copied().collect());
        state.partitions.push(Partition { hosts, until });
    }

    /// Ends all partitions.
    pub fn heal_partitions(&self) {
        let mut state = self.state.borrow_mut();
        state.partitions.clear();
        state.hasten();
    }

    /// Lets a host refuse, or take again, all connects.
    pub fn set_down(&self, host: IpAddr, down: bool) {
        self.state.borrow_mut().host(host).down = down;
    }

    /// Crashes a host: its sockets and listeners are gone, its drivers give no completion any more
    /// and can be dropped; new ones are its restart. A peer is reset, or told nothing.
    pub fn crash(&self, host: IpAddr) {
        let mut state = self.state.borrow_mut();
        state.sweep();
        state.counts.crashes += 1;
        state.note(|| format!("crash of {host}"));
        for index in 0..state.drivers.len() {
            if state.drivers[index].host == host {
                state.drivers[index].dead = true;
                state.drivers[index].work.clear();
            }
        }
        for key in state.sockets.keys() {
            if state.sockets.get(key).is_some_and(|s| state.drivers[s.driver].dead) {
                state.sockets.remove(key);
            }
        }
        for key in state.listeners.keys() {
            if state.listeners.get(key).is_some_and(|l| state.drivers[l.driver].dead) {
                state.listeners.remove(key);
            }
        }
        state.ports.retain(|&(ip, _), _| ip != host);
        for key in state.conns.keys() {
            state.lose_host(key, host);
        }
    }

    /// Ends all faults: none happens by itself any more, partitions and stalls are over, hosts are
    /// up, and half-open connections are reset. Connections held stay held.
    pub fn end_faults(&self) {
        let mut state = self.state.borrow_mut();
        state.faults_ended = true;
        state.partitions.clear();
        state.rules.clear();
        state.hosts.values_mut().for_each(|host| host.down = false);
        for key in state.conns.keys() {
            let Some(conn) = state.conns.get_mut(key) else { continue };
            conn.plans.clear();
            conn.refuse = false;
            conn.pipes.iter_mut().for_each(|pipe| pipe.stalled_until = None);
            if std::mem::take(&mut conn.half_open) {
                state.reset(key, 0);
                state.reset(key, 1);
            }
        }
        state.hasten();
    }

    /// How many faults took effect so far.
    pub fn counts(&self) -> FaultCounts {
        self.state.borrow().counts
    }

    /// The connections that at least one side still has.
    pub fn connections(&self) -> Vec<ConnInfo> {
        let state = self.state.borrow();
        let info = |key: Key| {
            let conn = state.conns.get(key)?;
            let [client, server] = conn.addrs;
            let [to_server, to_client] = [conn.pipes[0].delivered, conn.pipes[1].delivered];
            let live = state.is_live(key);
            Some(ConnInfo { id: ConnId(key), client, server, to_server, to_client, live })
        };
        state.conns.keys().into_iter().filter_map(info).collect()
    }

    /// What happened last, a line each, with the seconds since the network was made.
    pub fn trace(&self) -> Vec<String> {
        self.state.borrow().trace.iter().cloned().collect()
    }
}

impl State {
    /// Takes a crashed host's ends off a connection.
    fn lose_host(&mut self, key: Key, host: IpAddr) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let mut lost = None;
        for side in [0, 1] {
            let end = &mut conn.ends[side];
            if conn.addrs[side].ip() == host && end.owner != Owner::Gone {
                end.owner = Owner::Gone;
                lost = Some(side);
            }
        }
        let Some(side) = lost else { return };
        let peer = 1 - side;
        if conn.ends[peer].owner == Owner::Gone {
            self.conns.remove(key);
        } else if self.random.chance(self.options.silent_crash) {
            self.fall_silent(key);
        } else {
            for pipe in &mut conn.pipes {
                pipe.queued.clear();
            }
            self.schedule_soon(Event::Reset(key, peer));
        }
    }
}
