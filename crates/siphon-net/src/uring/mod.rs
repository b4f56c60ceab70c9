//! The `uring` stack: the system's TCP sockets, by io_uring.
//!
//! Each worker has a ring. What its turn asks for goes to the kernel in the one call that then waits;
//! what the kernel does for it is done in that call too. A socket's receive stays with the kernel, which
//! takes a buffer of the worker's ring when something arrives: one that waits holds none. A long segment
//! is received into its own buffer instead.
//!
//! ```text
//!   recv ──▶ Receiving ─┬─ multishot ─▶ Buffers ──▶ waiting ──▶ Completion::Received
//!                       └─ RECVMSG ───▶ FillBuf, and what comes behind it
//!   send ──▶ Sending ───── SENDMSG ───▶ Completion::Sent
//! ```
//!
//! The kernel reads and writes our memory while an operation is under way. So a socket that is closed
//! lives on, with all that, until the last of its operations has ended; a driver waits for that when it
//! is dropped, and leaks the memory if it should not come to it.

#![expect(unsafe_code, reason = "the kernel reads and writes what we point it to")]

mod buffers;
mod driver;
mod file;
mod listener;
mod receiving;
mod ring;
mod sending;
mod socket;
mod token;

pub use driver::UringDriver;
