use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use siphon_common::Config;
use siphon_messages::mon::MonMap;
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec, Uuid};

use crate::dns::Resolver;
use crate::error::StartError;

/// Port of a monitor's msgr2 address (`CEPH_MON_PORT_IANA`).
const PORT_V2: u16 = 3300;
/// Port of a monitor's msgr1 address (`CEPH_MON_PORT_LEGACY`).
const PORT_V1: u16 = 6789;
/// Monitors that the configuration may name.
const MAX_MONITORS: usize = 1024;

/// The monitors that the configuration names, until one of them gives a real map: from `mon_host`, else
/// from DNS.
///
/// Their names are `noname-a`, `noname-b`, … as in Ceph. An address without a kind that has none of the
/// two ports of monitors stands for two: msgr2 is tried first, msgr1 (`noname-a-legacy`) if none of
/// those lets us in (`MonMap::_add_ambiguous_addr` of Ceph's `mon/MonMap.cc`).
///
/// Where it is empty, DNS is asked for SRV records of `mon_dns_srv_name` (`_ceph-mon._tcp`), in the domain
/// that stands behind a `_` in that option, else in those of `/etc/resolv.conf`. Host names are looked up
/// here as well. Both may take their time.
///
/// ```
/// use siphon_common::Config;
/// use siphon_monclient::initial_monmap;
///
/// let mut config = Config::default();
/// config.mon_host = "10.0.0.1, [v2:10.0.0.2:3300/0,v1:10.0.0.2:6789/0] 10.0.0.3:6789".to_owned();
/// let map = initial_monmap(&config)?;
/// let named = |name: &str| map.mons[&name.into()].public_addrs.to_string();
/// assert_eq!(named("noname-a"), "v2:10.0.0.1:3300/0");
/// assert_eq!(named("noname-a-legacy"), "v1:10.0.0.1:6789/0");
/// assert_eq!(named("noname-b"), "[v2:10.0.0.2:3300/0,v1:10.0.0.2:6789/0]");
/// assert_eq!(named("noname-c"), "v1:10.0.0.3:6789/0");
/// # Ok::<(), siphon_monclient::StartError>(())
/// ```
///
/// # Errors
/// If it names none, or something else than monitors.
pub fn initial_monmap(config: &Config) -> Result<MonMap, StartError> {
    let mut map = MonMap::default();
    if let Some(fsid) = configured_fsid(config)? {
        map.fsid = fsid;
    }
    if config.mon_host.trim().is_empty() {
        let found = Resolver::system().and_then(|resolver| from_dns(&mut map, config, &resolver));
        return match found {
            Ok(()) => Ok(map),
            Err(dns) => Err(StartError::NoMonitors { dns: Some(dns) }),
        };
    }
    let mut names = Names(0);
    for entry in entries(&config.mon_host) {
        let found =
            resolve(entry).map_err(|why| StartError::MonHost { entry: entry.to_owned(), why })?;
        for addrs in found {
            add(&mut map, &names.next(), addrs, 0, 0);
        }
    }
    if map.mons.is_empty() {
        return Err(StartError::NoMonitors { dns: None });
    }
    Ok(map)
}

/// The monitors that DNS names, with its priorities and weights.
fn from_dns(map: &mut MonMap, config: &Config, resolver: &Resolver) -> Result<(), String> {
    let (service, domain) = match config.mon_dns_srv_name.split_once('_') {
        Some((service, domain)) => (service, Some(domain)),
        None => (config.mon_dns_srv_name.as_str(), None),
    };
    if service.is_empty() {
        return Err("mon_dns_srv_name is empty".to_owned());
    }
    let mut failure = None;
    for srv in resolver.servers_of(service, domain)? {
        let mut addrs: Vec<_> =
            srv.addrs.iter().map(|addr| SocketAddr::new(*addr, srv.port)).collect();
        if addrs.is_empty() {
            match (srv.target.as_str(), srv.port).to_socket_addrs() {
                Ok(found) => addrs.extend(found.take(MAX_MONITORS)),
                Err(error) => failure = Some(format!("{}: {error}", srv.target)),
            }
        }
        for (n, addr) in addrs.into_iter().enumerate() {
            let name = if n == 0 { srv.target.clone() } else { format!("{}-{n}", srv.target) };
            let addr = EntityAddr::new(AddrType::ANY, 0, Some(addr));
            add(map, &name, addr.into(), srv.priority, srv.weight);
        }
    }
    match failure {
        Some(failure) if map.mons.is_empty() => Err(failure),
        _ => Ok(()),
    }
}

