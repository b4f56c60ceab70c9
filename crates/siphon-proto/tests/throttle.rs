//! A throttle between real threads. The model check is in `src/throttle.rs`, under `cfg(loom)`.
#![cfg(not(loom))]

use std::sync::Arc;
use std::task::Wake;
use std::thread::{self, Thread};

use siphon_proto::Throttle;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A lost wakeup would leave a thread parked for ever.
#[test]
fn threads_that_wait_for_each_other_all_end_and_give_all_back() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 2_000;
    const MAX: u64 = 10;
    let throttle = Throttle::new("bytes", MAX);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let throttle = &throttle;
            scope.spawn(move || {
                let waker = Arc::new(Unpark(thread::current())).into();
                for round in 0..ROUNDS {
                    // Up to more than the maximum.
                    let amount = (thread * 7 + round * 5) % (MAX + 3);
                    let grant = loop {
                        match throttle.take(amount, &waker) {
                            Some(grant) => break grant,
                            None => thread::park(),
                        }
                    };
                    assert!(throttle.current() <= MAX + MAX + 2);
                    drop(grant);
                }
            });
        }
    });
    assert_eq!((throttle.waiting(), throttle.current()), (0, 0));
}
