//! The raw limit: the same byte counts, at the same depth, over plain TCP sockets without any
//! protocol. A thread a side and connection, blocking calls, as many operations in one call as
//! there are to do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::Instant;

use siphon_net::CongestionControl;

use crate::cpu::CpuTime;
use crate::measure::{Limit, Measurement, Progress, Recorder, Workload, combine};
use crate::work::Content;

/// Least and most bytes that one read takes.
const READ_BUFFER: [usize; 2] = [32 << 10, 1 << 20];
/// Bytes that one write hands over at most.
const WRITE_BUFFER: usize = 4 << 20;

/// Bytes that one read takes: a quarter of what is in flight, so that the two sides work at once. Who
/// takes all that is in flight and answers it in one go lets the other wait; who takes much less
/// calls the kernel more often than needed. This is what is best for plain sockets.
fn read_buffer(peers: RawPeers, depth: usize) -> usize {
    let [least, most] = READ_BUFFER;
    (peers.request * depth / 4).clamp(least, most)
}

/// Bytes of a request and of its answer on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPeers {
    /// A request, headers included.
    pub request: usize,
    /// An answer.
    pub answer: usize,
}

/// Answers every `request` bytes by `answer` bytes, on every connection.
#[derive(Debug)]
pub struct RawServer {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    congestion_control: Option<CongestionControl>,
}

impl RawServer {
    /// Starts a server on loopback, for clients with `depth` requests in flight. Both sides send by
    /// `congestion_control`, or as the system has it.
    ///
    /// # Errors
    /// If there is no port or thread left.
    pub fn start(
        peers: RawPeers,
        depth: usize,
        congestion_control: Option<CongestionControl>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let addr = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("raw-accept".into()).spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                let Ok(stream) = stream else { break };
                if stopping.load(Ordering::Acquire) {
                    break;
                }
                let name = std::thread::Builder::new().name("raw-server".into());
                connections.extend(name.spawn(move || {
                    prepare(&stream, congestion_control)?;
                    serve(stream, peers, depth)
                }));
            }
            connections.into_iter().for_each(|thread| drop(thread.join()));
        })?;
        Ok(Self { addr, stop, thread: Some(thread), congestion_control })
    }

    /// Measures `workload` against this server.
    ///
    /// # Errors
    /// If a connection fails.
    pub fn measure(
        &self,
        peers: RawPeers,
        workload: &Workload,
        progress: &Arc<Progress>,
    ) -> io::Result<Measurement> {
        let barrier = Arc::new(Barrier::new(workload.jobs + 1));
        let mut jobs = Vec::with_capacity(workload.jobs);
        for job in 0..workload.jobs {
            let stream = TcpStream::connect(self.addr)?;
            prepare(&stream, self.congestion_control)?;
            let (barrier, progress, workload) =
                (Arc::clone(&barrier), Arc::clone(progress), *workload);
            let name = std::thread::Builder::new().name(format!("raw-client-{job}"));
            jobs.push(name.spawn(move || {
                barrier.wait();
                drive(stream, peers, &workload, job, &progress)
            })?);
        }
        let cpu = CpuTime::now();
        barrier.wait();
        let start = Instant::now();
        let mut recorders = Vec::with_capacity(jobs.len());
        for job in jobs {
            let panicked = |_| io::Error::other("a raw client panicked");
            recorders.push(job.join().map_err(panicked)??);
        }
        Ok(combine(start, cpu.elapsed(), recorders))
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accepting thread; if that fails, it is gone already.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn prepare(stream: &TcpStream, congestion_control: Option<CongestionControl>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    congestion_control.map_or(Ok(()), |algorithm| algorithm.set(stream))
}

/// Serves one connection until its end.
fn serve(mut stream: TcpStream, peers: RawPeers, depth: usize) -> io::Result<()> {
    let mut buffer = vec![0; read_buffer(peers, depth)];
    let answers = Content::Counting.bytes(WRITE_BUFFER.max(peers.answer));
    let mut received = 0;
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        received += len;
        let whole = received / peers.request;
        received %= peers.request;
        write_many(&mut stream, &answers, peers.answer, whole)?;
    }
}

/// Keeps `depth` requests in flight until the limit, then takes the last answers.
fn drive(
    mut stream: TcpStream,
    peers: RawPeers,
    workload: &Workload,
    job: usize,
    progress: &Progress,
) -> io::Result<Recorder> {
    let mut buffer = vec![0; read_buffer(peers, workload.depth)];
    let requests = Content::Counting.bytes(WRITE_BUFFER.max(peers.request));
    let start = Instant::now();
    let mut recorder = Recorder::new(start);
    // Answers come in order: the oldest request is the next to be answered.
    let mut in_flight = std::collections::VecDeque::with_capacity(workload.depth);
    let (mut sent, mut received) = (0_u64, 0);
    let mut wanted = workload.depth;
    loop {
        let now = Instant::now();
        let allowed = match workload.limit {
            _ if progress.is_stopped() => 0,
            Limit::Operations(count) => count - sent,
            Limit::Time(time) if now.duration_since(start) < time => u64::MAX,
            Limit::Time(_) => 0,
        };
        let batch = wanted.min(usize::try_from(allowed).unwrap_or(usize::MAX));
        in_flight.extend(std::iter::repeat_n(now, batch));
        write_many(&mut stream, &requests, peers.request, batch)?;
        sent += batch as u64;
        if in_flight.is_empty() {
            return Ok(recorder);
        }
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received += len;
        let answered = received / peers.answer;
        received %= peers.answer;
        let now = Instant::now();
        in_flight.drain(..answered.min(in_flight.len())).for_each(|at| recorder.record(at, now));
        progress.add(job, answered as u64);
        wanted = answered;
    }
}

/// Writes `count` pieces of `len` bytes in as few calls as the buffer allows.
fn write_many(stream: &mut TcpStream, bytes: &[u8], len: usize, count: usize) -> io::Result<()> {
    let mut left = len * count;
    while left > 0 {
        let now = left.min(bytes.len());
        stream.write_all(&bytes[..now])?;
        left -= now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_answered() {
        let peers = RawPeers { request: 4400, answer: 260 };
        let server = RawServer::start(peers, 8, None).unwrap();
        let workload = Workload { size: 4096, jobs: 2, depth: 8, limit: Limit::Operations(1000) };
        let progress = Arc::new(Progress::new(2));
        let measured = server.measure(peers, &workload, &progress).unwrap();
        assert_eq!((measured.operations, progress.answered()), (2000, 2000));
        assert!(measured.latency.min() > 0);
    }
}
