use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::{File, Metadata, OpenOptions, metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use serde_json::json;

use super::entry::{Entry, Format};
use super::stamp::{Stamp, system_clock};
use crate::Config;

/// Bytes of lines that wait for a file that cannot be written to; of what is beyond, the oldest are lost.
const MAX_UNWRITTEN: usize = 4 << 20;
/// Facility `user`, severity `info`, as Ceph logs.
const SYSLOG_PRIORITY: u32 = 14;

/// Where lines go, and those of late.
#[derive(Debug)]
pub(super) struct Sinks {
    file: LogFile,
    format: Format,
    stderr: Wanted,
    stderr_prefix: String,
    syslog: Datagrams,
    journald: Datagrams,
    recent: VecDeque<Entry>,
    max_recent: usize,
    identifier: String,
}

/// Which lines a place gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wanted {
    #[default]
    None,
    Errors,
    All,
}

impl Wanted {
    fn of(all: bool, errors: bool) -> Self {
        match (all, errors) {
            (true, _) => Self::All,
            (false, true) => Self::Errors,
            (false, false) => Self::None,
        }
    }

    fn takes(self, entry: &Entry) -> bool {
        self == Self::All || (self == Self::Errors && entry.level < 0)
    }
}

impl Sinks {
    pub(super) fn new(syslog: PathBuf, journald: PathBuf) -> Self {
        Self {
            file: LogFile::default(),
            format: Format::default(),
            stderr: Wanted::None,
            stderr_prefix: String::new(),
            syslog: Datagrams::new(syslog, "log_to_syslog"),
            journald: Datagrams::new(journald, "log_to_journald"),
            recent: VecDeque::new(),
            max_recent: 0,
            identifier: String::new(),
        }
    }

    /// Takes what the options say; `stderr` is false if somebody else writes there.
    pub(super) fn configure(&mut self, config: &Config, stderr: bool) {
        let wanted = Wanted::of(config.log_to_stderr, config.err_to_stderr);
        self.stderr = if stderr { wanted } else { Wanted::None };
        self.stderr_prefix.clone_from(&config.log_stderr_prefix);
        self.syslog.wanted = Wanted::of(config.log_to_syslog, config.err_to_syslog);
        self.journald.wanted = Wanted::of(config.log_to_journald, config.err_to_journald);
        self.format = Format {
            json: config.log_format.contains("json"),
            fine: !config.log_coarse_timestamps,
        };
        self.file.json = self.format.json;
        self.max_recent = config.log_max_recent as usize;
        self.identifier = format!("{}-{}", config.cluster(), config.name());
        let path = if config.log_to_file { config.log_file.as_str() } else { "" };
        if self.file.path.as_os_str() != path {
            self.file.write_out();
            // What the old file would not take goes into the new one.
            let LogFile { begun, unwritten, lost, .. } = std::mem::take(&mut self.file);
            let path = path.into();
            let json = self.format.json;
            self.file = LogFile { path, json, begun, unwritten, lost, ..LogFile::default() };
            self.file.open();
            self.file.write_out();
        }
    }

    /// Writes an entry wherever it belongs, if it is to be logged, and remembers it.
    pub(super) fn take(&mut self, entry: Entry, logged: bool) {
        if logged {
            self.write(&entry);
        }
        if self.max_recent > 0 {
            while self.recent.len() >= self.max_recent {
                self.recent.pop_front();
            }
            self.recent.push_back(entry);
        }
    }

    fn write(&mut self, entry: &Entry) {
        let plain = self.plain();
        let line = || entry.line(plain);
        let no_file = self.file.is_missing();
        if self.stderr.takes(entry) || no_file {
            eprint(&format!("{}{}\n", self.stderr_prefix, line()));
        }
        if self.syslog.wanted.takes(entry) {
            let (stamp, name, pid) = (entry.stamp.syslog(), &self.identifier, std::process::id());
            let text = format!("<{SYSLOG_PRIORITY}>{stamp} {name}[{pid}]: {}", line());
            self.syslog.send(text.as_bytes());
        }
        if self.journald.wanted.takes(entry) {
            let datagram = journal_entry(entry, &self.identifier);
            self.journald.send(&datagram);
        }
        if !self.file.path.as_os_str().is_empty() && !no_file {
            let line = match self.format.json {
                true => entry.line(self.format),
                false => line(),
            };
            self.file.add(&line);
        }
    }

    /// What waits for the file is written, as far as it can be.
    pub(super) fn flush(&mut self) {
        self.file.write_out();
    }

    /// The file is a pipe that is full: it takes more when its reader has read.
    pub(super) fn waits_for_reader(&self) -> bool {
        self.file.is_full
    }

