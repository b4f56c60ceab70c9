//! What connections bring.

use siphon_messages::{
    MCommandReply, MOSDBackoff, MOSDMap, MOSDOpReply, MWatchNotify, MessageError, TypedMessage,
};
use siphon_msgr::{CloseReason, Connection, Dispatcher};
use siphon_proto::Message;
use siphon_wire::types::EntityType;

use std::time::Instant;

use crate::core::{Core, SessionId};
use crate::objecter::Shared;
use crate::update::MapUpdate;

/// Replies and what else OSDs say in a session is taken on the connection's worker; maps, which take longer,
/// on the thread for such.
impl Dispatcher for Shared {
    fn can_fast_dispatch(&self, message: &Message) -> bool {
        matches!(
            message.header.msg_type,
            MOSDOpReply::TYPE | MOSDBackoff::TYPE | MWatchNotify::TYPE | MCommandReply::TYPE
        )
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let tid = message.header.tid;
        match message.header.msg_type {
            MOSDOpReply::TYPE => {
                let reply = MOSDOpReply::from_message(&message);
                drop(message); // what it holds of throttles
                self.in_session(connection, |core, session, now| {
                    core.handle_reply(session, tid, reply, now);
                });
            }
            MOSDBackoff::TYPE => {
                if let Some(backoff) = read::<MOSDBackoff>(connection, &message) {
                    self.in_session(connection, |core, session, now| {
                        core.handle_backoff(session, &backoff, now);
                    });
                }
            }
            MWatchNotify::TYPE => {
                if let Some(event) = read::<MWatchNotify>(connection, &message) {
                    self.in_session(connection, |core, session, _| {
                        core.handle_watch_notify(session, event);
                    });
                }
            }
            _ => {
                let reply = MCommandReply::from_message(&message);
                self.in_session(connection, |core, session, _| {
                    core.handle_command_reply(session, tid, reply);
                });
            }
        }
    }

    fn dispatch(&self, connection: &Connection, message: Message) -> Option<Message> {
        if message.header.msg_type != MOSDMap::TYPE {
            return Some(message);
        }
        if let Some(maps) = read::<MOSDMap>(connection, &message) {
            let mut update = MapUpdate::from(&maps);
            // A large one takes a while, which operations need not wait for.
            let have = self.lock().core.map().epoch;
            update.read_after(have);
            self.with(|core, now| {
                core.handle_map(update, now);
                // Before it is said what is wanted next.
                self.mon.got("osdmap", core.map().epoch.0.into());
            });
        }
        None
    }

    fn handle_reset(&self, connection: &Connection, reason: &CloseReason) -> bool {
        let ours = self.with_state(|state, now| {
            let session = state.remove(connection)?;
            state.core.handle_reset(session, now);
            Some(session)
        });
        if ours.is_some() {
            tracing::debug!(peer = %connection, %reason, "a session with an OSD has ended");
        }
        ours.is_some() || connection.peer().is_some_and(|peer| peer.name.kind == EntityType::OSD)
    }
}

impl Shared {
    /// Calls the core for something that came on a connection, unless its session is over.
    fn in_session(
        &self,
        connection: &Connection,
        call: impl FnOnce(&mut Core, SessionId, Instant),
    ) {
        self.with_state(|state, now| {
            if let Some(session) = state.session_of(connection) {
                call(&mut state.core, session, now);
            }
        });
    }
}

/// A message of a peer; one that cannot be read is passed over.
fn read<M: TypedMessage>(connection: &Connection, message: &Message) -> Option<M> {
    let read: Result<M, MessageError> = M::from_message(message);
    read.inspect_err(|error| tracing::warn!(%error, peer = %connection, "a message is passed over"))
        .ok()
}
