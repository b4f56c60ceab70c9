//! Runs the simulator: one seed, or as many as there is time for.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use siphon_sim::explore::{Failure, Kind, Plan, Summary, run};
use siphon_sim::shrink::shrink;

/// Runs messengers over a simulated network that breaks, in virtual time, and checks that nothing
/// is lost, repeated or reordered.
#[derive(Debug, Parser)]
#[command(name = "siphon-sim", bin_name = "cargo xtask sim")]
struct Options {
    /// The seed to run, or the first of many
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many things the applications do in a run
    #[arg(long, default_value_t = Plan::DEFAULT_STEPS)]
    steps: u32,
    /// Leave out a kind of event (may be repeated): cut, close, half-open, stall, refuse,
    /// partition, restart, mark-down, large
    #[arg(long)]
    without: Vec<Kind>,
    /// Run seeds from the first one on for so many minutes
    #[arg(long, conflicts_with = "seeds")]
    minutes: Option<f64>,
    /// Run so many seeds
    #[arg(long)]
    seeds: Option<u64>,
    /// Threads that run seeds [default: one a processor]
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Show a failing run as it is, without looking for a smaller one
    #[arg(long)]
    no_shrink: bool,
}

impl Options {
    /// Half of all seeds run without anybody who forgets: there, the checks are strictest.
    fn plan(&self, seed: u64, searching: bool) -> Plan {
        let mut without: std::collections::BTreeSet<_> = self.without.iter().copied().collect();
        if searching && seed.is_multiple_of(2) {
            without.extend([Kind::Restart, Kind::MarkDown]);
        }
        Plan { seed, steps: self.steps, without }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    // A panic in a run is told as its failure, once; not for each attempt to make it smaller.
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = match (options.minutes, options.seeds) {
        (None, None) => run(&options.plan(options.seed, false))
            .map_err(|failure| (options.plan(options.seed, false), failure)),
        _ => search(&options),
    };
    match outcome {
        Ok(summary) => {
            println!("{summary}\nEvery invariant held.");
            ExitCode::SUCCESS
        }
        Err((plan, failure)) => {
            report(&options, plan, failure);
            ExitCode::FAILURE
        }
    }
}

fn report(options: &Options, plan: Plan, failure: Box<Failure>) {
    eprintln!("FAILED: {}\n  {plan}", failure.what);
    let (plan, failure) = if options.no_shrink { (plan, failure) } else { shrink(&plan, failure) };
    for line in &failure.trace {
        eprintln!("  {line}");
    }
    eprintln!("{}\nTo see it again:\n  {plan}", failure.what);
}

/// Runs one seed after the other, until time or seeds are over or one fails.
#[expect(clippy::disallowed_methods, reason = "the search has an end in real time")]
fn search(options: &Options) -> Result<Summary, (Plan, Box<Failure>)> {
    let limit = options.minutes.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0));
    let end = limit.map(|limit| Instant::now() + limit);
    let last = options.seeds.map_or(u64::MAX, |seeds| options.seed.saturating_add(seeds));
    let bar = match options.seeds {
        Some(seeds) => ProgressBar::new(seeds),
        None => ProgressBar::no_length(),
    };
    bar.set_style(
        ProgressStyle::with_template("{elapsed_precise} {pos} seeds, {per_sec} {msg} {wide_bar}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let next = AtomicU64::new(options.seed);
    let over = AtomicBool::new(false);
    let found = Mutex::new((Summary::default(), None));
    let jobs = options.jobs.or_else(|| thread::available_parallelism().ok());
    thread::scope(|scope| {
        for _ in 0..jobs.map_or(1, NonZeroUsize::get) {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) && end.is_none_or(|end| Instant::now() < end) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        return;
                    }
                    let plan = options.plan(seed, true);
                    let outcome = run(&plan);
                    let mut found = found.lock().unwrap_or_else(|it| it.into_inner());
                    match outcome {
                        Ok(summary) => {
                            found.0 += summary;
                            bar.inc(1);
                            bar.set_message(format!("{} faults", found.0.faults.total()));
                        }
                        Err(failure) => {
                            found.1.get_or_insert((plan, failure));
                            over.store(true, Ordering::Release);
                        }
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let (summary, failed) = found.into_inner().unwrap_or_else(|it| it.into_inner());
    match failed {
        None => Ok(summary),
        Some(failed) => {
            eprintln!("after {} seeds that held", summary.seeds);
            Err(failed)
        }
    }
}
