use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use tracing::dispatcher::{self, WeakDispatch};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context as LayerContext, Filter, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use super::entry::Entry;
use super::sinks::{Sinks, eprint};
use super::stamp::{Stamp, system_clock};
use super::subsys::{self, Levels, SubsystemId, level_of};
use super::{LogError, directive_layer};
use crate::admin_socket::{CommandError, CommandSpec, Commands};
use crate::{Config, Context, Observation};

/// How often a panic tries for the log to be free, and how long it waits between: others write a batch of lines
/// meanwhile, and under load the next.
const PANIC_TRIES: u32 = 2000;
const PANIC_PAUSE: Duration = Duration::from_millis(1);
/// How often a pipe that was full is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// The log of a context, as Ceph's programs have it: by the levels of subsystems (`debug_ms = 1/5`), to
/// a file, standard error, syslog and journald, as `log_*` say, with the entries of late in memory.
///
/// A thread of its own writes. Clones are the same log; what is in memory is written when the last one
/// is dropped.
///
/// ```
/// use siphon_common::logging::Log;
/// use siphon_common::{Config, Context};
///
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("x.log");
/// let mut config = Config::default();
/// config.log_file = file.display().to_string();
/// config.log_to_stderr = false;
/// let context = Context::new(config);
/// let (log, subscriber) = Log::builder(&context).build()?;
/// tracing::subscriber::with_default(subscriber, || {
///     tracing::info!(peer = "osd.0", "not logged, but remembered: debug_none is 0/5");
///     context.set_option("debug_none", "1")?;
///     tracing::info!(peer = "osd.1", "logged");
///     Ok::<(), siphon_common::ConfigError>(())
/// })?;
/// log.flush();
/// let text = std::fs::read_to_string(&file)?;
/// assert!(text.ends_with(" 1 none: logged peer=\"osd.1\"\n") && !text.contains("osd.0"), "{text}");
/// log.dump_recent();
/// assert!(std::fs::read_to_string(&file)?.contains("osd.0"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Log {
    owner: Arc<Owner>,
}

/// What is said of a [`Log`] besides the context's options.
#[derive(Debug)]
pub struct LogBuilder {
    context: Context,
    directives: Option<String>,
    syslog: PathBuf,
    journald: PathBuf,
}

/// What all clones share, and the thread does not.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    observations: Mutex<Vec<Observation>>,
}

#[derive(Debug)]
struct Shared {
    levels: Levels,
    queue: Mutex<Queue>,
    wake: Condvar,
    sinks: Mutex<Sinks>,
    /// The subscriber that feeds this, as soon as tracing knows it.
    subscriber: OnceLock<WeakDispatch>,
    /// Whether standard error has lines by directives.
    by_directives: bool,
}

#[derive(Debug, Default)]
struct Queue {
    /// Each with whether it is to be logged, and not only remembered.
    entries: VecDeque<(Entry, bool)>,
    max_new: usize,
    stopped: bool,
}

impl LogBuilder {
    /// Has lines on standard error by tracing's directives, as `info,siphon_msgr=trace`, in place of
    /// what the options say of standard error; without any, the options say it.
    pub fn directives(mut self, directives: Option<String>) -> Self {
        self.directives = directives;
        self
    }

    /// Other sockets than those of the system's syslog (`/dev/log`) and journald.
    pub fn sockets(mut self, syslog: impl Into<PathBuf>, journald: impl Into<PathBuf>) -> Self {
        (self.syslog, self.journald) = (syslog.into(), journald.into());
        self
    }

    /// The log, and the subscriber that feeds it: for a part of a program, or for a program that has
    /// layers of its own. A program that wants nothing else [installs](Self::install) it.
    ///
    /// A file that cannot be opened is no error: standard error is told, and gets the lines meanwhile.
    ///
    /// # Errors
    /// The directives cannot be understood, or the system gives no thread.
    pub fn build(self) -> Result<(Log, impl Subscriber + Send + Sync), LogError> {
        let directives = self.directives.as_deref().map(directive_layer).transpose()?;
        let shared = Arc::new(Shared {
            levels: Levels::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            sinks: Mutex::new(Sinks::new(self.syslog, self.journald)),
            subscriber: OnceLock::new(),
            by_directives: directives.is_some(),
        });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        let layer = QueueLayer { shared: Arc::clone(&shared) };
        let filter = ByLevels { shared: Arc::clone(&shared) };
        let subscriber =
            tracing_subscriber::registry().with(layer.with_filter(filter)).with(directives);
        let log = Log { owner: Arc::new(Owner { shared, observations: Mutex::default() }) };
        log.follow(&self.context);
        Ok((log, subscriber))
    }

