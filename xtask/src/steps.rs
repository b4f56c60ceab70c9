use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::root;

/// The steps of a verification, timed, each with a line before and after it.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(&'static str, Duration)>,
    skipped: Vec<String>,
}

impl Steps {
    /// Does one step.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        println!("\n==> {name}");
        let start = Instant::now();
        work(self).with_context(|| format!("step '{name}' failed"))?;
        let time = start.elapsed();
        println!("<== {name}: ok, {:.1} s", time.as_secs_f64());
        self.done.push((name, time));
        Ok(())
    }

    /// Notes what could not be done, which is said again at the end; in CI it is an error.
    pub(crate) fn skip(&mut self, reason: String) -> Result<()> {
        if std::env::var_os("CI").is_some() {
            bail!("{reason}; in CI nothing is skipped");
        }
        println!("SKIPPED: {reason}");
        self.skipped.push(reason);
        Ok(())
    }

    /// Prints all steps with their times.
    pub(crate) fn summary(&self) {
        println!();
        for (name, time) in &self.done {
            println!("{:>7.1} s  {name}", time.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|(_, time)| *time).sum();
        println!("{:>7.1} s  in all", total.as_secs_f64());
        for reason in &self.skipped {
            println!("SKIPPED: {reason}");
        }
        println!("All that ran has passed.");
    }
}

/// A cargo command at the top of the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Runs a command without input, in front of the user.
pub(crate) fn call(command: &mut Command) -> Result<()> {
    let text = format!("{command:?}");
    let status = command.stdin(Stdio::null()).status().with_context(|| text.clone())?;
    if !status.success() {
        bail!("{text}: {status}");
    }
    Ok(())
}

/// The platform that the compiler runs on, as `x86_64-unknown-linux-gnu`.
pub(crate) fn platform() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = std::str::from_utf8(&version)?.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not tell its host")?.to_owned())
}

/// Runs a command and returns what it prints.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let text = format!("{command:?}");
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| text.clone())?;
    if !output.status.success() {
        bail!("{text}: {}", output.status);
    }
    Ok(output.stdout)
}
