//! What was sent, what arrived, and what may be missing.

use std::collections::{HashMap, HashSet};

use siphon_msgr::Connection;

use crate::world::NodeId;

/// Kinds of messages that keep their order among themselves: by way of dispatch and by priority.
pub(crate) const CLASSES: usize = 4;

/// A stream of numbered messages over one connection of its sender.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) connection: Connection,
    lossless: bool,
    /// The last number of each class.
    sent: [u64; CLASSES],
    /// Up to these numbers, messages may be lost: the sender was told so.
    declared: [u64; CLASSES],
    /// The sender's connection has ended.
    closed: bool,
    /// The highest number of each class that arrived at all.
    arrived: [u64; CLASSES],
    /// Numbers that were passed over: class, first, last.
    gaps: Vec<(usize, u64, u64)>,
}

/// All flows of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    flows: Vec<Flow>,
    by_connection: HashMap<Connection, usize>,
    /// The last number of each class that came over a connection of the receiver.
    last: HashMap<(usize, Connection), [u64; CLASSES]>,
    /// Who dropped, by its own will or in a crash, what it had of whom.
    forgot: HashSet<(NodeId, NodeId)>,
    pub(crate) delivered: u64,
}

impl Ledger {
    /// The flow over a connection; a new one if there was none.
    pub(crate) fn flow(
        &mut self,
        from: NodeId,
        to: NodeId,
        connection: &Connection,
        lossless: bool,
    ) -> usize {
        if let Some(flow) = self.by_connection.get(connection) {
            return *flow;
        }
        let index = self.flows.len();
        self.flows.push(Flow {
            from,
            to,
            connection: connection.clone(),
            lossless,
            sent: [0; CLASSES],
            declared: [0; CLASSES],
            closed: false,
            arrived: [0; CLASSES],
            gaps: Vec::new(),
        });
        self.by_connection.insert(connection.clone(), index);
        index
    }

    /// The number of the next message.
    pub(crate) fn send(&mut self, flow: usize, class: usize) -> u64 {
        let sent = &mut self.flows[flow].sent[class];
        *sent += 1;
        *sent
    }

    /// The last one was not taken.
    pub(crate) fn unsend(&mut self, flow: usize, class: usize) {
        self.flows[flow].sent[class] -= 1;
    }

    /// The peer had forgotten the session of a connection: what was sent until now may be lost.
    pub(crate) fn remote_reset(&mut self, connection: &Connection) {
        if let Some(flow) = self.by_connection.get(connection) {
            let flow = &mut self.flows[*flow];
            flow.declared = flow.sent;
        }
    }

    /// A connection has ended at its own side.
    pub(crate) fn closed(&mut self, connection: &Connection) {
        if let Some(flow) = self.by_connection.get(connection) {
            self.flows[*flow].closed = true;
        }
    }

    /// A node drops what it has of another.
    pub(crate) fn forget(&mut self, node: NodeId, peer: NodeId) {
        self.forgot.insert((node, peer));
    }

    /// A node crashed: all of its connections are gone.
    pub(crate) fn crashed(&mut self, node: NodeId, nodes: usize) {
        for flow in &mut self.flows {
            flow.closed |= flow.from == node;
        }
        self.forgot.extend((0..nodes).map(|peer| (node, NodeId(peer))));
    }

    /// A message arrived.
    pub(crate) fn arrive(
        &mut self,
        at: NodeId,
        connection: &Connection,
        flow: usize,
        class: usize,
        number: u64,
    ) -> Result<(), String> {
        let Some(known) = self.flows.get_mut(flow) else {
            return Err(format!("a message of flow {flow}, which nobody sends"));
        };
        let whose = format!("flow {flow} ({:?} to {:?}), class {class}", known.from, known.to);
        if known.to != at || number == 0 || number > known.sent[class] {
            return Err(format!("{whose}: message {number} at {at:?} was never sent there"));
        }
        self.delivered += 1;
        let here = self.last.entry((flow, connection.clone())).or_default();
        if number <= here[class] {
            return Err(format!("{whose}: message {number} after {}", here[class]));
        }
        here[class] = number;
        let arrived = &mut known.arrived[class];
        if number <= *arrived {
            // Over another connection of the receiver, which has forgotten what it had.
            if known.lossless && !self.forgot.contains(&(at, known.from)) {
                return Err(format!("{whose}: message {number} again, on a new connection"));
            }
            return Ok(());
        }
        if known.lossless && number > *arrived + 1 {
            known.gaps.push((class, *arrived + 1, number - 1));
        }
        *arrived = number;
        Ok(())
    }

    /// Flows that should have everything by now, and what each lacks.
    pub(crate) fn check_complete(&self) -> Result<(), String> {
        for (index, flow) in self.flows.iter().enumerate() {
            if !flow.lossless || self.forgot.contains(&(flow.to, flow.from)) {
                continue;
            }
            let whose = format!("flow {index} ({:?} to {:?})", flow.from, flow.to);
            for &(class, first, last) in &flow.gaps {
                if last > flow.declared[class] {
                    return Err(format!(
                        "{whose}, class {class}: messages {first} to {last} are lost"
                    ));
                }
            }
            if flow.closed {
                continue;
            }
            for class in 0..CLASSES {
                let (sent, arrived) = (flow.sent[class], flow.arrived[class]);
                if arrived < sent && sent > flow.declared[class] {
                    return Err(format!(
                        "{whose}, class {class}: {arrived} of {sent} messages arrived, and no more \
                         come"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether a message arrived.
    pub(crate) fn has_arrived(&self, flow: usize, class: usize, number: u64) -> bool {
        self.flows.get(flow).is_some_and(|flow| flow.arrived[class] >= number)
    }
}

impl Ledger {
    /// Whether a message may be lost: its session was reset, or its connection has ended.
    pub(crate) fn is_excused(&self, flow: usize, class: usize, number: u64) -> bool {
        let excused = |flow: &Flow| flow.closed || number <= flow.declared[class];
        self.flows.get(flow).is_some_and(excused)
    }

    /// The connection that a flow goes over.
    pub(crate) fn connection(&self, flow: usize) -> Connection {
        self.flows[flow].connection.clone()
    }
}
