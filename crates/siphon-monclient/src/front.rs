use std::sync::{Arc, OnceLock, Weak};

use siphon_messages::msg_type;
use siphon_msgr::{CloseReason, Connection, Dispatcher};
use siphon_proto::Message;

use crate::shell::Inner;

/// The messenger's dispatcher: what is the monitor client's goes there, everything else to whoever is
/// attached.
pub(crate) struct Front {
    pub(crate) client: OnceLock<Weak<Inner>>,
    pub(crate) attached: OnceLock<Weak<dyn Dispatcher>>,
}

/// What monitors and managers answer us. Messages of other types are never ours on the fast way, so
/// that those of OSDs pass without a look at who sent them.
fn may_be_ours(msg_type: u16) -> bool {
    matches!(
        msg_type,
        msg_type::CEPH_MSG_MON_MAP
            | msg_type::CEPH_MSG_AUTH_REPLY
            | msg_type::CEPH_MSG_MON_SUBSCRIBE_ACK
            | msg_type::CEPH_MSG_MON_GET_VERSION_REPLY
            | msg_type::CEPH_MSG_POOLOP_REPLY
            | msg_type::CEPH_MSG_STATFS_REPLY
            | msg_type::MSG_GETPOOLSTATSREPLY
            | msg_type::MSG_MON_COMMAND_ACK
            | msg_type::MSG_COMMAND_REPLY
            | msg_type::MSG_CONFIG
            | msg_type::MSG_MGR_MAP
            | msg_type::MSG_MGR_COMMAND_REPLY
    )
}

impl Front {
    fn client(&self) -> Option<Arc<Inner>> {
        self.client.get().and_then(Weak::upgrade)
    }

    fn attached(&self) -> Option<Arc<dyn Dispatcher>> {
        self.attached.get().and_then(Weak::upgrade)
    }

    /// Has the client look at a message; gives it back if it is for others.
    fn offer(&self, connection: &Connection, message: Message) -> Option<Message> {
        match self.client() {
            Some(client) => client.handle_message(connection, message),
            None => None, // what comes after the end
        }
    }
}

impl Dispatcher for Front {
    fn can_fast_dispatch(&self, message: &Message) -> bool {
        may_be_ours(message.header.msg_type)
            || self.attached().is_some_and(|attached| attached.can_fast_dispatch(message))
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let left = match may_be_ours(message.header.msg_type) {
            true => self.offer(connection, message),
            false => Some(message),
        };
        if let (Some(message), Some(attached)) = (left, self.attached()) {
            attached.fast_dispatch(connection, message);
        }
    }

    fn dispatch(&self, connection: &Connection, message: Message) -> Option<Message> {
        let left = self.offer(connection, message)?;
        match self.attached() {
            Some(attached) => attached.dispatch(connection, left),
            None => {
                let msg_type = left.header.msg_type;
                tracing::debug!(peer = %connection, msg_type, "nobody wants this message");
                None
            }
        }
    }

    fn handle_fast_connect(&self, connection: &Connection) {
        if self.client().is_some_and(|client| client.handle_open(connection)) {
            return;
        }
        if let Some(attached) = self.attached() {
            attached.handle_fast_connect(connection);
        }
    }

    fn handle_connect(&self, connection: &Connection) {
        if let Some(attached) = self.attached() {
            attached.handle_connect(connection);
        }
    }

    fn handle_fault(&self, connection: &Connection, reason: &CloseReason) {
        if self.client().is_some_and(|client| client.handle_fault(connection, reason)) {
            return;
        }
        if let Some(attached) = self.attached() {
            attached.handle_fault(connection, reason);
        }
    }

    fn handle_reset(&self, connection: &Connection, reason: &CloseReason) -> bool {
        if self.client().is_some_and(|client| client.handle_reset(connection, reason)) {
            return true;
        }
        self.attached().is_some_and(|attached| attached.handle_reset(connection, reason))
    }

    fn handle_remote_reset(&self, connection: &Connection) {
        if let Some(attached) = self.attached() {
            attached.handle_remote_reset(connection);
        }
    }

    fn handle_refused(&self, connection: &Connection) {
        if let Some(attached) = self.attached() {
            attached.handle_refused(connection);
        }
    }

    fn handle_keepalive_ack(&self, connection: &Connection) {
        if self.client().is_some_and(|client| client.handle_alive(connection)) {
            return;
        }
        if let Some(attached) = self.attached() {
            attached.handle_keepalive_ack(connection);
        }
    }
}
