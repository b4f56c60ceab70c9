//! Tests under a sanitizer of the compiler.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::root;
use crate::steps::{call, cargo, output, platform};

/// The crates with `unsafe`, and those whose threads meet.
const PACKAGES: [&str; 4] = ["siphon-wire", "siphon-proto", "siphon-net", "siphon-msgr"];

/// A condition variable locks and unlocks within the standard library, so that all that was done with the lock
/// held looks unordered.
const WITHOUT_SOURCE: &str = "\
The standard library is not built anew, since rustup's component rust-src is not there: what it orders, by locks,
condition variables and channels, is not seen, and most of what is reported is false. `rustup component add
rust-src` mends that.";

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which sanitizer
    sanitizer: Sanitizer,
    /// The crate to test, or several [default: siphon-wire, siphon-proto, siphon-net, siphon-msgr]
    #[arg(short, long, value_name = "CRATE")]
    package: Vec<String>,
    /// Further arguments of `cargo test`: --test NAME, -- FILTER [default: --lib --tests]
    #[arg(last = true, value_name = "ARG")]
    rest: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sanitizer {
    /// Memory that is used after its end, or beside its bounds, or lost
    Address,
    /// Memory that threads use without order; takes rustup's component rust-src
    Thread,
}

impl Sanitizer {
    fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Thread => "thread",
        }
    }
}

/// Builds the tests with the sanitizer, in a folder of their own, and runs them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let platform = platform()?;
    let name = args.sanitizer.name();
    let mut flags = format!("-Zsanitizer={name}");
    let mut command = cargo(&["test", "--locked", "--no-fail-fast", "--target", &platform]);
    match args.sanitizer {
        Sanitizer::Address => {}
        Sanitizer::Thread if has_library_source()? => _ = command.arg("-Zbuild-std"),
        Sanitizer::Thread => {
            println!("{WITHOUT_SOURCE}");
            flags += " -Cunsafe-allow-abi-mismatch=sanitizer";
        }
    }
    command.arg("--target-dir").arg(root().join("target").join(format!("sanitize-{name}")));
    match args.package.is_empty() {
        true => command.args(PACKAGES.map(|package| format!("--package={package}"))),
        false => command.args(args.package.iter().map(|package| format!("--package={package}"))),
    };
    match args.rest.is_empty() {
        // Examples of the documentation are not built for the platform that is named.
        true => command.args(["--lib", "--tests"]),
        false => command.args(&args.rest),
    };
    // A stable compiler has sanitizers, but lets nobody use them.
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", flags);
    // Lines are enough to find a place, and half as large.
    command.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only").env("CARGO_INCREMENTAL", "0");
    call(&mut command).with_context(|| format!("under the {name} sanitizer"))
}

/// Whether the standard library can be built as well.
fn has_library_source() -> Result<bool> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let sysroot = Path::new(std::str::from_utf8(&sysroot)?.trim_end());
    Ok(sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file())
}
