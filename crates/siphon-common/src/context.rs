use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use crate::admin_socket::{self, Commands};
use crate::config::{OptionInfo, OptionKind, Source, is_of_monitors};
use crate::perf_counters::PerfCollection;
use crate::{Config, ConfigError};

/// What is passed instead of globals: the configuration, the counters and the commands of one "process" in Ceph's
/// sense.
///
/// Cheap to clone; all clones are one. Options of which the table says so change while the program
/// runs ([`set_option`](Self::set_option)): who reads [`config`](Self::config) when it needs a value
/// has the present one, and who keeps what it read has an [observer](Self::observe) instead.
///
/// ```
/// use siphon_common::{Config, Context};
///
/// let mut config = Config::default();
/// config.set("ms_async_op_threads", "2")?;
/// let context = Context::new(config);
/// assert_eq!(context.config().ms_async_op_threads, 2);
///
/// context.set_option("ms_tcp_rcvbuf", "64K")?;
/// assert_eq!(context.config().ms_tcp_rcvbuf, 65536);
/// let error = context.set_option("ms_async_op_threads", "4").unwrap_err();
/// assert!(error.to_string().contains("may not be modified at runtime"));
/// # Ok::<(), siphon_common::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: RwLock<Arc<Config>>,
    /// Held through a change, so that observers hear of changes in their order.
    observers: Mutex<Observers>,
    perf: PerfCollection,
    commands: Commands,
}

#[derive(Default)]
struct Observers {
    next_id: u64,
    all: Vec<Observer>,
    /// Of the monitors' configuration, what could not be taken and was told of.
    refused: BTreeMap<String, String>,
}

struct Observer {
    id: u64,
    names: Vec<&'static str>,
    changed: Changed,
}

