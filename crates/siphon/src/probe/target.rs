//! Addresses as people give them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use siphon_wire::types::AddrType;

use super::talk::Place;
use crate::address::MON_PORT;

/// Port of a monitor's msgr1 address.
const LEGACY_MON_PORT: u16 = 6789;
/// Most addresses that one argument has.
const MAX_ADDRS: usize = 16;

/// An argument of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// As it was given.
    pub(super) text: String,
    pub(super) endpoints: Vec<Endpoint>,
    /// Neither a port nor a protocol was given: it is enough that one of the ports is right.
    pub(super) guessed: bool,
}

/// One address of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) place: Place,
    /// The protocol that was named, [`AddrType::ANY`] without.
    pub(super) kind: AddrType,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Addr(addr) => addr.fmt(f),
            Place::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Why an argument is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetError {
    Form,
    Port,
    TooMany,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "write HOST, HOST:PORT, v1:HOST:PORT, v2:HOST:PORT or [v2:…,v1:…]",
            Self::Port => "a port is a number from 1 to 65535",
            Self::TooMany => "at most 16 addresses fit in one argument",
        })
    }
}

impl std::error::Error for TargetError {}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let mut target = Self { text: text.to_owned(), endpoints: Vec::new(), guessed: false };
        // `[::1]` begins with a bracket too, and is one address.
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match inner.filter(|inner| inner.parse::<IpAddr>().is_err()) {
            Some(list) => list.split(',').try_for_each(|part| target.add(part))?,
            None => target.add(text)?,
        }
        match target.endpoints.len() {
            0 => Err(TargetError::Form),
            1..=MAX_ADDRS => Ok(target),
            _ => Err(TargetError::TooMany),
        }
    }
}

impl Target {
    fn add(&mut self, text: &str) -> Result<(), TargetError> {
        let protocols =
            [("v1:", AddrType::LEGACY), ("v2:", AddrType::MSGR2), ("any:", AddrType::ANY)];
        let named = protocols
            .iter()
            .find_map(|(prefix, kind)| text.strip_prefix(prefix).map(|rest| (rest, *kind)));
        let (rest, kind) = named.unwrap_or((text, AddrType::ANY));
        // The nonce that Ceph writes behind an address is of no use here.
        let rest = match rest.split_once('/') {
            Some((rest, nonce)) if nonce.parse::<u32>().is_ok() => rest,
            Some(_) => return Err(TargetError::Form),
            None => rest,
        };
        let in_brackets = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Ok(ip) = in_brackets.unwrap_or(rest).parse::<IpAddr>() {
            self.add_ports(kind, |port| Place::Addr(SocketAddr::new(ip, port)));
            return Ok(());
        }
        match rest.parse::<SocketAddr>() {
            Ok(addr) if addr.port() == 0 => Err(TargetError::Port),
            Ok(addr) => {
                self.endpoints.push(Endpoint { place: Place::Addr(addr), kind });
                Ok(())
            }
            Err(_) => self.add_host(rest, kind),
        }
    }

    fn add_host(&mut self, rest: &str, kind: AddrType) -> Result<(), TargetError> {
        let (host, port) = match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        };
        let in_a_name = |it: char| it.is_alphanumeric() || matches!(it, '.' | '-' | '_');
        if host.is_empty() || !host.chars().all(in_a_name) {
            return Err(TargetError::Form);
        }
        match port.map(str::parse) {
            None => self.add_ports(kind, |port| Place::Host(host.to_owned(), port)),
            Some(Ok(port)) if port != 0 => {
                self.endpoints.push(Endpoint { place: Place::Host(host.to_owned(), port), kind });
            }
            Some(_) => return Err(TargetError::Port),
        }
        Ok(())
    }

    /// The ports that a monitor has for a protocol.
    fn add_ports(&mut self, kind: AddrType, place: impl Fn(u16) -> Place) {
        let ports: &[(u16, AddrType)] = match kind {
            AddrType::LEGACY => &[(LEGACY_MON_PORT, AddrType::LEGACY)],
            AddrType::MSGR2 => &[(MON_PORT, AddrType::MSGR2)],
            _ => &[(MON_PORT, AddrType::ANY), (LEGACY_MON_PORT, AddrType::ANY)],
        };
        self.guessed |= ports.len() > 1;
        let endpoints =
            ports.iter().map(|(port, kind)| Endpoint { place: place(*port), kind: *kind });
        self.endpoints.extend(endpoints);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Vec<String>, bool) {
        let target: Target = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let endpoints = target.endpoints.iter();
        (endpoints.map(|it| format!("{} {it}", it.kind)).collect(), target.guessed)
    }

    #[test]
    fn addresses_are_taken_in_every_form() {
        for (text, expected) in [
            ("127.0.0.1:6800", vec!["any 127.0.0.1:6800"]),
            ("[::1]:6800", vec!["any [::1]:6800"]),
            ("v1:127.0.0.1:6800/5", vec!["v1 127.0.0.1:6800"]),
            ("v2:[::1]:6800", vec!["v2 [::1]:6800"]),
            ("[v2:127.0.0.1:1/0,v1:127.0.0.1:2/0]", vec!["v2 127.0.0.1:1", "v1 127.0.0.1:2"]),
            ("ceph-mon.a:6800", vec!["any ceph-mon.a:6800"]),
            ("v1:a:6800/0", vec!["v1 a:6800"]),
            ("[10.0.0.1:1,v1:[::1]:2]", vec!["any 10.0.0.1:1", "v1 [::1]:2"]),
            ("v1:::1", vec!["v1 [::1]:6789"]),
            ("[v2:a:1,v1:a:2]", vec!["v2 a:1", "v1 a:2"]),
            ("v1:a", vec!["v1 a:6789"]),
            ("v2:10.0.0.1", vec!["v2 10.0.0.1:3300"]),
        ] {
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(parsed(text), (expected, false), "{text}");
        }
    }

    #[test]
    fn without_a_port_both_ports_of_a_monitor_are_meant() {
        for (text, host) in
            [("a.b", "a.b"), ("10.0.0.1", "10.0.0.1"), ("::1", "[::1]"), ("[::1]", "[::1]")]
        {
            let expected = vec![format!("any {host}:3300"), format!("any {host}:6789")];
            assert_eq!(parsed(text), (expected, true), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_says_so() {
        let many = format!("[{}]", vec!["v2:10.0.0.1:3300/0"; MAX_ADDRS + 1].join(","));
        for (text, expected) in [
            ("", TargetError::Form),
            ("[]", TargetError::Form),
            ("v2:v1:10.0.0.1:1", TargetError::Port),
            ("a b", TargetError::Form),
            ("http://a:80", TargetError::Form),
            ("a:80/index.html", TargetError::Form),
            (":3300", TargetError::Form),
            ("[a:1", TargetError::Form),
            ("a:x", TargetError::Port),
            ("10.0.0.1:0", TargetError::Port),
            ("a:0", TargetError::Port),
            ("a:65536", TargetError::Port),
            (&many, TargetError::TooMany),
        ] {
            assert_eq!(text.parse::<Target>(), Err(expected), "{text}");
        }
    }
}
