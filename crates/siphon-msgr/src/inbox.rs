use std::fmt;
use std::sync::Arc;

use futures_channel::mpsc;
use futures_util::StreamExt;
use siphon_proto::Message;

use crate::connection::Connection;
use crate::dispatcher::Dispatcher;
use crate::error::CloseReason;

/// What arrives in an [`Inbox`].
#[derive(Debug)]
pub enum InboxEvent {
    /// A message.
    Message(Connection, Message),
    /// A connection has ended, and not by our will.
    Reset(Connection, CloseReason),
}

/// Messages as a stream to be awaited, on any runtime or none: a [`Dispatcher`] for applications
/// that ask and wait for answers.
///
/// It holds everything that has arrived and was not taken yet: it is for applications that ask and
/// wait for answers, not for servers that anybody may flood.
///
/// ```
/// use siphon_msgr::Inbox;
///
/// let (dispatcher, inbox) = Inbox::new();
/// // Messenger::builder(..).dispatcher_tail(dispatcher).start()?, then inbox.next().await
/// # drop((dispatcher, inbox));
/// ```
#[derive(Debug)]
pub struct Inbox {
    receiver: mpsc::UnboundedReceiver<InboxEvent>,
}

struct Feed {
    sender: mpsc::UnboundedSender<InboxEvent>,
}

impl Inbox {
    /// An inbox, and the dispatcher that fills it.
    pub fn new() -> (Arc<dyn Dispatcher>, Self) {
        let (sender, receiver) = mpsc::unbounded();
        (Arc::new(Feed { sender }), Self { receiver })
    }

    /// The next event; none once the messenger is gone. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<InboxEvent> {
        self.receiver.next().await
    }
}

impl Feed {
    fn put(&self, event: InboxEvent) {
        // An error says that nobody will ever read this.
        let _ = self.sender.unbounded_send(event);
    }
}

impl Dispatcher for Feed {
    fn dispatch(&self, connection: &Connection, message: Message) -> Option<Message> {
        self.put(InboxEvent::Message(connection.clone(), message));
        None
    }

    fn handle_reset(&self, connection: &Connection, reason: &CloseReason) -> bool {
        self.put(InboxEvent::Reset(connection.clone(), reason.clone()));
        true
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}
