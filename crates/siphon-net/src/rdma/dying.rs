//! Queue pairs whose connection is closed: what was sent still goes, then they are drained.

use std::time::{Duration, Instant};

use siphon_verbs::{Chunk, CmId, CmKey, Piece, QueuePair, QueuePairState, WorkCompletion};
use smallvec::SmallVec;

use crate::driver::SocketId;

/// How long a peer may take to acknowledge what was sent before the close.
const LINGER: Duration = Duration::from_secs(10);
/// How long a device may take to flush.
const FLUSH: Duration = Duration::from_secs(5);
/// How long it may take after that to tell that it takes nothing more from the shared receive queue;
/// soft devices never do.
const LAST_WQE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct Dying {
    queue: QueuePair,
    cm: Option<CmId>,
    /// The exchange's socket: the peer takes its end for ours.
    pub(super) tcp: Option<SocketId>,
    deadline: Instant,
    /// It may still take something from a shared receive queue. What it has taken comes back only by
    /// a completion, which some devices drop with the queue pair.
    receives: bool,
}

/// How a queue pair ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// What is posted goes first.
    pub(super) gracefully: bool,
    /// It receives from a shared receive queue.
    pub(super) shared: bool,
}

impl Dying {
    pub(super) fn new(
        queue: QueuePair,
        cm: Option<CmId>,
        tcp: Option<SocketId>,
        how: Ending,
        now: Instant,
    ) -> Self {
        let Ending { gracefully, shared } = how;
        let receives = shared && queue.state() != QueuePairState::Init;
        let mut dying = Self { queue, cm, tcp, deadline: now + LINGER, receives };
        if !gracefully || dying.queue.sends() == 0 {
            dying.flush(now);
        }
        dying
    }

    /// The peer's side is gone, if it is that of this: what was not acknowledged never will be.
    pub(super) fn peer_gone(&mut self, now: Instant) {
        if self.queue.state() != QueuePairState::Error {
            self.flush(now);
        }
    }

    /// Whether this is the identifier that it was connected by.
    pub(super) fn is_of(&self, id: CmKey) -> bool {
        self.cm.as_ref().is_some_and(|cm| cm.key() == id)
    }

    /// Ends it, with what the device still had.
    pub(super) fn destroy(self) -> (Vec<Piece>, Vec<Chunk>) {
        self.queue.destroy()
    }

    pub(super) fn queue(&self) -> &QueuePair {
        &self.queue
    }

    /// Something of it ended.
    pub(super) fn complete(
        &mut self,
        now: Instant,
        done: WorkCompletion,
        back: &mut dyn FnMut(Piece),
    ) {
        let failed = !done.status().is_success();
        if self.queue.complete_send(done, back).is_err() {
            return;
        }
        let drained = self.queue.sends() == 0;
        if self.queue.state() != QueuePairState::Error {
            if failed || drained {
                self.flush(now);
            }
        } else if drained {
            self.deadline = self.deadline.min(now + LAST_WQE);
        }
    }

    /// Whether it can be destroyed; it flushes first, if its time to linger is over.
    pub(super) fn is_dead(&mut self, now: Instant) -> bool {
        if self.queue.state() == QueuePairState::Error {
            return (self.queue.sends() == 0 && !self.receives) || now >= self.deadline;
        }
        if now >= self.deadline {
            self.flush(now);
        }
        false
    }

    /// The device says that it takes nothing more from the shared receive queue.
    pub(super) fn last_wqe(&mut self) {
        self.receives = false;
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Has it die. A last send, which the device flushes behind all others, tells when it is drained.
    fn flush(&mut self, now: Instant) {
        if let Some(cm) = &self.cm
            && let Err(error) = cm.disconnect()
        {
            tracing::debug!(%error, "disconnecting"); // the peer was first
        }
        self.deadline = now + FLUSH;
        if let Err(error) = self.queue.fail() {
            tracing::debug!(%error, "a queue pair that is gone");
        }
        let mut batch = self.queue.batch();
        if batch.send(&mut SmallVec::new(), true).is_ok()
            && let Err(unsent) = batch.post()
        {
            tracing::debug!(error = %unsent.error, "nothing is flushed any more");
        }
    }
}
