//! The Debian package: `cargo xtask deb`.

mod check;
mod notices;
mod unit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::install::{self, CargoDeb};
use crate::root;
use crate::steps::{Steps, call, cargo, output, platform};

/// The shells whose completions are packaged, and the files that they look for.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "siphon.bash"), ("zsh", "_siphon"), ("fish", "siphon.fish")];

/// How the package is made.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build without optimization: to try the package, not to give it away
    #[arg(long)]
    dev: bool,
    /// Also install it on a clean Debian 12, use it there, and remove it (takes root)
    #[arg(long)]
    check: bool,
    /// Where to put it [default: debian in cargo's target folder]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Makes the package, and prints where it is.
pub(crate) fn run(args: &Args) -> Result<()> {
    let debian = args.check.then(check::debian).transpose()?;
    let package = build(args, CargoDeb::begin()?)?;
    println!("{}", package.file.display());
    debian.map_or(Ok(()), |debian| check::run(&package, debian))
}

/// Makes a package of what tests have built already, and tries it.
pub(crate) fn step(steps: &mut Steps, cargo_deb: CargoDeb) -> Result<()> {
    match check::debian() {
        Ok(debian) => {
            let args = Args { dev: true, check: true, output: None };
            check::run(&build(&args, cargo_deb)?, debian)
        }
        Err(error) => match error.downcast_ref() {
            Some(siphon_peers::PeerError::Unavailable(missing)) => {
                steps.skip(format!("the Debian package is not tried: {missing}"))
            }
            _ => Err(error),
        },
    }
}

/// What was made.
struct Package {
    file: PathBuf,
    /// The program that is in it.
    siphon: PathBuf,
}

fn build(args: &Args, cargo_deb: CargoDeb) -> Result<Package> {
    install::packaging()?;
    let (profile, folder) = if args.dev { ("dev", "debug") } else { ("release", "release") };
    call(&mut cargo(&[
        "build",
        "--locked",
        "--profile",
        profile,
        "--package=siphon",
        "--package=ceph-perf-msgr",
    ]))?;
    let metadata = metadata()?;
    let target = metadata["target_directory"].as_str().context("cargo's target folder")?;
    let built = Path::new(target).join(folder);
    let siphon = built.join("siphon");
    generate(&siphon, &built.join("package"), &metadata)?;
    let debian = args.output.clone().unwrap_or_else(|| Path::new(target).join("debian"));
    let mut command = Command::new(cargo_deb.wait()?);
    command.args(["--package=siphon", "--no-build", "--locked", "--profile", profile, "--output"]);
    command.arg(debian.join("")).current_dir(root());
    if args.dev {
        // The better compression would take most of the time.
        command.args(["--compress-type=gz", "--compress-system"]);
    }
    let printed = output(&mut command)?;
    let file = String::from_utf8_lossy(&printed).lines().last().map(PathBuf::from);
    Ok(Package { file: file.context("cargo-deb tells no file")?, siphon })
}

/// What is packaged and is no source: man pages, completions, the licences of others.
fn generate(siphon: &Path, folder: &Path, metadata: &Value) -> Result<()> {
    // A page of a command that is gone would be packaged.
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let pages = folder.join("man");
    call(Command::new(siphon).arg("man").arg(&pages))?;
    // Without a time in it, as all of the package.
    call(Command::new("gzip").args(["--best", "--no-name", "--recursive"]).arg(&pages))?;
    for (shell, file) in COMPLETIONS {
        let script = output(Command::new(siphon).args(["completions", shell]))?;
        fs::write(folder.join(file), script)?;
    }
    fs::write(folder.join("third-party-licenses.txt"), notices::text(metadata)?)?;
    Ok(())
}

fn metadata() -> Result<Value> {
    let platform = platform()?;
    let args = ["metadata", "--format-version=1", "--locked", "--filter-platform", &platform];
    serde_json::from_slice(&output(&mut cargo(&args))?).context("cargo's metadata")
}
