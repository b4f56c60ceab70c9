//! Tests under a sanitizer of the compiler.

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::root;
use crate::steps::{call, cargo, platform};

/// The crates with `unsafe`, and those whose threads meet.
const PACKAGES: [&str; 4] = ["siphon-wire", "siphon-proto", "siphon-net", "siphon-msgr"];

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
    /// Memory that threads use without order; the standard library's own is not seen
    Thread,
}

impl Sanitizer {
    fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Thread => "thread",
        }
    }

    fn flags(self) -> &'static str {
        match self {
            Self::Address => "-Zsanitizer=address",
            // The standard library is as it was shipped, without the sanitizer.
            Self::Thread => "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
        }
    }
}

/// Builds the tests with the sanitizer, in a folder of their own, and runs them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let platform = platform()?;
    let name = args.sanitizer.name();
    let mut command = cargo(&["test", "--locked", "--no-fail-fast", "--target", &platform]);
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
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", args.sanitizer.flags());
    // Lines are enough to find a place, and half as large.
    command.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only").env("CARGO_INCREMENTAL", "0");
    if let Sanitizer::Thread = args.sanitizer {
        let left_out = root().join("xtask/src/sanitize/thread.supp");
        command.env("TSAN_OPTIONS", format!("suppressions={}", left_out.display()));
    }
    call(&mut command).with_context(|| format!("under the {name} sanitizer"))
}
