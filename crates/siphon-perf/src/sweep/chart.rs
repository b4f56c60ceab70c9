//! Charts as SVG.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use super::units::{bytes, digits, short, time};
use super::{Cell, Side, Stat};

/// What stands on the horizontal axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Size,
    Depth,
    Jobs,
}

impl Axis {
    pub(super) const ALL: [Self; 3] = [Self::Size, Self::Depth, Self::Jobs];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Depth => "depth",
            Self::Jobs => "jobs",
        }
    }

    /// What it is called below a chart.
    fn title(self) -> &'static str {
        match self {
            Self::Size => "data of a message",
            Self::Depth => "operations in flight on each connection",
            Self::Jobs => "connections",
        }
    }

    pub(super) fn of(self, cell: &Cell) -> usize {
        match self {
            Self::Size => cell.size_bytes,
            Self::Depth => cell.depth,
            Self::Jobs => cell.jobs,
        }
    }

    pub(super) fn label(self, value: usize) -> String {
        match self {
            Self::Size => bytes(value as f64),
            Self::Depth | Self::Jobs => value.to_string(),
        }
    }

    /// By what lines have their colours: depths, and sizes where depths are the axis.
    pub(super) fn coloured(self) -> Self {
        if self == Self::Depth { Self::Size } else { Self::Depth }
    }

    /// All values of the cells, in order.
    pub(super) fn values(self, cells: &[Cell]) -> Vec<usize> {
        let all: BTreeSet<usize> = cells.iter().map(|cell| self.of(cell)).collect();
        all.into_iter().collect()
    }
}

/// What a chart shows.
pub(super) struct Metric {
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    rise: Rise,
    value: Value,
    format: fn(f64) -> String,
}

type StatOf = fn(&Side) -> Stat;

/// The vertical axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rise {
    /// From 0 on.
    Linear,
    /// By powers of ten.
    Ten,
    /// By powers of two, for bytes.
    Two,
}

enum Value {
    Always(StatOf),
    OfSide(fn(&Side) -> Option<Stat>),
    /// There is a value of the two together only, and a line at 1.
    Ratio,
}

impl Metric {
    pub(super) const ALL: [Self; 9] = [
        Self::log(
            "Rate",
            "operations a second; more is better",
            |it| it.ops_per_second,
            |it| format!("{}/s", short(it)),
        ),
        Self {
            title: "Bandwidth",
            note: "data of the requests a second; more is better",
            rise: Rise::Two,
            value: Value::Always(|it| it.bytes_per_second),
            format: |it| format!("{}/s", bytes(it)),
        },
        Self {
            title: "Ratio to the raw limit",
            note: "our rate to that of plain TCP sockets in the same round; more is better",
            rise: Rise::Linear,
            value: Value::Ratio,
            format: |it| format!("{it:.2}"),
        },
        Self::log(
            "Latency: median",
            "half of the operations took no longer; less is better",
            |it| it.latency_us.p50,
            time,
        ),
        Self::log(
            "Latency: 90 %",
            "nine of ten took no longer; less is better",
            |it| it.latency_us.p90,
            time,
        ),
        Self::log("Latency: 99 %", "less is better", |it| it.latency_us.p99, time),
        Self::log("Latency: 99.9 %", "less is better", |it| it.latency_us.p999, time),
        Self::log(
            "Processor time",
            "of client and server, for each operation; less is better",
            |it| it.cpu_us_per_op,
            time,
        ),
        Self {
            title: "System calls",
            note: "of client and server, for each operation; less is better",
            rise: Rise::Ten,
            value: Value::OfSide(|it| it.syscalls_per_op.map(|count| Stat::new([count]))),
            format: digits,
        },
    ];

    const fn log(
        title: &'static str,
        note: &'static str,
        value: StatOf,
        format: fn(f64) -> String,
    ) -> Self {
        Self { title, note, rise: Rise::Ten, value: Value::Always(value), format }
    }

    fn ours(&self, cell: &Cell) -> Option<Stat> {
        match self.value {
            Value::Always(of) => Some(of(&cell.ours)),
            Value::OfSide(of) => of(&cell.ours),
            Value::Ratio => Some(cell.ratio_to_raw),
        }
    }

