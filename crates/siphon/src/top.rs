//! `siphon top`: what messengers do just now, on a terminal, from their processes' admin sockets.

mod model;
mod view;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::{Value, json};
use siphon_common::{Context, admin_socket};

use self::model::{Model, Sample};
use self::view::View;
use siphon_common::interrupt::Interrupt;

/// Where Ceph's daemons have their sockets.
const RUN_DIR: &str = "/var/run/ceph";
/// Between two looks at this process.
const OWN_INTERVAL: Duration = Duration::from_secs(1);
/// After which time it is seen that it is over, without a key pressed.
const GLANCE: Duration = Duration::from_millis(200);

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
    let processes = Process::at(sockets);
    let interval = Duration::from_secs_f64(args.interval);
    let mut model = Model::default();
    model.add(look(&processes), Instant::now());
    if args.once {
        std::thread::sleep(interval);
        model.add(look(&processes), Instant::now());
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
    let is_over = || interrupt.is_set();
    let result = watch(&mut terminal, &processes, interval, &mut model, &is_over);
    ratatui::restore();
    result
}

/// Watches this process, whose messengers have this context, until `is_over` or somebody has seen enough.
///
/// # Errors
/// The terminal is gone.
#[expect(clippy::disallowed_methods, reason = "rates are by the clock")]
pub(crate) fn watch_own(context: &Context, is_over: &dyn Fn() -> bool) -> Result<()> {
    let own = [Process::Own(context.clone())];
    let mut model = Model::default();
    model.add(look(&own), Instant::now());
    let mut terminal = ratatui::try_init()?;
    let result = watch(&mut terminal, &own, OWN_INTERVAL, &mut model, is_over);
    ratatui::restore();
    result
}

#[expect(clippy::disallowed_methods, reason = "rates are by the clock")]
fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    processes: &[Process],
    interval: Duration,
    model: &mut Model,
    is_over: &dyn Fn() -> bool,
) -> Result<()> {
    let mut view = View::default();
    let mut next = Instant::now() + interval;
    while !is_over() {
        terminal.draw(|frame| view.draw(frame, model))?;
        if wait_for_key(next, is_over)? {
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
            model.add(look(processes), Instant::now());
            next = Instant::now() + interval;
        }
    }
    Ok(())
}

/// Waits until a key is there, or until `end`, or until it is over: then there is no key.
#[expect(clippy::disallowed_methods, reason = "rates are by the clock")]
fn wait_for_key(end: Instant, is_over: &dyn Fn() -> bool) -> Result<bool> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if is_over() {
            return Ok(false);
        } else if event::poll(left.min(GLANCE))? {
            return Ok(true);
        } else if left <= GLANCE {
            return Ok(false);
        }
    }
}

/// Whom to look at.
#[derive(Debug)]
enum Process {
    /// Who answers at this admin socket, and what to call it.
    At(PathBuf, String),
    /// This one, which needs none.
    Own(Context),
}

impl Process {
    /// Those of these sockets, which may have the same name in two folders.
    fn at(sockets: Vec<PathBuf>) -> Vec<Self> {
        let stem = |it: &PathBuf| it.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let stems: Vec<_> = sockets.iter().map(stem).collect();
        let name = |socket: &PathBuf, stem: &String| {
            let is_one = stems.iter().filter(|it| *it == stem).count() == 1;
            if is_one { stem.clone() } else { socket.display().to_string() }
        };
        let named =
            sockets.iter().zip(&stems).map(|(it, stem)| Self::At(it.clone(), name(it, stem)));
        named.collect()
    }

    fn name(&self) -> String {
        match self {
            Self::At(_, name) => name.clone(),
            Self::Own(_) => "perf".to_owned(),
        }
    }

    fn ask(&self, request: &Value) -> Result<Value> {
        let request = request.to_string();
        let answer = match self {
            Self::At(socket, _) => admin_socket::request(socket, &request)?,
            Self::Own(context) => context.commands().execute(&request)?.into_bytes(),
        };
        Ok(serde_json::from_slice(&answer)?)
    }
}

/// What each process tells now.
fn look(processes: &[Process]) -> Vec<Sample> {
    let sample = |it: &Process| {
        let process = it.name();
        let perf = match it.ask(&json!({ "prefix": "perf dump", "format": "json" })) {
            Ok(perf) => perf,
            Err(error) => {
                return Sample { process, perf: Err(error.to_string()), dumps: Vec::new() };
            }
        };
        // Ceph has this from Tentacle on.
        let names = it.ask(&json!({ "prefix": "messenger dump", "format": "json" }));
        let names = names.unwrap_or_default()["messengers"].as_array().cloned();
        let dump = |name: &Value| {
            let dump = json!({
                "prefix": "messenger dump", "msgr": name, "tcp_info": true, "format": "json",
            });
            Some((name.as_str()?.to_owned(), it.ask(&dump).ok()?))
        };
        let dumps = names.unwrap_or_default().iter().filter_map(dump).collect();
        Sample { process, perf: Ok(perf), dumps }
    };
    processes.iter().map(sample).collect()
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
