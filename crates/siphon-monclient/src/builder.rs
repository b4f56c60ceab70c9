use std::sync::{Arc, OnceLock};

use siphon_common::{Config, Context, Timer};
use siphon_msgr::{Messenger, Stack};
use siphon_proto::Policy;
use siphon_wire::types::{AuthName, ByteString, EntityName, EntityType};

use crate::auth::Authenticator;
use crate::client::MonClient;
use crate::core::{Core, Options};
use crate::error::StartError;
use crate::front::Front;
use crate::monitors::{configured_fsid, initial_monmap};
use crate::shell::Inner;

/// Says what a [`MonClient`] is to be before it starts.
///
/// ```
/// use siphon_common::{Config, Context};
/// use siphon_monclient::{MonClient, StartError};
///
/// let mut config = Config::default();
/// config.set("mon_dns_srv_name", "")?; // neither mon_host nor DNS
/// let error = MonClient::builder(&Context::new(config)).start().unwrap_err();
/// assert!(matches!(error, StartError::NoMonitors { .. }));
/// # Ok::<(), siphon_common::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct MonClientBuilder {
    context: Context,
    name: AuthName,
    stack: Option<Stack>,
    timer: Option<Timer>,
}

impl MonClientBuilder {
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            name: AuthName::new(EntityType::CLIENT, "admin"),
            stack: None,
            timer: None,
        }
    }

    /// Who we are; `client.admin` by default.
    #[must_use]
    pub fn name(mut self, name: AuthName) -> Self {
        self.name = name;
        self
    }

    /// Shares the workers of a stack with others; one of its own by default.
    #[must_use]
    pub fn stack(mut self, stack: &Stack) -> Self {
        self.stack = Some(stack.clone());
        self
    }

    /// Shares a timer with others; one of its own by default.
    #[must_use]
    pub fn timer(mut self, timer: &Timer) -> Self {
        self.timer = Some(timer.clone());
        self
    }

    /// Makes the client. It connects to nobody yet: [`MonClient::authenticate`] does, or the first
    /// question. Host names in `mon_host` are looked up here, and
    /// where that is empty DNS is asked for monitors, which may take its time.
    ///
    /// # Errors
    /// If the configuration names no monitors, there is no key, or the system gives no threads.
    pub fn start(self) -> Result<MonClient, StartError> {
        let config = self.context.config();
        let map = initial_monmap(&config)?;
        let authenticator = Authenticator::new(&config, &self.name)
            .map_err(|source| StartError::Credentials { name: self.name.to_string(), source })?;
        let authenticator = Arc::new(authenticator);
        let stack = match self.stack {
            Some(stack) => stack,
            None => Stack::new(&self.context)?,
        };
        let timer = match self.timer {
            Some(timer) => timer,
            None => Timer::start("mon_timer")?,
        };
        let front = Arc::new(Front { client: OnceLock::new(), attached: OnceLock::new() });
        let name = EntityName::new(self.name.kind, EntityName::NEW);
        let messenger = Messenger::builder(&self.context, &stack, name)
            .describe(siphon_messages::describe)
            .default_policy(Policy::LOSSY_CLIENT)
            .auth_client(authenticator.clone())
            .dispatcher_tail(front.clone())
            .send_bound(send_bound(&config))
            .start()?;
        let (options, fsid) = (Options::new(&config), configured_fsid(&config)?);
        let core = Core::new(options, map, fsid, hostname(), rand::random());
        let inner =
            Inner::start(self.context, self.name, core, messenger, authenticator, timer, front);
        Ok(MonClient::new(inner))
    }
}

/// Bytes that may wait on one connection: all operations on objects, and as much of others as by default. An
/// operation that finds no room ends its session, and would do so in the next one.
fn send_bound(config: &Config) -> u64 {
    /// That of messengers.
    const DEFAULT: u64 = 1 << 30;
    match config.objecter_inflight_op_bytes {
        0 => u64::MAX, // any number
        bytes => bytes.saturating_add(DEFAULT),
    }
}

/// What monitors show of us; empty if the system does not say.
fn hostname() -> ByteString {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use siphon_messages::{MCommand, TypedMessage as _};

    use super::*;

    #[test]
    fn a_connection_takes_all_that_may_be_under_way() {
        const LEN: usize = 100 << 20;
        const COUNT: u64 = 20;
        let mut config = Config::default();
        config.set("mon_host", "v2:127.0.0.1:1/0").unwrap();
        config.set("auth_client_required", "none").unwrap();
        config.set("ms_mon_client_mode", "crc").unwrap();
        config.ms_async_op_threads = 1;
        config.objecter_inflight_op_bytes = COUNT * LEN as u64;
        let mon = MonClientBuilder::new(&Context::new(config)).start().unwrap();
        let nobody = "v2:127.0.0.1:1/0".parse().unwrap();
        let connection = mon.messenger().connect_anonymously(EntityType::OSD, nobody);
        let input = Bytes::from(vec![0; LEN]); // of which all have the same
        for _ in 0..COUNT {
            let message = MCommand { input: input.clone(), ..MCommand::default() };
            connection.send(message.into_out()).unwrap();
        }
        connection.mark_down();
    }
}
