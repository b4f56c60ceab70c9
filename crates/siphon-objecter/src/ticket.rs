//! What waits for a result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// One result, from who produces it to who waits for it.
#[derive(Debug)]
pub(crate) struct Ticket<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    /// Whom the core knows it by.
    id: AtomicU64,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
enum State<T> {
    Open(Option<Waker>),
    Done(T),
    Taken,
}

impl<T> Clone for Ticket<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Ticket<T> {
    pub(crate) fn new() -> Self {
        let state = Mutex::new(State::Open(None));
        Self(Arc::new(Shared { id: AtomicU64::new(0), state }))
    }

    /// The core's number for what this is the result of; 0 before there is one.
    pub(crate) fn id(&self) -> u64 {
        self.0.id.load(Ordering::Relaxed)
    }

    /// Under the core's lock.
    pub(crate) fn set_id(&self, id: u64) {
        self.0.id.store(id, Ordering::Relaxed);
    }

    /// Sets the result, and wakes who waits: not under a lock that they may take.
    pub(crate) fn set(&self, value: T) {
        let before = std::mem::replace(&mut *self.lock(), State::Done(value));
        if let State::Open(Some(waker)) = before {
            waker.wake();
        }
    }

    /// # Panics
    /// If the result was taken before.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.lock();
        match &mut *state {
            State::Open(Some(waker)) if waker.will_wake(context.waker()) => Poll::Pending,
            State::Open(waker) => {
                let before = waker.replace(context.waker().clone());
                drop(state); // the waker may be the last that keeps what waited before
                drop(before);
                Poll::Pending
            }
            State::Done(_) => match std::mem::replace(&mut *state, State::Taken) {
                State::Done(value) => Poll::Ready(value),
                _ => unreachable!("it was done"),
            },
            State::Taken => panic!("a future was polled after it was ready"),
        }
    }

    /// The result, if it is there, without waiting.
    #[cfg(test)]
    pub(crate) fn take(&self) -> Option<T> {
        let mut context = Context::from_waker(Waker::noop());
        match self.poll(&mut context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    /// Whether the result is there, or was taken.
    pub(crate) fn is_done(&self) -> bool {
        !matches!(*self.lock(), State::Open(_))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
