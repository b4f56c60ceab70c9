//! A peer that came to us, and the connection that it may have already.

use std::sync::Arc;

use siphon_net::{Accepted, EventCenter};
use siphon_proto::Met;

use super::remote::{Io, Remote};
use super::{MessengerWorker, Owned};
use crate::connection::{Connection, ConnectionId};
use crate::error::CloseReason;
use crate::messenger::Shared;

/// Who came by another connection.
pub(crate) enum Visitor {
    /// By this one, of the same worker.
    Here(ConnectionId),
    /// By one of another worker, which gave it up.
    Moved(Box<Moved>),
}

/// A connection between two workers.
pub(crate) struct Moved {
    messenger: Arc<Shared>,
    proto: siphon_proto::Connection,
    accepted: Accepted,
}

impl MessengerWorker {
    /// A peer said what it wants: finds the connection that it has already, and has the worker of
    /// that decide.
    pub(super) fn knocked(&mut self, center: &mut EventCenter, id: ConnectionId) {
        let Some(remote) = self.remote(id) else {
            return;
        };
        let Some(peer) = remote.proto.knocking().cloned() else {
            return;
        };
        let register = remote.proto.is_registered();
        let messenger = Arc::clone(remote.handle.messenger());
        let Some(existing) = messenger.find_or_register(&peer, &remote.handle, register) else {
            return self.meet(center, id, None);
        };
        remote.meeting = true;
        let visitor = if existing.is_at(&self.peers[self.index]) {
            Visitor::Here(id)
        } else {
            match self.give_up(center, id, &existing) {
                Some(moved) => Visitor::Moved(Box::new(moved)),
                None => return,
            }
        };
        existing.meet(visitor);
    }

    /// Takes a connection out of this worker, for that of `existing`. Where its stack cannot move
    /// sockets, it ends, and the next that comes from the peer's host is taken there.
    fn give_up(
        &mut self,
        center: &mut EventCenter,
        id: ConnectionId,
        existing: &Connection,
    ) -> Option<Moved> {
        let Some(Owned::Remote(mut remote)) = self.remove(id) else {
            return None;
        };
        let worker = self.peers.iter().position(|worker| existing.is_at(worker));
        let mut io = self.io(center);
        match remote.detach(&mut io) {
            Ok(accepted) => {
                remote.release(&mut io);
                let messenger = Arc::clone(remote.handle.messenger());
                Some(Moved { messenger, proto: remote.proto, accepted })
            }
            Err(error) => {
                let host = remote.handle.target().front().socket_addr().map(|addr| addr.ip());
                if let (Some(worker), Some(host)) = (worker, host) {
                    remote.handle.messenger().steer(host, worker);
                }
                let source = Arc::new(error);
                remote.close(&mut io, CloseReason::Transport { doing: "moving", source });
                None
            }
        }
    }

    /// The peer of `existing`, a connection of this worker, has come by another.
    pub(super) fn receive_visitor(
        &mut self,
        center: &mut EventCenter,
        existing: Connection,
        visitor: Visitor,
    ) {
        let id = match visitor {
            Visitor::Here(id) => id,
            Visitor::Moved(moved) => {
                let Moved { messenger, proto, accepted } = *moved;
                let handle = self.handle_for(&messenger, &accepted);
                let id = handle.id();
                self.loads[self.index].add();
                let opened = Remote::arrive(&mut self.io(center), handle, proto, accepted);
                self.open(id, opened);
                id
            }
        };
        self.change(id, |remote| remote.meeting = false);
        if self.connections.contains_key(&existing.id()) && existing.close_reason().is_none() {
            self.meet(center, id, Some(existing.id()));
        } else {
            self.knocked(center, id); // it has ended meanwhile
        }
    }

    /// Has it decided what becomes of the peer that knocked by `id`.
    fn meet(
        &mut self,
        center: &mut EventCenter,
        id: ConnectionId,
        existing_id: Option<ConnectionId>,
    ) {
        let now = center.now();
        // What came by the link before is the application's, and what became of that link is not what becomes
        // of the next.
        if let Some(existing) = existing_id {
            self.with_remote(center, existing, Remote::dispatch_all);
            if !self.connections.contains_key(&existing) {
                return self.knocked(center, id);
            }
        }
        let Some(Owned::Remote(mut visitor)) = self.connections.remove(&id) else {
            return;
        };
        let peer = visitor.proto.knocking().cloned();
        let register = visitor.proto.is_registered();
        let mut io = Io {
            center,
            sockets: &mut self.sockets,
            transmit: &mut self.transmit,
            counters: &mut self.counters,
            pace: &mut self.pace,
        };
        let existing = existing_id.and_then(|id| match self.connections.get_mut(&id)? {
            Owned::Remote(existing) => Some(existing),
            Owned::Loopback(_) => None,
        });
        let (met, mut existing) = match existing {
            Some(existing) => (visitor.proto.meet(now, Some(&mut existing.proto)), Some(existing)),
            None => (visitor.proto.meet(now, None), None),
        };
        if met == Met::TakenOver
            && let Some(existing) = &mut existing
        {
            existing.take_transport(&mut io, &mut visitor);
            visitor.release(&mut io);
            io.counters.connection_went();
            self.loads[self.index].sub();
        } else {
            if register
                && matches!(met, Met::Admitted | Met::Superseded)
                && let Some(peer) = &peer
            {
                visitor.handle.messenger().register(peer, &visitor.handle);
            }
            self.connections.insert(id, Owned::Remote(visitor));
            self.change(id, |_| {});
        }
        if let Some(existing) = existing_id {
            self.change(existing, |_| {});
            if met == Met::Superseded {
                self.end(center, existing, CloseReason::Replaced);
            }
        }
    }
}
