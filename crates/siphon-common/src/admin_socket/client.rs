use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use serde_json::{Map, Value, json};

use crate::serving::Until;

/// How long a process may take for an answer, unless somebody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an answer at most.
const MAX_ANSWER: u64 = 1 << 30;
/// Bytes of an answer that there is room for before any has come.
const AT_ONCE: u64 = 64 << 10;

/// Why a process did not answer at its admin socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody is there.
    #[error("cannot connect to the admin socket {path}: {source}{}", advice(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended the conversation.
    #[error("{path} did not answer: {source}")]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It takes too long.
    #[error("{path} has not answered within {} s", .patience.as_secs_f64())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// It says what commands it knows in a way that makes no sense.
    #[error("{path} does not say which commands it knows: {source}")]
    Descriptions {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It knows no such command.
    #[error("{command}: no such command; {nearest}")]
    Unknown {
        /// The words.
        command: String,
        /// Those that begin like it, or where to find all.
        nearest: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; is the daemon running, and is this its admin_socket?",
        io::ErrorKind::ConnectionRefused => "; the daemon that it belonged to has ended",
        io::ErrorKind::PermissionDenied => "; try as the daemon's user",
        _ => "",
    }
}

/// Sends a request as it is, and returns the answer, within [`PATIENCE`].
///
/// # Errors
/// If nobody answers.
pub fn request(path: impl AsRef<Path>, text: &str) -> Result<Vec<u8>, AskError> {
    request_within(path, text, PATIENCE)
}

/// The same with a time of one's own: for a place in the line, and as much for the answer.
///
/// # Errors
/// As [`request`].
///
/// ```
/// use siphon_common::admin_socket::{AskError, request_within};
/// use std::{os::unix::net::UnixListener, time::Duration};
///
/// let folder = tempfile::tempdir()?;
/// let _hangs = UnixListener::bind(folder.path().join("asok"))?;
/// let asked = request_within(folder.path().join("asok"), "0", Duration::from_millis(10));
/// assert!(matches!(asked, Err(AskError::TimedOut { .. })));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn request_within(
    path: impl AsRef<Path>,
    text: &str,
    patience: Duration,
) -> Result<Vec<u8>, AskError> {
    let path = path.as_ref();
    let connected = connect(path, patience);
    let stream = connected.map_err(|error| failed(path, patience, error, true))?;
    talk(Until::new(&stream, patience), text).map_err(|error| failed(path, patience, error, false))
}

fn failed(path: &Path, patience: Duration, source: io::Error, connecting: bool) -> AskError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            AskError::TimedOut { path, patience }
        }
        _ if connecting => AskError::Connect { path, source },
        _ => AskError::Silent { path, source },
    }
}

/// To who listens and does not accept, the system lets one wait in a line, and for a place in it.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(patience.max(Duration::from_millis(1))))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

