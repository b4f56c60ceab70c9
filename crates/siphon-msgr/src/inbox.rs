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
/// It holds what has arrived and was not taken yet; an application that does not keep up is held
/// back by `ms_dispatch_throttle_bytes` only if it uses ordinary dispatch, which this does.
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
    receiver: mpsc::Receiver<InboxEvent>,
}

/// Most events that wait in an inbox before the dispatch thread waits for the application.
const MAX_WAITING: usize = 1024;

struct Feed {
    sender: std::sync::Mutex<mpsc::Sender<InboxEvent>>,
}

impl Inbox {
    /// An inbox, and the dispatcher that fills it.
    pub fn new() -> (Arc<dyn Dispatcher>, Self) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Arc::new(Feed { sender: std::sync::Mutex::new(sender) }), Self { receiver })
    }

    /// The next event; none once the messenger is gone. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<InboxEvent> {
        self.receiver.next().await
    }
}

impl Feed {
    /// Waits on the dispatch thread while the inbox is full, which stops the reading behind it.
    fn put(&self, event: InboxEvent) {
        let mut sender = self.sender.lock().unwrap_or_else(|p| p.into_inner());
        // An error says that nobody will ever read this.
        let _ = pollster::block_on(futures_util::SinkExt::send(&mut *sender, event));
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
