use std::sync::Arc;

use crate::Config;
use crate::perf_counters::PerfCollection;

/// What is passed instead of globals: the configuration and the counters of one "process" in Ceph's
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
#[derive(Clone, Debug, Default)]
pub struct Context {
    config: Arc<Config>,
    perf: PerfCollection,
}

impl Context {
    /// A context with this configuration.
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(config), perf: PerfCollection::default() }
    }

    /// The options.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The counters of what was made with it.
    pub fn perf(&self) -> &PerfCollection {
        &self.perf
    }
}
