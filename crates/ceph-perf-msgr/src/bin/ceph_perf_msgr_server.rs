//! ceph_perf_msgr_server.
fn main() {}
