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

    /// Whether both send to the same mailbox.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_who_sleeps_is_woken_and_once() {
        let (sender, mut mailbox) = mailbox();
        let wakes = Arc::new(Count(AtomicUsize::new(0)));
        mailbox.set_waker(Arc::clone(&wakes).into());
        let count = || wakes.0.load(Ordering::Relaxed);
        let mut batch = Vec::new();

        sender.send(1);
        assert!(!mailbox.prepare_sleep(), "there is mail");
        assert!(mailbox.take(&mut batch));
        assert_eq!((count(), batch.split_off(0)), (0, vec![1]));

        assert!(mailbox.prepare_sleep());
        sender.send(2);
        sender.send(3);
        assert!(mailbox.take(&mut batch));
        assert_eq!((count(), batch.split_off(0)), (1, vec![2, 3]));

        assert!(mailbox.prepare_sleep());
        assert!(!mailbox.take(&mut batch));
        sender.send(4);
        assert_eq!(count(), 1, "awake again, without mail");
    }

    /// Mail whose drop sends mail, as a connection's handle may.
    struct Bomb(MailSender<Self>);

    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(self.0.is_closed());
        }
    }

    #[test]
    fn mail_of_an_ended_worker_is_dropped_with_the_lock_free() {
        let (sender, mailbox) = mailbox();
        sender.send(Bomb(sender.clone()));
        drop(mailbox);
        sender.send(Bomb(sender.clone()));
        assert_eq!(Arc::strong_count(&sender.shared), 1, "both are gone");
    }
}

/// Run by `RUSTFLAGS="--cfg loom" cargo test -p siphon-net --lib loom`.
#[cfg(all(test, loom))]
mod loom_tests {
    use std::task::Wake;

    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// What a driver's wait and waker are: a wake during or before a wait ends it.
    struct Event {
        set: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        fn wait(&self) {
            let mut set = self.set.lock().unwrap();
            while !*set {
                set = self.changed.wait(set).unwrap();
            }
            *set = false;
        }
    }

    impl Wake for Event {
        fn wake(self: std::sync::Arc<Self>) {
            *self.set.lock().unwrap() = true;
            self.changed.notify_one();
        }
    }

    /// Two senders and a worker that sleeps where it may. A lost wakeup is a deadlock here.
    #[test]
    fn loom_finds_no_lost_wakeup() {
        loom::model(|| {
            let event =
                std::sync::Arc::new(Event { set: Mutex::new(false), changed: Condvar::new() });
            let (sender, mut mailbox) = mailbox();
            mailbox.set_waker(std::sync::Arc::clone(&event).into());
            let threads =
                [sender.clone(), sender].map(|sender| thread::spawn(move || sender.send(1)));
            let mut batch = Vec::new();
            let mut mails = 0;
            while mails < 2 {
                if mailbox.prepare_sleep() {
                    event.wait();
                }
                mailbox.take(&mut batch);
                mails += batch.drain(..).sum::<usize>();
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    /// A mail that meets the end of its worker is dropped, by whichever side.
    #[test]
    fn loom_finds_no_mail_that_outlives_its_worker() {
        loom::model(|| {
            let (sender, mailbox) = mailbox();
            let mail = std::sync::Arc::new(());
            let sent = std::sync::Arc::clone(&mail);
            let sending = sender.clone();
            let thread = thread::spawn(move || sending.send(sent));
            drop(mailbox);
            thread.join().unwrap();
            assert_eq!(std::sync::Arc::strong_count(&mail), 1);
        });
    }
}
