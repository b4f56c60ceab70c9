use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;

/// Processor time of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CpuTime {
    /// Seconds in the program.
    pub user: f64,
    /// Seconds in the kernel.
    pub system: f64,
}

impl CpuTime {
    /// What the process has used so far.
    pub fn now() -> Self {
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        // It fails for no process but one that asks with a wrong constant.
        match getrusage(UsageWho::RUSAGE_SELF) {
            Ok(usage) => {
                Self { user: seconds(usage.user_time()), system: seconds(usage.system_time()) }
            }
            Err(_) => Self::default(),
        }
    }

    /// What it has used since.
    #[must_use]
    pub fn elapsed(self) -> Self {
        let now = Self::now();
        Self { user: now.user - self.user, system: now.system - self.system }
    }

    /// Both together.
    pub fn total(self) -> Duration {
        Duration::from_secs_f64((self.user + self.system).max(0.0))
    }
}

impl std::ops::AddAssign for CpuTime {
    fn add_assign(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
    }
}
