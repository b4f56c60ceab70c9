use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use futures_channel::oneshot;
use siphon_common::Config;
use siphon_proto::{Message, MessageParts, Priority, WeightedQueue};

use crate::connection::{Connection, ConnectionId};
use crate::dispatcher::{Chain, guarded};
use crate::error::CloseReason;

/// What waits for the dispatch thread.
#[derive(Debug)]
pub(crate) enum Item {
    Message(Message),
    Connect,
    Accept,
    Refused,
    RemoteReset,
    Reset(CloseReason),
}

/// Messages and news for the dispatchers that want them one at a time, on a thread of their own.
///
/// By priority as [`WeightedQueue`] has it; news of a connection overtakes messages, as Ceph's queue has it, but
/// for a reset, which comes after everything that the connection delivered. Bytes that wait are
/// bounded: [`push`](Self::push) says when it is enough, and the queue tells the connection when
/// to go on.
#[derive(Debug)]
pub(crate) struct DispatchQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// `ms_dispatch_throttle_bytes`.
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    news: VecDeque<(Connection, Item)>,
    /// Connections take turns, so that one with large messages does not starve its neighbours.
    messages: WeightedQueue<ConnectionId, (Connection, Item)>,
    /// What the waiting messages cost.
    bytes: usize,
    /// Those of them that have bytes, and these: what Ceph's throttle holds.
    held: (u64, u64),
    /// Connections that were told to stop reading.
    paused: BTreeMap<ConnectionId, Connection>,
    closing: bool,
    /// The dispatch thread has ended: what comes now is dropped.
    ended: bool,
    /// Who waits for its end.
    waiters: Vec<oneshot::Sender<()>>,
}

impl DispatchQueue {
    /// What waits: messages and news, and the messages' bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = lock(&self.shared.state);
        (state.messages.len() + state.news.len(), state.bytes)
    }

    /// Messages that wait and have bytes, and these.
    pub(crate) fn held(&self) -> (u64, u64) {
        lock(&self.shared.state).held
    }

    /// A queue as the configuration has it: `ms_dispatch_throttle_bytes`, 0 for no limit, and
    /// `ms_pq_max_tokens_per_priority` and `ms_pq_min_cost`.
    pub(crate) fn new(config: &Config) -> Self {
        let max_bytes = match usize::try_from(config.ms_dispatch_throttle_bytes) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(bytes) => bytes,
        };
        let (tokens, min) = (config.ms_pq_max_tokens_per_priority, config.ms_pq_min_cost);
        let state = State { messages: WeightedQueue::new(tokens, min), ..State::default() };
        let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), max_bytes };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the dispatch thread.
    pub(crate) fn start(&self, chain: Chain) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("ms_dispatch".into());
        thread.spawn(move || shared.run(&chain)).map(drop)
    }

    /// Adds an item; false if the connection must not read until it is resumed.
    #[must_use]
    pub(crate) fn push(&self, connection: &Connection, item: Item) -> bool {
        let mut state = lock(&self.shared.state);
        if state.ended {
            return true;
        }
        let entry = |item| (connection.clone(), item);
        match item {
            Item::Message(message) => {
                state.bytes += cost(&message);
                let (priority, len) = (message.header.priority, message.payload.len() as u64);
                state.hold(len);
                let item = entry(Item::Message(message));
                state.messages.push(connection.id(), priority, len, item);
            }
            // Behind everything that came before it, of whatever priority: what is left of the
            // connection goes on as one row, the highest first.
            Item::Reset(_) => {
                let id = connection.id();
                let mut row = state.messages.remove_key(&id);
                row.push(entry(item));
                let priority = row.iter().map(|(_, item)| item.priority()).max();
                for (connection, item) in row {
                    let len = item.len();
                    state.messages.push(id, priority.unwrap_or_default(), len, (connection, item));
                }
            }
            Item::Connect | Item::Accept | Item::Refused | Item::RemoteReset => {
                state.news.push_back(entry(item));
            }
        }
        let go_on = state.bytes <= self.shared.max_bytes;
        if !go_on {
            state.paused.insert(connection.id(), connection.clone());
        }
        drop(state);
        self.shared.changed.notify_one();
        go_on
    }

    /// Delivers up to `most` items on the calling thread; how many there were.
    pub(crate) fn deliver_waiting(&self, chain: &Chain, most: usize) -> usize {
        for delivered in 0..most {
            let next = self.shared.take(&mut lock(&self.shared.state));
            match next {
                Some(next) => next.deliver(chain),
                None => return delivered,
            }
        }
        most
    }

    /// Drops a connection's messages that wait: they belong to a session that is no more.
    pub(crate) fn discard(&self, connection: &Connection) {
        let mut state = lock(&self.shared.state);
        let removed = state.messages.remove_key(&connection.id());
        removed.iter().for_each(|(_, item)| state.let_go(item));
    }

    /// Ends the dispatch thread once it has delivered everything, and waits for that.
    pub(crate) async fn closed(&self) {
        let end = {
            let mut state = lock(&self.shared.state);
            state.closing = true;
            let (sender, receiver) = oneshot::channel();
            if !state.ended {
                state.waiters.push(sender);
            }
            receiver
        };
        self.shared.changed.notify_all();
        let _ = end.await; // the sender is dropped at the end
    }
}

