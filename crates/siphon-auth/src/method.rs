use std::fmt;

/// An authentication method, by its wire number (`CEPH_AUTH_*` of Ceph's `include/ceph_fs.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuthMethod(pub u32);

impl AuthMethod {
    /// `CEPH_AUTH_UNKNOWN`: no method was chosen.
    pub const UNKNOWN: Self = Self(0);
    /// `CEPH_AUTH_NONE`: peers are believed.
    pub const NONE: Self = Self(1);
    /// `CEPH_AUTH_CEPHX`: shared secrets and tickets.
    pub const CEPHX: Self = Self(2);
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UNKNOWN => f.write_str("unknown"),
            Self::NONE => f.write_str("none"),
            Self::CEPHX => f.write_str("cephx"),
            Self(other) => write!(f, "method {other}"),
        }
    }
}

/// How the frames after the handshake are protected (`CEPH_CON_MODE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionMode(pub u32);

impl ConnectionMode {
    /// `CEPH_CON_MODE_UNKNOWN`: the sides have no mode in common.
    pub const UNKNOWN: Self = Self(0);
    /// `CEPH_CON_MODE_CRC`: checksums against accidents.
    pub const CRC: Self = Self(1);
    /// `CEPH_CON_MODE_SECURE`: AES-128-GCM.
    pub const SECURE: Self = Self(2);
}

impl fmt::Display for ConnectionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UNKNOWN => f.write_str("unknown"),
            Self::CRC => f.write_str("crc"),
            Self::SECURE => f.write_str("secure"),
            Self(other) => write!(f, "mode {other}"),
        }
    }
}
