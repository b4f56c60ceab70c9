//! Mail to a worker: the only path by which another thread reaches what the worker owns.

use std::fmt;
use std::mem;
use std::sync::{OnceLock, PoisonError};
use std::task::Waker;

use crate::sync::{Arc, Mutex, MutexGuard};

/// A mailbox and a sender to it.
///
/// The mailbox itself has no bound, since a sender that waited could be a worker, and two workers
/// could then wait for each other: who sends bounds what it has under way (the messenger does, by
/// the bytes and messages that a connection may hold).
///
/// ```
/// let (sender, mut mailbox) = siphon_net::mailbox();
/// sender.send("first");
/// sender.clone().send("second");
/// let mut batch = Vec::new();
/// assert!(mailbox.take(&mut batch));
/// assert_eq!(batch, ["first", "second"]);
/// drop(mailbox);
/// assert!(sender.is_closed());
/// ```
pub fn mailbox<M>() -> (MailSender<M>, Mailbox<M>) {
    let state = State { mail: Vec::new(), asleep: false, closed: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), waker: OnceLock::new() });
    (MailSender { shared: Arc::clone(&shared) }, Mailbox { shared })
}

/// The sending end; may be cloned and used from any thread.
pub struct MailSender<M> {
    shared: Arc<Shared<M>>,
}

/// The receiving end, which belongs to a worker. Dropping it drops the mail it holds.
pub struct Mailbox<M> {
    shared: Arc<Shared<M>>,
}

struct Shared<M> {
    state: Mutex<State<M>>,
    /// Set once, before the receiver first sleeps.
    waker: OnceLock<Waker>,
}

/// Invariant, wherever the lock is free: `asleep` implies that `mail` is empty. The sender of the
/// first mail after it takes `asleep` and owes the wake; no other sender wakes.
struct State<M> {
    mail: Vec<M>,
    asleep: bool,
    closed: bool,
}

impl<M> MailSender<M> {
    /// Sends; the worker is woken if it sleeps. Mail of one sender stays in order.
    ///
    /// Mail to a worker that has ended is dropped, as is mail that the worker ends without having
    /// taken: what waits for an answer puts into its mail something whose drop tells.
    pub fn send(&self, mail: M) {
        let mut state = self.shared.lock();
        if state.closed {
            // With the lock free, since dropping mail may run anything, and send mail here.
            drop(state);
            return drop(mail);
        }
        state.mail.push(mail);
        let wake = mem::take(&mut state.asleep);
        drop(state);
        if wake && let Some(waker) = self.shared.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Whether the worker has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }
}

impl<M> Mailbox<M> {
    /// Says how this mailbox's owner is woken. Only the first one counts.
    pub fn set_waker(&self, waker: Waker) {
        let _ = self.shared.waker.set(waker);
    }

    /// Swaps the mail that came for `batch`, which must be empty and whose allocation is used for
    /// the next mail. Whether there was any. From now on the owner counts as awake.
    pub fn take(&mut self, batch: &mut Vec<M>) -> bool {
        debug_assert!(batch.is_empty());
        let mut state = self.shared.lock();
        state.asleep = false;
        mem::swap(&mut state.mail, batch);
        !batch.is_empty()
    }

    /// Announces that the owner is about to sleep. Where this is false there is mail, and the owner
    /// must not sleep; where it is true, the next mail wakes it.
    #[must_use]
    pub fn prepare_sleep(&mut self) -> bool {
        let mut state = self.shared.lock();
        state.asleep = state.mail.is_empty();
        state.asleep
    }
}

impl<M> Drop for Mailbox<M> {
    fn drop(&mut self) {
        let mail = {
            let mut state = self.shared.lock();
            state.closed = true;
            mem::take(&mut state.mail)
        };
        // With the lock free, as in `send`.
        drop(mail);
    }
}

impl<M> Shared<M> {
    /// The state is whole even where a holder panicked: nothing in the locked parts stops halfway.
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> Clone for MailSender<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M> fmt::Debug for MailSender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailSender").finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}
