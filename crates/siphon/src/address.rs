use std::net::ToSocketAddrs;

use anyhow::{Context, Result, bail};
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec};

/// Port of a monitor's msgr2 address.
pub(crate) const MON_PORT: u16 = 3300;

/// The address of a messenger as people give it: Ceph's own forms (`v2:10.0.0.1:3300/0`,
/// `[v2:…,v1:…]`, `10.0.0.1:6800`, `[::1]:6800`), or a name with a port. Without a port it is
/// `default_port`, if there is one.
pub(crate) fn resolve(text: &str, default_port: Option<u16>) -> Result<EntityAddrVec> {
    if let Ok(addrs) = text.parse::<EntityAddrVec>() {
        let usable = addrs.iter().map(|addr| complete(text, *addr, default_port));
        return usable.collect();
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => {
            let port = port.parse().with_context(|| {
                format!("\"{port}\" in \"{text}\" is not a port; write HOST:PORT or v2:IP:PORT/0")
            })?;
            (host, Some(port))
        }
        _ => (text, default_port),
    };
    let Some(port) = port else {
        bail!("\"{text}\" has no port; write HOST:PORT or v2:IP:PORT/0");
    };
    let found = (host, port).to_socket_addrs().with_context(|| {
        format!("cannot find the host \"{host}\"; check its spelling, or give an IP address")
    })?;
    let first = found.into_iter().next();
    let addr = first.with_context(|| format!("the host \"{host}\" has no address"))?;
    Ok(EntityAddrVec::from(EntityAddr::msgr2(addr, 0)))
}

fn complete(text: &str, addr: EntityAddr, default_port: Option<u16>) -> Result<EntityAddr> {
    let addr = match (addr.kind(), addr.port(), default_port) {
        (AddrType::ANY, ..) => addr.with_kind(AddrType::MSGR2),
        _ => addr,
    };
    match (addr.port(), default_port) {
        (0, Some(port)) => Ok(addr.with_port(port)),
        (0, None) => bail!("\"{text}\" has no port; write HOST:PORT or v2:IP:PORT/0"),
        _ => Ok(addr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_in_every_form() {
        for (text, expected) in [
            ("127.0.0.1:6800", "v2:127.0.0.1:6800/0"),
            ("v2:127.0.0.1:6800/5", "v2:127.0.0.1:6800/5"),
            ("127.0.0.1", "v2:127.0.0.1:3300/0"),
            ("[::1]:6800", "v2:[::1]:6800/0"),
            ("localhost:6800", "v2:127.0.0.1:6800/0"),
        ] {
            let addrs = resolve(text, Some(MON_PORT)).unwrap();
            let found = addrs.to_string();
            assert!(found == expected || found == "v2:[::1]:6800/0", "{text}: {found}");
        }
    }

    #[test]
    fn what_cannot_be_resolved_says_so() {
        for (text, expected) in [
            ("no-such-host.invalid:6800", "cannot find the host"),
            ("localhost:x", "is not a port"),
            ("localhost", "has no port"),
        ] {
            let error = resolve(text, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
