//! How it is shown.

use std::cmp::Ordering;
use std::fmt::Write as _;

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table, TableState};

use super::model::{ConnectionRow, Model, ThrottleRow, WorkerRow};

/// Rows of the history.
const HISTORY_ROWS: u16 = 5;

/// Which table is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Page {
    #[default]
    Workers,
    Connections,
    Throttles,
}

impl Page {
    const ALL: [Self; 3] = [Self::Workers, Self::Connections, Self::Throttles];

    fn name(self) -> &'static str {
        match self {
            Self::Workers => "Workers",
            Self::Connections => "Connections",
            Self::Throttles => "Throttles",
        }
    }
}

/// A cell: what is shown, and what it is sorted by.
struct Cell {
    text: String,
    number: Option<f64>,
}

struct Columns {
    titles: Vec<&'static str>,
    widths: Vec<Constraint>,
    rows: Vec<Vec<Cell>>,
}

/// What somebody has chosen to see.
#[derive(Debug, Default)]
pub(super) struct View {
    page: Page,
    /// Of each page the column that it is sorted by, and whether the least comes first.
    sorted: [Option<(usize, bool)>; 3],
    table: TableState,
}

impl View {
    pub(super) fn handle_key(&mut self, code: KeyCode) {
        let page = self.page as usize;
        match code {
            KeyCode::Tab | KeyCode::Right => self.page = Page::ALL[(page + 1) % 3],
            KeyCode::BackTab | KeyCode::Left => self.page = Page::ALL[(page + 2) % 3],
            KeyCode::Char('w') => self.page = Page::Workers,
            KeyCode::Char('c') => self.page = Page::Connections,
            KeyCode::Char('t') => self.page = Page::Throttles,
            KeyCode::Char(digit @ '1'..='9') => {
                let column = digit as usize - '1' as usize;
                self.sorted[page] = match self.sorted[page] {
                    Some((same, ascending)) if same == column => Some((column, !ascending)),
                    _ => Some((column, false)),
                };
            }
            KeyCode::Char('0') => self.sorted[page] = None,
            KeyCode::Down => self.table.scroll_down_by(1),
            KeyCode::Up => self.table.scroll_up_by(1),
            KeyCode::PageDown => self.table.scroll_down_by(10),
            KeyCode::PageUp => self.table.scroll_up_by(10),
            KeyCode::Home => self.table.select_first(),
            _ => {}
        }
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, model: &Model) {
        let failures = u16::from(!model.failures().is_empty());
        let [head, history, table, failed, foot] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(HISTORY_ROWS),
            Constraint::Min(3),
            Constraint::Length(failures),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(summary(model)), head);
        draw_history(frame, history, model);
        self.draw_table(frame, table, model);
        if failures > 0 {
            let style = Style::new().add_modifier(Modifier::BOLD);
            frame.render_widget(Line::styled(model.failures().join("; "), style), failed);
        }
        let help = " q quit  tab w c t page  1-9 sort by column (again: reverse)  0 as it is  ↑↓";
        frame.render_widget(Line::styled(help, Style::new().add_modifier(Modifier::DIM)), foot);
    }

    fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let Columns { titles, widths, mut rows } = columns(self.page, model, area.width);
        let sorted = self.sorted[self.page as usize];
        if let Some((column, ascending)) = sorted {
            rows.sort_by(|a, b| {
                let order = compare(a.get(column), b.get(column));
                if ascending { order } else { order.reverse() }
            });
        }
        let header = titles.iter().enumerate().map(|(column, title)| match sorted {
            Some((by, true)) if by == column => format!("{title}▲"),
            Some((by, false)) if by == column => format!("{title}▼"),
            _ => (*title).to_owned(),
        });
        let header = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
        let count = rows.len();
        let rows = rows.into_iter().map(|row| Row::new(row.into_iter().map(|cell| cell.text)));
        let pages = Page::ALL.map(|page| match page == self.page {
            true => format!("[{}]", page.name()),
            false => format!(" {} ", page.name()),
        });
        let title = format!(" {} ─ {count} ", pages.join(" "));
        let table = Table::new(rows, widths)
            .header(header)
            .block(Block::bordered().title(title))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, &mut self.table);
    }
}

fn compare(a: Option<&Cell>, b: Option<&Cell>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => match (a.number, b.number) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (None, None) => b.text.cmp(&a.text),
            (a, b) => a.is_some().cmp(&b.is_some()),
        },
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

