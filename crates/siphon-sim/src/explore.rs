//! Random conversations under random faults, and what must hold of them.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use siphon_msgr::{Connection, SessionCounts};
use siphon_proto::{Message, MessageHeader, OutMessage, Payload, Policy, Priority};
use siphon_wire::types::EntityType;

use crate::ledger::{CLASSES, Ledger};
use crate::net::{Fault, FaultCounts, NetOptions};
use crate::random::Random;
use crate::world::{FAST, News, NodeId, NodeOptions, QUEUED, World};

/// After the last fault, all has to have arrived within this virtual time.
const SETTLE: Duration = Duration::from_secs(600);

macro_rules! kinds {
    ($($kind:ident $name:literal $doc:literal;)*) => {
        /// What may happen in a run, beside messages.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = $doc] $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    Cut "cut" "Connections are reset at any byte.";
    Close "close" "Connections end in mid-stream.";
    HalfOpen "half-open" "Connections fall silent.";
    Stall "stall" "Connections pause.";
    Refuse "refuse" "Connects are refused.";
    Partition "partition" "Hosts do not reach each other for a while.";
    Restart "restart" "Nodes crash and come back.";
    MarkDown "mark-down" "Applications end their connections.";
    Large "large" "Messages of more than a few kilobytes.";
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("there is no '{name}': one of {}", names.join(", "))
        })
    }
}

/// A run: all that happens follows from this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where all choices come from.
    pub seed: u64,
    /// How many things the applications do before the faults end.
    pub steps: u32,
    /// What does not happen.
    pub without: BTreeSet<Kind>,
}

impl Plan {
    /// Steps of a run, if nothing else is asked for.
    pub const DEFAULT_STEPS: u32 = 150;

    /// With everything that can happen.
    pub fn new(seed: u64) -> Self {
        Self { seed, steps: Self::DEFAULT_STEPS, without: BTreeSet::new() }
    }

    fn has(&self, kind: Kind) -> bool {
        !self.without.contains(&kind)
    }
}

impl fmt::Display for Plan {
    /// The command that runs it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cargo xtask sim --seed {} --steps {}", self.seed, self.steps)?;
        for kind in &self.without {
            write!(f, " --without {}", kind.name())?;
        }
        Ok(())
    }
}

/// What a run, or many, went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Runs.
    pub seeds: u64,
    /// Faults that took effect.
    pub faults: FaultCounts,
    /// What became of sessions.
    pub sessions: SessionCounts,
    /// Messages that applications got.
    pub messages: u64,
    /// Virtual time.
    pub time: Duration,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.faults = self.faults + other.faults;
        self.sessions += other.sessions;
        self.messages += other.messages;
        self.time += other.time;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seeds:    {}", self.seeds)?;
        writeln!(f, "faults:   {}", self.faults)?;
        writeln!(f, "sessions: {}", self.sessions)?;
        writeln!(f, "messages: {} delivered", self.messages)?;
        write!(f, "time:     {:.0} s simulated", self.time.as_secs_f64())
    }
}

/// A run in which something did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What.
    pub what: String,
    /// The last things that happened on the network.
    pub trace: Vec<String>,
}

/// Runs a plan.
///
/// # Errors
/// What did not hold.
pub fn run(plan: &Plan) -> Result<Summary, Box<Failure>> {
    let run = AssertUnwindSafe(|| {
        let mut run = Run::new(plan);
        match run.go() {
            Ok(()) => Ok(run.summary()),
            Err(what) => Err(Box::new(Failure { what, trace: run.world.net.trace() })),
        }
    });
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let what = format!("a panic: {}", text.unwrap_or_default());
        Err(Box::new(Failure { what, trace: Vec::new() }))
    })
}

/// Who speaks with whom, and how.
#[derive(Clone, Copy, Debug)]
struct Cast {
    /// What connects; also what accepts, if all are alike.
    connects: (EntityType, Policy),
    accepts: Option<(EntityType, Policy)>,
}

const CASTS: &[Cast] = &[
    Cast { connects: (EntityType::OSD, Policy::LOSSLESS_PEER), accepts: None },
    Cast { connects: (EntityType::MON, Policy::LOSSLESS_PEER_REUSE), accepts: None },
    Cast {
        connects: (EntityType::CLIENT, Policy::LOSSLESS_CLIENT),
        accepts: Some((EntityType::MDS, Policy::STATEFUL_SERVER)),
    },
    Cast {
        connects: (EntityType::CLIENT, Policy::LOSSY_CLIENT),
        accepts: Some((EntityType::OSD, Policy::STATELESS_SERVER)),
    },
    Cast {
        connects: (EntityType::CLIENT, Policy::LOSSY_CLIENT),
        accepts: Some((EntityType::MGR, Policy::STATELESS_REGISTERED_SERVER)),
    },
];

