//! What no compiler checks.

mod layers;
mod source;
mod tokens;

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context, Result, bail};

use crate::steps::{cargo, output};

/// A rule broken at a place.
struct Finding {
    file: PathBuf,
    line: usize,
    rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.rule)
    }
}

/// Checks everything, and prints all that it finds.
pub(crate) fn run() -> Result<()> {
    let metadata =
        output(&mut cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata = serde_json::from_slice(&metadata).context("cargo's metadata")?;
    let mut findings = layers::check(&metadata)?;
    for layer in layers::LAYERS {
        findings.extend(source::check(layer)?);
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} rules are broken", findings.len());
    }
    Ok(())
}

/// All files below a folder, in order; none if there is no such folder.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        if !dir.exists() {
            continue;
        }
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                // Neither what cargo builds nor what fuzzing collects is source.
                let name = path.file_name().unwrap_or_default();
                if name != "target" && name != "corpus" {
                    dirs.push(path);
                }
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
