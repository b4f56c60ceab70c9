//! The project's chores: `cargo xtask test`, `cargo xtask tidy`, `cargo xtask bench`,
//! `cargo xtask deb`, `cargo xtask sim`, `cargo xtask fuzz`, `cargo xtask book`, `cargo xtask sanitize`,
//! `cargo xtask peers`, `cargo xtask rdma-vm`.
#![allow(clippy::disallowed_methods, reason = "tells how long its steps take")]

mod bench;
mod book;
mod deb;
mod fuzz;
mod install;
mod rdma_vm;
mod sanitize;
mod steps;
mod test;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

/// The project's chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Chore {
    /// The whole verification, which installs what is missing first
    Test {
        /// Also look for known vulnerabilities of dependencies (needs the network)
        #[arg(long)]
        advisories: bool,
    },
    /// What no compiler checks: layers, purity, unsafe, lengths, leftovers
    Tidy,
    /// Count the instructions of fixed work and compare them with the stored ones; with --peer,
    /// measure the benchmark tools in turn with Ceph's own
    Bench(bench::Args),
    /// Simulate messengers under faults: one seed, or a search for a failing one
    #[command(disable_help_flag = true)]
    Sim {
        /// What the simulator is asked for
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Feed the decoders what a fuzzer makes up, and print how much of it they took
    Fuzz(fuzz::Args),
    /// Make HTML of the book, in target/book
    Book(book::Args),
    /// Make the Debian package
    Deb(deb::Args),
    /// Install and unpack the real Ceph peers of tests and benchmarks
    Peers,
    /// Run tests under a sanitizer of the compiler
    Sanitize(sanitize::Args),
    /// Run a command in a virtual machine with RDMA devices
    RdmaVm(rdma_vm::Args),
}

fn main() -> ExitCode {
    let done = match Chore::parse() {
        Chore::Test { advisories } => test::run(advisories),
        Chore::Tidy => tidy::run(),
        Chore::Bench(args) => bench::run_bench(&args),
        Chore::Sim { args } => test::simulate(&args),
        Chore::Fuzz(args) => fuzz::run(&args),
        Chore::Book(args) => book::run(&args),
        Chore::Deb(args) => deb::run(&args),
        Chore::Sanitize(args) => sanitize::run(&args),
        Chore::Peers => install::peers().map(|skipped| {
            skipped.iter().for_each(|reason| println!("not available: {reason}"));
        }),
        Chore::RdmaVm(args) => return rdma_vm::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The top of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
