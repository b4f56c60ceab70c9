//! What was sampled, and the rates between two samples.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Rates that are kept for the history, one a sample.
pub(super) const HISTORY: usize = 240;
/// For how long the last answer of a process is shown that does not answer.
const KEPT: Duration = Duration::from_secs(10);

/// What a process told at its admin socket.
#[derive(Debug)]
pub(super) struct Sample {
    /// The socket's name.
    pub(super) process: String,
    /// When.
    pub(super) at: Instant,
    /// `perf dump`, or why there is none.
    pub(super) perf: Result<Value, String>,
    /// `messenger dump` of each messenger.
    pub(super) dumps: Vec<(String, Value)>,
}

/// A worker thread, or all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct WorkerRow {
    pub(super) process: String,
    pub(super) name: String,
    pub(super) connections: u64,
    /// A second.
    pub(super) received: f64,
    pub(super) sent: f64,
    pub(super) received_bytes: f64,
    pub(super) sent_bytes: f64,
    /// Microseconds that a message waited, if any did.
    pub(super) queue_us: Option<f64>,
    /// Of the time between the samples.
    pub(super) busy_percent: f64,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ConnectionRow {
    pub(super) process: String,
    pub(super) peer: String,
    pub(super) addr: String,
    pub(super) mode: String,
    pub(super) state: String,
    /// Messages a second.
    pub(super) received: f64,
    pub(super) sent: f64,
    pub(super) queued: u64,
    pub(super) unacknowledged: u64,
    pub(super) outgoing_bytes: u64,
    pub(super) rtt_us: Option<u64>,
    pub(super) retransmits: Option<u64>,
}

/// A throttle.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ThrottleRow {
    pub(super) process: String,
    pub(super) name: String,
    pub(super) held: u64,
    pub(super) max: u64,
    /// Of what is let pass, a second.
    pub(super) rate: f64,
}

/// A process: what it told last.
#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    /// Whether it had told something before.
    rated: bool,
    /// Of all that grows.
    numbers: BTreeMap<String, f64>,
    workers: Vec<WorkerRow>,
    connections: Vec<ConnectionRow>,
    throttles: Vec<ThrottleRow>,
    failure: Option<String>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) workers: Vec<WorkerRow>,
    pub(super) connections: Vec<ConnectionRow>,
    pub(super) throttles: Vec<ThrottleRow>,
    /// The sum of all workers, and how it was, the newest last.
    pub(super) total: WorkerRow,
    pub(super) history: VecDeque<(f64, f64)>,
    failures: Vec<String>,
    answers: usize,
    processes: BTreeMap<String, Told>,
}

impl Model {
    /// Processes that have answered, and not too long ago.
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    /// Why others have not, and who lets one wait.
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Takes samples: rows are as they say, rates since the one before of the same process. Of who is `late`, and how
    /// long, what it told last stays for [`KEPT`].
    pub(super) fn add(&mut self, samples: Vec<Sample>, late: &[(String, Duration)]) {
        for sample in samples {
            self.processes.entry(sample.process.clone()).or_default().take(sample);
        }
        for (process, so_long) in late {
            let told = self.processes.entry(process.clone()).or_default();
            let seconds = so_long.as_secs_f64();
            told.failure = Some(format!("{process} has not answered for {seconds:.1} s"));
            if *so_long > KEPT {
                told.forget();
            }
        }
        self.workers.clear();
        self.connections.clear();
        self.throttles.clear();
        self.failures.clear();
        self.answers = 0;
        for told in self.processes.values() {
            self.workers.extend(told.workers.iter().cloned());
            self.connections.extend(told.connections.iter().cloned());
            self.throttles.extend(told.throttles.iter().cloned());
            self.failures.extend(told.failure.clone());
            self.answers += usize::from(told.at.is_some());
        }
        self.total = total(&self.workers);
        if self.processes.values().any(|told| told.rated) {
            self.history.push_back((self.total.received_bytes, self.total.sent_bytes));
            while self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
    }
}

impl Told {
    fn forget(&mut self) {
        *self = Self { failure: self.failure.take(), ..Self::default() };
    }

    fn take(&mut self, sample: Sample) {
        let Sample { process, at, perf, dumps } = sample;
        let perf = match perf {
            Ok(perf) => perf,
            Err(why) => {
                self.failure = Some(why);
                return self.forget();
            }
        };
        let before = self.at.replace(at);
        let seconds = before.map(|before| at.saturating_duration_since(before).as_secs_f64());
        self.rated = seconds.is_some();
        let before = std::mem::take(&mut self.numbers);
        let mut rates = Rates { before: &before, now: BTreeMap::new(), seconds };
        self.forget_rows();
        for (name, counters) in perf.as_object().into_iter().flatten() {
            if let Some(name) = name.strip_prefix("AsyncMessenger::Worker-") {
                self.workers.push(worker(&mut rates, &process, name, counters));
            } else if let Some(name) = name.strip_prefix("throttle-") {
                let rate = rates.of(&format!("{name} get_sum"), &counters["get_sum"]);
                self.throttles.push(ThrottleRow {
                    process: process.clone(),
                    name: name.to_owned(),
                    held: counters["val"].as_u64().unwrap_or(0),
                    max: counters["max"].as_u64().unwrap_or(0),
                    rate,
                });
            }
        }
        self.workers.sort_by(|a, b| a.name.cmp(&b.name));
        for (messenger, dump) in &dumps {
            let connections = dump["messenger"]["connections"].as_array();
            let rows = connections.into_iter().flatten();
            let rows = rows.map(|it| connection(&mut rates, &process, messenger, it));
            self.connections.extend(rows);
        }
        self.numbers = rates.now;
    }

