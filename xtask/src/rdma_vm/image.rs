use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::{Cache, RECIPE};
use super::cpio::Archive;
use super::debian::{self, tool};
use crate::install;
use crate::steps::{call, output};

/// Raised whenever an image that is built now would differ from one that was built before.
const REVISION: u32 = 1;
/// The emulator. Where the host has none it is unpacked like the kernel: on some machines it cannot be
/// installed beside what is there.
const QEMU: &str = "qemu-system-x86_64";
const QEMU_PACKAGE: &str = "qemu-system-x86";
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

/// What the machine boots.
pub(super) struct Image {
    folder: PathBuf,
}

/// An image that is not removed meanwhile.
pub(super) struct ImageInUse {
    image: Image,
    _used: File,
}

impl Deref for ImageInUse {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.image
    }
}

impl Image {
    /// Whether the image need not be built.
    pub(super) fn is_built(cache: &Cache) -> bool {
        Self::at(cache).is_complete()
    }

    /// The image of the present recipe, which is built if there is none, and stays while this is held.
    pub(super) fn open(cache: &Cache) -> Result<ImageInUse> {
        let _lock = cache.lock()?;
        let image = Self::at(cache);
        if !image.is_complete() {
            eprintln!("building the RDMA machine in {}, once", image.folder.display());
            cache.remove_images()?;
            let work = cache.work()?;
            image.build(work.path()).context("the RDMA machine cannot be built")?;
        }
        let used = File::open(image.folder.join(RECIPE))?;
        used.lock_shared()?;
        Ok(ImageInUse { image, _used: used })
    }

    /// How qemu is called: the host's, or the one of the image with the libraries that came with it.
    pub(super) fn qemu(&self) -> Vec<OsString> {
        let program = self.own_qemu();
        if !program.is_file() {
            return vec![QEMU.into()];
        }
        let mut libraries = OsString::from("LD_LIBRARY_PATH=");
        libraries.push(self.folder.join("qemu/usr/lib/x86_64-linux-gnu"));
        vec!["env".into(), libraries, program.into()]
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

    fn at(cache: &Cache) -> Self {
        Self { folder: cache.image(&recipe()) }
    }

    fn is_complete(&self) -> bool {
        let recipe_of = fs::read_to_string(self.folder.join(RECIPE));
        let has_qemu = || self.own_qemu().is_file() || install::find(QEMU).is_some();
        recipe_of.is_ok_and(|of| of == recipe()) && has_qemu()
    }

    fn own_qemu(&self) -> PathBuf {
        self.folder.join("qemu/usr/bin").join(QEMU)
    }

    fn build(&self, work: &Path) -> Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&self.folder)?,
        }
        let unpacked = work.join("unpacked");
        let version = debian::kernel_version()?;
        install::kernel_headers(&version)?;
        debian::unpack_kernel(&version, work, &unpacked)?;
        self.kernel_of_debian(&unpacked, &version)?;
        self.siw(&unpacked, &version)?;
        self.write_initramfs(work, &version)?;
        if install::find(QEMU).is_none() {
            debian::unpack_program(QEMU_PACKAGE, work, &self.folder.join("qemu"))?;
        }
        // The last: before, it is no image.
        Ok(fs::write(self.folder.join(RECIPE), recipe())?)
    }

    /// Debian's kernel and its modules.
    fn kernel_of_debian(&self, unpacked: &Path, version: &str) -> Result<()> {
        let modules = format!("lib/modules/{version}");
        fs::create_dir_all(self.folder.join("lib/modules"))?;
        fs::rename(unpacked.join(&modules), self.folder.join(&modules))?;
        // Decompressed here, since an emulated CPU takes seconds for it.
        let boot = fs::read(unpacked.join(format!("boot/vmlinuz-{version}")))?;
        let payload = unpacked.join("payload.xz");
        fs::write(&payload, payload_of(&boot).context("Debian's kernel has no payload")?)?;
        let mut xz = Command::new("xz");
        // The payload ends with its length, which is no part of the stream.
        xz.args(["--decompress", "--stdout", "--single-stream"]).arg(payload);
        call(xz.stdout(File::create(self.kernel())?))
    }

    /// Builds the one module that Debian's kernel lacks, from Debian's source of it.
    fn siw(&self, unpacked: &Path, version: &str) -> Result<()> {
        const FOLDER: &str = "drivers/infiniband/sw/siw";
        let name = debian::source_package(version)?;
        let mut unpack = Command::new("tar");
        unpack.arg("--extract").arg("--file").arg(unpacked.join(format!("usr/src/{name}.tar.xz")));
        tool(unpack.arg(format!("{name}/{FOLDER}")).current_dir(unpacked))?;
        let source = unpacked.join(name).join(FOLDER);
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
    format!("revision {REVISION}\n{INIT}")
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

#[cfg(test)]
mod tests {
    use super::*;

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
