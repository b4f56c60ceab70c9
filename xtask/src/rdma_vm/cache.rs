use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Where images and the folders of runs are: one for all working trees of the user.
pub(super) struct Cache(PathBuf);

impl Cache {
    pub(super) fn open() -> Result<Self> {
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let parent = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        let cache =
            parent.context("neither HOME nor XDG_CACHE_HOME is set")?.join("siphon/rdma-vm");
        fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
        // qemu and the guest's kernel are told of paths inside quotes.
        let path = cache.canonicalize()?;
        ensure!(
            !path.to_str().is_none_or(|path| path.contains('"')),
            "{}: a strange path",
            path.display()
        );
        Ok(Self(path))
    }

    /// A folder for one run. Those of runs that were killed are removed.
    pub(super) fn run(&self) -> Result<RunFolder> {
        let _lock = self.lock()?;
        let runs = self.0.join("runs");
        fs::create_dir_all(&runs)?;
        for entry in fs::read_dir(&runs)? {
            let path = entry?.path();
            // Whoever uses it holds its lock.
            if File::open(path.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok()) {
                fs::remove_dir_all(&path)?;
            }
        }
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(&runs)?;
        let lock = File::create(folder.path().join("lock"))?;
        lock.lock()?;
        Ok(RunFolder { folder, _lock: lock })
    }

    /// A folder for the time of a build, removed when dropped.
    pub(super) fn work(&self) -> Result<TempDir> {
        Ok(tempfile::tempdir_in(&self.0)?)
    }

    /// The folder of the image.
    pub(super) fn image(&self) -> PathBuf {
        self.0.join("image")
    }

    /// Held by who changes what is in here.
    pub(super) fn lock(&self) -> Result<File> {
        let lock = File::create(self.0.join("lock"))?;
        lock.lock()?;
        Ok(lock)
    }
}

/// The folder of one run, removed when dropped.
pub(super) struct RunFolder {
    folder: TempDir,
    _lock: File,
}

impl RunFolder {
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}
