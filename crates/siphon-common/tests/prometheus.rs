//! What Prometheus gets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use siphon_common::perf_counters::{CounterInfo, Counters};
use siphon_common::prometheus::Endpoint;
use siphon_common::{Config, Context};

static INFOS: [CounterInfo; 1] =
    [CounterInfo::counter("msgr_send_messages", "Network sent messages")];

fn http(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_are_served_and_nothing_else() {
    let context = Context::new(Config::default());
    assert!(Endpoint::of(&context, "osd.0").unwrap().is_none(), "off unless asked for");
    let mut counters = Counters::new("AsyncMessenger::Worker-0", &INFOS);
    context.perf().add(counters.source());
    counters.add(0, 7);
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let endpoint = Endpoint::listen(any, context.perf(), "osd.0").unwrap();
    let answer = http(endpoint.addr(), "GET /metrics");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("Content-Type: text/plain; version=0.0.4"), "{answer}");
    let line = "ceph_AsyncMessenger::Worker_0_msgr_send_messages{ceph_daemon=\"osd.0\"} 7";
    assert!(answer.contains(line), "{answer}");
    assert!(http(endpoint.addr(), "GET /").starts_with("HTTP/1.1 404"));
    assert!(http(endpoint.addr(), "POST /metrics").starts_with("HTTP/1.1 405"));

    let error = Endpoint::listen(endpoint.addr(), context.perf(), "osd.0").unwrap_err().to_string();
    assert!(error.contains("Address already in use"), "{error}");
    let addr = endpoint.addr();
    drop(endpoint);
    while TcpStream::connect(addr).is_ok() {
        std::thread::yield_now(); // its accepting thread ends a moment later
    }

    let mut config = Config::default();
    config.set("exporter_addr", "localhost").unwrap();
    config.set("exporter_port", "9926").unwrap();
    let error = Endpoint::of(&Context::new(config), "osd.0").unwrap_err().to_string();
    assert!(error.contains("localhost:9926") && error.contains("give an IP address"), "{error}");
}