    fn raw(&self, cell: &Cell) -> Option<Stat> {
        match self.value {
            Value::Always(of) => Some(of(&cell.raw)),
            Value::OfSide(of) => of(&cell.raw),
            Value::Ratio => None,
        }
    }

    pub(super) fn is_known(&self, cells: &[Cell]) -> bool {
        cells.iter().any(|cell| self.ours(cell).is_some())
    }
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// From what to what the vertical axis goes.
struct Scale {
    rise: Rise,
    min: f64,
    max: f64,
}

impl Scale {
    fn of(metric: &Metric, cells: &[Cell]) -> Self {
        let all = cells.iter().flat_map(|cell| [metric.ours(cell), metric.raw(cell)]).flatten();
        // Medians only: a single round that stood still would else press all others flat.
        let (min, max) = all
            .map(|stat| stat.median)
            .filter(|value| *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(min, max), value| (min.min(value), max.max(value)));
        if metric.rise == Rise::Linear {
            return Self { rise: metric.rise, min: 0.0, max: max.max(1.0) * 1.12 };
        }
        let (min, max) = if max > 0.0 { (min, max) } else { (1.0, 10.0) };
        Self { rise: metric.rise, min: min / 1.5, max: max * 1.5 }
    }

    /// What is beyond the axis is at its end.
    fn y(&self, value: f64) -> f64 {
        let value = value.clamp(self.min, self.max);
        let at = match self.rise {
            Rise::Linear => (value - self.min) / (self.max - self.min),
            Rise::Ten | Rise::Two => (value / self.min).ln() / (self.max / self.min).ln(),
        };
        HEIGHT - BOTTOM - at * (HEIGHT - TOP - BOTTOM)
    }

    /// Where lines are drawn, as many as are easy to read.
    fn ticks(&self) -> Vec<f64> {
        if self.rise == Rise::Linear {
            let step = [0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0];
            let step = step.into_iter().find(|step| self.max / step <= 7.0).unwrap_or(self.max);
            return (0..).map(|n| f64::from(n) * step).take_while(|at| *at <= self.max).collect();
        }
        if self.rise == Rise::Two {
            let (from, to) = (self.min.log2().ceil() as i32, self.max.log2().floor() as i32);
            // 1, 4, 32 and so on of each unit fall on whole powers.
            let step = [1, 2, 5, 10].into_iter().find(|step| (to - from) / step < 7).unwrap_or(20);
            let is_tick = |power: &i32| power % step == 0;
            return (from..=to).filter(is_tick).map(|power| 2_f64.powi(power)).collect();
        }
        let decades = (self.max / self.min).log10();
        let steps: &[f64] = match decades {
            few if few < 1.8 => &[1.0, 2.0, 5.0],
            some if some < 3.2 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let (from, to) = (self.min.log10().floor() as i32, self.max.log10().ceil() as i32);
        (from..=to)
            .flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)))
            .filter(|at| (self.min..=self.max).contains(at))
            .collect()
    }
}

/// A number without zeros at its end: `1.00M/s` is `1M/s`.
fn without_zeros(text: &str) -> String {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.').to_owned() + unit,
        false => text.to_owned(),
    }
}

