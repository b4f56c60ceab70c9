use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use siphon_wire::types::{
    AddrType, ByteString, EntityAddr, EntityAddrVec, EntityName, Epoch, Features, Utime, Uuid,
};
use siphon_wire::{Decode, DecodeError, DecodeErrorKind, Decoder, Encode, Encoder};

use super::{MonFeatures, Release};

/// The map of a cluster's monitors (`MonMap`).
///
/// Versions 1 to 9 of its encoding are read; 1, 2, 5 and 9 are written, by the peer's features.
///
/// [`Display`](fmt::Display) is the text of `ceph mon dump` and `monmaptool --print`, with times
/// in UTC.
///
/// ```
/// use siphon_messages::mon::MonMap;
/// let mut map = MonMap::default();
/// map.add("a", "[v2:127.0.0.1:3300/0,v1:127.0.0.1:6789/0]".parse()?);
/// let line = "0: [v2:127.0.0.1:3300/0,v1:127.0.0.1:6789/0] mon.a\n";
/// assert!(map.to_string().ends_with(line));
/// # Ok::<(), siphon_wire::types::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonMap {
    /// Which version of the map.
    pub epoch: Epoch,
    /// The cluster's id.
    pub fsid: Uuid,
    /// When this epoch was made.
    pub last_changed: Utime,
    /// When the first epoch was made.
    pub created: Utime,
    /// Features that are never given up again.
    pub persistent_features: MonFeatures,
    /// Features that can be switched off.
    pub optional_features: MonFeatures,
    /// The monitors, by name.
    pub mons: BTreeMap<ByteString, MonInfo>,
    /// The monitors' names, by rank.
    pub ranks: Vec<ByteString>,
    /// The oldest release that may join.
    pub min_mon_release: Release,
    /// Ranks that this epoch took away.
    pub removed_ranks: BTreeSet<i32>,
    /// How a leader is elected.
    pub strategy: ElectionStrategy,
    /// Monitors that may not lead.
    pub disallowed_leaders: BTreeSet<ByteString>,
    /// Whether the cluster is stretched over two sites.
    pub stretch_mode_enabled: bool,
    /// In stretch mode, the monitor that decides between the sites.
    pub tiebreaker_mon: ByteString,
    /// In stretch mode, monitors that may not lead until their site has recovered.
    pub stretch_marked_down_mons: BTreeSet<ByteString>,
}

/// A monitor (`mon_info_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonInfo {
    /// Its name: `a` of `mon.a`.
    pub name: ByteString,
    /// Its addresses.
    pub public_addrs: EntityAddrVec,
    /// Clients prefer the lowest.
    pub priority: u16,
    /// How often clients choose it, relative to others of its priority.
    pub weight: u16,
    /// Where it stands, by bucket type.
    pub crush_location: BTreeMap<ByteString, ByteString>,
}

/// How monitors elect their leader (`MonMap::election_strategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ElectionStrategy(pub u8);

impl ElectionStrategy {
    /// The lowest rank wins.
    pub const CLASSIC: Self = Self(1);
    /// The lowest rank wins that may lead.
    pub const DISALLOW: Self = Self(2);
    /// The best connected wins that may lead.
    pub const CONNECTIVITY: Self = Self(3);
}

/// An empty map, of no cluster.
impl Default for MonMap {
    fn default() -> Self {
        Self {
            epoch: Epoch::default(),
            fsid: Uuid::default(),
            last_changed: Utime::default(),
            created: Utime::default(),
            persistent_features: MonFeatures::default(),
            optional_features: MonFeatures::default(),
            mons: BTreeMap::new(),
            ranks: Vec::new(),
            min_mon_release: Release::UNKNOWN,
            removed_ranks: BTreeSet::new(),
            strategy: ElectionStrategy::CLASSIC,
            disallowed_leaders: BTreeSet::new(),
            stretch_mode_enabled: false,
            tiebreaker_mon: ByteString::new(),
            stretch_marked_down_mons: BTreeSet::new(),
        }
    }
}

impl MonMap {
    /// Adds a monitor at the last rank, or gives the one of this name these addresses.
    pub fn add(&mut self, name: impl Into<ByteString>, addrs: EntityAddrVec) {
        let name = name.into();
        if !self.ranks.contains(&name) {
            self.ranks.push(name.clone());
        }
        let info = self.mons.entry(name.clone()).or_default();
        info.name = name;
        info.public_addrs = addrs;
    }

    /// The monitors with their ranks, in the order of ranks. Ranks whose names are not in the map
    /// are passed over: a peer may send such a map.
    pub fn by_rank(&self) -> impl Iterator<Item = (usize, &MonInfo)> {
        let mons = self.ranks.iter().map(|name| self.mons.get(name));
        mons.enumerate().filter_map(|(rank, mon)| Some((rank, mon?)))
    }

