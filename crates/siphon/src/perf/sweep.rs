//! `siphon perf sweep`: many workloads in one run.

#![expect(clippy::disallowed_methods, reason = "measuring is reading the clock")]

use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use siphon_common::Context;
use siphon_msgr::{Messenger, Stack};
use siphon_net::{CongestionControl, StackKind};
use siphon_perf::sweep::{Cell, Machine, Side, Stat, Sweep};
use siphon_perf::{
    Client, ClientOptions, Figures, Limit, Measurement, Progress, RawPeers, RawServer,
    ServerOptions, SyscallCounter, Workload, wire_lengths,
};
use siphon_wire::types::Utime;

use super::{Mode, ModeArgs, WARM_UP, auth_client, start_server};
use crate::exit::TIME_IS_OVER;
use crate::options;
use crate::size::Size;
use crate::stack::StackOptions;
use siphon_common::interrupt::Interrupt;

/// What a cell takes beside its runs and their warm-up: connections, threads, memory.
const CELL_OVERHEAD: Duration = Duration::from_millis(100);
/// The shortest run that says anything.
const MIN_ROUND: Duration = Duration::from_millis(10);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all cells were measured; 1 an error; 2 a bad argument; 130 interrupted (SIGINT, SIGTERM) and \
    124 out of time, both after reporting the cells that were measured. A second SIGINT ends at once."
)]
pub(super) struct Args {
    /// Data of each request in bytes
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',', default_value = "64,4K,64K,4M", value_parser = parse_size)]
    sizes: Vec<Size>,
    /// Operations in flight on each connection
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,4,32,128", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    depths: Vec<u32>,
    /// Connections at the same time
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Vec<u16>,
    /// Network stacks by name; all: every stack that works on this machine
    #[arg(long, value_name = "STACK,…", value_delimiter = ',', default_value = "all")]
    stacks: Vec<String>,
    /// How frames are protected: crc, secure
    #[arg(
        long,
        value_name = "MODE,…",
        value_delimiter = ',',
        default_value = "crc",
        value_enum,
        hide_possible_values = true
    )]
    modes: Vec<Mode>,
    /// Seconds of each side in each cell, all rounds together
    #[arg(long, default_value_t = 1.5, value_name = "S", allow_negative_numbers = true)]
    seconds: f64,
    /// Turns of the messenger and of plain sockets in each cell
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Refuse a sweep that would take longer, and end one that does
    #[arg(long, default_value_t = 10.0, value_name = "MINUTES")]
    max_minutes: f64,
    /// Leave out cells with more data in flight, of all jobs together
    #[arg(long, default_value = "64M", value_name = "SIZE")]
    max_in_flight: Size,
    /// Where the server listens; RDMA-CM needs an address of the device
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Write all figures as JSON; - is stdout, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write one page with charts and all figures; - is stdout, instead of the table
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    options: StackOptions,
}

fn parse_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    let most = siphon_proto::v2::Limits::SESSION.data as usize;
    match size.0 {
        0 => Err("a message without data has no bandwidth; sizes begin at 1".to_owned()),
        size if size > most => Err(format!("a message carries at most {most} bytes (128M)")),
        _ => Ok(size),
    }
}

/// One workload, on a stack and in a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    stack: &'static str,
    mode: Mode,
    jobs: usize,
    size: usize,
    depth: usize,
}

