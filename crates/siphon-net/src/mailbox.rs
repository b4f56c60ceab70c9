//! Mail to a worker: the only path by which another thread reaches what the worker owns.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::iter;
use std::mem;
use std::rc::Rc;
use std::sync::{OnceLock, PoisonError};
use std::task::Waker;

use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering};

#[cfg(not(loom))]
thread_local! {
    /// The own mail of whoever is at work on this thread.
    static AT_WORK: RefCell<Option<AtWork>> = const { RefCell::new(None) };
}

#[cfg(loom)]
loom::thread_local! {
    static AT_WORK: RefCell<Option<AtWork>> = RefCell::new(None);
}

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
pub fn mailbox<M: 'static>() -> (MailSender<M>, Mailbox<M>) {
    let state = State { mail: Vec::new(), asleep: false, closed: false };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        has_mail: AtomicBool::new(false),
        waker: OnceLock::new(),
    });
    let sender = MailSender { shared: Arc::clone(&shared) };
    (sender, Mailbox { shared, announced: false })
}

/// The sending end; may be cloned and used from any thread.
pub struct MailSender<M> {
    shared: Arc<Shared<M>>,
}

/// The receiving end, which belongs to a worker. Dropping it drops the mail it holds.
pub struct Mailbox<M: 'static> {
    shared: Arc<Shared<M>>,
    /// That it sleeps was announced, and not yet taken back.
    announced: bool,
}

/// A mailbox owner's mail to itself, which takes no lock. It goes before what the mailbox has: of that,
/// nothing was there when it was sent.
pub(crate) struct OwnMail<M: 'static> {
    shared: Arc<Shared<M>>,
    mail: Rc<RefCell<Vec<M>>>,
}

/// What [`AT_WORK`] has of somebody's own mail.
struct AtWork {
    /// Of which mailbox, by where its shared part is.
    place: usize,
    /// A `RefCell<Vec<M>>`.
    mail: Rc<dyn Any>,
}

/// As long as this is there, mail that this thread sends to the mailbox is its owner's own.
pub(crate) struct Work {
    /// Whoever works within whose work, as in a simulator.
    before: Option<AtWork>,
}

struct Shared<M> {
    state: Mutex<State<M>>,
    /// Whether `state` has mail: changed with the lock held, looked at without it.
    has_mail: AtomicBool,
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

impl<M: 'static> MailSender<M> {
    /// Sends; the worker is woken if it sleeps. Mail of one sender stays in order, and so does that of
    /// two of which one knows what the other has sent.
    ///
    /// Mail to a worker that has ended is dropped, as is mail that the worker ends without having
    /// taken: what waits for an answer puts into its mail something whose drop tells.
    #[inline]
    pub fn send(&self, mail: M) {
        self.send_with(|| mail);
    }

    /// As [`send`](Self::send), of mail that is made where it is kept, not moved there: for what comes by the
    /// hundred thousand a second. `make` must do nothing else.
    ///
    /// # Panics
    /// If `make` sends to this mailbox, on the thread of its owner.
    ///
    /// ```
    /// let (sender, mut mailbox) = siphon_net::mailbox();
    /// let mut batch = Vec::new();
    /// sender.send_with(|| ("answer", 7));
    /// assert!(mailbox.take(&mut batch));
    /// assert_eq!(batch, [("answer", 7)]);
    /// ```
    #[inline(always)]
    pub fn send_with(&self, make: impl FnOnce() -> M) {
        match self.mail_at_work().as_deref().and_then(<dyn Any>::downcast_ref::<RefCell<Vec<M>>>) {
            // Not `push`, which makes it elsewhere first.
            Some(own) => own.borrow_mut().extend(iter::once_with(make)),
            None => self.send_to_other(make()),
        }
    }

