//! The reference pages of the book, made from the definitions of commands and options. They are files that
//! people read where there is no program: the tests hold them to what the definitions say.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _, Id};
use siphon_common::Config;
use siphon_common::config::{OptionInfo, OptionKind};
use snapbox::{assert_data_eq, file};

use crate::Cli;

/// What stands above a page that is made.
const MADE: &str =
    "<!-- Made by `cargo xtask book --bless`: change the definition, and not this page. -->\n";

#[test]
fn commands_md_has_what_the_command_line_has() {
    let mut cli = Cli::command().term_width(100);
    cli.build();
    let mut page = format!(
        "# Commands\n\n{MADE}\n{}.\n\n{}\n\nEvery command has besides:\n\n{}",
        cli.get_about().expect("it says what it is").to_string().trim_end_matches('.'),
        cli.get_after_help().expect("it says what it takes"),
        arguments(cli.get_arguments()),
    );
    let said: Vec<_> = cli.get_arguments().map(Arg::get_id).collect();
    cli.get_subcommands().for_each(|command| describe(command, "siphon", &said, &mut page));
    assert_data_eq!(page, file!["../../../docs/commands.md"].raw());
}

/// A command, and all below it; arguments that were `said` of a command above are not said again.
fn describe(command: &Command, above: &str, said: &[&Id], page: &mut String) {
    // That which clap adds; `siphon config help` is another.
    if command.get_about().is_some_and(|it| it.to_string().starts_with("Print this message")) {
        return;
    }
    let name = format!("{above} {}", command.get_name());
    let usage = command.clone().render_usage().to_string();
    let usage: Vec<_> = usage.trim_start_matches("Usage:").lines().map(str::trim).collect();
    let usage = usage.join("\n");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let heading = if above == "siphon" { "##" } else { "###" };
    let _ = write!(page, "\n{heading} {name}\n\n{about}.\n\n```text\n{usage}\n```\n");
    let is_said = |arg: &&Arg| said.contains(&arg.get_id());
    let own = arguments(command.get_arguments().filter(|arg| !is_said(arg)));
    if !own.is_empty() {
        let _ = write!(page, "\n{own}");
    }
    if let Some(more) = command.get_after_help() {
        let more = more.to_string();
        if more != crate::options::HELP {
            let _ = write!(page, "\n{more}\n");
        }
    }
    let of_all = command.get_arguments().filter(|arg| arg.is_global_set()).map(Arg::get_id);
    let said: Vec<_> = said.iter().copied().chain(of_all).collect();
    command.get_subcommands().for_each(|below| describe(below, &name, &said, page));
}

/// A table of arguments; nothing, if there are none.
fn arguments<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let mut table = String::new();
    for arg in args.filter(|arg| !arg.is_hide_set()) {
        if table.is_empty() {
            table.push_str("| argument | |\n|---|---|\n");
        }
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let mut notes = vec![cell(&help)];
        let defaults: Vec<_> =
            arg.get_default_values().iter().map(|it| it.to_string_lossy()).collect();
        let takes = arg.get_action().takes_values();
        if takes && !defaults.is_empty() {
            notes.push(format!("default: `{}`", defaults.join(",")));
        }
        let possible = arg.get_possible_values();
        let possible: Vec<_> = possible.iter().filter(|it| !it.is_hide_set()).collect();
        if takes && !possible.is_empty() && !arg.is_hide_possible_values_set() {
            let name = |it: &&clap::builder::PossibleValue| match it.get_help() {
                Some(help) => format!("`{}` ({help})", it.get_name()),
                None => format!("`{}`", it.get_name()),
            };
            notes.push(possible.iter().map(name).collect::<Vec<_>>().join(", "));
        }
        let _ = writeln!(table, "| `{}` | {} |", cell(&arg.to_string()), notes.join("; "));
    }
    table
}

/// Text in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Headings, and how the options below them begin; the first that holds counts.
const FAMILIES: [(&str, &str); 8] = [
    ("RDMA", "ms_async_rdma_"),
    ("Workers", "ms_async_"),
    ("Faults on purpose", "ms_inject_"),
    ("The messenger", "ms_"),
    ("Monitors", "mon_"),
    ("Logs", "log_"),
    ("Levels of logs", "debug_"),
    ("Others", ""),
];

#[test]
fn options_md_has_what_the_table_of_options_has() {
    let mut options: Vec<_> = Config::options().collect();
    options.sort_unstable_by_key(|option| option.name);
    let cephs = options.iter().filter(|option| option.since().is_some()).count();
    let mut page = format!(
        "# Options\n\n{MADE}\nThe {cephs} options of Ceph's that Siphon honours, and {} of its own. \
         [Configuration](configuration.md) has how they are set.\n\nBehind each stand its type and range, \
         the first of Ceph's releases 14, 16, 18 and 20 that has it (14 also for what is older), and *runtime* if \
         it changes while a program runs. `siphon config help OPTION` says the same.\n",
        options.len() - cephs,
    );
    for (heading, family) in FAMILIES {
        let (these, others) = options.into_iter().partition(|it| it.name.starts_with(family));
        options = others;
        let _ = write!(page, "\n## {heading}\n\n");
        page.push_str("| option | default | |\n|---|---|---|\n");
        let these: Vec<&OptionInfo> = these;
        these.into_iter().for_each(|option| row(option, &mut page));
    }
    assert_data_eq!(page, file!["../../../docs/options.md"].raw());
}

/// An option's line.
fn row(option: &OptionInfo, page: &mut String) {
    let code =
        |text: &str| if text.is_empty() { String::new() } else { format!("`{}`", cell(text)) };
    let defaults = [code(option.default_text(false))].into_iter();
    let defaults = defaults.chain(option.daemon_default.map(|it| format!("daemons: {}", code(it))));
    let default = defaults.filter(|it| !it.is_empty()).collect::<Vec<_>>().join("; ");
    let mut said = cell(option.description);
    if !option.note.is_empty() {
        let _ = write!(said, ". {}", cell(option.note));
    }
    let kind = option.type_name();
    let mut facts = vec![match (option.kind, option.kind.range()) {
        (OptionKind::Words(words), _) => format!("{kind}: {}", words.join(", ")),
        (_, Some((min, max))) => format!("{kind}, {min} to {max}"),
        (_, None) => kind.to_owned(),
    }];
    facts.push(option.since().map_or("Siphon's own".to_owned(), |it| format!("since {it}")));
    facts.extend(option.runtime.then(|| "*runtime*".to_owned()));
    let _ = writeln!(page, "| `{}` | {default} | {said} ({}) |", option.name, facts.join("; "));
}
