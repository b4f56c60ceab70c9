//! ceph_perf_msgr_client.
fn main() {}
