//! `siphon top` in tmux, on one connection and on 500, at both sizes that docs/top.md shows.
//!
//! `SIPHON_TOP_PANES=20 cargo test --release -p siphon --test panes` measures for 20 s what it takes, and puts panes
//! and figures into that page.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Listening, TIMEOUT, siphon};
use siphon_peers::{Leash, Missing, PeerError, require, run};

/// Columns and rows.
const SIZES: [(usize, usize); 2] = [(80, 24), (200, 60)];
/// Rows of a pane that the page shows of a long one: so many at the top, and what is below the table.
const SHOWN: usize = 24;
/// Ceph's clock ticks (USER_HZ), by which the kernel tells what processes take.
const TICKS: f64 = 100.0;

/// A tmux with a server of its own, which ends with this.
struct Tmux {
    socket: PathBuf,
}

impl Tmux {
    fn start(folder: &Path) -> Result<Self, PeerError> {
        let tmux = Self { socket: folder.join("tmux") };
        let started = Command::new("tmux").arg("-V").output();
        match started {
            Ok(_) => Ok(tmux),
            Err(_) => Err(Missing::Program { program: "tmux", package: "tmux" }.into()),
        }
    }

    fn call(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(["-f", "/dev/null"]).args(args);
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX").env_remove("SIPHON_LOG");
        String::from_utf8(run(command, TIMEOUT).unwrap().stdout).unwrap()
    }

    /// A session that runs `siphon top` on this socket.
    fn top(&self, name: &str, (columns, rows): (usize, usize), socket: &Path) {
        let top = format!("exec {} top {}", env!("CARGO_BIN_EXE_siphon"), socket.display());
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.call(&["new-session", "-d", "-s", name, "-x", &columns, "-y", &rows, &top]);
        self.call(&["send-keys", "-t", name, "c"]);
    }

    fn pane(&self, name: &str) -> String {
        self.call(&["capture-pane", "-p", "-t", name])
    }

    /// What it has taken of a processor until now, in seconds.
    fn processor(&self, name: &str) -> f64 {
        let pid = self.call(&["display-message", "-p", "-t", name, "#{pane_pid}"]);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = fields.split(' ').skip(11).take(2).map(|it| it.parse::<f64>().unwrap());
        ticks.sum::<f64>() / TICKS
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        let _ = command.arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

/// What it showed, and the share of a processor that it took, if that was measured.
struct Seen {
    pane: String,
    percent: Option<f64>,
}

fn of(connections: usize) -> String {
    if connections == 1 { "1 connection".to_owned() } else { format!("{connections} connections") }
}

/// `siphon top` on a server with so many connections, at both sizes at once.
#[expect(
    clippy::disallowed_methods,
    reason = "a share of a processor is of a time; a test that hangs has to end"
)]
fn watch(tmux: &Tmux, folder: &Path, connections: usize, measured: Duration) -> Vec<Seen> {
    let folder = folder.join(connections.to_string());
    std::fs::create_dir(&folder).unwrap();
    let socket = folder.join("osd.0.asok");
    let option = format!("admin_socket={}", socket.display());
    let server = Listening::start(["echo", "ADDR", "--as", "osd.0", "-o", &option]);
    let addr = server.addr.to_string();
    let mut load = siphon(["perf", "client", &addr, "--seconds", "600", "--depth", "1"]);
    load.args(["--jobs", &connections.to_string(), "--client-think-time", "500"]);
    let load = Leash::start(load, folder.join("load")).unwrap();
    let name = |columns: usize| format!("of-{connections}-at-{columns}");
    SIZES.iter().for_each(|size| tmux.top(&name(size.0), *size, &socket));
    let began = Instant::now();
    let total = of(connections);
    let count = format!("─ {connections} ─");
    let mut seen = Vec::new();
    for (columns, _) in SIZES {
        let pane = loop {
            let pane = tmux.pane(&name(columns));
            let wanted = [&total, &count, "[Connections]", "client."];
            if wanted.iter().all(|it| pane.contains(*it)) && !pane.contains("in 0 B/s") {
                break pane;
            }
            assert!(began.elapsed() < TIMEOUT && load.is_running(), "{pane}{}", load.output());
            std::thread::sleep(Duration::from_millis(100));
        };
        seen.push(Seen { pane, percent: None });
    }
    if !measured.is_zero() {
        let taken = || SIZES.map(|(columns, _)| tmux.processor(&name(columns)));
        let (began, before) = (Instant::now(), taken());
        std::thread::sleep(measured);
        let (after, time) = (taken(), began.elapsed().as_secs_f64());
        for (number, seen) in seen.iter_mut().enumerate() {
            seen.percent = Some(100.0 * (after[number] - before[number]) / time);
            seen.pane = tmux.pane(&name(SIZES[number].0));
        }
    }
    seen
}

#[test]
fn one_connection_and_five_hundred_are_shown_at_both_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tmux) = require(Tmux::start(folder.path())) else { return };
    let measured = std::env::var("SIPHON_TOP_PANES").ok().map(|seconds| {
        Duration::from_secs(seconds.parse().expect("SIPHON_TOP_PANES: seconds to measure"))
    });
    let mut panes = BTreeMap::new();
    for connections in [1, 500] {
        let seen = watch(&tmux, folder.path(), connections, measured.unwrap_or_default());
        for ((columns, rows), seen) in SIZES.into_iter().zip(seen) {
            let lines: Vec<_> = seen.pane.lines().collect();
            assert_eq!(lines.len(), rows, "{}", seen.pane);
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{}", seen.pane);
            let listed = lines.iter().filter(|line| line.contains(" client.")).count();
            // Two lines of rates, five of history, one of keys; the table's frame and its titles.
            assert_eq!(listed, connections.min(rows - 2 - 5 - 1 - 3), "{}", seen.pane);
            let is_wide = columns >= 120;
            for part in ["address", "mode", "state", "127.0.0.1:"] {
                assert_eq!(seen.pane.contains(part), is_wide, "{part}: {}", seen.pane);
            }
            panes.insert((connections, columns, rows), seen);
        }
    }
    if measured.is_some() {
        write(&panes);
    }
}

/// Puts all of it into the page, in place of what was there.
fn write(panes: &BTreeMap<(usize, usize, usize), Seen>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/top.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- panes -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /panes -->").unwrap();
    let mut text = String::new();
    for ((connections, columns, rows), Seen { pane, percent }) in panes {
        let noun = of(*connections);
        let percent = percent.unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "\n{noun} at {columns} columns and {rows} rows; `siphon top` took {percent:.1} % of a processor:\n\n```text"
        );
        let lines: Vec<_> = pane.lines().collect();
        let hidden = lines.len().saturating_sub(SHOWN);
        for (number, line) in lines.iter().enumerate() {
            let from_end = lines.len() - number;
            match hidden > 0 && number >= SHOWN - 3 && from_end > 2 {
                true if from_end == 3 => {
                    let _ = writeln!(text, "⋮ {} more rows", hidden + 1);
                }
                true => {}
                false => {
                    let _ = writeln!(text, "{}", line.trim_end());
                }
            }
        }
        text.push_str("```\n");
    }
    std::fs::write(&path, format!("{before}<!-- panes -->\n{text}\n<!-- /panes -->{after}"))
        .unwrap();
}
