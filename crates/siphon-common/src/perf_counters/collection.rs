use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value, json};

use super::{CounterInfo, CounterValue, Histogram};

/// Something that has counters.
pub trait PerfSource: Send + Sync {
    /// Its name, as Ceph's dumps have it: `AsyncMessenger::Worker-0`, `throttle-osd_client_bytes`.
    fn name(&self) -> String;

    /// What its counters are, always the same.
    fn infos(&self) -> &'static [CounterInfo];

    /// The value of each, now.
    fn values(&self) -> Vec<CounterValue>;

    /// Has all but gauges count from 0.
    fn reset(&self);
}

/// All counters of a context. Clones are the same.
///
/// It keeps nothing alive: counters whose owner is gone are gone.
#[derive(Clone, Default)]
pub struct PerfCollection {
    sources: Arc<Mutex<Vec<Weak<dyn PerfSource>>>>,
}

/// Which of a source's counters a dump has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Numbers,
    Histograms,
}

impl Part {
    fn has(self, info: &CounterInfo) -> bool {
        info.is_histogram() == (self == Self::Histograms)
    }
}

/// Counters by source, which are read as they are written.
pub(crate) struct Dump {
    sources: Vec<(String, Arc<dyn PerfSource>)>,
    part: Part,
    /// Of this source only.
    logger: Option<String>,
    /// This counter only.
    counter: Option<String>,
}

impl Dump {
    fn wants(&self, info: &CounterInfo) -> bool {
        self.part.has(info) && self.counter.as_ref().is_none_or(|counter| counter == info.name)
    }
}

impl Serialize for Dump {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_map(None)?;
        for (name, source) in &self.sources {
            let is_wanted = self.logger.as_ref().is_none_or(|logger| logger == name);
            if is_wanted && source.infos().iter().any(|info| self.wants(info)) {
                all.serialize_entry(name, &OfSource { dump: self, source: &**source })?;
            }
        }
        all.end()
    }
}

struct OfSource<'a> {
    dump: &'a Dump,
    source: &'a dyn PerfSource,
}

impl Serialize for OfSource<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counters = self.source.infos().iter().zip(self.source.values());
        let wanted = counters.filter(|(info, _)| self.dump.wants(info));
        serializer.collect_map(wanted.map(|(info, value)| (info.name, value)))
    }
}

/// A dump is a map whose keys are strings.
fn to_value(dump: &Dump) -> Value {
    serde_json::to_value(dump).unwrap_or_default()
}

impl PerfCollection {
    /// Adds a source, until the last `Arc` of it is gone.
    pub fn add(&self, source: Arc<dyn PerfSource>) {
        let mut sources = self.lock();
        sources.retain(|source| source.strong_count() > 0);
        sources.push(Arc::downgrade(&source));
    }

    /// What `perf dump` tells: of all sources, or of the one named `logger`; all counters, or one.
    pub fn dump(&self, logger: Option<&str>, counter: Option<&str>) -> Value {
        to_value(&self.numbers(logger.map(str::to_owned), counter.map(str::to_owned)))
    }

    /// What `perf schema` tells.
    pub fn schema(&self) -> Value {
        self.describe(Part::Numbers, CounterInfo::schema)
    }

    /// What `perf histogram dump` tells.
    pub fn histogram_dump(&self, logger: Option<&str>, counter: Option<&str>) -> Value {
        to_value(&self.histograms(logger.map(str::to_owned), counter.map(str::to_owned)))
    }

    /// What `perf histogram schema` tells.
    pub fn histogram_schema(&self) -> Value {
        self.describe(Part::Histograms, |info| {
            let mut schema = info.schema();
            schema["axes"] = Histogram::axes().clone();
            schema
        })
    }

    /// Has counters start from 0, of all sources or of the one with this name; whether there was any.
    pub fn reset(&self, logger: &str) -> bool {
        let named = self.named();
        let chosen = named.iter().filter(|(name, _)| logger == "all" || name == logger);
        chosen.map(|(_, source)| source.reset()).count() > 0
    }

    /// Every source, by a name that no other has, in the order of these, as Ceph tells them.
    pub fn named(&self) -> Vec<(String, Arc<dyn PerfSource>)> {
        let sources: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        let mut taken = HashSet::with_capacity(sources.len());
        let mut last: HashMap<String, usize> = HashMap::new();
        let free = |source: Arc<dyn PerfSource>| {
            let name = source.name();
            let mut free = name.clone();
            // Two stacks have a first worker each.
            while !taken.insert(free.clone()) {
                let number = last.entry(name.clone()).or_insert(1);
                *number += 1;
                free = format!("{name}#{number}");
            }
            (free, source)
        };
        let mut named: Vec<_> = sources.into_iter().map(free).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    }

