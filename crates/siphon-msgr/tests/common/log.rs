//! What the process logs.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::HUNG;

/// Everything that is logged at level `warn` and above.
#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Vec<u8>>, Condvar)>);

/// The log, for one test of the program at a time: a port says who did something only as long as
/// nobody else's peers may have it.
pub struct Log {
    lines: &'static Lines,
    _alone: MutexGuard<'static, ()>,
}

impl Log {
    /// The process's log from now on.
    pub fn of_process() -> Self {
        static LINES: OnceLock<Lines> = OnceLock::new();
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = LINES.get_or_init(|| {
            let lines = Lines::default();
            let writer = lines.clone();
            let logging =
                siphon_common::logging::subscriber("warn", move || writer.clone()).unwrap();
            tracing::subscriber::set_global_default(logging).unwrap();
            lines
        });
        lines.0.0.lock().unwrap().clear();
        Self { lines, _alone: alone }
    }

    /// Takes out the line with these words, once it is there.
    pub fn take_line(&self, words: &str) -> String {
        let (bytes, changed) = &*self.lines.0;
        let mut bytes = bytes.lock().unwrap();
        loop {
            let mut start = 0;
            while let Some(len) = bytes[start..].iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&bytes[start..start + len]).into_owned();
                if line.contains(words) {
                    bytes.drain(..start + len + 1);
                    return line;
                }
                start += len + 1;
            }
            let (locked, waited) = changed.wait_timeout(bytes, HUNG).unwrap();
            assert!(!waited.timed_out(), "no line with '{words}' is logged");
            bytes = locked;
        }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.0.lock().unwrap().extend_from_slice(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
