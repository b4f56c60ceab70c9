//! GIDs, from `/sys/class/infiniband`: with their types, which libibverbs of before 31 does not tell.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A port's address for RDMA: 16 bytes, in the order of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// The IP address that it is made of, on Ethernet.
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }

    /// Whether it is of a link (`fe80::`), and so made of the hardware's address alone.
    pub fn is_link_local(self) -> bool {
        self.0[..2] == [0xfe, 0x80]
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pair) in self.0.chunks_exact(2).enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{:02x}{:02x}", pair[0], pair[1])?;
        }
        Ok(())
    }
}

/// A text that is no GID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAGid(String);

impl fmt::Display for NotAGid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(
            f,
            "{text:?} is no GID: they look like fe80:0000:0000:0000:0202:c9ff:fe01:0203 or an IP address"
        )
    }
}

impl std::error::Error for NotAGid {}

impl FromStr for Gid {
    type Err = NotAGid;

    /// As IPv6 addresses are written, in whichever length; or the IPv4 address that it is made of.
    fn from_str(text: &str) -> Result<Self, NotAGid> {
        match text.trim().parse::<IpAddr>() {
            Ok(IpAddr::V6(addr)) => Ok(Self(addr.octets())),
            Ok(IpAddr::V4(addr)) => Ok(Self(addr.to_ipv6_mapped().octets())),
            Err(_) => Err(NotAGid(text.to_owned())),
        }
    }
}

/// What packets of a GID look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GidType {
    /// InfiniBand, or RoCE v1, which is the same over Ethernet and is not routed.
    RoceV1,
    /// RoCE v2: over UDP.
    RoceV2,
}

impl fmt::Display for GidType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoceV1 => "IB/RoCE v1",
            Self::RoceV2 => "RoCE v2",
        })
    }
}

/// An entry of a port's table that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GidEntry {
    /// Its index.
    pub index: u8,
    /// The GID.
    pub gid: Gid,
    /// Its type.
    pub kind: GidType,
    /// The network interface it is of, on Ethernet.
    pub interface: Option<String>,
}

/// Whether the device has its file of this name in `/dev/infiniband`, as far as can be known.
pub(crate) fn is_offered(file: &str) -> bool {
    fs::exists(format!("/sys/class/infiniband_verbs/{file}")).unwrap_or(true)
}

/// Of a device's port, numbered from 1.
pub(crate) fn gids(device: &str, port: u8) -> io::Result<Vec<GidEntry>> {
    let dir = format!("/sys/class/infiniband/{device}/ports/{port}");
    let mut found = Vec::new();
    for index in 0..=u8::MAX {
        let Ok(text) = fs::read_to_string(format!("{dir}/gids/{index}")) else {
            break;
        };
        let gid: Gid = text.parse().map_err(io::Error::other)?;
        if gid == Gid::default() {
            continue;
        }
        // An entry without a type is not in use.
        let Ok(kind) = fs::read_to_string(format!("{dir}/gid_attrs/types/{index}")) else {
            continue;
        };
        let kind = if kind.contains("v2") { GidType::RoceV2 } else { GidType::RoceV1 };
        let interface = fs::read_to_string(format!("{dir}/gid_attrs/ndevs/{index}")).ok();
        let interface = interface.map(|name| name.trim().to_owned());
        found.push(GidEntry { index, gid, kind, interface });
    }
    if found.is_empty() && !std::path::Path::new(&dir).exists() {
        let message = format!("{dir} is not there: no such device or port, or no sysfs");
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gids_are_read_as_people_write_them() {
        let gid: Gid = "0000:0000:0000:0000:0000:ffff:0a4d:0001".parse().unwrap();
        assert_eq!(gid, "10.77.0.1".parse().unwrap());
        assert_eq!(gid.ip(), "10.77.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(gid.to_string(), "0000:0000:0000:0000:0000:ffff:0a4d:0001");
        assert!("fe80::1".parse::<Gid>().unwrap().is_link_local());
        let error = "mlx5_0".parse::<Gid>().unwrap_err();
        assert!(error.to_string().contains("mlx5_0"));
    }
}
