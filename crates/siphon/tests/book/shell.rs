//! The blocks of a page, run in turn.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use siphon_peers::{Leash, PeerError, run};
use snapbox::filter::{Filter as _, FilterNewlines, NormalizeToExpected};
use snapbox::{Data, IntoData as _};

use crate::page::{Block, Directive, Page, root};
use crate::world::{Clusters, World};

/// For one block, on a machine that is busy with other tests.
const TIMEOUT: Duration = Duration::from_secs(180);
/// For an example that was not built along with the test.
const BUILD_TIMEOUT: Duration = Duration::from_secs(900);

/// What stands before every script. Readers measure for seconds, which says no more to a test than a
/// moment does. `cargo` has built the command already, and the program that stands above the block; our
/// crates are taken from here, and others from what this machine has of the registry.
const PRELUDE: &str = r#"
siphon() {
    case "$*" in
        "perf server "* | *"--seconds "* | *"--ops "*) command siphon "$@" ;;
        "perf sweep"*) command siphon "$@" --stacks posix --sizes 64,4K --depths 1 --seconds 0.02 --rounds 1 ;;
        "perf"*) command siphon "$@" --seconds 0.05 ;;
        *" bench 10 write"*) command siphon "${@/#%10/1}" --max-objects 500 ;;
        *" bench 10 "*) command siphon "${@/#%10/1}" ;;
        *) command siphon "$@" ;;
    esac
}
cargo() {
    case "$*" in
        "run --release -- "*) shift 3 && siphon "$@" ;;
        "run"*) shift && if [ "${1-}" = -- ]; then shift; fi && "$PROGRAM" "$@" ;;
        "add siphon-"*) shift && for name; do command cargo add --quiet --offline --path "$CRATES/$name"; done ;;
        "add "* | "new "*) command cargo "$@" --quiet --offline ;;
        *) command cargo "$@" ;;
    esac
}
"#;

/// What became of a page's blocks.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) ran: usize,
    /// Blocks that others run, and which.
    pub(crate) elsewhere: Vec<String>,
    /// Blocks that nobody runs, and why.
    pub(crate) ignored: Vec<String>,
    pub(crate) skipped: usize,
    pub(crate) failures: Vec<String>,
}

/// Runs all blocks of a page; `rdma` has those that need RDMA devices run, and only those.
pub(crate) fn run_page(page: &Page, clusters: &Clusters, rdma: bool, tally: &mut Tally) {
    tally.failures.extend(page.mistakes.iter().cloned());
    let wanted = |block: &&Block| block.has(&Directive::Rdma) == rdma;
    let blocks: Vec<_> = page.blocks.iter().filter(wanted).collect();
    let with_cluster = blocks.iter().any(|block| block.has(&Directive::Cluster));
    let world = World::new(clusters, with_cluster);
    let mut background = Vec::new();
    for block in blocks {
        let place = format!("{}:{}", page.name(), block.line);
        match block.run(&world, &mut background) {
            Ok(Ran::Done) => tally.ran += 1,
            Ok(Ran::Ignored(reason)) => tally.ignored.push(format!("{place}: {reason}")),
            Ok(Ran::Elsewhere(what)) => tally.elsewhere.push(format!("{place}: {what}")),
            Ok(Ran::Skipped(missing)) => {
                println!("SKIPPED: {place}: there is no {missing}");
                tally.skipped += 1;
            }
            Ok(Ran::Text) => {}
            Err(why) => {
                let logs: Vec<_> = background.iter().map(Leash::output).collect();
                tally.failures.push(format!("{place}: {why}\n{}", logs.join("\n")));
            }
        }
    }
}

enum Ran {
    Done,
    /// It cannot be run, for this reason.
    Ignored(String),
    /// This runs it.
    Elsewhere(String),
    /// This machine has not what it needs.
    Skipped(String),
    /// There is nothing to run.
    Text,
}

