//! `siphon daemon`: what a process tells of itself at its admin socket, be it Ceph's or ours.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use siphon_common::Config;
use siphon_common::admin_socket;

use crate::options;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The socket's path, or a daemon's name as osd.0, whose admin_socket ceph.conf tells
    socket: String,
    /// The command, as `perf dump` or `config get ms_tcp_nodelay`; `help` lists what there is
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
    /// The form of the answer: json, json-pretty or what else the daemon knows; also behind the command
    #[arg(short, long)]
    format: Option<String>,
    /// The cluster's name, for a daemon that is named [default: the file's, or ceph]
    #[arg(long)]
    cluster: Option<String>,
    /// Give up if an answer takes so many seconds
    #[arg(long, value_name = "S", default_value_t = admin_socket::PATIENCE.as_secs_f64())]
    timeout: f64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let timeout = Duration::try_from_secs_f64(args.timeout).ok().filter(|it| !it.is_zero());
    let timeout = timeout
        .ok_or_else(|| anyhow!("--timeout {}: not a time to wait, in seconds", args.timeout))?;
    let path = match args.socket.contains('/') {
        true => PathBuf::from(&args.socket),
        false => socket_of(&args.socket, args.cluster.as_deref())?,
    };
    let (command, format) = with_format(&args.command)?;
    let format = format.or(args.format.as_deref());
    let answer = admin_socket::ask_within(&path, &command, format, timeout)?;
    // There is no other sign of an error than this.
    if let Some(error) = answer.strip_prefix(b"ERROR: ") {
        bail!("{}: {}", path.display(), String::from_utf8_lossy(error).trim_end());
    }
    let mut out = std::io::stdout().lock();
    out.write_all(&answer)?;
    if !answer.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// The words of a command without `-f FORMAT`, which Ceph's `ceph` takes anywhere, and that.
fn with_format(words: &[String]) -> Result<(Vec<&str>, Option<&str>)> {
    let (mut command, mut format) = (Vec::new(), None);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word == "--" {
            command.extend(words);
            break;
        } else if word == "-f" || word == "--format" {
            format = Some(words.next().with_context(|| format!("{word} needs a format, as json"))?);
        } else if let Some(value) = word.strip_prefix("--format=") {
            format = Some(value);
        } else {
            command.push(word);
        }
    }
    Ok((command, format))
}

/// The socket of a daemon by its name, as the daemon itself would find it in its configuration: what
/// `ceph-conf --name NAME --show-config-value admin_socket` tells.
///
/// Where there is none, the end of the name may be the process's id, as Ceph's `ceph` has it: of
/// `client.admin.4711`, if `admin_socket` has `$pid`.
fn socket_of(name: &str, cluster: Option<&str>) -> Result<PathBuf> {
    let of = |name: &str| {
        options::load_as(name, cluster).with_context(|| {
            format!("{name}: name a daemon as osd.0, or its socket with a / in it")
        })
    };
    let whole = of(name);
    let path = |config: &Config| PathBuf::from(&config.admin_socket);
    if let Ok(config) = &whole
        && path(config).exists()
    {
        return Ok(path(config));
    }
    if let Some((name, pid)) = name.rsplit_once('.')
        && pid.bytes().all(|digit| digit.is_ascii_digit())
        && let Ok(config) = of(name)
    {
        let path = config.raw("admin_socket").replace("${pid}", pid).replace("$pid", pid);
        let path = PathBuf::from(config.expand(&path));
        if path.exists() {
            return Ok(path);
        }
    }
    match path(&whole?) {
        path if path == Path::new("") => {
            bail!("{name} has no admin socket: admin_socket is empty in its configuration")
        }
        path => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_stands_anywhere_and_is_no_word_of_the_command() {
        let of = |words: &str| {
            let words: Vec<_> = words.split(' ').map(str::to_owned).collect();
            with_format(&words)
                .map(|(command, format)| (command.join(" "), format.map(str::to_owned)))
        };
        let json = Some("json".to_owned());
        for words in ["-f json perf dump", "perf -f json dump", "perf dump --format=json"] {
            assert_eq!(of(words).unwrap(), ("perf dump".to_owned(), json.clone()), "{words}");
        }
        let (command, format) = of("injectargs -- -f json").unwrap();
        assert_eq!((command.as_str(), format), ("injectargs -f json", None));
        assert!(of("perf dump -f").unwrap_err().to_string().contains("needs a format"));
    }
}
