//! Threads that connect queue pairs.
//!
//! The system looks for the Ethernet address of the peer when a queue pair is made ready to receive, and
//! waits for a second where nobody has it: not a worker's time.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;

use siphon_verbs::{PathTo, QueuePair, VerbsError};

use crate::slab::Key;

/// Threads of a device, at most: as many peers that nobody has can be waited for at once.
const MAX_THREADS: usize = 16;

/// The threads of a device. Each ends when there is nothing to connect.
#[derive(Debug, Default)]
pub(super) struct Connector {
    work: Arc<Mutex<Work>>,
}

#[derive(Debug, Default)]
struct Work {
    jobs: VecDeque<Job>,
    threads: usize,
}

/// A queue pair to be connected.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) queue: QueuePair,
    pub(super) path: PathTo,
    /// The number of our first packet.
    pub(super) psn: u32,
    pub(super) done: Arc<Connected>,
}

/// Whose queue pair, and what became of it.
/// The number is that of the peer's.
pub(super) type Outcome = (Key, QueuePair, u32, Result<(), VerbsError>);

/// What was connected for a worker.
#[derive(Debug)]
pub(super) struct Connected {
    outcomes: Mutex<Vec<Outcome>>,
    worker: Waker,
}

impl Connector {
    /// Has it connected; the job's worker is woken then.
    pub(super) fn connect(&self, job: Job) {
        let mut work = lock(&self.work);
        work.jobs.push_back(job);
        if work.threads == MAX_THREADS {
            return;
        }
        let shared = Arc::clone(&self.work);
        let thread = thread::Builder::new().name("rdma-connect".to_owned());
        match thread.spawn(move || connect_all(&shared)) {
            Ok(_) => work.threads += 1,
            Err(_) if work.threads > 0 => {} // the others get to it
            Err(error) => {
                tracing::warn!(%error, "no thread to connect on: a worker waits for it");
                work.threads += 1;
                drop(work);
                connect_all(&self.work);
            }
        }
    }
}

/// Connects until there is nothing left.
fn connect_all(work: &Mutex<Work>) {
    loop {
        let mut locked = lock(work);
        let Some(Job { key, mut queue, path, psn, done }) = locked.jobs.pop_front() else {
            locked.threads -= 1;
            return;
        };
        drop(locked);
        let result = queue.connect(&path, psn);
        lock(&done.outcomes).push((key, queue, path.qp_num, result));
        done.worker.wake_by_ref();
    }
}

impl Connected {
    pub(super) fn new(worker: Waker) -> Self {
        Self { outcomes: Mutex::default(), worker }
    }

    pub(super) fn take(&self) -> Vec<Outcome> {
        mem::take(&mut *lock(&self.outcomes))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
