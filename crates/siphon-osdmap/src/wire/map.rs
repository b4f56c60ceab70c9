use std::sync::Arc;

use siphon_crush::CrushMap;
use siphon_wire::types::{EntityAddrVec, Features, Release};
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

use super::{decode_checked, decode_release_name, decode_within, encode_checked, encode_legacy};
use crate::{MapFlags, OsdAddrs, OsdMap, OsdState, StretchMode};

/// In the form that a peer with the encoder's features understands, of Jewel or newer. The checksum is
/// that of what is written, not [`OsdMap::crc`].
impl Encode for OsdMap {
    fn encode(&self, enc: &mut Encoder) {
        encode_checked(enc, None, |enc| {
            let features = enc.features();
            enc.versioned(client_version(features), 1, |enc| self.encode_for_clients(enc));
            enc.versioned(self.osd_version(features), 1, |enc| self.encode_for_osds(enc));
        });
    }
}

fn client_version(features: Features) -> u8 {
    if !features.has(Features::SERVER_LUMINOUS) {
        3
    } else if !features.has(Features::SERVER_MIMIC) {
        6
    } else if !features.has(Features::SERVER_NAUTILUS) {
        7
    } else {
        // Of which Pacific, which has the same features as far as maps go, reads 9.
        10
    }
}

/// States of one byte, as before Luminous.
fn narrow(states: &[OsdState], enc: &mut Encoder) {
    enc.count(states.len());
    states.iter().for_each(|state| enc.u8(state.0 as u8));
}

fn encode_legacy_addrs(addrs: &[EntityAddrVec], enc: &mut Encoder) {
    enc.count(addrs.len());
    addrs.iter().for_each(|addrs| encode_legacy(addrs, enc));
}

impl OsdMap {
    fn osd_version(&self, features: Features) -> u8 {
        let version = if !features.has(Features::SERVER_LUMINOUS) {
            1
        } else if !features.has(Features::SERVER_MIMIC) {
            5
        } else if !features.has(Features::SERVER_NAUTILUS) {
            6
        } else {
            9
        };
        let needed = [
            (self.stretch_mode.enabled, 10),
            (!self.range_blocklist.is_empty(), 11),
            (self.allow_crimson, 12),
        ];
        let needed = needed.into_iter().filter(|(needed, _)| *needed);
        needed.map(|(_, needed)| needed).max().unwrap_or(0).max(version)
    }

    fn encode_for_clients(&self, enc: &mut Encoder) {
        let version = client_version(enc.features());
        enc.value(&self.fsid);
        enc.value(&self.epoch);
        enc.value(&self.created);
        enc.value(&self.modified);
        enc.value(&self.pools);
        enc.value(&self.pool_names);
        enc.i32(self.pool_max);
        enc.value(&if version < 4 { self.legacy_flags() } else { self.flags });
        enc.i32(self.max_osd);
        if version >= 5 {
            enc.value(&self.osd_state)
        } else {
            narrow(&self.osd_state, enc)
        }
        enc.value(&self.osd_weight);
        if version >= 8 {
            enc.value(&self.osd_addrs.client);
        } else {
            encode_legacy_addrs(&self.osd_addrs.client, enc);
        }
        enc.value(&self.pg_temp);
        enc.value(&self.primary_temp);
        enc.value(self.osd_primary_affinity.as_deref().unwrap_or_default());
        enc.length_prefixed(|enc| enc.value(&*self.crush));
        enc.value(&self.erasure_code_profiles);
        if version >= 4 {
            enc.value(&self.pg_upmap);
            enc.value(&self.pg_upmap_items);
        }
        if version >= 6 {
            enc.i32(self.crush_version);
        }
        if version >= 7 {
            enc.value(&self.new_removed_snaps);
            enc.value(&self.new_purged_snaps);
        }
        if version >= 9 {
            enc.value(&self.last_up_change);
            enc.value(&self.last_in_change);
        }
        if version >= 10 {
            enc.value(&self.pg_upmap_primaries);
        }
    }

