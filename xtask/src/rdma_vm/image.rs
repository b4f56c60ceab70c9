use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::cpio::Archive;
use crate::install;
use crate::steps::{call, output};

/// Raised whenever an image that is built now would differ from one that was built before.
const RECIPE: u32 = 1;
/// The guest's first program.
const INIT: &str = include_str!("init.sh");
/// The programs of busybox that it calls.
const APPLETS: [&str; 8] = ["sh", "mount", "mkdir", "insmod", "chroot", "ln", "uname", "cat"];
/// The modules that are loaded before anything runs, with those that they need.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "overlay",
    "veth",
    "rdma_ucm",
    "rdma_rxe",
    "siw",
];

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

    /// Whether there is an image of the present recipe.
    pub(super) fn has_image(&self) -> bool {
        fs::read_to_string(self.image().join("recipe")).is_ok_and(|made_by| made_by == recipe())
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

    fn image(&self) -> PathBuf {
        self.0.join("image")
    }

    /// Held by who changes what is in here.
    fn lock(&self) -> Result<File> {
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

/// What the machine boots.
pub(super) struct Image {
    folder: PathBuf,
}

impl Image {
    /// The image, which is built if there is none of the present recipe.
    pub(super) fn open(cache: &Cache) -> Result<Self> {
        let _lock = cache.lock()?;
        let image = Self { folder: cache.image() };
        if !cache.has_image() {
            eprintln!("building the RDMA machine in {}, once", image.folder.display());
            let work = tempfile::tempdir_in(&cache.0)?;
            image.build(work.path()).context("the RDMA machine cannot be built")?;
        }
        Ok(image)
    }

    pub(super) fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    pub(super) fn initramfs(&self) -> PathBuf {
        self.folder.join("initramfs")
    }

    /// The folder of the modules of the one kernel.
    pub(super) fn modules(&self) -> Result<PathBuf> {
        let mut folders = fs::read_dir(self.folder.join("lib/modules"))?;
        Ok(folders.next().context("the image has no modules")??.path())
    }

    fn build(&self, work: &Path) -> Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&self.folder)?,
        }
        let version = self.kernel_of_debian(work)?;
        self.siw(work, &version)?;
        self.write_initramfs(work, &version)?;
        // The last: before, it is no image.
        Ok(fs::write(self.folder.join("recipe"), recipe())?)
    }

    /// Gets Debian's kernel, which is only unpacked: nothing here is to boot it. Returns its version.
    fn kernel_of_debian(&self, work: &Path) -> Result<String> {
        tool(Command::new("apt-get").args(["update", "--quiet=2"]))?;
        let depends = output(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
        let depends = String::from_utf8(depends)?;
        let version = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
            .context("linux-image-amd64 depends on no kernel")?;
        let series = series(version).with_context(|| format!("{version}: no series"))?;
        install::kernel_headers(version)?;
        let mut download = Command::new("apt-get");
        download.args(["download", "--quiet=2", "--option", "APT::Sandbox::User=root"]);
        download.args([format!("linux-image-{version}"), format!("linux-source-{series}")]);
        tool(download.current_dir(work))?;
        for entry in fs::read_dir(work)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                tool(Command::new("dpkg").arg("--extract").arg(path).arg(work))?;
            }
        }
        let modules = format!("lib/modules/{version}");
        fs::create_dir_all(self.folder.join("lib/modules"))?;
        fs::rename(work.join(&modules), self.folder.join(&modules))?;
        // Decompressed here, since an emulated CPU takes seconds for it.
        let boot = fs::read(work.join(format!("boot/vmlinuz-{version}")))?;
        let payload = work.join("payload.xz");
        fs::write(&payload, payload_of(&boot).context("Debian's kernel has no payload")?)?;
        let mut xz = Command::new("xz");
        // The payload ends with its length, which is no part of the stream.
        xz.args(["--decompress", "--stdout", "--single-stream"]).arg(payload);
        call(xz.stdout(File::create(self.kernel())?))?;
        Ok(version.to_owned())
    }

    /// Builds the one module that Debian's kernel lacks, from Debian's source of it.
    fn siw(&self, work: &Path, version: &str) -> Result<()> {
        const FOLDER: &str = "drivers/infiniband/sw/siw";
        let name = format!("linux-source-{}", series(version).unwrap_or_default());
        let mut unpack = Command::new("tar");
        unpack.arg("--extract").arg("--file").arg(work.join(format!("usr/src/{name}.tar.xz")));
        tool(unpack.arg(format!("{name}/{FOLDER}")).current_dir(work))?;
        let source = work.join(name).join(FOLDER);
        let mut make = Command::new("make");
        make.args(["-s", "-C"]).arg(format!("/usr/src/linux-headers-{version}"));
        make.arg(format!("M={}", source.display())).args(["CONFIG_RDMA_SIW=m", "modules"]);
        tool(&mut make)?;
        let extra = self.folder.join(format!("lib/modules/{version}/extra"));
        fs::create_dir_all(&extra)?;
        fs::copy(source.join("siw.ko"), extra.join("siw.ko"))?;
        tool(Command::new("depmod").arg("--basedir").arg(&self.folder).arg(version))
    }

    /// The first files: with them come all modules, which from there load faster than over 9p.
    fn write_initramfs(&self, work: &Path, version: &str) -> Result<()> {
        let mut archive = Archive::new(BufWriter::new(File::create(self.initramfs())?));
        for folder in ["bin", "dev", "proc", "sys", "host", "writes", "root", "modules"] {
            archive.folder(folder)?;
        }
        archive.device("dev/console", (5, 1))?;
        archive.file("init", INIT.as_bytes())?;
        let busybox = install::find("busybox").context("busybox is not installed")?;
        archive.file("bin/busybox", &fs::read(busybox)?)?;
        for applet in APPLETS {
            archive.link(&format!("bin/{applet}"), "busybox")?;
        }
        let mut order = String::new();
        let stripped = work.join("stripped");
        for module in self.modules_in_order(version)? {
            let name =
                module.file_name().and_then(|name| name.to_str()).context("a module's name")?;
            // Of debugging, and of the signature, which takes time to check.
            let mut strip = Command::new("strip");
            tool(strip.arg("--strip-debug").arg("-o").arg(&stripped).arg(&module))?;
            archive.file(&format!("modules/{name}"), &fs::read(&stripped)?)?;
            order = order + name + "\n";
        }
        archive.file("modules/order", order.as_bytes())?;
        Ok(archive.finish()?.into_inner().map(drop).map_err(io::IntoInnerError::into_error)?)
    }

    /// The files of the modules, each after those that it needs.
    fn modules_in_order(&self, version: &str) -> Result<Vec<PathBuf>> {
        let mut order: Vec<PathBuf> = Vec::new();
        for module in MODULES {
            let mut modprobe = Command::new("modprobe");
            modprobe.arg("--dirname").arg(&self.folder).args(["--set-version", version]);
            let lines = String::from_utf8(output(modprobe.args(["--show-depends", module]))?)?;
            for path in lines.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let path = PathBuf::from(path.trim_end());
                if !order.contains(&path) {
                    order.push(path);
                }
            }
        }
        Ok(order)
    }
}

