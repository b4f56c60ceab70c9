use std::io::{self, Read, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use httparse::{EMPTY_HEADER, Status};

use super::render;
use crate::Context;
use crate::perf_counters::PerfCollection;
use crate::serving::{Until, serve_each};

/// Bytes of a request's head at most.
const MAX_HEAD: usize = 8 << 10;
/// Headers in it at most.
const MAX_HEADERS: usize = 64;
/// How long a client may take for all of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that are read of what a client sends behind its head, so that it gets its answer.
const MAX_IGNORED: u64 = 64 << 10;

/// A web server that answers `GET /metrics`, one request of each client, until it is dropped.
///
/// Nothing of what clients send but a head of 8 KiB is kept, and none of them is waited for: 32 are served at once,
/// for 5 s each.
pub struct Endpoint {
    addr: SocketAddr,
    /// Dropping it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// What is told, and by whom.
struct Exporter {
    perf: PerfCollection,
    daemon: String,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve Prometheus at {addr} (exporter_addr, exporter_port): {why}")]
pub struct EndpointError {
    /// Where it should have listened.
    pub addr: String,
    /// What is wrong.
    pub why: String,
}

impl Endpoint {
    /// The one that `exporter_port` of a context's configuration asks for, if it is not 0: at
    /// `exporter_addr`, for the daemon with this name.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub fn of(context: &Context, daemon: &str) -> Result<Option<Self>, EndpointError> {
        let config = context.config();
        match config.exporter_port {
            0 => Ok(None),
            port => {
                let addr =
                    config.exporter_addr.parse::<IpAddr>().map_err(|error| EndpointError {
                        addr: format!("{}:{port}", config.exporter_addr),
                        why: format!("{error}: give an IP address"),
                    })?;
                Self::listen(SocketAddr::new(addr, port), context.perf(), daemon).map(Some)
            }
        }
    }

    /// Listens at `addr`.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn listen(
        addr: SocketAddr,
        perf: &PerfCollection,
        daemon: &str,
    ) -> Result<Self, EndpointError> {
        let failed =
            |error: io::Error| EndpointError { addr: addr.to_string(), why: error.to_string() };
        let listener = TcpListener::bind(addr).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let exporter = Exporter { perf: perf.clone(), daemon: daemon.to_owned() };
        let thread = thread::Builder::new()
            .name("prometheus".to_owned())
            .spawn(move || serve(&listener, &stopped, exporter))
            .map_err(failed)?;
        Ok(Self { addr: bound, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn serve(listener: &TcpListener, stopped: &UnixStream, exporter: Exporter) {
    serve_each(
        (listener, stopped),
        ("prometheus", "the Prometheus endpoint"),
        |listener| Ok(listener.accept()?.0),
        |_| Ok(()), // closing says it
        move |stream| answer(&stream, &exporter),
    );
}

fn answer(stream: &TcpStream, exporter: &Exporter) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut client = Until::new(stream, PATIENCE);
    let (status, body) = match read_target(&mut client)? {
        Ok((method, path)) => match (method.as_str(), path.as_str()) {
            ("GET", "/metrics") => ("200 OK", render(&exporter.perf, &exporter.daemon)),
            ("GET", _) => ("404 Not Found", "siphon: the metrics are at /metrics\n".to_owned()),
            _ => ("405 Method Not Allowed", "siphon: only GET is answered\n".to_owned()),
        },
        Err(why) => ("400 Bad Request", format!("siphon: {why}\n")),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    stream.shutdown(Shutdown::Write)?;
    // Closed with something unread, the system would take the answer back.
    io::copy(&mut client.take(MAX_IGNORED), &mut io::sink())?;
    Ok(())
}

/// Reads a request's head: its method, and its path without what follows `?`. Of a body, nothing is waited for.
fn read_target(client: &mut impl Read) -> io::Result<Result<(String, String), String>> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let len = client.read(&mut piece)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&piece[..len]);
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(Status::Complete(_)) => {
                let path = request.path.unwrap_or_default();
                let path = path.split('?').next().unwrap_or_default();
                return Ok(Ok((request.method.unwrap_or_default().to_owned(), path.to_owned())));
            }
            Ok(Status::Partial) if head.len() < MAX_HEAD => {}
            Ok(Status::Partial) => {
                return Ok(Err(format!("a request's head of more than {MAX_HEAD} bytes")));
            }
            Err(error) => return Ok(Err(format!("no HTTP request: {error}"))),
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it waits for nobody; a panic was told of by its hook
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("addr", &self.addr).finish_non_exhaustive()
    }
}