/// The cluster that the configuration means, if it says so.
pub(crate) fn configured_fsid(config: &Config) -> Result<Option<Uuid>, StartError> {
    let fsid = config.fsid.trim();
    if fsid.is_empty() {
        return Ok(None);
    }
    let parsed = fsid.parse().map_err(|_| StartError::Fsid { fsid: fsid.to_owned() });
    parsed.map(|fsid: Uuid| (!fsid.is_zero()).then_some(fsid))
}

/// `a` to `z`, then `aa`, …
struct Names(usize);

impl Names {
    fn next(&mut self) -> String {
        let mut letters = Vec::new();
        let mut left = self.0;
        self.0 += 1;
        loop {
            letters.push(b'a' + (left % 26) as u8);
            left /= 26;
            if left == 0 {
                break;
            }
            left -= 1;
        }
        letters.reverse();
        format!("noname-{}", String::from_utf8_lossy(&letters))
    }
}

/// The parts of `mon_host`: between commas, blanks and semicolons, but not within brackets.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0i32;
    let parts = text.split(move |c: char| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        depth <= 0 && (c == ',' || c == ';' || c.is_whitespace())
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).take(MAX_MONITORS)
}

/// The monitors that a part names: a vector of addresses is one, a host's name is one for each of its
/// addresses.
fn resolve(entry: &str) -> Result<Vec<EntityAddrVec>, String> {
    let plain = entry.parse().ok();
    let plain = plain.or_else(|| Some(SocketAddr::new(entry.parse::<IpAddr>().ok()?, 0)));
    if let Some(addr) = plain {
        return Ok(vec![EntityAddr::new(AddrType::ANY, 0, Some(addr)).into()]);
    }
    if let Ok(addrs) = entry.parse::<EntityAddrVec>() {
        if addrs.is_empty() {
            return Err("there is no address in it".to_owned());
        }
        return Ok(vec![addrs]);
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains([':', '[']) => {
            let port = port.parse().map_err(|_| format!("\"{port}\" is not a port"))?;
            (host, port)
        }
        _ => (entry, 0u16),
    };
    let found = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("neither an address nor a host that can be found ({error})"))?;
    let addr = |addr: SocketAddr| EntityAddr::new(AddrType::ANY, 0, Some(addr)).into();
    let found: Vec<EntityAddrVec> = found.take(MAX_MONITORS).map(addr).collect();
    if found.is_empty() { Err("the host has no address".to_owned()) } else { Ok(found) }
}

