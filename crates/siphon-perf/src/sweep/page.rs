//! One HTML page that needs nothing but itself.

use std::fmt::{self, Write as _};

use super::chart::{self, Axis, Metric, describe};
use super::units::{bytes, digits, short, time};
use super::{Cell, Stat, Sweep};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

impl Sweep {
    /// A page with charts, a table of all figures, and what was measured where. It loads nothing, and
    /// shows everything without its script, which chooses among lines.
    pub fn html(&self) -> String {
        let mut page = String::new();
        self.write_page(&mut page).expect("a string takes all that is written");
        page
    }

    fn write_page(&self, out: &mut String) -> fmt::Result {
        write!(
            out,
            "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>\
             <meta name='viewport' content='width=device-width,initial-scale=1'>\
             <title>siphon perf sweep, {date}</title>\n<style>{STYLE}</style></head><body><main>\
             <h1>Siphon against plain TCP</h1>\
             <p class='soft'>{cpu} · {processors} processors · {kernel} · TCP by {tcp} · {date}</p>",
            date = escaped(&self.date),
            cpu = escaped(&self.machine.cpu),
            processors = self.machine.processors,
            kernel = escaped(&self.machine.kernel),
            tcp = escaped(&self.machine.congestion_control),
        )?;
        if self.incomplete {
            out.write_str(
                "<p class='warn'>The sweep was ended before all cells were measured.</p>",
            )?;
        }
        if self.cells.is_empty() {
            out.write_str("<p class='warn'>Nothing was measured.</p>")?;
        } else {
            self.write_cards(out)?;
            self.write_bar(out)?;
            for axis in self.axes() {
                self.write_charts(out, axis)?;
            }
            self.write_rows(out)?;
        }
        self.write_about(out)?;
        write!(out, "</main>\n<script>{SCRIPT}</script></body></html>\n")
    }

    /// Those with more than one value; sizes in any case.
    fn axes(&self) -> Vec<Axis> {
        let several = |axis: &Axis| axis.values(&self.cells).len() > 1;
        let axes: Vec<Axis> = Axis::ALL.into_iter().filter(several).collect();
        if axes.is_empty() { vec![Axis::Size] } else { axes }
    }

    fn write_cards(&self, out: &mut String) -> fmt::Result {
        let most = |of: fn(&Cell) -> f64| self.cells.iter().max_by(|a, b| of(a).total_cmp(&of(b)));
        let cards = [
            ("highest rate", most(|it| it.ours.ops_per_second.median), rate as fn(&Cell) -> String),
            ("highest bandwidth", most(|it| it.ours.bytes_per_second.median), |it| {
                format!("{}/s", bytes(it.ours.bytes_per_second.median))
            }),
            ("lowest median latency", most(|it| -it.ours.latency_us.p50.median), |it| {
                time(it.ours.latency_us.p50.median)
            }),
            (
                "least processor time of an operation",
                most(|it| -it.ours.cpu_us_per_op.median),
                |it| time(it.ours.cpu_us_per_op.median),
            ),
        ];
        out.write_str("<div class='cards'>")?;
        for (title, cell, value) in cards {
            let Some(cell) = cell else { continue };
            card(out, title, &value(cell), &describe(cell))?;
        }
        let ratios = Stat::new(self.cells.iter().map(|cell| cell.ratio_to_raw.median));
        let range =
            format!("the cell in the middle; {:.2} to {:.2} over all", ratios.min, ratios.max);
        card(out, "of the raw limit's rate", &format!("{:.0} %", ratios.median * 100.0), &range)?;
        out.write_str("</div>")
    }

