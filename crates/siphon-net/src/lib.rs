//! Network stacks, event centers and workers: how bytes move, and nothing of what they mean.
//!
//! A [`NetworkStack`] starts worker threads. Each has an [`EventCenter`], which is its share of the
//! stack (a [`Driver`]), its timers, and its mailbox, and runs a [`Handler`] in one loop: select →
//! apply → drain.

mod center;
mod driver;
mod mailbox;
mod posix;
mod stack;
mod timers;
mod worker;

pub use center::EventCenter;
pub use driver::{
    Accepted, Completion, Driver, FileInterest, FileToken, ListenOptions, ListenerId, SendStatus,
    SocketId, SocketOptions, Waker,
};
pub use mailbox::{MailReceiver, MailSender, mailbox};
pub use posix::PosixDriver;
pub use stack::{NetworkStack, StackKind, UnknownStack};
pub use timers::{TimerId, Timers};
pub use worker::{Handler, WorkerPanicked, Workers, step};
