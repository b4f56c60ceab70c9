//! What is made from the definition of the command line: completions and man pages.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use siphon_version::{Build, Report};

use crate::Cli;

pub(crate) fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "siphon", &mut script);
    print!("{}", String::from_utf8(script)?);
    Ok(())
}

/// `siphon.1`, `siphon-perf.1`, `siphon-perf-sweep.1` and so on.
pub(crate) fn man(folder: &Path) -> Result<()> {
    let why = || format!("cannot write man pages to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(why)?;
    // The commit is for who asks a program, and would differ in every page.
    let command = Cli::command().version(Build::this().version);
    clap_mangen::generate_to(command, folder).with_context(why)
}

/// All that is known of this program.
pub(crate) fn version() -> Result<()> {
    print!("{}", Report::of("siphon"));
    Ok(())
}