impl Drop for DispatchQueue {
    /// Nobody is left who could add anything.
    fn drop(&mut self) {
        lock(&self.shared.state).closing = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn run(&self, chain: &Chain) {
        let mut state = lock(&self.state);
        loop {
            if let Some(next) = self.take(&mut state) {
                drop(state);
                next.deliver(chain);
                state = lock(&self.state);
            } else if state.ended {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
        }
    }

    /// The next item. If there will be none any more, the end is told.
    fn take(&self, state: &mut State) -> Option<Delivery> {
        let Some((connection, item)) = state.pop() else {
            if state.closing && !state.ended {
                state.ended = true;
                state.waiters.clear(); // which wakes them
            }
            return None;
        };
        let resume = state.bytes <= self.max_bytes / 2;
        let resumed = if resume { std::mem::take(&mut state.paused) } else { BTreeMap::new() };
        Some(Delivery { connection, item, resumed })
    }
}

/// An item on its way to the dispatchers.
struct Delivery {
    connection: Connection,
    item: Item,
    /// Connections that may read again.
    resumed: BTreeMap<ConnectionId, Connection>,
}

impl Delivery {
    fn deliver(self, chain: &Chain) {
        self.resumed.values().for_each(Connection::resume);
        guarded(&self.connection, || deliver(chain, &self.connection, self.item));
    }
}

impl State {
    fn pop(&mut self) -> Option<(Connection, Item)> {
        if let Some(news) = self.news.pop_front() {
            return Some(news);
        }
        let (_, entry) = self.messages.pop()?;
        self.let_go(&entry.1);
        Some(entry)
    }

    fn hold(&mut self, len: u64) {
        self.held.0 += u64::from(len > 0);
        self.held.1 += len;
    }

    fn let_go(&mut self, item: &Item) {
        self.bytes -= item.cost();
        self.held.0 -= u64::from(item.len() > 0);
        self.held.1 -= item.len();
    }
}

impl Item {
    fn priority(&self) -> Priority {
        match self {
            Self::Message(message) => message.header.priority,
            _ => Priority(0),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Message(message) => message.payload.len() as u64,
            _ => 0,
        }
    }

    fn cost(&self) -> usize {
        match self {
            Self::Message(message) => cost(message),
            _ => 0,
        }
    }
}

/// Bytes that a waiting message is held against the throttle for: its payload, and what it takes to
/// hold it.
fn cost(message: &Message) -> usize {
    message.payload.len() + MessageParts::HELD + size_of::<Connection>()
}

fn deliver(chain: &Chain, connection: &Connection, item: Item) {
    match item {
        Item::Message(_) if !connection.takes_messages() => {}
        Item::Message(message) => {
            let left = chain
                .iter()
                .try_fold(message, |message, dispatcher| dispatcher.dispatch(connection, message));
            if let Some(message) = left {
                let msg_type = message.header.msg_type;
                tracing::warn!(peer = %connection, msg_type, "no dispatcher takes this message");
            }
        }
        Item::Connect => chain.iter().for_each(|d| d.handle_connect(connection)),
        Item::Accept => chain.iter().for_each(|d| d.handle_accept(connection)),
        Item::Refused => chain.iter().for_each(|d| d.handle_refused(connection)),
        Item::RemoteReset => chain.iter().for_each(|d| d.handle_remote_reset(connection)),
        Item::Reset(reason) => {
            chain.iter().any(|dispatcher| dispatcher.handle_reset(connection, &reason));
        }
    }
}

/// A panic of another holder leaves these structures whole: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
