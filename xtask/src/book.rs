//! `cargo xtask book`: the pages of docs/ as HTML, by mdBook.

use std::process::Command;

use anyhow::Result;

use crate::steps::{call, cargo};
use crate::{install, root};

/// What is done with the book.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Have the reference pages say what commands and options are now, and the programs be their files
    #[arg(long)]
    bless: bool,
}

/// Builds the book into `target/book`.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.bless {
        let reference = ["test", "--locked", "-p", "siphon", "--bin", "siphon", "reference"];
        call(cargo(&reference).env("SNAPSHOTS", "overwrite"))?;
        let programs = ["test", "--locked", "-p", "siphon", "--test", "book", "programs"];
        call(cargo(&programs).env("SNAPSHOTS", "overwrite"))?;
    }
    call(Command::new(install::mdbook()?).arg("build").current_dir(root()))
}
