use super::table::{normalize, unknown};
use super::{Config, ConfigError, OptionKind};

impl Config {
    /// Takes from a command line (without the program's name) what is ours, as Ceph's tools do, and
    /// returns the rest in its order.
    ///
    /// Ours are `--name value`, `--name=value`, for a boolean also `--name` and `--no-name`, with
    /// `-` or `_` in the name; and `-c FILE`, `--conf FILE`, `--conf=FILE`, a configuration file.
    /// Nothing is taken behind `--`, which stays. A command line wins over a file, wherever `-c`
    /// stands in it; of two values or files, the later one wins.
    ///
    /// `entity` (`client.admin`, `osd.0`) chooses the sections of the file.
    ///
    /// # Errors
    /// A name that begins as our options do (`ms_`) must be one of them. Any other name is left to
    /// the caller, whose own options it may be.
    pub fn take_args<A: Into<String>>(
        &mut self,
        entity: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Vec<String>, ConfigError> {
        let mut args = args.into_iter().map(Into::into).peekable();
        let (mut rest, mut files, mut settings) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(arg) = args.next() {
            if arg == "--" {
                rest.push(arg);
                rest.extend(args);
                break;
            } else if arg == "-c" || arg == "--conf" {
                files.push(args.next().ok_or(ConfigError::MissingFile { flag: arg })?);
            } else if let Some(file) = arg.strip_prefix("--conf=") {
                files.push(file.to_owned());
            } else if let Some((name, value)) = take_option(&arg, &mut args)? {
                settings.push((name, value));
            } else {
                rest.push(arg);
            }
        }
        // On a copy, so that an error leaves the options as they were.
        let mut config = self.clone();
        for file in files {
            config.read_file(entity, file)?;
        }
        for (name, value) in settings {
            config.set(name, &value)?;
        }
        *self = config;
        Ok(rest)
    }
}

/// If `arg` is one of our options: its name, and its value, for which the next argument may be
/// needed.
fn take_option(
    arg: &str,
    args: &mut std::iter::Peekable<impl Iterator<Item = String>>,
) -> Result<Option<(&'static str, String)>, ConfigError> {
    let Some(body) = arg.strip_prefix("--") else { return Ok(None) };
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (body, None),
    };
    if let Some(option) = Config::option(name) {
        let value = match value {
            Some(value) => value,
            None if option.kind == OptionKind::Bool => {
                args.next_if(|next| is_bool(next)).unwrap_or_else(|| "true".to_owned())
            }
            None => args.next().ok_or(ConfigError::MissingValue { option })?,
        };
        return Ok(Some((option.name, value)));
    }
    let normal = normalize(name);
    let positive = normal.strip_prefix("no_");
    if let Some(option) = positive.and_then(Config::option)
        && option.kind == OptionKind::Bool
        && value.is_none()
    {
        return Ok(Some((option.name, "false".to_owned())));
    }
    if is_family(positive.unwrap_or(&normal)) { Err(unknown(name)) } else { Ok(None) }
}

/// What Ceph's `check_bool_str` takes as a separate value of a boolean; anything else there is a
/// positional argument.
fn is_bool(arg: &str) -> bool {
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
    use super::*;

    fn take(args: &[&str]) -> Result<(Config, Vec<String>), ConfigError> {
        let mut config = Config::default();
        let rest = config.take_args("client.admin", args.iter().copied())?;
        Ok((config, rest))
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
            "--",
            "--ms_type",
        ])
        .unwrap();
        assert_eq!(rest, ["10.0.0.1:6800", "--size", "4096", "-v", "32", "--", "--ms_type"]);
        assert_eq!((config.ms_type.as_str(), config.ms_async_op_threads), ("async+sim", 2));
        assert!(!config.ms_tcp_nodelay && !config.ms_crc_data);
        assert!(config.ms_learn_addr_from_peer);
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
    }

    #[test]
    fn an_error_leaves_every_option_as_it_was() {
        let mut config = Config::default();
        let args = ["--ms_async_op_threads=2", "--ms_bind_port_min=65536"];
        config.take_args("client.admin", args).unwrap_err();
        assert_eq!(config, Config::default());
    }
}
