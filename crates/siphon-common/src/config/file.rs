use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError, SyntaxRule};

/// The longest configuration file that is read: real ones have a few KiB.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

impl Config {
    /// Sets options from a file in the form of `ceph.conf`.
    ///
    /// Of its sections `[global]`, then `[type]`, then `[type.id]` of `entity` (`client.admin`,
    /// `osd.0`) count, the later winning, wherever they stand. Options that are not in our table are
    /// passed over: a real file holds those of every daemon.
    ///
    /// # Errors
    /// The first line that breaks the grammar or gives one of our options a bad value; then no
    /// option has changed.
    pub fn read_file(&mut self, entity: &str, path: impl Into<PathBuf>) -> Result<(), ConfigError> {
        let path = path.into();
        let text = read(&path)?;
        let lines = parse(&text).map_err(|(line, rule)| ConfigError::Syntax {
            path: path.clone(),
            line,
            rule,
        })?;
        let mut config = self.clone();
        let kind = entity.split_once('.').map_or(entity, |(kind, _)| kind);
        let mut sections = vec!["global", kind, entity];
        sections.dedup();
        for section in sections {
            for line in lines.iter().filter(|line| line.section == section) {
                if Self::option(&line.name).is_some() {
                    config.set(&line.name, &line.value).map_err(|source| ConfigError::InFile {
                        path: path.clone(),
                        line: line.number,
                        source: Box::new(source),
                    })?;
                }
            }
        }
        *self = config;
        Ok(())
    }
}

/// Where Ceph's programs look for their configuration file (`CEPH_CONF_FILE_DEFAULT` of Ceph's
/// `common/config.cc`, for a cluster called `ceph`): what `$CEPH_CONF` names, else
/// `/etc/ceph/ceph.conf`, `~/.ceph/ceph.conf` and `./ceph.conf`. The first that is there counts.
///
/// ```
/// let files = siphon_common::config::default_files(Some("/a.conf,/b.conf"), Some("/root"));
/// assert_eq!(files, ["/a.conf", "/b.conf"].map(std::path::PathBuf::from));
/// let files = siphon_common::config::default_files(None, Some("/root"));
/// assert_eq!(files[1], std::path::Path::new("/root/.ceph/ceph.conf"));
/// ```
pub fn default_files(ceph_conf: Option<&str>, home: Option<&str>) -> Vec<PathBuf> {
    if let Some(files) = ceph_conf {
        let files = files.split([',', ';', ' ']).filter(|file| !file.is_empty());
        return files.map(PathBuf::from).collect();
    }
    let home = home.map(|home| Path::new(home).join(".ceph/ceph.conf"));
    let system = PathBuf::from("/etc/ceph/ceph.conf");
    [Some(system), home, Some(PathBuf::from("ceph.conf"))].into_iter().flatten().collect()
}

/// One `name = value` of a file.
#[derive(Debug, PartialEq)]
struct Line {
    number: usize,
    section: String,
    name: String,
    value: String,
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text))
        .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::FileTooLong { path: path.to_owned() });
    }
    Ok(text)
}

/// The grammar of Ceph's `src/common/ConfUtils.cc`: sections, `name = value`, comments from `#` or
/// `;` to the end of the line, `\` before a character that shall not be special, and `\` at the end
/// of a line that goes on in the next.
fn parse(text: &[u8]) -> Result<Vec<Line>, (usize, SyntaxRule)> {
    let mut lines = Vec::new();
    let mut section = None;
    let mut raw = text.split(|&byte| byte == b'\n').zip(1..);
    while let Some((bytes, number)) = raw.next() {
        let mut line = utf8(bytes, number)?.to_owned();
        while line.ends_with('\\') {
            line.pop();
            let Some((bytes, number)) = raw.next() else { break };
            line.push_str(utf8(bytes, number)?);
        }
        let line = line.trim();
        if line.is_empty() || is_comment(line) {
            continue;
        }
        if let Some(heading) = line.strip_prefix('[') {
            section = Some(parse_heading(heading).map_err(|rule| (number, rule))?);
            continue;
        }
        let (name, value) = line.split_once('=').ok_or((number, SyntaxRule::NoEquals))?;
        let value = parse_value(value.trim()).map_err(|rule| (number, rule))?;
        let section = section.clone().ok_or((number, SyntaxRule::OutsideSection))?;
        lines.push(Line { number, section, name: name.trim().to_owned(), value });
    }
    Ok(lines)
}

fn utf8(bytes: &[u8], number: usize) -> Result<&str, (usize, SyntaxRule)> {
    let line = std::str::from_utf8(bytes).map_err(|_| (number, SyntaxRule::NotUtf8))?;
    Ok(line.strip_suffix('\r').unwrap_or(line))
}

fn is_comment(text: &str) -> bool {
    text.starts_with(['#', ';'])
}

fn parse_heading(heading: &str) -> Result<String, SyntaxRule> {
    let (name, behind) = heading.split_once(']').ok_or(SyntaxRule::BadSection)?;
    let behind = behind.trim();
    if name.trim().is_empty() || !(behind.is_empty() || is_comment(behind)) {
        return Err(SyntaxRule::BadSection);
    }
    Ok(name.trim().to_owned())
}