struct Run<'a> {
    plan: &'a Plan,
    random: Random,
    world: World,
    cast: Cast,
    /// The first so many nodes accept only.
    servers: usize,
    ledger: Ledger,
    /// Connections of nodes, to answer or to end: whose, with whom.
    open: Vec<(NodeId, NodeId, Connection)>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan) -> Self {
        let mut random = Random::new(plan.seed ^ 0x5350_484f_4e00_0000);
        let options = net_options(plan, &mut random);
        let mut world = World::new(plan.seed, options);
        let cast = CASTS[random.below(CASTS.len() as u64) as usize];
        let count = 2 + random.below(3) as usize;
        let servers = match cast.accepts {
            Some(_) => 1 + random.below(count as u64 - 1) as usize,
            None => 0,
        };
        for index in 0..count {
            let (kind, policy) = match cast.accepts {
                Some(accepts) if index < servers => accepts,
                _ => cast.connects,
            };
            let mut options = NodeOptions::new(kind, index as i64, policy);
            options.nonce = 100 + index as u32;
            options.listens = cast.accepts.is_none() || index < servers;
            options.workers = 1 + random.below(2) as usize;
            if random.chance(0.3) {
                options.dispatch_bytes = 1 << (10 + random.below(6));
            }
            if random.chance(0.3) {
                options.throttles = (1 << (8 + random.below(9)), random.below(5));
            }
            if random.chance(0.2) {
                options.send_bound = 1 << (10 + random.below(8));
            }
            world.add(options);
        }
        let ledger = Ledger::default();
        Self { plan, random, world, cast, servers, ledger, open: Vec::new() }
    }

    fn summary(&self) -> Summary {
        Summary {
            seeds: 1,
            faults: self.world.net.counts(),
            sessions: self.world.session_counts(),
            messages: self.ledger.delivered,
            time: self.world.net.elapsed(),
        }
    }

    fn go(&mut self) -> Result<(), String> {
        for _ in 0..self.plan.steps {
            self.act();
            let pause = match self.random.below(8) {
                0 => Duration::from_millis(self.random.below(3000)),
                1..=3 => Duration::from_millis(self.random.below(30)),
                4 => Duration::ZERO,
                _ => Duration::from_micros(self.random.below(3000)),
            };
            self.run_for(pause)?;
        }
        self.world.net.end_faults();
        self.settle_down()?;
        self.ledger.check_complete()?;
        self.prove_alive()?;
        self.world.shut_down()?;
        self.take_news()
    }

    /// Lets time pass, checking all that arrives.
    fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let end = self.world.now() + time;
        loop {
            let random = &mut self.random;
            self.world.settle(&mut |below| random.below(below as u64) as usize)?;
            self.take_news()?;
            if self.world.next_event().is_none_or(|at| at > end) {
                self.world.advance(end);
                return Ok(());
            }
            self.world.advance(end);
        }
    }

    /// Waits until all has arrived that will.
    fn settle_down(&mut self) -> Result<(), String> {
        let end = self.world.now() + SETTLE;
        while self.world.now() < end {
            if self.ledger.check_complete().is_ok() && self.random.below(4) == 0 {
                return Ok(());
            }
            self.run_for(Duration::from_secs(1))?;
        }
        Ok(())
    }

    /// Everybody who may connect gets a message through, whatever happened before.
    fn prove_alive(&mut self) -> Result<(), String> {
        let mut waiting = Vec::new();
        for (from, to) in self.pairs() {
            let flow = self.flow_to(from, to);
            if let Some(sent) = self.say(flow, 0, 16) {
                waiting.push((from, to, flow, sent));
            }
        }
        let end = self.world.now() + SETTLE;
        while self.world.now() < end {
            let ledger = &self.ledger;
            waiting.retain(|(_, _, flow, sent)| !ledger.has_arrived(*flow, 0, *sent));
            if waiting.is_empty() {
                return self.ledger.check_complete();
            }
            self.run_for(Duration::from_secs(1))?;
            for (from, to, flow, sent) in &mut waiting {
                // What was under way when a session ended, or was reset, is said once more.
                if !self.ledger.has_arrived(*flow, 0, *sent)
                    && self.ledger.is_excused(*flow, 0, *sent)
                {
                    *flow = self.flow_to(*from, *to);
                    *sent = self.say(*flow, 0, 16).unwrap_or(*sent);
                }
            }
        }
        let stuck = waiting.iter().map(|(from, to, flow, _)| {
            let connection = self.ledger.connection(*flow);
            let fault = connection.last_fault().map(|fault| fault.to_string());
            let open = connection.is_connected();
            format!("{} to {} (open: {open}, last fault: {fault:?})", from.0, to.0)
        });
        let stuck: Vec<_> = stuck.collect();
        Err(format!("of {:?}, nothing comes through any more: {}", self.cast, stuck.join(", ")))
    }

    /// Who may connect to whom.
    fn pairs(&self) -> Vec<(NodeId, NodeId)> {
        let count = self.world.len();
        let targets = if self.servers > 0 { self.servers } else { count };
        let mut pairs = Vec::new();
        for from in self.servers..count {
            pairs
                .extend((0..targets).filter(|to| *to != from).map(|to| (NodeId(from), NodeId(to))));
        }
        pairs
    }

    fn flow_to(&mut self, from: NodeId, to: NodeId) -> usize {
        let connection = self.world.connect(from, to);
        self.know(from, to, &connection);
        self.ledger.flow(from, to, &connection, self.is_lossless())
    }

    fn is_lossless(&self) -> bool {
        !self.cast.connects.1.lossy
    }

    /// Remembers a connection, to answer on it or to end it.
    fn know(&mut self, node: NodeId, peer: NodeId, connection: &Connection) {
        if !self.open.iter().any(|(_, _, known)| known == connection) {
            self.open.push((node, peer, connection.clone()));
        }
    }

    fn act(&mut self) {
        match self.random.below(100) {
            0..=59 => self.send_some(),
            60..=71 => self.answer_some(),
            72..=75 => {
                if let Some((_, _, connection)) = self.pick_open() {
                    connection.keepalive();
                }
            }
            76..=91 => self.break_something(),
            92..=94 if self.plan.has(Kind::MarkDown) => self.mark_down(),
            95..=96 if self.plan.has(Kind::Restart) => self.restart(),
            _ => {}
        }
    }

    fn send_some(&mut self) {
        let pairs = self.pairs();
        let (from, to) = pairs[self.random.below(pairs.len() as u64) as usize];
        let flow = self.flow_to(from, to);
        self.burst(flow);
        // Both connect at the same time.
        if self.servers == 0 && self.random.chance(0.3) {
            let flow = self.flow_to(to, from);
            self.burst(flow);
        }
    }

    fn answer_some(&mut self) {
        if let Some((node, peer, connection)) = self.pick_open() {
            let lossless = self.is_lossless();
            let flow = self.ledger.flow(node, peer, &connection, lossless);
            self.burst(flow);
        }
    }

    fn pick_open(&mut self) -> Option<(NodeId, NodeId, Connection)> {
        self.open.retain(|(_, _, connection)| connection.close_reason().is_none());
        if self.open.is_empty() {
            return None;
        }
        Some(self.open[self.random.below(self.open.len() as u64) as usize].clone())
    }

    fn burst(&mut self, flow: usize) {
        for _ in 0..=self.random.below(8) {
            let class = self.random.below(CLASSES as u64) as usize;
            let len = match self.random.below(20) {
                0 if self.plan.has(Kind::Large) => self.random.log_below(150_000) as usize,
                1..=4 => 4096,
                _ => self.random.below(300) as usize,
            };
            self.say(flow, class, len);
        }
    }

    /// Sends one message; its number, if the connection takes it.
    fn say(&mut self, flow: usize, class: usize, len: usize) -> Option<u64> {
        let number = self.ledger.send(flow, class);
        let connection = self.ledger.connection(flow);
        let sent = connection.send(message(flow, class, number, len)).is_ok();
        if !sent {
            self.ledger.unsend(flow, class);
        }
        sent.then_some(number)
    }

    fn break_something(&mut self) {
        let fault = match self.random.below(10) {
            0..=4 => (Kind::Cut, Fault::Cut),
            5 | 6 => (Kind::Close, Fault::Close),
            7 => (Kind::HalfOpen, Fault::HalfOpen),
            8 => (Kind::Stall, Fault::Stall(Duration::from_millis(self.random.below(5000)))),
            _ => return self.partition(),
        };
        if self.plan.has(fault.0) {
            self.world.net.inject(fault.1);
        }
    }

    fn partition(&mut self) {
        if !self.plan.has(Kind::Partition) {
            return;
        }
        let hosts: Vec<_> = (0..self.world.len()).map(|at| self.world.ip(NodeId(at))).collect();
        let at = 1 + self.random.below(hosts.len() as u64 - 1) as usize;
        let (left, right) = hosts.split_at(at);
        let time = Duration::from_millis(self.random.below(20_000));
        self.world.net.partition(left, right, time);
    }

    fn mark_down(&mut self) {
        if let Some((node, peer, connection)) = self.pick_open() {
            connection.mark_down();
            self.ledger.closed(&connection);
            self.ledger.forget(node, peer);
        }
    }

    fn restart(&mut self) {
        let id = NodeId(self.random.below(self.world.len() as u64) as usize);
        self.ledger.crashed(id, self.world.len());
        self.open.retain(|(node, ..)| *node != id);
        // Under its address, or as somebody who is not known yet.
        let generation = self.world.generation(id) as u32;
        let fresh = self.random.chance(0.7);
        let nonce = 100 + id.0 as u32 + if fresh { (generation + 1) * 1000 } else { 0 };
        self.world.restart(id, nonce);
    }

    /// Checks what nodes were told.
    fn take_news(&mut self) -> Result<(), String> {
        for id in (0..self.world.len()).map(NodeId) {
            for news in self.world.take_news(id) {
                match news {
                    News::Message(connection, message) => {
                        let (flow, class, number) = parse(&message)?;
                        self.ledger.arrive(id, &connection, flow, class, number)?;
                    }
                    News::Accept(connection) => {
                        if let Some(peer) = connection.peer() {
                            self.know(id, NodeId(peer.name.num as usize), &connection);
                        }
                    }
                    News::RemoteReset(connection) => self.remote_reset(&connection)?,
                    News::Reset(connection, reason) => {
                        self.ledger.closed(&connection);
                        if self.is_lossless() && !self.is_disruptive() {
                            return Err(format!("a lossless connection ended: {reason}"));
                        }
                    }
                    News::Connect(_) | News::Refused(_) => {}
                }
            }
        }
        Ok(())
    }

    fn remote_reset(&mut self, connection: &Connection) -> Result<(), String> {
        if !self.is_disruptive() {
            return Err("a session was reset, and nobody had forgotten it".to_owned());
        }
        self.ledger.remote_reset(connection);
        Ok(())
    }

    /// Whether anybody may forget anything.
    fn is_disruptive(&self) -> bool {
        self.plan.has(Kind::MarkDown) || self.plan.has(Kind::Restart)
    }
}

