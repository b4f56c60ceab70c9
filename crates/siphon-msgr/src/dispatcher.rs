use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use siphon_proto::Message;

use crate::connection::Connection;
use crate::error::CloseReason;

/// What an application does with messages and with the fate of connections.
///
/// Dispatchers form a chain. A message is offered to each in turn until one takes it; news of
/// connections goes to all of them, but [`handle_reset`](Self::handle_reset), which stops at the
/// first that returns true.
///
/// The `fast` methods run on the connection's worker: they must not block, and they see a
/// connection's messages in order. The others run on the messenger's dispatch thread, one at a
/// time. A method that panics ends the connection that it was called for.
///
/// ```
/// use siphon_msgr::{Connection, Dispatcher};
/// use siphon_proto::Message;
///
/// struct Echo;
///
/// impl Dispatcher for Echo {
///     fn can_fast_dispatch(&self, _: &Message) -> bool {
///         true
///     }
///
///     fn fast_dispatch(&self, connection: &Connection, message: Message) {
///         let _ = connection.send(message); // an error says that the peer is gone
///     }
/// }
/// ```
pub trait Dispatcher: Send + Sync {
    /// Whether this message is for [`fast_dispatch`](Self::fast_dispatch).
    fn can_fast_dispatch(&self, _message: &Message) -> bool {
        false
    }

    /// Takes a message on the worker that received it.
    fn fast_dispatch(&self, _connection: &Connection, _message: Message) {}

    /// Takes a message on the dispatch thread, or gives it back for the next in the chain.
    fn dispatch(&self, _connection: &Connection, message: Message) -> Option<Message> {
        Some(message)
    }

    /// A connection that we asked for is open.
    fn handle_connect(&self, _connection: &Connection) {}

    /// A connection that a peer asked for is open.
    fn handle_accept(&self, _connection: &Connection) {}

    /// As [`handle_connect`](Self::handle_connect), on the worker, before any message.
    fn handle_fast_connect(&self, _connection: &Connection) {}

    /// As [`handle_accept`](Self::handle_accept), on the worker, before any message.
    fn handle_fast_accept(&self, _connection: &Connection) {}

    /// A connection has ended, and not by our will. True ends the chain.
    fn handle_reset(&self, _connection: &Connection, _reason: &CloseReason) -> bool {
        false
    }

    /// The peer forgot this session and opened a new one: messages may be lost.
    fn handle_remote_reset(&self, _connection: &Connection) {}

    /// Nobody listened where we wanted to connect to; a reset follows.
    fn handle_refused(&self, _connection: &Connection) {}

    /// A link was lost, or an attempt to have one failed, and the connection goes on: another attempt
    /// follows, or it waits for the peer. On the worker; whoever wants no more of it marks it down.
    fn handle_fault(&self, _connection: &Connection, _reason: &CloseReason) {}

    /// A keepalive of ours was answered; on the worker.
    fn handle_keepalive_ack(&self, _connection: &Connection) {}
}

/// Calls a dispatcher, unless the application has marked the connection down. One that panics ends
/// the connection that it was called for, and nothing else: the thread belongs to others as well.
pub(crate) fn guarded(connection: &Connection, call: impl FnOnce()) {
    if connection.is_marked_down() {
        return;
    }
    // What a panic leaves half done is the dispatcher's own; ours is not touched by the call.
    if std::panic::catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!(peer = %connection, "a dispatcher panicked; its connection ends");
        connection.dispatcher_panicked();
    }
}

/// The dispatchers of a messenger, in order.
pub(crate) type Chain = Arc<[Arc<dyn Dispatcher>]>;
