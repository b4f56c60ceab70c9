//! The table, which grows by a line each second.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::LastRun;
use super::stats::Stats;
use crate::exit::is_readers_end;
use crate::rados::output::local_now;
use crate::rados::say;
use siphon_common::interrupt::Interrupt;

const SECOND: Duration = Duration::from_secs(1);

/// What a run counts, and the thread that shows it.
pub(super) struct Table {
    shared: Arc<Shared>,
    printer: Option<JoinHandle<Vec<Value>>>,
}

struct Shared {
    stats: Mutex<Stats>,
    over: Mutex<bool>,
    ended: Condvar,
}

/// What a run counts, for those who count.
#[derive(Clone)]
pub(super) struct Counter(Arc<Shared>);

impl Counter {
    pub(super) fn stats(&self) -> MutexGuard<'_, Stats> {
        lock(&self.0.stats)
    }
}

impl Table {
    /// Begins the counting. In JSON the lines are kept for the end. When nobody reads them any more, the run
    /// is interrupted.
    pub(super) fn start(show_time: bool, json: bool, run: &LastRun, interrupt: &Interrupt) -> Self {
        let shared = Arc::new(Shared {
            stats: Mutex::new(Stats::new(run.op_size, run.object_size)),
            over: Mutex::new(false),
            ended: Condvar::new(),
        });
        let (shown, interrupt) = (Arc::clone(&shared), interrupt.clone());
        let printer = std::thread::spawn(move || shown.print(show_time, json, &interrupt));
        Self { shared, printer: Some(printer) }
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, Stats> {
        lock(&self.shared.stats)
    }

    pub(super) fn counter(&self) -> Counter {
        Counter(Arc::clone(&self.shared))
    }

    /// Ends the table: how long the run took, and its lines for JSON.
    pub(super) fn stop(&mut self) -> (Duration, Vec<Value>) {
        let took = self.stats().elapsed();
        *lock(&self.shared.over) = true;
        self.shared.ended.notify_all();
        let lines = self.printer.take().and_then(|printer| printer.join().ok());
        (took, lines.unwrap_or_default())
    }
}

impl Shared {
    fn print(&self, show_time: bool, json: bool, interrupt: &Interrupt) -> Vec<Value> {
        let mut lines = Vec::new();
        let mut next = Instant::now();
        loop {
            let (heading, (line, object)) = {
                let mut stats = lock(&self.stats);
                (stats.heading(), stats.tick())
            };
            if json {
                lines.push(object);
            } else {
                let time = if show_time { format!("{} ", local_now()) } else { String::new() };
                let mut text = String::new();
                if let Some((so_far, columns)) = heading {
                    if let Some(so_far) = so_far {
                        text += &format!("{} {so_far}\n", local_now());
                    }
                    text += &format!("{time}{columns}\n");
                }
                // Any other failure comes again at the end, when what was measured is told.
                if let Err(error) = say(&format!("{text}{time}{line}\n"))
                    && is_readers_end(&error)
                {
                    interrupt.set();
                }
            }
            next += SECOND;
            if self.over_before(next) {
                return lines;
            }
        }
    }

    /// Waits for a time; returns whether the run was over before.
    fn over_before(&self, time: Instant) -> bool {
        let mut over = lock(&self.over);
        while !*over {
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            over = self.ended.wait_timeout(over, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
