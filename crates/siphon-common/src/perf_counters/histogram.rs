use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};

/// Buckets of a histogram: below 1 us, then from each power of two to the next, the last without an end.
pub const BUCKETS: usize = 32;

/// How often something took so long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket; see [`BUCKETS`].
    pub counts: [u64; BUCKETS],
    /// How long together.
    pub sum: Duration,
}

impl Histogram {
    /// The bucket of a time.
    ///
    /// ```
    /// use siphon_common::perf_counters::Histogram;
    /// use std::time::Duration;
    ///
    /// let bucket = |ns| Histogram::bucket(Duration::from_nanos(ns));
    /// assert_eq!([bucket(999), bucket(1000), bucket(2000), bucket(3999)], [0, 1, 2, 2]);
    /// ```
    pub fn bucket(time: Duration) -> usize {
        let us =
            time.as_secs().saturating_mul(1_000_000).saturating_add(time.subsec_micros().into());
        (u64::BITS - us.leading_zeros()).min(BUCKETS as u32 - 1) as usize
    }

    /// The lowest time of a bucket, in microseconds.
    pub fn lowest_us(bucket: usize) -> u64 {
        if bucket == 0 { 0 } else { 1 << (bucket - 1) }
    }

    /// Its axis, as Ceph tells the axes of its own: the same for all, and made once.
    pub(super) fn axes() -> &'static Value {
        static AXES: LazyLock<Value> = LazyLock::new(Histogram::make_axes);
        &AXES
    }

    fn make_axes() -> Value {
        let ranges: Vec<_> = (0..BUCKETS)
            .map(|bucket| match bucket + 1 {
                BUCKETS => json!({ "min": Self::lowest_us(bucket) }),
                next => json!({ "min": Self::lowest_us(bucket), "max": Self::lowest_us(next) - 1 }),
            })
            .collect();
        json!([{
            "name": "Latency (usec)",
            "min": 0,
            "quant_size": 1,
            "buckets": BUCKETS,
            "scale_type": "log2",
            "ranges": ranges,
        }])
    }
}
