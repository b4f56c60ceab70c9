use std::sync::Arc;

use crate::Config;
use crate::admin_socket::{self, Commands};
use crate::perf_counters::PerfCollection;

/// What is passed instead of globals: the configuration, the counters and the commands of one "process" in Ceph's
/// sense.
///
/// Cheap to clone. The configuration is fixed from here on: change it before making the context.
///
/// ```
/// use siphon_common::{Config, Context};
///
/// let mut config = Config::default();
/// config.set("ms_async_op_threads", "2")?;
/// let context = Context::new(config);
/// assert_eq!(context.config().ms_async_op_threads, 2);
/// # Ok::<(), siphon_common::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    config: Arc<Config>,
    perf: PerfCollection,
    commands: Commands,
}

impl Context {
    /// A context with this configuration.
    pub fn new(config: Config) -> Self {
        let perf = PerfCollection::default();
        let commands = Commands::default();
        admin_socket::register_standard(&commands, &perf);
        Self { config: Arc::new(config), perf, commands }
    }

    /// The options.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The counters of what was made with it.
    pub fn perf(&self) -> &PerfCollection {
        &self.perf
    }

    /// What its [admin socket](admin_socket::AdminSocket) answers, if it has one.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new(Config::default())
    }
}
