use std::fmt;

use serde::Serialize;

use crate::cpu::CpuTime;
use crate::measure::{Measurement, Workload};

/// A result for people ([`Display`](fmt::Display)) and programs (JSON).
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Network stack.
    pub stack: String,
    /// How frames are protected.
    pub mode: String,
    /// Protocol and revision.
    pub protocol: String,
    /// How frames are compressed, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// By which algorithm TCP sent, of a stack of TCP (`ms_tcp_congestion_control`, else the system's).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub congestion_control: Option<String>,
    /// What RDMA took, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdma: Option<RdmaFigures>,
    /// Data of each request in bytes.
    pub size_bytes: usize,
    /// Connections.
    pub jobs: usize,
    /// Operations in flight on each.
    pub depth: usize,
    /// Whether it was ended before its time, or before its operations were done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// What the messenger reached.
    #[serde(flatten)]
    pub figures: Figures,
    /// What plain sockets reached, if that was measured.
    #[serde(flatten)]
    pub comparison: Option<Comparison>,
}

/// What RDMA took for an operation, in the mean, of the sides that are in this process.
#[derive(Clone, Debug, Serialize)]
pub struct RdmaFigures {
    /// Work requests of sends.
    pub work_requests_per_op: f64,
    /// Completions, of sends and receives.
    pub completions_per_op: f64,
    /// Bytes that were copied into chunks to be sent.
    pub tx_copied_bytes_per_op: f64,
    /// Bytes that were copied out of chunks, as these ran short.
    pub rx_copied_bytes_per_op: f64,
}

/// How frames are compressed.
#[derive(Clone, Debug, Serialize)]
pub struct Compression {
    /// `snappy`, `zlib`, `zstd` or `lz4`.
    pub algorithm: String,
    /// What it leaves of each byte of data.
    pub ratio: f64,
}

/// The raw limit of the same run.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What plain sockets reached.
    pub raw: Figures,
    /// Median over the rounds of our rate divided by the raw one.
    pub ratio_to_raw: f64,
}

/// Figures of one side of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Operations that were answered.
    pub ops: u64,
    /// Time measured.
    pub seconds: f64,
    /// Operations that were answered, a second.
    pub ops_per_second: f64,
    /// The operations of the connection with the fewest, divided by the mean of all; with several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowest_job_share: Option<f64>,
    /// Data of the requests, a second.
    pub bytes_per_second: f64,
    /// From a request to its answer.
    pub latency_us: LatencyUs,
    /// Processor time of this process.
    pub cpu_seconds: CpuTime,
}

/// Latency in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LatencyUs {
    /// Shortest.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Half took no longer.
    pub p50: f64,
    /// 90 % took no longer.
    pub p90: f64,
    /// 99 % took no longer.
    pub p99: f64,
    /// 99.9 % took no longer.
    pub p999: f64,
    /// Longest.
    pub max: f64,
}

impl Figures {
    /// The figures of a measurement with requests of `size` bytes.
    pub fn new(measured: &Measurement, size: usize) -> Self {
        let us = |nanos: u64| nanos as f64 / 1e3;
        let latency = &measured.latency;
        let at = |quantile| us(latency.value_at_quantile(quantile));
        Self {
            ops: measured.operations,
            seconds: measured.elapsed.as_secs_f64(),
            ops_per_second: measured.rate(),
            slowest_job_share: measured.slowest_job_share(),
            bytes_per_second: measured.rate() * size as f64,
            latency_us: LatencyUs {
                min: if latency.is_empty() { 0.0 } else { us(latency.min()) },
                mean: latency.mean() / 1e3,
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: us(latency.max()),
            },
            cpu_seconds: measured.cpu,
        }
    }
}

