use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use crate::error::Missing;
use crate::scratch::Scratch;
use crate::tree::{debootstrap, folder, lock};
use crate::{PeerError, clean, is_root, run};

/// Counts the changes to what is unpacked, so that roots of old are not taken for new ones.
const RECIPE: u32 = 1;
/// 180 MB, from a disk that others use as well.
const COPY_TIMEOUT: Duration = Duration::from_secs(300);

/// Mounts what programs need of the kernel, where nobody else sees it, and changes into the root.
const ENTER: &str = "mount -t proc proc \"$0/proc\" && exec chroot \"$0\" \"$@\"";

/// A Debian 12 as it is when it was just installed, with no more than apt needs: a folder that is removed
/// when dropped. Programs in it share the network with the host, and nothing else.
///
/// It takes root, and when it is first used the host's Debian mirror, `mmdebstrap`, up to a minute and
/// 180 MB beside the trees of [`CephTree`](crate::CephTree).
///
/// ```no_run
/// use siphon_peers::{CleanDebian, require};
///
/// let Some(debian) = require(CleanDebian::new()) else { return };
/// let mut install = debian.command("dpkg");
/// install.args(["--install", "/tmp/siphon.deb"]);
/// ```
#[derive(Debug)]
pub struct CleanDebian(Scratch);

impl CleanDebian {
    /// A new one.
    ///
    /// # Errors
    /// [`PeerError::Unavailable`] if this machine cannot have it.
    pub fn new() -> Result<Self, PeerError> {
        if !is_root() {
            return Err(Missing::Root("a clean Debian is changed into").into());
        }
        // A container's root may not.
        let mut mounts = Command::new("unshare");
        mounts.args([
            "--mount",
            "--propagation",
            "private",
            "mount",
            "-t",
            "tmpfs",
            "none",
            "/mnt",
        ]);
        if !mounts.output().is_ok_and(|tried| tried.status.success()) {
            return Err(Missing::Root("a clean Debian has its own file systems mounted").into());
        }
        let folder = folder();
        fs::create_dir_all(&folder)
            .map_err(PeerError::system(format!("make the folder {}", folder.display())))?;
        let kept = folder.join(format!("debian-bookworm-{RECIPE}-{}", env::consts::ARCH));
        if !kept.exists() {
            let _lock = lock(&folder.join("lock"))?;
            if !kept.exists() {
                debootstrap(&["--variant=minbase".to_owned()], "bookworm", &kept, |_| Ok(()))?;
            }
        }
        let scratch = Scratch::new(Some(&folder), "debian")?;
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--reflink=auto", "--no-target-directory"]);
        copy.arg(&kept).arg(scratch.path());
        run(copy, COPY_TIMEOUT)?;
        Ok(Self(scratch))
    }

    /// Its files.
    pub fn root(&self) -> &Path {
        self.0.path()
    }

    /// A program of it, as root, to which arguments can be added; paths are those within.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", ENTER]);
        command.arg(self.root()).arg(program);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        clean(command)
    }
}
