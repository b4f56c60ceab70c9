use std::fmt::Write as _;

use crate::perf_counters::{CounterKind, CounterValue, Histogram, PerfCollection};

/// All counters in Prometheus' text format: each is `ceph_`, the name of what has it, and its own, with
/// the daemon's name as a label (`DaemonMetricCollector` of Ceph's `exporter`).
///
/// Times are in seconds. Of an average there is `_count` and `_sum`; of a histogram `_bucket`, with limits in
/// microseconds, `_sum` in microseconds, and `_count`.
///
/// ```
/// use siphon_common::perf_counters::{CounterInfo, Counters, PerfCollection};
/// use siphon_common::prometheus::render;
///
/// static INFOS: [CounterInfo; 1] = [CounterInfo::counter("msgr_send_messages", "Network sent messages")];
/// let collection = PerfCollection::default();
/// let mut counters = Counters::new("AsyncMessenger::Worker-0", &INFOS);
/// collection.add(counters.source());
/// counters.add(0, 7);
/// let text = render(&collection, "osd.0");
/// assert!(text.ends_with("ceph_AsyncMessenger::Worker_0_msgr_send_messages{ceph_daemon=\"osd.0\"} 7\n"));
/// ```
pub fn render(perf: &PerfCollection, daemon: &str) -> String {
    let mut text = String::new();
    let daemon = daemon.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    for (source, counters) in perf.named() {
        for (info, value) in counters.infos().iter().zip(counters.values()) {
            let name: String = format!("ceph_{source}_{}", info.name)
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | ':') { c } else { '_' })
                .collect();
            let kind = match info.kind {
                CounterKind::Counter | CounterKind::Time | CounterKind::TimeAverage => "counter",
                CounterKind::Gauge => "gauge",
                CounterKind::Histogram => "histogram",
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", info.description);
            let mut metric = |suffix: &str, labels: &str, value: &dyn std::fmt::Display| {
                let _ =
                    writeln!(text, "{name}{suffix}{{ceph_daemon=\"{daemon}\"{labels}}} {value}");
            };
            match value {
                CounterValue::Integer(value) => metric("", "", &value),
                CounterValue::Time(time) => metric("", "", &time.as_secs_f64()),
                CounterValue::TimeAverage { count, sum } => {
                    metric("_count", "", &count);
                    metric("_sum", "", &sum.as_secs_f64());
                }
                CounterValue::Histogram(histogram) => {
                    let mut below = 0;
                    for (bucket, count) in histogram.counts.iter().enumerate() {
                        below += count;
                        let limit = match bucket + 1 < histogram.counts.len() {
                            true => (Histogram::lowest_us(bucket + 1) - 1).to_string(),
                            false => "+Inf".to_owned(),
                        };
                        metric("_bucket", &format!(",le=\"{limit}\""), &below);
                    }
                    metric("_sum", "", &(histogram.sum.as_nanos() as f64 / 1e3));
                    metric("_count", "", &below);
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::perf_counters::{CounterInfo, Counters};

    static INFOS: [CounterInfo; 3] = [
        CounterInfo::gauge("active", "Connections"),
        CounterInfo::time_average("lat", "Waits"),
        CounterInfo::histogram("waits", "Waits by length"),
    ];

    #[test]
    fn each_kind_has_its_lines() {
        let collection = PerfCollection::default();
        let mut counters = Counters::new("throttle-a.b", &INFOS);
        collection.add(counters.source());
        counters.add(0, 3);
        counters.add_average(1, 2, Duration::from_millis(1500));
        counters.record(2, Duration::from_micros(5), 1);
        counters.record(2, Duration::from_nanos(1_000_250), 1);
        let text = render(&collection, "client.\"x\"");
        let daemon = "ceph_daemon=\"client.\\\"x\\\"\"";
        for line in [
            "# HELP ceph_throttle_a_b_active Connections".to_owned(),
            "# TYPE ceph_throttle_a_b_active gauge".to_owned(),
            format!("ceph_throttle_a_b_active{{{daemon}}} 3"),
            format!("ceph_throttle_a_b_lat_count{{{daemon}}} 2"),
            format!("ceph_throttle_a_b_lat_sum{{{daemon}}} 1.5"),
            "# TYPE ceph_throttle_a_b_waits histogram".to_owned(),
            format!("ceph_throttle_a_b_waits_bucket{{{daemon},le=\"3\"}} 0"),
            format!("ceph_throttle_a_b_waits_bucket{{{daemon},le=\"7\"}} 1"),
            format!("ceph_throttle_a_b_waits_bucket{{{daemon},le=\"+Inf\"}} 2"),
            format!("ceph_throttle_a_b_waits_sum{{{daemon}}} 1005.25"),
            format!("ceph_throttle_a_b_waits_count{{{daemon}}} 2"),
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in {text}");
        }
    }
}
