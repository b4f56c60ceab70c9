//! What every mechanism crate and tool shares: configuration, logging, perf counters and the admin socket
//! under Ceph's names, one thread for the deadlines of a client, and tasks that need no thread.
//!
//! There is no global. A [`Context`] is made once by the program, from a [`Config`], and passed to
//! whatever needs it; two contexts with different options live side by side in one process. The one
//! thing that a process has only once is its log, and only [`logging::LogBuilder::install`] touches it.
//!
//! This crate knows nothing of the protocol: an option is a name, a type and a range here, and gets
//! its meaning where it is read.

pub mod admin_socket;
pub mod config;
mod context;
pub mod interrupt;
pub mod logging;
pub mod perf_counters;
mod pid_file;
mod presence;
pub mod prometheus;
mod serving;
mod task;
mod timer;

pub use config::{Config, ConfigError};
pub use context::{Context, Observation};
pub use pid_file::{PidFile, PidFileError};
pub use presence::{Presence, PresenceError};
pub use task::Task;
pub use timer::{Deadline, Tick, Timer};
