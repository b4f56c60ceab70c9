use anyhow::Result;

use crate::install::{self, CargoDeb, Deny};
use crate::steps::{Steps, call, cargo};
use crate::{bench, deb, fuzz, rdma_vm, tidy};

/// Seeds of each verification; a search has more.
const SIMULATED_SEEDS: &str = "3000";

/// Tests of sessions that are run by io_uring as well.
const URING_SCENARIOS: &[&str] =
    &["behaviour", "binding", "secure", "injected", "reviewed", "dispatch", "endings"];

/// The whole verification, in order; ends at the first failure.
pub(crate) fn run(advisories: bool) -> Result<()> {
    let mut steps = Steps::default();
    let deny = Deny::begin()?;
    let cargo_deb = CargoDeb::begin()?;
    steps.step("peers", |steps| {
        install::peers()?.into_iter().try_for_each(|reason| steps.skip(reason))
    })?;
    steps.step("fmt", |_| {
        call(&mut cargo(&["fmt", "--all", "--check"]))?;
        call(&mut cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))
    })?;
    steps.step("tidy", |_| tidy::run())?;
    steps.step("clippy", |_| {
        let args = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        call(&mut cargo(&args))
    })?;
    steps.step("doc", |_| {
        let args = ["doc", "--workspace", "--no-deps", "--locked"];
        call(cargo(&args).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    // With the examples of the documentation.
    steps.step("test", |_| call(&mut cargo(&["test", "--workspace", "--locked"])))?;
    steps.step("package", |steps| deb::step(steps, cargo_deb))?;
    steps.step("uring", |_| sessions_by_uring())?;
    steps.step("rdma", rdma_vm::step)?;
    steps.step("loom", |_| ["siphon-net", "siphon-proto"].into_iter().try_for_each(loom))?;
    steps.step("sim", |_| simulate(&["--seeds".to_owned(), SIMULATED_SEEDS.to_owned()]))?;
    steps.step("instructions", bench::instructions::step)?;
    steps.step("operated", |_| bench::operated_briefly())?;
    steps.step("fuzz", fuzz::briefly)?;
    steps.step("deny", |steps| {
        if !deny.wait()? {
            return steps.skip("cargo-deny cannot be installed".to_owned());
        }
        call(&mut cargo(&[
            "deny",
            "--workspace",
            "check",
            "--hide-inclusion-graph",
            "bans",
            "licenses",
            "sources",
        ]))?;
        if advisories { call(&mut cargo(&["deny", "check", "advisories"])) } else { Ok(()) }
    })?;
    steps.summary();
    Ok(())
}

/// Runs the simulator.
pub(crate) fn simulate(args: &[String]) -> Result<()> {
    let mut command = cargo(&["run", "--release", "--locked", "--quiet", "-p", "siphon-sim", "--"]);
    call(command.args(args))
}

/// Runs the scenarios of sessions once more, by io_uring; where there is none, the stack falls back and
/// says so.
fn sessions_by_uring() -> Result<()> {
    let mut command = cargo(&["test", "--locked", "--package", "siphon-msgr"]);
    for scenarios in URING_SCENARIOS {
        command.args(["--test", scenarios]);
    }
    call(command.env("SIPHON_TEST_OPTIONS", "ms_type=async+uring"))
}

/// Runs a crate's model checks of what crosses threads: the tests with `loom` in their names.
fn loom(package: &str) -> Result<()> {
    // A folder of its own, or every build after it would start anew.
    let args = ["test", "--release", "--locked", "--target-dir", "target/loom", "--lib"];
    let mut command = cargo(&args);
    command.args(["-p", package, "loom"]).env("RUSTFLAGS", "--cfg loom");
    // Bounds the search; loom's documentation calls 2 or 3 enough for most errors.
    call(command.env("LOOM_MAX_PREEMPTIONS", "3"))
}
