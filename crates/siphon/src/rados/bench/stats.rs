//! What a benchmark counts, and how `rados bench` shows it (common/obj_bencher.cc, 16.2.7).

use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// Latencies from a microsecond up are kept with three digits.
const DIGITS: u8 = 3;
/// In microseconds; what takes longer counts as this.
const HOUR: u64 = 3_600_000_000;
const MIB: f64 = (1 << 20) as f64;
pub(super) const PERCENTILES: [f64; 5] = [50.0, 90.0, 95.0, 99.0, 99.9];

/// Counts of a run.
pub(super) struct Stats {
    pub(super) op_size: u64,
    pub(super) object_size: u64,
    start: Instant,
    pub(super) started: u64,
    pub(super) finished: u64,
    last_latency: f64,
    /// In seconds.
    latency: Moments,
    /// In microseconds.
    histogram: Histogram<u64>,
    bandwidth: Moments,
    iops: Moments,
    second: u64,
    finished_before: u64,
    /// Seconds since something was finished.
    idle: u64,
}

/// Mean, spread and extremes of a series.
#[derive(Clone, Copy)]
struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
    min: f64,
    max: f64,
}

impl Moments {
    const NONE: Self = Self { count: 0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: 0.0 };

    fn add(&mut self, value: f64) {
        self.count += 1;
        let delta = value - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn stddev(&self) -> f64 {
        match self.count {
            0 | 1 => 0.0,
            count => (self.squares / (count - 1) as f64).sqrt(),
        }
    }

    fn min(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.min }
    }
}

impl Stats {
    pub(super) fn new(op_size: u64, object_size: u64) -> Self {
        Self {
            op_size,
            object_size,
            start: Instant::now(),
            started: 0,
            finished: 0,
            last_latency: 0.0,
            latency: Moments::NONE,
            histogram: Histogram::new_with_bounds(1, HOUR, DIGITS)
                .expect("three digits are allowed"),
            bandwidth: Moments::NONE,
            iops: Moments::NONE,
            second: 0,
            finished_before: 0,
            idle: 0,
        }
    }

    pub(super) fn finish(&mut self, latency: Duration) {
        self.finished += 1;
        self.last_latency = latency.as_secs_f64();
        self.latency.add(self.last_latency);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(micros.max(1));
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// How long the run had gone on then.
    pub(super) fn until(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    fn latency_mean(&self) -> f64 {
        self.latency.mean
    }

    /// The heading of the table, before every twentieth line; before it, from the second on, what was
    /// so far.
    pub(super) fn heading(&self) -> Option<(Option<String>, String)> {
        if !self.second.is_multiple_of(20) {
            return None;
        }
        let so_far = (self.second > 0).then(|| {
            format!(
                "min lat: {} max lat: {} avg lat: {}",
                General(self.latency.min()),
                General(self.latency.max),
                General(self.latency.mean)
            )
        });
        let columns =
            "  sec Cur ops   started  finished  avg MB/s  cur MB/s last lat(s)  avg lat(s)";
        Some((so_far, columns.to_owned()))
    }

    /// A second has passed: counts it, and gives its line of the table, and its object in JSON.
    pub(super) fn tick(&mut self) -> (String, Value) {
        if self.idle > 0 {
            let rate = (self.finished - self.finished_before) as f64 / self.idle as f64;
            // Whole operations in a second, as Ceph counts them.
            self.iops.add(rate.trunc());
            self.bandwidth.add(rate * self.op_size as f64 / MIB);
        }
        let elapsed = self.elapsed().as_secs_f64();
        let average = (self.op_size * self.finished) as f64 / elapsed / MIB;
        let progress = self.finished != self.finished_before;
        let current = match self.idle {
            0 => -1.0,
            idle => {
                let finished = (self.finished - self.finished_before) as f64;
                finished * self.op_size as f64 / MIB / idle as f64
            }
        };
        let (current, last) = if progress {
            (General(current).to_string(), General(self.last_latency).to_string())
        } else {
            ("0".to_owned(), "-".to_owned())
        };
        let in_flight = self.started - self.finished;
        let line = format!(
            "{:>5} {in_flight:>7} {:>9} {:>9} {:>9} {current:>9} {last:>11} {:>11}",
            self.second,
            self.started,
            self.finished,
            General(average).to_string(),
            General(self.latency_mean()).to_string(),
        );
        let number = |text: &str| text.parse::<f64>().unwrap_or(0.0);
        let object = json!({
            "sec": self.second,
            "cur_ops": in_flight,
            "started": self.started,
            "finished": self.finished,
            "avg_bw": average,
            "cur_bw": number(&current),
            "last_lat": number(&last),
            "avg_lat": self.latency_mean(),
        });
        if progress {
            self.finished_before = self.finished;
            self.idle = 0;
        }
        self.second += 1;
        self.idle += 1;
        (line, object)
    }

    /// The figures of the whole run, in Ceph's order: what each is called in text and in JSON.
    pub(super) fn summary(&self, took: Duration, write: bool) -> Summary {
        let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
        let bandwidth = (self.finished * self.op_size) as f64 / seconds / MIB;
        let rate = self.finished as f64 / seconds;
        // A run of less than two seconds has no second of its own.
        let (min_iops, max_iops) = match self.iops.count {
            0 => (rate, rate),
            _ => (self.iops.min(), self.iops.max),
        };
        let whole = |number: u64| Value::from(number);
        let real = |number: f64| Value::from(number);
        let mut rows: Vec<(&str, &str, Value)> =
            vec![("Total time run", "total_time_run", real(seconds))];
        if write {
            rows.extend([
                ("Total writes made", "total_writes_made", whole(self.finished)),
                ("Write size", "write_size", whole(self.op_size)),
                ("Object size", "object_size", whole(self.object_size)),
                ("Bandwidth (MB/sec)", "bandwidth", real(bandwidth)),
                ("Stddev Bandwidth", "stddev_bandwidth", real(self.bandwidth.stddev())),
                ("Max bandwidth (MB/sec)", "max_bandwidth", real(self.bandwidth.max)),
                ("Min bandwidth (MB/sec)", "min_bandwidth", real(self.bandwidth.min())),
            ]);
        } else {
            rows.extend([
                ("Total reads made", "total_reads_made", whole(self.finished)),
                ("Read size", "read_size", whole(self.op_size)),
                ("Object size", "object_size", whole(self.object_size)),
                ("Bandwidth (MB/sec)", "bandwidth", real(bandwidth)),
            ]);
        }
        rows.extend([
            ("Average IOPS", "average_iops", whole(rate as u64)),
            ("Stddev IOPS", "stddev_iops", real(self.iops.stddev())),
            ("Max IOPS", "max_iops", whole(max_iops as u64)),
            ("Min IOPS", "min_iops", whole(min_iops as u64)),
            ("Average Latency(s)", "average_latency", real(self.latency.mean)),
        ]);
        if write {
            rows.push(("Stddev Latency(s)", "stddev_latency", real(self.latency.stddev())));
        }
        rows.extend([
            ("Max latency(s)", "max_latency", real(self.latency.max)),
            ("Min latency(s)", "min_latency", real(self.latency.min())),
        ]);
        let width = if write { 24 } else { 22 };
        let percentile = |p: f64| self.histogram.value_at_percentile(p) as f64 / 1e6;
        let percentiles = PERCENTILES.map(|p| (p, percentile(p))).to_vec();
        Summary { rows, width, percentiles }
    }
}

/// What a run came to.
pub(super) struct Summary {
    rows: Vec<(&'static str, &'static str, Value)>,
    width: usize,
    /// Of a hundred operations so many took no longer, in seconds.
    percentiles: Vec<(f64, f64)>,
}

impl Summary {
    /// Adds the figures to a JSON object, under Ceph's names.
    pub(super) fn add_to(&self, object: &mut Map<String, Value>) {
        for (_, name, value) in &self.rows {
            object.insert((*name).to_owned(), value.clone());
        }
        let percentiles =
            self.percentiles.iter().map(|(p, latency)| (p.to_string(), json!(latency)));
        object.insert("latency_percentiles".to_owned(), Value::Object(percentiles.collect()));
    }
}

/// As `rados bench` prints it, and a line of percentiles.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.width;
        for (label, _, value) in &self.rows {
            let label = format!("{label}:");
            match value.as_u64() {
                Some(number) => writeln!(f, "{label:<width$}{number}")?,
                None => writeln!(f, "{label:<width$}{}", General(value.as_f64().unwrap_or(0.0)))?,
            }
        }
        let label = "Latency percentiles(s):";
        write!(f, "{label:<width$}")?;
        for (n, (p, latency)) in self.percentiles.iter().enumerate() {
            write!(f, "{}{p}% {}", if n == 0 { "" } else { ", " }, General(*latency))?;
        }
        f.write_str("\n")
    }
}

