//! Sequences of operations on two entities, and what must hold of what arrives.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use siphon_proto::{
    CloseReason, Connection, ConnectionConfig, Event, MessageHeader, Met, OutMessage, Payload,
    Policy, Transmit,
};
use siphon_wire::types::EntityType;

use crate::Script;
use crate::sessions::{addr, answer, config, start};

/// A transport: bytes on their way to either end, and which ends are closed.
#[derive(Default)]
struct Pipe {
    bytes: [VecDeque<u8>; 2],
    closed: [bool; 2],
    /// Each end's connection; none if nobody has it any more.
    owner: [Option<Owner>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Main,
    Visitor,
}

/// One of the two.
struct Entity {
    config: ConnectionConfig,
    /// The session with the other.
    main: Option<Connection>,
    main_pipe: Option<usize>,
    /// Who knocks.
    visitors: Vec<(usize, Connection)>,
    /// Numbers of what was sent and of what arrived in this session.
    sent: u64,
    arrived: u64,
    /// The session's history at this end: a reset lets messages be missing.
    forgotten: bool,
}

struct World {
    now: Instant,
    lossless: bool,
    entities: [Entity; 2],
    pipes: Vec<Pipe>,
}

/// Runs the operations that `data` stands for.
pub fn run(data: &[u8]) {
    let mut input = Script::new(data);
    let kinds = [
        (Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER),
        (Policy::LOSSLESS_PEER_REUSE, Policy::LOSSLESS_PEER_REUSE),
        (Policy::LOSSLESS_CLIENT, Policy::STATEFUL_SERVER),
        (Policy::LOSSY_CLIENT, Policy::STATELESS_SERVER),
    ];
    let (first, second) = kinds[usize::from(input.byte()) % kinds.len()];
    let entity = |number: u8, policy| Entity {
        config: config(EntityType::OSD, addr(number), policy, u64::from(number) << 40),
        main: None,
        main_pipe: None,
        visitors: Vec::new(),
        sent: 0,
        arrived: 0,
        forgotten: false,
    };
    let mut world = World {
        now: start(),
        lossless: !first.lossy,
        entities: [entity(1, first), entity(2, second)],
        pipes: Vec::new(),
    };
    while !input.is_empty() && world.pipes.len() < 100 {
        world.act(&mut input);
        world.drain();
    }
}

impl World {
    fn act(&mut self, input: &mut Script<'_>) {
        let operation = input.byte();
        let side = usize::from(operation & 1);
        match operation >> 1 & 7 {
            0 | 1 => self.send(side),
            2..=4 => {
                self.deliver(side, usize::from(input.byte()) * usize::from(input.byte() / 16 + 1))
            }
            5 => self.cut(input.byte()),
            6 => self.pass(Duration::from_millis(u64::from(input.byte()) * 20)),
            _ => {
                if let Some(main) = &mut self.entities[side].main {
                    main.keepalive(self.now, Default::default());
                }
            }
        }
    }

    fn send(&mut self, side: usize) {
        let now = self.now;
        let entity = &mut self.entities[side];
        if entity.main.is_none() {
            if entity.config.policies.of(EntityType::OSD).server {
                return;
            }
            let target = addr(if side == 0 { 2 } else { 1 });
            let kind = Some(EntityType::OSD);
            entity.main = Some(Connection::connect(entity.config.clone(), target, kind, now));
            entity.main_pipe = None;
        }
        if let Some(main) = &mut entity.main {
            entity.sent += 1;
            let header = MessageHeader { tid: entity.sent, ..Default::default() };
            main.send(now, OutMessage::new(header, Payload::default()));
        }
    }

    fn deliver(&mut self, side: usize, count: usize) {
        for pipe in 0..self.pipes.len() {
            let waiting = &mut self.pipes[pipe].bytes[side];
            let bytes: Vec<u8> = waiting.drain(..count.min(waiting.len())).collect();
            let now = self.now;
            let ended =
                self.pipes[pipe].closed[1 - side] && self.pipes[pipe].bytes[side].is_empty();
            if let Some(connection) = self.connection(pipe, side) {
                if !bytes.is_empty() {
                    connection.handle_recv(now, None, &bytes[..]);
                } else if ended {
                    connection.handle_eof(now);
                }
            }
            self.drain();
        }
    }