/// What an image is made by: another one is none of ours.
fn recipe() -> String {
    format!("recipe {RECIPE}\n{INIT}")
}

/// The kernel's series, `6.1` of `6.1.0-56-amd64`, which Debian's package of the source is named by.
fn series(version: &str) -> Option<&str> {
    let (major, rest) = version.split_once('.')?;
    let minor =
        rest.split(|c: char| !c.is_ascii_digit()).next().filter(|minor| !minor.is_empty())?;
    version.get(..major.len() + 1 + minor.len())
}

/// The compressed kernel in the file that a boot loader takes: see "Details of Header Fields" in the
/// kernel's `Documentation/arch/x86/boot.rst`, since protocol 2.08.
fn payload_of(boot: &[u8]) -> Option<&[u8]> {
    const SETUP_SECTORS: usize = 0x1f1;
    const MAGIC: usize = 0x202;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_LENGTH: usize = 0x24c;
    const SECTOR: usize = 512;
    let number = |at: usize| {
        let bytes = boot.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if boot.get(MAGIC..MAGIC + 4)? != b"HdrS" {
        return None;
    }
    // The boot sector comes before those of the setup.
    let start = (usize::from(*boot.get(SETUP_SECTORS)?) + 1) * SECTOR + number(PAYLOAD_OFFSET)?;
    boot.get(start..start.checked_add(number(PAYLOAD_LENGTH)?)?)
}

/// Runs a program that has nothing to say on our standard output, which is the job's.
fn tool(command: &mut Command) -> Result<()> {
    call(command.stdout(io::stderr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_the_first_two_numbers() {
        assert_eq!(series("6.1.0-56-amd64"), Some("6.1"));
        assert_eq!(series("6.12.57+deb13-amd64"), Some("6.12"));
        assert_eq!(series("6.19-amd64"), Some("6.19"));
        assert_eq!(series("6"), None);
        assert_eq!(series("6.x"), None);
    }

    #[test]
    fn a_payload_is_where_the_header_says() {
        let mut boot = vec![0; 4096];
        boot[0x1f1] = 3;
        boot[0x202..0x206].copy_from_slice(b"HdrS");
        boot[0x248] = 16;
        boot[0x24c] = 5;
        boot[4 * 512 + 16..][..5].copy_from_slice(b"hello");
        assert_eq!(payload_of(&boot), Some(&b"hello"[..]));
        assert_eq!(payload_of(&boot[..2068]), None);
        boot[0x24f] = 0xff;
        assert_eq!(payload_of(&boot), None);
        boot[0x202] = 0;
        assert_eq!(payload_of(&boot), None);
        assert_eq!(payload_of(&[]), None);
    }
}
