use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread;

use futures_channel::oneshot;
use futures_util::FutureExt as _;

/// A future that runs on whichever thread wakes it, and the result of it: work for which no thread is
/// woken. What waits for a peer goes on where the peer's answer comes, on a worker of the messenger,
/// and what it sends then goes out with that worker's turn.
///
/// Others wait for that thread: the future must not block, nor compute for long. Dropping the task ends
/// it, at the latest when it next would run; [`detach`](Self::detach) lets it go on. A panic of the future
/// is passed on to who awaits the task.
///
/// ```
/// use std::sync::mpsc;
/// use futures_channel::oneshot;
/// use siphon_common::Task;
///
/// let (sender, receiver) = oneshot::channel();
/// let (done, result) = mpsc::channel();
/// let task = Task::spawn(async move { done.send(receiver.await.unwrap() + 1).unwrap() });
/// sender.send(6).unwrap(); // runs the rest of the task, here
/// assert_eq!(result.try_recv(), Ok(7));
/// # drop(task);
/// ```
#[must_use = "dropping it ends it"]
pub struct Task<T> {
    result: oneshot::Receiver<thread::Result<T>>,
    runner: Arc<Runner>,
    detached: bool,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Runner {
    /// `None` when it is over.
    work: Mutex<Option<Work>>,
    /// It was woken, perhaps while it ran.
    again: AtomicBool,
    cancelled: AtomicBool,
}

impl<T: Send + 'static> Task<T> {
    /// Runs a future: here, until it first waits.
    pub fn spawn(future: impl Future<Output = T> + Send + 'static) -> Self {
        let (sender, result) = oneshot::channel();
        let work: Work = Box::pin(async move {
            // What the panic leaves half done is the future's own, which is gone.
            let outcome = AssertUnwindSafe(future).catch_unwind().await;
            let _ = sender.send(outcome); // whoever spawned it may not wait
        });
        let runner = Arc::new(Runner {
            work: Mutex::new(Some(work)),
            again: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
        });
        runner.wake_by_ref();
        Self { result, runner, detached: false }
    }

    /// Lets it go on without anybody who waits for it.
    ///
    /// ```
    /// siphon_common::Task::spawn(async { println!("done") }).detach();
    /// ```
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match ready!(self.result.poll_unpin(context)) {
            Ok(Ok(result)) => Poll::Ready(result),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(oneshot::Canceled) => unreachable!("only dropping the task ends it early"),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if !self.detached {
            self.runner.cancelled.store(true, Ordering::SeqCst);
            self.runner.wake_by_ref();
        }
    }
}

impl Wake for Runner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.again.store(true, Ordering::SeqCst);
        // Whoever holds the lock looks again after that.
        while self.again.load(Ordering::SeqCst) {
            let mut slot = match self.work.try_lock() {
                Ok(slot) => slot,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            self.again.store(false, Ordering::SeqCst);
            let Some(work) = slot.as_mut() else { return };
            let cancelled = || self.cancelled.load(Ordering::SeqCst);
            let waker = Waker::from(Arc::clone(self));
            if cancelled() || work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                *slot = None;
            }
        }
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = self.runner.work.try_lock().is_ok_and(|work| work.is_none());
        f.debug_struct("Task").field("over", &over).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc;

    use super::*;

    fn poll<T>(task: &mut Task<T>) -> Poll<T> {
        Pin::new(task).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn work_goes_on_where_it_is_woken_even_by_itself() {
        let mut polls = 0;
        let mut task = Task::spawn(std::future::poll_fn(move |context| {
            polls += 1;
            if polls < 3 {
                context.waker().wake_by_ref(); // while it runs
                return Poll::Pending;
            }
            Poll::Ready(polls)
        }));
        assert_eq!(poll(&mut task), Poll::Ready(3));

        let (sender, receiver) = oneshot::channel();
        let mut task =
            Task::spawn(async { (receiver.await, thread::current().name().map(str::to_owned)) });
        assert!(poll(&mut task).is_pending());
        let waker = thread::Builder::new().name("waker".to_owned());
        waker.spawn(|| sender.send(7)).unwrap().join().unwrap().unwrap();
        assert_eq!(poll(&mut task), Poll::Ready((Ok(7), Some("waker".to_owned()))));
    }

    #[test]
    fn one_that_is_dropped_ends_unless_it_is_detached() {
        let (kept, ended) = mpsc::channel::<()>();
        let (sender, receiver) = oneshot::channel::<()>();
        let task = Task::spawn(async move {
            let _kept = kept;
            let _ = receiver.await;
        });
        assert_eq!(ended.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(task);
        assert_eq!(ended.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        assert!(sender.is_canceled());

        let (sender, receiver) = oneshot::channel();
        let (done, told) = mpsc::channel();
        Task::spawn(async move { done.send(receiver.await).unwrap() }).detach();
        sender.send(7).unwrap();
        assert_eq!(told.try_recv(), Ok(Ok(7)));
    }

    #[test]
    fn a_panic_comes_to_who_awaits_it_and_not_to_who_wakes_it() {
        let (sender, receiver) = oneshot::channel();
        let mut task = Task::spawn(async move {
            let text: &str = receiver.await.unwrap();
            assert!(text.is_empty(), "{text}");
        });
        sender.send("on purpose").unwrap();
        let panic = std::panic::catch_unwind(AssertUnwindSafe(|| poll(&mut task))).unwrap_err();
        assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some("on purpose"));
    }

    /// Several threads wake one task at once: each wake is followed by a poll.
    #[test]
    fn no_wake_is_lost_among_threads() {
        const THREADS: u32 = 4;
        const WAKES: u32 = 5_000;
        let count = Arc::new(AtomicU32::new(0));
        let (wakers, waker) = mpsc::channel();
        let seen = Arc::clone(&count);
        let mut task = Task::spawn(std::future::poll_fn(move |context| {
            let _ = wakers.send(context.waker().clone()); // the first is used
            match seen.load(Ordering::SeqCst) {
                count if count < THREADS * WAKES => Poll::Pending,
                _ => Poll::Ready(()),
            }
        }));
        let waker: Waker = waker.recv().unwrap();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..WAKES {
                        count.fetch_add(1, Ordering::SeqCst);
                        waker.wake_by_ref();
                    }
                });
            }
        });
        assert!(poll(&mut task).is_ready(), "the last wake was seen");
    }
}