fn parse_value(text: &str) -> Result<String, SyntaxRule> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let mut value = String::new();
    let mut chars = text.chars();
    if quote.is_some() {
        chars.next();
    }
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.extend(chars.next()),
            c if Some(c) == quote => {
                let behind = chars.as_str().trim();
                return if behind.is_empty() || is_comment(behind) {
                    Ok(value)
                } else {
                    Err(SyntaxRule::BadQuote)
                };
            }
            '#' | ';' if quote.is_none() => break,
            c => value.push(c),
        }
    }
    if quote.is_some() { Err(SyntaxRule::BadQuote) } else { Ok(value.trim().to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    /// A file that goes when it is dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, text: &[u8]) -> Self {
            let name = format!("siphon-common-{}-{name}.conf", std::process::id());
            let path = std::env::temp_dir().join(name);
            File::create(&path).unwrap().write_all(text).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn sections_win_by_how_near_they_are_to_the_entity() {
        let text = b"# of a real cluster\n\
            [osd.3]\nms_async_op_threads = 9\n\
            [client.admin]\nms async op threads = 4 ; nearest\n\
            [global]\nfsid = 8c1b\nms_async_op_threads = 2\nms_type = \"async+posix\"\n\
            ms-bind-retry-delay = .5\n\
            [client] # all of them\nms_async_op_threads = 3\nms_tcp_rcvbuf = 64K\n";
        let file = Scratch::new("sections", text);
        let mut config = Config::default();
        config.read_file("client.admin", &file.0).unwrap();
        assert_eq!(config.ms_async_op_threads, 4);
        assert_eq!(config.ms_tcp_rcvbuf, 64 << 10);
        assert_eq!(config.ms_bind_retry_delay, Duration::from_millis(500));
        config.read_file("osd.3", &file.0).unwrap();
        assert_eq!(config.ms_async_op_threads, 9);
        config.read_file("mon.a", &file.0).unwrap();
        assert_eq!(config.ms_async_op_threads, 2);
    }

    #[test]
    fn a_command_line_wins_over_a_file_wherever_it_is_named() {
        let file = Scratch::new("args", b"[global]\nms_async_op_threads = 2\nms_crc_data = 0\n");
        let path = file.0.to_str().unwrap();
        let mut config = Config::default();
        let args = ["--ms_async_op_threads", "5", "-c", path, "rest"];
        assert_eq!(config.take_args("client.admin", args).unwrap(), ["rest"]);
        assert_eq!(config.ms_async_op_threads, 5);
        assert!(!config.ms_crc_data);
    }

    #[test]
    fn the_system_s_empty_file_is_a_configuration() {
        let mut config = Config::default();
        config.take_args("client.admin", ["--conf=/dev/null"]).unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn values_are_quoted_escaped_continued_and_commented() {
        let text =
            "[global]\na = \"x # y\" # z\nb = x\\#y ; z\nc = x \\\n  y\nd =\n e f = 'q' \r\n";
        let values: Vec<_> = parse(text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|line| (line.number, line.name, line.value))
            .collect();
        let want = [(2, "a", "x # y"), (3, "b", "x#y"), (4, "c", "x   y"), (6, "d", "")];
        for (got, want) in values.iter().zip(want) {
            assert_eq!((got.0, got.1.as_str(), got.2.as_str()), want);
        }
        assert_eq!(values[4], (7, "e f".to_owned(), "q".to_owned()));
    }

    #[test]
    fn a_broken_line_is_named() {
        for (text, line, rule) in [
            (&b"ms_type = x"[..], 1, SyntaxRule::OutsideSection),
            (b"\n[global", 2, SyntaxRule::BadSection),
            (b"[]", 1, SyntaxRule::BadSection),
            (b"[a] b", 1, SyntaxRule::BadSection),
            (b"[global]\nms_type", 2, SyntaxRule::NoEquals),
            (b"[global]\nms_type = \"x", 2, SyntaxRule::BadQuote),
            (b"[global]\nms_type = 'x' y", 2, SyntaxRule::BadQuote),
            (b"[global]\n\xff = 1", 2, SyntaxRule::NotUtf8),
        ] {
            assert_eq!(parse(text), Err((line, rule)), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_bad_value_names_file_and_line_and_changes_nothing() {
        let file = Scratch::new("bad", b"[global]\nms_crc_data = 0\nms_bind_port_min = 65536\n");
        let mut config = Config::default();
        let error = config.read_file("client.admin", &file.0).unwrap_err();
        assert!(error.to_string().ends_with("-bad.conf line 3"), "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.starts_with("ms_bind_port_min = '65536': out of range"), "{source}");
        assert_eq!(config, Config::default());
        let missing = file.0.with_extension("missing");
        let error = config.read_file("client.admin", missing).unwrap_err();
        assert!(matches!(error, ConfigError::File { .. }), "{error}");
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let mut config = Config::default();
        let error = config.read_file("client.admin", "/dev/zero").unwrap_err();
        assert!(matches!(error, ConfigError::FileTooLong { .. }), "{error}");
    }
}
