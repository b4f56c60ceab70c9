use std::collections::{BTreeMap, BTreeSet};

use siphon_wire::types::{ByteString, EntityAddrVec, Epoch, Features};
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

/// Newest version of the encoding that was seen (20.3.0).
const VERSION: u8 = 14;

/// The map of managers (`MgrMap`), as far as a client needs it: which one is active, and where.
///
/// Versions 1 to 14 are read; what modules could be had, with their options, is passed over.
/// Version 6 is written, with no such list, which every release since Nautilus reads.
///
/// ```
/// use siphon_messages::mon::MgrMap;
/// use siphon_wire::{Decode, Encode, types::Features};
/// let map = MgrMap { active_name: "x".into(), available: true, ..MgrMap::default() };
/// assert_eq!(MgrMap::from_bytes(&map.to_bytes(Features::ALL))?, map);
/// # Ok::<(), siphon_wire::DecodeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MgrMap {
    /// Which version of the map.
    pub epoch: Epoch,
    /// Where the active manager is; empty if there is none.
    pub active_addrs: EntityAddrVec,
    /// The global id of the active manager; 0 if there is none.
    pub active_gid: u64,
    /// Whether the active manager takes commands, and has not only been chosen.
    pub available: bool,
    /// The active manager's name: `x` of `mgr.x`.
    pub active_name: ByteString,
    /// The names of those that stand by, by their global ids.
    pub standbys: BTreeMap<u64, ByteString>,
    /// Modules that are switched on.
    pub modules: BTreeSet<ByteString>,
    /// What active modules serve, and where: `dashboard` and its URI.
    pub services: BTreeMap<ByteString, ByteString>,
    /// The active manager's features; none if it is older than Octopus.
    pub active_mgr_features: Features,
}

/// A manager that stands by (`MgrMap::StandbyInfo`).
struct Standby(ByteString);

/// What is passed over within a list (`MgrMap::ModuleInfo`).
struct Module;

impl Encode for MgrMap {
    fn encode(&self, enc: &mut Encoder) {
        enc.versioned(6, 6, |enc| {
            enc.value(&self.epoch);
            enc.value(&self.active_addrs);
            enc.u64(self.active_gid);
            enc.bool(self.available);
            enc.value(&self.active_name);
            enc.count(self.standbys.len());
            for (gid, name) in &self.standbys {
                enc.u64(*gid);
                enc.versioned(1, 1, |enc| {
                    enc.u64(*gid);
                    enc.value(name);
                });
            }
            enc.value(&self.modules);
            enc.value(&self.services);
            enc.count(0); // modules that there are
        });
    }
}

impl Decode for MgrMap {
    /// Version 1, without managers.
    const MIN_SIZE: usize = 6 + 4 + EntityAddrVec::MIN_SIZE + 8 + 1 + 4 + 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("MgrMap", VERSION, |dec, version| {
            let mut map = Self {
                epoch: dec.value()?,
                active_addrs: dec.value()?,
                active_gid: dec.u64()?,
                available: dec.bool()?,
                active_name: dec.value()?,
                ..Self::default()
            };
            let standbys: BTreeMap<u64, Standby> = dec.value()?;
            map.standbys = standbys.into_iter().map(|(gid, standby)| (gid, standby.0)).collect();
            if version >= 2 {
                map.modules = dec.value()?;
                if version < 6 {
                    let _names: BTreeSet<ByteString> = dec.value()?;
                }
            }
            if version >= 3 {
                map.services = dec.value()?;
            }
            if version >= 4 {
                let _available: Vec<Module> = dec.value()?;
            }
            if version >= 7 {
                dec.skip(8)?; // active_change
            }
            if version >= 8 {
                let _always_on: BTreeMap<u32, BTreeSet<ByteString>> = dec.value()?;
            }
            if version >= 9 {
                map.active_mgr_features = dec.value()?;
            }
            dec.skip(dec.remaining())?;
            Ok(map)
        })
    }
}

impl Decode for Standby {
    const MIN_SIZE: usize = 6 + 8 + 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("MgrMap::StandbyInfo", 4, |dec, _version| {
            dec.skip(8)?; // its global id again
            let name = dec.value()?;
            dec.skip(dec.remaining())?;
            Ok(Self(name))
        })
    }
}

impl Decode for Module {
    const MIN_SIZE: usize = 6;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("MgrMap::ModuleInfo", 2, |dec, _version| {
            dec.skip(dec.remaining())?;
            Ok(Self)
        })
    }
}
