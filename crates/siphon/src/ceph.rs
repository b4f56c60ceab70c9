//! Commands to the daemons of a cluster, as Ceph's `ceph` has them: `siphon status`, `siphon health`,
//! `siphon osd`, `siphon command`.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Subcommand;
use serde_json::Value;
use siphon_monclient::{Command, CommandOutput, MonClient, MonError, MonTarget};
use siphon_objecter::{Objecter, ObjecterConfig, OpError};
use siphon_wire::types::{Errno, PgId};

use crate::cluster::ClusterArgs;
use crate::exit::Stdout;

/// The longest file that a command takes along, in bytes: a message's data may have 128 MiB.
const MAX_INPUT: u64 = 128 << 20;

/// How an answer is printed.
#[derive(Debug, clap::Args)]
struct FormatArgs {
    /// How daemons print their answer [default: text for people]
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Plain,
    Json,
    JsonPretty,
    Xml,
    XmlPretty,
}

impl FormatArgs {
    fn apply(&self, command: Command) -> Command {
        let name = match self.format {
            None | Some(Format::Plain) => return command,
            Some(Format::Json) => "json",
            Some(Format::JsonPretty) => "json-pretty",
            Some(Format::Xml) => "xml",
            Some(Format::XmlPretty) => "xml-pretty",
        };
        command.arg("format", name)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct HealthArgs {
    /// Also what each warning is about
    #[arg(value_enum)]
    detail: Option<Detail>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Detail {
    Detail,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OsdArgs {
    #[command(subcommand)]
    question: OsdQuestion,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Subcommand)]
enum OsdQuestion {
    /// The OSDs in the hierarchy of the CRUSH map
    Tree {
        /// Only those in these states
        #[arg(value_parser = ["up", "down", "in", "out", "destroyed"])]
        states: Vec<String>,
    },
    /// How full the OSDs are
    Df {
        /// In the hierarchy of the CRUSH map
        #[arg(value_parser = ["plain", "tree"])]
        output_method: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CommandArgs {
    /// The command, as '{"prefix": "osd pool ls"}'; - reads it from standard input
    json: String,
    /// Whom to ask: mon, mon.NAME, mgr (its modules), mgr.NAME (itself), osd.N, pg.X [default: mon]
    #[arg(long, value_name = "DAEMON", default_value = "mon")]
    target: Target,
    /// What the command takes besides; - reads it from standard input
    #[arg(short, long, value_name = "FILE")]
    in_file: Option<PathBuf>,
    /// Where to write what is answered, in place of standard output
    #[arg(short, long, value_name = "FILE")]
    out_file: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// Whom a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Monitors,
    Monitor(MonTarget),
    Modules,
    Manager(String),
    Osd(i32),
    Pg(PgId),
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, id) = text.split_once('.').unwrap_or((text, ""));
        Ok(match (kind, id) {
            ("mon", "") => Self::Monitors,
            ("mon", name) => Self::Monitor(MonTarget::Name(name.to_owned())),
            ("mgr", "") => Self::Modules,
            ("mgr", name) => Self::Manager(name.to_owned()),
            ("osd", id) => {
                Self::Osd(id.parse().map_err(|_| anyhow!("\"{text}\": an OSD is written osd.0"))?)
            }
            ("pg", id) => Self::Pg(
                id.parse()
                    .map_err(|_| anyhow!("\"{text}\": a placement group is written pg.1.2f"))?,
            ),
            _ => bail!("\"{text}\" is none of mon, mon.NAME, mgr, mgr.NAME, osd.N, pg.X"),
        })
    }
}

pub(crate) fn status(args: &StatusArgs) -> Result<ExitCode> {
    ask(&args.cluster, &args.format, Command::new("status"), &Target::Monitors, None)
}

pub(crate) fn health(args: &HealthArgs) -> Result<ExitCode> {
    let mut command = Command::new("health");
    if args.detail.is_some() {
        command = command.arg("detail", "detail");
    }
    ask(&args.cluster, &args.format, command, &Target::Monitors, None)
}

pub(crate) fn osd(args: &OsdArgs) -> Result<ExitCode> {
    let (command, target) = match &args.question {
        OsdQuestion::Tree { states } if states.is_empty() => {
            (Command::new("osd tree"), Target::Monitors)
        }
        OsdQuestion::Tree { states } => {
            (Command::new("osd tree").arg("states", states.clone()), Target::Monitors)
        }
        OsdQuestion::Df { output_method } => {
            let method = output_method.as_deref().unwrap_or("plain");
            (Command::new("osd df").arg("output_method", method), Target::Modules)
        }
    };
    ask(&args.cluster, &args.format, command, &target, None)
}

pub(crate) fn command(args: &CommandArgs) -> Result<ExitCode> {
    let is_stdin = |path: &Path| path.as_os_str() == "-";
    let json = match args.json.as_str() {
        "-" => String::from_utf8(read(Path::new("-"))?).context("standard input is no text")?,
        json => json.to_owned(),
    };
    let mut command = Command::from_json(&json)?;
    if let Some(file) = &args.in_file {
        if args.json == "-" && is_stdin(file) {
            bail!("standard input is either the command or what it takes besides, not both");
        }
        command = command.input(read(file)?);
    }
    ask(&args.cluster, &args.format, command, &args.target, args.out_file.as_deref())
}

/// A file, or standard input for `-`.
fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut bytes),
        _ => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_INPUT + 1).read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > MAX_INPUT {
        bail!("{} has more than {MAX_INPUT} bytes, which no command takes", path.display());
    }
    Ok(bytes)
}

