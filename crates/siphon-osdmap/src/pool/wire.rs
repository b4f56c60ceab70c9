//! How a pool is encoded: versions 5 to 32 (`pg_pool_t::encode`, `decode` of `osd/osd_types.cc`).

use siphon_wire::types::{Epoch, Features, SnapId};
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

use super::{
    CacheMode, PeeringCrush, PgAutoscaleMode, PgMergeMeta, PgPool, PoolSnap, PoolType, StrHash,
};
use crate::PoolFlags;

impl Encode for PoolSnap {
    fn encode(&self, enc: &mut Encoder) {
        enc.versioned(2, 2, |enc| {
            enc.value(&self.id);
            enc.value(&self.stamp);
            enc.value(&self.name);
        });
    }
}

impl Decode for PoolSnap {
    const MIN_SIZE: usize = 1 + 8 + 8 + 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned_since("pool_snap_info_t", 2, 2, 2, |dec, _version| {
            Ok(Self { id: dec.value()?, stamp: dec.value()?, name: dec.value()? })
        })
    }
}

const VERSION: u8 = 32;

impl PgPool {
    /// The version that a peer with `features` gets.
    fn version(&self, features: Features) -> u8 {
        if !features.has(Features::NEW_OSDOP_ENCODING) {
            21
        } else if !features.has(Features::SERVER_LUMINOUS) {
            24
        } else if !features.has(Features::SERVER_MIMIC) {
            26
        } else if !features.has(Features::SERVER_NAUTILUS) {
            27
        } else if features.has(Features::SERVER_TENTACLE) {
            VERSION
        } else if self.peering_crush.is_some() {
            30
        } else {
            29
        }
    }

    fn encode_first(&self, enc: &mut Encoder, version: u8) {
        enc.u8(self.kind.0);
        enc.u8(self.size);
        enc.u8(self.crush_rule);
        enc.u8(self.object_hash.0);
        enc.u32(self.pg_num);
        enc.u32(self.pgp_num);
        enc.u64(0); // localized placement groups, once
        enc.value(&self.last_change);
        enc.value(&self.snap_seq);
        enc.value(&self.snap_epoch);
        enc.value(&self.snaps);
        enc.value(&self.removed_snaps);
        enc.u64(self.auid);
        let new = PoolFlags::SELFMANAGED_SNAPS | PoolFlags::POOL_SNAPS | PoolFlags::CREATING;
        enc.value(&if version >= 27 { self.flags } else { self.flags & !new });
        enc.u32(0); // crash_replay_interval, once
        enc.u8(self.min_size);
        enc.u64(self.quota_max_bytes);
        enc.u64(self.quota_max_objects);
        enc.value(&self.tiers);
        enc.i64(self.tier_of);
        enc.u8(self.cache_mode.0);
        enc.i64(self.read_tier);
        enc.i64(self.write_tier);
        enc.value(&self.properties);
        enc.value(&self.hit_set_params);
        enc.u32(self.hit_set_period);
        enc.u32(self.hit_set_count);
        enc.u32(self.stripe_width);
        enc.u64(self.target_max_bytes);
        enc.u64(self.target_max_objects);
        enc.u32(self.cache_target_dirty_ratio_micro);
        enc.u32(self.cache_target_full_ratio_micro);
        enc.u32(self.cache_min_flush_age);
        enc.u32(self.cache_min_evict_age);
        enc.value(&self.erasure_code_profile);
        enc.value(&self.last_force_op_resend_preluminous);
        enc.u32(self.min_read_recency_for_promote);
        enc.u64(self.expected_num_objects);
        enc.u32(self.cache_target_dirty_high_ratio_micro);
        enc.u32(self.min_write_recency_for_promote);
        enc.bool(self.use_gmt_hitset);
    }

