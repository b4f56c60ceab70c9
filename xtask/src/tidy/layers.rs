use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;

/// A crate's place and what it may do: the one source of these rules.
pub(super) struct Layer {
    pub(super) name: &'static str,
    /// Its folder in the workspace.
    pub(super) dir: &'static str,
    /// It may depend on crates of a lower rank only.
    rank: u8,
    /// Crates of a lower rank on which it may not depend either.
    never: &'static [&'static str],
    /// No sockets, files, threads, clocks: everything is an argument.
    pub(super) pure: bool,
    /// Where it may have `unsafe`: prefixes of paths in its folder.
    pub(super) unsafe_in: &'static [&'static str],
    /// It says `#![forbid(unsafe_code)]`.
    pub(super) forbids_unsafe: bool,
}

const fn layer(rank: u8, name: &'static str, dir: &'static str) -> Layer {
    Layer { name, dir, rank, never: &[], pure: false, unsafe_in: &[], forbids_unsafe: false }
}

const fn pure(rank: u8, name: &'static str, dir: &'static str) -> Layer {
    Layer { pure: true, ..layer(rank, name, dir) }
}

/// Mechanisms know nothing of what they carry.
const PROTOCOL: &[&str] = &["siphon-auth", "siphon-proto", "siphon-messages"];

/// From the bottom up. A crate that is not here is an error.
pub(super) static LAYERS: &[Layer] = &[
    pure(0, "siphon-wire-derive", "crates/siphon-wire-derive"),
    Layer { unsafe_in: &["src/buf"], ..pure(1, "siphon-wire", "crates/siphon-wire") },
    pure(2, "siphon-auth", "crates/siphon-auth"),
    Layer { forbids_unsafe: true, ..pure(3, "siphon-proto", "crates/siphon-proto") },
    pure(4, "siphon-messages", "crates/siphon-messages"),
    // Maps are data: who moves them is above.
    Layer { forbids_unsafe: true, ..pure(2, "siphon-crush", "crates/siphon-crush") },
    Layer { forbids_unsafe: true, ..pure(3, "siphon-osdmap", "crates/siphon-osdmap") },
    Layer { never: PROTOCOL, ..layer(4, "siphon-common", "crates/siphon-common") },
    Layer {
        never: PROTOCOL,
        unsafe_in: &["src", "tests/forked"],
        ..layer(3, "siphon-verbs", "crates/siphon-verbs")
    },
    Layer {
        never: PROTOCOL,
        unsafe_in: &["src", "tests", "benches"],
        ..layer(4, "siphon-net", "crates/siphon-net")
    },
    // Typed messages are for those who stand on the messenger.
    Layer { never: &["siphon-messages"], ..layer(5, "siphon-msgr", "crates/siphon-msgr") },
    layer(6, "siphon-perf", "crates/siphon-perf"),
    Layer { forbids_unsafe: true, ..layer(6, "siphon-version", "crates/siphon-version") },
    Layer { forbids_unsafe: true, ..layer(6, "siphon-monclient", "crates/siphon-monclient") },
    Layer { forbids_unsafe: true, ..layer(7, "siphon-objecter", "crates/siphon-objecter") },
    Layer { forbids_unsafe: true, ..layer(8, "siphon-rados", "crates/siphon-rados") },
    layer(9, "siphon", "crates/siphon"),
    layer(7, "ceph-perf-msgr", "crates/ceph-perf-msgr"),
    // For tests, benchmarks and chores only: others may have them as dev-dependencies.
    layer(8, "siphon-peers", "crates/siphon-peers"),
    layer(8, "siphon-sim", "crates/siphon-sim"),
    // Not in the workspace, so that nobody can depend on it.
    layer(9, "siphon-fuzz", "fuzz"),
    layer(9, "xtask", "xtask"),
];

/// Crates that do IO, wait, or make up randomness.
const IMPURE: &[&str] = &[
    "async-io",
    "async-std",
    "getrandom",
    "io-uring",
    "libc",
    "libloading",
    "mio",
    "nix",
    "rand",
    "rustix",
    "smol",
    "socket2",
    "tokio",
];

/// Checks each edge between two crates of the workspace, and what pure crates depend on.
///
/// Dev-dependencies are free: a test may stand higher than what it tests.
pub(super) fn check(metadata: &Value) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in array(&metadata["packages"])? {
        let name = text(&package["name"])?;
        let manifest = PathBuf::from(text(&package["manifest_path"])?);
        let mut broken = |rule| findings.push(Finding { file: manifest.clone(), line: 1, rule });
        let Some(from) = find(name) else {
            broken(format!("{name} has no layer yet: it belongs in xtask's table of layers"));
            continue;
        };
        for dependency in array(&package["dependencies"])? {
            if dependency["kind"] != "dev" {
                edge(from, text(&dependency["name"])?).into_iter().for_each(&mut broken);
            }
        }
    }
    Ok(findings)
}

/// What is wrong with one dependency.
fn edge(from: &Layer, name: &str) -> Option<String> {
    let from_name = from.name;
    match find(name) {
        Some(to) if to.rank >= from.rank => {
            Some(format!("{from_name} may not depend on {name}, which is not below it"))
        }
        Some(_) if from.never.contains(&name) => {
            Some(format!("{from_name} may not depend on {name}: see the table of layers"))
        }
        None if from.pure && IMPURE.contains(&name) => {
            Some(format!("{from_name} is pure and may not depend on {name}"))
        }
        _ => None,
    }
}

fn find(name: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.name == name)
}

fn array(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("cargo's metadata has an array here")
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("cargo's metadata has text here")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(name: &str, dependency: &str, kind: Value) -> usize {
        let dependency = json!({ "name": dependency, "kind": kind });
        let package =
            json!({ "name": name, "manifest_path": "Cargo.toml", "dependencies": [dependency] });
        check(&json!({ "packages": [package] })).unwrap().len()
    }

    #[test]
    fn an_edge_goes_down_only() {
        for (name, dependency, broken) in [
            ("siphon-proto", "siphon-wire", 0),
            ("siphon-wire", "siphon-proto", 1),
            ("siphon-net", "siphon-common", 1),
            ("siphon-net", "siphon-proto", 1),
            ("siphon-msgr", "siphon-messages", 1),
            ("siphon-perf", "siphon-messages", 0),
            ("siphon-perf", "siphon-peers", 1),
            ("siphon-proto", "rustix", 1),
            ("siphon-net", "rustix", 0),
            ("siphon-new", "bytes", 1),
        ] {
            assert_eq!(rules(name, dependency, Value::Null), broken, "{name} -> {dependency}");
        }
        assert_eq!(rules("siphon-msgr", "siphon-messages", json!("dev")), 0);
        assert_eq!(rules("siphon-msgr", "siphon-messages", json!("build")), 1);
    }
}