/// What is to be done.
struct Plan {
    shapes: Vec<Shape>,
    left_out: Vec<String>,
    round: Duration,
    rounds: u32,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    check_output(args)?;
    let plan = Plan::new(args)?;
    let context = args.options.context(StackKind::Posix.name())?;
    let estimate = plan.estimate();
    let limit = Duration::try_from_secs_f64(args.max_minutes * 60.0)
        .map_err(|_| anyhow!("--max-minutes {}: not a time", args.max_minutes))?;
    ensure!(
        estimate <= limit,
        "{} cells would take about {}, more than --max-minutes {}: measure fewer sizes, depths, jobs, stacks \
         or modes, lower --seconds, or raise --max-minutes",
        plan.shapes.len(),
        HumanDuration(estimate),
        args.max_minutes
    );
    let (count, rounds, secs) = (plan.shapes.len(), plan.rounds, plan.round.as_secs_f64());
    eprintln!(
        "{count} cell{}, {rounds} round{} of {secs:.2} s for each of messenger and plain TCP: about {}",
        plural(count),
        plural(rounds as usize),
        HumanDuration(estimate)
    );
    let stop = Interrupt::listen()?;
    let (counts, syscalls) = match SyscallCounter::start() {
        Ok(_) => (true, SyscallCounter::HOW.to_owned()),
        Err(reason) => (false, format!("not counted: {reason}")),
    };
    let mut sweep = Sweep {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: date(),
        command: command_line(),
        machine: Machine::this(
            super::tcp_sends_by(&context)?.unwrap_or_else(|| "not told".to_owned()),
        ),
        rounds,
        seconds: args.seconds,
        syscalls,
        incomplete: false,
        left_out: plan.left_out.clone(),
        cells: Vec::new(),
    };
    let end = Instant::now().checked_add(limit.saturating_add(limit / 2)); // beyond that is never
    let congestion_control = super::congestion_control(&context)?;
    let mut runner = Runner::new(args, &plan, stop, end, counts, congestion_control);
    let outcome = runner.run(&mut sweep.cells);
    sweep.incomplete =
        sweep.cells.len() < count || sweep.cells.iter().any(|it| it.rounds < rounds as usize);
    runner.bar.finish_and_clear();
    // What was measured before an error is reported as well.
    if outcome.is_ok() || !sweep.cells.is_empty() {
        report(args, &sweep)?;
    }
    outcome?;
    Ok(match sweep.incomplete {
        false => ExitCode::SUCCESS,
        true if runner.stop.is_set() => runner.stop.exit_code(),
        true => ExitCode::from(TIME_IS_OVER),
    })
}

impl Plan {
    fn new(args: &Args) -> Result<Self> {
        let round = Duration::try_from_secs_f64(args.seconds).ok().map(|time| time / args.rounds);
        let Some(round) = round.filter(|round| *round >= MIN_ROUND) else {
            bail!(
                "--seconds {} in {} rounds: each round takes at least {} s",
                args.seconds,
                args.rounds,
                MIN_ROUND.as_secs_f64()
            );
        };
        let mut left_out = Vec::new();
        let stacks = stacks(args, &mut left_out)?;
        let mut shapes: Vec<Shape> = Vec::new();
        for stack in stacks {
            for &mode in &args.modes {
                for &jobs in &args.jobs {
                    for &Size(size) in &args.sizes {
                        for &depth in &args.depths {
                            let (jobs, depth) = (jobs.into(), depth as usize);
                            shapes.push(Shape { stack, mode, jobs, size, depth });
                        }
                    }
                }
            }
        }
        let most = args.max_in_flight.0;
        let is_large = |it: &Shape| it.size.saturating_mul(it.depth * it.jobs) > most;
        let large = shapes.iter().filter(|it| is_large(it)).count();
        if large > 0 {
            left_out.push(format!(
                "{large} cell{} with more than {} MiB in flight (--max-in-flight)",
                plural(large),
                most >> 20
            ));
        }
        let mut kept: Vec<Shape> = Vec::new();
        for shape in shapes {
            if !is_large(&shape) && !kept.contains(&shape) {
                kept.push(shape);
            }
        }
        ensure!(!kept.is_empty(), "nothing to measure: {}", left_out.join("; "));
        Ok(Self { shapes: kept, left_out, round, rounds: args.rounds })
    }

    fn cell_time(&self) -> Duration {
        let runs = self.round.saturating_mul(self.rounds).saturating_add(WARM_UP);
        runs.saturating_mul(2).saturating_add(CELL_OVERHEAD)
    }

    fn estimate(&self) -> Duration {
        self.cell_time().saturating_mul(self.shapes.len() as u32)
    }
}

/// The stacks that were asked for; each is tried now, before anything is measured.
fn stacks(args: &Args, left_out: &mut Vec<String>) -> Result<Vec<&'static str>> {
    let is_rdma = |name: &String| name == "all" || name.parse() == Ok(StackKind::Rdma);
    let has_rdma = args.stacks.iter().any(is_rdma);
    args.options.check(has_rdma, &args.stacks.join(", "), "rdma to --stacks")?;
    let mut stacks = Vec::new();
    for name in &args.stacks {
        if name == "all" {
            for kind in StackKind::ALL {
                match works(args, *kind) {
                    Ok(()) => stacks.push(kind.name()),
                    Err(error) => left_out.push(crate::describe(&error)),
                }
            }
            continue;
        }
        let Ok(kind) = name.parse::<StackKind>() else {
            let known: Vec<_> = StackKind::ALL.iter().map(|kind| kind.name()).collect();
            bail!(
                "--stacks {name}: there is no such stack; there are {} and all",
                known.join(", ")
            );
        };
        works(args, kind)?;
        stacks.push(kind.name());
    }
    Ok(stacks)
}

