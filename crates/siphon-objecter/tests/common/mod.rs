//! What the tests with real clusters share.

#![allow(dead_code, unreachable_pub)] // each test program uses its share

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use siphon_common::{Config, Context};
use siphon_messages::osd::OsdOp;
use siphon_monclient::MonClient;
use siphon_objecter::{Objecter, ObjecterConfig, Op, OpError, OpReply, Target};
use siphon_peers::{Cluster, ClusterOptions, Release, require};

/// How long a test waits for what must come.
pub const HUNG: Duration = Duration::from_secs(120);

/// A cluster with a monitor, so many OSDs, and options of its own.
pub fn cluster(release: Release, osds: u32, config: &[&str]) -> Option<Cluster> {
    cluster_with(release, 1, osds, config)
}

/// A cluster with so many monitors and OSDs, and options of its own.
pub fn cluster_with(release: Release, mons: u32, osds: u32, config: &[&str]) -> Option<Cluster> {
    let config = config.iter().map(|line| (*line).to_owned()).collect();
    let options = ClusterOptions { mons, osds, config, ..ClusterOptions::default() };
    require(Cluster::start(release, &options))
}

/// The configuration of `client.admin` of this cluster.
pub fn config(cluster: &Cluster) -> Config {
    let mut config = Config::default();
    config.mon_host = cluster.mon_host();
    config.keyring = cluster.keyring().display().to_string();
    config.ms_async_op_threads = 2;
    config.objecter_tick_interval = Duration::from_secs(1);
    config.objecter_timeout = Duration::from_secs(3);
    config
}

pub fn objecter_with(config: Config) -> Objecter {
    let objecter_config = ObjecterConfig::new(&config);
    let mon = MonClient::builder(&Context::new(config)).start().unwrap();
    pollster::block_on(mon.authenticate(HUNG)).unwrap_or_else(|error| panic!("{error}"));
    let objecter = Objecter::start(&mon, objecter_config).unwrap();
    pollster::block_on(objecter.wait_for_latest_map(None)).unwrap();
    objecter
}

/// An objecter in a cluster, that has the newest map.
pub fn objecter(cluster: &Cluster) -> Objecter {
    objecter_with(config(cluster))
}

/// Makes a pool, and returns its id once our map has it.
pub fn make_pool(cluster: &Cluster, objecter: &Objecter, name: &str, args: &[&str]) -> i64 {
    cluster.ceph(&[&["osd", "pool", "create", name], args].concat()).unwrap();
    let map = pollster::block_on(objecter.wait_for_latest_map(None)).unwrap();
    map.pool_by_name(name.as_bytes()).unwrap()
}

pub fn do_op(objecter: &Objecter, op: Op) -> Result<OpReply, OpError> {
    pollster::block_on(objecter.submit(op))
}

pub fn write_full(pool: i64, name: &str, data: &[u8]) -> Op {
    let data = Bytes::copy_from_slice(data);
    Op::write(Target::object(pool, name), vec![OsdOp::write_full(data.into())])
}

pub fn read(objecter: &Objecter, pool: i64, name: &str) -> Result<Bytes, OpError> {
    let op = Op::read(Target::object(pool, name), vec![OsdOp::read(0, 0)]);
    do_op(objecter, op).map(|reply| reply.ops[0].data.to_bytes())
}

/// What the release's own `rados` prints, given something to read.
pub fn rados(cluster: &Cluster, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = cluster.program("rados");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "rados {args:?}: {error}");
    output.stdout
}

/// Waits for a condition that others bring about.
#[expect(clippy::disallowed_methods, reason = "gives up by the clock")]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < HUNG, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
