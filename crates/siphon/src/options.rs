//! Ceph's options on our command line: `--ms_type=async+posix` before or behind any command.

use std::ffi::OsString;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Result;
use siphon_common::config::{ConfigLoader, Loaded};
use siphon_common::logging::Log;
use siphon_common::{Config, ConfigError, Context, Presence, PresenceError};

use crate::rados::in_order;

/// What every command's help says of them.
pub(crate) const HELP: &str = "\
Every command takes Ceph's options, as ceph.conf has them: --ms_tcp_nodelay=false, --debug-ms 1 (siphon
config help tells all), and what Ceph's own tools take: -c FILE, -n TYPE.ID, --id ID, --cluster NAME,
-m MONITORS, -k KEYRING, -K KEYFILE. $CEPH_CONF and $CEPH_ARGS are heeded.";

/// What of the process's command line is Ceph's.
static ARGS: OnceLock<Vec<String>> = OnceLock::new();
/// The options of ours that the called command has: `$CEPH_ARGS` may have them too.
static OWN: OnceLock<Vec<String>> = OnceLock::new();

/// Takes from the process's command line what is Ceph's; the rest is for clap. `command` tells which
/// options are our own.
///
/// # Errors
/// As [`ConfigLoader::split`].
pub(crate) fn take(command: &clap::Command) -> Result<Vec<OsString>, ConfigError> {
    let mut args = std::env::args_os();
    let program = args.next();
    let mut args: Vec<_> = args.collect();
    let find = |arg| command.find_subcommand(arg);
    let called = args.iter().enumerate().find_map(|(at, arg)| Some((at, find(arg)?)));
    // What is behind that command is for another process.
    let others = match called {
        Some((at, called)) if called.get_name() == "daemon" => args.split_off(at),
        _ => Vec::new(),
    };
    // Names in a cluster need be no text: those go through by their place. No argument has a NUL.
    let texts = args.iter().enumerate().map(|(place, arg)| match arg.to_str() {
        Some(text) => text.to_owned(),
        None => format!("\0{place}"),
    });
    let own = OWN.get_or_init(|| names_of(command, called.map(|it| it.1)));
    let loader = ConfigLoader::new().own_options(own.iter().cloned());
    let (ceph, rest) = loader.split(texts.collect())?;
    let back = |text: String| match text.strip_prefix('\0').and_then(|place| place.parse().ok()) {
        Some(place) => args.get::<usize>(place).cloned().unwrap_or_default(),
        None => OsString::from(text),
    };
    let mut rest: Vec<_> = rest.into_iter().map(back).chain(others).collect();
    if called.is_some_and(|(_, called)| called.get_name() == "rados") {
        let environment = std::env::var("CEPH_ARGS").unwrap_or_default();
        let words = environment.split_ascii_whitespace().map(str::to_owned).collect();
        let (_, words) = loader.split(words)?;
        rest = in_order(command, words.into_iter().map(OsString::from).collect(), rest);
    }
    let _ = ARGS.set(ceph); // once, at the beginning
    Ok(program.into_iter().chain(rest).collect())
}

/// The names of the options that are the program's, or the command's that is called.
fn names_of(command: &clap::Command, called: Option<&clap::Command>) -> Vec<String> {
    let mut names: Vec<_> = command.get_arguments().flat_map(names).collect();
    called.into_iter().for_each(|called| add_names(called, &mut names));
    names
}

fn names(arg: &clap::Arg) -> Vec<String> {
    let aliases = arg.get_all_aliases().unwrap_or_default();
    arg.get_long().into_iter().chain(aliases).map(str::to_owned).collect()
}

fn add_names(command: &clap::Command, all: &mut Vec<String>) {
    all.extend(command.get_arguments().flat_map(names));
    command.get_subcommands().for_each(|below| add_names(below, all));
}

/// The log of the process.
static LOG: OnceLock<Log> = OnceLock::new();

/// Makes this the log that contexts change.
pub(crate) fn set_log(log: &Log) {
    let _ = LOG.set(log.clone()); // once, at the beginning
}

/// What the process shows of itself with this context, whose options its log heeds, as long as this is there.
///
/// # Errors
/// As [`Presence::of`].
pub(crate) fn present(context: &Context, daemon: &str) -> Result<Presence, PresenceError> {
    follow(context);
    Presence::of(context, daemon)
}

/// The same of a client, and its context, without which its commands have nothing to tell.
static ATTENDED: Mutex<Option<(Presence, Context)>> = Mutex::new(None);

/// What the process shows of itself as a client of a cluster, until it [leaves](leave): those that talk to one
/// have no better place to keep it.
pub(crate) fn attend(context: &Context) {
    follow(context);
    let attended = (Presence::of_client(context), context.clone());
    *ATTENDED.lock().unwrap_or_else(PoisonError::into_inner) = Some(attended);
}

/// The end of what [`attend`] began.
pub(crate) fn leave() {
    ATTENDED.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// Has the log heed a context whose options an admin socket or the monitors change, and the admin socket tell what
/// the program was built from.
fn follow(context: &Context) {
    siphon_version::register(context.commands());
    if let Some(log) = LOG.get() {
        log.follow(context);
    }
}

/// What of the command line is Ceph's.
pub(crate) fn args() -> &'static [String] {
    ARGS.get().map_or(&[], Vec::as_slice)
}

/// The options of ours that the called command has.
pub(crate) fn own() -> &'static [String] {
    OWN.get().map_or(&[], Vec::as_slice)
}

/// The configuration of a command that asks no cluster: no file but one that somebody names.
pub(crate) fn config() -> Result<Config, ConfigError> {
    load_with(ConfigLoader::new().no_default_file(), None).map(|loaded| loaded.config)
}

/// The whole configuration, from the first file that there is.
pub(crate) fn load(daemon: bool) -> Result<Loaded, ConfigError> {
    let mut defaults = Config::default();
    defaults.set_daemon(daemon);
    load_with(ConfigLoader::of(defaults), None)
}

/// The same as a daemon with this name would have it, of a cluster if that is named.
pub(crate) fn load_as(name: &str, cluster: Option<&str>) -> Result<Config, ConfigError> {
    let mut defaults = Config::default();
    defaults.set_daemon(true);
    let who = cluster.map(|cluster| format!("--cluster={cluster}")).into_iter();
    let who = who.chain([format!("--name={name}")]);
    load_with(ConfigLoader::of(defaults), who).map(|loaded| loaded.config)
}

/// By the command line, and by `more` behind it.
fn load_with(
    loader: ConfigLoader,
    more: impl IntoIterator<Item = String>,
) -> Result<Loaded, ConfigError> {
    let args = args().iter().cloned().chain(more);
    let loaded = loader.own_options(own().iter().cloned()).load(args)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}