fn summary(model: &Model) -> String {
    let WorkerRow { connections, received, sent, received_bytes, sent_bytes, busy_percent, .. } =
        &model.total;
    let processes = match model.answers() {
        1 => "1 process".to_owned(),
        count => format!("{count} processes"),
    };
    let connections = match connections {
        1 => "1 connection".to_owned(),
        count => format!("{count} connections"),
    };
    format!(
        " {processes}, {connections}, workers busy {busy_percent:.0} % of a processor\n \
         in {}/s msgs {}/s   out {}/s msgs {}/s",
        bytes(*received_bytes),
        count(*received),
        bytes(*sent_bytes),
        count(*sent),
    )
}

fn draw_history(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let [received, sent] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    for (area, name, is_sent) in [(received, "received", false), (sent, "sent", true)] {
        let width = usize::from(area.width.saturating_sub(2));
        let skip = model.history.len().saturating_sub(width);
        let rate = |it: &(f64, f64)| (if is_sent { it.1 } else { it.0 }) as u64;
        let values: Vec<u64> = model.history.iter().skip(skip).map(rate).collect();
        let most = values.iter().max().copied().unwrap_or(0);
        let title = format!(" {name}, at most {}/s ", bytes(most as f64));
        let history = Sparkline::default().data(values).max(most.max(1));
        frame.render_widget(history.block(Block::bordered().title(title)), area);
    }
}

/// The table of a page, in a terminal of so many columns.
fn columns(page: Page, model: &Model, width: u16) -> Columns {
    let wide = width >= 120;
    match page {
        Page::Workers => workers(&model.workers),
        Page::Connections => connections(&model.connections, wide),
        Page::Throttles => throttles(&model.throttles),
    }
}

fn workers(rows: &[WorkerRow]) -> Columns {
    let titles = vec![
        "process", "worker", "conns", "in/s", "out/s", "in B/s", "out B/s", "wait us", "busy %",
    ];
    let widths = vec![
        Constraint::Min(10),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(7),
    ];
    let row = |it: &WorkerRow| {
        vec![
            words(&it.process),
            words(&it.name),
            number(it.connections as f64, it.connections.to_string()),
            number(it.received, count(it.received)),
            number(it.sent, count(it.sent)),
            number(it.received_bytes, bytes(it.received_bytes)),
            number(it.sent_bytes, bytes(it.sent_bytes)),
            it.queue_us.map_or_else(|| words("-"), |us| number(us, format!("{us:.1}"))),
            number(it.busy_percent, format!("{:.1}", it.busy_percent)),
        ]
    };
    Columns { titles, widths, rows: rows.iter().map(row).collect() }
}

fn connections(rows: &[ConnectionRow], wide: bool) -> Columns {
    let mut titles =
        vec!["process", "peer", "in/s", "out/s", "queue", "unack", "rtt us", "retrans"];
    let mut widths = vec![
        Constraint::Min(10),
        Constraint::Min(12),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(8),
    ];
    if wide {
        titles.extend(["address", "mode", "state", "to send"]);
        widths.extend([22, 7, 24, 10].map(Constraint::Length));
    }
    let row = |it: &ConnectionRow| {
        let optional = |value: Option<u64>| {
            value.map_or_else(|| words("-"), |value| number(value as f64, value.to_string()))
        };
        let mut cells = vec![
            words(&it.process),
            words(&it.peer),
            number(it.received, count(it.received)),
            number(it.sent, count(it.sent)),
            number(it.queued as f64, it.queued.to_string()),
            number(it.unacknowledged as f64, it.unacknowledged.to_string()),
            optional(it.rtt_us),
            optional(it.retransmits),
        ];
        if wide {
            cells.extend([words(&it.addr), words(&it.mode), words(&it.state)]);
            cells.push(number(it.outgoing_bytes as f64, bytes(it.outgoing_bytes as f64)));
        }
        cells
    };
    Columns { titles, widths, rows: rows.iter().map(row).collect() }
}

fn throttles(rows: &[ThrottleRow]) -> Columns {
    let titles = vec!["process", "throttle", "held", "max", "% held", "passed/s"];
    let widths = vec![
        Constraint::Min(10),
        Constraint::Min(24),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(7),
        Constraint::Length(10),
    ];
    let row = |it: &ThrottleRow| {
        let percent = if it.max == 0 { 0.0 } else { 100.0 * it.held as f64 / it.max as f64 };
        vec![
            words(&it.process),
            words(&it.name),
            number(it.held as f64, count(it.held as f64)),
            number(it.max as f64, count(it.max as f64)),
            number(percent, format!("{percent:.1}")),
            number(it.rate, count(it.rate)),
        ]
    };
    Columns { titles, widths, rows: rows.iter().map(row).collect() }
}

