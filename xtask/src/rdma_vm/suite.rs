use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::boot::{Ended, Machine};
use super::cache::Cache;
use super::image::Image;
use super::job::{Job, quoted};
use super::{Accel, cpus_here, missing};
use crate::root;
use crate::steps::{Steps, cargo, output};

/// The tests that need RDMA devices, which all run in one boot. Add a line for each crate.
const TESTS: &[Tests] = &[
    Tests::of("siphon-verbs", &["--test", "devices"]),
    Tests::of("siphon-msgr", &["--test", "rdma"]),
    Tests::of("ceph-perf-msgr", &["--test", "rdma"]),
    Tests::of("siphon", &["--test", "rdma"]),
    // Of the book what is about RDMA: all else runs elsewhere.
    Tests { skip: BOOK, ..Tests::of("siphon", &["--test", "book"]) },
    // The scenarios of sessions, with another stack.
    Tests { options: RDMA, ..Tests::of("siphon-msgr", &["--test", "behaviour"]) },
    Tests { options: RDMA, ..Tests::of("siphon-msgr", &["--test", "binding"]) },
    Tests { options: RDMA, ..Tests::of("siphon-msgr", &["--test", "secure"]) },
    Tests { options: RDMA, ..Tests::of("siphon-msgr", &["--test", "injected"]) },
    Tests { options: RDMA, ..Tests::of("siphon-msgr", &["--test", "reviewed"]) },
    Tests { options: BY_CM, ip: "10.77.0.1", ..Tests::of("siphon-msgr", &["--test", "behaviour"]) },
    Tests {
        options: IWARP,
        ip: "10.77.1.1",
        skip: FLOOD_BEHAVIOUR,
        ..Tests::of("siphon-msgr", &["--test", "behaviour"])
    },
    Tests {
        options: BY_CM,
        ip: "10.77.0.1",
        skip: RAW_DISPATCH,
        ..Tests::of("siphon-msgr", &["--test", "dispatch"])
    },
    Tests {
        options: IWARP,
        ip: "10.77.1.1",
        skip: RAW_DISPATCH,
        ..Tests::of("siphon-msgr", &["--test", "dispatch"])
    },
    // Without those whose peer is a socket of TCP that the test itself writes to.
    Tests {
        options: RDMA,
        skip: RAW_DISPATCH,
        ..Tests::of("siphon-msgr", &["--test", "dispatch"])
    },
    Tests { options: RDMA, skip: RAW_ENDINGS, ..Tests::of("siphon-msgr", &["--test", "endings"]) },
];

const BOOK: &[&str] = &["every_block_runs", "links", "programs"];
const RAW_DISPATCH: &[&str] =
    &["urgent_messages_are_sent_first", "a_disposable_connection_waits_for_no_acknowledgement"];
/// A peer of iWARP that sends more than is posted to receive into ends the connection: docs/rdma.md.
const FLOOD_BEHAVIOUR: &[&str] = &[
    "messages_of_every_shape_survive_both_directions_byte_for_byte",
    "a_shutdown_sends_what_waits",
    "a_slow_dispatcher_stops_the_reading_and_loses_nothing",
];
const RAW_ENDINGS: &[&str] = &[
    "a_shutdown_while_connecting",
    "a_shutdown_leaves_a_peer_that_does_not_read",
    "a_silent_session_is_closed",
    "the_workers_may_be_the_last",
    "a_dropped_future_loses_nothing",
];

/// What `SIPHON_TEST_OPTIONS` has tests start.
const RDMA: &str = "ms_type=async+rdma ms_async_rdma_device_name=rxe0 ms_async_op_threads=1 \
                    ms_async_rdma_polling_us=100 ms_async_rdma_receive_queue_len=256";

const BY_CM: &str = "ms_type=async+rdma ms_async_rdma_device_name=rxe0 ms_async_op_threads=1 \
                     ms_async_rdma_polling_us=100 ms_async_rdma_receive_queue_len=256 \
                     ms_async_rdma_cm=true";
const IWARP: &str = "ms_type=async+rdma ms_async_rdma_device_name=siw0 ms_async_op_threads=1 \
                     ms_async_rdma_polling_us=100 ms_async_rdma_receive_queue_len=256 \
                     ms_async_rdma_type=iwarp";

/// Whether the machine has what it promises.
const SMOKE: &str = include_str!("smoke.sh");
/// For all tests together, and the boot.
pub(super) const LIMIT: Duration = Duration::from_secs(1800);
/// In MiB.
const MEMORY: u32 = 4096;

/// Tests of one crate.
struct Tests {
    package: &'static str,
    /// What selects the test binaries, as `cargo test` has it: `--lib`, `--test NAME`.
    targets: &'static [&'static str],
    /// `SIPHON_TEST_OPTIONS`.
    options: &'static str,
    /// `SIPHON_TEST_IP`: where servers are; empty for the loopback interface.
    ip: &'static str,
    /// What is in the names of tests that need something else.
    skip: &'static [&'static str],
}

/// A test binary, with the folder that cargo would run it in.
#[derive(Debug, PartialEq, Eq)]
struct Binary {
    executable: PathBuf,
    package: PathBuf,
    options: &'static str,
    ip: &'static str,
    skip: &'static [&'static str],
}

/// The step of the whole verification.
pub(crate) fn step(steps: &mut Steps) -> Result<()> {
    let cache = Cache::open()?;
    let missing = missing(&cache)?;
    if !missing.is_empty() {
        return missing.into_iter().try_for_each(|reason| steps.skip(reason));
    }
    let machine = Machine {
        cpus: cpus_here(),
        memory: MEMORY,
        limit: LIMIT,
        shares: Vec::new(),
        accel: Accel::best(),
    };
    let image = Image::open(&cache)?;
    run(&cache, &image, &machine)
}

