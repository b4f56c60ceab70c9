use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// As much as a pipe holds.
const BUFFER: usize = 64 << 10;

/// Copies what the machine writes to a pipe in the file system.
pub(super) struct Relay {
    /// An end for writing, without which the pipe would end before the machine opens it.
    held: File,
    copying: JoinHandle<()>,
}

impl Relay {
    pub(super) fn start(path: PathBuf, to: BorrowedFd<'_>) -> Result<Self> {
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).context("make a pipe")?;
        let held = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut from = File::open(&path)?;
        // Not by way of Rust's own buffer, so that a line that is not yet complete is seen.
        let mut to = File::from(to.try_clone_to_owned()?);
        let copying = thread::spawn(move || copy(&mut from, &mut to));
        Ok(Self { held, copying })
    }

    /// Whether somebody may read what is copied.
    pub(super) fn is_heard(&self) -> bool {
        !self.copying.is_finished()
    }

    /// Copies the rest, once the machine has ended.
    pub(super) fn finish(self) -> Result<()> {
        drop(self.held);
        self.copying.join().map_err(|_| anyhow::anyhow!("a relay of output panicked"))
    }
}

/// Copies until the end, or until nobody reads what is written. By reads and writes: `io::copy` would
/// have the kernel splice, which takes the place in a file that it writes to before it waits for data,
/// and so overwrites what others write there meanwhile.
fn copy(from: &mut File, to: &mut File) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..len) else { break };
        if to.write_all(bytes).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_relay_copies_all_and_ends_also_when_nothing_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let to = File::create(folder.path().join("copy")).unwrap();
        let relay = Relay::start(folder.path().join("pipe"), to.as_fd()).unwrap();
        fs::write(folder.path().join("pipe"), "no line's end").unwrap();
        relay.finish().unwrap();
        assert_eq!(fs::read(folder.path().join("copy")).unwrap(), b"no line's end");
        // Written by another meanwhile, it is not overwritten.
        let relay = Relay::start(folder.path().join("third"), to.as_fd()).unwrap();
        (&to).write_all(b", others' text, ").unwrap();
        fs::write(folder.path().join("third"), "the rest").unwrap();
        relay.finish().unwrap();
        let all = fs::read_to_string(folder.path().join("copy")).unwrap();
        assert_eq!(all, "no line's end, others' text, the rest");
        Relay::start(folder.path().join("other"), to.as_fd()).unwrap().finish().unwrap();
    }

    #[test]
    fn a_relay_tells_that_nobody_reads() {
        let folder = tempfile::tempdir().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let relay = Relay::start(folder.path().join("pipe"), writer.as_fd()).unwrap();
        assert!(relay.is_heard());
        drop(reader);
        fs::write(folder.path().join("pipe"), "anybody?").unwrap();
        while relay.is_heard() {
            thread::yield_now();
        }
        relay.finish().unwrap();
    }
}
