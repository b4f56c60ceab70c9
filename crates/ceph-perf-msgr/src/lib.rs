//! What the two tools have in common: Ceph's arguments, and its way to say them back.

use std::process::ExitCode;
use std::str::FromStr;

use siphon_common::Context;
use siphon_common::config::ConfigLoader;
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
    pub fn take(usage: &str, wanted: usize) -> Result<Self, String> {
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

/// An error and its causes.
fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", describe(source)),
        None => error.to_string(),
    }
}

/// Runs a tool, and prints why it failed. Asked for its version, as Ceph's tools are by `--version` or
/// `-v`, it tells that and how it was built instead.
pub fn run(name: &str, tool: impl FnOnce() -> Result<(), String>) -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| first == "--version" || first == "-v") {
        print!("{}", Report::of(name));
        return ExitCode::SUCCESS;
    }
    let logging = siphon_common::logging::install(None).map_err(|error| error.to_string());
    match logging.and_then(|()| tool()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
