//! What the tests with real clusters share.

#![allow(dead_code, unreachable_pub)] // each test program uses its share

use std::time::Duration;

use siphon_common::{Config, Context};
use siphon_monclient::MonClient;
use siphon_peers::Cluster;

/// How long a test waits for what must come.
pub const HUNG: Duration = Duration::from_secs(60);

/// The configuration of `client.admin` of this cluster.
pub fn config(cluster: &Cluster) -> Config {
    let mut config = Config::default();
    config.mon_host = cluster.mon_host();
    config.keyring = cluster.keyring().display().to_string();
    config.ms_async_op_threads = 1;
    config
}

/// A client that is let in.
pub fn client(config: Config) -> MonClient {
    let mon = MonClient::builder(&Context::new(config)).start().unwrap();
    pollster::block_on(mon.authenticate(HUNG)).unwrap_or_else(|error| panic!("{error}"));
    mon
}
