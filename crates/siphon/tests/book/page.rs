//! Pages of the book, as far as the tests read them: code blocks, what is said of them, links, headings.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// The top of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/siphon is in it")
}

/// The pages whose blocks are run: README.md, and all of the book.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("docs and all below can be read") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}

/// A page, with what the tests want of it.
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) blocks: Vec<Block>,
    /// Where they lead, with their lines.
    pub(crate) links: Vec<(String, usize)>,
    /// The names of headings, by which links find them.
    pub(crate) anchors: Vec<String>,
    /// Directives that no block follows, and others that say nothing.
    pub(crate) mistakes: Vec<String>,
}

/// A code block, and what the comment before it says.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    pub(crate) directives: Vec<Directive>,
    pub(crate) line: usize,
    /// Where its text is in the page.
    pub(crate) range: Range<usize>,
}

/// What a block needs, or what is done with it: `<!-- test: cluster; exits 1 -->` before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Directive {
    /// `cluster`: a real cluster, which /etc/ceph/ceph.conf is of.
    Cluster,
    /// `needs PROGRAM`: a program that is installed, as Ceph's own `ceph`.
    Needs(String),
    /// `rdma`: RDMA devices, which are in the machine of `cargo xtask rdma-vm`.
    Rdma,
    /// `terminal`: it runs on a terminal, and is ended by the key q.
    Terminal,
    /// `background WHAT`: its lines run, each for itself, until the page ends; the next block waits until
    /// something listens at this address, or there is this file.
    Background(String),
    /// `exits N`: the status of the last command.
    Exits(i32),
    /// `save FILE`: the text is that file.
    Save(String),
    /// `program FILE`: the text is that file of the repository.
    Program(String),
    /// `elsewhere: WHAT`: that runs it, and not this test.
    Elsewhere(String),
    /// `ignore: REASON`: it is not run.
    Ignore(String),
}

impl Directive {
    fn parse(text: &str) -> Result<Self, String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim().to_owned();
        match (word, rest.is_empty()) {
            ("cluster", true) => Ok(Self::Cluster),
            ("rdma", true) => Ok(Self::Rdma),
            ("terminal", true) => Ok(Self::Terminal),
            ("needs", false) => Ok(Self::Needs(rest)),
            ("background", false) => Ok(Self::Background(rest)),
            ("save", false) => Ok(Self::Save(rest)),
            ("program", false) => Ok(Self::Program(rest)),
            ("elsewhere:", false) => Ok(Self::Elsewhere(rest)),
            ("ignore:", false) => Ok(Self::Ignore(rest)),
            ("exits", false) => rest.parse().map(Self::Exits).map_err(|it| format!("{text}: {it}")),
            _ => Err(format!("no directive: '{text}'")),
        }
    }
}

impl Page {
    pub(crate) fn read(path: PathBuf) -> Self {
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut page = Self {
            path,
            text,
            blocks: Vec::new(),
            links: Vec::new(),
            anchors: Vec::new(),
            mistakes: Vec::new(),
        };
        page.parse();
        page
    }

    /// Its name in the repository.
    pub(crate) fn name(&self) -> String {
        self.path.strip_prefix(root()).expect("it is there").display().to_string()
    }

    fn parse(&mut self) {
        let text = std::mem::take(&mut self.text);
        let mut waiting: Vec<Directive> = Vec::new();
        let mut heading: Option<String> = None;
        let mut block: Option<Block> = None;
        let line = |at: usize| text[..at].matches('\n').count() + 1;
        for (event, range) in Parser::new_ext(&text, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Html(html) => {
                    if let Some(said) = html.trim().strip_prefix("<!-- test:") {
                        let said = said.trim_end_matches("-->");
                        for said in said.split(';') {
                            match Directive::parse(said.trim()) {
                                Ok(directive) => waiting.push(directive),
                                Err(mistake) => self.mistake(line(range.start), &mistake),
                            }
                        }
                    }
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let CodeBlockKind::Fenced(info) = kind else {
                        self.mistake(line(range.start), "an indented block: say its language");
                        continue;
                    };
                    // An empty block has its text behind its first line.
                    let first =
                        text[range.start..].find('\n').map_or(range.end, |it| range.start + it + 1);
                    block = Some(Block {
                        language: info.to_string(),
                        text: String::new(),
                        directives: std::mem::take(&mut waiting),
                        line: line(range.start),
                        range: first..first,
                    });
                }
                Event::End(TagEnd::CodeBlock) => self.blocks.extend(block.take()),
                Event::Text(part) if block.is_some() => {
                    let block = block.as_mut().expect("there is one");
                    if block.text.is_empty() {
                        block.range.start = range.start;
                    }
                    block.range.end = range.end;
                    block.text.push_str(&part);
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    let same = |it: &&String| {
                        **it == anchor
                            || it.rsplit_once('-').is_some_and(|(name, _)| name == anchor)
                    };
                    let anchor = match self.anchors.iter().filter(same).count() {
                        0 => anchor,
                        before => format!("{anchor}-{before}"),
                    };
                    self.anchors.push(anchor);
                }
                Event::Text(part) | Event::Code(part) if heading.is_some() => {
                    heading.as_mut().expect("there is one").push_str(&part);
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    self.links.push((dest_url.to_string(), line(range.start)));
                }
                Event::Start(Tag::Paragraph) if !waiting.is_empty() => {
                    self.mistake(line(range.start), "a directive stands right before its block");
                    waiting.clear();
                }
                _ => {}
            }
        }
        if !waiting.is_empty() {
            self.mistake(line(text.len()), "a directive without a block");
        }
        self.text = text;
    }

    fn mistake(&mut self, line: usize, what: &str) {
        let mistake = format!("{}:{line}: {what}", self.name());
        self.mistakes.push(mistake);
    }
}

/// What a heading is called in a link: GitHub's rule, which mdBook's is for the headings that we have.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|it| it.is_alphanumeric() || [' ', '-', '_'].contains(it));
    kept.map(|it| if it == ' ' { '-' } else { it.to_ascii_lowercase() }).collect()
}
