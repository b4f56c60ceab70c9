//! What is made from the definition of the command line: completions and man pages.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::Cli;

pub(crate) fn completions(shell: clap_complete::Shell) -> Result<()> {
    clap_complete::generate(shell, &mut Cli::command(), "siphon", &mut std::io::stdout());
    Ok(())
}

/// `siphon.1`, `siphon-perf.1`, `siphon-perf-sweep.1` and so on.
pub(crate) fn man(folder: &Path) -> Result<()> {
    let why = || format!("cannot write man pages to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(why)?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(why)
}
