//! The table on a terminal of 80 columns.

use std::fmt::{self, Write as _};

use super::units::{bytes, digits, short, time};
use super::{Cell, Sweep};

impl Sweep {
    /// A table of all cells, no wider than 80 columns.
    pub fn table(&self) -> String {
        let mut text = String::new();
        self.write_table(&mut text).expect("a string takes all that is written");
        text
    }

    fn write_table(&self, out: &mut String) -> fmt::Result {
        writeln!(
            out,
            "{}, {} processor{}, {}, TCP congestion control {}",
            self.machine.cpu,
            self.machine.processors,
            if self.machine.processors == 1 { "" } else { "s" },
            self.machine.kernel,
            self.machine.congestion_control
        )?;
        let mut before = None;
        for cell in &self.cells {
            let group = (&cell.stack, &cell.mode, cell.jobs);
            if before != Some(group) {
                let s = if cell.jobs == 1 { "" } else { "s" };
                writeln!(out, "\n{} stack, {} mode, {} job{s}", cell.stack, cell.mode, cell.jobs)?;
                writeln!(out, "{HEAD}")?;
                before = Some(group);
            }
            write_row(out, cell)?;
        }
        let s = if self.rounds == 1 { "" } else { "s" };
        let explanation = format!(
            "Medians of {} round{s} in turn with plain TCP sockets (raw). ratio: our rate to raw's, with \
             the least and the most of the rounds. CPU us, sysc: processor time and system calls an \
             operation, of both sides together. System calls: {}.",
            self.rounds, self.syscalls
        );
        write!(out, "\n{}", wrapped(&explanation))?;
        for reason in &self.left_out {
            write!(out, "{}", wrapped(&format!("Left out: {reason}")))?;
        }
        if self.incomplete {
            writeln!(out, "Not all cells were measured.")?;
        }
        Ok(())
    }
}

const WIDTH: usize = 80;
const HEAD: &str = "    size depth   op/s       B/s ratio least..most     p50      p99 CPU us sysc";

fn write_row(out: &mut String, cell: &Cell) -> fmt::Result {
    let Cell { ours, ratio_to_raw: ratio, .. } = cell;
    let range = format!("{:.2}..{:.2}", ratio.min, ratio.max);
    writeln!(
        out,
        "{:>8} {:>5} {:>6} {:>9} {:>5.2} {range:>10} {:>8} {:>8} {:>6} {:>4}",
        bytes(cell.size_bytes as f64),
        cell.depth,
        short(ours.ops_per_second.median),
        bytes(ours.bytes_per_second.median),
        ratio.median,
        time(ours.latency_us.p50.median),
        time(ours.latency_us.p99.median),
        digits(ours.cpu_us_per_op.median),
        ours.syscalls_per_op.map_or_else(|| "–".to_owned(), digits),
    )
}

/// The words of a text in lines of a terminal's width.
fn wrapped(text: &str) -> String {
    let (mut lines, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if column > 0 && column + 1 + len > WIDTH {
            lines.push('\n');
            column = 0;
        } else if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += len;
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;

    #[test]
    fn no_line_of_figures_is_wider_than_a_terminal() {
        let table = example().table();
        for line in table.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(table.contains("posix stack, crc mode, 1 job\n"), "{table}");
        assert!(table.contains("   4 KiB    32   400k   1.5 GiB  0.77 0.60..0.81"), "{table}");
        assert!(table.contains("Left out: 4 MiB at depth 128"), "{table}");
    }
}
