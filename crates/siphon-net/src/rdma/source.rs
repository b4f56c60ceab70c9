//! Our address by which a certain device reaches a peer.
//!
//! RDMA-CM takes the device that the system's routes lead to. Who named another one wants that: it
//! is had by connecting from one of its addresses.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use siphon_verbs::EventChannel;

/// Of the device's addresses of the peer's family, that which has most in common with the peer's.
pub(super) fn source_for(
    channel: &EventChannel,
    device: &str,
    peer: SocketAddr,
) -> Option<SocketAddr> {
    let addresses = getifaddrs().ok()?.filter_map(|it| {
        let storage = it.address?;
        let v4 = storage.as_sockaddr_in().map(|addr| SocketAddr::from((addr.ip(), 0)));
        v4.or_else(|| storage.as_sockaddr_in6().map(|addr| SocketAddr::from((addr.ip(), 0))))
    });
    let usable = addresses.filter(|addr| {
        addr.is_ipv4() == peer.is_ipv4() && is_of(channel, device, *addr).unwrap_or(false)
    });
    usable.max_by_key(|addr| common_bits(addr.ip(), peer.ip()))
}

/// Whether RDMA-CM takes this address for the device's.
fn is_of(
    channel: &EventChannel,
    device: &str,
    addr: SocketAddr,
) -> Result<bool, siphon_verbs::VerbsError> {
    let id = channel.create()?;
    id.bind(addr)?;
    Ok(id.device().as_deref() == Some(device))
}

fn common_bits(a: IpAddr, b: IpAddr) -> u32 {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_ipv6_mapped()),
        IpAddr::V6(ip) => u128::from(ip),
    };
    (bits(a) ^ bits(b)).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_have_most_in_common() {
        let bits = |a: &str, b: &str| common_bits(a.parse().unwrap(), b.parse().unwrap());
        assert!(bits("10.1.2.3", "10.1.2.77") > bits("10.1.3.3", "10.1.2.77"));
        assert!(bits("fd00::1:1", "fd00::1:2") > bits("fe80::1:1", "fd00::1:2"));
        assert_eq!(bits("10.0.0.1", "10.0.0.1"), 128);
    }
}