    fn forget_rows(&mut self) {
        self.workers.clear();
        self.connections.clear();
        self.throttles.clear();
        self.failure = None;
    }
}

struct Rates<'a> {
    before: &'a BTreeMap<String, f64>,
    now: BTreeMap<String, f64>,
    seconds: Option<f64>,
}

impl Rates<'_> {
    /// By how much a value that grows has grown a second.
    fn of(&mut self, key: &str, value: &Value) -> f64 {
        self.growth(key, value) / self.seconds.unwrap_or(f64::INFINITY)
    }

    /// By how much it has grown.
    fn growth(&mut self, key: &str, value: &Value) -> f64 {
        let now = value.as_f64().unwrap_or(0.0);
        let before = self.before.get(key).copied().unwrap_or(now);
        self.now.insert(key.to_owned(), now);
        // A process that was started anew, or reset, begins at 0.
        if now < before { now } else { now - before }
    }
}

fn worker(rates: &mut Rates<'_>, process: &str, name: &str, counters: &Value) -> WorkerRow {
    let mut rate = |counter: &str| {
        rates.of(&format!("worker {name} {counter}"), &counters[format!("msgr_{counter}")])
    };
    let (received, sent) = (rate("recv_messages"), rate("send_messages"));
    let (received_bytes, sent_bytes) = (rate("recv_bytes"), rate("send_bytes"));
    let busy_percent = 100.0 * rate("running_total_time");
    let lat = &counters["msgr_send_messages_queue_lat"];
    let waits = rates.growth(&format!("worker {name} lat n"), &lat["avgcount"]);
    let waited = rates.growth(&format!("worker {name} lat sum"), &lat["sum"]);
    WorkerRow {
        process: process.to_owned(),
        name: name.to_owned(),
        // Ceph's may fall below zero.
        connections: as_signed(&counters["msgr_active_connections"]).max(0).unsigned_abs(),
        received,
        sent,
        received_bytes,
        sent_bytes,
        queue_us: (waits > 0.0).then(|| waited / waits * 1e6),
        busy_percent,
    }
}

/// A number below zero is told as one without a sign.
fn as_signed(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_u64().map(u64::cast_signed)).unwrap_or(0)
}

/// A connection's number is its messenger's own.
fn connection(
    rates: &mut Rates<'_>,
    process: &str,
    messenger: &str,
    told: &Value,
) -> ConnectionRow {
    let it = &told["async_connection"];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let id = format!("{messenger} connection {}", it["conn_id"]);
    // Ceph tells a name in parts.
    let peer = match &it["peer"]["entity_name"] {
        Value::String(name) => name.clone(),
        name => format!("{}.{}", text(&name["type_str"]), text(&name["id"])),
    };
    ConnectionRow {
        process: process.to_owned(),
        peer,
        addr: text(&told["addrvec"][0]["addr"]),
        mode: match &it["protocol"]["v2"]["con_mode"] {
            Value::String(mode) => mode.clone(),
            _ => text(&it["protocol"]["con_mode"]),
        },
        state: text(&it["state"]),
        received: rates.of(&format!("{id} in"), &it["in_seq"]),
        sent: rates.of(&format!("{id} out"), &it["out_seq"]),
        queued: it["queued_messages"].as_u64().unwrap_or(0),
        unacknowledged: it["unacknowledged_messages"].as_u64().unwrap_or(0),
        outgoing_bytes: it["outgoing_bytes"].as_u64().unwrap_or(0),
        rtt_us: it["tcp_info"]["tcpi_rtt_us"].as_u64(),
        retransmits: it["tcp_info"]["tcpi_total_retrans"].as_u64(),
    }
}

