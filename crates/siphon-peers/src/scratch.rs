use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::PeerError;

/// Attempts to find a name that is not taken.
const MAX_NAMES: u32 = 1000;

/// A folder of ours, removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new folder in `parent`, or in the system's place for temporary files.
    pub(crate) fn new(parent: Option<&Path>, prefix: &str) -> Result<Self, PeerError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let failed = |path: &Path| PeerError::system(format!("make the folder {}", path.display()));
        fs::create_dir_all(&parent).map_err(failed(&parent))?;
        let mut attempts = 0;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{prefix}-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error)
                    if error.kind() == std::io::ErrorKind::AlreadyExists
                        && attempts < MAX_NAMES =>
                {
                    attempts += 1;
                }
                Err(error) => return Err(failed(&path)(error)),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
