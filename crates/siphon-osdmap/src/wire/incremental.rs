use std::collections::BTreeMap;

use siphon_wire::types::{EntityAddrVec, Features, Release};
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

use super::{decode_checked, decode_release_name, encode_checked, encode_legacy, wanted};
use crate::{Incremental, MapFlags, OsdState, StretchMode};

/// In the form that a peer with the encoder's features understands, of Jewel or newer. The checksum is
/// that of what is written, not [`Incremental::inc_crc`], and the features that are written are the
/// encoder's.
impl Encode for Incremental {
    fn encode(&self, enc: &mut Encoder) {
        encode_checked(enc, Some(self.full_crc), |enc| {
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
        5
    } else if !features.has(Features::SERVER_NAUTILUS) {
        6
    } else {
        // Of which Pacific, which has the same features as far as maps go, reads 8.
        9
    }
}

fn encode_addrs(addrs: &BTreeMap<i32, EntityAddrVec>, vectors: bool, enc: &mut Encoder) {
    if vectors {
        return enc.value(addrs);
    }
    enc.count(addrs.len());
    for (osd, addrs) in addrs {
        enc.i32(*osd);
        encode_legacy(addrs, enc);
    }
}

impl Incremental {
    fn osd_version(&self, features: Features) -> u8 {
        let version = if !features.has(Features::SERVER_LUMINOUS) {
            2
        } else if !features.has(Features::SERVER_NAUTILUS) {
            6
        } else {
            9
        };
        let ranges = !self.new_range_blocklist.is_empty() || !self.old_range_blocklist.is_empty();
        let needed = [
            (self.new_stretch_mode.is_some(), 10),
            (ranges, 11),
            (self.mutate_allow_crimson != 0, 12),
        ];
        let needed = needed.into_iter().filter(|(needed, _)| *needed);
        needed.map(|(_, needed)| needed).max().unwrap_or(0).max(version)
    }

    /// States of one byte, as before Luminous: those that have bits in it.
    fn encode_narrow_states(&self, enc: &mut Encoder) {
        let narrow = |state: &OsdState| state.0 as u8;
        let known = |state: &OsdState| state.0 == 0 || narrow(state) != 0;
        let states = self.new_state.iter().filter(|(_, state)| known(state));
        enc.count(states.clone().count());
        for (osd, state) in states {
            enc.i32(*osd);
            enc.u8(narrow(state));
        }
    }

    fn encode_for_clients(&self, enc: &mut Encoder) {
        let version = client_version(enc.features());
        enc.value(&self.fsid);
        enc.value(&self.epoch);
        enc.value(&self.modified);
        enc.i64(self.new_pool_max);
        enc.i32(self.new_flags.map_or(-1, |flags| flags.0.cast_signed()));
        enc.value(&self.fullmap);
        enc.value(&self.crush);
        enc.i32(self.new_max_osd);
        enc.value(&self.new_pools);
        enc.value(&self.new_pool_names);
        enc.value(&self.old_pools);
        encode_addrs(&self.new_up_client, version >= 7, enc);
        if version >= 5 {
            enc.value(&self.new_state);
        } else {
            self.encode_narrow_states(enc);
        }
        enc.value(&self.new_weight);
        enc.value(&self.new_pg_temp);
        enc.value(&self.new_primary_temp);
        enc.value(&self.new_primary_affinity);
        enc.value(&self.new_erasure_code_profiles);
        enc.value(&self.old_erasure_code_profiles);
        if version >= 4 {
            enc.value(&self.new_pg_upmap);
            enc.value(&self.old_pg_upmap);
            enc.value(&self.new_pg_upmap_items);
            enc.value(&self.old_pg_upmap_items);
        }
        if version >= 6 {
            enc.value(&self.new_removed_snaps);
            enc.value(&self.new_purged_snaps);
        }
        if version >= 8 {
            enc.value(&self.new_last_up_change);
            enc.value(&self.new_last_in_change);
        }
        if version >= 9 {
            enc.value(&self.new_pg_upmap_primary);
            enc.value(&self.old_pg_upmap_primary);
        }
    }

    fn encode_for_osds(&self, enc: &mut Encoder) {
        let version = self.osd_version(enc.features());
        encode_addrs(&self.new_hb_back_up, version >= 7, enc);
        enc.value(&self.new_up_thru);
        enc.value(&self.new_last_clean_interval);
        enc.value(&self.new_lost);
        enc.value(&self.new_blocklist);
        enc.value(&self.old_blocklist);
        encode_addrs(&self.new_up_cluster, version >= 7, enc);
        enc.value(&self.cluster_snapshot);
        enc.value(&self.new_uuid);
        enc.value(&self.new_xinfo);
        encode_addrs(&self.new_hb_front_up, version >= 7, enc);
        let features = wanted(enc.features());
        enc.value(&features);
        if version >= 3 {
            enc.f32(self.new_nearfull_ratio);
            enc.f32(self.new_full_ratio);
            enc.f32(self.new_backfillfull_ratio);
        }
        if version >= 6 {
            enc.value(&self.new_require_min_compat_client);
            enc.value(&self.new_require_osd_release);
        }
        if version >= 8 {
            enc.value(&self.new_crush_node_flags);
        }
        if version >= 9 {
            enc.value(&self.new_device_class_flags);
        }
        if version >= 10 {
            let stretch = self.new_stretch_mode.unwrap_or_default();
            enc.bool(self.new_stretch_mode.is_some());
            enc.u32(stretch.bucket_count);
            enc.u32(stretch.degraded);
            enc.u32(stretch.recovering);
            enc.i32(stretch.bucket);
            enc.bool(stretch.enabled);
        }
        if version >= 11 {
            enc.value(&self.new_range_blocklist);
            enc.value(&self.old_range_blocklist);
        }
        if version >= 12 {
            enc.u8(self.mutate_allow_crimson);
        }
    }
}

impl Decode for Incremental {
    const MIN_SIZE: usize = 6 + 6 + 6;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        const NAME: &str = "OSDMap::Incremental";
        let body = |dec: &mut Decoder<'_>| {
            let mut inc = Self::default();
            dec.versioned(NAME, 9, |dec, version| inc.decode_for_clients(dec, version))?;
            dec.versioned(NAME, 12, |dec, version| inc.decode_for_osds(dec, version))?;
            Ok(inc)
        };
        decode_checked(dec, NAME, body, |inc, crc, dec| {
            inc.inc_crc = Some(crc);
            inc.full_crc = dec.u32()?;
            Ok(())
        })
    }
}

