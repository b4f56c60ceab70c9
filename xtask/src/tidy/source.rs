use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::layers::Layer;
use super::tokens::{Code, Place};
use super::{Finding, files};
use crate::root;

/// The longest file, in lines.
const MAX_LINES: usize = 800;

/// Notes to self, which belong in an issue. In pieces, so that this file has none of them.
const NOTES: [&str; 3] = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];

/// What stands for IO in a pure crate. Of `std::net` the types of addresses are data.
const IMPURE: [&str; 7] = [
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "Instant::now",
    "SystemTime::now",
];
const ADDRESSES: [&str; 7] = [
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "AddrParseError",
];

/// Checks the files of one crate.
pub(super) fn check(layer: &Layer) -> Result<Vec<Finding>> {
    let dir = root().join(layer.dir);
    let mut findings = Vec::new();
    for file in files(&dir)? {
        let short = file.strip_prefix(&dir).unwrap_or(&file);
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let is_rust = short.extension().is_some_and(|extension| extension == "rs");
        let mut broken = check_text(&text);
        if is_rust {
            let code = Code::parse(&text).with_context(|| file.display().to_string())?;
            broken.extend(check_code(layer, short, &code));
        }
        let shown = Path::new(layer.dir).join(short);
        findings.extend(broken.into_iter().map(|(line, rule)| Finding {
            file: shown.clone(),
            line,
            rule,
        }));
    }
    Ok(findings)
}

type Broken = Vec<(usize, String)>;

fn check_text(text: &str) -> Broken {
    let mut broken = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        for note in NOTES {
            if words(line).any(|word| word == note) {
                broken.push((number, format!("{note}: a leftover")));
            }
        }
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        broken.push((lines, format!("{lines} lines, more than {MAX_LINES}: split the file")));
    }
    broken
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn check_code(layer: &Layer, file: &Path, code: &Code) -> Broken {
    let mut broken: Broken = Vec::new();
    for name in ["todo", "dbg", "unimplemented"] {
        for line in code.macros(name) {
            broken.push((line, format!("{name}!: a leftover")));
        }
    }
    if !layer.unsafe_in.iter().any(|prefix| file.starts_with(prefix)) {
        for line in code.words("unsafe") {
            broken.push((line, format!("{} has no unsafe here", layer.name)));
        }
    }
    if layer.forbids_unsafe && file == Path::new("src/lib.rs") && !code.forbids_unsafe() {
        broken.push((1, "lib.rs says #![forbid(unsafe_code)]".to_owned()));
    }
    if layer.pure && file.starts_with("src") && !is_test_file(file) {
        for Place { path, line } in code.paths_before_tests() {
            if is_impure(&path) {
                broken.push((line, format!("{} is pure: {path}", layer.name)));
            }
        }
    }
    broken
}

/// A module of tests in files of its own.
fn is_test_file(file: &Path) -> bool {
    file.components().any(|part| {
        let name = part.as_os_str();
        name == "tests" || name == "tests.rs"
    })
}

fn is_impure(path: &str) -> bool {
    if let Some(name) = path.strip_prefix("std::net") {
        let name = name.trim_start_matches("::");
        return !ADDRESSES.contains(&name.split("::").next().unwrap_or_default());
    }
    let ends_in = |name: &str| path == name || path.ends_with(&format!("::{name}"));
    IMPURE.iter().any(|name| {
        path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            || (name.ends_with("::now") && ends_in(name))
    })
}

#[cfg(test)]
mod tests {
    use super::super::layers::LAYERS;
    use super::*;

    fn rules(name: &str, file: &str, text: &str) -> Vec<usize> {
        let layer = LAYERS.iter().find(|layer| layer.name == name).unwrap();
        let broken = check_code(layer, Path::new(file), &Code::parse(text).unwrap());
        broken.into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_pure_crate_has_no_io_but_addresses_and_tests_may() {
        let text = "#[cfg(test)] mod cases; use std::{fmt, fs};\n\
            use std::net::{IpAddr, TcpStream};\n\
            use std::net::SocketAddr;\n\
            // std::fs\n\
            const A: &str = \"std::fs\";\n\
            fn now() { std::time::Instant::now(); Instant::now(); std::thread::sleep(x); }\n\
            use std::time::Instant;\n\
            use std::{net::{UdpSocket, IpAddr}, time};\n\
            #[cfg(test)]\n\
            mod tests { use std::fs; }\n";
        assert_eq!(rules("siphon-wire", "src/a.rs", text), [1, 2, 6, 6, 6, 8]);
        assert!(rules("siphon-wire", "src/a/tests.rs", text).is_empty());
        assert!(rules("siphon-wire", "tests/a.rs", text).is_empty());
        assert!(rules("siphon-msgr", "src/a.rs", text).is_empty());
    }

    #[test]
    fn unsafe_stands_where_the_table_allows_it() {
        let text = "// unsafe\nfn f() { unsafe { g() } }";
        assert_eq!(rules("siphon-wire", "src/types.rs", text), [2]);
        assert!(rules("siphon-wire", "src/buf/aligned.rs", text).is_empty());
        assert!(rules("siphon-net", "src/sys.rs", text).is_empty());
        assert_eq!(rules("siphon-proto", "src/lib.rs", "mod a;"), [1]);
        assert!(rules("siphon-proto", "src/lib.rs", "#![forbid(unsafe_code)]\nmod a;").is_empty());
    }

    #[test]
    fn leftovers_are_found_in_code_and_in_comments() {
        let text = concat!("fn f() {\n to", "do!();\n /* dbg!(x) */ d", "bg!(x);\n}\n");
        assert_eq!(rules("siphon", "src/main.rs", text), [2, 3]);
        let note = format!("// {}: later\n// {}S is a word of its own\n", NOTES[0], NOTES[1]);
        assert_eq!(check_text(&note).len(), 1);
        assert_eq!(check_text(&"\n".repeat(MAX_LINES)).len(), 0);
        assert_eq!(check_text(&"\n".repeat(MAX_LINES + 1)).len(), 1);
    }
}
