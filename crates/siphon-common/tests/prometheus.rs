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
    TcpStream::connect(addr).expect_err("nobody listens any more");

    let mut config = Config::default();
    config.set("exporter_addr", "localhost").unwrap();
    config.set("exporter_port", "9926").unwrap();
    let error = Endpoint::of(&Context::new(config), "osd.0").unwrap_err().to_string();
    assert!(error.contains("localhost:9926") && error.contains("give an IP address"), "{error}");
}

/// What a client says, and what it gets until the end.
fn say(addr: SocketAddr, text: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(text).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn nobody_is_waited_for_and_nothing_is_kept() {
    let context = Context::new(Config::default());
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let endpoint = Endpoint::listen(any, context.perf(), "osd.0").unwrap();
    let addr = endpoint.addr();
    // Lengths that no memory has, and bodies that never come.
    for length in ["99999999999", "18446744073709551615", "-1", "100000"] {
        for method in ["GET", "POST"] {
            let head = format!("{method} /metrics HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            let status = if method == "GET" { "HTTP/1.1 200" } else { "HTTP/1.1 405" };
            assert!(say(addr, head.as_bytes()).starts_with(status));
        }
    }
    assert!(say(addr, b"\0\xff\r\n\r\n").starts_with("HTTP/1.1 400"));
    let long = [&b"GET /metrics HTTP/1.1\r\nX: "[..], &[b'x'; 20_000]].concat();
    assert!(say(addr, &long).starts_with("HTTP/1.1 400"));
    let many = "GET /metrics HTTP/1.1\r\n\r\n".repeat(100);
    assert_eq!(say(addr, many.as_bytes()).matches("HTTP/1.1 200").count(), 1, "and it closes");

    // Who says nothing holds up neither others, nor the end.
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
    assert!(http(addr, "GET /metrics").starts_with("HTTP/1.1 200"));
    drop(endpoint);
    for mut stream in silent {
        stream.set_nonblocking(true).unwrap();
        let waits = stream.read(&mut [0]).unwrap_err().kind();
        assert_eq!(waits, std::io::ErrorKind::WouldBlock, "the end did not wait for it");
    }
}
