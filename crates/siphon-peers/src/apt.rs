//! What the host's Debian offers: installed programs, and the mirror that apt is configured with.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Missing;

/// The path of an installed program.
pub(crate) fn program(program: &'static str, package: &'static str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin"), PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .ok_or(Missing::Program { program, package })
}

/// The mirror from which the host's own Debian came.
pub(crate) fn mirror() -> Result<String, Missing> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.lines().any(|line| line == "ID=debian") {
        return Err(Missing::Mirror);
    }
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let mut suites = vec!["stable", "testing", "unstable", "sid"];
    suites.extend(codename);
    let mut files: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.push(PathBuf::from("/etc/apt/sources.list"));
    files.sort();
    files.iter().find_map(|file| mirror_in(file, &suites)).ok_or(Missing::Mirror)
}

/// The first mirror in one of apt's files that has one of the suites. Repositories of others name
/// suites of their own, and updates and security are suites apart.
fn mirror_in(file: &Path, suites: &[&str]) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("sources") => text.split("\n\n").find_map(|stanza| mirror_in_stanza(stanza, suites)),
        Some("list") => text.lines().find_map(|line| mirror_in_line(line, suites)),
        _ => None,
    }
}

/// The deb822 form, of sources.list(5).
fn mirror_in_stanza(stanza: &str, suites: &[&str]) -> Option<String> {
    let field = |name: &str| {
        stanza.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.split_whitespace())
        })
    };
    let enabled = field("Enabled").is_none_or(|mut values| values.next() != Some("no"));
    let binary = field("Types")?.any(|kind| kind == "deb");
    let ours = field("Suites")?.any(|suite| suites.contains(&suite));
    let main = field("Components")?.any(|component| component == "main");
    if enabled && binary && ours && main { field("URIs")?.next().map(str::to_owned) } else { None }
}

/// The one-line form, of sources.list(5): `deb [options] URI suite component...`.
fn mirror_in_line(line: &str, suites: &[&str]) -> Option<String> {
    let rest = line.trim().strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    (suites.contains(&suite) && words.any(|word| word == "main")).then(|| uri.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_found_in_both_forms_and_not_among_others() {
        let suites = ["bookworm"];
        let found = |stanza| mirror_in_stanza(stanza, &suites);
        assert_eq!(
            found(
                "# a\nTypes: deb deb-src\nURIs: http://a/debian\nSuites: bookworm b\nComponents: main\n"
            ),
            Some("http://a/debian".to_owned())
        );
        for other in [
            "Types: deb\nURIs: http://a\nSuites: bookworm-security\nComponents: main",
            "Types: deb-src\nURIs: http://a\nSuites: bookworm\nComponents: main",
            "Types: deb\nEnabled: no\nURIs: http://a\nSuites: bookworm\nComponents: main",
            "Types: deb\nURIs: http://a\nSuites: bookworm\nComponents: contrib",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
        let found = |line| mirror_in_line(line, &suites);
        assert_eq!(found("deb http://a bookworm main"), Some("http://a".to_owned()));
        assert_eq!(found("deb [a=b c=d] http://a bookworm x main"), Some("http://a".to_owned()));
        for other in [
            "deb http://a cloud-bookworm main",
            "#deb http://a bookworm main",
            "deb-src http://a bookworm main",
            "deb http://a bookworm",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
