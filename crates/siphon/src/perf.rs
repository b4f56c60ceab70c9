mod sweep;
mod watch;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use siphon_auth::{AuthClient, ConnectionMode, CryptoKey, KeyType, ModeList, Modes, SharedSecret};
use siphon_common::{Config, Context};
use siphon_msgr::{Messenger, Stack, SystemEnv};
use siphon_net::{CongestionControl, RdmaCounts, RdmaDevice};
use siphon_perf::{
    Client, ClientOptions, Comparison, Compression, Content, Figures, Limit, Measurement, Progress,
    RawPeers, RawServer, RdmaFigures, Report, Server, ServerOptions, Workload, wire_lengths,
};
use siphon_proto::Policy;
use siphon_proto::v2::BannerFeatures;
use siphon_proto::v2::compression::{Algorithm, CompressionOptions};
use siphon_wire::types::{AuthName, EntityAddrVec, EntityName, EntityType};

use crate::size::Size;
use crate::stack::StackArgs;
use crate::{address, options, top};
use siphon_common::interrupt::{Ending, Interrupt};

/// Turns of messenger and plain sockets with `--baseline`.
const ROUNDS: u32 = 5;
/// What runs before the first round, and is not counted.
const WARM_UP: Duration = Duration::from_millis(200);
/// How often the progress bar is drawn anew.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    side: Option<Side>,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    seal: ModeArgs,
    #[command(flatten)]
    stack: StackArgs,
    #[command(flatten)]
    watch: WatchArgs,
    /// Where the server listens; RDMA-CM needs an address of the device
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    listen: std::net::IpAddr,
    /// Also measure, in turn with the messenger, what plain TCP sockets reach with the same bytes
    /// at the same depth
    #[arg(long)]
    baseline: bool,
}

