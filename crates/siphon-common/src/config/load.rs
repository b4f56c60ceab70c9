use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{Argument, Arguments, Options};
use super::changes::unknown;
use super::check::{MAX_WARNINGS, further, unknown_line};
use super::values::{Place, Source};
use super::{ConfFile, Config, ConfigError, known, metavariables};

/// Where a configuration is looked for, unless somebody names a file (`CEPH_CONF_FILE_DEFAULT` of
/// Ceph's `common/config.cc`).
const DEFAULT_FILES: &str =
    "$data_dir/config,/etc/ceph/$cluster.conf,$home/.ceph/$cluster.conf,$cluster.conf";

/// Reads a program's configuration as Ceph's programs do: from the first file that there is of those
/// that `-c`, else `$CEPH_CONF`, else Ceph's own list names; then from `$CEPH_KEYRING` and
/// `$CEPH_ARGS`; then from the command line. What comes later wins.
///
/// A command line says `--name value` or `--name=value` of every option, with `-` or `_`; of a boolean
/// also `--name` and `--no-name`; and who the program is:
///
/// | argument | meaning |
/// |---|---|
/// | `-c FILE`, `--conf FILE` | the configuration file, or several parted by commas, of which the first counts that there is |
/// | `--no-config-file` | none |
/// | `-n TYPE.ID`, `--name TYPE.ID` | who it is |
/// | `--id ID`, `--user ID` | the same, without the type |
/// | `--cluster NAME` | the cluster's name |
/// | `-k FILE`, `-K FILE`, `-m HOSTS` | `keyring`, `keyfile`, `mon_host` |
///
/// ```
/// use siphon_common::config::ConfigLoader;
///
/// let args = ["-n", "client.test", "--ms-tcp-rcvbuf=64K", "10.0.0.1:6800"];
/// let loaded = ConfigLoader::new().no_default_file().without_environment().load(args)?;
/// assert_eq!(loaded.config.name(), "client.test");
/// assert_eq!(loaded.config.ms_tcp_rcvbuf, 65536);
/// assert_eq!(loaded.rest, ["10.0.0.1:6800"]);
/// # Ok::<(), siphon_common::ConfigError>(())
/// ```
pub struct ConfigLoader {
    config: Config,
    environment: Environment,
    default_file: bool,
    /// Whether `$CEPH_CONF` counts.
    named_file: bool,
    file: Option<PathBuf>,
    own: Vec<String>,
}

/// The value of a variable by its name.
type Environment = Box<dyn Fn(&str) -> Option<String>>;

/// What [`ConfigLoader::load`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The options.
    pub config: Config,
    /// What the command line has besides them, in its order.
    pub rest: Vec<String>,
    /// What a user probably did not mean.
    pub warnings: Vec<ConfigWarning>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// Something in a configuration that has no effect, though its writer may think so.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConfigWarning {
    /// Where, if in a file.
    pub place: Option<Place>,
    /// What.
    pub error: ConfigError,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => {
                write!(f, "in {} line {}: {}", place.path.display(), place.line, self.error)
            }
            None => self.error.fmt(f),
        }?;
        match &self.error {
            ConfigError::InEnvironment { source, .. } => write!(f, ": {source}"),
            _ => Ok(()),
        }
    }
}

impl Default for ConfigLoader {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ConfigLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigLoader").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ConfigLoader {
    /// For a client, `client.admin`.
    pub fn new() -> Self {
        Self::of(Config::default())
    }

    /// Upon defaults of the program's own.
    pub fn of(config: Config) -> Self {
        Self {
            config,
            environment: Box::new(|name| std::env::var(name).ok()),
            default_file: true,
            named_file: true,
            file: None,
            own: Vec::new(),
        }
    }

    /// Reads no file but those that `-c` and `$CEPH_CONF` name.
    pub fn no_default_file(mut self) -> Self {
        self.default_file = false;
        self
    }

    /// Reads no file but one that the command line names.
    pub fn no_file(mut self) -> Self {
        self.named_file = false;
        self.no_default_file()
    }

    /// Reads this file, unless the command line names another.
    pub fn conf_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Heeds no variable of the environment.
    pub fn without_environment(self) -> Self {
        self.environment(|_| None)
    }

    /// Takes this for the environment: the value of a variable by its name.
    pub fn environment(mut self, get: impl Fn(&str) -> Option<String> + 'static) -> Self {
        self.environment = Box::new(get);
        self
    }

    /// Leaves these options on the command line, by their names without `--`: they are the program's
    /// own.
    pub fn own_options(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.own.extend(names.into_iter().map(|name| super::table::normalize(&name)));
        self
    }

