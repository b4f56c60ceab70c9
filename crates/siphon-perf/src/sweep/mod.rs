//! The result of a sweep: many workloads, each measured in turn with the raw limit.
//!
//! It is printed as a table ([`Sweep::table`]), as one HTML page ([`Sweep::html`]), and serialized.

mod chart;
mod page;
mod table;
mod units;

use serde::Serialize;

use crate::report::Figures;

/// All that one sweep measured, and where.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// Version of the program that measured.
    pub version: String,
    /// When it began, in UTC.
    pub date: String,
    /// The command line that repeats it.
    pub command: String,
    /// Where.
    pub machine: Machine,
    /// Turns of the messenger and of plain sockets in each cell.
    pub rounds: u32,
    /// Seconds of each side of a cell, all rounds together.
    pub seconds: f64,
    /// How system calls were counted, or why they were not.
    pub syscalls: String,
    /// It was interrupted, or its time was over, before all cells were measured.
    pub incomplete: bool,
    /// What was not measured, and why.
    pub left_out: Vec<String>,
    /// What was measured.
    pub cells: Vec<Cell>,
}

/// The machine, as far as figures depend on it.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Processors that the process may use.
    pub processors: usize,
    /// The kernel's release.
    pub kernel: String,
    /// By which algorithm TCP sends, of the messenger and of plain sockets alike.
    pub congestion_control: String,
}

/// One workload.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Network stack.
    pub stack: String,
    /// How frames are protected: `crc` or `secure`.
    pub mode: String,
    /// Data of each request in bytes.
    pub size_bytes: usize,
    /// Connections.
    pub jobs: usize,
    /// Operations in flight on each.
    pub depth: usize,
    /// Rounds that were measured; fewer than [`Sweep::rounds`] in a cell that was interrupted.
    pub rounds: usize,
    /// What the messenger reached.
    pub ours: Side,
    /// What plain TCP sockets reached in turn with it.
    pub raw: Side,
    /// Our rate over theirs of the same round.
    pub ratio_to_raw: Stat,
}

/// One side of a cell.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// Operations that were answered, in all rounds.
    pub ops: u64,
    /// Operations that were answered, a second.
    pub ops_per_second: Stat,
    /// Data of the requests in bytes, a second.
    pub bytes_per_second: Stat,
    /// From a request to its answer.
    pub latency_us: Percentiles,
    /// Processor time of client and server, in microseconds an operation.
    pub cpu_us_per_op: Stat,
    /// System calls of client and server, an operation; `None` where they cannot be counted.
    pub syscalls_per_op: Option<f64>,
}

/// Percentiles of the latency in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// Half took no longer.
    pub p50: Stat,
    /// 90 % took no longer.
    pub p90: Stat,
    /// 99 % took no longer.
    pub p99: Stat,
    /// 99.9 % took no longer.
    pub p999: Stat,
}

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stat {
    /// The middle one, or what is between the middle two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Stat {
    /// Of these values; zeros if there are none.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self::default();
        };
        let median = values[(values.len() - 1) / 2].midpoint(values[values.len() / 2]);
        Self { median, min, max }
    }
}

impl Side {
    /// Of the rounds of one side.
    pub fn new(rounds: &[Figures], syscalls_per_op: Option<f64>) -> Self {
        let of = |value: fn(&Figures) -> f64| Stat::new(rounds.iter().map(value));
        Self {
            ops: rounds.iter().map(|round| round.ops).sum(),
            ops_per_second: of(|it| it.ops_per_second),
            bytes_per_second: of(|it| it.bytes_per_second),
            latency_us: Percentiles {
                p50: of(|it| it.latency_us.p50),
                p90: of(|it| it.latency_us.p90),
                p99: of(|it| it.latency_us.p99),
                p999: of(|it| it.latency_us.p999),
            },
            cpu_us_per_op: of(|it| {
                it.cpu_seconds.total().as_secs_f64() * 1e6 / it.ops.max(1) as f64
            }),
            syscalls_per_op,
        }
    }
}

impl Sweep {
    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("names are strings and numbers are numbers")
    }
}

impl Machine {
    /// This machine, where TCP sends by `congestion_control`.
    pub fn this(congestion_control: String) -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: model.map_or("unknown processor", |(_, name)| name.trim()).to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: format!("Linux {}", kernel.trim()),
            congestion_control,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn side(rate: f64, size: usize, syscalls: Option<f64>) -> Side {
        let near = |value: f64| Stat::new([value * 0.9, value, value * 1.25]);
        Side {
            ops: 1000,
            ops_per_second: near(rate),
            bytes_per_second: near(rate * size as f64),
            latency_us: Percentiles {
                p50: near(32e6 / rate),
                p90: near(40e6 / rate),
                p99: near(90e6 / rate),
                p999: near(400e6 / rate),
            },
            cpu_us_per_op: near(2e6 / rate),
            syscalls_per_op: syscalls,
        }
    }

    /// A sweep of two stacks, with every kind of gap.
    pub(crate) fn example() -> Sweep {
        let mut cells = Vec::new();
        for (stack, syscalls) in [("posix", Some(0.25)), ("other", None)] {
            for (size_bytes, rate) in [(64, 600_000.0), (4096, 400_000.0), (4 << 20, 1200.0)] {
                for depth in [1, 32] {
                    cells.push(Cell {
                        stack: stack.into(),
                        mode: "crc".into(),
                        size_bytes,
                        jobs: 1,
                        depth,
                        rounds: 3,
                        ours: side(rate, size_bytes, syscalls),
                        raw: side(rate * 1.3, size_bytes, syscalls),
                        ratio_to_raw: Stat { median: 0.77, min: 0.6, max: 0.81 },
                    });
                }
            }
        }
        Sweep {
            version: "0.1.0".into(),
            date: "2026-01-02T03:04:05Z".into(),
            command: "siphon perf sweep --sizes '64,<4K>'".into(),
            machine: Machine {
                cpu: "A & B".into(),
                processors: 2,
                kernel: "Linux 6.1".into(),
                congestion_control: "cubic".into(),
            },
            rounds: 3,
            seconds: 1.5,
            syscalls: SYSCALLS.into(),
            incomplete: false,
            left_out: vec!["4 MiB at depth 128: too much".into()],
            cells,
        }
    }

    const SYSCALLS: &str = "by nobody";

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(Stat::new([3.0, 1.0, 2.0]), Stat { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Stat::new([4.0, 1.0, 3.0, 2.0]).median, 2.5);
        assert_eq!(Stat::new([]), Stat::default());
    }

    #[test]
    fn the_json_has_what_the_page_has() {
        let json = example().json();
        let cell = &json["cells"][0];
        assert_eq!(cell["ours"]["latency_us"]["p999"]["max"], 400e6 / 600_000.0 * 1.25);
        assert_eq!(cell["ours"]["syscalls_per_op"], 0.25);
        assert!(json["cells"][6]["raw"]["syscalls_per_op"].is_null());
        assert_eq!(cell["ratio_to_raw"]["min"], 0.6);
        assert_eq!(json["machine"]["processors"], 2);
    }
}
