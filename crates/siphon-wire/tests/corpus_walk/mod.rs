//! Checks types against Ceph's own encodings: a folder of `RELEASE/TYPE/OBJECT` files, each with
//! the encoding of one value, as ceph-object-corpus has them. `SIPHON_CORPUS` names the folder.
//!
//! This file stands here for every crate that has such types; others include it by its path.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use siphon_wire::types::Features;
use siphon_wire::{Decode, DecodeError, Encode};

/// Failures that are told in full; of others, only how many there are.
const MAX_TOLD: usize = 20;

/// The peers that an object may have been encoded for: daemons wrote some for each other, and some
/// for clients of Jewel. The latter lack `SERVER_LUMINOUS`, `SERVER_MIMIC` and `MSG_ADDR2`, but not
/// the bits that mark these features' incarnations.
const PEERS: [Features; 5] = [
    Features::ALL,
    Features(Features::ALL.0 & !(1 << 21 | 1 << 28 | 1 << 59)),
    // Daemons of Squid, and of Tentacle, where maps differ.
    Features(Features::ALL.0 | Features::CRUSH_MSR.0 | Features::SERVER_SQUID.0),
    Features(Features::ALL.0 | Features::SERVER_TENTACLE.0),
    Features(
        Features::ALL.0
            | Features::CRUSH_MSR.0
            | Features::SERVER_SQUID.0
            | Features::SERVER_TENTACLE.0,
    ),
];

/// A row of the table: a type, and what is expected of it.
pub(crate) struct Row {
    ceph_name: &'static str,
    recode: fn(&Bytes, Features) -> Result<Bytes, DecodeError>,
    exact: Exact,
}

/// Which releases encode a type as we do. Only these bytes must come out again; all must decode.
#[derive(Clone, Copy)]
pub(crate) enum Exact {
    /// All in the corpus.
    Always,
    /// This one and those after it.
    #[allow(dead_code, reason = "each crate that includes this file has its own table")]
    Since(u32, u32),
}

/// The row for `T`, which Ceph calls `ceph_name`.
pub(crate) fn row<T: Encode + Decode>(ceph_name: &'static str, exact: Exact) -> Row {
    row_by(ceph_name, exact, |bytes, features| Ok(T::from_bytes(bytes)?.to_bytes(features)))
}

/// The row for a type that has a way of its own to be read, and written for a peer.
pub(crate) fn row_by(
    ceph_name: &'static str,
    exact: Exact,
    recode: fn(&Bytes, Features) -> Result<Bytes, DecodeError>,
) -> Row {
    Row { ceph_name, recode, exact }
}

/// Checks every object of every release against `table`, and prints the counts.
///
/// # Panics
/// If an object does not decode to its last byte, or does not come out as it went in, or if there
/// is no object of a type at all. Without `SIPHON_CORPUS`, it says so and returns.
pub(crate) fn check(table: &[Row]) {
    let Some(folder) = std::env::var_os("SIPHON_CORPUS").map(PathBuf::from) else {
        println!("SIPHON_CORPUS is not set: Ceph's own encodings were not checked");
        return;
    };
    let releases = releases(&folder);
    assert!(!releases.is_empty(), "no releases, such as 16.2.0, in {}", folder.display());
    let mut failures = Vec::new();
    for row in table {
        let mut counts = String::new();
        let mut total = 0;
        for release in &releases {
            let objects = files(&release.path.join(row.ceph_name));
            for object in &objects {
                if let Err(failure) = row.check(object, release) {
                    failures.push(format!("{}: {failure}", object.display()));
                }
            }
            total += objects.len();
            let kind = if row.is_exact(release) { "" } else { " (decoded only)" };
            let _ = write!(counts, "  {}: {}{kind}", release.name, objects.len());
        }
        println!("{:<20}{counts}", row.ceph_name);
        if total == 0 {
            failures.push(format!("{}: no object in any release", row.ceph_name));
        }
    }
    let told = failures.len().min(MAX_TOLD);
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures[..told].join("\n"));
}

struct Release {
    number: (u32, u32),
    name: String,
    path: PathBuf,
}

impl Row {
    fn is_exact(&self, release: &Release) -> bool {
        match self.exact {
            Exact::Always => true,
            Exact::Since(major, minor) => release.number >= (major, minor),
        }
    }

    fn check(&self, object: &Path, release: &Release) -> Result<(), String> {
        let bytes = Bytes::from(fs::read(object).map_err(|error| error.to_string())?);
        let recode = |peer| (self.recode)(&bytes, peer).map_err(|error| error.to_string());
        let recoded = PEERS.into_iter().map(recode).collect::<Result<Vec<_>, _>>()?;
        if !self.is_exact(release) || recoded.contains(&bytes) {
            return Ok(());
        }
        let recoded = &recoded[0];
        Err(format!("came out otherwise\n  in  {bytes:?}\n  out {recoded:?}"))
    }
}

/// The releases in a folder, the oldest first.
fn releases(folder: &Path) -> Vec<Release> {
    let entries = fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut releases: Vec<_> = entries.filter_map(|entry| release(entry.ok()?.path())).collect();
    releases.sort_by_key(|release| release.number);
    releases
}

fn release(path: PathBuf) -> Option<Release> {
    let name = path.file_name()?.to_str()?.to_owned();
    let mut numbers = name.split('.').map(str::parse);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(Release { number: (major, minor), name, path })
}

/// The files in a folder, or none if there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files
}
