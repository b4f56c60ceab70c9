//! What the process's exit code says: one table for the help, the man pages and docs/install.md.

use std::fmt;
use std::io::{self, ErrorKind, StdoutLock, Write};

/// A sweep whose time was over, as of `timeout`.
pub(crate) const TIME_IS_OVER: u8 = 124;

/// Nobody reads any more what is printed, as of a program that SIGPIPE ended.
pub(crate) const READER_IS_GONE: u8 = 141;

const CODES: [(&str, &str); 8] = [
    ("0", "done; also a server, echo or top that was interrupted"),
    ("1", "an error, which is told on standard error"),
    ("2", "a bad argument (rados: 1, as Ceph's rados has it)"),
    ("ERRNO", "status, health, osd, command: the number of Ceph's error, as 13 for EACCES"),
    ("101", "a fault of ours: please report what it wrote"),
    ("124", "perf sweep: out of time, after reporting what was measured"),
    (
        "130",
        "perf, rados bench: interrupted (also by q of --watch), after reporting what was measured",
    ),
    ("141", "nobody reads any more what is printed, as head does after some lines"),
];

/// The table as the help has it.
pub(crate) fn help() -> String {
    let lines = CODES.map(|(code, meaning)| format!("\n  {code:<7}{meaning}"));
    format!("Exit codes:{}", lines.concat())
}

/// Standard output. What fails because nobody reads it any more [is told apart](is_readers_end).
pub(crate) struct Stdout(StdoutLock<'static>);

/// What is printed has no reader any more.
#[derive(Debug)]
struct ReaderIsGone;

impl fmt::Display for ReaderIsGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads any more what is printed")
    }
}

impl std::error::Error for ReaderIsGone {}

impl Stdout {
    pub(crate) fn lock() -> Self {
        Self(io::stdout().lock())
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(of_reader)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(of_reader)
    }
}

fn of_reader(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => io::Error::new(ErrorKind::BrokenPipe, ReaderIsGone),
        _ => error,
    }
}

/// Whether an error is that nobody reads any more what is printed.
pub(crate) fn is_readers_end(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|it| it.downcast_ref::<io::Error>()?.get_ref())
        .any(|it| it.is::<ReaderIsGone>())
}

/// From now on, the process ends without a word when its output has no reader any more. `print!` would call
/// that a panic, and SIGPIPE is no way: writing to sockets raises it as well.
pub(crate) fn end_with_the_reader() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        if text.is_some_and(|text| is_panic_of_reader(text)) {
            std::process::exit(READER_IS_GONE.into());
        }
        before(panic);
    }));
}

/// What std says when `print!` finds a pipe without a reader.
fn is_panic_of_reader(panic: &str) -> bool {
    panic.starts_with("failed printing to stdout") && panic.contains("Broken pipe")
}

#[cfg(test)]
mod tests {
    use siphon_common::interrupt::INTERRUPTED;

    use super::*;

    #[test]
    fn the_docs_have_the_same_table() {
        let docs = include_str!("../../../docs/install.md");
        for (code, meaning) in CODES {
            let row = format!("| {code} | {meaning} |");
            assert!(docs.contains(&row), "docs/install.md has no line\n{row}");
        }
        let numbers = [INTERRUPTED, TIME_IS_OVER, READER_IS_GONE].map(|code| code.to_string());
        assert!(numbers.iter().all(|code| CODES.iter().any(|row| row.0 == code)));
    }
}
