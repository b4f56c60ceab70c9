//! Logs: where lines go, what is remembered, and that nothing is lost.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use siphon_common::logging::Log;
use siphon_common::{Config, Context};

/// A context that logs to a file, and nowhere else.
fn context(file: &Path) -> Context {
    let mut config = Config::default();
    config.log_file = file.display().to_string();
    config.log_to_stderr = false;
    Context::new(config)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn levels_say_what_is_logged_and_what_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.log");
    let context = context(&file);
    context.set_option("debug_ms", "1/5").unwrap();
    let (log, subscriber) = Log::builder(&context).build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(target: "siphon_net::posix", value = 7, text = "a b", "logged");
        tracing::debug!(target: "siphon_msgr::worker", "remembered");
        tracing::trace!(target: "siphon_msgr::worker", "neither");
        tracing::trace!(target: "siphon_msgr::message", "a message");
        tracing::error!(target: "elsewhere", "an error");
        tracing::debug!(target: "siphon_auth", "of a subsystem with 1/5");
        context.set_option("debug_ms", "0/0").unwrap();
        tracing::trace!(target: "siphon_msgr::message", "no message");
        context.unset_option("debug_ms").unwrap();
    });
    log.flush();
    let text = read(&file);
    let lines: Vec<_> = text.lines().map(|line| line.split_once("+0000 ").unwrap().1).collect();
    let thread = "levels_say_what_is_logged_and_what_is_remembered";
    assert_eq!(
        lines,
        [
            format!("{thread}  1 ms: logged value=7 text=\"a b\""),
            format!("{thread}  1 ms: a message"),
            format!("{thread} -1 none: an error"),
        ]
    );
    log.dump_recent();
    let dump = read(&file).split_off(text.len());
    for wanted in [
        "--- begin dump of recent events ---\n    -4> 20",
        "  5 ms: remembered\n",
        "     0> 20",
        "  5 auth: of a subsystem with 1/5\n",
        "--- logging levels ---\n",
        "\n   1/ 5 auth\n",
        "  max_recent       500\n",
    ] {
        assert!(dump.contains(wanted), "{wanted} in {dump}");
    }
    assert!(!dump.contains("neither") && !dump.contains("no message"), "{dump}");
}

#[test]
fn a_log_heeds_every_context_that_it_follows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.log");
    let (first, second) = (context(&file), context(&file));
    let (log, subscriber) = Log::builder(&first).build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        let tell = |what| tracing::debug!(target: "siphon_msgr", what);
        second.set_option("debug_ms", "5").unwrap();
        tell("not followed yet");
        log.follow(&second);
        tell("as it is");
        second.set_option("debug_ms", "0/0").unwrap();
        tell("changed");
        first.set_option("debug_ms", "5").unwrap();
        tell("changed by the first");
    });
    log.flush();
    let told: Vec<_> = read(&file)
        .lines()
        .map(|line| line.split_once("what=").unwrap().1.trim_matches('"').to_owned())
        .collect();
    assert_eq!(told, ["as it is", "changed by the first"]);
}

#[test]
fn the_ring_has_the_entries_of_late_and_json_has_fields() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.log");
    let context = context(&file);
    context.inject_args("--log_max_recent=3 --log_format=json --no-log-coarse-timestamps").unwrap();
    let (log, subscriber) = Log::builder(&context).build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..10 {
            tracing::debug!(number, "said \"so\"");
        }
    });
    log.dump_recent();
    let text = read(&file);
    let numbers: Vec<_> = text.lines().filter(|line| line.contains("\"recent\"")).collect();
    assert_eq!(numbers.len(), 3, "{text}");
    let entry: serde_json::Value = serde_json::from_str(numbers[0]).unwrap();
    assert_eq!(entry["message"], "said \"so\" number=7");
    assert_eq!((&entry["level"], &entry["subsys"]), (&5.into(), &"none".into()));
    let time = entry["time"].as_str().unwrap();
    assert_eq!(time.len(), "2026-11-23T15:40:01.123456+0000".len(), "{time}");
}

/// What frames a dump was no JSON, in a file that has nothing else.
#[test]
fn a_dump_into_json_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.log");
    let context = context(&file);
    context.inject_args("--log_format=json").unwrap();
    let (log, subscriber) = Log::builder(&context).build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!("logged");
        tracing::debug!("remembered");
    });
    log.dump_recent();
    let text = read(&file);
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!(lines[0]["message"], "logged");
    assert_eq!(lines[1]["message"], "--- begin dump of recent events ---");
    let recent: Vec<_> = lines.iter().filter_map(|line| line["recent"].as_i64()).collect();
    assert_eq!((recent, &lines[3]["message"]), (vec![-1, 0], &"remembered".into()));
    assert_eq!(lines.last().unwrap()["message"], "--- end dump of recent events ---");
}

/// A program waited at its start for somebody who would read what it logs.
#[test]
fn a_fifo_is_waited_for_neither_at_the_start_nor_when_it_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    let context = context(&fifo);
    let (log, subscriber) = Log::builder(&context).build().unwrap();
    let error = log.reopen().unwrap_err().to_string();
    assert!(error.contains("it is a FIFO, and nobody reads it"), "{error}");
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let text = "x".repeat(10_000);
    tracing::subscriber::with_default(subscriber, || {
        log.reopen().unwrap();
        (0..20).for_each(|_| tracing::warn!("{text}")); // a pipe has 64 KiB
        log.flush();
    });
    // What did not fit comes when it does, and at the end at once.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
    let end = std::thread::spawn(move || log.finish());
    for _ in 0..20 {
        let line = lines.next().unwrap().unwrap();
        assert!(line.ends_with(&text), "{} bytes", line.len());
    }
    end.join().unwrap();
}

