//! `siphon probe`: what an address speaks, as far as it tells without a key.

#![expect(clippy::disallowed_methods, reason = "nothing waits longer than it was told to")]

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};
use siphon_auth::{AuthClient as _, AuthNone, BadMethod, ClientExchange, PeerContext};
use siphon_messages::mon::Release;
use siphon_proto::v2::{Banner, BannerError, BannerReader};
use siphon_proto::{
    AuthAnswer, AuthEvent, CloseReason, Connection, ConnectionConfig, Event, PeerIncompatible,
    PeerInfo, Policies, Policy, ProtocolError,
};
use siphon_wire::buf::Rope;
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec, EntityName, EntityType};

use crate::address;

/// Port of a monitor's address of msgr1.
const MON_V1_PORT: u16 = 6789;
/// Of what a stranger says first, so many bytes are shown.
const MAX_SHOWN: usize = 48;
/// One read.
const READ: usize = 16 << 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Addresses: HOST (both ports of a monitor are tried), HOST:PORT, v2:IP:PORT, v1:IP:PORT
    #[arg(required = true, value_name = "ADDR")]
    addrs: Vec<String>,
    /// Give up on an address after so many seconds
    #[arg(long, default_value_t = 5.0, value_name = "S")]
    timeout: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let timeout = Duration::try_from_secs_f64(args.timeout).ok().filter(|it| !it.is_zero());
    let timeout =
        timeout.ok_or_else(|| anyhow!("--timeout {}: not a time to wait", args.timeout))?;
    let mut probes = Vec::new();
    for text in &args.addrs {
        for addr in targets(text)? {
            let probe = probe(addr, timeout);
            if !args.json {
                print!("{}", probe.to_text());
            }
            probes.push(probe);
        }
    }
    if args.json {
        let found: Vec<_> = probes.iter().map(Probe::to_json).collect();
        println!("{:#}", Value::from(found));
    }
    match probes.iter().filter(|probe| probe.found.is_err()).count() {
        0 => Ok(()),
        silent => bail!("{silent} of {} addresses do not speak Ceph's protocols", probes.len()),
    }
}

/// Where to look. A host alone stands for both addresses of a monitor.
fn targets(text: &str) -> Result<Vec<SocketAddr>> {
    let ports = match address::resolve(text, None) {
        Ok(addrs) => {
            let found: Vec<_> = addrs.iter().filter_map(EntityAddr::socket_addr).collect();
            if found.is_empty() {
                bail!("{text:?} has no IP address");
            }
            return Ok(found);
        }
        Err(error) if error.to_string().contains("has no port") => [address::MON_PORT, MON_V1_PORT],
        Err(error) => return Err(error),
    };
    let at = |port| {
        let addrs = address::resolve(text, Some(port))?;
        addrs.front().socket_addr().ok_or_else(|| anyhow!("{text:?} has no IP address"))
    };
    ports.into_iter().map(at).collect()
}

/// What an address was found to be.
struct Probe {
    addr: SocketAddr,
    found: Result<Found, String>,
}

/// A messenger of Ceph's.
#[derive(Default)]
struct Found {
    /// `msgr1` or `msgr2`.
    protocol: &'static str,
    banner: Option<Banner>,
    kind: Option<EntityType>,
    /// Our address as it looks from there.
    seen: Option<EntityAddr>,
    refusal: Option<BadMethod>,
    /// It let us in, as nobody in particular.
    peer: Option<Box<PeerInfo>>,
    /// Why it did not.
    end: Option<String>,
}

fn probe(addr: SocketAddr, timeout: Duration) -> Probe {
    let deadline = Instant::now() + timeout;
    Probe { addr, found: look(addr, deadline) }
}

fn look(addr: SocketAddr, deadline: Instant) -> Result<Found, String> {
    let mut stream = connect(addr, deadline)?;
    // Both of Ceph's protocols have the server speak first.
    let mut first = Vec::new();
    let mut reader = BannerReader::default();
    let v2 = loop {
        let mut chunk = [0; READ];
        let bytes = receive(&mut stream, &mut chunk, deadline).map_err(|error| {
            if first.is_empty() { error } else { format!("{error}, after {}", shown(&first)) }
        })?;
        first.extend_from_slice(bytes);
        match reader.feed(&mut &bytes[..]) {
            Ok(Some(banner)) => break Some(banner),
            Ok(None) => {}
            Err(BannerError::V1Peer) => break None,
            Err(_) => return Err(stranger(&first)),
        }
    };
    drop(stream);
    match v2 {
        Some(banner) => {
            let found = Found { protocol: "msgr2", banner: Some(banner), ..Found::default() };
            let target = EntityAddr::msgr2(addr, 0);
            Ok(converse(target, EntityType::ANY, found, deadline))
        }
        None => Ok(look_v1(addr, deadline)),
    }
}