/// A number as C++ prints it by default: six digits, without zeros at the end.
pub(super) struct General(pub(super) f64);

impl fmt::Display for General {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_finite() {
            return f.pad(if self.0.is_nan() { "nan" } else { "inf" });
        }
        let scientific = format!("{:.5e}", self.0);
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let strip = |text: &str| match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text.to_owned(),
        };
        if (-4..6).contains(&exponent) {
            let places = usize::try_from(5 - exponent).unwrap_or(0);
            return f.pad(&strip(&format!("{:.places$}", self.0)));
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        f.pad(&format!("{}e{sign}{:02}", strip(mantissa), exponent.abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_by_cpp() {
        for (number, text) in [
            (0.0, "0"),
            (-1.0, "-1"),
            (10.012_345, "10.0123"),
            (0.000_123_456_7, "0.000123457"),
            (0.000_012_3, "1.23e-05"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.23457e+06"),
            (999_999.9, "1e+06"),
            (5.5, "5.5"),
        ] {
            assert_eq!(General(number).to_string(), text);
        }
        assert_eq!(format!("{:>5}|", General(1.5)), "  1.5|");
    }

    #[test]
    fn a_run_is_summed_up() {
        let mut stats = Stats::new(4096, 4096);
        stats.started = 4;
        let (line, _) = stats.tick();
        assert!(
            line.starts_with("    0       4         4         0         0         0           - "),
            "{line}"
        );
        for millis in [1, 2, 3] {
            stats.finish(Duration::from_millis(millis));
        }
        let (line, object) = stats.tick();
        assert!(line.starts_with("    1       1         4         3 "), "{line}");
        assert!(line.ends_with("0.0117188       0.003       0.002"), "{line}");
        assert_eq!(object["cur_ops"], 1);
        let summary = stats.summary(Duration::from_secs(2), true);
        let mut json = Map::new();
        summary.add_to(&mut json);
        assert_eq!((&json["total_writes_made"], &json["max_iops"]), (&json!(3), &json!(3)));
        assert_eq!(json["stddev_latency"], json!(0.001));
        let text = summary.to_string();
        assert!(text.contains("Total writes made:      3\n"), "{text}");
        assert!(text.contains("Average Latency(s):     0.002\n"), "{text}");
        let p99 = json["latency_percentiles"]["99"].as_f64().unwrap();
        assert!((0.002_999..0.003_01).contains(&p99), "{p99}");
    }
}
