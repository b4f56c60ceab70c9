//! Which commands are sent.

/// What is sent in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// All of the script.
    Even,
    /// Messages traced and not traced in turn, and no more.
    Traced,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A request, and what its answer has in it.
    Ask(String, &'static str),
    /// A request, after the log file was moved away.
    Rotate(String, &'static str),
    /// SIGHUP to the process.
    Hangup,
}

/// Options, each with two values that take turns. None of them is one that the load would notice.
const CHANGES: [(&str, [&str; 2]); 10] = [
    ("ms_max_backoff", ["14", "15"]),
    ("debug_auth", ["0/0", "1/5"]),
    ("ms_tcp_nodelay", ["false", "true"]),
    ("log_max_recent", ["600", "500"]),
    ("ms_tcp_rcvbuf", ["64K", "0"]),
    ("debug_monc", ["1/5", "0/10"]),
    ("log_stderr_prefix", ["$name ", ""]),
    ("ms_osd_compress_min_size", ["2K", "1K"]),
    ("ms_connection_idle_timeout", ["800", "900"]),
    ("debug_objecter", ["1/5", "0/1"]),
];
const TRACING: [(&str, [&str; 2]); 1] = [("debug_ms", ["1/1", "0/0"])];

/// Of so many log reopenings, one comes by SIGHUP, and one after the file was moved away.
const RARE: u64 = 50;

/// Of three commands one changes an option, one opens the log again, and one dumps: of ten dumps six counters,
/// two histograms, and two connections.
pub(crate) fn step(number: u64, style: Style) -> Step {
    if style == Style::Traced {
        return change(&TRACING, number);
    }
    match number % 3 {
        0 => change(&CHANGES, number / 3),
        1 => reopen(number / 3),
        _ => dump(number / 3),
    }
}

fn dump(number: u64) -> Step {
    let (request, expected) = match number % 10 {
        2 | 7 => (r#"{"prefix":"perf histogram dump","format":"json"}"#, "msgr_turn_lat_histogram"),
        4 | 9 => (
            r#"{"prefix":"messenger dump","msgr":"osd.0","tcp_info":"true","format":"json"}"#,
            r#""workers_that_did_not_answer":0"#,
        ),
        _ => (r#"{"prefix":"perf dump","format":"json"}"#, "AsyncMessenger::Worker-0"),
    };
    Step::Ask(request.to_owned(), expected)
}

fn change(options: &[(&str, [&str; 2])], number: u64) -> Step {
    let count = options.len() as u64;
    let (name, values) = options[(number % count) as usize];
    let value = values[(number / count % 2) as usize];
    let request =
        format!(r#"{{"prefix":"config set","var":"{name}","val":"{value}","format":"json"}}"#);
    Step::Ask(request, "success")
}

fn reopen(turn: u64) -> Step {
    let request = r#"{"prefix":"log reopen","format":"json"}"#.to_owned();
    match turn % RARE {
        0 => Step::Rotate(request, "{}"),
        1 => Step::Hangup,
        _ => Step::Ask(request, "{}"),
    }
}
