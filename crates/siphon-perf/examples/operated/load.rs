//! The messenger under load, its admin socket and its log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use siphon_common::admin_socket::AdminSocket;
use siphon_common::logging::Log;
use siphon_common::{Config, Context};
use siphon_msgr::{Messenger, Stack};
use siphon_perf::{
    Client, ClientOptions, Limit, Measurement, Progress, Server, ServerOptions, Workload,
};
use siphon_proto::Policy;
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType};

use crate::Args;
use crate::operator::{Operator, rotated_to};

/// Between two lines of the log, of which none may be lost.
const TICK: Duration = Duration::from_millis(2);

pub(crate) struct Load {
    context: Context,
    log: Log,
    socket: AdminSocket,
    log_file: PathBuf,
    server: Messenger,
    client: Client,
    ticker: Ticker,
}

impl Load {
    pub(crate) fn start(folder: &Path, jobs: usize) -> Result<Self> {
        let log_file = folder.join("load.log");
        let mut config = Config::default();
        config.set("log_file", &log_file.display().to_string())?;
        config.set("log_to_stderr", "false")?;
        config.set("debug_none", "1/5")?;
        let context = Context::new(config);
        let log = Log::builder(&context).install()?;
        log.reopen_on_hangup()?;
        let socket = AdminSocket::listen(folder.join("load.asok"), context.commands())?;
        let stack = Stack::new(&context)?;
        let server = Messenger::builder(&context, &stack, EntityName::new(EntityType::OSD, 0))
            .describe(siphon_messages::describe)
            .default_policy(Policy::STATELESS_SERVER)
            .dispatcher_tail(Arc::new(Server::new(ServerOptions::default())?))
            .start()?;
        server.bind(&"127.0.0.1:0".parse::<EntityAddrVec>()?)?;
        let options = ClientOptions::default();
        let client = Client::connect(&context, &stack, &server.addrs(), jobs, options)?;
        let ticker = Ticker::start()?;
        Ok(Self { context, log, socket, log_file, server, client, ticker })
    }

    pub(crate) fn socket(&self) -> &Path {
        self.socket.path()
    }

    pub(crate) fn log_file(&self) -> &Path {
        &self.log_file
    }

    pub(crate) fn run(&self, args: &Args, time: Duration) -> Result<Measurement> {
        let Args { size, jobs, depth, .. } = *args;
        let workload = Workload { size, jobs, depth, limit: Limit::Time(time) };
        Ok(self.client.measure(&workload, &Arc::new(Progress::new(jobs)))?)
    }

    /// Seconds that the thread which answers has run.
    pub(crate) fn answering_cpu(&self) -> Result<f64> {
        for task in std::fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            if std::fs::read_to_string(task.join("comm"))?.trim() == "admin_socket" {
                let schedstat = std::fs::read_to_string(task.join("schedstat"))?;
                let nanos: u64 = schedstat.split(' ').next().unwrap_or_default().parse()?;
                return Ok(nanos as f64 / 1e9);
            }
        }
        bail!("no thread answers at the admin socket")
    }

    /// Ends it, and fails if a message or a line of the log was lost or came twice. `counted` operations
    /// were measured after the first round, which was not counted.
    pub(crate) fn check(self, counted: u64, operator: &mut Operator) -> Result<()> {
        let lines = self.ticker.stop();
        let perf = self.context.perf().dump(None, None);
        let workers = perf.as_object().into_iter().flatten();
        let workers: Vec<_> =
            workers.filter(|(name, _)| name.starts_with("AsyncMessenger::Worker-")).collect();
        let sum = |counter: &str| -> u64 {
            workers.iter().filter_map(|(_, counters)| counters[counter].as_u64()).sum()
        };
        let (sent, received) = (sum("msgr_send_messages"), sum("msgr_recv_messages"));
        let bytes = (sum("msgr_send_bytes"), sum("msgr_recv_bytes"));
        println!("messages: {sent} sent, {received} received, {counted} operations measured");
        // Each operation is a request and an answer; the first round's are not among those counted.
        ensure!(sent == received && bytes.0 == bytes.1, "{bytes:?} bytes: something was lost");
        ensure!(sent >= 2 * counted, "more was answered than was sent");
        ensure!(sum("msgr_created_connections") == 2 * self.client.jobs() as u64, "reconnected");
        self.client.shutdown();
        pollster::block_on(self.server.shutdown());
        self.log.flush();
        let files = (1..=operator.rotated()).map(|number| rotated_to(&self.log_file, number));
        let mut next = 0;
        for file in files.chain([self.log_file.clone()]) {
            let text = std::fs::read_to_string(&file).with_context(|| format!("{file:?}"))?;
            for line in text.lines() {
                let Some((_, number)) = line.rsplit_once("tick ") else { continue };
                ensure!(number.parse() == Ok(next), "line {next} is missing in {file:?}: {line}");
                next += 1;
            }
        }
        ensure!(next == lines, "{} lines of the log are missing at its end", lines - next);
        println!("log: {lines} lines in {} files, none lost", operator.rotated() + 1);
        Ok(())
    }
}

/// Logs a numbered line now and then.
struct Ticker {
    over: Arc<AtomicBool>,
    lines: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Ticker {
    fn start() -> Result<Self> {
        let (over, lines) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, counts) = (Arc::clone(&over), Arc::clone(&lines));
        let thread = std::thread::Builder::new().name("ticker".to_owned()).spawn(move || {
            while !ends.load(Ordering::Acquire) {
                let number = counts.fetch_add(1, Ordering::AcqRel);
                tracing::info!("tick {number}");
                std::thread::sleep(TICK);
            }
        })?;
        Ok(Self { over, lines, thread })
    }

    /// Lines that it logged.
    fn stop(self) -> u64 {
        self.over.store(true, Ordering::Release);
        let _ = self.thread.join(); // a panic of it was told
        self.lines.load(Ordering::Acquire)
    }
}