    /// A monitor's rank.
    pub fn rank(&self, name: &[u8]) -> Option<usize> {
        self.ranks.iter().position(|ranked| **ranked == *name)
    }

    /// All features that a monitor needs to take part.
    pub fn required_features(&self) -> MonFeatures {
        self.persistent_features | self.optional_features
    }

    /// Gives ranks in the order of addresses, as monitors did before Nautilus.
    fn rank_by_address(&mut self) {
        let mut mons: Vec<_> =
            self.mons.iter().map(|(key, mon)| (mon.public_addrs.legacy_or_front(), key)).collect();
        mons.sort_unstable();
        self.ranks = mons.into_iter().map(|(_, name)| name.clone()).collect();
    }
}

impl fmt::Display for MonMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "epoch {}", self.epoch)?;
        writeln!(f, "fsid {}", self.fsid)?;
        writeln!(f, "last_changed {}", with_offset(self.last_changed))?;
        writeln!(f, "created {}", with_offset(self.created))?;
        writeln!(f, "min_mon_release {} ({})", self.min_mon_release.0, self.min_mon_release)?;
        writeln!(f, "election_strategy: {}", self.strategy.0)?;
        if self.stretch_mode_enabled {
            writeln!(f, "stretch_mode_enabled 1")?;
            writeln!(f, "tiebreaker_mon {}", self.tiebreaker_mon)?;
        }
        if self.stretch_mode_enabled || !self.disallowed_leaders.is_empty() {
            f.write_str("disallowed_leaders ")?;
            separated(f, self.disallowed_leaders.iter())?;
            f.write_str("\n")?;
        }
        for (rank, mon) in self.by_rank() {
            write!(f, "{rank}: {} mon.{}", mon.public_addrs, mon.name)?;
            if !mon.crush_location.is_empty() {
                f.write_str("; crush_location {")?;
                for (n, (kind, bucket)) in mon.crush_location.iter().enumerate() {
                    let comma = if n == 0 { "" } else { "," };
                    write!(f, "{comma}{kind}={bucket}")?;
                }
                f.write_str("}")?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

/// Where Ceph prints local time, with its offset, we print the same moment in UTC.
fn with_offset(time: Utime) -> String {
    let mut text = time.to_string();
    if text.ends_with('Z') {
        text.pop();
        text.push_str("+0000");
    }
    text
}

/// Sets print without brackets in Ceph.
fn separated<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl Iterator<Item = T>,
) -> fmt::Result {
    for (n, item) in items.enumerate() {
        write!(f, "{}{item}", if n == 0 { "" } else { "," })?;
    }
    Ok(())
}

const VERSION: u8 = 9;

impl Encode for MonMap {
    fn encode(&self, enc: &mut Encoder) {
        let features = enc.features();
        if !features.contains(Features::MONNAMES) {
            self.encode_v1(enc);
        } else if !features.contains(Features::MONENC) {
            self.encode_v2(enc);
        } else if !features.contains(Features::SERVER_NAUTILUS) {
            enc.versioned(5, 3, |enc| self.encode_v5(enc));
        } else {
            enc.versioned(VERSION, 6, |enc| self.encode_v9(enc));
        }
    }
}

impl MonMap {
    fn encode_v1(&self, enc: &mut Encoder) {
        enc.u16(1);
        enc.value(&self.fsid);
        enc.value(&self.epoch);
        enc.count(self.by_rank().count());
        for (n, (_, mon)) in self.by_rank().enumerate() {
            enc.value(&EntityName::mon(n as i64));
            enc.value(&mon.public_addrs.legacy().unwrap_or_default());
        }
        enc.value(&self.last_changed);
        enc.value(&self.created);
    }

    fn encode_v2(&self, enc: &mut Encoder) {
        enc.u16(2);
        self.encode_with_legacy_addrs(enc);
    }

    fn encode_v5(&self, enc: &mut Encoder) {
        self.encode_with_legacy_addrs(enc);
        enc.value(&self.persistent_features);
        enc.value(&self.optional_features);
        enc.value(&self.mons);
    }

    fn encode_with_legacy_addrs(&self, enc: &mut Encoder) {
        enc.value(&self.fsid);
        enc.value(&self.epoch);
        enc.count(self.mons.len());
        for (name, mon) in &self.mons {
            enc.value(name);
            enc.value(&mon.public_addrs.legacy().unwrap_or_default());
        }
        enc.value(&self.last_changed);
        enc.value(&self.created);
    }

    fn encode_v9(&self, enc: &mut Encoder) {
        enc.value(&self.fsid);
        enc.value(&self.epoch);
        enc.value(&self.last_changed);
        enc.value(&self.created);
        enc.value(&self.persistent_features);
        enc.value(&self.optional_features);
        enc.value(&self.mons);
        enc.value(&self.ranks);
        enc.value(&self.min_mon_release);
        enc.value(&self.removed_ranks);
        enc.u8(self.strategy.0);
        enc.value(&self.disallowed_leaders);
        enc.bool(self.stretch_mode_enabled);
        enc.value(&self.tiebreaker_mon);
        enc.value(&self.stretch_marked_down_mons);
    }
}

impl Decode for MonMap {
    /// Version 1 without monitors.
    const MIN_SIZE: usize = 2 + 16 + 4 + 4 + 8 + 8;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("MonMap", |dec| {
            let version = dec.u8()?;
            let compat = dec.u8()?;
            // Up to version 2 the version was a 16-bit number, without compat and length.
            if version < 3 {
                return Self::decode_fields(dec, version);
            }
            if compat > VERSION {
                let understood = VERSION;
                return Err(dec.error(DecodeErrorKind::TooNew { compat, understood }));
            }
            dec.length_prefixed(|dec| Self::decode_fields(dec, version))
        })
    }
}

