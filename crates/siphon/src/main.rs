//! `siphon`: measure, test and question the network of a Ceph cluster.

mod address;
mod ceph;
mod cluster;
mod commandline;
mod config;
mod daemon;
mod echo;
mod exit;
mod monitor;
mod options;
mod perf;
mod probe;
mod rados;
mod rdma;
#[cfg(test)]
mod reference;
mod sessions;
mod size;
mod stack;
mod top;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use siphon_common::logging::{self, Log};
use siphon_common::{Config, Context};
use siphon_version::Build;

/// Measure, test and question the network of a Ceph cluster.
#[derive(Debug, Parser)]
#[command(version = Build::this().short(), propagate_version = true, max_term_width = 100)]
#[command(after_help = options::HELP, after_long_help = format!("{}\n\n{}", options::HELP, exit::help()))]
struct Cli {
    /// What to log on stderr: error, warn, info, debug, trace, or a filter as
    /// `siphon_msgr=debug,warn` [default: $SIPHON_LOG, else as Ceph's options say: --debug-ms 1]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the messenger: rate, bandwidth, latency, CPU time
    Perf(Box<perf::Args>),
    /// Be a messenger that answers pings and the benchmark
    Echo(echo::Args),
    /// Ask a daemon how it is
    Ping {
        #[command(subcommand)]
        target: monitor::PingTarget,
    },
    /// Get the map of monitors from one of them
    Monmap(monitor::MonmapArgs),
    /// Tell what an address speaks, without a key
    Probe(probe::Args),
    /// Open sessions with a monitor, the manager and an OSD, and tell what they speak
    Sessions(sessions::Args),
    /// How a cluster is, as `ceph status` tells
    Status(ceph::StatusArgs),
    /// Whether a cluster is healthy, as `ceph health` tells
    Health(ceph::HealthArgs),
    /// The OSDs of a cluster
    Osd(ceph::OsdArgs),
    /// Have a daemon do a command, given as JSON
    #[command(name = "command")]
    Ask(ceph::CommandArgs),
    /// Objects in a cluster, with the verbs, options and exit codes of Ceph's rados
    Rados(Box<rados::Args>),
    /// Ask a process at its admin socket, as `ceph daemon` does
    Daemon(daemon::Args),
    /// What is configured, by whom, and what options mean
    Config(config::Args),
    /// Watch messengers: rates, queues, throttles, connections
    Top(top::Args),
    /// Print a completion script for a shell, to be read by it at its start
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Write man pages, one for each command, into a folder
    Man {
        /// The folder, which is made if it is not there
        folder: std::path::PathBuf,
    },
    /// What this command was built from, what it speaks, and which stacks work on this machine
    Version,
    /// RDMA: the devices of this host
    Rdma {
        #[command(subcommand)]
        command: rdma::Command,
    },
}

impl Command {
    /// Whether it answers others until it is interrupted.
    fn serves(&self) -> bool {
        match self {
            Self::Perf(args) => args.serves(),
            Self::Echo(_) => true,
            _ => false,
        }
    }
}

fn main() -> ExitCode {
    let args = match options::take(&Cli::command()) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("siphon: {}", describe(&error.into()));
            return ExitCode::FAILURE;
        }
    };
    let cli = Cli::try_parse_from(args).unwrap_or_else(|error| usage(&error));
    let result = start_log(&cli).and_then(|log| {
        exit::end_with_the_reader();
        let result = run(cli.command);
        options::leave();
        log.finish();
        result
    });
    match result {
        Ok(code) => code,
        Err(error) if exit::is_readers_end(&error) => ExitCode::from(exit::READER_IS_GONE),
        Err(error) => {
            eprintln!("siphon: {}", describe(&error));
            ceph::exit_code(&error).unwrap_or(ExitCode::FAILURE)
        }
    }
}

/// By directives, if somebody gives some; else by Ceph's options.
fn start_log(cli: &Cli) -> anyhow::Result<Log> {
    let config = match &cli.command {
        Command::Status(_)
        | Command::Health(_)
        | Command::Osd(_)
        | Command::Ask(_)
        | Command::Rados(_) => options::load(false)?.config,
        Command::Config(_) => Config::default(), // which is what the command looks at
        _ => options::config()?,
    };
    // A server without a terminal is told as a daemon is, with a log file or without.
    let serves = cli.command.serves() && !std::io::stdin().is_terminal();
    let reopens = serves || !config.log_file.is_empty();
    let directives = cli.log.clone().or_else(logging::directives_of_environment);
    let log = Log::builder(&Context::new(config)).directives(directives).install()?;
    options::set_log(&log);
    if reopens {
        log.reopen_on_hangup()?;
    }
    Ok(log)
}

/// Tells what is wrong with a command line, or the help that was asked for; the code is clap's, but where
/// Ceph's own tool has another.
fn usage(error: &clap::Error) -> ! {
    let _ = error.print(); // there is nobody else to tell
    let code = match error.exit_code() {
        2 if std::env::args_os().any(|arg| arg == "rados") => 1,
        code => code,
    };
    std::process::exit(code)
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Perf(args) => return perf::run(*args),
        Command::Echo(args) => echo::run(&args),
        Command::Ping { target } => monitor::ping(&target),
        Command::Monmap(args) => monitor::monmap(&args),
        Command::Probe(args) => {
            options::attend(&Context::new(options::config()?));
            probe::run(&args)
        }
        Command::Sessions(args) => sessions::run(&args),
        Command::Status(args) => return ceph::status(&args),
        Command::Health(args) => return ceph::health(&args),
        Command::Osd(args) => return ceph::osd(&args),
        Command::Ask(args) => return ceph::command(&args),
        Command::Rados(args) => return rados::run(*args),
        Command::Daemon(args) => daemon::run(&args),
        Command::Config(args) => return config::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Completions { shell } => commandline::completions(shell),
        Command::Man { folder } => commandline::man(&folder),
        Command::Version => commandline::version(),
        Command::Rdma { command } => rdma::run(&command),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// An error and its causes, without those that the one before has said already.
fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// An option that may stand anywhere would be set by an argument of the same name.
    #[test]
    fn no_argument_is_called_as_an_option_of_its_command_is() {
        fn check(command: &clap::Command, options: &[clap::Id]) {
            for argument in command.get_arguments().filter(|it| it.is_positional()) {
                assert!(!options.contains(argument.get_id()), "{command}: {argument}");
            }
            let globals = command.get_arguments().filter(|it| it.is_global_set());
            let globals: Vec<_> = globals.map(|it| it.get_id().clone()).collect();
            let options = [options, &globals].concat();
            command.get_subcommands().for_each(|command| check(command, &options));
        }
        check(&Cli::command(), &[]);
    }
}