    fn encode_appended(&self, enc: &mut Encoder, version: u8) {
        if version >= 24 {
            enc.bool(self.fast_read);
            enc.u32(self.hit_set_grade_decay_rate);
            enc.u32(self.hit_set_search_last_n);
            enc.value(&self.options);
        }
        if version >= 26 {
            enc.value(&self.last_force_op_resend_prenautilus);
            enc.value(&self.applications);
        }
        if version >= 27 {
            enc.value(&self.create_time);
        }
        if version >= 28 {
            enc.u32(self.pg_num_target);
            enc.u32(self.pgp_num_target);
            enc.u32(self.pg_num_pending);
            enc.u64(0); // two epochs of a merge, in 14.1.0
            enc.value(&self.last_force_op_resend);
            enc.u8(self.pg_autoscale_mode.0);
        }
        if version >= 29 {
            enc.value(&self.last_pg_merge_meta);
        }
        match &self.peering_crush {
            Some(peering) if version == 30 => enc.value(peering),
            peering if version >= 31 => enc.value(peering),
            _ => {}
        }
        if version >= 32 {
            // Two words of 64 bits, each of variable length.
            varint(enc, self.nonprimary_shards as u64);
            varint(enc, (self.nonprimary_shards >> 64) as u64);
        }
    }
}

/// In the form that a peer with the encoder's features understands, of Jewel or newer.
impl Encode for PgPool {
    fn encode(&self, enc: &mut Encoder) {
        let version = self.version(enc.features());
        enc.versioned(version, 5, |enc| {
            self.encode_first(enc, version);
            self.encode_appended(enc, version);
        });
    }
}

impl Decode for PgPool {
    const MIN_SIZE: usize = 6 + 4 + 4 + 4 + 8 + 4 + 8 + 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned_since("pg_pool_t", VERSION, 5, 5, |dec, version| {
            if version < 5 {
                let oldest = 5;
                return Err(dec.error(siphon_wire::DecodeErrorKind::TooOld { version, oldest }));
            }
            let mut pool = Self { kind: PoolType(dec.u8()?), ..Self::default() };
            pool.decode_first(dec, version)?;
            pool.decode_tiers(dec, version)?;
            pool.decode_hammer(dec, version)?;
            pool.decode_appended(dec, version)?;
            Ok(pool)
        })
    }
}

impl PgPool {
    fn decode_first(&mut self, dec: &mut Decoder<'_>, version: u8) -> Result<(), DecodeError> {
        self.size = dec.u8()?;
        self.crush_rule = dec.u8()?;
        self.object_hash = StrHash(dec.u8()?);
        self.pg_num = dec.u32()?;
        self.pgp_num = dec.u32()?;
        let _localized = dec.u64()?;
        self.last_change = dec.value()?;
        self.snap_seq = dec.value()?;
        self.snap_epoch = dec.value()?;
        self.snaps = dec.value()?;
        self.removed_snaps = dec.value()?;
        self.auid = dec.u64()?;
        self.flags = dec.value()?;
        let _crash_replay_interval = dec.u32()?;
        // Before Mimic, who made snapshots was told by what was removed.
        let kinds = PoolFlags::SELFMANAGED_SNAPS | PoolFlags::POOL_SNAPS;
        if self.snap_seq > SnapId(0) && self.flags & kinds == PoolFlags::NONE {
            self.flags |= if self.removed_snaps.is_empty() {
                PoolFlags::POOL_SNAPS
            } else {
                PoolFlags::SELFMANAGED_SNAPS
            };
        }
        self.min_size = if version >= 7 { dec.u8()? } else { self.size - self.size / 2 };
        if version >= 8 {
            self.quota_max_bytes = dec.u64()?;
            self.quota_max_objects = dec.u64()?;
        }
        Ok(())
    }

    fn decode_tiers(&mut self, dec: &mut Decoder<'_>, version: u8) -> Result<(), DecodeError> {
        if version >= 9 {
            self.tiers = dec.value()?;
            self.tier_of = dec.i64()?;
            self.cache_mode = CacheMode(dec.u8()?);
            self.read_tier = dec.i64()?;
            self.write_tier = dec.i64()?;
        }
        if version >= 10 {
            self.properties = dec.value()?;
        }
        if version >= 11 {
            self.hit_set_params = dec.value()?;
            self.hit_set_period = dec.u32()?;
            self.hit_set_count = dec.u32()?;
        }
        if version >= 12 {
            self.stripe_width = dec.u32()?;
        }
        if version >= 13 {
            self.target_max_bytes = dec.u64()?;
            self.target_max_objects = dec.u64()?;
            self.cache_target_dirty_ratio_micro = dec.u32()?;
            self.cache_target_full_ratio_micro = dec.u32()?;
            self.cache_min_flush_age = dec.u32()?;
            self.cache_min_evict_age = dec.u32()?;
        }
        Ok(())
    }

