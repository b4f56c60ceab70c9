use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread;

use futures_channel::oneshot;
use futures_util::FutureExt as _;

/// A future that runs on whichever thread wakes it, and the result of it: work for which no thread is
/// woken. What waits for a peer goes on where the peer's answer comes, on a worker of the messenger,
/// and what it sends then goes out with that worker's turn.
///
/// Others wait for that thread: the future must not block, nor compute for long, nor wake itself again and
/// again. Whom a task wakes runs when that task waits or ends, so that tasks may wake each other in a row of any length.
/// Dropping a task ends it, at once unless it is just running; [`detach`](Self::detach) lets it go on. A panic
/// of the future is passed on to who awaits the task, and to nobody else.
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
    /// It is in a thread's [`WOKEN`].
    in_line: AtomicBool,
}

thread_local! {
    /// What was woken by a task that runs on this thread; `None` if none does.
    static WOKEN: RefCell<Option<VecDeque<Arc<Runner>>>> = const { RefCell::new(None) };
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
            in_line: AtomicBool::new(false),
        });
        runner.go_on();
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
            Err(oneshot::Canceled) => panic!("a task's future panicked as it was dropped"),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if !self.detached {
            self.runner.cancelled.store(true, Ordering::SeqCst);
            self.runner.go_on();
        }
    }
}

impl Wake for Runner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // First, so that it counts for a thread whose line it is in.
        self.again.store(true, Ordering::SeqCst);
        let in_task = WOKEN.try_with(|woken| {
            let mut woken = woken.borrow_mut();
            let Some(woken) = woken.as_mut() else { return false };
            if !self.in_line.swap(true, Ordering::SeqCst) {
                woken.push_back(Arc::clone(self));
            }
            true
        });
        // A thread that is about to end has no line.
        if in_task != Ok(true) {
            self.go_on();
        }
    }
}

impl Runner {
    /// Runs it here and now, and then what it woke, unless another one that runs here will do so.
    fn go_on(self: &Arc<Self>) {
        self.again.store(true, Ordering::SeqCst);
        let first = WOKEN.try_with(|woken| {
            let mut woken = woken.borrow_mut();
            let first = woken.is_none();
            woken.get_or_insert_default();
            first
        });
        self.run();
        if first != Ok(true) {
            return;
        }
        let next = || WOKEN.with_borrow_mut(|woken| woken.as_mut().and_then(VecDeque::pop_front));
        while let Some(next) = next() {
            next.in_line.store(false, Ordering::SeqCst);
            next.run();
        }
        WOKEN.set(None);
    }

    /// Polls it as often as it was woken, unless another thread, or a caller, does.
    fn run(self: &Arc<Self>) {
        // Whoever holds the lock looks again after that.
        while self.again.load(Ordering::SeqCst) {
            let mut slot = match self.work.try_lock() {
                Ok(slot) => slot,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            self.again.store(false, Ordering::SeqCst);
            // Panics of the future are caught within; those of what it drops are not.
            let polled = catch_unwind(AssertUnwindSafe(|| self.poll(&mut slot)));
            if polled.is_err() {
                end(slot.take());
                tracing::error!("a task's future panicked as it was dropped");
            }
        }
    }

    fn poll(self: &Arc<Self>, slot: &mut Option<Work>) {
        let Some(work) = slot.as_mut() else { return };
        let cancelled = self.cancelled.load(Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(self));
        if cancelled || work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            *slot = None;
        }
    }
}

/// A future that nobody can wake any more.
impl Drop for Runner {
    fn drop(&mut self) {
        end(self.work.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Drops a future, whose panic is nobody else's.
fn end(work: Option<Work>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(work)));
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

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }

    #[test]
    fn a_panic_of_what_is_dropped_is_nobody_elses() {
        let (sender, receiver) = oneshot::channel::<()>();
        let task = Task::spawn(async move {
            let _bomb = Bomb;
            let _ = receiver.await;
        });
        drop(task);
        assert!(sender.is_canceled());

        let (sender, mut receiver) = oneshot::channel();
        let bomb = Bomb; // it is dropped with the future, which has ended
        let mut task = Task::spawn(std::future::poll_fn(move |context| {
            let _ = &bomb;
            receiver.poll_unpin(context)
        }));
        sender.send(7).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut task))).is_err());

        // This thread still runs tasks.
        let (sender, receiver) = oneshot::channel();
        let mut task = Task::spawn(receiver);
        sender.send(7).unwrap();
        assert_eq!(poll(&mut task), Poll::Ready(Ok(7)));
    }

    /// As where each gives room to the next: one within the other, they would take all of the stack.
    #[test]
    fn tasks_that_wake_each_other_in_a_row_take_no_stack() {
        const TASKS: u32 = 10_000;
        let work = || {
            let (first, mut receiver) = oneshot::channel();
            for _ in 0..TASKS {
                let (sender, next) = oneshot::channel();
                let before = std::mem::replace(&mut receiver, next);
                Task::spawn(async move {
                    let number: u32 = before.await.unwrap();
                    sender.send(number + 1).unwrap();
                })
                .detach();
            }
            first.send(0).unwrap();
            assert_eq!(receiver.try_recv(), Ok(Some(TASKS)));
        };
        thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
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
            for n in 0..THREADS {
                let (count, waker) = (Arc::clone(&count), waker.clone());
                let wake = move || {
                    count.fetch_add(1, Ordering::SeqCst);
                    waker.wake_by_ref();
                };
                // Half of them from tasks, which have a line.
                scope.spawn(move || match n % 2 {
                    0 => (0..WAKES).for_each(|_| wake()),
                    _ => (0..WAKES).for_each(|_| {
                        let wake = wake.clone();
                        Task::spawn(async move { wake() }).detach();
                    }),
                });
            }
        });
        assert!(poll(&mut task).is_ready(), "the last wake was seen");
    }
}