impl Block {
    pub(crate) fn has(&self, directive: &Directive) -> bool {
        self.directives.contains(directive)
    }

    fn run(&self, world: &World<'_>, background: &mut Vec<Leash>) -> Result<Ran, String> {
        for directive in &self.directives {
            match directive {
                Directive::Ignore(reason) => return Ok(Ran::Ignored(reason.clone())),
                Directive::Elsewhere(what) => return Ok(Ran::Elsewhere(what.clone())),
                _ => {}
            }
        }
        for directive in &self.directives {
            let missing = match directive {
                Directive::Cluster if !world.has_cluster() => "cluster",
                Directive::Needs(program) if !world.has_program(program) => program,
                _ => continue,
            };
            return match std::env::var_os("CI") {
                Some(_) => Err(format!("{missing} is missing; in CI nothing is skipped")),
                None => Ok(Ran::Skipped(missing.to_owned())),
            };
        }
        if let Some(name) = self.find(|it| match it {
            Directive::Save(name) => Some(name),
            _ => None,
        }) {
            let saved = fs::write(world.folder().join(name), world.translate(&self.text));
            saved.map_err(|error| format!("{name}: {error}"))?;
        }
        match self.language.as_str() {
            "sh" => self.run_script(world, background).map(|()| Ran::Done),
            "console" => self.run_dialogue(world).map(|()| Ran::Done),
            "ini" => self.check_conf(world).map(|()| Ran::Done),
            "rust" => self.build_program(world).map(|()| Ran::Done),
            "text" if self.text.starts_with("$ ") => Err("a command is no text".to_owned()),
            "text" => Ok(Ran::Text),
            other => {
                Err(format!("nobody knows how to test '{other}': sh, console, ini, rust or text?"))
            }
        }
    }

    fn find<'a, T>(&'a self, wanted: impl FnMut(&'a Directive) -> Option<T>) -> Option<T> {
        self.directives.iter().find_map(wanted)
    }

    /// The status that the last command is to have.
    fn status(&self) -> i32 {
        let status = self.find(|it| match it {
            Directive::Exits(status) => Some(*status),
            _ => None,
        });
        status.unwrap_or(0)
    }

    fn run_script(&self, world: &World<'_>, background: &mut Vec<Leash>) -> Result<(), String> {
        let script = world.translate(&self.text);
        if let Some(what) = self.find(|it| match it {
            Directive::Background(what) => Some(world.translate(what)),
            _ => None,
        }) {
            for line in script.lines() {
                let log = world.folder().join(format!("background-{}", background.len()));
                let leash = Leash::start(world.shell(&format!("exec {line}")), log);
                background.push(leash.map_err(|error| error.to_string())?);
            }
            let leash = background.last().ok_or("there is nothing to be started")?;
            return wait_until_there(world, leash, &what);
        }
        if self.has(&Directive::Terminal) {
            return on_a_terminal(world, &script);
        }
        let command = world.shell(&format!("{PRELUDE}{script}"));
        let (status, output) = ended(command)?;
        match status == self.status() {
            true => Ok(()),
            false => Err(format!("exit code {status}, and not {}: {output}", self.status())),
        }
    }

    /// Commands behind `$ `, each with what it prints.
    fn run_dialogue(&self, world: &World<'_>) -> Result<(), String> {
        let text = world.translate(&self.text);
        let text = text.strip_prefix("$ ").ok_or("a console block begins with '$ '")?;
        let steps: Vec<_> = text.split("\n$ ").collect();
        for (number, step) in steps.iter().enumerate() {
            let (line, expected) = step.split_once('\n').unwrap_or((step, ""));
            let command = world.shell(&format!("{PRELUDE}exec 2>&1\n{line}"));
            let (status, actual) = ended(command)?;
            let wanted = if number + 1 == steps.len() { self.status() } else { 0 };
            if status != wanted {
                return Err(format!("{line}: exit code {status}, and not {wanted}: {actual}"));
            }
            if !expected.trim().is_empty() {
                compare(line, expected, &actual)?;
            }
        }
        Ok(())
    }

