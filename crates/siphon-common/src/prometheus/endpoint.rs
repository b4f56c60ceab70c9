use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tiny_http::{Header, Method, Request, Response, Server};

use super::render;
use crate::Context;
use crate::perf_counters::PerfCollection;

/// A web server that answers `GET /metrics`, on a thread of its own, until it is dropped.
pub struct Endpoint {
    addr: SocketAddr,
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
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
        let failed = |why: String| EndpointError { addr: addr.to_string(), why };
        let server = Arc::new(Server::http(addr).map_err(|error| failed(error.to_string()))?);
        let addr = server.server_addr().to_ip().unwrap_or(addr);
        let (perf, daemon, serving) = (perf.clone(), daemon.to_owned(), Arc::clone(&server));
        let thread = thread::Builder::new()
            .name("prometheus".to_owned())
            .spawn(move || {
                for request in serving.incoming_requests() {
                    answer(request, &perf, &daemon);
                }
            })
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { addr, server, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn answer(request: Request, perf: &PerfCollection, daemon: &str) {
    let path = request.url().split('?').next().unwrap_or_default();
    let response = match (request.method(), path) {
        (Method::Get, "/metrics") => Response::from_string(render(perf, daemon)),
        (Method::Get, _) => {
            Response::from_string("siphon: the metrics are at /metrics\n").with_status_code(404)
        }
        _ => Response::from_string("siphon: only GET is answered\n").with_status_code(405),
    };
    let text = "text/plain; version=0.0.4; charset=utf-8";
    let header = Header::from_bytes("Content-Type", text);
    let response = match header {
        Ok(header) => response.with_header(header),
        Err(()) => response,
    };
    let _ = request.respond(response); // whoever asked may be gone
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic was told of by its hook
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("addr", &self.addr).finish_non_exhaustive()
    }
}