    /// Parts a command line, without the program's name: into what [`load`](Self::load) takes, and what
    /// it would leave. So a program can look at the latter before anything is read.
    ///
    /// # Errors
    /// An argument has no value, or a name that begins as Ceph's do (`ms_`) and is no option's.
    ///
    /// ```
    /// use siphon_common::config::ConfigLoader;
    ///
    /// let args = ["ls", "-k", "file", "--no-ms-crc-data", "-l"].map(str::to_owned);
    /// let (ceph, rest) = ConfigLoader::new().split(args.into())?;
    /// assert_eq!(ceph, ["--keyring=file", "--ms_crc_data=false"]);
    /// assert_eq!(rest, ["ls", "-l"]);
    /// # Ok::<(), siphon_common::ConfigError>(())
    /// ```
    pub fn split(&self, args: Vec<String>) -> Result<(Vec<String>, Vec<String>), ConfigError> {
        super::args::split(args, &self.own)
    }

    /// Reads everything; `args` is the command line without the program's name.
    ///
    /// # Errors
    /// A file that `-c` names is not there, or a file breaks the grammar or gives one of our options a
    /// bad value; an argument has a bad value, or none, or a name that begins as Ceph's do (`ms_`)
    /// and is no option's.
    pub fn load<A: Into<String>>(
        mut self,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Loaded, ConfigError> {
        let get = |name| (self.environment)(name).filter(|value| !value.is_empty());
        let from_env = get("CEPH_ARGS").unwrap_or_default();
        let env = Arguments::read(from_env.split_ascii_whitespace(), &self.own)
            .map_err(|error| in_environment("CEPH_ARGS", error))?;
        let line = Arguments::read(args, &self.own)?;
        let options = Options::of([&env, &line]);
        self.config.absorb();
        options.identify(&mut self.config)?;
        let mut warnings = Vec::new();
        for text in &env.rest {
            let error = ConfigError::NotAnOption { text: text.clone() };
            warnings.push(ConfigWarning { place: None, error: in_environment("CEPH_ARGS", error) });
        }
        let conf = get("CEPH_CONF").filter(|_| self.named_file);
        let is_named = options.conf.is_some() || self.file.is_some();
        let file = match self.open(conf.as_deref(), &options, &mut warnings)? {
            Some((path, file)) => {
                if options.cluster.is_none() && is_named {
                    self.config.identity.cluster = cluster_of(&path);
                }
                self.config.take_file(&path, &file, &mut warnings)?;
                Some(path)
            }
            None => None,
        };
        if let Some(keyring) = get("CEPH_KEYRING") {
            self.config.set_from(Source::Env, "keyring", &keyring)?;
        }
        for argument in &env.options {
            match self.config.take_argument(Source::Env, argument) {
                Err(error @ ConfigError::NotHonoured { .. }) => {
                    let error = in_environment("CEPH_ARGS", error);
                    warnings.push(ConfigWarning { place: None, error });
                }
                taken => taken.map_err(|error| in_environment("CEPH_ARGS", error))?,
            }
        }
        for argument in &line.options {
            match self.config.take_argument(Source::CommandLine, argument) {
                Err(error @ ConfigError::NotHonoured { .. }) => {
                    warnings.push(ConfigWarning { place: None, error });
                }
                taken => taken?,
            }
        }
        self.config.finish();
        Ok(Loaded { config: self.config, rest: line.rest, warnings, file })
    }

    /// The first file that can be opened; none is an error only if the command line names some.
    fn open(
        &self,
        conf: Option<&str>,
        options: &Options,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Option<(PathBuf, ConfFile)>, ConfigError> {
        if let (Some(path), None) = (&self.file, &options.conf) {
            return ConfFile::read(path).map(|file| Some((path.clone(), file)));
        }
        let searched = match options.conf.as_deref().or(conf) {
            Some(files) => files,
            None if self.default_file && !options.no_config_file => DEFAULT_FILES,
            None => return Ok(None),
        };
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for file in searched.split([',', ';']).filter(|file| !file.is_empty()) {
            if file.contains("$data_dir") {
                continue; // only Ceph's daemons have one
            }
            let path = PathBuf::from(metavariables::expand(&self.config, file, None));
            match File::open(&path) {
                Ok(_) => return ConfFile::read(&path).map(|file| Some((path, file))),
                Err(error) => failed = error,
            }
        }
        match (&options.conf, conf) {
            (Some(searched), _) => {
                Err(ConfigError::NoFile { searched: searched.clone(), source: failed })
            }
            (None, Some(conf)) => {
                let searched = conf.to_owned();
                let error = ConfigError::NoFileOfEnvironment { searched, source: failed };
                warnings.push(ConfigWarning { place: None, error });
                Ok(None)
            }
            (None, None) => Ok(None),
        }
    }
}

fn in_environment(variable: &'static str, error: ConfigError) -> ConfigError {
    ConfigError::InEnvironment { variable, source: Box::new(error) }
}

/// What a file's name says of the cluster's (`md_config_t::get_cluster_name`).
fn cluster_of(path: &Path) -> String {
    let stem = path.file_stem().filter(|_| path.extension().is_some_and(|it| it == "conf"));
    stem.map_or_else(|| "ceph".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

impl Config {
    /// Takes what a file has for us. Options that Ceph has and Siphon does not honour are noted, for
    /// others may refer to them; those that nobody knows are warned of.
    fn take_file(
        &mut self,
        path: &Path,
        file: &ConfFile,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<(), ConfigError> {
        let path: Arc<Path> = path.into();
        let mut more = 0;
        for section in self.identity.sections() {
            for line in file.lines(&section) {
                let place = Place { path: Arc::clone(&path), line: line.number };
                if let Some(option) = Self::option_exactly(&line.name) {
                    self.put(Source::File, option, &line.value, Some(place))
                        .map_err(|error| in_file(&path, line.number, error))?;
                } else if known::find(&line.name).is_some() {
                    self.values.others.insert(line.name.clone(), line.value.clone());
                } else if warnings.len() < MAX_WARNINGS {
                    let error = unknown_line(&line.name);
                    warnings.push(ConfigWarning { place: Some(place), error });
                } else {
                    more += 1;
                }
            }
        }
        warnings.extend(further(more));
        self.expand_all();
        Ok(())
    }

    fn take_argument(&mut self, source: Source, argument: &Argument) -> Result<(), ConfigError> {
        let source = if argument.is_default { Source::Default } else { source };
        match Self::option_exactly(argument.name) {
            Some(option) => self.put(source, option, &argument.value, None),
            None => Err(unknown(argument.name)),
        }
    }
}

fn in_file(path: &Path, line: usize, error: ConfigError) -> ConfigError {
    ConfigError::InFile { path: path.to_owned(), line, source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.conf");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (folder, path)
    }

    fn load(args: &[&str]) -> Result<Loaded, ConfigError> {
        ConfigLoader::new().no_default_file().without_environment().load(args.iter().copied())
    }

    #[test]
    fn sections_win_by_how_near_they_are_to_the_entity() {
        let (_folder, path) = file(
            "# of a real cluster\n\
            [osd.3]\nms_async_op_threads = 9\n\
            [client.admin]\nms async op threads = 4 ; nearest\n\
            [global]\nfsid = 8c1b\nms_async_op_threads = 2\nms_type = \"async+posix\"\n\
            ms_initial_backoff = .5\n\
            [client] # all of them\nms_async_op_threads = 3\nms_tcp_rcvbuf = 64K\n",
        );
        let config = load(&["-c", &path]).unwrap().config;
        assert_eq!(config.ms_async_op_threads, 4);
        assert_eq!(config.ms_tcp_rcvbuf, 64 << 10);
        assert_eq!(config.ms_initial_backoff, Duration::from_millis(500));
        assert_eq!(load(&["-c", &path, "-n", "osd.3"]).unwrap().config.ms_async_op_threads, 9);
        assert_eq!(load(&["-c", &path, "-n", "mon.a"]).unwrap().config.ms_async_op_threads, 2);
    }

    #[test]
    fn a_command_line_wins_over_the_environment_and_that_over_a_file() {
        let (_folder, path) = file(
            "[global]\nms_async_op_threads = 2\nms_crc_data = 0\nms_max_backoff = 1\n\
             ms_bind_port_min = 1\n",
        );
        let loader = ConfigLoader::new().environment(move |name| match name {
            "CEPH_CONF" => Some(path.clone()),
            "CEPH_ARGS" => Some("--ms_async_op_threads 4 --ms_max_backoff=2".to_owned()),
            "CEPH_KEYRING" => Some("/k/$name".to_owned()),
            _ => None,
        });
        let loaded = loader.load(["--ms_async_op_threads", "5", "rest"]).unwrap();
        assert_eq!(loaded.rest, ["rest"]);
        let config = loaded.config;
        assert_eq!((config.ms_async_op_threads, config.ms_crc_data), (5, false));
        assert_eq!(config.ms_max_backoff, Duration::from_secs(2));
        assert_eq!(config.keyring, "/k/client.admin");
        let sources: Vec<_> =
            config.settings("ms_async_op_threads").iter().map(|it| it.source).collect();
        assert_eq!(sources, [Source::File, Source::Env, Source::CommandLine]);
        let place = config.settings("ms_bind_port_min")[0].place.clone().unwrap();
        assert!(place.path.ends_with("test.conf") && place.line == 5, "{place:?}");
    }

    #[test]
    fn a_cluster_is_called_as_its_file_unless_somebody_says_otherwise() {
        let (folder, path) = file("[global]\nrun_dir = /run/$cluster\n");
        let config = load(&["-c", &path]).unwrap().config;
        assert_eq!((config.cluster(), config.run_dir.as_str()), ("test", "/run/test"));
        let config = load(&["-c", &path, "--cluster=other"]).unwrap().config;
        assert_eq!(config.run_dir, "/run/other");
        let pattern = format!("/nowhere/x;{}/$cluster.conf", folder.path().display());
        let config = load(&["--conf", &pattern, "--cluster", "test"]).unwrap().config;
        assert_eq!(config.run_dir, "/run/test");
        let config = load(&["-c/dev/null".replace("-c", "--conf=").as_str()]).unwrap().config;
        assert_eq!(config.cluster(), "ceph");
    }

    #[test]
    fn what_nobody_knows_is_warned_of_with_the_nearest_name_and_the_rest_is_not() {
        let (_folder, path) = file(
            "[global]\nosd pool default size = 3\nms_asynch_op_threads = 2\nms-type = x\n\
             log_graylog_host = a\n[mom]\nhost = a\n[osd.1]\nms_bind_port_min = 65536\n",
        );
        let text: Vec<_> =
            load(&["-c", &path]).unwrap().warnings.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 2, "{text:?}");
        assert!(text[0].ends_with(
            "test.conf line 3: no option is called 'ms_asynch_op_threads'; \
             did you mean 'ms_async_op_threads'?"
        ));
        assert!(text[1].contains("line 4") && text[1].contains("did you mean 'ms_type'?"));
        let checked = Config::check_file(&path).unwrap();
        let lines: Vec<_> =
            checked.iter().map(|it| it.place.as_ref().map_or(0, |place| place.line)).collect();
        assert_eq!(lines, [3, 4, 7, 9], "{checked:?}");
    }

    /// What a variable of the environment said wrong was told as if the command line had said it, and a file that is
    /// not there not at all.
    #[test]
    fn what_the_environment_says_wrong_is_told_with_its_variable() {
        let load = |variable: &'static str, text: &'static str| {
            let get = move |name: &str| (name == variable).then(|| text.to_owned());
            ConfigLoader::new().environment(get).load([""; 0])
        };
        let told = |loaded: Result<Loaded, ConfigError>| {
            let warnings = loaded.unwrap().warnings;
            warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let missing = told(load("CEPH_CONF", "/nope,/no/such"));
        assert!(
            missing
                .starts_with("no configuration file of $CEPH_CONF, /nope,/no/such, can be opened")
        );
        for text in ["--ms_typ x", "--ms_crc_data=perhaps", "--ms_type"] {
            let error = load("CEPH_ARGS", text).unwrap_err();
            assert!(matches!(&error, ConfigError::InEnvironment { .. }), "{text}: {error}");
            assert_eq!(error.to_string(), "in $CEPH_ARGS");
            assert!(std::error::Error::source(&error).unwrap().to_string().contains("ms_"));
        }
        let warned = told(load("CEPH_ARGS", "--osd_max_backfills 3 --whatever"));
        let lines: Vec<_> = warned.lines().collect();
        assert_eq!(lines.len(), 2, "{warned}");
        assert!(lines[0].starts_with("in $CEPH_ARGS: '--whatever' is no option"), "{warned}");
        assert!(lines[1].starts_with("in $CEPH_ARGS: osd_max_backfills is an option of Ceph's"));
    }

    #[test]
    fn a_bad_value_names_file_and_line() {
        let (_folder, path) = file("[global]\nms_crc_data = 0\nms_bind_port_min = 65536\n");
        let error = load(&["-c", &path]).unwrap_err();
        assert!(error.to_string().ends_with("test.conf line 3"), "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.starts_with("ms_bind_port_min = '65536': out of range"), "{source}");
    }

    #[test]
    fn metavariables_mean_what_they_do_in_ceph() {
        let (_folder, path) = file(
            "[client.x]\nhost = here\nosd_data = /o/$id\n\
             keyring = $osd_data/${type}.${nothing}.$unknown.$5.$mon_data.$host$\n\
             keyfile = before$home\nrun_dir = $admin_socket\nadmin_socket = $run_dir/x\n",
        );
        let config = load(&["-c", &path, "--id=x"]).unwrap().config;
        let mon_data = "/var/lib/ceph/mon/test-x";
        let want = format!("/o/x/client.${{nothing}}.$unknown.$5.{mon_data}.here$");
        assert_eq!(config.keyring, want);
        assert_eq!(config.keyfile, std::env::var("HOME").unwrap_or_default());
        assert_eq!(config.value_for("client.y", "run_dir").unwrap(), config.run_dir);
        assert_eq!(
            (config.run_dir.as_str(), config.admin_socket.as_str()),
            ("$run_dir", "$admin_socket/x")
        );
    }
}
