//! Pages find each other: the summary has all of them, and every link leads somewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::page::{Page, pages, root};

/// Pages beside the book that link, and are linked to.
const BESIDE: [&str; 3] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "STYLE.md"];

#[test]
fn the_summary_has_every_page_once() {
    let docs = root().join("docs");
    let summary = Page::read(docs.join("SUMMARY.md"));
    let listed: Vec<PathBuf> = summary.links.iter().map(|(link, _)| docs.join(link)).collect();
    let once: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice: {listed:?}");
    let pages = pages().into_iter().map(|page| page.path);
    let pages: BTreeSet<_> =
        pages.filter(|path| path.starts_with(&docs) && !path.ends_with("SUMMARY.md")).collect();
    assert_eq!(once, pages, "left: docs/SUMMARY.md has; right: there are");
}

#[test]
fn every_link_leads_somewhere() {
    let beside = BESIDE.iter().map(|name| Page::read(root().join(name)));
    let pages: Vec<_> = pages().into_iter().chain(beside).collect();
    let mut broken = Vec::new();
    let mut links = 0;
    for page in &pages {
        let local = page.links.iter().filter(|(link, _)| !link.starts_with("https://"));
        for (link, line) in local {
            links += 1;
            if let Err(why) = lookup(page, link, &pages) {
                broken.push(format!("{}:{line}: {link}: {why}", page.name()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(links > 30, "links are looked for: {links} were found");
}

/// Where a link leads, if it does.
fn lookup(page: &Page, link: &str, pages: &[Page]) -> Result<(), &'static str> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = page.path.parent().unwrap_or(Path::new(""));
    let target = if file.is_empty() { page.path.clone() } else { folder.join(file) };
    if !target.exists() {
        return Err("no such file");
    }
    let in_book = |path: &Path| path.starts_with(root().join("docs")) && !file.contains("..");
    if in_book(&page.path) && !in_book(&target) {
        return Err("a page of the book links to what is not in the book");
    }
    let target = pages.iter().find(|page| page.path == target);
    match target {
        _ if anchor.is_empty() => Ok(()),
        Some(target) if target.anchors.iter().any(|it| it == anchor) => Ok(()),
        _ => Err("no such heading"),
    }
}
