use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Value, json};

use super::Histogram;

/// What is known of a counter beside its value: a row of `perf schema`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CounterInfo {
    /// Its name, with underscores.
    pub name: &'static str,
    /// What it holds.
    pub kind: CounterKind,
    /// Of what it counts so many.
    pub unit: Unit,
    /// What it counts, in a sentence.
    pub description: &'static str,
}

/// What a counter holds (`perfcounter_type_d` of Ceph's `common/perf_counters.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterKind {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// A time that only grows.
    Time,
    /// How often something took place, and how long it took together.
    TimeAverage,
    /// How often something took so long: buckets, whose limits double. Ceph dumps these by themselves.
    Histogram,
}

/// Of what a counter counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    #[default]
    None,
    /// Bytes.
    Bytes,
}

/// The value of a counter at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum CounterValue {
    /// Of a counter or a gauge.
    Integer(u64),
    /// Of a time.
    Time(Duration),
    /// Of a time's average.
    TimeAverage {
        /// How often.
        count: u64,
        /// How long together.
        sum: Duration,
    },
    /// Of a histogram.
    Histogram(Box<Histogram>),
}

impl CounterInfo {
    const fn new(name: &'static str, kind: CounterKind, description: &'static str) -> Self {
        Self { name, kind, unit: Unit::None, description }
    }

    /// A number that only grows.
    pub const fn counter(name: &'static str, description: &'static str) -> Self {
        Self::new(name, CounterKind::Counter, description)
    }

    /// A number that goes up and down.
    pub const fn gauge(name: &'static str, description: &'static str) -> Self {
        Self::new(name, CounterKind::Gauge, description)
    }

    /// A time that only grows.
    pub const fn time(name: &'static str, description: &'static str) -> Self {
        Self::new(name, CounterKind::Time, description)
    }

    /// How often something took place, and how long it took.
    pub const fn time_average(name: &'static str, description: &'static str) -> Self {
        Self::new(name, CounterKind::TimeAverage, description)
    }

    /// How often something took so long.
    pub const fn histogram(name: &'static str, description: &'static str) -> Self {
        Self::new(name, CounterKind::Histogram, description)
    }

    /// The same, in this unit.
    #[must_use]
    pub const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Whether `perf dump` leaves it to `perf histogram dump`.
    pub fn is_histogram(&self) -> bool {
        self.kind == CounterKind::Histogram
    }

    /// As `perf schema` tells it.
    pub(super) fn schema(&self) -> Value {
        // 1 is a time, 2 a number, 4 an average, 8 a counter, 16 a histogram.
        let (bits, metric, value) = match self.kind {
            CounterKind::Counter => (2 | 8, "counter", "integer"),
            CounterKind::Gauge => (2, "gauge", "integer"),
            CounterKind::Time => (1, "gauge", "real"),
            CounterKind::TimeAverage => (1 | 4, "gauge", "real-integer-pair"),
            CounterKind::Histogram => (2 | 8 | 16, "histogram", "integer"),
        };
        let unit = match self.unit {
            Unit::None => "none",
            Unit::Bytes => "bytes",
        };
        json!({
            "type": bits,
            "metric_type": metric,
            "value_type": value,
            "description": self.description,
            "nick": "",
            "priority": 0,
            "units": unit,
        })
    }
}

/// As `perf dump` tells it.
impl Serialize for CounterValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Integer(value) => serializer.serialize_u64(*value),
            Self::Time(time) => serializer.serialize_f64(time.as_secs_f64()),
            Self::TimeAverage { count, sum } => {
                let average = if *count == 0 { 0.0 } else { sum.as_secs_f64() / *count as f64 };
                let mut map = serializer.serialize_map(Some(3))?;
                map.serialize_entry("avgcount", count)?;
                map.serialize_entry("sum", &sum.as_secs_f64())?;
                map.serialize_entry("avgtime", &average)?;
                map.end()
            }
            Self::Histogram(histogram) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("axes", Histogram::axes())?;
                map.serialize_entry("values", &histogram.counts)?;
                map.end()
            }
        }
    }
}
