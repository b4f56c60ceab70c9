//! What it costs a messenger under load to be operated: options changed, counters and connections dumped,
//! the log opened again, by another process at its admin socket. Loses a message or a log line, or a
//! command fails: it ends with an error.
//!
//! ```text
//! cargo run --release -p siphon-perf --example operated -- [--commands N] [--rate R]
//! ```
//!
//! Rounds with and without commands take turns in one run, so that both have the same luck with the
//! machine. The load is both sides of the benchmark in one process; whoever asks is another, whose processor
//! time is told apart, and taken from the same processors: nothing is pinned.

#![allow(clippy::disallowed_methods, reason = "it measures")]

mod figures;
mod load;
mod operator;
mod script;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;

use self::figures::{Figures, Round};
use self::load::Load;
use self::operator::{Operator, Order};
use self::script::Style;

/// Operates a messenger under load, and tells what that costs.
#[derive(Debug, Parser)]
struct Args {
    /// Commands in all
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    commands: u64,
    /// Commands a second; 0 is as many as can be
    #[arg(long, default_value_t = 700, value_name = "R")]
    rate: u64,
    /// Seconds of a round with commands; one without is a quarter of it
    #[arg(long, default_value_t = 4.0, value_name = "S")]
    round: f64,
    /// Connections
    #[arg(long, default_value_t = 2, value_name = "N")]
    jobs: usize,
    /// Operations in flight on each
    #[arg(long, default_value_t = 32, value_name = "N")]
    depth: usize,
    /// Bytes of data of each request
    #[arg(long, default_value_t = 4096, value_name = "BYTES")]
    size: usize,
    /// Only this kind of command
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
    /// For the process that asks: the socket
    #[arg(long, hide = true)]
    operate: Option<PathBuf>,
    /// For the process that asks: the log
    #[arg(long, hide = true)]
    log_file: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let (Some(socket), Some(log_file)) = (&args.operate, &args.log_file) {
        return operator::obey(socket, log_file, args.only.as_deref());
    }
    ensure!(args.round > 0.0 && args.round.is_finite(), "--round: seconds, more than 0");
    let folder = tempfile::tempdir()?;
    let load = Load::start(folder.path(), args.jobs)?;
    let mut operator = Operator::start(load.socket(), load.log_file(), args.only.as_deref())?;
    let operated = Duration::from_secs_f64(args.round);
    let quiet = operated / 4;
    load.run(&args, quiet)?; // to warm up, and not counted

    let mut figures = Figures::default();
    figures.add_quiet(load.run(&args, quiet)?);
    let mut left = args.commands;
    while left > 0 {
        let order = Order { time: operated, rate: args.rate, most: left, style: Style::Even };
        let before = load.answering_cpu()?;
        operator.begin(&order)?;
        let measured = load.run(&args, operated)?;
        let done = operator.end()?;
        let answering = load.answering_cpu()? - before;
        left -= done.commands.min(left);
        figures.add_operated(Round { measured, done, answering });
        figures.add_quiet(load.run(&args, quiet)?);
    }
    // What is traced costs what it costs; it may lose nothing either.
    let order = Order { time: operated, rate: args.rate, most: u64::MAX, style: Style::Traced };
    operator.begin(&order)?;
    let traced = load.run(&args, operated)?;
    let traced_done = operator.end()?;
    figures.print(&args.only);
    println!(
        "while debug_ms went from 0/0 to 1/1 and back:   {:.0} op/s, {} commands",
        traced.rate(),
        traced_done.commands
    );
    load.check(figures.operations() + traced.operations, &mut operator)
}
