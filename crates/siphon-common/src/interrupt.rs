//! What SIGINT and SIGTERM do: the first ends the work, the second ends the process.
//!
//! ```
//! use siphon_common::interrupt::Interrupt;
//!
//! let interrupt = Interrupt::listen()?;
//! while !interrupt.is_set() {
//!     interrupt.set(); // stands for work, and for a signal
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// The exit code of a program that was interrupted, as the shell has it for one that SIGINT ended.
pub const INTERRUPTED: u8 = 130;

/// Told of the first signal. The second ends the process at once.
#[derive(Clone, Debug)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes the two signals from now on.
    ///
    /// # Errors
    /// The system gives no signal handler.
    pub fn listen() -> io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        // Not by `set`: a signal after that is the first.
        let signalled = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The second of them finds it set.
            let (code, set) = (INTERRUPTED.into(), Arc::clone(&signalled));
            signal_hook::flag::register_conditional_shutdown(signal, code, set)?;
            signal_hook::flag::register(signal, Arc::clone(&signalled))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self { flag })
    }

    /// Whether there was a signal.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// As a signal does: whoever watches has seen enough.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// What is set by the signal.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// How the process ends: well, or as interrupted.
    pub fn exit_code(&self) -> ExitCode {
        if self.is_set() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS }
    }
}

/// The same for who does nothing but wait for the signal, as a server's main thread does.
#[derive(Debug)]
pub struct Ending {
    interrupt: Interrupt,
    signals: UnixStream,
}

impl Ending {
    /// Takes the two signals from now on.
    ///
    /// # Errors
    /// The system gives no signal handler or socket.
    pub fn listen() -> io::Result<Self> {
        let interrupt = Interrupt::listen()?;
        let (signals, sender) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM] {
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { interrupt, signals })
    }

    /// Whether the first signal has come.
    pub fn has_come(&self) -> bool {
        self.interrupt.is_set()
    }

    /// Waits for the first signal.
    ///
    /// # Errors
    /// Its socket fails.
    pub fn wait(mut self) -> io::Result<()> {
        self.signals.read_exact(&mut [0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_ends_no_process_whose_work_was_ended_otherwise() {
        let interrupt = Interrupt::listen().unwrap();
        interrupt.set();
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(interrupt.is_set(), "and we are still here");
    }
}
