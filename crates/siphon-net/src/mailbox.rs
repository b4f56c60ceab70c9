use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::driver::Waker;

/// Puts mail into a worker's mailbox; from any thread. Mail of one sender stays in order.
///
/// The mailbox has no bound of its own: whoever sends bounds what it sends.
pub struct MailSender<M> {
    shared: Arc<Shared<M>>,
}

/// Takes mail out; belongs to the worker.
pub struct MailReceiver<M> {
    shared: Arc<Shared<M>>,
}

struct Shared<M> {
    mail: Mutex<Vec<M>>,
    /// The worker has looked and found nothing, or is about to look: who puts mail in after that
    /// must wake it.
    asleep: AtomicBool,
    waker: Waker,
}

/// A mailbox whose worker is woken by `waker`.
pub fn mailbox<M>(waker: Waker) -> (MailSender<M>, MailReceiver<M>) {
    let asleep = AtomicBool::new(false);
    let shared = Arc::new(Shared { mail: Mutex::new(Vec::new()), asleep, waker });
    (MailSender { shared: Arc::clone(&shared) }, MailReceiver { shared })
}

impl<M> MailSender<M> {
    /// Sends mail; wakes the worker if it sleeps, and only then.
    pub fn send(&self, mail: M) {
        self.shared.lock().push(mail);
        // The lock orders this behind the worker's look into the mailbox: either it saw the mail,
        // or we see that it sleeps. Whoever takes the flag does the waking.
        if self.shared.asleep.load(Ordering::Relaxed)
            && self.shared.asleep.swap(false, Ordering::Relaxed)
        {
            self.shared.waker.wake();
        }
    }
}

impl<M> MailReceiver<M> {
    /// Says that the worker is going to sleep; false if there is mail, and it must not.
    pub fn prepare_sleep(&self) -> bool {
        let mail = self.shared.lock();
        let empty = mail.is_empty();
        self.shared.asleep.store(empty, Ordering::Relaxed);
        empty
    }

    /// Says that the worker is awake: senders need not wake it.
    pub fn awake(&self) {
        self.shared.asleep.store(false, Ordering::Relaxed);
    }

    /// Exchanges all mail for `batch`, which is empty; false if there was none.
    pub fn take(&self, batch: &mut Vec<M>) -> bool {
        debug_assert!(batch.is_empty(), "the last batch was handled");
        std::mem::swap(&mut *self.shared.lock(), batch);
        !batch.is_empty()
    }
}

impl<M> Shared<M> {
    /// A panic of another holder leaves the vector whole: pushing and swapping are single steps.
    fn lock(&self) -> MutexGuard<'_, Vec<M>> {
        self.mail.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<M> Clone for MailSender<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M> fmt::Debug for MailSender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailSender")
    }
}

impl<M> fmt::Debug for MailReceiver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailReceiver")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn only_a_sleeping_worker_is_woken_and_only_once() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        let (sender, receiver) =
            mailbox(Waker::new(move || drop(counter.fetch_add(1, Ordering::Relaxed))));
        sender.send(1);
        assert_eq!(wakes.load(Ordering::Relaxed), 0, "it is awake");
        assert!(!receiver.prepare_sleep(), "there is mail");
        let mut batch = Vec::new();
        assert!(receiver.take(&mut batch));
        assert_eq!(batch, [1]);
        assert!(receiver.prepare_sleep());
        sender.send(2);
        sender.send(3);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        receiver.awake();
        batch.clear();
        assert!(receiver.take(&mut batch));
        assert_eq!(batch, [2, 3]);
    }
}