/// Whether this machine has the stack, and not another in its place.
fn works(args: &Args, kind: StackKind) -> Result<()> {
    let name = kind.name();
    let started = args.options.context(name).and_then(|context| Ok(Stack::new(&context)?));
    let stack = started.with_context(|| format!("the {name} stack does not work here"))?;
    match stack.kind() {
        Some(other) if other != kind => bail!("this system has {} for {name}", other.name()),
        _ => Ok(()),
    }
}

/// A sweep under way.
struct Runner<'a> {
    args: &'a Args,
    plan: &'a Plan,
    stop: Interrupt,
    /// When it is ended in any case: half as long again as its limit.
    end: Option<Instant>,
    counts: bool,
    /// By which plain sockets send, as the messenger's do.
    congestion_control: Option<CongestionControl>,
    bar: ProgressBar,
    done: usize,
}

impl<'a> Runner<'a> {
    fn new(
        args: &'a Args,
        plan: &'a Plan,
        stop: Interrupt,
        end: Option<Instant>,
        counts: bool,
        congestion_control: Option<CongestionControl>,
    ) -> Self {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let steps = plan.shapes.len() as u64 * (u64::from(plan.rounds) * 2 + 1);
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        let style = ProgressStyle::with_template("{bar:24} {prefix} {wide_msg} {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { args, plan, stop, end, counts, congestion_control, bar, done: 0 }
    }

    fn is_over(&self) -> bool {
        self.stop.is_set() || self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Measures all cells, or as many as it comes to.
    fn run(&mut self, cells: &mut Vec<Cell>) -> Result<()> {
        let groups = self.plan.shapes.chunk_by(|a, b| (a.stack, a.mode) == (b.stack, b.mode));
        for group in groups {
            let seal = ModeArgs::of(group[0].mode);
            let context = self.args.options.context(group[0].stack)?;
            let _presence = options::present(&context, "client.0")?;
            let stack = Stack::new(&context)?;
            let secret = seal.secret(ModeArgs::new_key)?;
            let addr = SocketAddr::new(self.args.listen, 0).to_string();
            let options = ServerOptions::default();
            let server = start_server(&context, &stack, &addr, options, &seal, secret.as_ref())?;
            for shapes in group.chunk_by(|a, b| a.jobs == b.jobs) {
                let auth = auth_client(secret.as_ref())?;
                let options = ClientOptions { auth, ..ClientOptions::default() };
                self.run_jobs(&context, &stack, &server, options, shapes, cells)?;
            }
            pollster::block_on(server.shutdown());
        }
        Ok(())
    }

    /// The cells of one number of jobs, over the same connections.
    fn run_jobs(
        &mut self,
        context: &Context,
        stack: &Stack,
        server: &Messenger,
        options: ClientOptions,
        shapes: &[Shape],
        cells: &mut Vec<Cell>,
    ) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        let client = Client::connect(context, stack, &server.addrs(), shapes[0].jobs, options)?;
        for shape in shapes {
            if self.is_over() {
                break;
            }
            let cell = self.measure(&client, shape);
            let cell = cell.with_context(|| format!("cell {shape}"))?;
            self.done += 1;
            let Some(cell) = cell else { break };
            if self.bar.is_hidden() {
                eprintln!(
                    "cell {} of {}: {shape}: {:.0} op/s, {:.2} of plain TCP",
                    self.done,
                    self.plan.shapes.len(),
                    cell.ours.ops_per_second.median,
                    cell.ratio_to_raw.median
                );
            }
            cells.push(cell);
        }
        client.shutdown();
        Ok(())
    }

    /// One cell; none if it was interrupted before its first round was over.
    fn measure(&self, client: &Client, shape: &Shape) -> Result<Option<Cell>> {
        let (request, answer) = wire_lengths(shape.size);
        let peers = RawPeers { request, answer };
        let raw = RawServer::start(peers, shape.depth, self.congestion_control);
        let raw = raw.context("cannot start the raw limit's server")?;
        let run_ours = |work: &Workload, progress: &_| Ok(client.measure(work, progress)?);
        let run_raw = |work: &Workload, progress: &_| Ok(raw.measure(peers, work, progress)?);
        self.bar.set_prefix(format!("{}/{}", self.done + 1, self.plan.shapes.len()));
        self.bar.set_message(shape.to_string());
        let our_syscalls = self.warm_up(shape, run_ours)?;
        let raw_syscalls = self.warm_up(shape, run_raw)?;
        self.bar.inc(1);
        let work = shape.workload(Limit::Time(self.plan.round));
        let timed = |run: &dyn Fn(&Workload, &Arc<Progress>) -> Result<Measurement>| {
            let measured = run(&work, &self.progress(shape))?;
            self.bar.inc(1);
            Ok::<_, anyhow::Error>(Figures::new(&measured, shape.size))
        };
        let (mut ours, mut raws) = (Vec::new(), Vec::new());
        for round in 0..self.plan.rounds {
            let (our, raw) = if round % 2 == 0 {
                let our = timed(&run_ours)?;
                (our, timed(&run_raw)?)
            } else {
                let raw = timed(&run_raw)?;
                (timed(&run_ours)?, raw)
            };
            if self.stop.is_set() {
                break; // these two were cut short
            }
            ours.push(our);
            raws.push(raw);
            if self.is_over() {
                break;
            }
        }
        if ours.is_empty() {
            return Ok(None);
        }
        let ratios =
            ours.iter().zip(&raws).map(|(ours, raw)| ours.ops_per_second / raw.ops_per_second);
        Ok(Some(Cell {
            stack: shape.stack.to_owned(),
            mode: client.mode().to_string(),
            size_bytes: shape.size,
            jobs: shape.jobs,
            depth: shape.depth,
            rounds: ours.len(),
            ratio_to_raw: Stat::new(ratios),
            ours: Side::new(&ours, our_syscalls),
            raw: Side::new(&raws, raw_syscalls),
        }))
    }

    fn progress(&self, shape: &Shape) -> Arc<Progress> {
        Arc::new(Progress::stopped_by(shape.jobs, self.stop.flag()))
    }

    /// Warms a side up, and counts its system calls meanwhile. Those of beginning and ending a run are
    /// known from a run of next to nothing, and left out.
    fn warm_up(
        &self,
        shape: &Shape,
        run: impl Fn(&Workload, &Arc<Progress>) -> Result<Measurement>,
    ) -> Result<Option<f64>> {
        let counted = |limit| -> Result<(u64, u64)> {
            let mut counter = match self.counts {
                true => {
                    Some(SyscallCounter::start().context("cannot count system calls any more")?)
                }
                false => None,
            };
            let measured = run(&shape.workload(limit), &self.progress(shape))?;
            let calls = counter.as_mut().map_or(Ok(0), SyscallCounter::read)?;
            Ok((measured.operations, calls))
        };
        let (few, calls_of_few) = counted(Limit::Operations(shape.depth as u64))?;
        let (many, calls_of_many) = counted(Limit::Time(WARM_UP))?;
        let ops = many.saturating_sub(few);
        let calls = calls_of_many.saturating_sub(calls_of_few);
        Ok((self.counts && ops > 0).then(|| calls as f64 / ops as f64))
    }
}

impl Shape {
    fn workload(&self, limit: Limit) -> Workload {
        Workload { size: self.size, jobs: self.jobs, depth: self.depth, limit }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stack, mode, jobs, size, depth } = self;
        let mode = if *mode == Mode::Crc { "crc" } else { "secure" };
        write!(f, "{stack} {mode}, {size} B, depth {depth}, {jobs} job{}", plural(*jobs))
    }
}

