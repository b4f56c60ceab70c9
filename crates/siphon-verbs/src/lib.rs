//! RDMA verbs and RDMA-CM with types, over libibverbs and librdmacm, which are found at run time: one
//! binary works with and without them.
//!
//! - [`Verbs`] is the libraries. [`Verbs::devices`] lists devices, [`Verbs::open`] opens one.
//! - A [`Context`] is an open device: its limits, ports and GIDs, and [`AsyncEvent`]s.
//! - A [`ProtectionDomain`] registers memory, which comes as [`Chunk`]s that are owned one by one.
//! - A [`CompletionQueue`] tells of what ended. A [`SharedReceiveQueue`] takes chunks for several
//!   [`QueuePair`]s, which send.
//! - An [`EventChannel`] and its [`CmId`]s connect by addresses.
//!
//! # Memory that a device works on
//!
//! What is posted is moved into its queue, and comes out of it by the completion, which is a value that
//! only a completion queue makes and that is used up: nobody can have memory of which the device has
//! not let go. What never completes is let go when its queue is destroyed. Each object keeps alive what
//! it stands on, so that they can be dropped in any order.
//!
//! A chunk that was posted is gone:
//!
//! ```compile_fail,E0382
//! # fn f(queue: &siphon_verbs::SharedReceiveQueue, chunk: siphon_verbs::Chunk) {
//! let mut chunks = vec![chunk];
//! queue.post(&mut chunks).unwrap();
//! println!("{:?}", &chunk[..]); // moved into `chunks`, and from there to the device
//! # }
//! ```
//!
//! A completion can't be used twice:
//!
//! ```compile_fail,E0382
//! # fn f(queue: &siphon_verbs::SharedReceiveQueue, done: siphon_verbs::WorkCompletion) {
//! let first = queue.complete(done);
//! let second = queue.complete(done);
//! # }
//! ```
//!
//! Nor can it be made, nor kept as a copy:
//!
//! ```compile_fail,E0599
//! # fn f(done: &siphon_verbs::WorkCompletion) {
//! let copy: siphon_verbs::WorkCompletion = done.clone();
//! # }
//! ```
#![allow(unsafe_code)]

mod cm;
mod completion;
mod context;
mod error;
mod ffi;
#[cfg(test)]
mod layout;
mod memory;
mod queue;
mod receive;
mod sysfs;

pub use cm::{CmEvent, CmEventKind, CmId, CmKey, ConnectParameters, EventChannel};
pub use completion::{CompletionQueue, PollRoom, QueueId, WorkCompletion, WorkStatus};
pub use context::{
    AsyncEvent, AsyncEventKind, Context, DeviceInfo, DeviceLimits, LinkLayer, Mtu, PortInfo,
    PortState, Transport, Verbs,
};
pub use error::VerbsError;
pub use ffi::LoadError;
pub use memory::{Chunk, PageKind, ProtectionDomain, Region, fork_init, memlock_limit};
pub use queue::{
    Batch, PathTo, Piece, Posted, QueuePair, QueuePairOptions, QueuePairState, SendRefused, Unsent,
};
pub use receive::{Received, SharedReceiveQueue};
pub use sysfs::{Gid, GidEntry, GidType, NotAGid};