/// Over msgr1 a daemon does not say what it is; the version that it wants tells.
fn look_v1(addr: SocketAddr, deadline: Instant) -> Found {
    let target = EntityAddr::legacy(addr, 0);
    let blank = || Found { protocol: "msgr1", ..Found::default() };
    let found = converse(target, EntityType::MON, blank(), deadline);
    let kind = match found.end.as_deref() {
        Some(end) if end.contains("version 24 ") => EntityType::OSD,
        Some(end) if end.contains("version 32 ") => EntityType::MDS,
        Some(end) if end.contains("version 0 ") => EntityType::MGR,
        Some(_) => return found,
        None => return Found { kind: Some(EntityType::MON), ..found },
    };
    Found { kind: Some(kind), ..converse(target, kind, blank(), deadline) }
}

/// Goes as far with the daemon as it lets us.
fn converse(
    target: EntityAddr,
    expected: EntityType,
    mut found: Found,
    deadline: Instant,
) -> Found {
    let result = converse_until(target, expected, &mut found, deadline);
    if let Err(end) = result {
        found.end = Some(end);
    }
    found
}

fn converse_until(
    target: EntityAddr,
    expected: EntityType,
    found: &mut Found,
    deadline: Instant,
) -> Result<(), String> {
    let name = EntityName::new(EntityType::CLIENT, EntityName::NEW);
    let config = ConnectionConfig {
        policies: Arc::new(Policies::new(Policy::LOSSY_CLIENT)),
        ..ConnectionConfig::new(name, EntityAddrVec::default())
    };
    let expected = Some(expected).filter(|kind| *kind != EntityType::ANY);
    let addr = target.socket_addr().ok_or("no IP address")?;
    let mut connection = Connection::connect(config, target, expected, Instant::now());
    let mut stream = connect(addr, deadline)?;
    connection.handle_connected(Instant::now());
    let mut exchange: Option<Box<dyn ClientExchange>> = None;
    loop {
        while let Some(event) = connection.poll_event() {
            match event {
                Event::LearnedAddr(seen) => found.seen = Some(seen),
                Event::Auth(event) => {
                    let answer = answer(event, name, &mut exchange, found)?;
                    connection.handle_auth(Instant::now(), answer);
                }
                Event::Ready { peer, .. } => {
                    found.kind.get_or_insert(peer.name.kind);
                    found.peer = Some(peer);
                    return Ok(());
                }
                Event::LinkDown { reason, .. } | Event::Closed(reason) => {
                    return match reason {
                        // Its own numbers tell more than ours.
                        CloseReason::Error(ProtocolError::PeerIncompatible(
                            PeerIncompatible::ProtocolVersion { theirs, .. },
                        )) => Err(format!("it wants version {theirs} of its protocol")),
                        CloseReason::Error(error) => Err(error.to_string()),
                        _ => Err("it hung up".to_owned()),
                    };
                }
                _ => {}
            }
        }
        let mut out = Rope::new();
        while connection.poll_transmit(&mut out, READ) {}
        stream.write_all(&out.to_bytes()).map_err(|error| format!("cannot send: {error}"))?;
        let mut chunk = [0; READ];
        let bytes = receive(&mut stream, &mut chunk, deadline)?;
        connection.handle_recv(Instant::now(), None, bytes);
    }
}

/// We offer method none, and see what is wanted instead.
fn answer(
    event: AuthEvent,
    name: EntityName,
    exchange: &mut Option<Box<dyn ClientExchange>>,
    found: &mut Found,
) -> Result<AuthAnswer, String> {
    let wrong = || "it asks what method none does not have".to_owned();
    match event {
        AuthEvent::Begin { peer_type } => {
            if peer_type != EntityType::ANY && found.protocol == "msgr2" {
                found.kind = Some(peer_type);
            }
            let auth = AuthNone::new(name, "probe");
            let mut begun = auth.begin(PeerContext::new(peer_type)).map_err(|_| wrong())?;
            let request = begun.request().map_err(|_| wrong())?;
            *exchange = Some(begun);
            Ok(AuthAnswer::Request(request))
        }
        AuthEvent::BadMethod(refusal) => {
            found.refusal = Some(refusal);
            Err("it wants a key".to_owned())
        }
        AuthEvent::Done { global_id, mode, payload } => {
            let exchange = exchange.as_mut().ok_or_else(wrong)?;
            let keys = exchange.done(global_id, mode, &payload).map_err(|_| wrong())?;
            Ok(AuthAnswer::Trust(keys))
        }
        _ => Err(wrong()),
    }
}

