//! Perf counters for Prometheus: over HTTP, by the names that `ceph-exporter` gives them.

mod endpoint;
mod text;

pub use endpoint::{Endpoint, EndpointError};
pub use text::render;