/// Asks, prints what is answered, and ends with the code that Ceph's `ceph` would have.
fn ask(
    cluster: &ClusterArgs,
    format: &FormatArgs,
    command: Command,
    target: &Target,
    out_file: Option<&Path>,
) -> Result<ExitCode> {
    let timeout = cluster.timeout()?;
    let command = format.apply(command);
    let output = pollster::block_on(async {
        let mon = cluster.connect().await?;
        let output = output(&mon, command, target, timeout).await;
        mon.shutdown().await;
        output
    })?;
    print(&output, out_file)
}

async fn output(
    mon: &MonClient,
    command: Command,
    target: &Target,
    timeout: Duration,
) -> Result<CommandOutput> {
    let limit = Some(timeout);
    Ok(match target {
        Target::Monitors => mon.command(command, limit).await?,
        Target::Monitor(target) => mon.tell_mon(target.clone(), command, limit).await?,
        Target::Modules => mon.mgr_command(command, limit).await?,
        Target::Manager(name) => {
            let dump = mon.command(Command::new("mgr dump").json(), limit).await?.json();
            let active = dump.as_ref().and_then(|map| map["active_name"].as_str());
            if active != Some(name.as_str()) {
                bail!(
                    "mgr.{name} is not the active manager{}, and only that one can be asked",
                    active.map(|active| format!(", mgr.{active} is")).unwrap_or_default()
                );
            }
            mon.tell_mgr(command, limit).await?
        }
        Target::Osd(_) | Target::Pg(_) => {
            let objecter = Objecter::start(mon, ObjecterConfig::new(&mon.context().config()))?;
            objecter.wait_for_latest_map(None).await?;
            match target {
                Target::Pg(pg) => objecter.pg_command(*pg, &naming(command, *pg), limit).await?,
                Target::Osd(osd) => objecter.osd_command(*osd, &command, limit).await?,
                _ => unreachable!("only OSDs are asked by an objecter"),
            }
        }
    })
}

/// The command, which says to an OSD that has several which placement group is meant.
fn naming(command: Command, pg: PgId) -> Command {
    match serde_json::from_str::<Value>(command.text()) {
        Ok(value) if value.get("pgid").is_none() => command.arg("pgid", pg.to_string()),
        _ => command,
    }
}

/// What was printed goes to standard output as it is, but for one line's end; what a person is told
/// goes to standard error.
fn print(output: &CommandOutput, out_file: Option<&Path>) -> Result<ExitCode> {
    let errno = Errno::of_result(output.code);
    if !output.status.is_empty() || errno.is_some() {
        match errno {
            Some(errno) => {
                let name = errno.name().map_or_else(|| errno.0.to_string(), str::to_owned);
                eprintln!("Error {name}: {}", output.status);
            }
            None => eprintln!("{}", output.status),
        }
    }
    match out_file {
        Some(file) => std::fs::write(file, &output.data)
            .with_context(|| format!("cannot write {}", file.display()))?,
        None if output.data.is_empty() => {}
        None => {
            let mut stdout = Stdout::lock();
            stdout.write_all(&output.data)?;
            if !output.data.ends_with(b"\n") {
                stdout.write_all(b"\n")?;
            }
            stdout.flush()?;
        }
    }
    Ok(errno.map_or(ExitCode::SUCCESS, code_of))
}

/// As `ceph` ends: the error's number.
fn code_of(errno: Errno) -> ExitCode {
    u8::try_from(errno.0).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The exit code of an error that kept the command from being answered, if it has one.
pub(crate) fn exit_code(error: &anyhow::Error) -> Option<ExitCode> {
    let mon = error.downcast_ref::<MonError>().map(MonError::errno);
    let osd = error.downcast_ref::<OpError>().map(OpError::errno);
    mon.or(osd).map(code_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_understood() {
        for (text, expected) in [
            ("mon", Target::Monitors),
            ("mon.a", Target::Monitor(MonTarget::Name("a".to_owned()))),
            ("mgr", Target::Modules),
            ("mgr.x.y", Target::Manager("x.y".to_owned())),
            ("osd.12", Target::Osd(12)),
            ("pg.1.2f", Target::Pg(PgId { pool: 1, seed: 0x2f })),
        ] {
            assert_eq!(text.parse::<Target>().unwrap(), expected, "{text}");
        }
        for text in ["", "osd", "osd.x", "pg.1", "mds.a"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