    /// A dump of numbers that is not made yet.
    pub(crate) fn numbers(&self, logger: Option<String>, counter: Option<String>) -> Dump {
        Dump { sources: self.named(), part: Part::Numbers, logger, counter }
    }

    /// A dump of histograms that is not made yet.
    pub(crate) fn histograms(&self, logger: Option<String>, counter: Option<String>) -> Dump {
        Dump { sources: self.named(), part: Part::Histograms, logger, counter }
    }

    fn describe(&self, part: Part, schema: impl Fn(&CounterInfo) -> Value) -> Value {
        let mut all = Map::new();
        for (name, source) in self.named() {
            let infos = source.infos().iter().filter(|info| part.has(info));
            let counters: Map<_, _> =
                infos.map(|info| (info.name.to_owned(), schema(info))).collect();
            if !counters.is_empty() {
                all.insert(name, json!(counters));
            }
        }
        Value::Object(all)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<dyn PerfSource>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PerfCollection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerfCollection").field("sources", &self.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::perf_counters::{Counters, Unit};

    static INFOS: [CounterInfo; 3] = [
        CounterInfo::counter("msgr_recv_bytes", "Network received bytes").unit(Unit::Bytes),
        CounterInfo::time_average("msgr_send_messages_queue_lat", "Network sent messages lat"),
        CounterInfo::histogram("latency", "How long they took"),
    ];

    #[test]
    fn schema_and_dump_are_as_a_real_osd_has_them() {
        let collection = PerfCollection::default();
        let mut counters = Counters::new("AsyncMessenger::Worker-0", &INFOS);
        collection.add(counters.source());
        counters.add(0, 10864);
        counters.add_average(1, 4, Duration::from_nanos(3_620_839));
        let expected = json!({ "AsyncMessenger::Worker-0": {
            "msgr_recv_bytes": 10864,
            "msgr_send_messages_queue_lat": {
                "avgcount": 4, "sum": 0.003620839, "avgtime": 0.00090520975,
            },
        }});
        assert_eq!(collection.dump(None, None), expected);
        // A 20.2.4 OSD's.
        let expected = json!({
            "type": 10, "metric_type": "counter", "value_type": "integer",
            "description": "Network received bytes", "nick": "", "priority": 0, "units": "bytes",
        });
        let schema = collection.schema();
        assert_eq!(schema["AsyncMessenger::Worker-0"]["msgr_recv_bytes"], expected);
        let average = &schema["AsyncMessenger::Worker-0"]["msgr_send_messages_queue_lat"];
        assert_eq!(
            (&average["type"], &average["value_type"]),
            (&json!(5), &json!("real-integer-pair"))
        );
        assert_eq!(
            collection.histogram_dump(None, None)["AsyncMessenger::Worker-0"]["latency"]["values"]
                [0],
            0
        );
    }

    #[test]
    fn sources_are_told_by_name_and_counters_in_their_order() {
        let collection = PerfCollection::default();
        let blocks = ["throttle-b", "AsyncMessenger::Worker-1", "AsyncMessenger::Worker-0"]
            .map(|name| Counters::new(name, &INFOS));
        blocks.iter().for_each(|block| collection.add(block.source()));
        for told in [collection.dump(None, None), collection.schema()] {
            let told = told.as_object().unwrap();
            let names: Vec<_> = told.keys().collect();
            assert_eq!(
                names,
                ["AsyncMessenger::Worker-0", "AsyncMessenger::Worker-1", "throttle-b"]
            );
            let counters: Vec<_> = told["throttle-b"].as_object().unwrap().keys().collect();
            assert_eq!(counters, ["msgr_recv_bytes", "msgr_send_messages_queue_lat"]);
        }
    }

    #[test]
    fn sources_are_told_apart_chosen_reset_and_forgotten() {
        let collection = PerfCollection::default();
        let blocks = [(); 3].map(|()| Counters::new("Worker-0", &INFOS));
        blocks.iter().for_each(|block| collection.add(block.source()));
        let names: Vec<_> = collection.named().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Worker-0", "Worker-0#2", "Worker-0#3"]);
        let [mut first, mut second, third] = blocks;
        first.add(0, 1);
        second.add(0, 2);
        let dump = collection.dump(Some("Worker-0#2"), Some("msgr_recv_bytes"));
        assert_eq!(dump, json!({ "Worker-0#2": { "msgr_recv_bytes": 2 } }));
        assert!(collection.reset("Worker-0#2") && !collection.reset("nobody"));
        assert_eq!(collection.dump(Some("Worker-0#2"), None)["Worker-0#2"]["msgr_recv_bytes"], 0);
        assert_eq!(collection.dump(Some("Worker-0"), None)["Worker-0"]["msgr_recv_bytes"], 1);
        drop((first, third));
        assert_eq!(collection.named().len(), 1);
    }
}
