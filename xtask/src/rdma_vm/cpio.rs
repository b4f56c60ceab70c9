use std::io::{self, Write};

/// An initial file system for Linux, in the "newc" form of cpio; see the kernel's
/// `Documentation/driver-api/early-userspace/buffer-format.rst`.
///
/// A folder goes before what is in it.
pub(super) struct Archive<W> {
    out: W,
    entries: u32,
    /// Bytes written, for the padding.
    len: u64,
}

/// The types of files, of stat(2), in the upper bits of a mode.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// Headers and contents begin at multiples of this.
const ALIGNMENT: u64 = 4;

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, entries: 0, len: 0 }
    }

    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, FOLDER | 0o755, (0, 0), &[])
    }

    /// A file that may be executed.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, FILE | 0o755, (0, 0), content)
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes())
    }

    pub(super) fn device(&mut self, path: &str, number: (u32, u32)) -> io::Result<()> {
        self.entry(path, CHARACTER_DEVICE | 0o600, number, &[])
    }

    /// Writes the end mark and returns where it was all written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        self.entries += 1;
        let len = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_len = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        // The number, mode, owner, group, links, time, length, the device it is on, the device that
        // it is, the name's length with its zero, a checksum that this form has not.
        let fields = [self.entries, mode, 0, 0, 1, 0, len, 0, 0, device.0, device.1, name_len, 0];
        self.write(b"070701")?;
        for field in fields {
            self.write(format!("{field:08x}").as_bytes())?;
        }
        self.write(path.as_bytes())?;
        self.write(&[0])?;
        self.pad()?;
        self.write(content)?;
        self.pad()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        while !self.len.is_multiple_of(ALIGNMENT) {
            self.write(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_say_their_lengths() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("dev").unwrap();
        archive.device("dev/console", (5, 1)).unwrap();
        archive.file("init", b"hello").unwrap();
        archive.link("sh", "init").unwrap();
        let mut rest = &archive.finish().unwrap()[..];
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (header, after) = rest.split_at(110);
            assert_eq!(&header[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&header[6 + 8 * n..14 + 8 * n]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (len, name_len) = (field(6), field(11));
            let padded = |len: usize| len.next_multiple_of(4);
            let content_at = padded(110 + name_len) - 110;
            let name = std::str::from_utf8(&after[..name_len - 1]).unwrap();
            let content = std::str::from_utf8(&after[content_at..content_at + len]).unwrap();
            seen.push(format!("{name} {:o} {},{} {content}", field(1), field(9), field(10)));
            rest = &after[content_at + padded(len)..];
        }
        assert_eq!(
            seen,
            [
                "dev 40755 0,0 ",
                "dev/console 20600 5,1 ",
                "init 100755 0,0 hello",
                "sh 120777 0,0 init",
                "TRAILER!!! 0 0,0 "
            ]
        );
    }
}