fn left(deadline: Instant) -> Result<Duration, String> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err("it says nothing more in time".to_owned()) } else { Ok(left) }
}

fn connect(addr: SocketAddr, deadline: Instant) -> Result<TcpStream, String> {
    TcpStream::connect_timeout(&addr, left(deadline)?).map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        ErrorKind::TimedOut => "no answer in time: a firewall, or no such host?".to_owned(),
        _ => format!("cannot connect: {error}"),
    })
}

/// What arrives next, before the deadline.
fn receive<'a>(
    stream: &mut TcpStream,
    chunk: &'a mut [u8],
    deadline: Instant,
) -> Result<&'a [u8], String> {
    let set = stream.set_read_timeout(Some(left(deadline)?));
    set.map_err(|error| format!("cannot wait: {error}"))?;
    match stream.read(chunk) {
        Ok(0) => Err("it hung up".to_owned()),
        Ok(len) => Ok(&chunk[..len]),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err("it says nothing: Ceph's daemons speak first, others (HTTP, TLS) wait".to_owned())
        }
        Err(error) => Err(format!("cannot receive: {error}")),
    }
}

/// What somebody else's first bytes look like.
fn stranger(first: &[u8]) -> String {
    let kinds: [(&[u8], &str); 6] = [
        (b"HTTP/", "an HTTP server"),
        (b"SSH-", "an SSH server"),
        (b"220", "a mail or FTP server"),
        (b"\x15\x03", "a TLS server"),
        (b"\x16\x03", "a TLS server"),
        (b"+OK", "a mail server"),
    ];
    let kind = kinds.iter().find(|(prefix, _)| first.starts_with(prefix));
    let kind = kind.map_or("no messenger of Ceph's", |(_, kind)| kind);
    format!("{kind}: it begins with {}", shown(first))
}

fn shown(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes[..bytes.len().min(MAX_SHOWN)].escape_ascii())
}

fn names<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

impl Probe {
    fn to_text(&self) -> String {
        let mut text = String::new();
        let found = match &self.found {
            Ok(found) => found,
            Err(why) => return format!("{}\n  {why}\n\n", self.addr),
        };
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<13}{value}");
        };
        line("protocol", found.protocol.to_owned());
        if let Some(banner) = found.banner {
            line("supports", banner.supported.to_string());
            line("requires", banner.required.to_string());
        }
        if let Some(kind) = found.kind {
            line("it is", format!("a {kind}"));
        }
        if let Some(seen) = found.seen {
            line("we are", format!("{} from there", seen.with_kind(AddrType::ANY)));
        }
        if let Some(refusal) = &found.refusal {
            line("methods", names(&refusal.allowed_methods).join(" "));
            line("modes", names(&refusal.allowed_modes).join(" "));
        }
        match &found.peer {
            Some(peer) => {
                line("lets in", "anybody, before it asks for a key".to_owned());
                line("release", format!("{} or newer", Release::of_features(peer.features)));
                line("features", peer.features.names().collect::<Vec<_>>().join(" "));
            }
            None => line("without key", found.end.clone().unwrap_or_default()),
        }
        format!("{}\n{text}\n", self.addr)
    }

    fn to_json(&self) -> Value {
        let found = match &self.found {
            Ok(found) => found,
            Err(why) => return json!({ "addr": self.addr.to_string(), "error": why }),
        };
        json!({
            "addr": self.addr.to_string(),
            "protocol": found.protocol,
            "supported": found.banner.map(|banner| banner.supported.to_string()),
            "required": found.banner.map(|banner| banner.required.to_string()),
            "entity_type": found.kind.map(|kind| kind.to_string()),
            "seen_addr": found.seen.map(|addr| addr.to_string()),
            "methods": found.refusal.as_ref().map(|refusal| names(&refusal.allowed_methods)),
            "modes": found.refusal.as_ref().map(|refusal| names(&refusal.allowed_modes)),
            "release": found.peer.as_ref().map(|it| Release::of_features(it.features).to_string()),
            "features": found.peer.as_ref().map(|it| it.features.names().collect::<Vec<_>>()),
            "without_key": found.end,
        })
    }
}