type Changed = Box<dyn Fn(&Config, &'static str) + Send + Sync>;

/// A context, for its own commands, which keep it not alive.
#[derive(Clone)]
pub(crate) struct WeakContext(Weak<Inner>);

impl WeakContext {
    pub(crate) fn upgrade(&self) -> Option<Context> {
        Some(Context { inner: self.0.upgrade()? })
    }
}

/// An observer of options; it hears of changes until this is dropped.
#[must_use = "an observation ends when it is dropped"]
pub struct Observation {
    inner: Weak<Inner>,
    id: u64,
}

impl Default for Context {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Context {
    /// A context with this configuration.
    pub fn new(mut config: Config) -> Self {
        config.finish();
        let perf = PerfCollection::default();
        let commands = Commands::default();
        admin_socket::register_standard(&commands, &perf);
        let inner = Inner {
            config: RwLock::new(Arc::new(config)),
            observers: Mutex::default(),
            perf,
            commands,
        };
        let context = Self { inner: Arc::new(inner) };
        let weak = WeakContext(Arc::downgrade(&context.inner));
        admin_socket::register_configuration(context.commands(), &weak);
        context
    }

    /// The options as they are now. What was got here stays as it is when they change.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inner.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The counters of what was made with it.
    pub fn perf(&self) -> &PerfCollection {
        &self.inner.perf
    }

    /// What its [admin socket](admin_socket::AdminSocket) answers, if it has one.
    pub fn commands(&self) -> &Commands {
        &self.inner.commands
    }

    /// Changes an option now, as `config set` does, over whatever else says something of it.
    ///
    /// # Errors
    /// [`ConfigError::UnknownOption`], [`ConfigError::NotHonoured`], [`ConfigError::BadValue`]; and
    /// [`ConfigError::NeedsRestart`] for an option that is not read again, unless it has that value.
    pub fn set_option(&self, name: &str, value: &str) -> Result<(), ConfigError> {
        let option = Config::honoured(name)?;
        self.change(option, |config| config.put(Source::Override, option, value, None))
    }

    /// Takes back what [`set_option`](Self::set_option) said, as `config unset` does.
    ///
    /// # Errors
    /// As [`set_option`](Self::set_option), apart from bad values.
    pub fn unset_option(&self, name: &str) -> Result<(), ConfigError> {
        let option = Config::honoured(name)?;
        self.change(option, |config| {
            config.unset(Source::Override, option);
            Ok(())
        })
    }

    /// Changes options as a command line says it, as `injectargs` does: `--debug_ms=1 --no-ms_crc_data`.
    ///
    /// # Errors
    /// As [`set_option`](Self::set_option); and [`ConfigError::NotAnOption`] for anything else.
    /// What stands before the error has changed.
    pub fn inject_args(&self, args: &str) -> Result<(), ConfigError> {
        for (name, value) in crate::config::injected(args)? {
            self.set_option(name, &value)?;
        }
        Ok(())
    }

    /// Takes the monitors' central configuration, by name, in place of what they said before: weaker than a
    /// file, stronger than defaults. Options that they say no more fall back. Names that Siphon does not
    /// honour are passed over, and so are those by which monitors are found.
    ///
    /// Returns what could not be taken, each once as long as they say the same: an option that is not read
    /// again ([`ConfigError::NeedsRestart`]), or a bad value.
    ///
    /// ```
    /// use siphon_common::Context;
    ///
    /// let context = Context::default();
    /// let central = |value: &str| [("ms_tcp_rcvbuf".to_owned(), value.to_owned())];
    /// assert!(context.set_central(central("64K")).is_empty());
    /// assert_eq!(context.config().ms_tcp_rcvbuf, 65536);
    /// assert_eq!(context.set_central(central("much")).len(), 1);
    /// context.set_central([]);
    /// assert_eq!(context.config().ms_tcp_rcvbuf, 0);
    /// ```
    pub fn set_central(
        &self,
        values: impl IntoIterator<Item = (String, String)>,
    ) -> Vec<ConfigError> {
        let values: BTreeMap<_, _> = values.into_iter().collect();
        let is_said = |option: &OptionInfo| values.contains_key(option.name);
        let before = self.config();
        let said_before = Config::options().filter(|option| {
            before.settings(option.name).iter().any(|it| it.source == Source::Mon)
        });
        let mut refused = Vec::new();
        for option in said_before.filter(|option| !is_said(option)) {
            let unset = self.change(option, |config| {
                config.unset(Source::Mon, option);
                Ok(())
            });
            refused.extend(unset.err().map(|error| (option.name, "", error)));
        }
        for (name, value) in &values {
            let Some(option) = Config::option(name) else { continue };
            if is_of_monitors(option.name)
                && let Err(error) =
                    self.change(option, |config| config.put(Source::Mon, option, value, None))
            {
                refused.push((option.name, value, error));
            }
        }
        let mut observers = self.inner.lock();
        let told = std::mem::take(&mut observers.refused);
        let (new, all): (Vec<_>, Vec<_>) = refused
            .into_iter()
            .map(|(name, value, error)| {
                let is_new = told.get(name).is_none_or(|told| told != value);
                (is_new.then_some(error), (name.to_owned(), value.to_owned()))
            })
            .unzip();
        observers.refused = all.into_iter().collect();
        new.into_iter().flatten().collect()
    }

    fn change(
        &self,
        option: &'static OptionInfo,
        change: impl FnOnce(&mut Config) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        let observers = self.inner.lock();
        let before = self.config();
        let mut after = Config::clone(&before);
        change(&mut after)?;
        // Text may refer to text.
        let may_change = |other: &OptionInfo| {
            other.name == option.name
                || (other.kind == OptionKind::Text && option.kind == OptionKind::Text)
        };
        let changed: Vec<_> = Config::options()
            .filter(|other| may_change(other))
            .filter(|other| before.value_of(other) != after.value_of(other))
            .collect();
        let is_observed = || observers.all.iter().any(|it| it.names.contains(&option.name));
        if changed.iter().any(|it| it.name == option.name) && !option.runtime && !is_observed() {
            return Err(ConfigError::NeedsRestart { option });
        }
        let after = Arc::new(after);
        let config = &self.inner.config;
        *config.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&after);
        for option in changed {
            for observer in observers.all.iter().filter(|it| it.names.contains(&option.name)) {
                (observer.changed)(&after, option.name);
            }
        }
        Ok(())
    }

    /// Has `changed` called whenever one of these options has another value, with all of them and the
    /// name of that one, on the thread that changes it. It must not change options itself.
    ///
    /// An option that is observed may be changed at run time, whatever the table says.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use siphon_common::Context;
    ///
    /// let context = Context::default();
    /// let (sender, receiver) = mpsc::channel();
    /// let observation = context.observe(["debug_ms"], move |config, _| {
    ///     let _ = sender.send(config.debug_ms.log);
    /// });
    /// context.set_option("debug_ms", "5")?;
    /// assert_eq!(receiver.recv(), Ok(5));
    /// drop(observation);
    /// # Ok::<(), siphon_common::ConfigError>(())
    /// ```
    pub fn observe(
        &self,
        names: impl IntoIterator<Item = &'static str>,
        changed: impl Fn(&Config, &'static str) + Send + Sync + 'static,
    ) -> Observation {
        let mut observers = self.inner.lock();
        observers.next_id += 1;
        let id = observers.next_id;
        let names = names.into_iter().collect();
        observers.all.push(Observer { id, names, changed: Box::new(changed) });
        Observation { inner: Arc::downgrade(&self.inner), id }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Observers> {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.lock().all.retain(|observer| observer.id != self.id);
        }
    }
}

impl fmt::Debug for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observation").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.all.iter().map(|observer| &observer.names).collect();
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_all_clones_and_taken_back() {
        let mut config = Config::default();
        config.ms_max_backoff = std::time::Duration::from_secs(3);
        let context = Context::new(config);
        let clone = context.clone();
        context.set_option("ms max-backoff", "4").unwrap();
        assert_eq!(clone.config().ms_max_backoff.as_secs(), 4);
        let diff: Vec<_> = clone.config().diff().collect();
        assert_eq!(diff.len(), 1, "{diff:?}");
        assert_eq!((diff[0].default.as_str(), diff[0].value.as_str()), ("15.000000", "4.000000"));
        let sources: Vec<_> = diff[0].settings.iter().map(|it| it.source).collect();
        assert_eq!(sources, [Source::CommandLine, Source::Override]);
        context.unset_option("ms_max_backoff").unwrap();
        assert_eq!(clone.config().ms_max_backoff.as_secs(), 3);
        context.unset_option("ms_max_backoff").unwrap();
    }

    #[test]
    fn what_is_not_read_again_is_refused_unless_somebody_observes_it() {
        let context = Context::default();
        context.set_option("ms_async_op_threads", "3").unwrap(); // as it is
        let error = context.set_option("ms_async_op_threads", "4").unwrap_err();
        assert!(matches!(error, ConfigError::NeedsRestart { .. }), "{error}");
        assert_eq!(context.config().ms_async_op_threads, 3);
        let observation = context.observe(["ms_async_op_threads"], |_, _| {});
        context.set_option("ms_async_op_threads", "4").unwrap();
        drop(observation);
        assert_eq!(context.set_option("ms_async_op_threads", "5").unwrap_err().errno(), 1);
        assert_eq!(context.set_option("osd_data", "x").unwrap_err().errno(), 2);
        assert_eq!(context.set_option("ms_crc_data", "x").unwrap_err().errno(), 22);
    }

    #[test]
    fn the_monitors_say_less_than_a_file_and_more_than_the_table() {
        let mut config = Config::default();
        let option = Config::option("ms_max_backoff").unwrap();
        config.put(Source::File, option, "3", None).unwrap();
        let context = Context::new(config);
        let central = |values: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
            let errors = context.set_central(values.iter().map(owned));
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let told = central(&[
            ("ms_max_backoff", "4"),
            ("debug_ms", "1/5"),
            ("keyring", "/elsewhere"),
            ("osd_no_such", "1"),
            ("ms_async_op_threads", "7"),
        ]);
        assert!(told.len() == 1 && told[0].contains("ms_async_op_threads may not be"), "{told:?}");
        let config = context.config();
        assert_eq!((config.ms_max_backoff.as_secs(), config.debug_ms.log), (3, 1));
        assert_eq!((config.ms_async_op_threads, config.settings("keyring").len()), (3, 0));
        let diff: Vec<_> = config.diff().map(|it| it.to_json()).collect();
        assert_eq!(diff[0]["mon"], "1/5", "{diff:?}");
        assert_eq!((&diff[1]["mon"], &diff[1]["file"]), (&4.into(), &3.into()));
        context.set_option("debug_ms", "2").unwrap();
        let threads = ("ms_async_op_threads", "7");
        assert_eq!(central(&[threads, ("debug_ms", "9")]), Vec::<String>::new(), "told before");
        assert_eq!(context.config().debug_ms.log, 2);
        context.unset_option("debug_ms").unwrap();
        assert_eq!(context.config().debug_ms.log, 9);
        assert!(central(&[]).is_empty() && context.config().debug_ms.log == 0);
        assert_eq!(central(&[threads]).len(), 1, "said anew");
    }

    #[test]
    fn observers_hear_of_what_they_asked_for_and_of_references_to_it() {
        let context = Context::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&heard);
        let _observation = context.observe(["log_file", "debug_ms"], move |config, name| {
            sink.lock().unwrap().push((name, config.value(name).unwrap()));
        });
        context.inject_args("--log-file=/x/$log_stderr_prefix --no-ms_crc_data").unwrap();
        context.inject_args("--log_stderr_prefix y --debug_ms 1/5").unwrap();
        context.set_option("debug_ms", "1/5").unwrap(); // no change
        let error = context.inject_args("--debug_ms=2 x").unwrap_err();
        assert!(matches!(error, ConfigError::NotAnOption { .. }), "{error}");
        let error = context.inject_args("--ms-typ=x --foo").unwrap_err();
        assert!(error.to_string().contains("did you mean 'ms_type'"), "{error}");
        let error = context.inject_args("--foo=1").unwrap_err();
        assert!(error.to_string().starts_with("no option is called 'foo'"), "{error}");
        let want = [("log_file", "/x/"), ("log_file", "/x/y"), ("debug_ms", "1/5")];
        let heard = heard.lock().unwrap();
        assert!(heard.iter().map(|(name, text)| (*name, text.as_str())).eq(want), "{heard:?}");
        assert!(!context.config().ms_crc_data);
    }
}
