//! Two nodes, a conversation between them, and a fault at a byte of it.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its share")]

use std::time::Duration;

use siphon_msgr::Connection;
use siphon_proto::{MessageHeader, OutMessage, Payload, Policy};
use siphon_sim::net::{Direction, Fault, FaultPlan, NetOptions};
use siphon_sim::world::{FAST, News, NodeId, NodeOptions, World};
use siphon_wire::types::EntityType;

/// Both ways of a connection.
pub const WAYS: [Direction; 2] = [Direction::ToServer, Direction::ToClient];
/// How a connection may break so that somebody is told.
pub const BREAKS: [Fault; 2] = [Fault::Cut, Fault::Close];
/// Enough virtual time to come back after a fault that is told, and no session is idle for so long.
pub const SOON: Duration = Duration::from_secs(15);
/// Enough virtual time for anything to be over, faults that nobody is told of among it.
pub const LONG: Duration = Duration::from_secs(200);

/// What a node was told, without what it was told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Numbers of messages.
    pub messages: Vec<u64>,
    pub connects: usize,
    pub accepts: usize,
    pub resets: usize,
    pub remote_resets: usize,
}

/// Two nodes: the first usually connects to the second.
pub struct Pair {
    pub world: World,
    pub nodes: [NodeId; 2],
    /// The first one's connection, once it has one.
    pub connection: Option<Connection>,
    /// Those that each was told of as accepted.
    pub accepted: [Vec<Connection>; 2],
    pub told: [Told; 2],
    sent: [u64; 2],
}

impl Pair {
    /// The policy of each towards the other; whoever does not listen is a client.
    pub fn new(first: Policy, second: Policy) -> Self {
        let mut world = World::new(7, NetOptions::default());
        world.config_mut().ms_connection_idle_timeout = Duration::from_secs(20);
        let peer = !second.server;
        let (kind, other) = match peer {
            true => (EntityType::OSD, EntityType::OSD),
            false => (EntityType::CLIENT, EntityType::MDS),
        };
        let mut options = NodeOptions::new(kind, 0, first);
        options.listens = peer;
        options.nonce = if peer { 0 } else { 7 };
        let nodes = [world.add(options), world.add(NodeOptions::new(other, 1, second))];
        let (accepted, told) = Default::default();
        Self { world, nodes, connection: None, accepted, told, sent: [0; 2] }
    }

    /// Between equals.
    pub fn peers() -> Self {
        Self::new(Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER)
    }

    /// The first connection from `from` breaks after so many bytes of a way.
    pub fn break_first(&mut self, from: usize, fault: Fault, direction: Direction, after: u64) {
        let [from, to] = [self.nodes[from], self.nodes[1 - from]].map(|id| self.world.ip(id));
        self.world.net.on_connect(from, to, 0, FaultPlan { fault, direction, after });
    }

    /// The connection of `from` to the other.
    pub fn connect(&mut self, from: usize) -> Connection {
        let connection = self.world.connect(self.nodes[from], self.nodes[1 - from]);
        if from == 0 {
            self.connection = Some(connection.clone());
        }
        connection
    }

    /// Sends so many messages.
    pub fn send(&mut self, from: usize, count: u64) -> Connection {
        let connection = self.connect(from);
        self.send_on(from, &connection, count);
        connection
    }

    /// The same over a connection that there is.
    pub fn send_on(&mut self, from: usize, connection: &Connection, count: u64) {
        for _ in 0..count {
            self.sent[from] += 1;
            let tid = self.sent[from];
            let header = MessageHeader { msg_type: FAST, tid, ..Default::default() };
            connection.send(OutMessage::new(header, Payload::default())).unwrap();
        }
    }

    /// Lets time pass, and takes what was told.
    pub fn run(&mut self, time: Duration) {
        self.world.run_for(time).unwrap();
        for (at, id) in self.nodes.into_iter().enumerate() {
            let told = &mut self.told[at];
            for news in self.world.take_news(id) {
                match news {
                    News::Message(_, message) => told.messages.push(message.header.tid),
                    News::Connect(_) => told.connects += 1,
                    News::Accept(connection) => {
                        told.accepts += 1;
                        self.accepted[at].push(connection);
                    }
                    News::Reset(..) => told.resets += 1,
                    News::RemoteReset(_) => told.remote_resets += 1,
                    News::Refused(_) => {}
                }
            }
        }
    }

    /// Bytes of each way that it takes to open a session.
    pub fn handshake(first: Policy, second: Policy) -> [u64; 2] {
        let mut pair = Self::new(first, second);
        pair.connect(0);
        pair.run(Duration::from_secs(1));
        let conn = pair.world.net.connections()[0];
        [conn.to_server, conn.to_client]
    }

    /// Every message came once and in order, at both ends.
    pub fn assert_all_came(&self, what: &str) {
        for at in [0, 1] {
            let expected: Vec<u64> = (1..=self.sent[1 - at]).collect();
            assert_eq!(self.told[at].messages, expected, "node {at}, {what}");
        }
    }
}

/// Has a conversation broken at every byte of a range, in both ways, and looks at what came of it.
pub fn at_every_byte(
    first: Policy,
    second: Policy,
    range: impl Fn(u64) -> std::ops::Range<u64>,
    check: impl Fn(&mut Pair, &str),
) {
    let handshake = Pair::handshake(first, second);
    for (way, length) in WAYS.into_iter().zip(handshake) {
        for fault in BREAKS {
            for after in range(length) {
                let mut pair = Pair::new(first, second);
                pair.break_first(0, fault, way, after);
                pair.send(0, 3);
                pair.run(SOON);
                check(&mut pair, &format!("{fault:?} after byte {after} of {length} {way:?}"));
            }
        }
    }
}
