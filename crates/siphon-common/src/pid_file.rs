//! The file that tells a process's id, as `pid_file` names it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::Context;

/// A file may vanish between being opened and locked so often, as those who had it end.
const MAX_ATTEMPTS: u32 = 10;

/// A file with this process's id, which nobody else writes as long as this is there; dropping it takes the
/// file away. What a process leaves that was killed is written over.
///
/// ```
/// use siphon_common::{PidFile, PidFileError};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("osd.0.pid");
/// let file = PidFile::write(&path)?;
/// assert_eq!(std::fs::read_to_string(&path)?, format!("{}\n", std::process::id()));
/// assert!(matches!(PidFile::write(&path), Err(PidFileError::Held { .. })));
/// drop(file);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Locked.
    file: File,
}

/// Why there is no pid file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PidFileError {
    /// A process that runs has it.
    #[error("process {pid} runs and has the pid file {path}: end it, or choose another pid_file")]
    Held {
        /// The file.
        path: PathBuf,
        /// What is in it.
        pid: String,
    },
    /// What the system said.
    #[error(
        "cannot write the pid file {path}: {source}; make its folder writable for this user, or choose another pid_file"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl PidFile {
    /// Writes it.
    ///
    /// # Errors
    /// If another process has it, or it cannot be written.
    pub fn write(path: impl Into<PathBuf>) -> Result<Self, PidFileError> {
        let path = path.into();
        match Self::try_write(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut pid = String::new();
                // Whoever has it may be about to write it.
                let _ = File::open(&path).and_then(|file| file.take(20).read_to_string(&mut pid));
                Err(PidFileError::Held { path, pid: pid.trim().to_owned() })
            }
            Err(source) => Err(PidFileError::Io { path, source }),
        }
    }

    /// The one that `pid_file` of a context's configuration asks for, if it does.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn of(context: &Context) -> Result<Option<Self>, PidFileError> {
        match context.config().pid_file.as_str() {
            "" => Ok(None),
            path => Self::write(path).map(Some),
        }
    }

    fn try_write(path: &Path) -> io::Result<File> {
        for _ in 0..MAX_ATTEMPTS {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o644);
            // A FIFO that nobody reads is no pid file, and to be told of.
            options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
            let mut file = options.open(path)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            if is_at(&file, path) {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                return Ok(file);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path); // at worst the next process writes over it
        }
    }
}

/// The path names this file.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |file: fs::Metadata| (file.dev(), file.ino());
    let ours = file.metadata().ok().map(id);
    ours.is_some() && ours == fs::metadata(path).ok().map(id)
}
