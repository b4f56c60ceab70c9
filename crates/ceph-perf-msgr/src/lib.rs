//! What the two tools have in common: Ceph's arguments, and its way to say them back.

use std::error::Error;
use std::process::ExitCode;
use std::str::FromStr;

use siphon_common::config::ConfigLoader;
use siphon_common::logging::{self, Log};
use siphon_common::{Context, Presence};
use siphon_version::Report;
use siphon_wire::types::{EntityAddr, EntityAddrVec};

/// A tool's positional arguments, with the options of Ceph around them taken out.
#[derive(Debug)]
pub struct Arguments {
    /// Configuration, from `-c FILE` and options as `--ms_type async+posix`.
    pub context: Context,
    /// Which stack is used, in Ceph's words.
    pub ms_type: String,
    positional: Vec<String>,
}

impl Arguments {
    /// Takes the process's arguments; `wanted` positional ones and no more.
    ///
    /// # Errors
    /// What to print: the usage, or what is wrong with an option.
    fn take(usage: &str, wanted: usize) -> Result<Self, String> {
        let args = std::env::args().skip(1).filter(|arg| !is_auth_none(arg));
        let loaded = ConfigLoader::new().no_default_file().load(args).map_err(|e| describe(&e))?;
        for warning in &loaded.warnings {
            eprintln!("{warning}");
        }
        let (config, positional) = (loaded.config, loaded.rest);
        if positional.iter().any(|arg| arg == "-h" || arg == "--help") {
            return Err(usage.to_owned());
        }
        if let Some(option) = positional.iter().find(|arg| arg.starts_with("--")) {
            return Err(format!("{option} is not an option of this tool\n\n{usage}"));
        }
        if positional.len() != wanted {
            let found = positional.len();
            return Err(format!("{wanted} arguments are needed, {found} were given\n\n{usage}"));
        }
        let ms_type = match config.ms_public_type.as_str() {
            "" => config.ms_type.clone(),
            public => public.to_owned(),
        };
        Ok(Self { context: Context::new(config), ms_type, positional })
    }

    /// The positional argument at `index`, which is called `name`.
    ///
    /// # Errors
    /// If it is not of that type.
    pub fn number<T: FromStr>(&self, index: usize, name: &str) -> Result<T, String> {
        let text = self.text(index);
        text.parse().map_err(|_| format!("{name}: \"{text}\" is not a number that is possible"))
    }

    /// The positional argument at `index` as it is.
    pub fn text(&self, index: usize) -> &str {
        self.positional.get(index).map_or("", String::as_str)
    }

    /// The address that is the first positional argument.
    ///
    /// # Errors
    /// If it is none.
    pub fn addr(&self) -> Result<EntityAddrVec, String> {
        let text = self.text(0);
        let addr: EntityAddr =
            text.parse().map_err(|_| format!("\"{text}\" is not an address; write IP:PORT"))?;
        match addr.socket_addr() {
            Some(socket) if socket.port() != 0 => {
                Ok(EntityAddr::msgr2(socket, addr.nonce()).into())
            }
            _ => Err(format!("\"{text}\" has no port; write IP:PORT")),
        }
    }
}

/// Ceph's tools are told by these not to look for keys; here there is no other authentication.
fn is_auth_none(arg: &str) -> bool {
    let Some((name, "none")) = arg.split_once('=') else {
        return false;
    };
    let name = name.replace('-', "_");
    ["client", "cluster", "service"].iter().any(|of| name == format!("__auth_{of}_required"))
}

/// An error and its causes, without those that it has said already.
fn describe(error: &dyn Error) -> String {
    let text = error.to_string();
    match error.source() {
        Some(source) if !text.contains(&source.to_string()) => {
            format!("{text}: {}", describe(source))
        }
        _ => text,
    }
}

/// What a tool is called, and what it takes.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// How to call it.
    pub usage: &'static str,
    /// How many positional arguments it takes.
    pub arguments: usize,
    /// Whom its counters are of, for Prometheus.
    pub entity: &'static str,
}

impl Tool {
    /// Runs it, and prints why it failed. Asked for its version, as Ceph's tools are by `--version` or `-v`, it
    /// tells that and how it was built instead.
    ///
    /// While it runs it has what its options ask for: a log, an admin socket, a pid file.
    pub fn run(&self, work: impl FnOnce(&Arguments) -> Result<(), String>) -> ExitCode {
        if std::env::args().nth(1).is_some_and(|first| first == "--version" || first == "-v") {
            print!("{}", Report::of(self.name));
            return ExitCode::SUCCESS;
        }
        let done = Arguments::take(self.usage, self.arguments).and_then(|arguments| {
            let log = start_log(&arguments.context).map_err(|error| describe(&*error))?;
            let done = self.attended(&arguments, work);
            log.finish();
            done
        });
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", self.name);
                ExitCode::FAILURE
            }
        }
    }

    fn attended(
        &self,
        arguments: &Arguments,
        work: impl FnOnce(&Arguments) -> Result<(), String>,
    ) -> Result<(), String> {
        siphon_version::register(arguments.context.commands());
        let presence = Presence::of(&arguments.context, self.entity);
        let _presence = presence.map_err(|error| describe(&error))?;
        work(arguments)
    }
}

/// By `$SIPHON_LOG`, if it says something; else by Ceph's options.
fn start_log(context: &Context) -> Result<Log, Box<dyn Error>> {
    let directives = logging::directives_of_environment();
    let log = Log::builder(context).directives(directives).install()?;
    if !context.config().log_file.is_empty() {
        log.reopen_on_hangup()?;
    }
    Ok(log)
}