    /// Makes it the log of the process, which a panic dumps.
    ///
    /// # Errors
    /// As [`build`](Self::build), or the process has a log already.
    pub fn install(self) -> Result<Log, LogError> {
        let (log, subscriber) = self.build()?;
        tracing::subscriber::set_global_default(subscriber)?;
        let shared = Arc::clone(&log.owner.shared);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            shared.dump_after_panic();
        }));
        Ok(log)
    }
}

/// Options that a log heeds.
fn is_ours(name: &str) -> bool {
    name.starts_with("log_") || name.starts_with("err_to_") || subsys::OPTIONS.contains(&name)
}

impl Log {
    /// A log for this context.
    pub fn builder(context: &Context) -> LogBuilder {
        LogBuilder {
            context: context.clone(),
            directives: None,
            syslog: "/dev/log".into(),
            journald: "/run/systemd/journal/socket".into(),
        }
    }

    /// Heeds the options of another context from now on, besides: the last change of any counts. For a
    /// program whose log is there before the context that its admin socket changes.
    pub fn follow(&self, context: &Context) {
        let shared = &self.owner.shared;
        let kept = Arc::clone(shared);
        let names = Config::options().map(|option| option.name).filter(|name| is_ours(name));
        let observation = context.observe(names, move |config, _| kept.configure(config));
        shared.configure(&context.config());
        let observations = &self.owner.observations;
        observations.lock().unwrap_or_else(PoisonError::into_inner).push(observation);
        self.register(context.commands());
    }

    /// Has the admin socket write, dump and open it again.
    fn register(&self, commands: &Commands) {
        let add = |prefix, help, run: fn(&Self) -> io::Result<()>| {
            let owner = Arc::downgrade(&self.owner);
            commands.register(CommandSpec { prefix, args: &[], help }, move |_| {
                if let Some(owner) = owner.upgrade() {
                    run(&Self { owner }).map_err(|error| {
                        let errno = error.raw_os_error().unwrap_or(CommandError::INVALID);
                        CommandError::new(errno, format!("the log file: {error}"))
                    })?;
                }
                Ok(serde_json::json!({}))
            });
        };
        add("log flush", "flush log entries to log file", |log| {
            log.flush();
            Ok(())
        });
        add("log dump", "dump recent log entries to log file", |log| {
            log.dump_recent();
            Ok(())
        });
        add("log reopen", "reopen log file", Self::reopen);
    }

    /// Writes what waits, before this returns.
    pub fn flush(&self) {
        self.owner.shared.flush();
    }

    /// As [`flush`](Self::flush), where a program ends that never drops its log: what the file does not take goes
    /// to standard error, and is forgotten.
    pub fn finish(&self) {
        self.owner.shared.finish();
    }

    /// Writes what waits, then all that is remembered, whatever its level, to the file, or to standard
    /// error if there is none; then the levels. It is remembered further.
    pub fn dump_recent(&self) {
        let shared = &self.owner.shared;
        shared.flush();
        shared.lock_sinks().dump(shared.levels.lines());
    }

    /// Opens the log file again, which somebody may have moved away.
    ///
    /// # Errors
    /// It cannot be opened; lines go to where they went before.
    pub fn reopen(&self) -> io::Result<()> {
        self.owner.shared.flush();
        self.owner.shared.lock_sinks().reopen()
    }

    /// Opens the log file again whenever the process gets a SIGHUP, as logrotate sends it.
    ///
    /// # Errors
    /// The system gives no thread, no socket or no signal handler.
    pub fn reopen_on_hangup(&self) -> io::Result<()> {
        let (mut receiver, sender) = std::os::unix::net::UnixStream::pair()?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGHUP, sender)?;
        let shared = Arc::downgrade(&self.owner.shared);
        let reopen = move || {
            while io::Read::read_exact(&mut receiver, &mut [0]).is_ok() {
                let Some(shared) = shared.upgrade() else { return };
                shared.flush();
                let reopened = shared.lock_sinks().reopen();
                match reopened {
                    Ok(()) => tracing::info!("log file opened again"),
                    Err(error) => tracing::error!(%error, "cannot open the log file again"),
                }
            }
        };
        std::thread::Builder::new().name("log_signal".to_owned()).spawn(reopen)?;
        Ok(())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.lock_queue().stopped = true;
        self.shared.wake.notify_all();
        self.shared.finish();
    }
}