    /// What chooses among lines. Shown by the script, without which it does nothing.
    fn write_bar(&self, out: &mut String) -> fmt::Result {
        out.write_str("<form class='bar' hidden>")?;
        let axes = self.axes();
        if axes.len() > 1 {
            out.write_str("<fieldset><legend>across</legend>")?;
            for (index, axis) in axes.iter().enumerate() {
                let checked = if index == 0 { " checked" } else { "" };
                let name = axis.name();
                write!(
                    out,
                    "<label><input type='radio' name='axis' value='{name}'{checked}>{name}</label>"
                )?;
            }
            out.write_str("</fieldset>")?;
        }
        let (mut stacks, mut modes) = (Vec::new(), Vec::new());
        for cell in &self.cells {
            for (seen, name) in [(&mut stacks, &cell.stack), (&mut modes, &cell.mode)] {
                if !seen.contains(name) {
                    seen.push(name.clone());
                }
            }
        }
        let icons =
            |(index, name): (usize, &String)| (name.clone(), chart::mark_icon(index) + name);
        choices(out, "stack", stacks.iter().enumerate().map(icons).collect(), stacks.len())?;
        choices(out, "mode", modes.iter().map(|name| (name.clone(), name.clone())).collect(), 1)?;
        for axis in [Axis::Depth, Axis::Size, Axis::Jobs] {
            let values = axis.values(&self.cells);
            let shown = if axis == Axis::Jobs { 1 } else { values.len() };
            let name = axis.name();
            let label = |(index, value): (usize, &usize)| {
                let dot = format!("<i data-colour='{name}' style='--c:var(--c{})'></i>", index % 8);
                (value.to_string(), dot + &axis.label(*value))
            };
            choices(out, name, values.iter().enumerate().map(label).collect(), shown)?;
        }
        out.write_str(
            "<fieldset><label><input type='checkbox' name='raw' checked><i class='dots'></i>\
             plain TCP, in turn with each</label></fieldset></form>",
        )
    }

    fn write_charts(&self, out: &mut String, axis: Axis) -> fmt::Result {
        let (name, coloured) = (axis.name(), axis.coloured().name());
        write!(out, "<div class='charts' data-axis='{name}' data-coloured='{coloured}'>")?;
        for metric in Metric::ALL.iter().filter(|metric| metric.is_known(&self.cells)) {
            write!(
                out,
                "<figure><figcaption><h3>{}</h3>{}</figcaption>",
                metric.title, metric.note
            )?;
            chart::draw(out, metric, axis, &self.cells)?;
            out.write_str("</figure>")?;
        }
        out.write_str("</div>\n")
    }

    fn write_rows(&self, out: &mut String) -> fmt::Result {
        out.write_str("<h2>All figures</h2><div class='scroll'><table><thead><tr>")?;
        for (title, unit) in COLUMNS {
            write!(out, "<th>{title} <br><small>{unit}</small></th>")?;
        }
        out.write_str("</tr></thead><tbody>")?;
        for cell in &self.cells {
            write!(
                out,
                "<tr class='s' {}><td>{}<td>{}<td>{}<td>{}<td>{}",
                chart::attributes(cell, None),
                escaped(&cell.stack),
                escaped(&cell.mode),
                bytes(cell.size_bytes as f64),
                cell.depth,
                cell.jobs
            )?;
            let Cell { ours, raw, ratio_to_raw, .. } = cell;
            let ranged = [
                (ours.ops_per_second, short as fn(f64) -> String),
                (raw.ops_per_second, short),
                (*ratio_to_raw, digits),
                (ours.bytes_per_second, mib),
                (ours.latency_us.p50, digits),
                (raw.latency_us.p50, digits),
                (ours.latency_us.p90, digits),
                (ours.latency_us.p99, digits),
                (ours.latency_us.p999, digits),
                (ours.cpu_us_per_op, digits),
                (raw.cpu_us_per_op, digits),
            ];
            for (stat, format) in ranged {
                let (min, max) = (format(stat.min), format(stat.max));
                write!(out, "<td>{}<small>{min}–{max}</small>", format(stat.median))?;
            }
            for count in [ours.syscalls_per_op, raw.syscalls_per_op] {
                write!(out, "<td>{}", count.map_or_else(|| "–".to_owned(), digits))?;
            }
            out.write_str("</tr>\n")?;
        }
        out.write_str("</tbody></table></div>")
    }

