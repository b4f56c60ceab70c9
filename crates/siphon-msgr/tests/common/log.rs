//! What the process logs.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use super::HUNG;

/// Everything that is logged at level `warn` and above, by all tests of a program.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Log {
    /// The process's log.
    pub fn of_process() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            let writer = log.clone();
            let logging =
                siphon_common::logging::subscriber("warn", move || writer.clone()).unwrap();
            tracing::subscriber::set_global_default(logging).unwrap();
            log
        })
    }

    /// The line with these words, once it is there.
    pub fn line_with(&self, words: &str) -> String {
        let (bytes, changed) = &*self.0;
        let mut bytes = bytes.lock().unwrap();
        loop {
            let text = String::from_utf8_lossy(&bytes);
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            if let Some(line) = whole.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            let (locked, waited) = changed.wait_timeout(bytes, HUNG).unwrap();
            assert!(!waited.timed_out(), "no line with '{words}' is logged");
            bytes = locked;
        }
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.0.lock().unwrap().extend_from_slice(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
