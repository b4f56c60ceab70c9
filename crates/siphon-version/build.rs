//! Notes for the programs what they are built from. Of the clock nothing is taken, so that the same
//! sources give the same bytes.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    watch_head();
    // Where there is no repository: an unpacked archive, a container.
    let commit = variable("SIPHON_COMMIT").or_else(|| git(&["rev-parse", "HEAD"]));
    let time = variable("SOURCE_DATE_EPOCH").or_else(|| git(&["log", "-1", "--format=%ct"]));
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    for (name, value) in [
        ("COMMIT", commit),
        ("TIME", time),
        ("PROFILE", profile()),
        ("OPT_LEVEL", std::env::var("OPT_LEVEL").ok()),
        ("TARGET", std::env::var("TARGET").ok()),
        ("RUSTC", output(Command::new(rustc).arg("--version"))),
    ] {
        println!("cargo::rustc-env=SIPHON_BUILD_{name}={}", value.unwrap_or_default());
    }
}

/// Asks to be run again when another commit is the present one.
fn watch_head() {
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let files = ["HEAD", "packed-refs"].into_iter().map(str::to_owned).chain(branch);
    for path in files.filter_map(|file| git(&["rev-parse", "--git-path", &file])) {
        // A file that is not there would have it run each time.
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn variable(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The profile's name, by the folder that is built in: `PROFILE` knows but two.
fn profile() -> Option<String> {
    let out = std::env::var("OUT_DIR").ok()?;
    let name = Path::new(&out).ancestors().nth(3)?.file_name()?;
    Some(name.to_string_lossy().into_owned())
}

/// What git says of the repository that this crate is a part of; of another, which has it unpacked below,
/// it knows nothing.
fn git(args: &[&str]) -> Option<String> {
    let ours = output(Command::new("git").args(["ls-files", "--error-unmatch", "build.rs"]));
    ours.and_then(|_| output(Command::new("git").args(args)))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