    /// Breaks a transport: what is on its way is lost.
    fn cut(&mut self, which: u8) {
        if self.pipes.is_empty() {
            return;
        }
        let pipe = usize::from(which) % self.pipes.len();
        self.pipes[pipe].bytes = Default::default();
        for side in [0, 1] {
            let now = self.now;
            if let Some(connection) = self.connection(pipe, side) {
                connection.handle_lost(now);
            }
            self.drain();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        for entity in &mut self.entities {
            let visitors = entity.visitors.iter_mut().map(|(_, visitor)| visitor);
            for connection in entity.main.iter_mut().chain(visitors) {
                connection.handle_timeout(now);
            }
        }
    }

    fn connection(&mut self, pipe: usize, side: usize) -> Option<&mut Connection> {
        match self.pipes[pipe].owner[side]? {
            Owner::Main => self.entities[side].main.as_mut(),
            Owner::Visitor => {
                let visitors = &mut self.entities[side].visitors;
                visitors.iter_mut().find(|(at, _)| *at == pipe).map(|(_, visitor)| visitor)
            }
        }
    }

    /// Polls everybody until nothing is left to do.
    fn drain(&mut self) {
        for _ in 0..1000 {
            let mut busy = false;
            for side in [0, 1] {
                busy |= self.drain_main(side) | self.drain_visitors(side);
            }
            if !busy {
                return;
            }
        }
        panic!("they keep each other busy without a byte being delivered");
    }

    fn drain_main(&mut self, side: usize) -> bool {
        let Some(mut main) = self.entities[side].main.take() else { return false };
        let mut busy = false;
        let mut ended = false;
        while let Some(event) = main.poll_event() {
            busy = true;
            match event {
                Event::Auth(event) => main.handle_auth(self.now, answer(event)),
                Event::Connect(_) => {
                    self.close_pipe(side);
                    let pipe = self.open(side);
                    self.entities[side].main_pipe = Some(pipe);
                    main.handle_connected(self.now);
                }
                Event::Message(message) => self.arrive(side, message.header.tid),
                Event::RemoteReset => {
                    self.entities[side].forgotten = true;
                    self.entities[1 - side].forgotten = true;
                }
                Event::LinkDown { .. } => self.close_pipe(side),
                Event::Closed(reason) => {
                    assert!(!self.lossless || reason == CloseReason::Local, "{reason}");
                    ended = true;
                }
                Event::Knock => panic!("the session itself does not knock"),
                _ => {}
            }
        }
        if ended {
            self.close_pipe(side);
            self.entities[side].forgotten = true;
            self.entities[1 - side].forgotten = true;
            return true;
        }
        busy |= self.transmit(side, self.entities[side].main_pipe, &mut main);
        self.entities[side].main = Some(main);
        busy
    }

    fn drain_visitors(&mut self, side: usize) -> bool {
        let mut busy = false;
        for (pipe, mut visitor) in std::mem::take(&mut self.entities[side].visitors) {
            let mut met = None;
            let mut ended = false;
            while let Some(event) = visitor.poll_event() {
                busy = true;
                match event {
                    Event::Auth(event) => visitor.handle_auth(self.now, answer(event)),
                    Event::Knock => {
                        let existing = self.entities[side].main.as_mut();
                        met = Some(visitor.meet(self.now, existing));
                    }
                    Event::Closed(_) | Event::LinkDown { .. } => ended = true,
                    Event::Message(message) => self.arrive(side, message.header.tid),
                    _ => {}
                }
                if met == Some(Met::TakenOver) {
                    break;
                }
                if visitor.is_ready() && met.is_none() {
                    met = Some(Met::Admitted); // a lossy one, which nobody is asked about
                }
            }
            match met {
                Some(Met::TakenOver) => {
                    self.close_pipe(side);
                    self.entities[side].main_pipe = Some(pipe);
                    self.pipes[pipe].owner[side] = Some(Owner::Main);
                }
                Some(Met::Admitted | Met::Superseded) if !ended => {
                    self.close_pipe(side);
                    self.entities[side].main_pipe = Some(pipe);
                    self.pipes[pipe].owner[side] = Some(Owner::Main);
                    let entity = &mut self.entities[side];
                    // Only lossy sessions are replaced by another connection.
                    assert!(entity.main.is_none() || !self.lossless);
                    entity.main = Some(visitor);
                    entity.arrived = 0;
                    entity.forgotten = true;
                }
                _ if ended => self.pipes[pipe].drop_end(side),
                _ => {
                    busy |= self.transmit(side, Some(pipe), &mut visitor);
                    self.entities[side].visitors.push((pipe, visitor));
                }
            }
        }
        busy
    }

    fn transmit(&mut self, side: usize, pipe: Option<usize>, connection: &mut Connection) -> bool {
        let mut transmit = Transmit::default();
        let sent = connection.poll_transmit(self.now, &mut transmit, 1 << 20);
        if let Some(pipe) = pipe
            && !self.pipes[pipe].closed[1 - side]
        {
            self.pipes[pipe].bytes[1 - side].extend(transmit.out.to_bytes());
        }
        sent || connection.has_events()
    }

    /// Exactly once and in order; over a reset, and on a lossy session, at most once.
    fn arrive(&mut self, side: usize, number: u64) {
        let sent = self.entities[1 - side].sent;
        let entity = &mut self.entities[side];
        assert!(number <= sent, "message {number} of {sent}");
        assert!(number > entity.arrived, "message {number} after {}", entity.arrived);
        let strict = self.lossless && !entity.forgotten;
        assert!(!strict || number == entity.arrived + 1, "{number} after {}", entity.arrived);
        entity.arrived = number;
        entity.forgotten &= !self.lossless;
    }

    fn open(&mut self, client: usize) -> usize {
        let server = 1 - client;
        let pipe = self.pipes.len();
        let owner = match client {
            0 => [Some(Owner::Main), Some(Owner::Visitor)],
            _ => [Some(Owner::Visitor), Some(Owner::Main)],
        };
        self.pipes.push(Pipe { owner, ..Pipe::default() });
        let entity = &mut self.entities[server];
        let peer = addr(client as u8 + 1).with_port(40000);
        entity.visitors.push((pipe, Connection::accept(entity.config.clone(), peer, self.now)));
        pipe
    }

    fn close_pipe(&mut self, side: usize) {
        if let Some(pipe) = self.entities[side].main_pipe.take() {
            self.pipes[pipe].drop_end(side);
        }
    }
}

impl Pipe {
    fn drop_end(&mut self, side: usize) {
        self.closed[side] = true;
        self.owner[side] = None;
        self.bytes[side].clear();
    }
}
