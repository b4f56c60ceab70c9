use std::fmt;

use siphon_wire::types::Utime;

/// What authentication takes from the world: the time, against which tickets expire, and bytes that
/// nobody can foresee.
pub trait AuthEnv: fmt::Debug + Send + Sync {
    /// The time since 1970.
    fn now(&self) -> Utime;

    /// Fills `bytes` at random, fit for keys.
    fn fill(&self, bytes: &mut [u8]);

    /// A random number.
    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use super::*;

    /// A clock that is set by hand, and numbers that repeat from run to run.
    #[derive(Debug)]
    pub(crate) struct TestEnv {
        pub(crate) sec: AtomicU32,
        state: AtomicU64,
    }

    impl TestEnv {
        pub(crate) fn new(seed: u64) -> Self {
            Self { sec: AtomicU32::new(1_000_000), state: AtomicU64::new(seed) }
        }

        pub(crate) fn pass(&self, sec: u32) {
            self.sec.fetch_add(sec, Ordering::Relaxed);
        }
    }

    impl AuthEnv for TestEnv {
        fn now(&self) -> Utime {
            Utime::new(self.sec.load(Ordering::Relaxed), 0)
        }

        fn fill(&self, bytes: &mut [u8]) {
            for byte in bytes {
                let next =
                    self.state.load(Ordering::Relaxed).wrapping_mul(6_364_136_223_846_793_005);
                let next = next.wrapping_add(1_442_695_040_888_963_407);
                self.state.store(next, Ordering::Relaxed);
                *byte = (next >> 56) as u8;
            }
        }
    }
}
