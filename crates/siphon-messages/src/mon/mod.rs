//! What monitors talk about.

mod features;
mod monmap;

pub use features::MonFeatures;
pub use monmap::{ElectionStrategy, MonInfo, MonMap};
pub use siphon_wire::types::Release;
