//! The messenger benchmark: what `siphon perf` and `ceph_perf_msgr_*` run, and the raw limit that
//! plain TCP sockets set to it.
//!
//! A [`Server`] answers `MOSDOp` by `MOSDOpReply`. A [`Client`] has jobs, each a messenger with one
//! connection, that keep a number of operations in flight and count what was answered.

#![allow(clippy::disallowed_methods, reason = "measuring is reading the clock")]

mod client;
mod cpu;
mod measure;
mod raw;
mod report;
mod server;
pub mod sweep;
mod syscalls;
mod work;

pub use client::{Client, ClientError, ClientOptions};
pub use cpu::CpuTime;
pub use measure::{Limit, Measurement, Progress, Workload};
pub use raw::{RawPeers, RawServer};
pub use report::{Comparison, Compression, Figures, LatencyUs, RdmaFigures, Report};
pub use server::{Server, ServerOptions};
pub use syscalls::SyscallCounter;
pub use work::{Content, wire_lengths};