    /// The end: what could not be written is told elsewhere.
    pub(super) fn give_up(&mut self) {
        let left = self.file.give_up();
        let count = left.iter().filter(|byte| **byte == b'\n').count();
        if count > 0 {
            let path = self.file.path.display();
            eprint(&format!("the log file {path} has not taken {count} lines\n"));
            if self.stderr != Wanted::All {
                eprint(&String::from_utf8_lossy(&left)); // which has them else
            }
        }
    }

    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file.write_out();
        self.file.reopen()
    }

    /// Writes what is remembered, the oldest first, numbered as Ceph does it: how far it is from the
    /// end.
    ///
    /// In a file of JSON each line of it is an object: an entry has its number as `recent`, all else is a message.
    pub(super) fn dump(&mut self, levels: impl Iterator<Item = String>) {
        self.say("--- begin dump of recent events ---");
        let recent = std::mem::take(&mut self.recent);
        let count = recent.len();
        for (at, entry) in recent.iter().enumerate() {
            let number = at as i64 + 1 - count as i64;
            match self.file.json && self.has_file() {
                true => self.file.add(&entry.recent_json(self.format, number)),
                false => self.say(&format!("{number:>6}> {}", entry.line(self.plain()))),
            }
        }
        self.recent = recent;
        self.say("--- logging levels ---");
        levels.for_each(|line| self.say(&line));
        self.say(&format!("  max_recent {:>9}", self.max_recent));
        self.say(&format!("  log_file {}", self.file.path.display()));
        self.say("--- end dump of recent events ---");
        self.file.write_out();
    }

    /// What is remembered was dumped, and need not be again.
    pub(super) fn forget(&mut self) {
        self.recent.clear();
    }

    /// The format of all places but the file.
    fn plain(&self) -> Format {
        Format { json: false, ..self.format }
    }

    fn has_file(&self) -> bool {
        !self.file.path.as_os_str().is_empty() && !self.file.is_missing()
    }

    /// A line of a dump: to the file, or, if there is none, to standard error.
    fn say(&mut self, line: &str) {
        if self.has_file() {
            let line = in_format(line, self.file.json);
            self.file.add(&line);
        } else {
            eprint(&format!("{line}\n"));
        }
    }
}

/// To standard error, whose end is no reason to panic.
pub(super) fn eprint(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// How often, and for how long each, the end waits for a pipe that is full: two seconds in all.
const LAST_WAITS: usize = 20;
const LAST_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A file that lines are added to, and those that it would not take yet.
#[derive(Debug, Default)]
struct LogFile {
    path: PathBuf,
    file: Option<File>,
    /// Whether its lines are JSON.
    json: bool,
    /// What goes first, and is never given up: the rest of a line of which a part is written.
    begun: Vec<u8>,
    /// Whole lines. Of these the oldest are lost, when there are too many.
    unwritten: VecDeque<u8>,
    /// How many were, between `begun` and `unwritten`.
    lost: u64,
    /// The last error that was told.
    told: Option<io::ErrorKind>,
    /// It is a pipe, and its reader has not kept up.
    is_full: bool,
}

impl LogFile {
    /// There should be one, and it could not be opened.
    fn is_missing(&self) -> bool {
        self.file.is_none() && !self.path.as_os_str().is_empty()
    }

    fn open(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        match open(&self.path) {
            Ok(file) => self.file = Some(file),
            Err(error) => {
                let path = self.path.display();
                eprint(&format!(
                    "cannot open the log file {path}: {error}; lines go to standard error until it can \
                     be opened (log_file, or reopen the log)\n"
                ));
            }
        }
    }

    /// The file of that name, which may be another than before. If it cannot be had, the old one stays.
    fn reopen(&mut self) -> io::Result<()> {
        if !self.path.as_os_str().is_empty() {
            if !self.is_where_it_was() {
                self.file = Some(open(&self.path)?);
            }
            self.write_out();
        }
        Ok(())
    }

    /// The path still names the file that is open.
    fn is_where_it_was(&self) -> bool {
        let id = |file: Metadata| (file.dev(), file.ino());
        let open = self.file.as_ref().and_then(|file| file.metadata().ok()).map(id);
        open.is_some() && open == metadata(&self.path).ok().map(id)
    }

    fn add(&mut self, line: &str) {
        self.unwritten.extend(line.as_bytes());
        self.unwritten.push_back(b'\n');
        while self.unwritten.len() > MAX_UNWRITTEN {
            self.write_out();
            if self.unwritten.len() <= MAX_UNWRITTEN {
                break;
            }
            let end = self.unwritten.iter().position(|byte| *byte == b'\n').unwrap_or_default();
            self.unwritten.drain(..=end);
            self.lost += 1;
        }
    }

    fn write_out(&mut self) {
        let Some(file) = &mut self.file else { return };
        let mut told_lost = 0;
        loop {
            if self.begun.is_empty() && self.lost > 0 {
                told_lost = std::mem::take(&mut self.lost);
                self.begun = lost_lines(told_lost, self.json).into_bytes();
            }
            let (whole, _) = self.unwritten.as_slices();
            let front = if self.begun.is_empty() { whole } else { &self.begun };
            if front.is_empty() {
                (self.told, self.is_full) = (None, false);
                return;
            }
            match file.write(front) {
                Ok(0) => return,
                Ok(written) if !self.begun.is_empty() => {
                    self.begun.drain(..written);
                    told_lost = 0;
                }
                Ok(written) => {
                    let ends_line = front[written - 1] == b'\n';
                    self.unwritten.drain(..written);
                    if !ends_line {
                        let end = self.unwritten.iter().position(|byte| *byte == b'\n');
                        self.begun = self.unwritten.drain(..=end.unwrap_or_default()).collect();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if told_lost > 0 {
                        self.begun.clear();
                        self.lost = told_lost; // more may be by the time that it can be told
                    }
                    self.is_full = error.kind() == io::ErrorKind::WouldBlock;
                    if !self.is_full {
                        self.tell(&error);
                    }
                    return;
                }
            }
        }
    }

    /// Nobody will write any more: gives what the file has not taken. A reader that is there gets some time.
    fn give_up(&mut self) -> Vec<u8> {
        self.write_out();
        for _ in 0..LAST_WAITS {
            if let Some(file) = self.file.as_ref().filter(|_| self.is_full) {
                let _ = poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&LAST_WAIT));
                self.write_out();
            }
        }
        let mut left = std::mem::take(&mut self.begun);
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            left.extend_from_slice(lost_lines(lost, self.json).as_bytes());
        }
        left.extend(self.unwritten.drain(..));
        left
    }

    /// Once for each kind of error.
    fn tell(&mut self, error: &io::Error) {
        if self.told.replace(error.kind()) != Some(error.kind()) {
            let path = self.path.display();
            eprint(&format!(
                "cannot write to the log file {path}: {error}; up to {} MiB of lines are kept until it \
                 can be written to\n",
                MAX_UNWRITTEN >> 20
            ));
        }
    }
}

