//! Where the configuration comes from.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use siphon_common::{Config, ConfigError, Context, config::default_files};
use siphon_monclient::{MonClient, MonError, StartError};
use siphon_objecter::{Objecter, ObjecterConfig, ObjecterError};
use siphon_wire::types::{AuthName, EntityType, ParseError};

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
    /// `$CEPH_ARGS` names nobody that could ask.
    #[error("CEPH_ARGS: {name} is not a name, as client.admin")]
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
        Self { name: None, file: FileChoice::Search, settings: Vec::new(), timeout: None }
    }

    /// Who asks; else who `$CEPH_ARGS` names, else `client.admin`.
    ///
    /// ```
    /// let builder = siphon_rados::Cluster::builder().name("client.backup".parse()?);
    /// # Ok::<(), siphon_wire::types::ParseError>(())
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
        let timeout = self.timeout.unwrap_or(config.client_mount_timeout);
        let context = Context::new(config);
        let mon = MonClient::builder(&context).name(name).start()?;
        mon.authenticate(timeout).await?;
        let objecter = Objecter::start(&mon, ObjecterConfig::new(context.config()))?;
        objecter.wait_for_latest_map().await?;
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
        let words = env::var("CEPH_ARGS").unwrap_or_default();
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        let (words, named) = take_name(words);
        let name = match (&self.name, named) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) => {
                name.parse().map_err(|source| ConnectError::Name { name, source })?
            }
            (None, None) => AuthName::new(EntityType::CLIENT, "admin"),
        };
        let entity = name.to_string();
        let mut config = Config::default();
        match &self.file {
            FileChoice::This(path) => config.read_file(&entity, path)?,
            FileChoice::None => {}
            FileChoice::Search => {
                if let Some(path) = candidates().into_iter().find(|path| path.exists()) {
                    config.read_file(&entity, path)?;
                }
            }
        }
        // What is not the library's may be a tool's.
        config.take_args(&entity, words)?;
        for (option, value) in &self.settings {
            config.set(option, value)?;
        }
        Ok((config, name))
    }
}

/// Takes from words who asks, and writes out what Ceph has a letter for.
fn take_name(words: Vec<String>) -> (Vec<String>, Option<String>) {
    let (mut rest, mut name) = (Vec::new(), None);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let mut value = || value.clone().or_else(|| words.next()).unwrap_or_default();
        match option {
            "-n" | "--name" => name = Some(value()),
            "--id" | "--user" => name = Some(format!("client.{}", value())),
            "-m" => rest.push(format!("--mon_host={}", value())),
            "-k" => rest.push(format!("--keyring={}", value())),
            _ => rest.push(word),
        }
    }
    (rest, name)
}

/// Files that may be the configuration, as Ceph's own tools look for them.
fn candidates() -> Vec<PathBuf> {
    let variable = |name| env::var(name).ok();
    default_files(variable("CEPH_CONF").as_deref(), variable("HOME").as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_taken_from_words() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (rest, name) = take_name(words("--id backup -m 10.0.0.1 --ms_type async+posix"));
        assert_eq!(name.as_deref(), Some("client.backup"));
        assert_eq!(rest, ["--mon_host=10.0.0.1", "--ms_type", "async+posix"]);
        let (rest, name) = take_name(words("--name=osd.3 -k file"));
        assert_eq!((rest, name.as_deref()), (words("--keyring=file"), Some("osd.3")));
    }
}
