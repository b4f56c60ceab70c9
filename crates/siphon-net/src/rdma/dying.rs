//! Queue pairs whose connection is closed: what was sent still goes, then they are drained.

use std::time::{Duration, Instant};

use siphon_verbs::{Chunk, CmId, CmKey, Piece, QueuePair, QueuePairState, WorkCompletion};
use smallvec::SmallVec;

use crate::driver::SocketId;

/// How long a peer may take to acknowledge what was sent before the close.
const LINGER: Duration = Duration::from_secs(10);
/// How long a device may take to flush.
const FLUSH: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Dying {
    queue: QueuePair,
    cm: Option<CmId>,
    /// The exchange's socket: the peer takes its end for ours.
    pub(super) tcp: Option<SocketId>,
    deadline: Instant,
}

impl Dying {
    /// `gracefully`: what is posted goes first.
    pub(super) fn new(
        queue: QueuePair,
        cm: Option<CmId>,
        tcp: Option<SocketId>,
        gracefully: bool,
        now: Instant,
    ) -> Self {
        let mut dying = Self { queue, cm, tcp, deadline: now + LINGER };
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
        if self.queue.complete_send(done, back).is_ok()
            && (failed || self.queue.sends() == 0)
            && self.queue.state() != QueuePairState::Error
        {
            self.flush(now);
        }
    }

    /// Whether it can be destroyed; it flushes first, if its time to linger is over.
    pub(super) fn is_dead(&mut self, now: Instant) -> bool {
        if self.queue.state() == QueuePairState::Error {
            return self.queue.sends() == 0 || now >= self.deadline;
        }
        if now >= self.deadline {
            self.flush(now);
        }
        false
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