/// Writes one chart.
pub(super) fn draw(out: &mut String, metric: &Metric, axis: Axis, cells: &[Cell]) -> fmt::Result {
    let scale = Scale::of(metric, cells);
    let places = axis.values(cells);
    write!(
        out,
        "<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{} by {}'>",
        metric.title,
        axis.title()
    )?;
    for tick in scale.ticks() {
        let y = scale.y(tick);
        let one = metric.rise == Rise::Linear && (tick - 1.0).abs() < 1e-9;
        let class = if one { "grid one" } else { "grid" };
        write!(out, "<path class='{class}' d='M{LEFT} {y:.1}H{}'/>", WIDTH - RIGHT)?;
        let text = without_zeros(&(metric.format)(tick));
        write!(out, "<text class='y' x='{}' y='{:.1}'>{text}</text>", LEFT - 8.0, y + 4.0)?;
    }
    for (index, place) in places.iter().enumerate() {
        let (x, y) = (x(index, places.len()), HEIGHT - BOTTOM + 18.0);
        write!(out, "<text class='x' x='{x:.1}' y='{y}'>{}</text>", axis.label(*place))?;
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    write!(out, "<text class='x what' x='{middle}' y='{}'>{}</text>", HEIGHT - 6.0, axis.title())?;
    let mut drawn: Vec<&Cell> = Vec::new();
    for first in cells {
        if drawn.iter().any(|other| same_line(axis, other, first)) {
            continue;
        }
        drawn.push(first);
        let mut line: Vec<&Cell> =
            cells.iter().filter(|cell| same_line(axis, cell, first)).collect();
        line.sort_by_key(|cell| axis.of(cell));
        draw_line(out, metric, axis, cells, &line, &scale)?;
    }
    out.write_str("</svg>")
}

fn x(index: usize, count: usize) -> f64 {
    let inset = 26.0;
    let width = WIDTH - LEFT - RIGHT - 2.0 * inset;
    match count {
        1 => LEFT + inset + width / 2.0,
        _ => LEFT + inset + width * index as f64 / (count - 1) as f64,
    }
}

fn same_line(axis: Axis, a: &Cell, b: &Cell) -> bool {
    let others = Axis::ALL.into_iter().filter(|other| *other != axis);
    a.stack == b.stack && a.mode == b.mode && others.into_iter().all(|it| it.of(a) == it.of(b))
}

/// The place of a value among all of them, which is its colour or shape.
fn place<T: PartialEq>(all: impl Iterator<Item = T>, value: &T) -> usize {
    let mut seen: Vec<T> = Vec::new();
    for other in all {
        if other == *value {
            break;
        }
        if !seen.contains(&other) {
            seen.push(other);
        }
    }
    seen.len()
}

/// The attributes by which the page's script shows and hides what belongs to a cell.
pub(super) fn attributes(cell: &Cell, without: Option<Axis>) -> String {
    let mut text = format!("data-stack='{}' data-mode='{}'", cell.stack, cell.mode);
    for axis in Axis::ALL {
        if Some(axis) != without {
            let _ = write!(text, " data-{}='{}'", axis.name(), axis.of(cell)); // into a string
        }
    }
    text
}

fn draw_line(
    out: &mut String,
    metric: &Metric,
    axis: Axis,
    cells: &[Cell],
    line: &[&Cell],
    scale: &Scale,
) -> fmt::Result {
    let Some(first) = line.first() else { return Ok(()) };
    let colours = axis.coloured();
    let colour = colours.values(cells).iter().position(|it| *it == colours.of(first)).unwrap_or(0);
    let hollow = place(cells.iter().map(|cell| &cell.mode), &&first.mode) > 0;
    let shape = place(cells.iter().map(|cell| &cell.stack), &&first.stack);
    let class = if hollow { "s hollow" } else { "s" };
    write!(
        out,
        "<g class='{class}' {} style='--c:var(--c{})'>",
        attributes(first, Some(axis)),
        colour % 8
    )?;
    let places = axis.values(cells);
    let at = |cell: &Cell| {
        x(places.iter().position(|it| *it == axis.of(cell)).unwrap_or(0), places.len())
    };
    let path = |of: &dyn Fn(&Cell) -> Option<Stat>| {
        let points = line.iter().filter_map(|cell| Some((at(cell), scale.y(of(cell)?.median))));
        let points = points.map(|(x, y)| format!("{x:.1} {y:.1}")).collect::<Vec<_>>();
        if points.is_empty() { String::new() } else { format!("M{}", points.join("L")) }
    };
    let raw = path(&|cell| metric.raw(cell));
    if !raw.is_empty() {
        write!(out, "<g class='raw'><path d='{raw}'/>")?;
        for cell in line {
            if let Some(stat) = metric.raw(cell) {
                let (x, y) = (at(cell), scale.y(stat.median));
                let tip = tip(metric, cell, "plain TCP", &stat);
                write!(out, "<circle class='dot' cx='{x:.1}' cy='{y:.1}' r='1.8'/>")?;
                write!(
                    out,
                    "<circle class='hit' cx='{x:.1}' cy='{y:.1}' r='9'><title>{tip}</title></circle>"
                )?;
            }
        }
        out.write_str("</g>")?;
    }
    write!(out, "<path class='ours' d='{}'/>", path(&|cell| metric.ours(cell)))?;
    for cell in line {
        if let Some(stat) = metric.ours(cell) {
            let (x, y) = (at(cell), scale.y(stat.median));
            let (low, high) = (scale.y(stat.min), scale.y(stat.max));
            write!(out, "<path class='range' d='M{x:.1} {low:.1}V{high:.1}'/>")?;
            write!(out, "<path class='mark' d='{}'/>", mark(shape, x, y))?;
            let tip = tip(metric, cell, "Siphon", &stat);
            write!(
                out,
                "<circle class='hit' cx='{x:.1}' cy='{y:.1}' r='9'><title>{tip}</title></circle>"
            )?;
        }
    }
    out.write_str("</g>")
}

fn tip(metric: &Metric, cell: &Cell, who: &str, stat: &Stat) -> String {
    let format = metric.format;
    let range = match stat.min < stat.max {
        true => format!(" ({} to {})", format(stat.min), format(stat.max)),
        false => String::new(),
    };
    format!("{who}: {}{range}&#10;{}", format(stat.median), describe(cell))
}

/// A cell in words.
pub(super) fn describe(cell: &Cell) -> String {
    let jobs = match cell.jobs {
        1 => String::new(),
        jobs => format!(", {jobs} jobs"),
    };
    let size = bytes(cell.size_bytes as f64);
    format!("{size}, depth {}{jobs}, {}, {}", cell.depth, cell.stack, cell.mode)
}

/// The mark of the stack with this number: a disc, a square, a triangle, a diamond.
fn mark(shape: usize, x: f64, y: f64) -> String {
    match shape % 4 {
        0 => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", x - 4.0),
        1 => format!("M{:.1} {:.1}h7v7h-7z", x - 3.5, y - 3.5),
        2 => format!("M{x:.1} {:.1}l4.5 8h-9z", y - 5.0),
        _ => format!("M{x:.1} {:.1}l5 5l-5 5l-5 -5z", y - 5.0),
    }
}

/// The mark of a stack for a legend.
pub(super) fn mark_icon(shape: usize) -> String {
    format!("<svg class='icon' viewBox='0 0 12 12'><path d='{}'/></svg>", mark(shape, 6.0, 6.0))
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn every_cell_has_a_point_in_every_chart_that_knows_it() {
        let cells = example().cells;
        for metric in Metric::ALL {
            for axis in Axis::ALL {
                let mut svg = String::new();
                draw(&mut svg, &metric, axis, &cells).unwrap();
                let known = cells.iter().filter(|cell| metric.ours(cell).is_some()).count();
                let marks = svg.matches("class='mark'").count();
                assert_eq!(marks, known, "{} by {axis:?}", metric.title);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", metric.title);
            }
        }
    }

    #[test]
    fn an_axis_has_enough_lines_to_read_it_by_and_not_too_many() {
        for rise in [Rise::Ten, Rise::Two] {
            for (min, max) in [(1.0, 1.1), (3.0, 900.0), (1e-3, 1e6), (400.0, 1.2e6), (64.0, 4e9)] {
                let ticks = Scale { rise, min: min / 1.5, max: max * 1.5 }.ticks();
                assert!((1..=10).contains(&ticks.len()), "{min} to {max}: {ticks:?}");
            }
        }
        let linear = Scale { rise: Rise::Linear, min: 0.0, max: 1.3 }.ticks();
        assert_eq!(linear.len(), 7, "{linear:?}");
        for (text, short) in
            [("1.00M/s", "1M/s"), ("10.0k", "10k"), ("100 µs", "100 µs"), ("0.50", "0.5")]
        {
            assert_eq!(without_zeros(text), short);
        }
    }
}
