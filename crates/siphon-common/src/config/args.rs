use std::iter::Peekable;

use super::changes::unknown;
use super::table::normalize;
use super::{Config, ConfigError, OptionKind, known};

/// An option on a command line.
pub(super) struct Argument {
    pub(super) name: &'static str,
    pub(super) value: String,
    /// It was said by `--default-name`.
    pub(super) is_default: bool,
}

/// A command line, taken apart.
#[derive(Default)]
pub(super) struct Arguments {
    /// What is no option of Ceph's, in its order; behind `--`, everything.
    pub(super) rest: Vec<String>,
    pub(super) options: Vec<Argument>,
    early: Vec<(Early, String)>,
}

/// What says which file is read, and by whom.
#[derive(Clone, Copy, PartialEq)]
enum Early {
    Conf,
    Cluster,
    Id,
    Name,
    NoConfigFile,
}

/// Arguments that mean something before options do (`ceph_argparse_early_args` of Ceph's
/// `common/ceph_argparse.cc`).
const EARLY: &[(&str, Early)] = &[
    ("-c", Early::Conf),
    ("--conf", Early::Conf),
    ("--cluster", Early::Cluster),
    ("--id", Early::Id),
    ("--user", Early::Id),
    ("-n", Early::Name),
    ("--name", Early::Name),
];

/// Letters for options (`md_config_t::parse_argv`).
const LETTERS: &[(&str, &str)] = &[("-k", "keyring"), ("-K", "keyfile"), ("-m", "mon_host")];

impl Arguments {
    /// `own` are the names of the program's options, with `_`.
    pub(super) fn read<A: Into<String>>(
        args: impl IntoIterator<Item = A>,
        own: &[String],
    ) -> Result<Self, ConfigError> {
        let mut args = args.into_iter().map(Into::into).peekable();
        let mut taken = Self::default();
        while let Some(arg) = args.next() {
            if arg == "--" {
                taken.rest.push(arg);
                taken.rest.extend(args);
                break;
            }
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let is_own = name.strip_prefix("--").is_some_and(|name| own.contains(&normalize(name)));
            let flag = if name.starts_with("--") { normalize_flag(name) } else { name.to_owned() };
            if is_own {
                taken.rest.push(arg);
            } else if flag == "--no-config-file" && value.is_none() {
                taken.early.push((Early::NoConfigFile, String::new()));
            } else if let Some((_, early)) = EARLY.iter().find(|(it, _)| *it == flag) {
                let value = value.or_else(|| args.next());
                let value = value.ok_or(ConfigError::MissingFile { flag })?;
                taken.early.push((*early, value));
            } else if let Some(option) = take_option(name, value, &mut args)? {
                taken.options.push(option);
            } else {
                taken.rest.push(arg);
            }
        }
        Ok(taken)
    }
}

/// The options of a line as `injectargs` takes it, and nothing else.
pub(crate) fn injected(line: &str) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let taken = Arguments::read(line.split_ascii_whitespace(), &[])?;
    if let Some(text) = taken.rest.into_iter().next() {
        let name = text.strip_prefix("--").and_then(|text| text.split('=').next());
        return Err(match name.filter(|name| !name.is_empty()) {
            Some(name) => unknown(name),
            None => ConfigError::NotAnOption { text },
        });
    }
    Ok(taken.options.into_iter().map(|it| (it.name, it.value)).collect())
}

/// A command line in two: what is Ceph's, in a form that can be read again, and the rest in its order.
pub(super) fn split(
    args: Vec<String>,
    own: &[String],
) -> Result<(Vec<String>, Vec<String>), ConfigError> {
    let taken = Arguments::read(args, own)?;
    let early = taken.early.into_iter().map(|(early, value)| match early {
        Early::NoConfigFile => "--no-config-file".to_owned(),
        Early::Conf => format!("--conf={value}"),
        Early::Cluster => format!("--cluster={value}"),
        Early::Id => format!("--id={value}"),
        Early::Name => format!("--name={value}"),
    });
    let option = |it: Argument| {
        format!("--{}{}={}", if it.is_default { "default-" } else { "" }, it.name, it.value)
    };
    Ok((early.chain(taken.options.into_iter().map(option)).collect(), taken.rest))
}

/// `--no_config-file` is `--no-config-file`.
fn normalize_flag(flag: &str) -> String {
    flag.replace('_', "-")
}

/// What the command line and the environment say together.
pub(super) struct Options {
    pub(super) conf: Option<String>,
    pub(super) cluster: Option<String>,
    pub(super) no_config_file: bool,
    names: Vec<(Early, String)>,
}

impl Options {
    /// Of several, the last counts.
    pub(super) fn of(arguments: [&Arguments; 2]) -> Self {
        let all = || arguments.iter().flat_map(|it| &it.early);
        let last = |wanted| all().rfind(|it| it.0 == wanted).map(|it| it.1.clone());
        Self {
            conf: last(Early::Conf),
            cluster: last(Early::Cluster),
            no_config_file: last(Early::NoConfigFile).is_some(),
            names: all().filter(|it| matches!(it.0, Early::Id | Early::Name)).cloned().collect(),
        }
    }

    pub(super) fn identify(&self, config: &mut Config) -> Result<(), ConfigError> {
        for (early, value) in &self.names {
            match early {
                Early::Name => config.identity.set_name(value)?,
                _ => config.identity.set_id(value),
            }
        }
        if let Some(cluster) = &self.cluster {
            config.identity.cluster.clone_from(cluster);
        }
        Ok(())
    }
}

