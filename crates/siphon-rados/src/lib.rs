//! Objects in Ceph clusters: pools, object operations, snapshots, listings, watches, locks.
//!
//! A [`Cluster`] is a session with a cluster's daemons, a [`Pool`] where objects are. What one step does
//! is a method of the pool; several steps that are taken together are a [`ReadOp`] or a [`WriteOp`].
//! Everything is asynchronous and needs no runtime of its own; [`Wait`] is for programs that wait on
//! threads. Errors keep Ceph's numbers: [`Error::errno`]. Numbers, flags and answers are [`types`].
//!
//! ```no_run
//! use bytes::Bytes;
//! use siphon_rados::{Cluster, ReadOp, WriteOp};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = Cluster::connect().await?;
//! let pool = cluster.pool("data").await?;
//!
//! let mut op = WriteOp::new();
//! op.create(true);
//! op.write_full(Bytes::from_static(b"Dear reader"));
//! op.set_xattr("language", Bytes::from_static(b"en"));
//! let version = pool.operate("letter", op).await?.version();
//!
//! let mut op = ReadOp::new();
//! op.assert_version(version);
//! let (data, language) = (op.read(0, 0), op.xattr("language"));
//! let outputs = pool.operate("letter", op).await?;
//! assert_eq!(outputs.get(data)?, b"Dear reader");
//! assert_eq!(outputs.get(language)?, "en");
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod cluster;
mod conf;
mod error;
mod list;
mod lock;
mod object;
mod op;
mod pool;
mod snaps;
pub mod types;
mod wait;
mod watch;

pub use cluster::{Cluster, ClusterStat, PoolUsage};
pub use conf::{ClusterBuilder, ConnectError};
pub use error::Error;
pub use list::{Cursor, Objects};
pub use lock::Lock;
pub use object::{Answer, Change};
pub use op::{InvalidOp, ObjectOp, Out, Outputs, ReadOp, Reading, WriteOp, Writing};
pub use pool::{Kind, Operation, Pool};
pub use siphon_messages::osd::ListObject;
pub use siphon_monclient::{Command, CommandOutput};
pub use siphon_objecter::{Budget, Notification, NotifyReply, SnapContext, Watch, WatchEvent};
pub use siphon_osdmap::PoolSnap;
pub use wait::Wait;
