//! Programs are files of the repository, and a page says which crates they take.

use std::collections::BTreeSet;
use std::fs;

use crate::page::{Page, pages, root};

/// `SNAPSHOTS=overwrite` has them be so, as it does with snapbox's files.
#[test]
fn programs_are_files() {
    let overwrite = std::env::var("SNAPSHOTS").is_ok_and(|it| it == "overwrite");
    let mut others = Vec::new();
    for page in pages() {
        let mut text = page.text.clone();
        // From the end, so that places stay what they are.
        for block in page.blocks.iter().rev() {
            let Some(program) = block.program() else { continue };
            let file = fs::read_to_string(root().join(program));
            let file = file.unwrap_or_else(|error| panic!("{program}: {error}"));
            if file != block.text {
                others.push(format!("{}:{}: it is not {program}", page.name(), block.line));
                text.replace_range(block.range.clone(), &file);
            }
        }
        if overwrite {
            fs::write(&page.path, text).expect("a page can be written");
        }
    }
    assert!(overwrite || others.is_empty(), "{others:#?}; `cargo xtask book --bless` has them be");
}

/// Building a package of its own for each program would take minutes: its crates would be built anew.
#[test]
fn whoever_adds_the_crates_that_a_page_names_has_all_that_its_programs_use() {
    let mut checked = 0;
    for page in pages() {
        checked += check(&page);
    }
    assert!(checked > 2, "there are such programs");
}

/// How many programs of the page have been looked at.
fn check(page: &Page) -> usize {
    let mut added: Option<BTreeSet<String>> = None;
    let mut checked = 0;
    for block in &page.blocks {
        if let (Some(_), Some(added)) = (block.program(), &added) {
            let used = crates(&block.text);
            assert_eq!(&used, added, "{}:{}: left: used, right: added", page.name(), block.line);
            checked += 1;
        }
        for line in block.text.lines().filter(|_| block.language == "sh") {
            if line.starts_with("cargo new ") {
                added = Some(BTreeSet::new());
            }
            if let (Some(names), Some(added)) = (line.strip_prefix("cargo add "), &mut added) {
                added.extend(names.split(' ').map(str::to_owned));
            }
        }
    }
    checked
}

/// The crates that a program names, as `cargo add` has them.
fn crates(program: &str) -> BTreeSet<String> {
    let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let paths = program.lines().filter(|line| !line.trim().starts_with("//")).flat_map(|line| {
        line.match_indices("::").filter_map(move |(at, _)| {
            let before = &line[..at];
            let start = before.rfind(|it: char| !is_name(it)).map_or(0, |it| it + 1);
            let (path, name) = before.split_at(start);
            let is_first = !path.ends_with([':', '.']);
            let is_type = name.starts_with(|it: char| it.is_ascii_uppercase());
            (is_first && !is_type && start < at).then(|| name.replace('_', "-"))
        })
    });
    paths.filter(|name| name != "std").collect()
}