    fn legacy_flags(&self) -> MapFlags {
        match self.require_osd_release {
            release if release >= Release::LUMINOUS => {
                self.flags | MapFlags::REQUIRE_LUMINOUS | MapFlags::RECOVERY_DELETES
            }
            Release::KRAKEN => self.flags | MapFlags::REQUIRE_KRAKEN,
            Release::JEWEL => self.flags | MapFlags::REQUIRE_JEWEL,
            _ => self.flags,
        }
    }

    fn encode_for_osds(&self, enc: &mut Encoder) {
        let version = self.osd_version(enc.features());
        let addrs = |addrs: &Vec<EntityAddrVec>, enc: &mut Encoder| {
            if version >= 7 { enc.value(addrs) } else { encode_legacy_addrs(addrs, enc) }
        };
        addrs(&self.osd_addrs.heartbeat_back, enc);
        enc.value(&self.osd_info);
        enc.value(&self.blocklist);
        addrs(&self.osd_addrs.cluster, enc);
        enc.value(&self.cluster_snapshot_epoch);
        enc.value(&self.cluster_snapshot);
        enc.value(&self.osd_uuid);
        enc.value(&self.osd_xinfo);
        addrs(&self.osd_addrs.heartbeat_front, enc);
        if version >= 2 {
            enc.f32(self.nearfull_ratio);
            enc.f32(self.full_ratio);
            enc.f32(self.backfillfull_ratio);
        }
        if version >= 5 {
            enc.value(&self.require_min_compat_client);
            enc.value(&self.require_osd_release);
        }
        if version >= 6 {
            enc.value(&self.removed_snaps_queue);
        }
        if version >= 8 {
            enc.value(&self.crush_node_flags);
        }
        if version >= 9 {
            enc.value(&self.device_class_flags);
        }
        if version >= 10 {
            let stretch = &self.stretch_mode;
            enc.bool(stretch.enabled);
            enc.u32(stretch.bucket_count);
            enc.u32(stretch.degraded);
            enc.u32(stretch.recovering);
            enc.i32(stretch.bucket);
        }
        if version >= 11 {
            enc.value(&self.range_blocklist);
        }
        if version >= 12 {
            enc.bool(self.allow_crimson);
        }
    }
}

impl Decode for OsdMap {
    const MIN_SIZE: usize = 6 + 6 + 6;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let body = |dec: &mut Decoder<'_>| {
            let mut map = Self::default();
            dec.versioned("OSDMap", 10, |dec, version| map.decode_for_clients(dec, version))?;
            dec.versioned("OSDMap", 12, |dec, version| map.decode_for_osds(dec, version))?;
            Ok(map)
        };
        decode_checked(dec, "OSDMap", body, |map, crc, _dec| {
            map.crc = Some(crc);
            Ok(())
        })
    }
}

/// States as wide as they are in a version.
pub(super) fn decode_states(
    dec: &mut Decoder<'_>,
    wide: bool,
) -> Result<Vec<OsdState>, DecodeError> {
    if wide {
        return dec.value();
    }
    let narrow = dec.bytes()?;
    Ok(narrow.iter().map(|state| OsdState(u32::from(*state))).collect())
}

