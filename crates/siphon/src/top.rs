//! `siphon top`: what messengers do just now, on a terminal, from their processes' admin sockets.

mod model;
mod view;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::Value;
use siphon_common::admin_socket;

use self::model::{Model, Sample};
use self::view::View;
use crate::interrupt::Interrupt;

/// Where Ceph's daemons have their sockets.
const RUN_DIR: &str = "/var/run/ceph";
/// How long a signal may go unheeded: no key is waited for longer at once.
const SIGNAL_CHECK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Admin sockets of Ceph's daemons or ours [default: all in /var/run/ceph]
    socket: Vec<PathBuf>,
    /// Seconds between two looks
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    interval: f64,
    /// Take two looks, print what was between them as text, and end
    #[arg(long)]
    once: bool,
}

#[expect(clippy::disallowed_methods, reason = "rates are by the clock")]
pub(crate) fn run(args: &Args) -> Result<()> {
    if !(0.1..=3600.0).contains(&args.interval) {
        bail!("--interval {}: between 0.1 and 3600 seconds are possible", args.interval);
    }
    let sockets = match args.socket.is_empty() {
        true => sockets_of(Path::new(RUN_DIR))?,
        false => args.socket.clone(),
    };
    let interval = Duration::from_secs_f64(args.interval);
    let mut model = Model::default();
    model.add(look(&sockets), Instant::now());
    if args.once {
        std::thread::sleep(interval);
        model.add(look(&sockets), Instant::now());
        print!("{}", view::text(&model));
        return match model.answers() {
            0 => bail!("{}", model.failures().join("; ")),
            _ => Ok(()),
        };
    }
    if !std::io::stdout().is_terminal() {
        bail!("the output is no terminal: --once prints text");
    }
    let interrupt = Interrupt::listen()?;
    let mut terminal = ratatui::try_init()?;
    let result = watch(&mut terminal, &sockets, interval, &mut model, &interrupt);
    ratatui::restore();
    result
}

#[expect(clippy::disallowed_methods, reason = "rates are by the clock")]
fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    sockets: &[PathBuf],
    interval: Duration,
    model: &mut Model,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut view = View::default();
    let mut next = Instant::now() + interval;
    while !interrupt.is_set() {
        terminal.draw(|frame| view.draw(frame, model))?;
        if wait_for_key(next, interrupt)? {
            let Event::Key(key) = event::read()? else {
                continue;
            };
            let interrupts = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                _ if key.kind == KeyEventKind::Release => {}
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if interrupts => return Ok(()),
                code => view.handle_key(code),
            }
        }
        if Instant::now() >= next {
            model.add(look(sockets), Instant::now());
            next = Instant::now() + interval;
        }
    }
    Ok(())
}

/// Waits until a key is there, or until `end`, or for a signal: then there is no key.
#[expect(clippy::disallowed_methods, reason = "rates are by the clock")]
fn wait_for_key(end: Instant, interrupt: &Interrupt) -> Result<bool> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if interrupt.is_set() {
            return Ok(false);
        } else if event::poll(left.min(SIGNAL_CHECK))? {
            return Ok(true);
        } else if left <= SIGNAL_CHECK {
            return Ok(false);
        }
    }
}

/// What each process tells now.
fn look(sockets: &[PathBuf]) -> Vec<Sample> {
    let ask = |socket: &PathBuf, words: &[&str]| -> Result<Value> {
        let answer = admin_socket::ask(socket, words, Some("json"))?;
        Ok(serde_json::from_slice(&answer)?)
    };
    let sample = |socket: &PathBuf| {
        let process = socket.file_stem().map_or_else(String::new, |it| it.to_string_lossy().into());
        let perf = match ask(socket, &["perf", "dump"]) {
            Ok(perf) => perf,
            Err(error) => {
                return Sample { process, perf: Err(error.to_string()), dumps: Vec::new() };
            }
        };
        // Ceph has this from Tentacle on.
        let names = ask(socket, &["messenger", "dump"]).unwrap_or_default();
        let names = names["messengers"].as_array().cloned().unwrap_or_default();
        let names = names.iter().filter_map(Value::as_str);
        let dump = |name| ask(socket, &["messenger", "dump", name, "tcp_info=true"]).ok();
        Sample { process, perf: Ok(perf), dumps: names.filter_map(dump).collect() }
    };
    sockets.iter().map(sample).collect()
}

fn sockets_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
    let mut sockets: Vec<_> =
        files.filter(|it| it.extension().is_some_and(|it| it == "asok")).collect();
    sockets.sort();
    if sockets.is_empty() {
        bail!("there is no admin socket in {}: name one", folder.display());
    }
    Ok(sockets)
}
