//! The order of a command line: Ceph's `rados` takes every option before and behind its verb, and from
//! `$CEPH_ARGS`; clap takes those of a verb behind it.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// The arguments behind the program's name, so that clap takes them as Ceph's `rados` would: what is in the
/// environment first, and the options of the verb behind it. `program` has `rados` among its commands.
///
/// What the environment says of other verbs is not for this one, and is left out.
pub(crate) fn in_order(
    program: &Command,
    environment: Vec<OsString>,
    args: Vec<OsString>,
) -> Vec<OsString> {
    let named = args.iter().position(|arg| arg == "rados");
    let (Some(place), Some(rados)) = (named, program.find_subcommand("rados")) else { return args };
    let mut ordered = args;
    let given = ordered.split_off(place + 1);
    let from_environment = environment.len();
    let mut rest = environment.into_iter().chain(given).enumerate().peekable();
    // Each with its value, and whether it is of the environment.
    let mut of_verb: Vec<(Vec<OsString>, bool)> = Vec::new();
    let mut verb = None;
    while let Some((at, arg)) = rest.next() {
        if arg == "-" || arg == "--" || !arg.as_encoded_bytes().starts_with(b"-") {
            verb = Some(arg);
            break;
        }
        let ours = [program, rados].into_iter().find_map(|command| find(command, &arg));
        let option =
            ours.or_else(|| rados.get_subcommands().find_map(|verb| find_below(verb, &arg)));
        let mut words = vec![arg];
        if option.is_some_and(|it| it.value_follows) {
            words.extend(rest.next().map(|(_, value)| value));
        }
        match (ours, option) {
            (None, Some(_)) => of_verb.push((words, at < from_environment)),
            _ => ordered.extend(words),
        }
    }
    let called = verb.as_deref().and_then(|verb| rados.find_subcommand(verb));
    let is_for =
        |words: &[OsString]| called.is_some_and(|verb| find_below(verb, &words[0]).is_some());
    of_verb.retain(|(words, from_environment)| !from_environment || is_for(words));
    ordered.extend(verb);
    ordered.extend(of_verb.into_iter().flat_map(|it| it.0));
    ordered.extend(rest.map(|it| it.1));
    ordered
}

/// An option, as an argument gives it.
#[derive(Clone, Copy)]
struct Given {
    /// Whether the next argument is its value.
    value_follows: bool,
}

/// The option of a command, or of those below it, that an argument gives.
fn find_below(command: &Command, arg: &OsStr) -> Option<Given> {
    find(command, arg).or_else(|| command.get_subcommands().find_map(|it| find_below(it, arg)))
}

fn find(command: &Command, arg: &OsStr) -> Option<Given> {
    let takes_value = |option: &Arg| option.get_action().takes_values();
    let arg = arg.to_str()?;
    if let Some(long) = arg.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |it| (it.0, Some(it.1)));
        let is_named = |option: &&Arg| {
            let aliases = option.get_all_aliases().unwrap_or_default();
            option.get_long() == Some(name) || aliases.contains(&name)
        };
        let option = command.get_arguments().find(is_named)?;
        return Some(Given { value_follows: value.is_none() && takes_value(option) });
    }
    // Of several letters, the first that takes a value has what stands behind it.
    let mut letters = arg.strip_prefix('-')?.chars().peekable();
    while let Some(letter) = letters.next() {
        let option = command.get_arguments().find(|option| option.get_short() == Some(letter))?;
        if takes_value(option) {
            return Some(Given { value_follows: letters.peek().is_none() });
        }
    }
    Some(Given { value_follows: false })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::Cli;

    fn ordered(environment: &str, args: &str) -> String {
        let words = |text: &str| text.split_whitespace().map(OsString::from).collect();
        let ordered = in_order(&Cli::command(), words(environment), words(args));
        let words: Vec<_> = ordered.iter().map(|word| word.to_str().unwrap()).collect();
        Cli::try_parse_from(["siphon"].iter().chain(&words))
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
        words.join(" ")
    }

    #[test]
    fn options_of_a_verb_may_stand_before_it() {
        for (args, expected) in [
            ("rados -p a ls", "rados -p a ls"),
            ("rados --no-cleanup bench 1 write", "rados bench --no-cleanup 1 write"),
            (
                "--log debug rados -p a --run-name bench -t4 --show-time bench 1 seq -b 4K",
                "--log debug rados -p a -t4 bench --run-name bench --show-time 1 seq -b 4K",
            ),
            (
                "rados --lock-cookie=c --lock-tag t -Cp a lock get x y",
                "rados -Cp a lock --lock-cookie=c --lock-tag t get x y",
            ),
            ("rados -p ls stat -- -x", "rados -p ls stat -- -x"),
        ] {
            assert_eq!(ordered("", args), expected);
        }
    }

    #[test]
    fn the_environment_goes_first_and_only_to_the_verbs_it_is_for() {
        let environment = "-p a --all --run-name r --no-cleanup";
        for (args, expected) in [
            ("rados ls", "rados -p a --all ls"),
            ("rados -p b cleanup", "rados -p a --all -p b cleanup --run-name r"),
            (
                "rados bench 1 write --run-name s",
                "rados -p a --all bench --run-name r --no-cleanup 1 write --run-name s",
            ),
        ] {
            assert_eq!(ordered(environment, args), expected);
        }
    }
}
