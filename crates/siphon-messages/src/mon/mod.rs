//! What monitors talk about.

mod features;
mod mgrmap;
mod monmap;
mod poolstat;

pub use features::MonFeatures;
pub use mgrmap::MgrMap;
pub use monmap::{ElectionStrategy, MonInfo, MonMap};
pub use poolstat::{ObjectStatCollection, ObjectStatSum, PoolStat, StoreStatfs};
pub use siphon_wire::types::Release;