#[derive(Debug, Subcommand)]
enum Side {
    /// Answer the benchmark until interrupted; Ceph's own ceph_perf_msgr_client can be the peer
    Server {
        /// Where to listen: IP:PORT
        addr: String,
        /// How long each request takes, in microseconds; those that wait are bounded by
        /// ms_dispatch_throttle_bytes
        #[arg(long, default_value_t = 0, value_name = "US")]
        think_time: u64,
        /// Threads that do the thinking
        #[arg(long, default_value_t = 1, value_name = "N")]
        threads: usize,
        #[command(flatten)]
        seal: ModeArgs,
        #[command(flatten)]
        stack: StackArgs,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Measure against a server; Ceph's own ceph_perf_msgr_server can be the peer
    Client {
        /// The server: HOST:PORT
        addr: String,
        #[command(flatten)]
        work: WorkArgs,
        #[command(flatten)]
        seal: ModeArgs,
        #[command(flatten)]
        stack: StackArgs,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Measure many sizes, depths, jobs, stacks and modes, each in turn with plain TCP sockets: a
    /// table, JSON, and a page with charts
    Sweep(sweep::Args),
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct WatchArgs {
    /// Show workers, connections and throttles as `siphon top` does, until it ends or q is pressed
    #[arg(long)]
    watch: bool,
}

/// How frames are protected.
#[derive(Debug, clap::Args)]
struct ModeArgs {
    /// crc: checksums. secure: AES-128-GCM, by cephx with a key that both sides have
    #[arg(long, value_enum, default_value = "crc")]
    mode: Mode,
    /// With --mode secure: the file with the key; a server makes it if it is not there
    #[arg(long, value_name = "FILE")]
    keyfile: Option<PathBuf>,
    /// Compress frames: snappy, zlib, zstd or lz4. Server and client have to want the same; Ceph's own
    /// tools never do
    #[arg(long, value_name = "ALGORITHM")]
    compress: Option<Algorithm>,
    /// With --compress: frames with fewer bytes go as they are (ms_osd_compress_min_size)
    #[arg(long, default_value = "1K", value_name = "SIZE")]
    compress_min_size: Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Data {
    /// Numbers that count up
    Counting,
    /// Lines of a log, which compress to a third or so
    Log,
    /// Random bytes, which do not compress
    Random,
}

impl From<Data> for Content {
    fn from(data: Data) -> Self {
        match data {
            Data::Counting => Self::Counting,
            Data::Log => Self::Log,
            Data::Random => Self::Random,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Crc,
    Secure,
}

impl ModeArgs {
    /// What both sides share in secure mode; `make_key` gives a key where there is none.
    fn secret(&self, make_key: impl FnOnce() -> Result<CryptoKey>) -> Result<Option<SharedSecret>> {
        if self.mode == Mode::Crc {
            return Ok(None);
        }
        let key = match &self.keyfile {
            Some(path) if path.exists() => {
                let mut config = Config::default();
                config.keyfile = path.display().to_string();
                siphon_msgr::load_key(&config, &perf_client()?)?
            }
            _ => make_key()?,
        };
        let modes = Modes::all(&ModeList::only(ConnectionMode::SECURE));
        Ok(Some(SharedSecret::new(key, modes, Arc::new(SystemEnv))))
    }

    fn compression(&self) -> Option<CompressionOptions> {
        Some(CompressionOptions {
            mode: siphon_proto::v2::compression::Mode::Force,
            algorithms: vec![self.compress?],
            min_size: self.compress_min_size.0,
            secure: true,
            anybody: true,
        })
    }

    /// A mode by itself.
    fn of(mode: Mode) -> Self {
        Self { mode, keyfile: None, compress: None, compress_min_size: Size(1 << 10) }
    }

    fn new_key() -> Result<CryptoKey> {
        Ok(CryptoKey::generate(KeyType::AES256K, &SystemEnv)?)
    }
}

fn perf_client() -> Result<AuthName> {
    Ok("client.perf".parse()?)
}

fn auth_client(secret: Option<&SharedSecret>) -> Result<Option<Arc<dyn AuthClient>>> {
    let Some(secret) = secret else {
        return Ok(None);
    };
    Ok(Some(Arc::new(secret.client(perf_client()?, EntityType::OSD)?)))
}

#[derive(Debug, clap::Args)]
struct WorkArgs {
    /// Data of each request in bytes: 4096, 4K, 4M
    #[arg(long, default_value = "4K")]
    size: Size,
    /// Connections at the same time, each with a messenger of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: u16,
    /// Operations in flight on each connection
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    depth: u32,
    /// Measure so many seconds
    #[arg(long, default_value_t = 5.0, value_name = "S", conflicts_with = "ops")]
    seconds: f64,
    /// Measure so many operations of each job
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    ops: Option<u64>,
    /// Sleep so many microseconds on the worker when an answer comes
    #[arg(long, default_value_t = 0, value_name = "US")]
    client_think_time: u64,
    /// What the data is
    #[arg(long, value_enum, default_value = "counting")]
    data: Data,
    /// Don't offer revision 1 of msgr2
    #[arg(long)]
    rev0: bool,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether this is the side that answers.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.side, Some(Side::Server { .. }))
    }
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.side {
        None => run_both(&args),
        Some(Side::Sweep(args)) => sweep::run(&args),
        Some(Side::Server { addr, think_time, threads, seal, stack, watch }) => {
            let think_time = Duration::from_micros(think_time);
            serve(&addr, ServerOptions { threads, think_time }, &seal, &stack, watch)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Side::Client { addr, work, seal, stack, watch }) => {
            run_client(&addr, &work, &seal, &stack, watch)
        }
    }
}

fn run_both(args: &Args) -> Result<ExitCode> {
    let Args { work, seal, stack, baseline, listen, watch: WatchArgs { watch }, .. } = args;
    watch::check(*watch)?;
    let workload = work.workload()?;
    let context = stack.context()?;
    let _presence = options::present(&context, "client.0")?;
    let stack = Stack::new(&context)?;
    let sends_by = tcp_sends_by(&context)?;
    let secret = seal.secret(ModeArgs::new_key)?;
    let options = ServerOptions::default();
    let addr = std::net::SocketAddr::new(*listen, 0).to_string();
    let server = start_server(&context, &stack, &addr, options, seal, secret.as_ref())?;
    let options = work.options(seal, auth_client(secret.as_ref())?);
    let client = connect(&context, &stack, &server.addrs(), &workload, options)?;
    let raw = match *baseline {
        true => {
            let (request, answer) = wire_lengths(workload.size);
            let peers = RawPeers { request, answer };
            let algorithm = congestion_control(&context)?;
            let server = RawServer::start(peers, workload.depth, algorithm);
            Some((server.context("cannot start the baseline's server")?, peers))
        }
        false => None,
    };
    let interrupt = Interrupt::listen()?;
    let shows = Shows { bar: !watch };
    let measured = watch::watched(*watch, &context, &interrupt, || {
        measure(&client, &stack, raw.as_ref(), &workload, shows, &interrupt)
    })?;
    let report = report(sends_by, &client, &stack, &workload, &measured, &interrupt);
    client.shutdown();
    pollster::block_on(server.shutdown());
    print(&report, work.json)?;
    Ok(interrupt.exit_code())
}

fn run_client(
    addr: &str,
    work: &WorkArgs,
    seal: &ModeArgs,
    stack: &StackArgs,
    WatchArgs { watch }: WatchArgs,
) -> Result<ExitCode> {
    watch::check(watch)?;
    let workload = work.workload()?;
    let server = address::resolve(addr, None)?;
    let context = stack.context()?;
    let _presence = options::present(&context, "client.0")?;
    let stack = Stack::new(&context)?;
    let sends_by = tcp_sends_by(&context)?;
    let no_key = || bail!("--mode secure needs --keyfile FILE: that of `siphon perf server`");
    let secret = seal.secret(no_key)?;
    let options = work.options(seal, auth_client(secret.as_ref())?);
    let client = connect(&context, &stack, &server, &workload, options)?;
    let interrupt = Interrupt::listen()?;
    let measured = watch::watched(watch, &context, &interrupt, || {
        measure(&client, &stack, None, &workload, Shows { bar: !watch }, &interrupt)
    })?;
    let report = report(sends_by, &client, &stack, &workload, &measured, &interrupt);
    client.shutdown();
    print(&report, work.json)?;
    Ok(interrupt.exit_code())
}

fn serve(
    addr: &str,
    options: ServerOptions,
    seal: &ModeArgs,
    stack: &StackArgs,
    WatchArgs { watch }: WatchArgs,
) -> Result<()> {
    watch::check(watch)?;
    let context = stack.context()?;
    let _presence = options::present(&context, "osd.0")?;
    let stack = Stack::new(&context)?;
    let secret = seal.secret(|| {
        let Some(path) = &seal.keyfile else {
            bail!("--mode secure needs --keyfile FILE, which the clients are given as well");
        };
        let key = ModeArgs::new_key()?;
        siphon_msgr::save_secret(path, key.to_base64().as_bytes())?;
        Ok(key)
    })?;
    let ending = Ending::listen()?;
    let server = start_server(&context, &stack, addr, options, seal, secret.as_ref())?;
    if watch {
        top::watch_own(&context, &|| ending.has_come())?;
    } else {
        println!("answering the benchmark at {}, until interrupted", server.addrs());
        ending.wait()?;
    }
    pollster::block_on(server.shutdown());
    let [messages, connections] =
        ["msgr_recv_messages", "msgr_created_connections"].map(|name| counted(&context, name));
    println!("interrupted: {messages} messages came over {connections} connections");
    Ok(())
}

/// A counter's sum over all workers.
fn counted(context: &Context, name: &str) -> u64 {
    let dump = context.perf().dump(None, None);
    let loggers = dump.as_object().into_iter().flat_map(|loggers| loggers.values());
    loggers.filter_map(|logger| logger[name].as_u64()).sum()
}

fn start_server(
    context: &Context,
    stack: &Stack,
    addr: &str,
    options: ServerOptions,
    seal: &ModeArgs,
    secret: Option<&SharedSecret>,
) -> Result<Messenger> {
    let mut builder = Messenger::builder(context, stack, EntityName::new(EntityType::OSD, 0))
        .describe(siphon_messages::describe)
        .default_policy(Policy::STATELESS_SERVER)
        .throttles(EntityType::CLIENT, options.throttles(&context.config()))
        .dispatcher_tail(Arc::new(Server::new(options)?));
    if let Some(secret) = secret {
        builder = builder.auth_server(Arc::new(secret.server(EntityType::OSD)));
    }
    if let Some(compression) = seal.compression() {
        builder = builder.compression(compression);
    }
    let messenger = builder.start()?;
    let addrs: EntityAddrVec = match addr.parse::<EntityAddrVec>() {
        Ok(addrs) => addrs,
        Err(_) => address::resolve(addr, None)?,
    };
    messenger.bind(&addrs)?;
    Ok(messenger)
}

/// The jobs' connections; refused if the server does not compress as it was asked to.
fn connect(
    context: &Context,
    stack: &Stack,
    server: &EntityAddrVec,
    workload: &Workload,
    options: ClientOptions,
) -> Result<Client> {
    let wanted = options.compression.as_ref().and_then(|it| it.algorithms.first().copied());
    let client = Client::connect(context, stack, server, workload.jobs, options)?;
    if let Some(algorithm) = wanted
        && client.compression() != wanted
    {
        bail!(
            "the server does not compress by {algorithm}: start it by `siphon perf server` with \
             --compress {algorithm}"
        );
    }
    Ok(client)
}

/// Rounds of the messenger and of plain sockets, and what RDMA took for the former.
struct Measured {
    ours: Vec<Measurement>,
    raws: Vec<Measurement>,
    rdma: Option<RdmaFigures>,
}

/// Whether a progress bar is drawn, on a terminal.
#[derive(Clone, Copy)]
struct Shows {
    bar: bool,
}

/// Measures in rounds, in turn with the raw limit if there is one, until the end or an interruption: the
/// round of the messenger that it cuts short is kept, one of plain sockets is not.
fn measure(
    client: &Client,
    stack: &Stack,
    raw: Option<&(RawServer, RawPeers)>,
    workload: &Workload,
    shows: Shows,
    interrupt: &Interrupt,
) -> Result<Measured> {
    let rounds = if raw.is_some() { ROUNDS } else { 1 };
    let round = Workload { limit: divide(workload.limit, rounds), ..*workload };
    let warm_up = Workload { limit: Limit::Time(WARM_UP), ..*workload };
    let (mut ours, mut raws) = (Vec::new(), Vec::new());
    if matches!(workload.limit, Limit::Time(_)) {
        let progress = Arc::new(Progress::stopped_by(workload.jobs, interrupt.flag()));
        client.measure(&warm_up, &progress)?;
        if let Some((server, peers)) = raw {
            server.measure(*peers, &warm_up, &progress)?;
        }
    }
    let before = stack.rdma().map(RdmaDevice::counts);
    for _ in 0..rounds {
        let run = |progress: &_| Ok(client.measure(&round, progress)?);
        ours.push(shown("siphon", &round, shows, interrupt, run)?);
        if let Some((server, peers)) = raw.filter(|_| !interrupt.is_set()) {
            let run = |progress: &_| Ok(server.measure(*peers, &round, progress)?);
            raws.push(shown("plain TCP", &round, shows, interrupt, run)?);
        }
        if interrupt.is_set() {
            raws.truncate(ours.len() - 1);
            break;
        }
    }
    let after = stack.rdma().map(RdmaDevice::counts);
    let rdma = before
        .zip(after)
        .map(|(before, after)| rdma_figures(&before, &after, sum(&ours).operations));
    Ok(Measured { ours, raws, rdma })
}

fn rdma_figures(before: &RdmaCounts, after: &RdmaCounts, ops: u64) -> RdmaFigures {
    let per_op =
        |count: fn(&RdmaCounts) -> u64| (count(after) - count(before)) as f64 / ops.max(1) as f64;
    RdmaFigures {
        work_requests_per_op: per_op(|it| it.tx_wr),
        completions_per_op: per_op(|it| it.tx_total_wc + it.rx_total_wc),
        tx_copied_bytes_per_op: per_op(|it| it.tx_copied_bytes),
        rx_copied_bytes_per_op: per_op(|it| it.rx_copied_bytes),
    }
}

/// Runs a measurement with a progress bar that shows the live rate, on a terminal.
fn shown(
    what: &'static str,
    workload: &Workload,
    shows: Shows,
    interrupt: &Interrupt,
    measure: impl FnOnce(&Arc<Progress>) -> Result<Measurement>,
) -> Result<Measurement> {
    let progress = Arc::new(Progress::stopped_by(workload.jobs, interrupt.flag()));
    if !shows.bar || !std::io::stderr().is_terminal() {
        return measure(&progress);
    }
    let (length, template) = match workload.limit {
        Limit::Operations(count) => {
            (count * workload.jobs as u64, "{prefix:9} {wide_bar} {pos}/{len} op {msg}")
        }
        Limit::Time(time) => (time.as_millis() as u64, "{prefix:9} {wide_bar} {elapsed} {msg}"),
    };
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(template)?);
    bar.set_prefix(what);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let drawing = scope.spawn(|| {
            let mut before = 0;
            while !over.load(Ordering::Acquire) {
                std::thread::park_timeout(TICK);
                let answered = progress.answered();
                let rate = (answered - before) as f64 / TICK.as_secs_f64();
                before = answered;
                bar.set_message(format!("{rate:.0} op/s"));
                bar.set_position(match workload.limit {
                    Limit::Operations(_) => answered,
                    Limit::Time(_) => (bar.elapsed().as_millis() as u64).min(length),
                });
            }
        });
        let result = measure(&progress);
        over.store(true, Ordering::Release);
        drawing.thread().unpark();
        let _ = drawing.join(); // a bar that cannot be drawn spoils no measurement
        bar.finish_and_clear();
        result
    })
}

fn report(
    sends_by: Option<String>,
    client: &Client,
    stack: &Stack,
    workload: &Workload,
    measured: &Measured,
    interrupt: &Interrupt,
) -> Report {
    let protocol = client.protocol().to_string();
    let kind = stack.kind().map_or("other", |kind| kind.name());
    let mode = client.mode().to_string();
    let Measured { ours, raws, rdma } = measured;
    let mut report = Report::new(kind.to_owned(), protocol, mode, workload, &sum(ours));
    report.interrupted = interrupt.is_set();
    report.compression = client.compression().map(|algorithm| Compression {
        algorithm: algorithm.to_string(),
        ratio: client.content().compressed(workload.size, algorithm),
    });
    report.rdma = rdma.clone();
    if !raws.is_empty() {
        report.comparison = Some(compare(ours, raws, workload.size));
    }
    report.congestion_control = sends_by.filter(|_| stack.rdma().is_none());
    report
}

/// What `ms_tcp_congestion_control` names.
fn congestion_control(context: &Context) -> Result<Option<CongestionControl>> {
    CongestionControl::named(&context.config().ms_tcp_congestion_control).map_err(Error::msg)
}

/// By which algorithm TCP sends, where the system tells that.
fn tcp_sends_by(context: &Context) -> Result<Option<String>> {
    Ok(match congestion_control(context)? {
        Some(algorithm) => Some(algorithm.name().to_owned()),
        None => CongestionControl::of_system().ok(),
    })
}

fn compare(ours: &[Measurement], raws: &[Measurement], size: usize) -> Comparison {
    let mut ratios: Vec<f64> =
        ours.iter().zip(raws).map(|(ours, raw)| ours.rate() / raw.rate()).collect();
    ratios.sort_by(f64::total_cmp);
    Comparison { raw: Figures::new(&sum(raws), size), ratio_to_raw: ratios[ratios.len() / 2] }
}

fn sum(rounds: &[Measurement]) -> Measurement {
    let mut total = Measurement::new();
    rounds.iter().for_each(|round| total.add(round));
    total
}

fn print(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn divide(limit: Limit, rounds: u32) -> Limit {
    match limit {
        Limit::Operations(count) => Limit::Operations(count.div_ceil(rounds.into())),
        Limit::Time(time) => Limit::Time(time / rounds),
    }
}

impl WorkArgs {
    fn workload(&self) -> Result<Workload> {
        let limit = match self.ops {
            Some(ops) => Limit::Operations(ops),
            None => {
                let time = Duration::try_from_secs_f64(self.seconds).ok();
                let time = time.filter(|time| *time >= Duration::from_millis(10));
                let Some(time) = time else {
                    bail!("--seconds {}: at least 0.01 seconds are measured", self.seconds);
                };
                Limit::Time(time)
            }
        };
        let (jobs, depth) = (self.jobs.into(), self.depth as usize);
        Ok(Workload { size: self.size.0, jobs, depth, limit })
    }

    fn options(&self, seal: &ModeArgs, auth: Option<Arc<dyn AuthClient>>) -> ClientOptions {
        let banner_features = if self.rev0 { BannerFeatures::NONE } else { BannerFeatures::ALL };
        let think_time = Duration::from_micros(self.client_think_time);
        let (compression, content) = (seal.compression(), self.data.into());
        ClientOptions { think_time, banner_features, auth, compression, content }
    }
}