/// Nobody logs any more, and what did not fit comes all the same.
#[test]
fn a_fifo_gets_the_rest_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let (_log, subscriber) = Log::builder(&context(&fifo)).build().unwrap();
    let text = "x".repeat(10_000);
    tracing::subscriber::with_default(subscriber, || {
        (0..20).for_each(|_| tracing::warn!("{text}"));
    });
    let lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
    assert_eq!(lines.take(20).filter(|line| line.as_ref().unwrap().ends_with(&text)).count(), 20);
}

#[test]
fn a_file_that_takes_nothing_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Writing there fails as on a full disk.
    let context = context(Path::new("/dev/full"));
    let (log, subscriber) = Log::builder(&context).build().unwrap();
    let file = folder.path().join("with_room.log");
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..100 {
            tracing::warn!(number, "kept");
            log.flush();
        }
        context.set_option("log_file", file.to_str().unwrap()).unwrap();
        tracing::warn!(number = 100, "kept");
    });
    log.flush();
    let text = read(&file);
    assert_eq!(text.lines().count(), 101, "{text}");
    assert!(
        text.lines().zip(0..).all(|(line, number)| line.ends_with(&format!("number={number}")))
    );
}

#[test]
fn of_what_waits_too_long_the_oldest_is_lost_and_that_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(Path::new("/dev/full"));
    let (log, subscriber) = Log::builder(&context).build().unwrap();
    let file = folder.path().join("with_room.log");
    let long = "x".repeat(100_000);
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..60 {
            tracing::warn!(number, "{long}");
        }
        log.flush();
        context.set_option("log_file", file.to_str().unwrap()).unwrap();
    });
    log.flush();
    let text = read(&file);
    let kept = text.lines().filter(|line| line.contains("number=")).count();
    assert!((30..60).contains(&kept), "{kept}");
    let told =
        format!("--- {} lines were lost while this file could not be written to ---", 60 - kept);
    assert!(text.starts_with(&told), "before those that are left: {:?}", text.lines().last());
}

#[test]
fn a_file_is_opened_again_under_load_and_no_line_is_lost() {
    const THREADS: usize = 4;
    const LINES: usize = 5000;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.log");
    let context = context(&file);
    context.set_option("log_max_new", "50").unwrap();
    let (log, subscriber) = Log::builder(&context).build().unwrap();
    let dispatch = tracing::Dispatch::new(subscriber);
    let done = AtomicBool::new(false);
    let mut files = 0;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|writer| {
                let dispatch = dispatch.clone();
                scope.spawn(move || {
                    tracing::dispatcher::with_default(&dispatch, || {
                        for number in 0..LINES {
                            tracing::warn!(writer, number, "line");
                        }
                    });
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for value in ["1/5", "20/20", "0/0"] {
                    context.set_option("debug_ms", value).unwrap();
                }
            }
        });
        while writers.iter().any(|writer| !writer.is_finished()) {
            std::fs::rename(&file, folder.path().join(format!("a.log.{files}"))).unwrap();
            log.reopen().unwrap();
            files += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
    log.flush();
    let text: String = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| read(&entry.unwrap().path()))
        .collect();
    assert_eq!(text.lines().count(), THREADS * LINES, "in {files} files");
    let mut seen: Vec<_> = text.lines().map(|line| line.split_once("line ").unwrap().1).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), THREADS * LINES);
}

#[test]
fn syslog_and_journald_get_each_line_as_a_datagram() {
    let folder = tempfile::tempdir().unwrap();
    let (syslog, journald) = (folder.path().join("log"), folder.path().join("journal"));
    let sockets = [&syslog, &journald].map(|path| UnixDatagram::bind(path).unwrap());
    let mut config = Config::default();
    config.log_to_stderr = false;
    config.log_to_syslog = true;
    config.err_to_journald = true;
    let context = Context::new(config);
    let builder = Log::builder(&context).sockets(&syslog, &journald);
    let (log, subscriber) = builder.build().unwrap();
    let receive = |socket: &UnixDatagram| {
        let mut buffer = [0; 1000];
        let len = socket.recv(&mut buffer).unwrap();
        buffer[..len].to_vec()
    };
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(target: "siphon_auth", "a warning");
        tracing::error!("two\nlines");
    });
    log.flush();
    let text = String::from_utf8(receive(&sockets[0])).unwrap();
    let pid = std::process::id();
    assert!(text.starts_with("<14>") && text.ends_with(" 0 auth: a warning"), "{text}");
    assert!(text.contains(&format!(" ceph-client.admin[{pid}]: ")), "{text}");
    let entry = receive(&sockets[1]); // the warning is none for it
    for wanted in [
        &b"PRIORITY=3\n"[..],
        b"SYSLOG_IDENTIFIER=ceph-client.admin\n",
        b"CEPH_SUBSYS=none\nCEPH_PRIO=-1\n",
        b"MESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\n",
    ] {
        let text = String::from_utf8_lossy(&entry);
        assert!(entry.windows(wanted.len()).any(|window| window == wanted), "{text}");
    }
    // Who comes back gets lines again.
    drop(sockets);
    std::fs::remove_file(&syslog).unwrap();
    let socket = UnixDatagram::bind(&syslog).unwrap();
    let (log, subscriber) = Log::builder(&context).sockets(&syslog, &journald).build().unwrap();
    tracing::subscriber::with_default(subscriber, || tracing::warn!("again"));
    log.flush();
    assert!(receive(&socket).ends_with(b"none: again"));
}