impl Incremental {
    fn decode_for_clients(
        &mut self,
        dec: &mut Decoder<'_>,
        version: u8,
    ) -> Result<(), DecodeError> {
        self.fsid = dec.value()?;
        self.epoch = dec.value()?;
        self.modified = dec.value()?;
        self.new_pool_max = dec.i64()?;
        let flags = dec.i32()?;
        self.new_flags = (flags >= 0).then_some(MapFlags(flags.cast_unsigned()));
        self.fullmap = dec.bytes()?;
        self.crush = dec.bytes()?;
        self.new_max_osd = dec.i32()?;
        self.new_pools = dec.value()?;
        self.new_pool_names = dec.value()?;
        self.old_pools = dec.value()?;
        self.new_up_client = dec.value()?;
        self.new_state = if version >= 5 {
            dec.value()?
        } else {
            let narrow = dec.value::<BTreeMap<i32, u8>>()?;
            narrow.into_iter().map(|(osd, state)| (osd, OsdState(u32::from(state)))).collect()
        };
        self.new_weight = dec.value()?;
        self.new_pg_temp = dec.value()?;
        self.new_primary_temp = dec.value()?;
        if version >= 2 {
            self.new_primary_affinity = dec.value()?;
        }
        if version >= 3 {
            self.new_erasure_code_profiles = dec.value()?;
            self.old_erasure_code_profiles = dec.value()?;
        }
        if version >= 4 {
            self.new_pg_upmap = dec.value()?;
            self.old_pg_upmap = dec.value()?;
            self.new_pg_upmap_items = dec.value()?;
            self.old_pg_upmap_items = dec.value()?;
        }
        if version >= 6 {
            self.new_removed_snaps = dec.value()?;
            self.new_purged_snaps = dec.value()?;
        }
        if version >= 8 {
            self.new_last_up_change = dec.value()?;
            self.new_last_in_change = dec.value()?;
        }
        if version >= 9 {
            self.new_pg_upmap_primary = dec.value()?;
            self.old_pg_upmap_primary = dec.value()?;
        }
        Ok(())
    }

    fn decode_for_osds(&mut self, dec: &mut Decoder<'_>, version: u8) -> Result<(), DecodeError> {
        self.new_hb_back_up = dec.value()?;
        self.new_up_thru = dec.value()?;
        self.new_last_clean_interval = dec.value()?;
        self.new_lost = dec.value()?;
        self.new_blocklist = dec.value()?;
        self.old_blocklist = dec.value()?;
        self.new_up_cluster = dec.value()?;
        self.cluster_snapshot = dec.value()?;
        self.new_uuid = dec.value()?;
        self.new_xinfo = dec.value()?;
        self.new_hb_front_up = dec.value()?;
        self.encode_features =
            if version >= 2 { dec.value()? } else { Features::PGID64 | Features::OSDMAP_ENC };
        if version >= 3 {
            self.new_nearfull_ratio = dec.f32()?;
            self.new_full_ratio = dec.f32()?;
        }
        if version >= 4 {
            self.new_backfillfull_ratio = dec.f32()?;
        }
        if version == 5 {
            self.new_require_min_compat_client = decode_release_name(dec)?;
        }
        if version >= 6 {
            self.new_require_min_compat_client = dec.value()?;
            self.new_require_osd_release = dec.value()?;
        } else {
            self.settle_release();
        }
        if version >= 8 {
            self.new_crush_node_flags = dec.value()?;
        }
        if version >= 9 {
            self.new_device_class_flags = dec.value()?;
        }
        if version >= 10 {
            self.decode_stretch_mode(dec)?;
        }
        if version >= 11 {
            self.new_range_blocklist = dec.value()?;
            self.old_range_blocklist = dec.value()?;
        }
        if version >= 12 {
            self.mutate_allow_crimson = dec.u8()?;
        }
        Ok(())
    }

    fn decode_stretch_mode(&mut self, dec: &mut Decoder<'_>) -> Result<(), DecodeError> {
        let changes = dec.bool()?;
        let mode = StretchMode {
            bucket_count: dec.u32()?,
            degraded: dec.u32()?,
            recovering: dec.u32()?,
            bucket: dec.i32()?,
            enabled: dec.bool()?,
        };
        self.new_stretch_mode = changes.then_some(mode);
        Ok(())
    }

    /// Before Luminous, flags said which release OSDs must be.
    fn settle_release(&mut self) {
        let flags = self.new_flags.unwrap_or_default();
        self.new_require_osd_release = if flags.contains(MapFlags::REQUIRE_LUMINOUS) {
            self.new_flags = Some(flags & !MapFlags::LEGACY_REQUIRE);
            Release::LUMINOUS
        } else if flags.contains(MapFlags::REQUIRE_KRAKEN) {
            Release::KRAKEN
        } else if flags.contains(MapFlags::REQUIRE_JEWEL) {
            Release::JEWEL
        } else {
            Self::SAME_RELEASE
        };
    }
}