/// Half of the runs have hardly a connection that lives, the others now and then a fault.
fn net_options(plan: &Plan, random: &mut Random) -> NetOptions {
    let often = random.chance(0.5);
    let scale = if often { 0.18 } else { 0.05 };
    let mut chance = |kind, weight: f64| {
        let drawn = scale * weight * random.unit();
        if plan.has(kind) { drawn } else { 0.0 }
    };
    let options = NetOptions {
        cut: chance(Kind::Cut, 2.0),
        close: chance(Kind::Close, 1.0),
        half_open: chance(Kind::HalfOpen, 0.5),
        stall: chance(Kind::Stall, 0.5),
        refuse: chance(Kind::Refuse, 0.5),
        ..NetOptions::default()
    };
    NetOptions {
        latency_max: Duration::from_micros(20 + random.log_below(20_000)),
        max_piece: 1 << (9 + random.below(8)),
        buffer_min: 4 << 10,
        buffer_max: 64 << 10,
        fault_bytes: 64 << 10,
        stall_max: Duration::from_secs(8),
        connect_timeout: Duration::from_secs(20),
        tell_within: Duration::from_secs(10),
        ..options
    }
}

/// A message that tells where it belongs.
fn message(flow: usize, class: usize, number: u64, len: usize) -> OutMessage {
    let mut front = BytesMut::with_capacity(9);
    front.put_u64_le(flow as u64);
    front.put_u8(class as u8);
    let header = MessageHeader {
        msg_type: if class & 1 == 0 { FAST } else { QUEUED },
        tid: number,
        priority: if class & 2 == 0 { Priority::DEFAULT } else { Priority::HIGHEST },
        ..Default::default()
    };
    let data = Bytes::from(vec![number as u8; len]).into();
    OutMessage::new(header, Payload { front: front.freeze().into(), data, ..Default::default() })
}

fn parse(message: &Message) -> Result<(usize, usize, u64), String> {
    let Payload { front, data, .. } = &message.payload;
    let number = message.header.tid;
    let whole = data.segments().iter().all(|part| part.iter().all(|byte| *byte == number as u8));
    match front[..] {
        [a, b, c, d, e, f, g, h, class] if whole && usize::from(class) < CLASSES => {
            let flow = u64::from_le_bytes([a, b, c, d, e, f, g, h]) as usize;
            Ok((flow, usize::from(class), number))
        }
        _ => Err(format!("message {number} is not as it was sent")),
    }
}