fn lost_lines(count: u64, json: bool) -> String {
    let line = format!("--- {count} lines were lost while this file could not be written to ---");
    format!("{}\n", in_format(&line, json))
}

/// What the log says of itself.
fn in_format(line: &str, json: bool) -> Cow<'_, str> {
    match json {
        true => {
            let time = Stamp(system_clock()).to_string();
            Cow::Owned(json!({ "time": time, "message": line }).to_string())
        }
        false => Cow::Borrowed(line),
    }
}

/// Without waiting: of a FIFO somebody may never read, and one that is full takes lines later.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o644);
    let opened = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    opened.map_err(|error| match metadata(path) {
        Ok(file) if file.file_type().is_fifo() => {
            io::Error::new(error.kind(), format!("{error}; it is a FIFO, and nobody reads it"))
        }
        _ => error,
    })
}

/// A local socket that takes each line as a datagram.
#[derive(Debug)]
struct Datagrams {
    path: PathBuf,
    option: &'static str,
    wanted: Wanted,
    socket: Option<UnixDatagram>,
    told: bool,
}

impl Datagrams {
    fn new(path: PathBuf, option: &'static str) -> Self {
        Self { path, option, wanted: Wanted::None, socket: None, told: false }
    }

    /// Over a new socket if the old one's peer is gone.
    fn send(&mut self, datagram: &[u8]) {
        let again = self.socket.is_some();
        if self.try_send(datagram).is_err() && again {
            self.socket = None;
            let _ = self.try_send(datagram);
        }
    }

    fn try_send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let sent = match &self.socket {
            Some(socket) => socket.send(datagram),
            None => UnixDatagram::unbound().and_then(|socket| {
                socket.connect(&self.path)?;
                self.socket.insert(socket).send(datagram)
            }),
        };
        match sent {
            Ok(_) => self.told = false,
            Err(error) => {
                if !self.told {
                    self.told = true;
                    let (path, option) = (self.path.display(), self.option);
                    eprint(&format!("cannot log to {path}: {error} ({option})\n"));
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// In journald's own form, with the names of Ceph's fields (`common/Journald.cc`, 18.2.7).
fn journal_entry(entry: &Entry, identifier: &str) -> Vec<u8> {
    // 3 is an error, 4 a warning, 6 information, 7 for debugging.
    let priority = match entry.level {
        ..0 => 3,
        0 => 4,
        1..5 => 6,
        _ => 7,
    };
    let mut datagram = Vec::new();
    let mut field = |name: &str, value: &str| {
        datagram.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            datagram.push(b'\n');
            datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            datagram.push(b'=');
        }
        datagram.extend_from_slice(value.as_bytes());
        datagram.push(b'\n');
    };
    field("PRIORITY", &priority.to_string());
    field("SYSLOG_IDENTIFIER", identifier);
    field("CEPH_SUBSYS", entry.subsystem.name());
    field("CEPH_PRIO", &entry.level.to_string());
    field("THREAD", &entry.thread);
    field("MESSAGE", &entry.text);
    datagram
}