/// If `flag` is an option of Ceph's: its name, and its value, for which the next argument may be
/// needed.
fn take_option(
    flag: &str,
    value: Option<String>,
    args: &mut Peekable<impl Iterator<Item = String>>,
) -> Result<Option<Argument>, ConfigError> {
    let letter = LETTERS.iter().find(|(letter, _)| *letter == flag).map(|(_, name)| *name);
    let Some(name) = letter.or_else(|| flag.strip_prefix("--")) else { return Ok(None) };
    let normal = normalize(name);
    let (normal, is_default) = match normal.strip_prefix("default_") {
        Some(name) if find(name).is_some() => (name, true),
        _ => (normal.as_str(), false),
    };
    if let Some((name, is_bool)) = find(normal) {
        let value = match value {
            Some(value) => value,
            None if is_bool && !is_default => {
                args.next_if(|next| is_bool_word(next)).unwrap_or_else(|| "true".to_owned())
            }
            None => args.next().ok_or_else(|| missing(name))?,
        };
        return Ok(Some(Argument { name, value, is_default }));
    }
    let positive = normal.strip_prefix("no_");
    if let Some((name, true)) = positive.and_then(find)
        && value.is_none()
    {
        return Ok(Some(Argument { name, value: "false".to_owned(), is_default: false }));
    }
    if is_family(positive.unwrap_or(normal)) { Err(unknown(name)) } else { Ok(None) }
}

/// An option of Ceph's or ours by its name with `_`, and whether it is a boolean.
fn find(name: &str) -> Option<(&'static str, bool)> {
    if let Some(option) = Config::option_exactly(name) {
        return Some((option.name, option.kind == OptionKind::Bool));
    }
    known::find(name).map(|known| (known.name, known.is_bool))
}

fn missing(name: &'static str) -> ConfigError {
    match Config::option_exactly(name) {
        Some(option) => ConfigError::MissingValue { option },
        None => unknown(name),
    }
}

/// What Ceph's `check_bool_str` takes as a separate value of a boolean; anything else there is a
/// positional argument.
fn is_bool_word(arg: &str) -> bool {
    matches!(arg, "true" | "false" | "0" | "1")
}

/// Whether a name begins as one of our options does: up to its first `_`.
fn is_family(name: &str) -> bool {
    let family = |name: &str| name.split_once('_').map(|(family, _)| family.to_owned());
    let wanted = family(name);
    wanted.is_some() && Config::options().any(|option| family(option.name) == wanted)
}

#[cfg(test)]
mod tests {
    use super::super::ConfigLoader;
    use super::*;

    fn take(args: &[&str]) -> Result<(Config, Vec<String>), ConfigError> {
        let loader = ConfigLoader::new().no_default_file().without_environment();
        let loaded = loader.load(args.iter().copied())?;
        Ok((loaded.config, loaded.rest))
    }

    #[test]
    fn each_form_of_an_option_is_taken_and_the_rest_keeps_its_order() {
        let (config, rest) = take(&[
            "10.0.0.1:6800",
            "--ms_type",
            "async+sim",
            "--size",
            "4096",
            "--ms-async-op-threads=2",
            "-v",
            "--no-ms-tcp-nodelay",
            "--ms-learn-addr-from-peer",
            "1",
            "--ms-learn-addr-from-peer",
            "32",
            "--ms_crc_data=false",
            "--default-ms_max_backoff",
            "7",
            "--osd-pool-default-size=2",
            "--",
            "--ms_type",
        ])
        .unwrap();
        assert_eq!(rest, ["10.0.0.1:6800", "--size", "4096", "-v", "32", "--", "--ms_type"]);
        assert_eq!((config.ms_type.as_str(), config.ms_async_op_threads), ("async+sim", 2));
        assert!(!config.ms_tcp_nodelay && !config.ms_crc_data);
        assert!(config.ms_learn_addr_from_peer);
        assert_eq!(config.ms_max_backoff.as_secs(), 7);
        assert_eq!(config.settings("ms_max_backoff")[0].source, super::super::Source::Default);
    }

    #[test]
    fn a_program_keeps_its_own_options() {
        let loader = ConfigLoader::new().no_default_file().without_environment();
        let loaded = loader.own_options(["ms-typ".to_owned()]).load(["--ms_typ=x", "-k", "a"]);
        let loaded = loaded.unwrap();
        assert_eq!(loaded.rest, ["--ms_typ=x"]);
        assert_eq!(loaded.config.keyring, "a");
    }

    #[test]
    fn a_name_of_our_family_that_is_unknown_is_an_error() {
        for arg in ["--ms_typ", "--ms-tpye=x", "--no-ms-type", "--no-ms-crc-data=1"] {
            let error = take(&[arg, "x"]).unwrap_err();
            assert!(matches!(error, ConfigError::UnknownOption { .. }), "{arg}: {error}");
        }
    }

    #[test]
    fn a_missing_value_or_file_is_an_error() {
        let error = take(&["--ms_type"]).unwrap_err();
        assert!(matches!(error, ConfigError::MissingValue { option } if option.name == "ms_type"));
        assert!(matches!(take(&["-c"]).unwrap_err(), ConfigError::MissingFile { .. }));
        let error = take(&["-c", "/nowhere/a.conf,/nowhere/b.conf"]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/a.conf,/nowhere/b.conf"), "{error}");
        assert!(matches!(take(&["-n", "disk.1"]).unwrap_err(), ConfigError::BadName { .. }));
    }
}
