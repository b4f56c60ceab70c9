//! Which network stack a command uses.

use anyhow::{Result, bail};
use siphon_common::{Config, Context};

#[derive(Debug, clap::Args)]
pub(crate) struct StackArgs {
    /// Network stack: posix, uring (TCP by io_uring) or rdma (ms_type)
    #[arg(long, default_value = "posix")]
    stack: String,
    #[command(flatten)]
    options: StackOptions,
}

/// What is said of a stack apart from which it is.
#[derive(Debug, clap::Args)]
pub(crate) struct StackOptions {
    /// With --stack rdma: the device (ms_async_rdma_device_name)
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// With --stack rdma: the index of our GID (ms_async_rdma_gid_idx)
    #[arg(long, value_name = "N")]
    gid_index: Option<u8>,
    /// Worker threads of the stack (ms_async_op_threads)
    #[arg(long, value_name = "N")]
    workers: Option<u16>,
    /// Any option of the messenger, as in ceph.conf: -o ms_tcp_nodelay=false
    #[arg(short = 'o', value_name = "NAME=VALUE")]
    option: Vec<String>,
}

impl StackArgs {
    pub(crate) fn context(&self) -> Result<Context> {
        self.options.context(&self.stack)
    }

    /// What the arguments say, over what `config` has.
    pub(crate) fn config(&self, config: Config) -> Result<Config> {
        self.options.config(&self.stack, config)
    }
}

impl StackOptions {
    /// For a stack by its name.
    pub(crate) fn context(&self, stack: &str) -> Result<Context> {
        Ok(Context::new(self.config(stack, Config::default())?))
    }

    fn config(&self, stack: &str, mut config: Config) -> Result<Config> {
        config.set("ms_type", stack)?;
        if let Some(device) = &self.device {
            config.set("ms_async_rdma_device_name", device)?;
        }
        if let Some(index) = self.gid_index {
            config.set("ms_async_rdma_gid_idx", &index.to_string())?;
        }
        if let Some(workers) = self.workers {
            config.set("ms_async_op_threads", &workers.to_string())?;
        }
        for option in &self.option {
            let Some((name, value)) = option.split_once('=') else {
                bail!("-o {option}: write NAME=VALUE");
            };
            config.set(name.trim(), value.trim())?;
        }
        Ok(config)
    }
}
