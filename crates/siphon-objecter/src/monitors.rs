//! What the monitors are asked in the background.

use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use crate::objecter::{Shared, epoch_of};
use futures_util::future::{AbortHandle, abortable};
use siphon_common::Task;
use siphon_monclient::MonClient;

/// Asks which map is the newest.
pub(crate) struct Monitors {
    mon: MonClient,
    shared: Weak<Shared>,
    asking: Mutex<Asking>,
}

/// The question for the newest epoch, which keeps the client of the monitors: there is one at a time.
#[derive(Default)]
enum Asking {
    #[default]
    Nothing,
    Question(AbortHandle),
    /// Nor will there be any.
    Stopped,
}

impl Monitors {
    pub(crate) fn new(mon: MonClient, shared: Weak<Shared>) -> Self {
        Self { mon, shared, asking: Mutex::default() }
    }

    /// The answer comes to the core.
    pub(crate) fn check_newest(&self) {
        let (mon, shared) = (self.mon.clone(), Weak::clone(&self.shared));
        let (question, asking) = abortable(async move {
            let newest = mon.newest_version("osdmap", None).await;
            if let Err(error) = &newest {
                tracing::warn!(%error, "the newest epoch of the OSD map is not known");
            }
            if let Some(shared) = shared.upgrade() {
                let newest = newest.ok().map(|(newest, _)| epoch_of(newest));
                shared.with(|core, now| core.handle_newest(newest, now));
            }
        });
        {
            let mut state = self.asking();
            if matches!(*state, Asking::Stopped) {
                return;
            }
            // Before it begins: it may be over, and another one under way, when it has.
            *state = Asking::Question(asking);
        }
        Task::spawn(question).detach();
    }

    /// Asks nothing any more.
    pub(crate) fn stop(&self) {
        let before = std::mem::replace(&mut *self.asking(), Asking::Stopped);
        if let Asking::Question(question) = before {
            question.abort();
        }
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use siphon_common::{Config, Context, Timer};

    use super::*;

    /// Who waits for monitors that nobody reaches would be kept by what it waits for.
    #[test]
    fn a_question_without_an_answer_does_not_keep_the_client_of_the_monitors() {
        let mut config = Config::default();
        config.set("mon_host", "v2:127.0.0.1:1/0").unwrap();
        config.set("auth_client_required", "none").unwrap();
        config.set("ms_mon_client_mode", "crc").unwrap();
        config.ms_async_op_threads = 1;
        let timer = Timer::start("timer").unwrap();
        let mon = MonClient::builder(&Context::new(config)).timer(&timer).start().unwrap();
        let monitors = Monitors::new(mon.clone(), Weak::new());
        monitors.check_newest();
        let waits = |count: usize| format!("{timer:?}") == format!("Timer {{ waiting: {count} }}");
        assert!(waits(1), "{timer:?}: it looks for monitors");
        monitors.stop();
        drop((monitors, mon));
        while !waits(0) {
            std::thread::yield_now();
        }
    }
}
