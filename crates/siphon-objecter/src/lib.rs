//! Operations on objects of a Ceph cluster: where each goes, in which order, and when it goes again.
//!
//! An [`Op`] is for an object, and has operations of which all happen or none. Which OSD it is sent to
//! follows from the map of the OSDs. Where that changes, or a session with an OSD ends, it is sent again,
//! and an OSD that had done it says so.
//!
//! ```no_run
//! use siphon_common::Context;
//! use siphon_common::config::ConfigLoader;
//! use siphon_messages::osd::OsdOp;
//! use siphon_monclient::MonClient;
//! use siphon_objecter::{Objecter, ObjecterConfig, Op, Target};
//!
//! let config = ConfigLoader::new().load(["-n", "client.admin"])?.config;
//! let context = Context::new(config);
//! let mon = MonClient::builder(&context).start()?;
//! pollster::block_on(async {
//!     mon.authenticate(context.config().client_mount_timeout).await?;
//!     let objecter = Objecter::start(&mon, ObjecterConfig::new(&context.config()))?;
//!     let map = objecter.wait_for_latest_map(None).await?;
//!     let pool = map.pool_by_name(b"data").ok_or("there is no pool data")?;
//!     let content = bytes::Bytes::from_static(b"content");
//!     let write = Op::write(Target::object(pool, "name"), vec![OsdOp::write_full(content.into())]);
//!     objecter.submit(write).await?;
//!     let read = Op::read(Target::object(pool, "name"), vec![OsdOp::read(0, 4096)]);
//!     println!("{} bytes", objecter.submit(read).await?.ops[0].data.len());
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Futures need no runtime. What is given up, by dropping its future, is taken out: an OSD that has it does
//! all of it or nothing.
//!
//! Inside, a core that does no IO decides everything; see ARCHITECTURE.md, «The client». Of two operations on
//! an object, the one that was submitted first is done first, unless it waits for the cluster and the other
//! need not: a write for a full pool lets reads pass, and an OSD that has an operation tried again has it
//! take its place anew.

#![forbid(unsafe_code)]

mod backoff;
mod budget;
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
mod update;
mod watch;

pub use budget::{Budget, Reserve};
pub use error::{BadReply, ObjecterError, OpError};
pub use future::{CommandFuture, MapFuture, OpFuture, Watch};
pub use objecter::{Objecter, ObjecterConfig};
pub use op::{Op, OpReply, SnapContext, Target};
pub use watch::{Notification, NotifyReply, WatchEvent};