impl MonMap {
    fn decode_fields(dec: &mut Decoder<'_>, version: u8) -> Result<Self, DecodeError> {
        let mut map = Self { fsid: dec.value()?, epoch: dec.value()?, ..Self::default() };
        let legacy_addrs = match version {
            0 | 1 => decode_instances(dec)?,
            2..6 => dec.value()?,
            _ => BTreeMap::new(),
        };
        map.last_changed = dec.value()?;
        map.created = dec.value()?;
        if version >= 4 {
            map.persistent_features = dec.value()?;
            map.optional_features = dec.value()?;
        }
        map.mons = if version >= 5 { dec.value()? } else { from_legacy_addrs(legacy_addrs) };
        if version >= 6 {
            map.ranks = dec.value()?;
        } else {
            map.rank_by_address();
        }
        map.min_mon_release =
            if version >= 7 { dec.value()? } else { map.persistent_features.min_release() };
        if version >= 8 {
            map.removed_ranks = dec.value()?;
            map.strategy = ElectionStrategy(dec.u8()?);
            map.disallowed_leaders = dec.value()?;
        }
        if version >= 9 {
            map.stretch_mode_enabled = dec.bool()?;
            map.tiebreaker_mon = dec.value()?;
            map.stretch_marked_down_mons = dec.value()?;
        }
        Ok(map)
    }
}

/// Monitors had no names but their ranks then.
fn decode_instances(
    dec: &mut Decoder<'_>,
) -> Result<BTreeMap<ByteString, EntityAddr>, DecodeError> {
    let instances: Vec<(EntityName, EntityAddr)> = dec.value()?;
    let named = instances.into_iter().enumerate();
    Ok(named.map(|(rank, (_, addr))| (rank.to_string().into(), addr)).collect())
}

fn from_legacy_addrs(addrs: BTreeMap<ByteString, EntityAddr>) -> BTreeMap<ByteString, MonInfo> {
    let info = |name: &ByteString, addr: EntityAddr| MonInfo {
        name: name.clone(),
        public_addrs: addr.into(),
        ..MonInfo::default()
    };
    addrs.into_iter().map(|(name, addr)| (name.clone(), info(&name, addr))).collect()
}

impl Encode for MonInfo {
    fn encode(&self, enc: &mut Encoder) {
        let nautilus = enc.features().contains(Features::SERVER_NAUTILUS);
        enc.versioned(if nautilus { 5 } else { 2 }, 1, |enc| {
            enc.value(&self.name);
            if nautilus {
                enc.value(&self.public_addrs);
            } else {
                enc.value(&as_legacy(&self.public_addrs));
            }
            enc.u16(self.priority);
            // Written whatever the version, as Ceph does: older decoders skip it.
            enc.u16(self.weight);
            enc.value(&self.crush_location);
        });
    }
}

/// An address that a peer which knows no other takes for legacy, so that it finds the map valid
/// even where it cannot reach the monitor (`entity_addrvec_t::as_legacy_addr`).
fn as_legacy(addrs: &EntityAddrVec) -> EntityAddr {
    let usable = addrs.legacy().or_else(|| addrs.of_type(AddrType::ANY));
    usable.unwrap_or_else(|| addrs.front()).with_kind(AddrType::LEGACY)
}

impl Decode for MonInfo {
    const MIN_SIZE: usize = 6 + ByteString::MIN_SIZE + EntityAddrVec::MIN_SIZE;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("mon_info_t", 5, |dec, version| {
            Ok(Self {
                name: dec.value()?,
                public_addrs: dec.value()?,
                priority: if version >= 2 { dec.u16()? } else { 0 },
                weight: if version >= 4 { dec.u16()? } else { 0 },
                crush_location: if version >= 5 { dec.value()? } else { BTreeMap::new() },
            })
        })
    }
}
