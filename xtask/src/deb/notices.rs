//! The licences of the crates that are linked into the programs: theirs want to go along.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// The packages whose programs are packaged.
const PROGRAMS: [&str; 2] = ["siphon", "ceph-perf-msgr"];
/// How the names of files with licences begin.
const FILES: [&str; 6] = ["license", "licence", "copying", "copyright", "notice", "unlicense"];

/// All crates of others with their licences, and each text of a licence once.
pub(super) fn text(metadata: &Value) -> Result<String> {
    let packages: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()
        .context("packages")?
        .iter()
        .map(|it| (id(it), it))
        .collect();
    let mut listed = String::from("Siphon's programs contain these crates of others:\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in linked(metadata)?.iter().filter_map(|id| packages.get(id)) {
        // Those of the workspace have no source of theirs.
        if package["source"].is_null() {
            continue;
        }
        let field = |name: &str| package[name].as_str().unwrap_or("unknown");
        let name = format!("{} {}", field("name"), field("version"));
        writeln!(listed, "{name}: {}, {}", field("license"), field("repository"))?;
        let manifest = Path::new(field("manifest_path"));
        for text in licences(manifest.parent().context("a manifest is in a folder")?)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    for (text, names) in texts {
        writeln!(listed, "\n{}\n\n{}", names.join(", "), text.trim_end())?;
    }
    Ok(listed)
}

/// The ids of all packages whose code is in the programs, in order.
fn linked(metadata: &Value) -> Result<BTreeSet<&str>> {
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .context("cargo resolves no dependencies")?
        .iter()
        .map(|node| (id(node), node))
        .collect();
    let packages = metadata["packages"].as_array().context("packages")?;
    let is_ours = |it: &&Value| it["name"].as_str().is_some_and(|name| PROGRAMS.contains(&name));
    let mut waiting: Vec<&str> = packages.iter().filter(is_ours).map(id).collect();
    let mut linked = BTreeSet::new();
    while let Some(next) = waiting.pop() {
        if !linked.insert(next) {
            continue;
        }
        let node = nodes.get(next).with_context(|| format!("{next} is not resolved"))?;
        for dependency in node["deps"].as_array().into_iter().flatten() {
            // Neither what builds nor what tests.
            let kinds = dependency["dep_kinds"].as_array();
            if kinds.is_some_and(|kinds| kinds.iter().any(|it| it["kind"].is_null())) {
                waiting.extend(dependency["pkg"].as_str());
            }
        }
    }
    Ok(linked)
}

fn id(value: &Value) -> &str {
    value["id"].as_str().unwrap_or_default()
}

fn licences(folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_file() && FILES.iter().any(|file| name.starts_with(file)) {
            texts.push(fs::read_to_string(&path).with_context(|| path.display().to_string())?);
        }
    }
    texts.sort();
    Ok(texts)
}