    fn write_about(&self, out: &mut String) -> fmt::Result {
        let s = if self.rounds == 1 { "" } else { "s" };
        write!(
            out,
            "<h2>How it was measured</h2><dl>\
             <dt>Program</dt><dd>siphon {}, server and client in one process</dd>\
             <dt>Command</dt><dd><code>{}</code></dd>\
             <dt>Machine</dt><dd>{}, {} processors, {}, TCP congestion control {}</dd>\
             <dt>Raw limit</dt><dd>plain TCP sockets over loopback: the same bytes, headers included, at \
             the same depth, without any protocol</dd>\
             <dt>Rounds</dt><dd>{} round{s} in each cell, messenger and raw limit in turn, the first of a round \
             in alternation; {} s of each side and cell. Figures are medians over the rounds, with the \
             least and the most</dd>\
             <dt>Latency</dt><dd>from handing a request to the messenger to having its answer</dd>\
             <dt>Processor time</dt><dd>of the whole process, both sides</dd>\
             <dt>System calls</dt><dd>{}</dd>",
            escaped(&self.version),
            escaped(&self.command),
            escaped(&self.machine.cpu),
            self.machine.processors,
            escaped(&self.machine.kernel),
            escaped(&self.machine.congestion_control),
            self.rounds,
            self.seconds,
            escaped(&self.syscalls),
        )?;
        for reason in &self.left_out {
            write!(out, "<dt>Left out</dt><dd>{}</dd>", escaped(reason))?;
        }
        out.write_str("</dl>")
    }
}

/// Titles of the table, with their units.
const COLUMNS: [(&str, &str); 18] = [
    ("stack", ""),
    ("mode", ""),
    ("size", "bytes"),
    ("depth", "in flight"),
    ("jobs", "connections"),
    ("rate", "op/s"),
    ("raw rate", "op/s"),
    ("ratio", "to raw"),
    ("bandwidth", "MiB/s"),
    ("p50", "µs"),
    ("raw p50", "µs"),
    ("p90", "µs"),
    ("p99", "µs"),
    ("p99.9", "µs"),
    ("CPU", "µs/op"),
    ("raw CPU", "µs/op"),
    ("syscalls", "/op"),
    ("raw syscalls", "/op"),
];

fn rate(cell: &Cell) -> String {
    format!("{} op/s", short(cell.ours.ops_per_second.median))
}

fn mib(bytes: f64) -> String {
    digits(bytes / f64::from(1 << 20))
}

fn card(out: &mut String, title: &str, value: &str, where_: &str) -> fmt::Result {
    write!(
        out,
        "<div class='card'><b>{value}</b><span>{title}</span><span>{}</span></div>",
        escaped(where_)
    )
}

/// A group of choices, of which the first `shown` are made. None where there is nothing to choose.
fn choices(out: &mut String, of: &str, values: Vec<(String, String)>, shown: usize) -> fmt::Result {
    if values.len() < 2 {
        return Ok(());
    }
    write!(out, "<fieldset data-of='{of}'><legend>{of}</legend>")?;
    for (index, (value, label)) in values.iter().enumerate() {
        let checked = if index < shown { " checked" } else { "" };
        write!(
            out,
            "<label><input type='checkbox' data-of='{of}' value='{value}'{checked}>{label}</label>"
        )?;
    }
    out.write_str("</fieldset>")
}

/// Text as it stands in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let page = example().html();
        for external in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(external), "{external}");
        }
        assert!(page.contains("siphon perf sweep --sizes &#39;64,&lt;4K&gt;&#39;"));
        assert!(page.contains("A &amp; B"));
        assert_eq!(page.matches("<tr class='s'").count(), 12);
        assert_eq!(page.matches("<svg viewBox='0 0 560").count(), 2 * 9, "by size and by depth");
    }

    #[test]
    fn a_sweep_without_cells_says_so() {
        let mut sweep = example();
        (sweep.cells, sweep.incomplete) = (Vec::new(), true);
        let page = sweep.html();
        assert!(page.contains("Nothing was measured"));
    }
}
