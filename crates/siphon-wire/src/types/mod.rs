//! Ceph's base types.
mod features;
pub use features::Features;
