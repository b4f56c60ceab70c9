//! `siphon probe`: what an address speaks, as far as it tells without a key.

mod failure;
mod line;
mod report;
mod stranger;
mod talk;
mod target;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use siphon_wire::types::AddrType;

use self::talk::Seen;
use self::target::{Endpoint, Target};

/// Most addresses that are talked with at once.
const AT_ONCE: usize = 32;
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to look: HOST:PORT, v1:HOST:PORT, v2:HOST:PORT or [v2:…,v1:…]. Without a port it is a
    /// monitor's: 3300 for msgr2, 6789 for msgr1, and both if neither is named
    #[arg(required = true, value_name = "ADDR")]
    targets: Vec<Target>,
    /// Spend at most so many seconds on an address
    #[arg(long, default_value = "5", value_name = "S", value_parser = seconds)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    /// A day: longer times are slips, and must not overflow what they are added to.
    const MAX: Duration = Duration::from_secs(24 * 60 * 60);
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = time.filter(|time| (Duration::from_millis(1)..=MAX).contains(time));
    time.ok_or("not a time to wait, in seconds")
}

/// What was found at one address of a target.
#[derive(Debug)]
struct Finding {
    /// Which target, by its place in the command line.
    target: usize,
    endpoint: Endpoint,
    /// Where the connection went.
    addr: Option<SocketAddr>,
    seen: Seen,
}

impl Finding {
    /// Whether Ceph answers, in the protocol that was named if one was, to the end of the conversation.
    fn is_ceph(&self) -> bool {
        match &self.seen {
            Seen::Msgr2(seen) => self.endpoint.kind != AddrType::LEGACY && seen.failure.is_none(),
            Seen::Msgr1(seen) => self.endpoint.kind != AddrType::MSGR2 && seen.failure.is_none(),
            _ => false,
        }
    }
}

/// # Errors
/// If not all targets speak Ceph.
pub(crate) fn run(args: &Args) -> Result<()> {
    let endpoints: Vec<_> = args.targets.iter().enumerate().flat_map(endpoints).collect();
    let mut findings = Vec::new();
    for batch in endpoints.chunks(AT_ONCE) {
        findings.extend(probe(batch, args.timeout));
    }
    if args.json {
        println!("{:#}", report::json(&args.targets, &findings));
    } else {
        print!("{}", report::text(&findings));
    }
    let strangers: Vec<_> = (0..)
        .zip(&args.targets)
        .filter(|(number, target)| !target.is_ceph(of_target(*number, &findings)))
        .map(|(_, target)| target.text.as_str())
        .collect();
    if !strangers.is_empty() {
        bail!("not what speaks Ceph: {}", strangers.join(", "));
    }
    Ok(())
}

fn endpoints((number, target): (usize, &Target)) -> impl Iterator<Item = (usize, Endpoint)> {
    target.endpoints.iter().map(move |endpoint| (number, endpoint.clone()))
}

/// The findings at one target's addresses.
fn of_target(number: usize, findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(move |finding| finding.target == number)
}

impl Target {
    /// Of guessed ports one is enough.
    fn is_ceph<'a>(&self, mut findings: impl Iterator<Item = &'a Finding>) -> bool {
        match self.guessed {
            true => findings.any(Finding::is_ceph),
            false => findings.all(Finding::is_ceph),
        }
    }
}

/// Talks with all of them side by side, each on its own thread.
#[expect(clippy::disallowed_methods, reason = "a person waits for the answer")]
fn probe(endpoints: &[(usize, Endpoint)], timeout: Duration) -> Vec<Finding> {
    let deadline = Instant::now() + timeout;
    thread::scope(|scope| {
        let talk = |(target, endpoint): &(usize, Endpoint)| {
            let (target, endpoint) = (*target, endpoint.clone());
            scope.spawn(move || {
                let (addr, seen) = talk::talk(&endpoint.place, endpoint.kind, deadline);
                Finding { target, endpoint, addr, seen }
            })
        };
        let talks: Vec<_> = endpoints.iter().map(talk).collect();
        let join = |talk: thread::ScopedJoinHandle<'_, _>| talk.join().expect("it does not panic");
        talks.into_iter().map(join).collect()
    })
}
