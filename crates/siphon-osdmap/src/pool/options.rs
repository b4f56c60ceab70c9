use std::collections::BTreeMap;

use siphon_wire::types::{ByteString, Features};
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

/// Which option of a pool (`pool_opts_t::key_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolOptionKey(pub i32);

/// Names of options by number, as `ceph osd pool set` knows them.
const NAMES: [&str; 26] = [
    "scrub_min_interval",
    "scrub_max_interval",
    "deep_scrub_interval",
    "recovery_priority",
    "recovery_op_priority",
    "scrub_priority",
    "compression_mode",
    "compression_algorithm",
    "compression_required_ratio",
    "compression_max_blob_size",
    "compression_min_blob_size",
    "csum_type",
    "csum_max_block",
    "csum_min_block",
    "fingerprint_algorithm",
    "pg_num_min",
    "target_size_bytes",
    "target_size_ratio",
    "pg_autoscale_bias",
    "read_lease_interval",
    "dedup_tier",
    "dedup_chunk_algorithm",
    "dedup_cdc_chunk_size",
    "pg_num_max",
    "read_ratio",
    "pct_update_delay",
];

impl PoolOptionKey {
    /// Its name, if we know it.
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::try_from(self.0).ok()?).copied()
    }

    /// The option of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().position(|known| *known == name).map(|number| Self(number as i32))
    }
}

/// An option's value.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolOption {
    /// Text.
    Text(ByteString),
    /// A number; before Nautilus, of 32 bits.
    Int(i64),
    /// A fraction.
    Double(f64),
}

/// A pool's options (`pool_opts_t`): those that were set.
///
/// ```
/// use siphon_osdmap::{PoolOption, PoolOptionKey, PoolOptions};
/// let mut options = PoolOptions::default();
/// let key = PoolOptionKey::from_name("compression_mode").unwrap();
/// options.0.insert(key, PoolOption::Text("force".into()));
/// assert_eq!(options.get("compression_mode"), Some(&PoolOption::Text("force".into())));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolOptions(pub BTreeMap<PoolOptionKey, PoolOption>);

impl PoolOptions {
    /// An option by its name.
    pub fn get(&self, name: &str) -> Option<&PoolOption> {
        self.0.get(&PoolOptionKey::from_name(name)?)
    }
}

impl Encode for PoolOptions {
    fn encode(&self, enc: &mut Encoder) {
        let wide = enc.features().has(Features::SERVER_NAUTILUS);
        enc.versioned(if wide { 2 } else { 1 }, 1, |enc| {
            enc.count(self.0.len());
            for (key, value) in &self.0 {
                enc.i32(key.0);
                match value {
                    PoolOption::Text(text) => {
                        enc.i32(0);
                        enc.value(text);
                    }
                    PoolOption::Int(number) => {
                        enc.i32(1);
                        // As Ceph does, the lower half.
                        if wide { enc.i64(*number) } else { enc.i32(*number as i32) }
                    }
                    PoolOption::Double(number) => {
                        enc.i32(2);
                        enc.f64(*number);
                    }
                }
            }
        });
    }
}

impl Decode for PoolOptions {
    const MIN_SIZE: usize = 6 + 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("pool_opts_t", 2, |dec, version| {
            let mut options = BTreeMap::new();
            for _ in 0..dec.count(4 + 4 + 4)? {
                let key = PoolOptionKey(dec.i32()?);
                let value = match dec.i32()? {
                    0 => PoolOption::Text(dec.value()?),
                    1 if version >= 2 => PoolOption::Int(dec.i64()?),
                    1 => PoolOption::Int(dec.i32()?.into()),
                    2 => PoolOption::Double(dec.f64()?),
                    kind => return Err(dec.invalid("a type of option from 0 to 2", kind as u64)),
                };
                options.insert(key, value);
            }
            Ok(Self(options))
        })
    }
}