/// Finds out before anything is measured whether the results can be written.
fn check_output(args: &Args) -> Result<()> {
    let is_stdout = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
    ensure!(
        !(is_stdout(&args.json) && is_stdout(&args.html)),
        "--json - and --html -: only one of them can go to stdout; name a file for the other"
    );
    for (option, path) in [("--json", &args.json), ("--html", &args.html)] {
        let Some(path) = path.as_ref().filter(|path| *path != Path::new("-")) else { continue };
        let is_new = !path.exists();
        let opened = OpenOptions::new().append(true).create(true).open(path);
        opened.with_context(|| {
            format!(
                "{option} {}: cannot be written; name a file in a folder of yours",
                path.display()
            )
        })?;
        if is_new {
            // It is there again when there is something to be in it.
            fs::remove_file(path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn report(args: &Args, sweep: &Sweep) -> Result<()> {
    let mut tells = true;
    let json = || Ok(serde_json::to_string_pretty(&sweep.json())? + "\n");
    let outputs: [(_, &dyn Fn() -> Result<String>); 2] =
        [(&args.json, &json), (&args.html, &|| Ok(sweep.html()))];
    for (path, text) in outputs {
        match path.as_deref() {
            None => {}
            Some(path) if path == Path::new("-") => {
                std::io::stdout().write_all(text()?.as_bytes())?;
                tells = false;
            }
            Some(path) => {
                fs::write(path, text()?)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                eprintln!("written: {}", path.display());
            }
        }
    }
    if tells {
        print!("{}", sweep.table());
    }
    Ok(())
}

fn date() -> String {
    let now = Utime::from(SystemTime::now()).to_string();
    // Whole seconds are enough.
    now.split_once('.').map_or_else(|| now.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// The command line, so that a shell takes it again.
fn command_line() -> String {
    let words = std::env::args().skip(1).map(|word| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+".contains(c);
        if !word.is_empty() && word.chars().all(is_plain) {
            word
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    std::iter::once("siphon".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let words = std::iter::once("sweep").chain(line.split_whitespace());
        <Cli as clap::Parser>::try_parse_from(words).map(|cli| cli.args)
    }

    fn plan(line: &str) -> Result<Plan> {
        Plan::new(&parse(line)?)
    }

    #[test]
    fn a_plan_has_each_cell_once_and_none_that_is_too_large() {
        let line =
            "--stacks posix,posix --sizes 4K,4096,4M --depths 1,32 --jobs 1,2 --modes crc,secure";
        let plan = plan(line).unwrap();
        assert_eq!(plan.shapes.len(), 2 * 2 * 3);
        assert_eq!(plan.left_out.len(), 1, "{:?}", plan.left_out);
        assert!(
            plan.left_out[0].starts_with("8 cells with more than 64 MiB"),
            "{:?}",
            plan.left_out
        );
        assert_eq!(plan.cell_time(), Duration::from_millis(3500));
        let endless = "--stacks posix --seconds 1e18 --rounds 1";
        assert!(self::plan(endless).unwrap().estimate() > Duration::from_secs(1 << 60));
    }

    #[test]
    fn all_stacks_are_those_that_work_here() {
        let plan = plan("--sizes 64 --depths 1").unwrap();
        assert_eq!(plan.shapes[0].stack, "posix");
        assert_eq!(plan.shapes.len() + plan.left_out.len(), StackKind::ALL.len());
    }

    #[test]
    fn what_cannot_be_measured_is_refused_with_what_to_do() {
        let refused = |line: &str| match parse(line) {
            Err(error) => error.to_string(),
            Ok(args) => match check_output(&args).and_then(|()| Plan::new(&args)) {
                Err(error) => format!("{error:#}"),
                Ok(_) => panic!("{line} is taken"),
            },
        };
        for (line, says) in [
            ("--sizes 0", "begin at 1"),
            ("--sizes 1G", "128M"),
            ("--sizes 4X", "write bytes"),
            ("--depths 0", "1..="),
            ("--jobs 0", "1..="),
            ("--modes plain", "crc, secure"),
            ("--stacks tcp", "there are posix"),
            ("--stacks posix,uring --device rxe0", "ignore it: add rdma to --stacks"),
            ("--rounds 0", "1..="),
            ("--seconds 0", "at least 0.01 s"),
            ("--seconds nan", "at least 0.01 s"),
            ("--seconds -1", "at least 0.01 s"),
            ("--sizes 1M --depths 100 --max-in-flight 1M", "--max-in-flight"),
            ("--json - --html -", "name a file"),
            ("--html /nowhere/at/all.html", "/nowhere/at/all.html: cannot be written"),
        ] {
            let error = refused(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