impl Shared {
    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_sinks(&self) -> MutexGuard<'_, Sinks> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configure(&self, config: &Config) {
        let levels_changed = self.levels.set(config);
        self.lock_queue().max_new = config.log_max_new as usize;
        self.lock_sinks().configure(config, !self.by_directives);
        if levels_changed {
            self.ask_again();
        }
    }

    /// Has tracing forget what it keeps of which lines are wanted. It asks the subscriber of the calling
    /// thread alone, as long as the process has one subscriber, so it must be ours.
    fn ask_again(&self) {
        if let Some(subscriber) = self.subscriber.get().and_then(WeakDispatch::upgrade) {
            dispatcher::with_default(&subscriber, tracing::callsite::rebuild_interest_cache);
        }
    }

    /// The thread's work, until the last handle is dropped.
    fn run(&self) {
        loop {
            let is_full = self.lock_sinks().waits_for_reader();
            let mut queue = self.lock_queue();
            while queue.entries.is_empty() && !queue.stopped {
                if is_full {
                    let woken = self.wake.wait_timeout(queue, FULL_PAUSE);
                    queue = woken.unwrap_or_else(PoisonError::into_inner).0;
                    break;
                }
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let stopped = queue.stopped;
            drop(queue);
            self.flush();
            if stopped {
                return;
            }
        }
    }

    fn submit(&self, entry: Entry, logged: bool) {
        let mut queue = self.lock_queue();
        queue.entries.push_back((entry, logged));
        let is_full = queue.entries.len() > queue.max_new;
        drop(queue);
        match is_full {
            // So nobody waits for a thread that a fork did not take along.
            true => self.flush(),
            false => self.wake.notify_one(),
        }
    }

    /// The order is kept, for whoever takes entries out has the sinks.
    fn flush(&self) {
        self.flush_into(&mut self.lock_sinks());
    }

    fn finish(&self) {
        let mut sinks = self.lock_sinks();
        self.flush_into(&mut sinks);
        sinks.give_up();
    }

    fn flush_into(&self, sinks: &mut Sinks) {
        let entries = std::mem::take(&mut self.lock_queue().entries);
        for (entry, logged) in entries {
            sinks.take(entry, logged);
        }
        sinks.flush();
    }

    /// Waits for whoever writes, but not for ever: the panic may be of who writes.
    fn dump_after_panic(&self) {
        let mut tries = 0;
        let mut sinks = loop {
            match self.sinks.try_lock() {
                Ok(sinks) => break sinks,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if tries < PANIC_TRIES => {
                    tries += 1;
                    std::thread::sleep(PANIC_PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return eprint(
                        "no dump of recent events: the panic is of who writes the log\n",
                    );
                }
            }
        };
        self.flush_into(&mut sinks);
        sinks.dump(self.levels.lines());
        sinks.forget();
    }
}

/// Puts events into the queue.
struct QueueLayer {
    shared: Arc<Shared>,
}

impl<S: Subscriber> Layer<S> for QueueLayer {
    fn on_register_dispatch(&self, subscriber: &Dispatch) {
        let _ = self.shared.subscriber.set(subscriber.downgrade());
    }

    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let metadata = event.metadata();
        let levels = self.shared.levels.of(SubsystemId::of(metadata.target()));
        let logged = i16::from(level_of(metadata)) <= i16::from(levels.log);
        self.shared.submit(Entry::of(event, Stamp(system_clock())), logged);
    }
}

/// Lets events pass that are logged or remembered. What does not pass costs a load: tracing keeps what
/// was said of a line, and is told to ask again when levels change.
struct ByLevels {
    shared: Arc<Shared>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for ByLevels {
    fn enabled(&self, metadata: &Metadata<'_>, _: &LayerContext<'_, S>) -> bool {
        self.shared.levels.wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.shared.levels.wants(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.shared.levels.hint())
    }
}
