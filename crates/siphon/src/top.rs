//! `siphon top`: what messengers do just now, on a terminal, from their processes' admin sockets.

mod model;
mod view;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
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
/// How long a look waits for answers; who takes longer is shown with what he told last.
const LATE: Duration = Duration::from_millis(300);
/// The same of a look of `--once`.
const ONCE_PATIENCE: Duration = Duration::from_secs(10);
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

pub(crate) fn run(args: &Args) -> Result<()> {
    if !(0.1..=3600.0).contains(&args.interval) {
        bail!("--interval {}: between 0.1 and 3600 seconds are possible", args.interval);
    }
    let sockets = match args.socket.is_empty() {
        true => sockets_of(Path::new(RUN_DIR))?,
        false => args.socket.clone(),
    };
    let interval = Duration::from_secs_f64(args.interval);
    let mut watched = Watched::start(Process::at(sockets))?;
    let mut model = Model::default();
    if args.once {
        watched.look(&mut model, ONCE_PATIENCE);
        std::thread::sleep(interval);
        watched.look(&mut model, ONCE_PATIENCE);
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
    let result = watch(&mut terminal, &mut watched, interval, &mut model, &is_over);
    ratatui::restore();
    result
}

/// Watches this process, whose messengers have this context, until `is_over` or somebody has seen enough.
///
/// # Errors
/// The terminal is gone.
pub(crate) fn watch_own(context: &Context, is_over: &dyn Fn() -> bool) -> Result<()> {
    let mut own = Watched::start(vec![Process::Own(context.clone())])?;
    let mut model = Model::default();
    let mut terminal = ratatui::try_init()?;
    let result = watch(&mut terminal, &mut own, OWN_INTERVAL, &mut model, is_over);
    ratatui::restore();
    result
}

#[expect(clippy::disallowed_methods, reason = "rates are by the clock")]
fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    watched: &mut Watched,
    interval: Duration,
    model: &mut Model,
    is_over: &dyn Fn() -> bool,
) -> Result<()> {
    let mut view = View::default();
    let mut next = Instant::now();
    while !is_over() {
        if Instant::now() >= next {
            watched.look(model, LATE);
            next = Instant::now() + interval;
        }
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

/// Processes that are asked, each by a thread of its own: one that hangs keeps nobody from the others.
struct Watched {
    asked: Vec<Asked>,
    answers: mpsc::Receiver<(usize, Sample)>,
}

struct Asked {
    name: String,
    /// What has its thread ask once more.
    ask: mpsc::Sender<()>,
    /// Since when there is no answer.
    since: Option<Instant>,
}

impl Watched {
    fn start(processes: Vec<Process>) -> Result<Self> {
        let (sender, answers) = mpsc::channel();
        let start = |(number, process): (usize, Process)| {
            let (ask, asks) = mpsc::channel();
            let (name, sender) = (process.name(), sender.clone());
            let work = move || {
                // It ends with whoever asks, or would hear of it.
                while asks.recv().is_ok() && sender.send((number, process.sample())).is_ok() {}
            };
            std::thread::Builder::new().name("top".to_owned()).spawn(work)?;
            Ok(Asked { name, ask, since: None })
        };
        let asked = processes.into_iter().enumerate().map(start).collect::<Result<_>>()?;
        Ok(Self { asked, answers })
    }

    /// Asks who is not being asked already, and waits for those so long at most. What others tell meanwhile, or have
    /// told, counts now.
    #[expect(clippy::disallowed_methods, reason = "people wait for it")]
    fn look(&mut self, model: &mut Model, patience: Duration) {
        let now = Instant::now();
        let mut samples: Vec<_> = self.answers.try_iter().collect();
        samples.iter().for_each(|(number, _)| self.asked[*number].since = None);
        let mut expected: Vec<_> = Vec::new();
        for (number, asked) in self.asked.iter_mut().enumerate() {
            if asked.since.is_none() && asked.ask.send(()).is_ok() {
                asked.since = Some(now);
                expected.push(number);
            }
        }
        while !expected.is_empty() {
            let left = patience.saturating_sub(now.elapsed());
            let Ok((number, sample)) = self.answers.recv_timeout(left) else { break };
            expected.retain(|it| *it != number);
            self.asked[number].since = None;
            samples.push((number, sample));
        }
        let late: Vec<_> = self
            .asked
            .iter()
            .filter_map(|it| Some((it.name.clone(), it.since?.elapsed())))
            .collect();
        model.add(samples.into_iter().map(|(_, sample)| sample).collect(), &late);
    }
}

impl Process {
    /// What it tells now.
    #[expect(clippy::disallowed_methods, reason = "rates are by the clock")]
    fn sample(&self) -> Sample {
        let process = self.name();
        let perf = self.ask(&json!({ "prefix": "perf dump", "format": "json" }));
        let at = Instant::now();
        let perf = match perf {
            Ok(perf) => perf,
            Err(error) => {
                return Sample { process, at, perf: Err(error.to_string()), dumps: Vec::new() };
            }
        };
        // Ceph has this from Tentacle on.
        let names = self.ask(&json!({ "prefix": "messenger dump", "format": "json" }));
        let names = names.unwrap_or_default()["messengers"].as_array().cloned();
        let dump = |name: &Value| {
            let dump = json!({
                "prefix": "messenger dump", "msgr": name, "tcp_info": true, "format": "json",
            });
            Some((name.as_str()?.to_owned(), self.ask(&dump).ok()?))
        };
        let dumps = names.unwrap_or_default().iter().filter_map(dump).collect();
        Sample { process, at, perf: Ok(perf), dumps }
    }
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
