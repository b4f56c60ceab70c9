//! Which network stack a command uses.

use anyhow::{Result, bail};
use siphon_common::{Config, Context};
use siphon_net::StackKind;

use crate::options;

#[derive(Debug, clap::Args)]
pub(crate) struct StackArgs {
    /// Network stack: posix, uring (TCP by io_uring) or rdma [default: ms_type, else posix]
    #[arg(long)]
    stack: Option<String>,
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
        Ok(Context::new(self.config(options::config()?)?))
    }

    /// What the arguments say, over what `config` has.
    pub(crate) fn config(&self, config: Config) -> Result<Config> {
        let config = self.options.config(self.stack.as_deref(), config)?;
        // What is no stack at all is told where it is started.
        if let Ok(kind) = config.ms_type.parse::<StackKind>() {
            self.options.check(kind == StackKind::Rdma, kind.name(), "--stack rdma")?;
        }
        Ok(config)
    }
}

impl StackOptions {
    /// For a stack by its name.
    pub(crate) fn context(&self, stack: &str) -> Result<Context> {
        Ok(Context::new(self.config(Some(stack), options::config()?)?))
    }

    /// Refuses what only RDMA heeds where there is none: `used` are the stacks, `instead` has it.
    pub(crate) fn check(&self, has_rdma: bool, used: &str, instead: &str) -> Result<()> {
        let device = self.device.is_some().then_some("--device");
        let gid = self.gid_index.is_some().then_some("--gid-index");
        if let Some(option) = device.or(gid)
            && !has_rdma
        {
            bail!("{option} is for the rdma stack, and {used} would ignore it: add {instead}");
        }
        Ok(())
    }

    fn config(&self, stack: Option<&str>, mut config: Config) -> Result<Config> {
        if let Some(stack) = stack {
            config.set("ms_type", stack)?;
        }
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        stack: StackArgs,
    }

    #[test]
    fn a_device_without_rdma_is_refused() {
        let config = |line: &str| {
            let words = std::iter::once("siphon").chain(line.split_whitespace());
            Line::parse_from(words).stack.config(Config::default())
        };
        for (line, expected) in [
            ("--device rxe0", "--device is for the rdma stack, and posix would ignore it: add"),
            ("--gid-index 1 --stack uring", "--gid-index is for the rdma stack, and uring"),
            ("--device rxe0 --stack rdma -o ms_type=async", "add --stack rdma"),
        ] {
            let error = config(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
        for right in ["--device rxe0 --gid-index 1 --stack rdma", "--stack uring", ""] {
            config(right).unwrap();
        }
        let by_option = config("--device rxe0 -o ms_type=async+rdma").unwrap();
        assert_eq!(by_option.ms_async_rdma_device_name, "rxe0");
    }
}