fn talk(mut stream: Until<&UnixStream>, text: &str) -> io::Result<Vec<u8>> {
    // Who does not take all of it may have said why.
    let asked = stream.write_all(&[text.as_bytes(), &[0]].concat());
    let mut len = [0; 4];
    stream.read_exact(&mut len).map_err(|error| asked.err().unwrap_or(error))?;
    let len = u64::from(u32::from_be_bytes(len));
    let mut answer = Vec::with_capacity(len.min(AT_ONCE) as usize);
    stream.take(len.min(MAX_ANSWER)).read_to_end(&mut answer)?;
    match answer.len() as u64 == len {
        true => Ok(answer),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Sends a command that is given as words, as `ceph daemon` does, within [`PATIENCE`]: the process says itself what
/// becomes of them. `format` is `json`, `json-pretty` or what else it knows.
///
/// # Errors
/// If nobody answers, or there is no such command.
pub fn ask(
    path: impl AsRef<Path>,
    words: &[impl AsRef<str>],
    format: Option<&str>,
) -> Result<Vec<u8>, AskError> {
    ask_within(path, words, format, PATIENCE)
}

/// The same with a time of one's own for each of the two answers that it takes: which commands there are, and the
/// command's.
///
/// # Errors
/// As [`ask`].
pub fn ask_within(
    path: impl AsRef<Path>,
    words: &[impl AsRef<str>],
    format: Option<&str>,
    patience: Duration,
) -> Result<Vec<u8>, AskError> {
    let path = path.as_ref();
    let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
    let known = r#"{"prefix": "get_command_descriptions", "format": "json"}"#;
    let known = request_within(path, known, patience)?;
    let known: Map<String, Value> = serde_json::from_slice(&known)
        .map_err(|source| AskError::Descriptions { path: path.to_owned(), source })?;
    let signatures = known.values().filter_map(|command| command.get("sig")?.as_array());
    let mut best: Option<(usize, Map<String, Value>)> = None;
    for signature in signatures.clone() {
        if let Some((literal, request)) = matched(signature, &words)
            && best.as_ref().is_none_or(|(most, _)| literal > *most)
        {
            best = Some((literal, request));
        }
    }
    let Some((_, mut fields)) = best else {
        return Err(unknown(&words, signatures));
    };
    if let Some(format) = format {
        fields.insert("format".to_owned(), json!(format));
    }
    request_within(path, &Value::Object(fields).to_string(), patience)
}

/// How many words of a signature are literal, and the request, if the words are one of it.
fn matched(signature: &[Value], words: &[&str]) -> Option<(usize, Map<String, Value>)> {
    let literal: Vec<_> = signature.iter().map_while(Value::as_str).collect();
    let rest = words.strip_prefix(&literal[..])?;
    let args = &signature[literal.len()..];
    let mut fields = Map::from_iter([("prefix".to_owned(), json!(literal.join(" ")))]);
    let mut in_order = Vec::new();
    for word in rest {
        match named(args, word) {
            Some((name, value)) if !fields.contains_key(name) => {
                fields.insert(name.to_owned(), value);
            }
            _ => in_order.push(*word),
        }
    }
    let mut in_order = &in_order[..];
    for arg in args {
        let name = arg.get("name")?.as_str()?.to_owned();
        let many = arg.get("n").is_some_and(|n| n == "N");
        match in_order {
            _ if fields.contains_key(&name) => {}
            [] if optional(arg) => {}
            [] => return None,
            all if many => {
                fields.insert(name, all.iter().map(|word| typed(arg, word)).collect());
                in_order = &[];
            }
            [first, others @ ..] => {
                fields.insert(name, typed(arg, first));
                in_order = others;
            }
        }
    }
    in_order.is_empty().then_some((literal.len(), fields))
}

/// The argument that a word names, by NAME=VALUE or --NAME=VALUE, or --NAME for one that is true or false.
fn named<'a>(args: &'a [Value], word: &str) -> Option<(&'a str, Value)> {
    let bare = word.strip_prefix("--");
    let (name, value) = match bare.unwrap_or(word).split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (bare?, None),
    };
    let name = name.replace('-', "_");
    let arg = args.iter().find(|arg| arg.get("name").is_some_and(|it| *it == name))?;
    let value = match value {
        Some(value) => typed(arg, value),
        None if arg.get("type")? == "CephBool" => json!(true),
        None => return None,
    };
    Some((arg.get("name")?.as_str()?, value))
}

/// A word as the argument's type has it in JSON; what cannot be is left to the process to refuse.
fn typed(arg: &Value, word: &str) -> Value {
    let value = match arg.get("type").and_then(Value::as_str) {
        Some("CephInt") => word.parse::<i64>().ok().map(Value::from),
        Some("CephFloat") => word.parse::<f64>().ok().map(Value::from),
        Some("CephBool") => match word.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Some(json!(true)),
            "false" | "0" | "no" => Some(json!(false)),
            _ => None,
        },
        _ => None,
    };
    value.unwrap_or_else(|| json!(word))
}

fn optional(arg: &Value) -> bool {
    match arg.get("req") {
        Some(Value::Bool(required)) => !required,
        Some(Value::String(required)) => required == "false",
        _ => false,
    }
}

fn unknown<'a>(words: &[&str], known: impl Iterator<Item = &'a Vec<Value>>) -> AskError {
    let usage = |signature: &Vec<Value>| {
        let part = |part: &Value| match (part.as_str(), part.get("name").and_then(Value::as_str)) {
            (Some(word), _) => word.to_owned(),
            (None, Some(name)) if optional(part) => format!("[{name}]"),
            (None, name) => format!("<{}>", name.unwrap_or("?")),
        };
        signature.iter().map(part).collect::<Vec<_>>().join(" ")
    };
    // Those that begin with as many of the words as any.
    let common = |signature: &&Vec<Value>| {
        let literal = signature.iter().map_while(Value::as_str);
        literal.zip(words).take_while(|(theirs, ours)| theirs == *ours).count()
    };
    let known: Vec<_> = known.collect();
    let most = known.iter().map(common).max().unwrap_or(0);
    let like: Vec<_> = known
        .iter()
        .filter(|signature| most > 0 && common(signature) == most)
        .map(|signature| usage(signature))
        .collect();
    let nearest = match like.is_empty() {
        true => "the command help lists all".to_owned(),
        false => format!("there is {}", like.join(", ")),
    };
    AskError::Unknown { command: words.join(" "), nearest }
}
