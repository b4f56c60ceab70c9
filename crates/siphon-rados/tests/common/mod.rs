//! A real cluster, seen from both sides: ours, and that of its own `rados`.
#![allow(dead_code, reason = "no test uses all of it")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use siphon_peers::{Cluster as Peers, ClusterOptions, Release, require};
use siphon_rados::{Cluster, Pool, Wait};

pub(crate) const RELEASES: [Release; 3] = [Release::Pacific, Release::Reef, Release::Tentacle];
pub(crate) const MODES: [&str; 2] = ["crc", "secure"];
/// An erasure-coded pool is of 2 data and 1 coding shards.
pub(crate) const OSDS: u32 = 3;

/// A cluster with three pools: `copies`, `coded`, and `overwrites`, which is coded too, and whose
/// objects can be changed anywhere.
pub(crate) struct World {
    pub(crate) peers: Peers,
}

impl World {
    pub(crate) fn start(release: Release) -> Option<Self> {
        let config = [
            "mon_allow_pool_delete = true",
            "mon_debug_no_require_bluestore_for_ec_overwrites = true",
            "osd_max_object_size = 16777216",
            "osd_pool_default_pg_num = 8",
            "osd_pool_default_pgp_num = 8",
            "osd_pool_default_pg_autoscale_mode = off",
        ];
        let config = config.map(str::to_owned).to_vec();
        let options = ClusterOptions { osds: OSDS, config, ..ClusterOptions::default() };
        let peers = require(Peers::start(release, &options))?;
        let ceph = |command: &str| {
            let args: Vec<_> = command.split(' ').collect();
            peers.ceph(&args).unwrap_or_else(|error| panic!("{command}: {error}"));
        };
        ceph("osd erasure-code-profile set two k=2 m=1 crush-failure-domain=osd");
        ceph("osd pool create copies 8 8 replicated");
        ceph("osd pool set copies size 2");
        ceph("osd pool create coded 8 8 erasure two");
        ceph("osd pool create overwrites 8 8 erasure two");
        ceph("osd pool set overwrites allow_ec_overwrites true");
        Some(Self { peers })
    }

    pub(crate) fn connect(&self, mode: &str) -> Cluster {
        let builder = Cluster::builder().conf_file(self.peers.client_conf());
        let builder = builder.set("ms_mon_client_mode", mode).set("ms_client_mode", mode);
        builder.connect().wait().unwrap_or_else(|error| {
            panic!("{mode}: {error}\n{}", self.peers.logs());
        })
    }

    /// What the cluster's own `rados` prints; it must succeed.
    pub(crate) fn rados(&self, pool: &Pool, args: &[&str]) -> String {
        let output = self.rados_with(pool, args, b"");
        assert!(output.status.success(), "rados {args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("rados prints text")
    }

    /// What comes of the cluster's own `rados`, given some input.
    pub(crate) fn rados_with(&self, pool: &Pool, args: &[&str], input: &[u8]) -> Output {
        feed(self.command(pool, args), input)
    }

    /// The cluster's own `rados`, to do something in a pool.
    pub(crate) fn command(&self, pool: &Pool, args: &[&str]) -> Command {
        let mut rados = self.peers.program("rados");
        rados.args(["-p", &pool.name().to_string()]);
        if !pool.namespace().is_empty() {
            rados.args(["-N", &pool.namespace().to_string()]);
        }
        rados.args(args);
        rados
    }
}

/// Runs a program with some input.
pub(crate) fn feed(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it has an input");
    // What is written is short, or read before anything is printed.
    stdin.write_all(input).expect("it reads its input");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}
