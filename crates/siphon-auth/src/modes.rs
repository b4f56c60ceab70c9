use std::fmt;
use std::str::FromStr;

use siphon_wire::types::EntityType;

use crate::{AuthMethod, ConnectionMode};

/// Connection modes in order of preference, as the options `ms_*_mode` name them: `secure crc`.
///
/// ```
/// use siphon_auth::{ConnectionMode, ModeList};
/// let modes: ModeList = "secure crc".parse()?;
/// assert_eq!(modes.as_slice(), [ConnectionMode::SECURE, ConnectionMode::CRC]);
/// assert!("plain".parse::<ModeList>().is_err());
/// # Ok::<(), siphon_auth::ModeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeList(Vec<ConnectionMode>);

impl ModeList {
    /// `crc secure`: what Ceph prefers for data.
    pub fn crc_first() -> Self {
        Self(vec![ConnectionMode::CRC, ConnectionMode::SECURE])
    }

    /// `secure crc`: what Ceph prefers towards monitors.
    pub fn secure_first() -> Self {
        Self(vec![ConnectionMode::SECURE, ConnectionMode::CRC])
    }

    /// One mode and no other.
    pub fn only(mode: ConnectionMode) -> Self {
        Self(vec![mode])
    }

    /// The modes, the preferred one first.
    pub fn as_slice(&self) -> &[ConnectionMode] {
        &self.0
    }
}

/// A list of modes that names one which Ceph does not have, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeError(String);

impl fmt::Display for ModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a list of connection modes: say crc, secure or both", self.0)
    }
}

impl std::error::Error for ModeError {}

impl FromStr for ModeList {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        let separators = [' ', ',', ';', '\t', '='];
        let names = text.split(separators).filter(|name| !name.is_empty());
        let mode = |name| match name {
            "crc" => Ok(ConnectionMode::CRC),
            "secure" => Ok(ConnectionMode::SECURE),
            _ => Err(ModeError(text.to_owned())),
        };
        let modes = names.map(mode).collect::<Result<Vec<_>, _>>()?;
        if modes.is_empty() { Err(ModeError(text.to_owned())) } else { Ok(Self(modes)) }
    }
}

impl fmt::Display for ModeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&names.join(" "))
    }
}

/// Which modes are used between whom: Ceph's `ms_mon_cluster_mode` and its five siblings
/// (`AuthRegistry::get_supported_methods` of Ceph's `auth/AuthRegistry.cc`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modes {
    /// Between monitors or managers and daemons (`ms_mon_cluster_mode`).
    pub mon_cluster: ModeList,
    /// Of monitors and managers towards clients (`ms_mon_service_mode`).
    pub mon_service: ModeList,
    /// Of clients towards monitors and managers (`ms_mon_client_mode`).
    pub mon_client: ModeList,
    /// Between other daemons (`ms_cluster_mode`).
    pub cluster: ModeList,
    /// Of other daemons towards clients (`ms_service_mode`).
    pub service: ModeList,
    /// Of clients towards other daemons (`ms_client_mode`).
    pub client: ModeList,
}

impl Default for Modes {
    /// Ceph's defaults.
    fn default() -> Self {
        Self {
            mon_cluster: ModeList::secure_first(),
            mon_service: ModeList::secure_first(),
            mon_client: ModeList::secure_first(),
            cluster: ModeList::crc_first(),
            service: ModeList::crc_first(),
            client: ModeList::crc_first(),
        }
    }
}

impl Modes {
    /// The same modes towards everybody.
    pub fn all(modes: &ModeList) -> Self {
        Self {
            mon_cluster: modes.clone(),
            mon_service: modes.clone(),
            mon_client: modes.clone(),
            cluster: modes.clone(),
            service: modes.clone(),
            client: modes.clone(),
        }
    }

    /// The modes that `we` have with `peer`, the preferred one first. Without a key there is no
    /// mode but crc.
    pub fn between(
        &self,
        we: EntityType,
        peer: EntityType,
        method: AuthMethod,
    ) -> Vec<ConnectionMode> {
        let leads = |kind| kind == EntityType::MON || kind == EntityType::MGR;
        let serves = |kind| leads(kind) || kind == EntityType::OSD || kind == EntityType::MDS;
        let modes = match (we, peer) {
            (EntityType::CLIENT, peer) if leads(peer) => &self.mon_client,
            (EntityType::CLIENT, _) => &self.client,
            (we, peer) if leads(we) && leads(peer) => &self.mon_cluster,
            (we, _) if leads(we) => &self.mon_service,
            (_, peer) if leads(peer) => &self.mon_cluster,
            (_, peer) if serves(peer) => &self.cluster,
            _ => &self.service,
        };
        let keyless = method == AuthMethod::NONE;
        let usable = modes.0.iter().copied();
        usable.filter(|mode| !keyless || *mode == ConnectionMode::CRC).collect()
    }

    /// What a server of kind `we` chooses of a client's preferences: the first that it has itself.
    pub fn pick(
        &self,
        we: EntityType,
        peer: EntityType,
        method: AuthMethod,
        preferred: &[ConnectionMode],
    ) -> Option<ConnectionMode> {
        let ours = self.between(we, peer, method);
        // A peer that names no preference takes what it is given.
        match preferred.is_empty() {
            true => ours.first().copied(),
            false => preferred.iter().copied().find(|mode| ours.contains(mode)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_apply_between_the_kinds_that_ceph_names() {
        let named = |name: &str| ModeList(vec![ConnectionMode(name.len() as u32 + 10)]);
        let modes = Modes {
            mon_cluster: named("a"),
            mon_service: named("ab"),
            mon_client: named("abc"),
            cluster: named("abcd"),
            service: named("abcde"),
            client: named("abcdef"),
        };
        use EntityType as E;
        let rows = [
            (E::CLIENT, E::MON, 3),
            (E::CLIENT, E::MGR, 3),
            (E::CLIENT, E::OSD, 6),
            (E::MON, E::MON, 1),
            (E::MGR, E::MON, 1),
            (E::MON, E::OSD, 2),
            (E::MON, E::CLIENT, 2),
            (E::OSD, E::MON, 1),
            (E::OSD, E::OSD, 4),
            (E::MDS, E::OSD, 4),
            (E::OSD, E::CLIENT, 5),
        ];
        for (we, peer, expected) in rows {
            let found = modes.between(we, peer, AuthMethod::CEPHX);
            assert_eq!(found, [ConnectionMode(expected + 10)], "{we:?} {peer:?}");
        }
    }

    #[test]
    fn the_client_prefers_and_the_server_has_to_agree() {
        let modes = Modes { service: "secure".parse().unwrap(), ..Modes::default() };
        let pick = |method, preferred: &[_]| {
            modes.pick(EntityType::OSD, EntityType::CLIENT, method, preferred)
        };
        let both = [ConnectionMode::CRC, ConnectionMode::SECURE];
        assert_eq!(pick(AuthMethod::CEPHX, &both), Some(ConnectionMode::SECURE));
        assert_eq!(pick(AuthMethod::CEPHX, &both[..1]), None);
        assert_eq!(pick(AuthMethod::NONE, &both), None, "no key, no secure mode");
    }
}
