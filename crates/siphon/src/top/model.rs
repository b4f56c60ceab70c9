//! What was sampled, and the rates between two samples.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use serde_json::Value;

/// Rates that are kept for the history, one a sample.
pub(super) const HISTORY: usize = 240;

/// What a process told at its admin socket.
#[derive(Debug)]
pub(super) struct Sample {
    /// The socket's name.
    pub(super) process: String,
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
    before: BTreeMap<String, f64>,
    at: Option<Instant>,
}

impl Model {
    /// Processes that answered in the last sample.
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    /// Why others did not.
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Takes a sample: rows are as it says, rates since the one before.
    pub(super) fn add(&mut self, samples: Vec<Sample>, at: Instant) {
        let seconds = self.at.replace(at).map(|before| (at - before).as_secs_f64());
        let mut rates = Rates { before: &self.before, now: BTreeMap::new(), seconds };
        self.workers.clear();
        self.connections.clear();
        self.throttles.clear();
        self.failures.clear();
        self.answers = 0;
        for Sample { process, perf, dumps } in samples {
            let perf = match perf {
                Ok(perf) => perf,
                Err(why) => {
                    self.failures.push(why);
                    continue;
                }
            };
            self.answers += 1;
            let first = self.workers.len();
            for (name, counters) in perf.as_object().into_iter().flatten() {
                if let Some(name) = name.strip_prefix("AsyncMessenger::Worker-") {
                    self.workers.push(worker(&mut rates, &process, name, counters));
                } else if let Some(name) = name.strip_prefix("throttle-") {
                    let rate = rates.of(&format!("{process} {name} get_sum"), &counters["get_sum"]);
                    self.throttles.push(ThrottleRow {
                        process: process.clone(),
                        name: name.to_owned(),
                        held: counters["val"].as_u64().unwrap_or(0),
                        max: counters["max"].as_u64().unwrap_or(0),
                        rate,
                    });
                }
            }
            self.workers[first..].sort_by(|a, b| a.name.cmp(&b.name));
            for (messenger, dump) in &dumps {
                let connections = dump["messenger"]["connections"].as_array();
                let rows = connections.into_iter().flatten();
                let rows = rows.map(|it| connection(&mut rates, &process, messenger, it));
                self.connections.extend(rows);
            }
        }
        self.before = rates.now;
        self.total = total(&self.workers);
        if seconds.is_some() {
            self.history.push_back((self.total.received_bytes, self.total.sent_bytes));
            while self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
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
        rates
            .of(&format!("{process} worker {name} {counter}"), &counters[format!("msgr_{counter}")])
    };
    let (received, sent) = (rate("recv_messages"), rate("send_messages"));
    let (received_bytes, sent_bytes) = (rate("recv_bytes"), rate("send_bytes"));
    let busy_percent = 100.0 * rate("running_total_time");
    let lat = &counters["msgr_send_messages_queue_lat"];
    let waits = rates.growth(&format!("{process} worker {name} lat n"), &lat["avgcount"]);
    let waited = rates.growth(&format!("{process} worker {name} lat sum"), &lat["sum"]);
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
    let id = format!("{process} {messenger} connection {}", it["conn_id"]);
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
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    pub(crate) fn sample(messages: u64, busy: f64) -> Vec<Sample> {
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
        let gone =
            Sample { process: "osd.1".into(), perf: Err("osd.1 is gone".into()), dumps: vec![] };
        vec![
            Sample {
                process: "osd.0".into(),
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
        model.add(sample(100, 1.0), begin);
        assert_eq!((model.total.received, model.history.len()), (0.0, 0));
        model.add(sample(300, 1.5), begin + Duration::from_secs(2));
        let worker = &model.workers[0];
        assert_eq!((worker.received, worker.sent, worker.connections), (100.0, 200.0, 3));
        assert_eq!((worker.received_bytes, worker.busy_percent), (409_600.0, 25.0));
        assert!((worker.queue_us.unwrap() - 5.0).abs() < 1e-6);
        assert_eq!((model.connections[0].received, model.connections[0].sent), (100.0, 0.0));
        assert_eq!(model.connections[0].rtt_us, Some(33));
        assert_eq!((model.throttles[0].held, model.throttles[0].rate), (7, 1000.0));
        assert_eq!((model.answers(), model.failures()), (1, &["osd.1 is gone".to_owned()][..]));
        // It was started anew.
        model.add(sample(50, 0.1), begin + Duration::from_secs(3));
        assert_eq!((model.workers[0].received, model.history.len()), (50.0, 2));
    }

    #[test]
    fn connections_of_two_messengers_may_have_one_number_and_ceph_counts_below_zero() {
        #[expect(clippy::disallowed_methods, reason = "any time does")]
        let begin = Instant::now();
        let sample = || {
            let dump = |in_seq: u64| {
                let connection = json!({ "conn_id": 1, "in_seq": in_seq });
                json!({ "messenger": { "connections": [{ "async_connection": connection }] } })
            };
            let active = json!({ "msgr_active_connections": u64::MAX });
            let perf = Ok(json!({ "AsyncMessenger::Worker-0": active }));
            let dumps = vec![("mon".to_owned(), dump(5)), ("mon-mgrc".to_owned(), dump(5_000))];
            vec![Sample { process: "mon.a".into(), perf, dumps }]
        };
        let mut model = Model::default();
        model.add(sample(), begin);
        model.add(sample(), begin + Duration::from_secs(1));
        assert_eq!((model.workers[0].connections, model.total.connections), (0, 0));
        assert!(model.connections.iter().all(|it| it.received == 0.0), "nothing came");
    }
}
