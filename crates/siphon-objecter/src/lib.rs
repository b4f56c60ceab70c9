//! Operations on objects of a Ceph cluster: where each goes, in which order, and when it goes again.
//!
//! An [`Op`] is for an object, and has operations of which all happen or none. Which OSD it is sent to
//! follows from the map of the OSDs. Where that changes, or a session with an OSD ends, it is sent again,
//! and an OSD that had done it says so.

#![forbid(unsafe_code)]

mod backoff;
mod core;
mod dispatch;
mod error;
mod future;
mod interval;
mod monitors;
mod objecter;
mod op;
mod placement;
mod pools;
mod ticket;
mod watch;

pub use error::{BadReply, ObjecterError, OpError};
pub use future::{CommandFuture, MapFuture, OpFuture, Watch};
pub use objecter::{Objecter, ObjecterConfig};
pub use op::{Op, OpReply, SnapContext, Target};
pub use watch::{Notification, NotifyReply, WatchEvent};