    #[inline(never)]
    fn send_to_other(&self, mail: M) {
        let mut state = self.shared.lock();
        if state.closed {
            // With the lock free, since dropping mail may run anything, and send mail here.
            drop(state);
            return drop(mail);
        }
        state.mail.push(mail);
        self.shared.has_mail.store(true, Ordering::Release);
        let wake = mem::take(&mut state.asleep);
        drop(state);
        if wake && let Some(waker) = self.shared.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Where the mailbox's owner puts its mail, if that is who sends. It must not overtake what came from
    /// elsewhere: with such mail there, it goes the same way.
    #[inline]
    fn mail_at_work(&self) -> Option<Rc<dyn Any>> {
        // It fails where the thread ends and drops what it has.
        AT_WORK
            .try_with(|at_work| match &*at_work.borrow() {
                Some(AtWork { place, mail })
                    if *place == self.shared.place()
                        && !self.shared.has_mail.load(Ordering::Acquire) =>
                {
                    Some(Rc::clone(mail))
                }
                _ => None,
            })
            .ok()
            .flatten()
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

impl<M: 'static> Mailbox<M> {
    /// Where its owner's mail to itself goes.
    pub(crate) fn own_mail(&self) -> OwnMail<M> {
        OwnMail { shared: Arc::clone(&self.shared), mail: Rc::default() }
    }

    /// Says how this mailbox's owner is woken. Only the first one counts.
    pub fn set_waker(&self, waker: Waker) {
        let _ = self.shared.waker.set(waker);
    }

    /// Moves the mail that came behind what is in `batch`; the allocation of an empty one is used for the
    /// next mail. Whether there is any in it. From now on the owner counts as awake.
    pub fn take(&mut self, batch: &mut Vec<M>) -> bool {
        if self.announced || self.shared.has_mail.load(Ordering::Acquire) {
            self.announced = false;
            let mut state = self.shared.lock();
            state.asleep = false;
            self.shared.has_mail.store(false, Ordering::Release);
            if batch.is_empty() {
                mem::swap(&mut state.mail, batch);
            } else {
                batch.append(&mut state.mail);
            }
        }
        !batch.is_empty()
    }

    /// Announces that the owner is about to sleep. Where this is false there is mail, and the owner
    /// must not sleep; where it is true, the next mail wakes it.
    #[must_use]
    pub fn prepare_sleep(&mut self) -> bool {
        let mut state = self.shared.lock();
        state.asleep = state.mail.is_empty();
        self.announced |= state.asleep;
        state.asleep
    }
}

impl<M: 'static> OwnMail<M> {
    /// Its owner is at work on this thread, until what this returns is dropped.
    pub(crate) fn work(&self) -> Work {
        let own = AtWork { place: self.shared.place(), mail: Rc::clone(&self.mail) as Rc<dyn Any> };
        Work { before: AT_WORK.with(|at_work| at_work.replace(Some(own))) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.mail.borrow().is_empty()
    }

    /// Swaps the mail for `batch`, which must be empty.
    pub(crate) fn take(&self, batch: &mut Vec<M>) {
        debug_assert!(batch.is_empty());
        mem::swap(&mut *self.mail.borrow_mut(), batch);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        AT_WORK.with(|at_work| at_work.replace(self.before.take()));
    }
}

impl<M: 'static> Drop for Mailbox<M> {
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
    /// What tells it from others, as long as it is there.
    fn place(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

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

impl<M: 'static> fmt::Debug for Mailbox<M> {
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

    #[test]
    fn the_owners_own_mail_stays_behind_what_it_may_know_of() {
        let (sender, mut mailbox) = mailbox();
        let (other, mut batch) = (sender.clone(), Vec::new());
        let send_elsewhere = |mail| {
            std::thread::scope(|scope| {
                let other = &other;
                scope.spawn(move || other.send(mail));
            });
        };
        let own = mailbox.own_mail();
        let work = own.work();
        sender.send(1);
        send_elsewhere(2);
        sender.send(3);
        own.take(&mut batch);
        assert_eq!(batch, [1]);
        assert!(mailbox.take(&mut batch));
        assert_eq!(batch.split_off(0), [1, 2, 3]);
        assert!(own.is_empty() && !mailbox.take(&mut batch));
        sender.send(4);
        drop(work);
        sender.send(5);
        own.take(&mut batch);
        assert!(mailbox.take(&mut batch));
        assert_eq!(batch.split_off(0), [4, 5], "from outside, behind what was sent at work");
        assert!(mailbox.prepare_sleep());
    }

    #[test]
    fn one_may_work_within_the_work_of_another() {
        let ((sender, mut mailbox), (inner_sender, inner)) = (mailbox(), mailbox());
        let (own, inner) = (mailbox.own_mail(), inner.own_mail());
        let mut batch = Vec::new();
        let work = own.work();
        sender.send(1);
        {
            let _inner_work = inner.work();
            inner_sender.send(7);
            sender.send(2);
            inner.take(&mut batch);
            assert_eq!(batch.split_off(0), [7]);
        }
        sender.send(3);
        own.take(&mut batch);
        mailbox.take(&mut batch);
        assert_eq!(batch, [1, 2, 3]);
        drop(work);
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

    /// Mail of another thread, and then, by somebody who knows of it, mail of the owner's.
    #[test]
    fn loom_finds_no_mail_of_the_owner_before_what_it_follows() {
        loom::model(|| {
            let (sender, mut mailbox) = mailbox();
            let sent = std::sync::Arc::new(AtomicBool::new(false));
            let (other, tell) = (sender.clone(), std::sync::Arc::clone(&sent));
            let thread = thread::spawn(move || {
                other.send(1);
                tell.store(true, Ordering::Release);
            });
            let own = mailbox.own_mail();
            let work = own.work();
            let follows = sent.load(Ordering::Acquire);
            sender.send(2);
            drop(work);
            thread.join().unwrap();
            let mut batch = Vec::new();
            own.take(&mut batch);
            mailbox.take(&mut batch);
            assert!(batch == [1, 2] || (!follows && batch == [2, 1]), "{batch:?}");
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
