//! The log of a process: a panic dumps what is remembered, and SIGHUP has the file opened again. One
//! test, for a process has one log.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::TryRecvError;

use siphon_common::logging::{Log, LogError};
use siphon_common::{Config, Context};

#[test]
fn a_panic_is_followed_by_what_came_before_it_and_a_hangup_by_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.log");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut config = Config::default();
    config.log_file = file.display().to_string();
    config.log_to_stderr = false;
    let context = Context::new(config);
    let log = Log::builder(&context).install().unwrap();
    tracing::debug!("what led to it");
    std::panic::catch_unwind(|| panic!("on purpose")).unwrap_err();
    let text = read(&file);
    assert!(
        text.contains("--- begin dump of recent events ---") && text.contains("what led to it")
    );
    assert!(text.ends_with("--- end dump of recent events ---\n"), "{text}");
    // It is not dumped twice.
    std::panic::catch_unwind(|| panic!("on purpose")).unwrap_err();
    assert_eq!(read(&file).matches("what led to it").count(), 1);

    // Nor does it need the others to be silent.
    let dumps = || read(&file).matches("--- end dump of recent events ---").count();
    let (before, busy) = (dumps(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (over, is_over) = std::sync::mpsc::channel::<()>();
        scope.spawn({
            let busy = &busy;
            move || {
                while let Err(TryRecvError::Empty) = is_over.try_recv() {
                    tracing::warn!("busy");
                    busy.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let _over = over; // which ends it, also where an assertion fails
        for round in 1..=5 {
            while busy.load(Ordering::Relaxed) < 1000 * round {
                std::thread::yield_now();
            }
            std::panic::catch_unwind(|| panic!("on purpose")).unwrap_err();
            assert_eq!((dumps() - before) as u64, round);
        }
    });

    log.reopen_on_hangup().unwrap();
    let moved = folder.path().join("a.log.1");
    std::fs::rename(&file, &moved).unwrap();
    let pid = std::process::id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    while !file.exists() {
        std::thread::yield_now();
    }
    tracing::warn!("behind");
    log.flush();
    assert!(read(&file).contains("behind") && !read(&moved).contains("behind"));
    let second = Log::builder(&context).install();
    assert!(matches!(second, Err(LogError::Installed(_))));
}
