//! Where the configuration comes from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use siphon_common::config::ConfigLoader;
use siphon_common::{Config, ConfigError, Context};
use siphon_monclient::{MonClient, MonError, StartError};
use siphon_objecter::{Objecter, ObjecterConfig, ObjecterError};
use siphon_wire::types::{AuthName, ParseError};

use crate::Cluster;

/// Says which cluster is meant, and who asks.
///
/// Options come from a file, then from `$CEPH_ARGS`, then from [`set`](Self::set), the later winning.
///
/// ```
/// use siphon_rados::{Cluster, ConnectError};
///
/// let builder = Cluster::builder().set("mon_host", "10.0.0.1").set("no_such_option", "1");
/// let error = pollster::block_on(builder.without_file().connect()).unwrap_err();
/// assert!(matches!(error, ConnectError::Config(_)));
/// ```
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    name: Option<AuthName>,
    file: FileChoice,
    args: Vec<String>,
    own: Vec<String>,
    settings: Vec<(String, String)>,
    timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
enum FileChoice {
    /// As Ceph's own tools look for it.
    Search,
    This(PathBuf),
    None,
}

/// Why there is no cluster to speak with.
///
/// ```
/// use siphon_rados::{Cluster, ConnectError, Wait};
/// let nowhere = Cluster::builder().without_file().connect().wait();
/// assert!(matches!(nowhere, Err(ConnectError::Start(_)))); // mon_host is empty
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration names nobody that could ask.
    #[error("{name} is not a name, as client.admin")]
    Name {
        /// What it says.
        name: String,
        /// Why that is none.
        source: ParseError,
    },
    /// There are no monitors to ask, or there is no key.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The monitors did not let us in.
    #[error(transparent)]
    Monitors(#[from] MonError),
    /// There is no map of the OSDs.
    #[error(transparent)]
    Objecter(#[from] ObjecterError),
}

impl ClusterBuilder {
    pub(crate) fn new() -> Self {
        Self {
            name: None,
            file: FileChoice::Search,
            args: Vec::new(),
            own: Vec::new(),
            settings: Vec::new(),
            timeout: None,
        }
    }

    /// Who asks; else who `$CEPH_ARGS` names, else `client.admin`.
    ///
    /// ```
    /// let builder = siphon_rados::Cluster::builder().name("client.backup".parse()?);
    /// # Ok::<(), siphon_rados::types::ParseError>(())
    /// ```
    #[must_use]
    pub fn name(mut self, name: AuthName) -> Self {
        self.name = Some(name);
        self
    }

    /// The configuration file; else the first that there is of those in `$CEPH_CONF`,
    /// `/etc/ceph/ceph.conf`, `$HOME/.ceph/ceph.conf` and `./ceph.conf`.
    ///
    /// ```
    /// let builder = siphon_rados::Cluster::builder().conf_file("/etc/ceph/other.conf");
    /// ```
    #[must_use]
    pub fn conf_file(mut self, path: impl AsRef<Path>) -> Self {
        self.file = FileChoice::This(path.as_ref().to_owned());
        self
    }

    /// No configuration file at all.
    ///
    /// ```
    /// let builder = siphon_rados::Cluster::builder().without_file().set("mon_host", "10.0.0.1");
    /// ```
    #[must_use]
    pub fn without_file(mut self) -> Self {
        self.file = FileChoice::None;
        self
    }

    /// Options as the command lines of Ceph's tools have them (`-c FILE`, `-n TYPE.ID`, `--name=value`);
    /// they win over the environment and the builder's file and name. What is no option is passed over.
    ///
    /// ```
    /// let builder = siphon_rados::Cluster::builder().args(["-m", "10.0.0.1", "--id=backup"]);
    /// ```
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Options of the program's own, by their names without `--`: in `$CEPH_ARGS` they are no mistakes in a name of
    /// Ceph's. As [`ConfigLoader::own_options`].
    ///
    /// ```
    /// let builder = siphon_rados::Cluster::builder().own_options(["run-name".to_owned()]);
    /// ```
    #[must_use]
    pub fn own_options(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.own.extend(names);
        self
    }

    /// Sets an option, by Ceph's name.
    ///
    /// ```
    /// let builder = siphon_rados::Cluster::builder()
    ///     .set("mon_host", "v2:10.0.0.1:3300,v2:10.0.0.2:3300")
    ///     .set("keyring", "/etc/ceph/backup.keyring");
    /// ```
    #[must_use]
    pub fn set(mut self, option: &str, value: &str) -> Self {
        self.settings.push((option.to_owned(), value.to_owned()));
        self
    }

    /// How long to look for a monitor that lets us in; else `client_mount_timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    /// let builder = siphon_rados::Cluster::builder().timeout(Duration::from_secs(10));
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Opens a session with the monitors, and gets the map of the OSDs.
    ///
    /// # Errors
    /// The configuration is wrong, no monitor answers in time, or none lets us in.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), siphon_rados::ConnectError> {
    /// let cluster = siphon_rados::Cluster::builder().conf_file("other.conf").connect().await?;
    /// println!("{}", cluster.fsid());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(self) -> Result<Cluster, ConnectError> {
        let (config, name) = self.configure()?;
        self.connect_with(&Context::new(config), name).await
    }

    /// The same with a context that was made of what [`configure`](Self::configure) gives: for who wants an
    /// admin socket or a log of it before there is a session.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use siphon_common::{Context, admin_socket::AdminSocket};
    ///
    /// let builder = siphon_rados::Cluster::builder();
    /// let (config, name) = builder.configure()?;
    /// let context = Context::new(config);
    /// let _socket = AdminSocket::of(&context)?;
    /// let cluster = builder.connect_with(&context, name).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_with(
        &self,
        context: &Context,
        name: AuthName,
    ) -> Result<Cluster, ConnectError> {
        let timeout = self.timeout.unwrap_or(context.config().client_mount_timeout);
        let mon = MonClient::builder(context).name(name).start()?;
        mon.authenticate(timeout).await?;
        let objecter = Objecter::start(&mon, ObjecterConfig::new(&context.config()))?;
        objecter.wait_for_latest_map(Some(timeout)).await?;
        Ok(Cluster::new(mon, objecter))
    }

    /// The options, and who asks, for another client of the same cluster.
    ///
    /// # Errors
    /// The configuration is wrong.
    ///
    /// ```
    /// let builder = siphon_rados::Cluster::builder().without_file().set("mon_host", "10.0.0.1");
    /// let (config, name) = builder.configure()?;
    /// assert_eq!(config.mon_host, "10.0.0.1");
    /// # Ok::<(), siphon_rados::ConnectError>(())
    /// ```
    pub fn configure(&self) -> Result<(Config, AuthName), ConnectError> {
        let loader = match &self.file {
            FileChoice::Search => ConfigLoader::new(),
            FileChoice::This(path) => ConfigLoader::new().conf_file(path),
            FileChoice::None => ConfigLoader::new().no_file(),
        };
        let name = self.name.iter().map(|name| format!("--name={name}"));
        let loader = loader.own_options(self.own.iter().cloned());
        let loaded = loader.load(name.chain(self.args.iter().cloned()))?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let mut config = loaded.config;
        for (option, value) in &self.settings {
            config.set(option, value)?;
        }
        let name = config.name();
        let name = name.parse().map_err(|source| ConnectError::Name { name, source })?;
        Ok((config, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_the_monitors_and_the_builder_comes_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a,b.conf");
        std::fs::write(&path, "[global]\nmon host = 10.0.0.1\n[client.x]\nkey = k\n").unwrap();
        let builder = Cluster::builder().conf_file(&path).name("client.x".parse().unwrap());
        let (config, name) = builder.clone().configure().unwrap();
        assert_eq!((config.mon_host.as_str(), config.key.as_str()), ("10.0.0.1", "k"));
        assert_eq!(name.to_string(), "client.x");
        let (config, _) = builder.set("mon_host", "10.0.0.2").configure().unwrap();
        assert_eq!(config.mon_host, "10.0.0.2");
    }
}
