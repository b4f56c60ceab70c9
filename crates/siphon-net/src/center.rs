use std::io;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use crate::driver::{Completion, Driver};
use crate::timers::{TimerId, Timers};

/// What a worker waits with: its driver and its timers. The driver's operations are the center's.
pub struct EventCenter {
    driver: Box<dyn Driver>,
    timers: Timers,
}

impl EventCenter {
    /// A center over this driver.
    pub fn new(driver: Box<dyn Driver>) -> Self {
        Self { driver, timers: Timers::default() }
    }

    /// Has the worker's handler called with `token` at `deadline` or soon after.
    pub fn set_timer(&mut self, deadline: Instant, token: u64) -> TimerId {
        self.timers.set(deadline, token)
    }

    /// Cancels a timer; nothing happens if its time has come.
    pub fn cancel_timer(&mut self, timer: TimerId) {
        self.timers.cancel(timer);
    }

    /// Waits for completions, at most until the next timer is due, or not at all if `poll`.
    pub(crate) fn wait(
        &mut self,
        poll: bool,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) -> io::Result<()> {
        let timeout = match self.timers.next_deadline() {
            _ if poll => Some(Duration::ZERO),
            Some(deadline) => Some(deadline.saturating_duration_since(self.driver.now())),
            None => None,
        };
        self.driver.wait(timeout, sink)
    }

    /// The token of the next timer that is due.
    pub(crate) fn pop_due(&mut self) -> Option<u64> {
        let now = self.driver.now();
        self.timers.pop_due(now)
    }
}

impl Deref for EventCenter {
    type Target = dyn Driver;

    fn deref(&self) -> &Self::Target {
        self.driver.as_ref()
    }
}

impl DerefMut for EventCenter {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.driver.as_mut()
    }
}

impl std::fmt::Debug for EventCenter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventCenter").field("timers", &self.timers).finish_non_exhaustive()
    }
}