    fn decode_hammer(&mut self, dec: &mut Decoder<'_>, version: u8) -> Result<(), DecodeError> {
        if version >= 14 {
            self.erasure_code_profile = dec.value()?;
        }
        if version >= 15 {
            self.last_force_op_resend_preluminous = dec.value()?;
        }
        self.min_read_recency_for_promote = if version >= 16 { dec.u32()? } else { 1 };
        if version >= 17 {
            self.expected_num_objects = dec.u64()?;
        }
        self.cache_target_dirty_high_ratio_micro =
            if version >= 19 { dec.u32()? } else { self.cache_target_dirty_ratio_micro };
        self.min_write_recency_for_promote = if version >= 20 { dec.u32()? } else { 1 };
        self.use_gmt_hitset = if version >= 21 { dec.bool()? } else { false };
        self.fast_read = if version >= 22 { dec.bool()? } else { false };
        self.hit_set_search_last_n = 1;
        if version >= 23 {
            self.hit_set_grade_decay_rate = dec.u32()?;
            self.hit_set_search_last_n = dec.u32()?;
        }
        if version >= 24 {
            self.options = dec.value()?;
        }
        Ok(())
    }

    fn decode_appended(&mut self, dec: &mut Decoder<'_>, version: u8) -> Result<(), DecodeError> {
        self.last_force_op_resend_prenautilus =
            if version >= 25 { dec.value()? } else { self.last_force_op_resend_preluminous };
        if version >= 26 {
            self.applications = dec.value()?;
        }
        if version >= 27 {
            self.create_time = dec.value()?;
        }
        if version < 28 {
            self.pg_num_target = self.pg_num;
            self.pgp_num_target = self.pgp_num;
            self.pg_num_pending = self.pg_num;
            self.last_force_op_resend = self.last_force_op_resend_prenautilus;
            self.pg_autoscale_mode = PgAutoscaleMode::WARN;
            return Ok(());
        }
        self.pg_num_target = dec.u32()?;
        self.pgp_num_target = dec.u32()?;
        self.pg_num_pending = dec.u32()?;
        let (last_epoch_started, last_epoch_clean) = dec.value::<(Epoch, Epoch)>()?;
        self.last_force_op_resend = dec.value()?;
        self.pg_autoscale_mode = PgAutoscaleMode(dec.u8()?);
        self.last_pg_merge_meta = if version >= 29 {
            dec.value()?
        } else {
            PgMergeMeta { last_epoch_started, last_epoch_clean, ..PgMergeMeta::default() }
        };
        if version == 30 {
            let peering = dec.value::<PeeringCrush>()?;
            self.peering_crush = (peering.bucket_count > 0).then_some(peering);
        } else if version >= 31 {
            self.peering_crush = dec.value()?;
        }
        if version >= 32 {
            let low = decode_varint(dec)?;
            self.nonprimary_shards = u128::from(decode_varint(dec)?) << 64 | u128::from(low);
        }
        Ok(())
    }
}

/// Seven bits in a byte, the lowest first; the highest bit says that more follow (`denc_varint`).
fn varint(enc: &mut Encoder, mut value: u64) {
    while value >= 0x80 {
        enc.u8(value as u8 | 0x80);
        value >>= 7;
    }
    enc.u8(value as u8);
}

fn decode_varint(dec: &mut Decoder<'_>) -> Result<u64, DecodeError> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = dec.u8()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
        if shift >= u64::BITS {
            return Err(dec.invalid("a number of up to 64 bits", value));
        }
    }
}
