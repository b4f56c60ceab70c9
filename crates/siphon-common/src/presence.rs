//! What of a process is there for who operates it.

use std::error::Error;

use crate::admin_socket::{AdminSocket, ListenError};
use crate::config::{Setting, Source};
use crate::prometheus::{Endpoint, EndpointError};
use crate::{Context, PidFile, PidFileError};

/// What a process shows of itself as its options ask for: a [`PidFile`] (`pid_file`), an [`AdminSocket`]
/// (`admin_socket`) and Prometheus' [`Endpoint`] (`exporter_port`), as long as this is there.
///
/// ```
/// use siphon_common::admin_socket::ask;
/// use siphon_common::{Config, Context, Presence};
///
/// let folder = tempfile::tempdir()?;
/// let mut config = Config::default();
/// config.admin_socket = folder.path().join("asok").display().to_string();
/// config.pid_file = folder.path().join("pid").display().to_string();
/// let context = Context::new(config);
/// let presence = Presence::of(&context, "osd.0")?;
/// assert_eq!(ask(&context.config().admin_socket, &["perf", "dump"], None)?, b"{}");
/// drop(presence);
/// assert_eq!(std::fs::read_dir(&folder)?.count(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Presence {
    _pid_file: Option<PidFile>,
    _socket: Option<AdminSocket>,
    _metrics: Option<Endpoint>,
}

/// Why a process cannot show itself as its options ask for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// Of `pid_file`.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// Of `admin_socket`.
    #[error(transparent)]
    Socket(#[from] ListenError),
    /// Of `exporter_port` or `exporter_addr`.
    #[error(transparent)]
    Metrics(#[from] EndpointError),
}

impl Presence {
    /// Of a server, or of a program that is told so on its own command line; `daemon` is its name for Prometheus.
    ///
    /// # Errors
    /// One of them cannot be had.
    pub fn of(context: &Context, daemon: &str) -> Result<Self, PresenceError> {
        Ok(Self {
            _pid_file: PidFile::of(context)?,
            _socket: AdminSocket::of(context)?,
            _metrics: Endpoint::of(context, daemon)?,
        })
    }

    /// Of a client of a cluster, whose options are those of every client on the host: what cannot be had is told of
    /// in the log, and it goes on, as Ceph's clients do (`AdminSocketConfigObs` of 16.2.7). It has no pid file: as
    /// in Ceph, that is of servers.
    pub fn of_client(context: &Context) -> Self {
        let config = context.config();
        let is_said = |it: &Setting| it.source == Source::CommandLine;
        if config.settings("pid_file").iter().any(is_said) {
            tracing::warn!("pid_file has no effect: a client of a cluster writes none");
        }
        let told = |error: &dyn Error| tracing::error!("{error}");
        Self {
            _pid_file: None,
            _socket: AdminSocket::of(context).inspect_err(|it| told(it)).unwrap_or_default(),
            _metrics: Endpoint::of(context, &config.name())
                .inspect_err(|it| told(it))
                .unwrap_or_default(),
        }
    }
}
