//! What comes from Debian's archive and is only unpacked, not installed.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::steps::{call, output};

/// Finds the version of Debian's present kernel, such as `6.1.0-56-amd64`.
pub(super) fn kernel_version() -> Result<String> {
    tool(Command::new("apt-get").args(["update", "--quiet=2"]))?;
    let depends = output(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
    String::from_utf8(depends)?
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .map(str::to_owned)
        .context("linux-image-amd64 depends on no kernel")
}

/// Unpacks a kernel and its source.
pub(super) fn unpack_kernel(version: &str, work: &Path, to: &Path) -> Result<()> {
    let debs = work.join("kernel");
    fs::create_dir(&debs)?;
    let mut download = apt_get();
    download.args(["download", &format!("linux-image-{version}"), &source_package(version)?]);
    tool(download.current_dir(&debs))?;
    unpack(&debs, to)
}

/// Unpacks a program with all that it needs and the host has not.
pub(super) fn unpack_program(package: &str, work: &Path, to: &Path) -> Result<()> {
    let debs = work.join(package);
    fs::create_dir(&debs)?;
    let mut download = apt_get();
    download.arg("--option").arg(format!("Dir::Cache::Archives={}", debs.display()));
    download.args(["install", "--download-only", "--yes", "--no-install-recommends", package]);
    tool(&mut download)?;
    unpack(&debs, to)
}

/// The package with the source of a kernel, which Debian names by its series: of `6.1.0-56-amd64`
/// that is `linux-source-6.1`. Its one folder is named the same.
pub(super) fn source_package(version: &str) -> Result<String> {
    let series = series(version).with_context(|| format!("{version} is no version of a kernel"))?;
    Ok(format!("linux-source-{series}"))
}

/// Runs a program that has nothing to say on our standard output, which is the job's.
pub(super) fn tool(command: &mut Command) -> Result<()> {
    call(command.stdout(io::stderr()))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // The user that apt downloads as cannot write to our folder.
    command.args(["--quiet=2", "--option", "APT::Sandbox::User=root"]);
    command
}

fn unpack(debs: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(debs)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            tool(Command::new("dpkg").arg("--extract").arg(path).arg(to))?;
        }
    }
    Ok(())
}

fn series(version: &str) -> Option<&str> {
    let (major, rest) = version.split_once('.')?;
    let minor =
        rest.split(|c: char| !c.is_ascii_digit()).next().filter(|minor| !minor.is_empty())?;
    version.get(..major.len() + 1 + minor.len())
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
}
