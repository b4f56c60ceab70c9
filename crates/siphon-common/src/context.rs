use std::sync::Arc;

use crate::Config;

/// What is passed instead of globals: the configuration of one "process" in Ceph's sense.
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
}

impl Context {
    /// A context with this configuration.
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(config) }
    }

    /// The options.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