/// Puts a monitor into the map, or two if it is not clear what it speaks.
pub(crate) fn add(map: &mut MonMap, name: &str, addrs: EntityAddrVec, priority: u16, weight: u16) {
    let mut put = |name: &str, addrs: EntityAddrVec, priority: u16| {
        map.add(name, addrs);
        if let Some(mon) = map.mons.get_mut(&name.into()) {
            (mon.priority, mon.weight) = (priority, weight);
        }
    };
    let [addr] = addrs[..] else { return put(name, addrs, priority) };
    let with = |kind, port| EntityAddrVec::from(addr.with_kind(kind).with_port(port));
    match (addr.kind(), addr.port()) {
        (AddrType::MSGR2, 0) => put(name, with(AddrType::MSGR2, PORT_V2), priority),
        (AddrType::LEGACY, 0) => put(name, with(AddrType::LEGACY, PORT_V1), priority),
        (AddrType::MSGR2 | AddrType::LEGACY, _) => put(name, addrs, priority),
        (_, PORT_V2) => put(name, with(AddrType::MSGR2, PORT_V2), priority),
        (_, PORT_V1) => put(name, with(AddrType::LEGACY, PORT_V1), priority),
        (_, port) => {
            let (v2, v1) = if port == 0 { (PORT_V2, PORT_V1) } else { (port, port) };
            put(name, with(AddrType::MSGR2, v2), priority);
            let legacy = with(AddrType::LEGACY, v1);
            put(&format!("{name}-legacy"), legacy, priority.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map_of(mon_host: &str) -> Result<MonMap, StartError> {
        let mut config = Config::default();
        config.mon_host = mon_host.to_owned();
        initial_monmap(&config)
    }

    #[test]
    fn every_form_of_an_address_is_taken() {
        for (text, expected) in [
            ("10.0.0.1:3300", "noname-a v2:10.0.0.1:3300/0"),
            ("v1:10.0.0.1", "noname-a v1:10.0.0.1:6789/0"),
            ("v2:10.0.0.1:77/5", "noname-a v2:10.0.0.1:77/5"),
            ("[::1]:3300", "noname-a v2:[::1]:3300/0"),
            (
                "[v2:[::1]:3300/0,v1:[::1]:6789/0],[v2:[::1]:3301/0,v1:[::1]:6790/0]",
                "noname-a [v2:[::1]:3300/0,v1:[::1]:6789/0], noname-b [v2:[::1]:3301/0,v1:[::1]:6790/0]",
            ),
            (
                "10.0.0.1:77;10.0.0.2:3300",
                "noname-a v2:10.0.0.1:77/0, noname-a-legacy v1:10.0.0.1:77/0, noname-b v2:10.0.0.2:3300/0",
            ),
        ] {
            let map = map_of(text).unwrap();
            let found: Vec<_> =
                map.mons.values().map(|mon| format!("{} {}", mon.name, mon.public_addrs)).collect();
            assert_eq!(found.join(", "), expected, "{text}");
        }
    }

    #[test]
    fn a_host_is_a_monitor_for_each_of_its_addresses() {
        let map = map_of("localhost:3300").unwrap();
        assert!(!map.mons.is_empty());
        for mon in map.mons.values() {
            assert!(mon.public_addrs[0].ip().unwrap().is_loopback(), "{}", mon.public_addrs);
            assert_eq!(mon.public_addrs[0].kind(), AddrType::MSGR2);
        }
    }

    #[test]
    fn what_names_no_monitor_says_so() {
        for (text, expected) in [
            ("no-such-host.invalid", "neither an address nor a host"),
            ("localhost:x", "is not a port"),
            ("[v2:10.0.0.1:3300", "neither an address nor a host"),
        ] {
            let error = map_of(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let mut config = Config::default();
        config.fsid = "x".to_owned();
        assert!(matches!(initial_monmap(&config), Err(StartError::Fsid { .. })));
    }

    #[test]
    fn where_nothing_is_configured_dns_names_the_monitors() {
        let ip = Some([10, 0, 0, 7].into());
        let records = vec![
            (1, 20, 3300, "mon1.example.test", ip),
            (1, 10, 6789, "mon2.example.test", ip),
            (2, 0, 7000, "mon3.example.test", ip),
        ];
        let resolver = crate::dns::tests::serve(records, false, 1);
        let mut config = Config::default();
        config.mon_dns_srv_name = "ceph-mon_example.test".to_owned();
        let mut map = MonMap::default();
        from_dns(&mut map, &config, &resolver).unwrap();
        let told = |name: &str| {
            let mon = &map.mons[&name.into()];
            (mon.public_addrs.to_string(), mon.priority, mon.weight)
        };
        assert_eq!(told("mon1.example.test"), ("v2:10.0.0.7:3300/0".to_owned(), 1, 20));
        assert_eq!(told("mon2.example.test"), ("v1:10.0.0.7:6789/0".to_owned(), 1, 10));
        assert_eq!(told("mon3.example.test"), ("v2:10.0.0.7:7000/0".to_owned(), 2, 0));
        assert_eq!(told("mon3.example.test-legacy").1, 3);
    }

    #[test]
    fn names_go_on_behind_z() {
        let mut names = Names(25);
        let found: Vec<_> = (0..3).map(|_| names.next()).collect();
        assert_eq!(found, ["noname-z", "noname-aa", "noname-ab"]);
        assert_eq!(Names(26 + 26 * 26).next(), "noname-aaa");
    }
}
