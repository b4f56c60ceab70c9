use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use siphon_messages::MWatchNotify;
use siphon_wire::types::Errno;
use siphon_wire::{DecodeError, Decoder};

use crate::OpError;
use crate::error::BadReply;

/// Events that a watch keeps for an application that does not take them. Of what is beyond, it is told how
/// many there were.
const MAX_EVENTS: usize = 4096;
/// Bytes of what they say, beyond which they are dropped likewise.
const MAX_BYTES: usize = 64 << 20;

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// Somebody notified those who watch the object, and waits until all have answered.
    Notify(Notification),
    /// So many notifications were dropped, as nobody took those before.
    Overflow(u64),
    /// The watch is lost, and tells nothing any more: watch anew, and look at what may have changed.
    Lost(OpError),
}

impl WatchEvent {
    fn bytes(&self) -> usize {
        match self {
            Self::Notify(notification) => notification.payload.len(),
            Self::Overflow(_) | Self::Lost(_) => 0,
        }
    }
}

/// A notification, to be answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// The OSD's number of it.
    pub notify_id: u64,
    /// Our number of the watch.
    pub cookie: u64,
    /// Who notified: the number of its `client`.
    pub notifier: u64,
    /// What it sent.
    pub payload: Bytes,
}

/// What became of a notification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifyReply {
    /// What watchers answered: by the number of the `client`, and the client's number of its watch.
    pub answers: BTreeMap<(u64, u64), Bytes>,
    /// Those that did not answer in time.
    pub missed: Vec<(u64, u64)>,
    /// Whether all of it went well: `ETIMEDOUT` if some did not answer in time.
    pub error: Option<Errno>,
}

impl NotifyReply {
    pub(crate) fn read(event: &MWatchNotify) -> Result<Self, OpError> {
        let bytes = event.answers.to_bytes();
        let error = Errno::of_result(event.return_code);
        if bytes.is_empty() {
            return Ok(Self { error, ..Self::default() });
        }
        let read = |dec: &mut Decoder<'_>| -> Result<Self, DecodeError> {
            let answers: Vec<((u64, u64), Bytes)> = dec.value()?;
            let missed = dec.value()?;
            Ok(Self { answers: answers.into_iter().collect(), missed, error })
        };
        read(&mut Decoder::new(&bytes))
            .map_err(|_| BadReply::Content("its list of watchers' answers is malformed").into())
    }
}

/// The events of a watch, from who tells them to who takes them.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchQueue(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<WatchEvent>,
    /// What the notifications among them say.
    bytes: usize,
    overflow: u64,
    waker: Option<Waker>,
}

impl WatchQueue {
    /// Adds an event, and wakes who waits for it: not under a lock that they may take.
    pub(crate) fn push(&self, event: WatchEvent) {
        let mut queue = self.lock();
        let bytes = queue.bytes.saturating_add(event.bytes());
        let is_full = queue.events.len() >= MAX_EVENTS || bytes > MAX_BYTES;
        match event {
            // One that is longer than all is kept alone.
            WatchEvent::Notify(_) if is_full && !queue.events.is_empty() => queue.overflow += 1,
            event => {
                queue.bytes = bytes;
                queue.events.push_back(event);
            }
        }
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<WatchEvent> {
        let mut queue = self.lock();
        if let Some(event) = queue.events.pop_front() {
            queue.bytes -= event.bytes();
            return Poll::Ready(event);
        }
        if queue.overflow > 0 {
            return Poll::Ready(WatchEvent::Overflow(std::mem::take(&mut queue.overflow)));
        }
        let before = queue.waker.replace(context.waker().clone());
        drop(queue); // the waker may be the last that keeps what waited before
        drop(before);
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