impl OsdMap {
    fn decode_for_clients(
        &mut self,
        dec: &mut Decoder<'_>,
        version: u8,
    ) -> Result<(), DecodeError> {
        self.fsid = dec.value()?;
        self.epoch = dec.value()?;
        self.created = dec.value()?;
        self.modified = dec.value()?;
        self.pools = dec.value()?;
        self.pool_names = dec.value()?;
        self.pool_max = dec.i32()?;
        self.flags = dec.value()?;
        self.max_osd = dec.i32()?;
        self.osd_state = decode_states(dec, version >= 5)?;
        self.osd_weight = dec.value()?;
        let client = dec.value()?;
        self.osd_addrs = Arc::new(OsdAddrs { client, ..OsdAddrs::default() });
        self.pg_temp = dec.value()?;
        self.primary_temp = dec.value()?;
        if version >= 2 {
            let affinities: Vec<u32> = dec.value()?;
            self.osd_primary_affinity = Some(affinities).filter(|all| !all.is_empty());
        }
        let crush = dec.bytes()?;
        let base = dec.offset() - crush.len();
        // What newer releases append is passed over.
        self.crush = Arc::new(decode_within(&crush, base, CrushMap::decode)?);
        if version >= 3 {
            self.erasure_code_profiles = dec.value()?;
        }
        if version >= 4 {
            self.pg_upmap = dec.value()?;
            self.pg_upmap_items = dec.value()?;
        }
        if version >= 6 {
            self.crush_version = dec.i32()?;
        }
        if version >= 7 {
            self.new_removed_snaps = dec.value()?;
            self.new_purged_snaps = dec.value()?;
        }
        if version >= 9 {
            self.last_up_change = dec.value()?;
            self.last_in_change = dec.value()?;
        }
        if version >= 10 {
            self.pg_upmap_primaries = dec.value()?;
        }
        Ok(())
    }

    fn decode_for_osds(&mut self, dec: &mut Decoder<'_>, version: u8) -> Result<(), DecodeError> {
        let heartbeat_back = dec.value()?;
        self.osd_info = dec.value()?;
        self.blocklist = dec.value()?;
        let cluster = dec.value()?;
        self.cluster_snapshot_epoch = dec.value()?;
        self.cluster_snapshot = dec.value()?;
        self.osd_uuid = dec.value()?;
        self.osd_xinfo = dec.value()?;
        let heartbeat_front = dec.value()?;
        let addrs = Arc::make_mut(&mut self.osd_addrs);
        let client = std::mem::take(&mut addrs.client);
        *addrs = OsdAddrs { client, cluster, heartbeat_back, heartbeat_front };
        if version >= 2 {
            self.nearfull_ratio = dec.f32()?;
            self.full_ratio = dec.f32()?;
        }
        if version >= 3 {
            self.backfillfull_ratio = dec.f32()?;
        }
        if version == 4 {
            self.require_min_compat_client = decode_release_name(dec)?;
        }
        if version >= 5 {
            self.require_min_compat_client = dec.value()?;
            self.require_osd_release = dec.value()?;
        }
        self.settle_release(version >= 5);
        if version >= 6 {
            self.removed_snaps_queue = dec.value()?;
        }
        if version >= 8 {
            self.crush_node_flags = dec.value()?;
        }
        if version >= 9 {
            self.device_class_flags = dec.value()?;
        }
        if version >= 10 {
            self.stretch_mode = StretchMode {
                enabled: dec.bool()?,
                bucket_count: dec.u32()?,
                degraded: dec.u32()?,
                recovering: dec.u32()?,
                bucket: dec.i32()?,
            };
        }
        if version >= 11 {
            self.range_blocklist = dec.value()?;
        }
        if version >= 12 {
            self.allow_crimson = dec.bool()?;
        }
        Ok(())
    }

    /// Before Luminous, flags said which release OSDs must be, and since then they follow from it.
    fn settle_release(&mut self, known: bool) {
        if !known {
            self.require_osd_release = if self.flags.contains(MapFlags::REQUIRE_LUMINOUS) {
                Release::LUMINOUS
            } else if self.flags.contains(MapFlags::REQUIRE_KRAKEN) {
                Release::KRAKEN
            } else if self.flags.contains(MapFlags::REQUIRE_JEWEL) {
                Release::JEWEL
            } else {
                Release::UNKNOWN
            };
        } else if self.require_osd_release >= Release::NAUTILUS {
            self.flags |= MapFlags::PGLOG_HARDLIMIT;
        }
        if self.require_osd_release >= Release::LUMINOUS {
            self.flags = self.flags & !MapFlags::LEGACY_REQUIRE | MapFlags::RECOVERY_DELETES;
        }
    }
}
