//! The process that asks, and the one that has it ask.

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Signal, getppid, kill_process};
use serde::{Deserialize, Serialize};
use siphon_common::admin_socket;
use siphon_perf::CpuTime;

use crate::script::{Step, Style, step};

/// How long it sleeps when it is ahead of its rate: seldom wakes take less of the load's time.
const NAP: Duration = Duration::from_millis(5);

/// What a round is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) time: Duration,
    /// Commands a second; 0 is as many as can be.
    pub(crate) rate: u64,
    pub(crate) most: u64,
    pub(crate) style: Style,
}

/// What was done in a round.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) commands: u64,
    /// Seconds of the asking process's processor time.
    pub(crate) cpu: f64,
    /// Files that the log was moved to, in all.
    pub(crate) rotated: u64,
}

/// The asking process, for the one that is asked.
pub(crate) struct Operator {
    child: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
    rotated: u64,
}

impl Operator {
    pub(crate) fn start(socket: &Path, log_file: &Path, only: Option<&str>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--operate").arg(socket).arg("--log-file").arg(log_file);
        if let Some(only) = only {
            command.args(["--only", only]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().context("its input")?;
        let reports = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { child, orders, reports, rotated: 0 })
    }

    pub(crate) fn begin(&mut self, order: &Order) -> Result<()> {
        let Order { time, rate, most, style } = order;
        let style = u8::from(*style == Style::Traced);
        writeln!(self.orders, "{} {rate} {most} {style}", time.as_secs_f64())?;
        Ok(self.orders.flush()?)
    }

    pub(crate) fn end(&mut self) -> Result<Done> {
        let mut line = String::new();
        self.reports.read_line(&mut line)?;
        let done: Done = serde_json::from_str(&line).context("the asking process has failed")?;
        self.rotated = done.rotated;
        Ok(done)
    }

    /// Files that the log was moved to.
    pub(crate) fn rotated(&self) -> u64 {
        self.rotated
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// Where the log is moved to.
pub(crate) fn rotated_to(log_file: &Path, number: u64) -> PathBuf {
    log_file.with_extension(number.to_string())
}

/// The asking process: does each round that its input orders, and reports it.
pub(crate) fn obey(socket: &Path, log_file: &Path, only: Option<&str>) -> Result<()> {
    let mut asking = Asking { socket, log_file, only, number: 0, rotated: 0 };
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<_> = line.split(' ').collect();
        let [time, rate, most, style] = words[..] else { bail!("an order of {line:?}") };
        let order = Order {
            time: Duration::from_secs_f64(time.parse()?),
            rate: rate.parse()?,
            most: most.parse()?,
            style: if style == "1" { Style::Traced } else { Style::Even },
        };
        println!("{}", serde_json::to_string(&asking.round(&order)?)?);
    }
    Ok(())
}

struct Asking<'a> {
    socket: &'a Path,
    log_file: &'a Path,
    only: Option<&'a str>,
    number: u64,
    rotated: u64,
}

impl Asking<'_> {
    fn round(&mut self, order: &Order) -> Result<Done> {
        let (start, cpu) = (Instant::now(), CpuTime::now());
        let mut commands = 0;
        while start.elapsed() < order.time && commands < order.most {
            let due = match order.rate {
                0 => u64::MAX,
                rate => (start.elapsed().as_secs_f64() * rate as f64) as u64,
            };
            if commands >= due {
                std::thread::sleep(NAP);
                continue;
            }
            self.next(order.style)?;
            commands += 1;
        }
        Ok(Done { commands, cpu: cpu.elapsed().total().as_secs_f64(), rotated: self.rotated })
    }

    fn next(&mut self, style: Style) -> Result<()> {
        let step = loop {
            let step = step(self.number, style);
            self.number += 1;
            let wanted = |only: &str| match &step {
                Step::Ask(request, _) | Step::Rotate(request, _) => request.contains(only),
                Step::Hangup => only == "SIGHUP",
            };
            if style == Style::Traced || self.only.is_none_or(wanted) {
                break step;
            }
        };
        match step {
            Step::Ask(request, expected) => self.ask(&request, expected),
            Step::Rotate(request, expected) => {
                self.rotated += 1;
                std::fs::rename(self.log_file, rotated_to(self.log_file, self.rotated))?;
                self.ask(&request, expected)
            }
            Step::Hangup => {
                let parent = getppid().context("the load has ended")?;
                Ok(kill_process(parent, Signal::HUP)?)
            }
        }
    }

    fn ask(&self, request: &str, expected: &str) -> Result<()> {
        let answer = admin_socket::request(self.socket, request)?;
        let is_good = answer.windows(expected.len()).any(|part| part == expected.as_bytes());
        ensure!(is_good, "{request} is answered by {}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}