impl Report {
    /// A report on `workload`.
    pub fn new(
        stack: String,
        protocol: String,
        mode: String,
        workload: &Workload,
        measured: &Measurement,
    ) -> Self {
        Self {
            stack,
            mode,
            protocol,
            compression: None,
            congestion_control: None,
            rdma: None,
            size_bytes: workload.size,
            jobs: workload.jobs,
            depth: workload.depth,
            interrupted: false,
            figures: Figures::new(measured, workload.size),
            comparison: None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} mode, {} stack: {} of data, {} job{}, depth {}",
            self.protocol,
            self.mode,
            self.stack,
            Bytes(self.size_bytes as f64),
            self.jobs,
            if self.jobs == 1 { "" } else { "s" },
            self.depth,
        )?;
        if let Some(Compression { algorithm, ratio }) = &self.compression {
            writeln!(f, "  compression     {algorithm}, to {:.1} % of the data", ratio * 100.0)?;
        }
        if let Some(name) = &self.congestion_control {
            let paced = if name == "bbr" { " (paces by timers, over loopback too)" } else { "" };
            writeln!(f, "  congestion      {name}{paced}")?;
        }
        if self.interrupted {
            writeln!(f, "  interrupted     these are the figures until then")?;
        }
        write!(f, "{}", self.figures)?;
        if let Some(rdma) = &self.rdma {
            writeln!(
                f,
                "  RDMA            {:.2} work requests/op, {:.2} completions/op, {:.0} bytes/op copied to send, {:.0} on receipt",
                rdma.work_requests_per_op,
                rdma.completions_per_op,
                rdma.tx_copied_bytes_per_op,
                rdma.rx_copied_bytes_per_op,
            )?;
        }
        if let Some(comparison) = &self.comparison {
            writeln!(
                f,
                "\nplain TCP sockets, the same bytes at the same depth, in turn with the above:"
            )?;
            write!(f, "{}", comparison.raw)?;
            writeln!(f, "\nratio to raw      {:.3}", comparison.ratio_to_raw)?;
        }
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_op = |seconds: f64| seconds * 1e6 / self.ops.max(1) as f64;
        let latency = &self.latency_us;
        writeln!(f, "  operations      {} in {:.2} s", self.ops, self.seconds)?;
        writeln!(f, "  rate            {:.0} op/s", self.ops_per_second)?;
        if let Some(share) = self.slowest_job_share {
            writeln!(f, "  slowest job     {:.0} % of the mean of all", share * 100.0)?;
        }
        writeln!(f, "  bandwidth       {}/s", Bytes(self.bytes_per_second))?;
        writeln!(
            f,
            "  latency (us)    min {:.1}  mean {:.1}  p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1}",
            latency.min,
            latency.mean,
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max
        )?;
        writeln!(
            f,
            "  CPU time        {:.2} us/op (user {:.2}, system {:.2})",
            per_op(self.cpu_seconds.user + self.cpu_seconds.system),
            per_op(self.cpu_seconds.user),
            per_op(self.cpu_seconds.system),
        )
    }
}

/// A number of bytes with a binary unit.
pub(crate) struct Bytes(pub(crate) f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        if value.fract() < 0.05 || unit == 0 {
            write!(f, "{value:.0} {}", UNITS[unit])
        } else {
            write!(f, "{value:.1} {}", UNITS[unit])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measure::Limit;

    #[test]
    fn the_json_has_the_documented_fields() {
        let workload =
            Workload { size: 4096, jobs: 1, depth: 32, limit: Limit::Time(Duration::from_secs(1)) };
        let mut measured = Measurement::new();
        measured.operations = 1000;
        measured.elapsed = Duration::from_millis(500);
        measured.latency.record_n(10_000, 1000).unwrap();
        let mut report =
            Report::new("posix".into(), "msgr2.1".into(), "crc".into(), &workload, &measured);
        report.comparison =
            Some(Comparison { raw: Figures::new(&measured, 4096), ratio_to_raw: 1.0 });
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["ops_per_second"], 2000.0);
        assert_eq!(json["bytes_per_second"], 8_192_000.0);
        let latency = json["latency_us"]["p50"].as_f64().unwrap();
        assert!((latency - 10.0).abs() < 0.02);
        for field in ["stack", "mode", "protocol", "size_bytes", "jobs", "depth", "ratio_to_raw"] {
            assert!(!json[field].is_null(), "{field}");
        }
        assert!(json["raw"]["cpu_seconds"]["user"].is_number());
        assert!(!json["raw"]["latency_us"]["p999"].is_null());
    }

    #[test]
    fn bytes_have_readable_units() {
        for (value, text) in
            [(64.0, "64 B"), (4096.0, "4 KiB"), (1536.0, "1.5 KiB"), (4e9, "3.7 GiB")]
        {
            assert_eq!(Bytes(value).to_string(), text);
        }
    }
}
