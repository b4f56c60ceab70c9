//! What many connections cost: memory of idle ones, how fast they are accepted, and what they and
//! clients that never say anything do to a busy one.
//!
//! ```text
//! cargo run --release -p siphon-perf --example scale [CONNECTIONS]
//! ```
//!
//! The clients are another process, so that the memory is one side's. The open files of a process
//! (`ulimit -n`) have to suffice for the connections.

#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use siphon_common::{Config, Context};
use siphon_msgr::{Messenger, Stack};
use siphon_perf::{Client, ClientOptions, Limit, Progress, Server, ServerOptions, Workload};
use siphon_proto::Policy;
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType};

const CONNECTIONS: usize = 10_000;
/// Clients that never say anything, or too little.
const SILENT: usize = 1_000;
const READY_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--clients", addrs, count] => clients(addrs, count.parse()?),
        ["--silent", addr, count] => silent(addr.parse()?, count.parse()?),
        [count] => measure(count.parse()?),
        _ => measure(CONNECTIONS),
    }
}

fn measure(count: usize) -> Result<()> {
    let mut config = Config::default();
    config.ms_bind_port_min = 0;
    config.ms_bind_port_max = 0;
    config.ms_connection_ready_timeout = READY_TIMEOUT;
    let context = Context::new(config);
    let stack = Stack::new(&context)?;
    let server = Arc::new(Server::new(ServerOptions::default())?);
    let osd = Messenger::builder(&context, &stack, EntityName::new(EntityType::OSD, 0))
        .default_policy(Policy::STATELESS_SERVER)
        .dispatcher_tail(server)
        .start()?;
    let addrs = osd.bind(&["v2:127.0.0.1:0/0".parse()?])?;
    let client_stack = Stack::new(&context)?;
    let busy = Client::connect(&context, &client_stack, &addrs, 1, ClientOptions::default())?;

    let alone = rates(&busy)?;
    let before = resident()?;
    let start = Instant::now();
    let mut idle = Others::start("--clients", &addrs.to_string(), count)?;
    let time = start.elapsed();
    let grown = resident()?.saturating_sub(before);
    println!("accepted:  {:.0} connections a second", count as f64 / time.as_secs_f64());
    println!("memory:    {:.2} KiB resident for each of {count}", grown as f64 / count as f64);
    let beside = rates(&busy)?;
    println!("beside idle connections: {:.2} of the rate of 4 KiB messages", beside / alone);
    idle.end()?;

    let addr = addrs.msgr2().and_then(|addr| addr.socket_addr()).context("an address")?;
    let alone = rates(&busy)?;
    let mut mute = Others::start("--silent", &addr.to_string(), SILENT)?;
    let beside = rates(&busy)?;
    println!("beside {SILENT} silent clients: {:.2} of the rate", beside / alone);
    let gone = mute.said()?;
    println!("silent clients: {gone}, ms_connection_ready_timeout is {READY_TIMEOUT:?}");
    Ok(())
}

/// Operations a second, the median of several short runs.
fn rates(client: &Client) -> Result<f64> {
    let limit = Limit::Time(Duration::from_secs(1));
    let work = Workload { size: 4096, jobs: 1, depth: 32, limit };
    let mut rates = Vec::new();
    for _ in 0..5 {
        rates.push(client.measure(&work, &Arc::new(Progress::new(1)))?.rate());
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
}

/// This process's resident memory, in KiB.
fn resident() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Clients in a process of their own.
struct Others {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Others {
    /// Starts them, and returns when they are all there.
    fn start(role: &str, addr: &str, count: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([role, addr, &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let mut others = Self { child, lines };
        let ready = others.said()?;
        ensure!(ready == "ready", "the clients say {ready:?}");
        Ok(others)
    }

    fn said(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the clients have ended")??)
    }

    fn end(&mut self) -> Result<()> {
        drop(self.child.stdin.take());
        ensure!(self.child.wait()?.success(), "the clients failed");
        Ok(())
    }
}

/// Opens sessions, and keeps them until the standard input ends.
fn clients(addrs: &str, count: usize) -> Result<()> {
    let addrs: EntityAddrVec = addrs.parse()?;
    let mut config = Config::default();
    config.ms_async_op_threads = 2;
    let context = Context::new(config);
    let stack = Stack::new(&context)?;
    let name = EntityName::new(EntityType::CLIENT, 1);
    let client =
        Messenger::builder(&context, &stack, name).default_policy(Policy::LOSSY_CLIENT).start()?;
    let mut connections = Vec::with_capacity(count);
    // As many at a time as wait to be accepted.
    while connections.len() < count {
        let batch = 256.min(count - connections.len());
        let opened: Vec<_> = (0..batch)
            .map(|_| client.connect_anonymously(EntityType::OSD, addrs.clone()))
            .collect();
        for connection in &opened {
            pollster::block_on(connection.ready())?;
        }
        connections.extend(opened);
    }
    println!("ready");
    std::io::stdin().lines().for_each(drop);
    Ok(())
}

/// Connects and says nothing, or a byte a second; tells after how long all were hung up on.
fn silent(addr: SocketAddr, count: usize) -> Result<()> {
    let mut streams: Vec<_> =
        (0..count).map(|_| TcpStream::connect(addr)).collect::<Result<_, _>>()?;
    for stream in &streams {
        stream.set_nonblocking(true)?;
    }
    let start = Instant::now();
    println!("ready");
    let banner = b"ceph v2\n\x10\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut said = 0;
    while !streams.is_empty() && start.elapsed() < 4 * READY_TIMEOUT {
        std::thread::sleep(Duration::from_secs(1)); // it is the server that is measured
        let byte = start.elapsed().as_secs() as usize;
        if byte > said && byte < banner.len() {
            for stream in streams.iter_mut().step_by(2) {
                let _ = stream.write_all(&banner[said..byte]);
            }
            said = byte;
        }
        streams.retain(|stream| {
            let gone = match stream.peek(&mut [0; 64]) {
                Ok(0) => true,
                Ok(_) => std::io::Read::read(&mut &*stream, &mut [0; 64]).is_err(),
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            };
            !gone
        });
    }
    let time = start.elapsed().as_secs_f64();
    println!("{} of {count} gone after {time:.1} s", count - streams.len());
    Ok(())
}
