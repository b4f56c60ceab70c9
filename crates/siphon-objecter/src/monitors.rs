//! What the monitors are asked in the background.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};

use siphon_monclient::MonClient;
use siphon_wire::types::Epoch;

use crate::objecter::{Shared, epoch_of};

/// Asks for maps, and for what is the newest.
pub(crate) struct Monitors {
    mon: MonClient,
    shared: Weak<Shared>,
}

impl Monitors {
    pub(crate) fn new(mon: MonClient, shared: Weak<Shared>) -> Self {
        Self { mon, shared }
    }

    pub(crate) fn want_osdmap(&self, from: Epoch, continuous: bool) {
        self.mon.subscribe("osdmap", from.0.into(), !continuous);
    }

    /// The answer comes to the core.
    pub(crate) fn check_newest(&self) {
        let (mon, shared) = (self.mon.clone(), Weak::clone(&self.shared));
        Background::spawn(async move {
            let newest = mon.newest_version("osdmap", None).await;
            if let Err(error) = &newest {
                tracing::warn!(%error, "the newest epoch of the OSD map is not known");
            }
            if let Some(shared) = shared.upgrade() {
                let newest = newest.ok().map(|(newest, _)| epoch_of(newest));
                shared.with(|core, now| core.handle_newest(newest, now));
            }
        });
    }
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A future that runs on whichever thread wakes it.
struct Background {
    work: Mutex<Option<Work>>,
    /// It was woken while it ran.
    again: AtomicBool,
}

impl Background {
    fn spawn(work: impl Future<Output = ()> + Send + 'static) {
        let work: Work = Box::pin(work);
        let task = Self { work: Mutex::new(Some(work)), again: AtomicBool::new(false) };
        Arc::new(task).wake();
    }
}

impl Wake for Background {
    fn wake(self: Arc<Self>) {
        self.again.store(true, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self));
        // Whoever holds the lock looks again after that.
        while self.again.load(Ordering::SeqCst)
            && let Ok(mut slot) = self.work.try_lock()
        {
            self.again.store(false, Ordering::SeqCst);
            let Some(work) = slot.as_mut() else { return };
            if let Poll::Ready(()) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                *slot = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::task::noop_waker_ref;

    use super::*;

    #[test]
    fn work_goes_on_where_it_is_woken_even_by_itself() {
        let (done, waits) = mpsc::channel();
        let mut polls = 0;
        Background::spawn(std::future::poll_fn(move |context| {
            polls += 1;
            if polls < 3 {
                context.waker().wake_by_ref(); // while it runs
                return Poll::Pending;
            }
            done.send(polls).unwrap();
            Poll::Ready(())
        }));
        assert_eq!(waits.try_recv(), Ok(3));

        let (done, waits) = mpsc::channel();
        let (ticket, other) = (crate::ticket::Ticket::new(), crate::ticket::Ticket::new());
        assert!(ticket.poll(&mut Context::from_waker(noop_waker_ref())).is_pending());
        let waited: crate::ticket::Ticket<u8> = other.clone();
        Background::spawn(async move {
            done.send(std::future::poll_fn(|context| waited.poll(context)).await).unwrap();
        });
        assert!(waits.try_recv().is_err());
        other.set(7);
        assert_eq!(waits.try_recv(), Ok(7));
        ticket.set(());
    }
}
