//! What monitors talk about.

mod features;
mod monmap;
mod release;

pub use features::MonFeatures;
pub use monmap::{ElectionStrategy, MonInfo, MonMap};
pub use release::Release;
