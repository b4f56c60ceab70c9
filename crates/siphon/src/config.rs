//! `siphon config`: what is configured, from where, and what each option means.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::{Map, Value};
use siphon_common::config::{ConfFile, OptionDiff, OptionInfo, Setting, Source};
use siphon_common::{Config, ConfigError};

use crate::options;

/// Releases of Ceph by their number, as far as its options were looked at.
const RELEASES: [(u8, &str); 4] =
    [(14, "Nautilus"), (16, "Pacific"), (18, "Reef"), (20, "Tentacle")];

#[derive(Debug, clap::Args)]
#[command(disable_help_subcommand = true)] // config help is ours, as it is Ceph's
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Take the defaults of a daemon where they differ, as log_file
    #[arg(long, global = true)]
    daemon: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The value of every option, or of some: what Ceph's `config show` tells
    Show {
        /// Options by their names
        #[arg(value_name = "OPTION")]
        options: Vec<String>,
    },
    /// The options that somebody gave a value: by whom and where
    Diff,
    /// What an option means; without one, all options
    Help {
        /// The option's name
        option: Option<String>,
    },
    /// Look for mistakes in a configuration file, in everybody's sections
    Check {
        /// The file [default: the one that would be read]
        file: Option<PathBuf>,
    },
    /// What a configuration file says of an option, as `ceph-conf --lookup` tells
    Lookup {
        /// The option's name; it may be any
        option: String,
        /// Look into this section first; may be given several times
        #[arg(short, long = "section", value_name = "SECTION")]
        sections: Vec<String>,
    },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        // What is wrong in a file shall not keep its check from telling all of it.
        Command::Check { file: Some(file) } => return check(file.clone()),
        Command::Help { option } => help(option.as_deref(), args)?,
        command => {
            let loaded = options::load(args.daemon)?;
            let config = &loaded.config;
            match command {
                Command::Show { options } => show(config, options, args.json)?,
                Command::Diff => diff(config, args.json),
                Command::Lookup { option, sections } => {
                    return lookup(config, loaded.file, option, sections);
                }
                _ => match loaded.file {
                    Some(file) => return check(file),
                    None => println!("no configuration file is there to be read"),
                },
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(config: &Config, wanted: &[String], json: bool) -> Result<()> {
    for name in wanted {
        // The error tells the nearest name.
        config.value_for(&config.name(), name)?;
    }
    let is_wanted = |name: &str| {
        wanted.is_empty()
            || wanted.iter().any(|it| Config::option(it).is_some_and(|it| it.name == name))
    };
    let shown = config.show().filter(|(name, _)| is_wanted(name));
    if json {
        let map: Map<String, Value> =
            shown.map(|(name, value)| (name.to_owned(), value.into())).collect();
        println!("{:#}", Value::Object(map));
    } else if let [_] = wanted {
        shown.for_each(|(_, value)| println!("{value}"));
    } else {
        shown.for_each(|(name, value)| println!("{name} = {value}"));
    }
    Ok(())
}

fn diff(config: &Config, json: bool) {
    if json {
        let named = |diff: OptionDiff| (diff.option.name.to_owned(), diff.to_json());
        let map: Map<String, Value> = config.diff().map(named).collect();
        println!("{:#}", Value::Object(map));
        return;
    }
    for diff in config.diff() {
        println!("{} = {}", diff.option.name, diff.value);
        println!("  {:<9} {}", "default", diff.default);
        for setting in &diff.settings {
            println!("  {:<9} {}{}", setting.source.name(), setting.text, place(setting));
        }
    }
}

fn place(setting: &Setting) -> String {
    match (&setting.place, setting.source) {
        (Some(place), _) => format!("  ({} line {})", place.path.display(), place.line),
        (None, Source::Env) => "  (environment)".to_owned(),
        _ => String::new(),
    }
}

fn help(name: Option<&str>, args: &Args) -> Result<()> {
    let Some(name) = name else {
        let mut options: Vec<_> = Config::options().collect();
        options.sort_unstable_by_key(|option| option.name);
        if args.json {
            let options: Vec<_> = options.into_iter().map(|it| it.to_json(args.daemon)).collect();
            println!("{:#}", Value::Array(options));
        } else {
            options.iter().for_each(|it| println!("{:<34} {}", it.name, it.description));
        }
        return Ok(());
    };
    // The error tells why an option of Ceph's has no effect, or the nearest name.
    Config::default().value_for("client.admin", name)?;
    let Some(option) = Config::option(name) else { bail!("no option is called '{name}'") };
    if args.json {
        println!("{:#}", option.to_json(args.daemon));
        return Ok(());
    }
    println!("{} - {}", option.name, option.description);
    println!("  ({}, {}: {})", option.type_name(), option.level.name(), option.kind);
    println!("  Default: {}", option.default_text(false));
    if let Some(default) = option.daemon_default {
        println!("  Default (daemon): {default}");
    }
    println!("  Can update at runtime: {}", option.runtime);
    println!("  Since: {}", since(option));
    if !option.see_also.is_empty() {
        println!("  See also: {}", option.see_also.join(", "));
    }
    if !option.note.is_empty() {
        println!("\n{}", option.note);
    }
    Ok(())
}

fn since(option: &OptionInfo) -> String {
    let Some(since) = option.since() else { return "Siphon only".to_owned() };
    let name = RELEASES.iter().find(|(number, _)| *number == since).map_or("", |(_, name)| name);
    let older = if since == RELEASES[0].0 { " or before" } else { "" };
    format!("Ceph {since} ({name}){older}")
}

fn check(file: PathBuf) -> Result<ExitCode> {
    let found = Config::check_file(&file)?;
    for warning in &found {
        println!("{warning}");
    }
    let more = found.last().map(|warning| match warning.error {
        ConfigError::More { count } => count - 1,
        _ => 0,
    });
    match found.len() + more.unwrap_or(0) {
        0 => {
            println!("{}: nothing is wrong", file.display());
            Ok(ExitCode::SUCCESS)
        }
        1 => bail!("{}: 1 mistake", file.display()),
        count => bail!("{}: {count} mistakes", file.display()),
    }
}

fn lookup(
    config: &Config,
    file: Option<PathBuf>,
    option: &str,
    sections: &[String],
) -> Result<ExitCode> {
    let Some(path) = file else { bail!("no configuration file is there to be read") };
    let file = ConfFile::read(&path)?;
    let (name, sections) = (config.name(), sections.iter().map(String::as_str));
    let kind = name.split('.').next().unwrap_or_default();
    match file.lookup(sections.chain([name.as_str(), kind, "global"]), option) {
        Some(line) => println!("{}", config.expand(&line.value)),
        None => return Ok(ExitCode::FAILURE),
    }
    Ok(ExitCode::SUCCESS)
}
