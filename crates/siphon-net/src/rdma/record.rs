//! What two sides tell each other over TCP before they speak by RDMA (`send_cm_meta` and
//! `recv_cm_meta` of Ceph's `msg/async/rdma/Infiniband.cc`).

use siphon_verbs::{Gid, LinkLayer, Mtu, PortInfo};

/// Where a side's queue pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// See [`told_lid`].
    pub(super) lid: u16,
    pub(super) qp_num: u32,
    /// The number of its first packet.
    pub(super) psn: u32,
    /// The number of the other side's queue pair; 0 until it is known.
    pub(super) peer_qp_num: u32,
    pub(super) gid: Gid,
}

impl Record {
    /// Bytes of a record: hexadecimal digits with colons, and a NUL.
    pub(super) const LEN: usize = 4 + 1 + 3 * (8 + 1) + 32 + 1;

    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { lid, qp_num, psn, peer_qp_num, gid } = self;
        let mut text = format!("{lid:04x}:{qp_num:08x}:{psn:08x}:{peer_qp_num:08x}:");
        for byte in gid.0 {
            text.push_str(&format!("{byte:02x}"));
        }
        text.push('\0');
        text.into_bytes()
    }

    /// Whether a record can begin with these bytes.
    pub(super) fn may_begin_with(bytes: &[u8]) -> bool {
        let fits = |(at, byte): (usize, &u8)| match at {
            4 | 13 | 22 | 31 => *byte == b':',
            64 => *byte == 0,
            at => at < Self::LEN && byte.is_ascii_hexdigit(),
        };
        bytes.iter().enumerate().all(fits)
    }

    pub(super) fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.strip_suffix(b"\0")?).ok()?;
        let mut fields = text.split(':');
        let is_hex = |field: &&str| field.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut number = |digits: usize| {
            let field = fields.next().filter(|field| field.len() == digits).filter(is_hex)?;
            u32::from_str_radix(field, 16).ok()
        };
        let lid = u16::try_from(number(4)?).ok()?;
        let (qp_num, psn, peer_qp_num) = (number(8)?, number(8)?, number(8)?);
        let gid = fields.next().filter(|field| field.len() == 32).filter(is_hex)?;
        let gid = u128::from_str_radix(gid, 16).ok()?;
        let gid = Gid(gid.to_be_bytes());
        Some(Self { lid, qp_num, psn, peer_qp_num, gid })
    }
}

/// The LID that a port's record tells. Ethernet has none: Ceph writes 0 there and nobody reads it,
/// so that two of ours tell each other the bytes of their ports' MTU.
pub(super) fn told_lid(port: &PortInfo) -> u16 {
    match port.link_layer {
        LinkLayer::Ethernet => port.active_mtu.min(Mtu::B4096).bytes() as u16,
        _ => port.lid,
    }
}

/// The MTU of a path to a peer that told this LID: what both ports have where both sides told it,
/// else Ceph's 1024 bytes.
pub(super) fn path_mtu(port: &PortInfo, peer_lid: u16) -> Mtu {
    let told = match port.link_layer {
        LinkLayer::Ethernet => Mtu::from_bytes(peer_lid.into()),
        _ => None,
    };
    told.unwrap_or(Mtu::B1024).min(port.active_mtu)
}

#[cfg(test)]
mod tests {
    use siphon_verbs::PortState;

    use super::*;

    #[test]
    fn both_sides_choose_the_same_mtu() {
        let port = |link_layer, bytes| PortInfo {
            state: PortState::Active,
            link_layer,
            active_mtu: Mtu::from_bytes(bytes).unwrap(),
            max_mtu: Mtu::B4096,
            lid: 0x1000,
            gids: 1,
            max_message: 1 << 30,
        };
        let ethernet = |bytes| port(LinkLayer::Ethernet, bytes);
        for (ours, theirs, path) in
            [(4096, 4096, 4096), (4096, 1024, 1024), (2048, 4096, 2048), (512, 4096, 512)]
        {
            let (ours, theirs) = (ethernet(ours), ethernet(theirs));
            assert_eq!(path_mtu(&ours, told_lid(&theirs)).bytes(), path);
            assert_eq!(path_mtu(&theirs, told_lid(&ours)).bytes(), path);
        }
        assert_eq!(path_mtu(&ethernet(4096), 0), Mtu::B1024, "Ceph tells 0");
        let infiniband = port(LinkLayer::InfiniBand, 4096);
        assert_eq!((told_lid(&infiniband), path_mtu(&infiniband, 0x1000)), (0x1000, Mtu::B1024));
    }

    #[test]
    fn a_record_is_as_ceph_writes_it() {
        // From a ceph-mon 16.2.15 on rxe0.
        let text = b"0000:00000011:002d5c32:00000000:00000000000000000000ffff0a4d0001\0";
        assert_eq!(text.len(), Record::LEN);
        let record = Record {
            lid: 0,
            qp_num: 0x11,
            psn: 0x2d_5c32,
            peer_qp_num: 0,
            gid: "10.77.0.1".parse().unwrap(),
        };
        assert_eq!(Record::decode(text), Some(record));
        assert_eq!(record.encode(), text);
    }

    #[test]
    fn what_is_no_record_is_refused_at_its_first_wrong_byte() {
        let good = b"0000:00000011:002d5c32:00000000:00000000000000000000ffff0a4d0001\0";
        for at in 0..Record::LEN {
            for byte in [b'x', b':', 0, 0xff, b'+', b' '] {
                let mut bad = *good;
                bad[at] = byte;
                let same = bad == *good;
                assert_eq!(Record::may_begin_with(&bad[..=at]), same, "{byte} at {at}");
                assert_eq!(Record::decode(&bad).is_some(), same, "{byte} at {at}");
            }
        }
    }
}
