//! Perf counters, under the names, types and in the forms that Ceph's admin socket shows them.
//!
//! Counters are written by one thread each, which adds to them without an atomic read-modify-write
//! ([`Counters`]), and read by whoever dumps them: what they sum to is exact once that thread rests. What
//! has counters of another kind brings a [`PerfSource`] of its own. A [`PerfCollection`], of which each
//! context has one, knows all of them.
//!
//! ```
//! use siphon_common::perf_counters::{CounterInfo, Counters, PerfCollection, Unit};
//!
//! static INFOS: [CounterInfo; 2] = [
//!     CounterInfo::counter("messages", "Messages that were sent"),
//!     CounterInfo::counter("bytes", "Their bytes").unit(Unit::Bytes),
//! ];
//! let collection = PerfCollection::default();
//! let mut counters = Counters::new("Worker-0", &INFOS);
//! collection.add(counters.source());
//! counters.add(0, 2);
//! counters.add(1, 4096);
//! assert_eq!(collection.dump(None, None)["Worker-0"]["bytes"], 4096);
//! ```

mod collection;
mod counters;
mod histogram;
mod info;
mod throttle;

pub use collection::{PerfCollection, PerfSource};
pub use counters::Counters;
pub use histogram::{BUCKETS, Histogram};
pub use info::{CounterInfo, CounterKind, CounterValue, Unit};
pub use throttle::{ThrottleFigures, ThrottleSource};