/// Builds the tests, then runs them in the machine.
pub(super) fn run(cache: &Cache, image: &Image, machine: &Machine) -> Result<()> {
    let mut binaries = Vec::new();
    for tests in TESTS {
        binaries.extend(tests.build()?);
    }
    let command = ["sh".into(), "-c".into(), script(&binaries)];
    let job = Job { command: &command, dir: root(), environment: env::vars_os().collect() };
    match machine.run(cache, image, &job)? {
        Ended::Job { code: 0 } => Ok(()),
        Ended::Job { .. } => bail!("tests failed in the RDMA machine"),
        ended => bail!("{ended}"),
    }
}

impl Tests {
    const fn of(package: &'static str, targets: &'static [&'static str]) -> Self {
        Self { package, targets, options: "", ip: "", skip: &[] }
    }

    fn build(&self) -> Result<Vec<Binary>> {
        let mut build = cargo(&["test", "--no-run", "--locked", "--message-format"]);
        build.args(["json-render-diagnostics", "-p", self.package]).args(self.targets);
        let messages = String::from_utf8(output(&mut build)?)?;
        let mut binaries = Vec::new();
        for message in messages.lines() {
            let message = serde_json::from_str(message).context("cargo's messages")?;
            binaries.extend(self.binary(&message));
        }
        if binaries.is_empty() {
            bail!("{} has no tests {:?}", self.package, self.targets);
        }
        Ok(binaries)
    }

    /// The test binary that one of cargo's messages tells of.
    fn binary(&self, message: &Value) -> Option<Binary> {
        let is_test = message["profile"]["test"].as_bool()?;
        let package = Path::new(message["manifest_path"].as_str()?).parent()?;
        is_test.then_some(Binary {
            executable: message["executable"].as_str()?.into(),
            package: package.to_owned(),
            options: self.options,
            ip: self.ip,
            skip: self.skip,
        })
    }
}

/// Runs everything, also after a failure; fails if any of it did.
fn script(binaries: &[Binary]) -> OsString {
    let smoke = quoted(SMOKE.as_ref());
    let mut script = OsString::from("failed=0\n");
    let mut add = |folder: &OsStr, command: &[&OsStr]| {
        for word in [OsStr::new("(cd "), folder, OsStr::new(" &&")] {
            script.push(word);
        }
        for word in command {
            script.push(" ");
            script.push(word);
        }
        script.push(") || failed=1\n");
    };
    add("/".as_ref(), &["sh".as_ref(), "-c".as_ref(), &smoke]);
    for Binary { executable, package, options, ip, skip } in binaries {
        let package = quoted(package.as_ref());
        let executable = quoted(executable.as_ref());
        let mut folder = OsString::from("CARGO_MANIFEST_DIR=");
        folder.push(&package);
        let mut variable = OsString::from("SIPHON_TEST_OPTIONS=");
        variable.push(quoted(options.as_ref()));
        let ip = OsString::from(format!("SIPHON_TEST_IP={ip}"));
        let mut command = vec![folder, variable, ip, executable];
        command.extend(skip.iter().flat_map(|name| ["--skip".into(), OsString::from(name)]));
        let command: Vec<&OsStr> = command.iter().map(OsString::as_os_str).collect();
        add(&package, &command);
    }
    script.push("exit $failed\n");
    script
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::json;

    use super::*;

    #[test]
    fn test_binaries_are_told_from_what_else_is_built() {
        let tests = Tests { options: "o=1", ip: "::1", skip: &["x"], ..Tests::of("a", &["--lib"]) };
        let message = |test: bool, executable: Value| {
            json!({
                "reason": "compiler-artifact",
                "manifest_path": "/tree/crates/a/Cargo.toml",
                "profile": { "test": test },
                "executable": executable,
            })
        };
        let binary = tests.binary(&message(true, json!("/target/a-1")));
        let (executable, package) = ("/target/a-1".into(), "/tree/crates/a".into());
        let (options, ip, skip) = ("o=1", "::1", &["x"][..]);
        assert_eq!(binary, Some(Binary { executable, package, options, ip, skip }));
        assert_eq!(tests.binary(&message(true, Value::Null)), None);
        assert_eq!(tests.binary(&message(false, json!("/target/tool"))), None);
        assert_eq!(tests.binary(&json!({ "reason": "build-finished", "success": true })), None);
    }

    #[test]
    fn a_failure_does_not_hide_the_tests_after_it() {
        let binary = |executable: &str, skip| Binary {
            executable: executable.into(),
            package: "/usr".into(),
            options: "",
            ip: "",
            skip,
        };
        let run = |binaries: &[Binary]| {
            let script = script(binaries).into_string().unwrap();
            let smoke = quoted(SMOKE.as_ref()).into_string().unwrap();
            let script = script.replace(&smoke, "'echo smoke'");
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        };
        let good = [binary("/bin/pwd", &[][..]), binary("/bin/echo", &["rdma::"][..])];
        assert_eq!(run(&good), (Some(0), "smoke\n/usr\n--skip rdma::\n".to_owned()));
        let bad = [binary("/bin/false", &[][..]), binary("/bin/pwd", &[][..])];
        assert_eq!(run(&bad), (Some(1), "smoke\n/usr\n".to_owned()));
    }
}
