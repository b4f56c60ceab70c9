//! Network stacks, event centers and workers: how bytes come and go. Nothing here knows what the
//! bytes mean.
//!
//! - A [`NetworkStack`] gives each worker a [`Driver`], which takes ops and gives [`Completion`]s.
//!   The `posix` stack ([`PosixDriver`]) makes them from readiness, the `uring` stack
//!   ([`UringDriver`]) has them from the kernel.
//! - A [`Worker`] owns an [`EventCenter`] (driver and [`Timers`]), a [`Mailbox`] and a [`Handler`],
//!   and runs them in turns: wait, apply what came, drain what follows from it.
//! - A [`MailSender`] is how any other thread reaches what a worker owns.
//!
//! ```text
//!           ┌──────────────────── Worker::step ────────────────────┐
//!  Driver::wait ── Completion ─▶ handle_completion ┐               │
//!  Timers ─────── token ───────▶ handle_timer ─────┼─▶ drain ── ops ─▶ Driver
//!  Mailbox ────── batch ───────▶ handle_mail ──────┘     │
//!     ▲                                                  │
//!     └── MailSender (any thread, this one included) ◀───┘
//! ```

mod center;
mod congestion;
mod driver;
mod error;
mod faulty;
mod id_map;
mod mailbox;
mod outgoing;
mod posix;
mod rdma;
mod slab;
mod stack;
mod sync;
mod sys;
mod tcp_info;
mod timers;
mod uring;
mod worker;

/// What a receive is filled into: page-aligned, initialised memory.
pub use siphon_wire::buf::SegmentBuf as FillBuf;

pub use center::EventCenter;
pub use congestion::CongestionControl;
pub use driver::{
    Accepted, Completion, Driver, FileId, Interest, ListenOptions, ListenerId, SendStatus,
    SocketId, SocketOptions, Wait,
};
pub use error::{ListenError, UnknownStack, WorkerError, WorkerFailure};
pub use faulty::FaultyDriver;
pub use id_map::{IdHasher, IdMap};
pub use mailbox::{MailSender, Mailbox, mailbox};
pub use posix::{PosixDriver, SCRATCH_BYTES};
pub use rdma::{
    GidChoice, RdmaConnect, RdmaCounts, RdmaDevice, RdmaDriver, RdmaOptions, RegisteredBuffer,
    rdma_gid,
};
pub use stack::{NetworkStack, StackKind};
pub use tcp_info::TcpInfo;
pub use timers::{TimerId, Timers};
pub use uring::UringDriver;
pub use worker::{Handler, Worker, Workers};
