use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// The file of an image that tells what it was made by, written last. Who uses the image locks it.
pub(super) const RECIPE: &str = "recipe";
/// What the names of images begin with.
const IMAGE: &str = "image-";

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
        let quotable = path.to_str().is_some_and(|path| !path.contains('"'));
        ensure!(quotable, "{} is not UTF-8, or has a quotation mark", path.display());
        Ok(Self(path))
    }

    /// A folder for one run. Those of runs that were killed are removed.
    pub(super) fn run(&self) -> Result<RunFolder> {
        let _lock = self.lock()?;
        let runs = self.0.join("runs");
        fs::create_dir_all(&runs)?;
        for entry in fs::read_dir(&runs)? {
            let path = entry?.path();
            if !is_locked(&path.join("lock")) {
                fs::remove_dir_all(&path)?;
            }
        }
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(&runs)?;
        let lock = File::create(folder.path().join("lock"))?;
        lock.lock()?;
        Ok(RunFolder { folder, _lock: lock })
    }

    /// The folder of the image that is made by a recipe.
    pub(super) fn image(&self, recipe: &str) -> PathBuf {
        // Another tree's machine may be running from an image of another recipe.
        let mut hasher = DefaultHasher::new();
        recipe.hash(&mut hasher);
        self.0.join(format!("{IMAGE}{:016x}", hasher.finish()))
    }

    /// Removes the images that nobody runs: those of former recipes, and what killed builds left. To be
    /// called with the lock held.
    pub(super) fn remove_images(&self) -> Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let is_image =
                path.file_name().is_some_and(|name| name.as_bytes().starts_with(IMAGE.as_bytes()));
            let in_use = || is_locked(&path.join(RECIPE));
            if is_image && !in_use() {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    /// A folder for a build, removed when dropped. To be called with the lock held: what is there is
    /// of a build that was killed.
    pub(super) fn work(&self) -> Result<TempDir> {
        let parent = self.0.join("build");
        if parent.exists() {
            fs::remove_dir_all(&parent)?;
        }
        fs::create_dir(&parent)?;
        Ok(tempfile::tempdir_in(&parent)?)
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

/// Whether somebody holds the lock of a file that may not be there.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_in_use_stay_and_the_others_go() {
        let scratch = tempfile::tempdir().unwrap();
        let cache = Cache(scratch.path().to_owned());
        let images = ["used", "former", "half a"].map(|recipe| cache.image(recipe));
        images.iter().for_each(|image| fs::create_dir(image).unwrap());
        let other = scratch.path().join("runs");
        fs::create_dir(&other).unwrap();
        for image in &images[..2] {
            fs::write(image.join(RECIPE), "").unwrap();
        }
        let used = File::open(images[0].join(RECIPE)).unwrap();
        used.lock_shared().unwrap();
        cache.remove_images().unwrap();
        assert_eq!(images.each_ref().map(|image| image.exists()), [true, false, false]);
        assert!(other.exists());
    }

    #[test]
    fn only_folders_of_runs_that_are_gone_are_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let cache = Cache(scratch.path().to_owned());
        let running = cache.run().unwrap();
        let killed = scratch.path().join("runs/run-killed");
        fs::create_dir(&killed).unwrap();
        fs::write(killed.join("lock"), "").unwrap();
        let ended = cache.run().unwrap().path().to_owned();
        assert!(running.path().exists() && !killed.exists() && !ended.exists());
    }

    #[test]
    fn what_a_killed_build_left_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let cache = Cache(scratch.path().to_owned());
        let killed = cache.work().unwrap().keep();
        let work = cache.work().unwrap();
        assert!(work.path().exists() && !killed.exists());
    }

    #[test]
    fn each_recipe_has_an_image_of_its_own() {
        let cache = Cache("/cache".into());
        assert_eq!(cache.image("1"), cache.image("1"));
        assert_ne!(cache.image("1"), cache.image("2"));
    }
}
