//! The book says what is so: every command in README.md and docs/ is run, every configuration file
//! checked, every program built and run, every link followed.
//!
//! A comment before a block says what it needs, or what is done with it: [`page::Directive`].

mod links;
mod page;
mod programs;
mod shell;
mod world;

use page::{Page, pages};
use shell::{Tally, run_page};
use world::Clusters;

/// Blocks that no test can run: what there is no machine or release for.
const MAX_IGNORED: usize = 5;

#[test]
fn every_block_runs() {
    let clusters = Clusters::default();
    let mut tally = Tally::default();
    let only = std::env::var("SIPHON_BOOK_PAGE").ok();
    let wanted = |page: &Page| only.as_deref().is_none_or(|name| page.path.ends_with(name));
    for page in pages().into_iter().filter(wanted) {
        run_page(&page, &clusters, false, &mut tally);
    }
    let Tally { ran, elsewhere, ignored, skipped, failures } = tally;
    println!("{ran} blocks ran, {skipped} were skipped; elsewhere run {}:", elsewhere.len());
    elsewhere.iter().for_each(|elsewhere| println!("  {elsewhere}"));
    println!("{} are not run:", ignored.len());
    ignored.iter().for_each(|ignored| println!("  {ignored}"));
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(ignored.len() <= MAX_IGNORED, "{} blocks are ignored: {ignored:#?}", ignored.len());
    assert!(ran > 0, "there are blocks");
}

/// In the machine that has RDMA devices.
#[test]
fn every_block_about_rdma_runs() {
    if std::env::var_os("SIPHON_RDMA_VM").is_none() {
        println!("SKIPPED: needs RDMA devices: cargo xtask rdma-vm --suite");
        return;
    }
    let clusters = Clusters::default();
    let mut tally = Tally::default();
    for page in pages() {
        run_page(&page, &clusters, true, &mut tally);
    }
    assert!(tally.failures.is_empty(), "{}", tally.failures.join("\n\n"));
    assert!(tally.ran > 0, "there are such blocks");
}