fn total(workers: &[WorkerRow]) -> WorkerRow {
    let mut total = WorkerRow { name: "all".to_owned(), ..WorkerRow::default() };
    for worker in workers {
        total.connections += worker.connections;
        total.received += worker.received;
        total.sent += worker.sent;
        total.received_bytes += worker.received_bytes;
        total.sent_bytes += worker.sent_bytes;
        total.busy_percent += worker.busy_percent;
    }
    total
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn sample(messages: u64, busy: f64, at: Instant) -> Vec<Sample> {
        let worker = json!({
            "msgr_recv_messages": messages, "msgr_send_messages": 2 * messages,
            "msgr_recv_bytes": 4096 * messages, "msgr_send_bytes": 200 * messages,
            "msgr_active_connections": 3, "msgr_running_total_time": busy,
            "msgr_send_messages_queue_lat": { "avgcount": messages, "sum": messages as f64 * 5e-6 },
        });
        let perf = json!({
            "AsyncMessenger::Worker-0": worker,
            "throttle-osd_client_bytes": { "val": 7, "max": 100, "get_sum": 10 * messages },
            "objecter": { "op_active": 1 },
        });
        let dump = json!({ "messenger": { "connections": [{
            "addrvec": [{ "addr": "127.0.0.1:6800" }],
            "async_connection": {
                "state": "ready", "conn_id": 4, "in_seq": messages, "out_seq": 1,
                "peer": { "entity_name": "client.1" }, "protocol": { "con_mode": "crc" },
                "queued_messages": 2, "unacknowledged_messages": 1, "outgoing_bytes": 5000,
                "tcp_info": { "tcpi_rtt_us": 33, "tcpi_total_retrans": 4 },
            },
        }]}});
        let gone = Sample {
            process: "osd.1".into(),
            at,
            perf: Err("osd.1 is gone".into()),
            dumps: vec![],
        };
        vec![
            Sample {
                process: "osd.0".into(),
                at,
                perf: Ok(perf),
                dumps: vec![("osd.0".to_owned(), dump)],
            },
            gone,
        ]
    }

    #[test]
    fn rates_are_what_grew_by_the_time_between() {
        let mut model = Model::default();
        #[expect(clippy::disallowed_methods, reason = "any time does")]
        let begin = Instant::now();
        model.add(sample(100, 1.0, begin), &[]);
        assert_eq!((model.total.received, model.history.len()), (0.0, 0));
        model.add(sample(300, 1.5, begin + Duration::from_secs(2)), &[]);
        let worker = &model.workers[0];
        assert_eq!((worker.received, worker.sent, worker.connections), (100.0, 200.0, 3));
        assert_eq!((worker.received_bytes, worker.busy_percent), (409_600.0, 25.0));
        assert!((worker.queue_us.unwrap() - 5.0).abs() < 1e-6);
        assert_eq!((model.connections[0].received, model.connections[0].sent), (100.0, 0.0));
        assert_eq!(model.connections[0].rtt_us, Some(33));
        assert_eq!((model.throttles[0].held, model.throttles[0].rate), (7, 1000.0));
        assert_eq!((model.answers(), model.failures()), (1, &["osd.1 is gone".to_owned()][..]));
        // It was started anew.
        model.add(sample(50, 0.1, begin + Duration::from_secs(3)), &[]);
        assert_eq!((model.workers[0].received, model.history.len()), (50.0, 2));
    }

    #[test]
    fn connections_of_two_messengers_may_have_one_number_and_ceph_counts_below_zero() {
        #[expect(clippy::disallowed_methods, reason = "any time does")]
        let begin = Instant::now();
        let sample = |at| {
            let dump = |in_seq: u64| {
                let connection = json!({ "conn_id": 1, "in_seq": in_seq });
                json!({ "messenger": { "connections": [{ "async_connection": connection }] } })
            };
            let active = json!({ "msgr_active_connections": u64::MAX });
            let perf = Ok(json!({ "AsyncMessenger::Worker-0": active }));
            let dumps = vec![("mon".to_owned(), dump(5)), ("mon-mgrc".to_owned(), dump(5_000))];
            vec![Sample { process: "mon.a".into(), at, perf, dumps }]
        };
        let mut model = Model::default();
        model.add(sample(begin), &[]);
        model.add(sample(begin + Duration::from_secs(1)), &[]);
        assert_eq!((model.workers[0].connections, model.total.connections), (0, 0));
        assert!(model.connections.iter().all(|it| it.received == 0.0), "nothing came");
    }

    #[test]
    fn who_is_late_is_named_and_keeps_its_rows_for_a_while() {
        #[expect(clippy::disallowed_methods, reason = "any time does")]
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let of = |process: &str, messages, second| {
            let mut sample = sample(messages, 1.0, at(second)).swap_remove(0);
            sample.process = process.to_owned();
            sample
        };
        let mut model = Model::default();
        model.add(vec![of("a", 100, 0), of("b", 100, 0)], &[]);
        model.add(vec![of("a", 200, 1), of("b", 200, 1)], &[]);
        assert_eq!((model.answers(), model.workers.len()), (2, 2));
        model.add(vec![of("a", 300, 2)], &[("b".to_owned(), Duration::from_secs(1))]);
        assert_eq!((model.answers(), model.workers.len()), (2, 2));
        assert_eq!(model.failures(), ["b has not answered for 1.0 s"]);
        model.add(vec![of("a", 300, 13)], &[("b".to_owned(), Duration::from_secs(12))]);
        assert_eq!((model.answers(), model.workers.len()), (1, 1));
        assert_eq!(model.failures(), ["b has not answered for 12.0 s"]);
        // Its rate is of the time since its own last answer.
        model.add(vec![of("b", 400, 20)], &[]);
        model.add(vec![of("b", 500, 21)], &[]);
        assert_eq!((model.workers[1].process.as_str(), model.workers[1].received), ("b", 100.0));
        assert!(model.failures().is_empty());
    }
}