    /// What stands in the book as a configuration file is one.
    fn check_conf(&self, world: &World<'_>) -> Result<(), String> {
        let file = world.folder().join("block.conf");
        fs::write(&file, world.translate(&self.text)).map_err(|error| error.to_string())?;
        let (status, output) = ended(world.shell("siphon config check block.conf"))?;
        if status == 0 { Ok(()) } else { Err(output) }
    }

    /// A program is a file of the repository, an example, which is built: the blocks below run it.
    fn build_program(&self, world: &World<'_>) -> Result<(), String> {
        let program = self.program().ok_or("which file is this? <!-- test: program PATH -->")?;
        let name = Path::new(program).file_stem().and_then(|it| it.to_str()).unwrap_or_default();
        // Of the whole workspace, as the examples were built that stand beside this test.
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).args([
            "build",
            "--workspace",
            "--locked",
            "--offline",
            "--quiet",
        ]);
        cargo.args(["--example", name]);
        let (status, output) = ended_within(cargo, BUILD_TIMEOUT)?;
        world.set_program(name);
        if status == 0 { Ok(()) } else { Err(output) }
    }

    /// The file of the repository that this block is.
    pub(crate) fn program(&self) -> Option<&str> {
        self.find(|it| match it {
            Directive::Program(path) => Some(path.as_str()),
            _ => None,
        })
    }
}

/// Runs a command to its end: its exit code, and what it wrote.
fn ended(command: Command) -> Result<(i32, String), String> {
    ended_within(command, TIMEOUT)
}

fn ended_within(mut command: Command, timeout: Duration) -> Result<(i32, String), String> {
    command.stdin(Stdio::null());
    match run(command, timeout) {
        Ok(output) => Ok((0, String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(PeerError::Failed { status, output, .. }) => Ok((status.code().unwrap_or(-1), output)),
        Err(error) => Err(error.to_string()),
    }
}

/// Waits until what goes on while the page does is there: at an address, or a file.
fn wait_until_there(world: &World<'_>, leash: &Leash, what: &str) -> Result<(), String> {
    let is_there = match what.parse::<SocketAddr>() {
        Ok(addr) => leash.wait_until_listening(addr, TIMEOUT),
        Err(_) => {
            let path = Path::new(what);
            leash.wait_until("at work", TIMEOUT, || world.folder().join(path).exists())
        }
    };
    is_there.map_err(|error| error.to_string())
}

/// Runs a command on a terminal of its own, and types q.
fn on_a_terminal(world: &World<'_>, script: &str) -> Result<(), String> {
    let quoted = script.trim().replace('\'', r"'\''");
    let typed = format!("printf q | script --quiet --return --command '{quoted}' /dev/null");
    let (status, output) = ended(world.shell(&typed))?;
    if status == 0 { Ok(()) } else { Err(format!("exit code {status}: {output}")) }
}

/// Whether this is what was to be printed: `[..]` stands for a part of a line, `...` for lines.
fn compare(line: &str, expected: &str, actual: &str) -> Result<(), String> {
    let text = |text: &str| FilterNewlines.filter(format!("{}\n", text.trim_end()).into_data());
    let expected: Data = text(expected);
    let actual = NormalizeToExpected::new().redact().normalize(text(actual), &expected);
    if actual == expected {
        return Ok(());
    }
    let mut difference = String::new();
    let (book, printed) = (&"the book", &"what was printed");
    let palette = snapbox::report::Palette::plain();
    snapbox::report::write_diff(
        &mut difference,
        &expected,
        &actual,
        Some(book),
        Some(printed),
        palette,
    )
    .map_err(|error| error.to_string())?;
    Err(format!("{line}\n{difference}"))
}
