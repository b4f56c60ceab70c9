//! Which cluster a command is about, and who asks.

use std::time::Duration;

use anyhow::{Result, anyhow};
use siphon_common::Context;
use siphon_monclient::MonClient;
use siphon_rados::{Cluster, ClusterBuilder};

use crate::options;

/// How long to wait where nobody says; Ceph's own tools wait for five minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Which cluster, and who asks; the options are those of Ceph's own tools.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// Sets an option of Ceph's, as --set ms_mon_client_mode=secure; may be given several times
    #[arg(long, global = true, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Give up after so many seconds: on monitors that don't let us in, and on an answer [default:
    /// `client_mount_timeout` if somebody set it, else 30]
    #[arg(long, global = true, value_name = "S")]
    connect_timeout: Option<f64>,
}

impl ClusterArgs {
    /// How long to wait for a monitor, and for an answer.
    pub(crate) fn timeout(&self) -> Result<Duration> {
        let Some(seconds) = self.connect_timeout else {
            let (config, _) = self.builder()?.configure()?;
            let set = !config.settings("client_mount_timeout").is_empty();
            let timeout = Some(config.client_mount_timeout).filter(|it| set && !it.is_zero());
            return Ok(timeout.unwrap_or(CONNECT_TIMEOUT));
        };
        let timeout = Duration::try_from_secs_f64(seconds).ok().filter(|it| !it.is_zero());
        timeout
            .ok_or_else(|| anyhow!("--connect-timeout {seconds}: not a time to wait, in seconds"))
    }

    /// Opens a session with the monitors.
    pub(crate) async fn connect(&self) -> Result<MonClient> {
        let timeout = self.timeout()?;
        let (mut config, name) = self.builder()?.configure()?;
        // A command asks one thing at a time.
        config.ms_async_op_threads = 1;
        let context = Context::new(config);
        options::attend(&context);
        let mon = MonClient::builder(&context).name(name).start()?;
        mon.authenticate(timeout).await?;
        Ok(mon)
    }

    /// The cluster, to be connected with.
    pub(crate) fn builder(&self) -> Result<ClusterBuilder> {
        let args = options::args().iter().cloned();
        let mut builder = Cluster::builder().args(args).own_options(options::own().iter().cloned());
        for option in &self.set {
            let parts = option.split_once('=');
            let (name, value) =
                parts.ok_or_else(|| anyhow!("--set {option}: write --set NAME=VALUE"))?;
            builder = builder.set(name, value);
        }
        Ok(builder)
    }
}