/// All pages as text, for where there is no terminal.
pub(super) fn text(model: &Model) -> String {
    let mut out = format!("{}\n", summary(model));
    for page in Page::ALL {
        let Columns { titles, rows, .. } = columns(page, model, u16::MAX);
        if rows.is_empty() {
            continue;
        }
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].text.chars().count());
            cells.chain([titles[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..titles.len()).map(width).collect();
        let mut line = |cells: Vec<&str>| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            // Writing to a string does not fail.
            let _ = writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end());
        };
        line(vec![]);
        line(titles.clone());
        for row in &rows {
            line(row.iter().map(|cell| cell.text.as_str()).collect());
        }
    }
    for failure in model.failures() {
        let _ = writeln!(out, "{failure}");
    }
    out
}

/// A cell with words.
fn words(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), number: None }
}

fn number(number: f64, text: String) -> Cell {
    Cell { text, number: Some(number) }
}

/// As 950, 12.3k, 4.56M.
fn count(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T"])
}

/// As 950 B, 12.3 KiB, 4.56 MiB.
fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(mut value: f64, base: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::tests::sample;
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any time does")]
    fn model(connections: usize) -> Model {
        let begin = Instant::now();
        let mut model = Model::default();
        for second in 0..100 {
            let at = begin + Duration::from_secs(second);
            model.add(sample(100 * second * second, second as f64 / 10.0, at), &[]);
        }
        let row = model.connections[0].clone();
        model.connections = (0..connections)
            .map(|number| ConnectionRow {
                peer: format!("client.{number}"),
                received: (number * 7 % 500) as f64,
                ..row.clone()
            })
            .collect();
        model
    }

    fn screen(view: &mut View, model: &Model, columns: u16, rows: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| view.draw(frame, model)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_fits_at_eighty_columns() {
        let model = model(1);
        let mut view = View::default();
        let workers = screen(&mut view, &model, 80, 24);
        for part in
            ["[Workers]", "osd.0", "busy %", "10.0", "received, at most", "osd.1 is gone", "q quit"]
        {
            assert!(workers.contains(part), "{part} in\n{workers}");
        }
        view.handle_key(KeyCode::Char('c'));
        let connections = screen(&mut view, &model, 80, 24);
        for part in ["[Connections]", "client.0", "retrans", "33"] {
            assert!(connections.contains(part), "{part} in\n{connections}");
        }
        assert!(!connections.contains("address"), "{connections}");
        view.handle_key(KeyCode::Tab);
        let throttles = screen(&mut view, &model, 80, 24);
        assert!(throttles.contains("osd_client_bytes") && throttles.contains("7.0"), "{throttles}");
    }

    #[test]
    fn five_hundred_connections_are_sorted_and_scrolled() {
        let model = model(500);
        let mut view = View::default();
        view.handle_key(KeyCode::Char('c'));
        view.handle_key(KeyCode::Char('3'));
        let first = |screen: &str| {
            screen.lines().find(|line| line.contains("client.")).map(str::to_owned).unwrap()
        };
        let greatest = screen(&mut view, &model, 200, 60);
        assert!(greatest.contains("in/s▼") && greatest.contains("address"), "{greatest}");
        assert!(first(&greatest).contains(" 499 "), "{greatest}");
        view.handle_key(KeyCode::Char('3'));
        let least = screen(&mut view, &model, 200, 60);
        assert!(first(&least).contains("client.0 "), "{least}");
        for _ in 0..20 {
            view.handle_key(KeyCode::PageDown);
        }
        let scrolled = screen(&mut view, &model, 200, 60);
        assert_ne!(first(&scrolled), first(&least));
        view.handle_key(KeyCode::Char('0'));
        assert!(!screen(&mut view, &model, 200, 60).contains('▲'));
    }

    #[test]
    fn a_terminal_of_any_size_does() {
        let model = model(3);
        for (columns, rows) in [(1, 1), (10, 3), (40, 8), (500, 200)] {
            for page in ['w', 'c', 't'] {
                let mut view = View::default();
                view.handle_key(KeyCode::Char(page));
                screen(&mut view, &model, columns, rows);
            }
        }
    }

    #[test]
    fn quantities_are_short() {
        let shown = [0.0, 999.4, 1000.0, 12_345.0, 4_560_000.0, 1e18].map(count);
        assert_eq!(shown, ["0", "999", "1.00k", "12.3k", "4.56M", "1000000T"]);
        assert_eq!(bytes(1536.0), "1.50 KiB");
    }
}
