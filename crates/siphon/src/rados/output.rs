//! What `rados` shows, in its forms: tables, sizes, times, dumps.

use std::fmt::{self, Write as _};

use serde::Serialize as _;
use serde_json::ser::PrettyFormatter;
use serde_json::{Serializer, Value};
use siphon_wire::types::Utime;

/// Bytes as Ceph's tables show them: `4 KiB`, `1.2 MiB` (`byte_u_t` of include/types.h, 16.2.7).
pub(super) struct ByteU(pub(super) u64);

impl fmt::Display for ByteU {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let index = (self.0.checked_ilog2().unwrap_or(0) / 10) as usize;
        let (unit, multiple) = (UNITS[index], 1_u64 << (10 * index));
        if self.0.is_multiple_of(multiple) {
            return f.pad(&format!("{} {unit}", self.0 / multiple));
        }
        let value = self.0 as f64 / multiple as f64;
        // As many places as leave the whole, unit and space included, at 7 characters.
        let shown = (0..3).rev().map(|places| format!("{value:.places$} {unit}"));
        let shown: Vec<_> = shown.collect();
        let fits = shown.iter().find(|text| text.len() <= 7).or(shown.last());
        f.pad(fits.map_or("", String::as_str))
    }
}

/// Lines with columns as wide as their widest field, with two spaces between them.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// How many columns, from the first on, stand left.
    left: usize,
}

impl Table {
    pub(super) fn new(headings: &[&str], left: usize) -> Self {
        Self { rows: vec![headings.iter().map(ToString::to_string).collect()], left }
    }

    pub(super) fn row(&mut self, fields: Vec<String>) {
        self.rows.push(fields);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let fields = self.rows.iter().filter_map(|row| row.get(column));
            fields.map(|field| field.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &self.rows {
            for (column, (field, &width)) in row.iter().zip(&widths).enumerate() {
                f.write_str(if column == 0 { "" } else { "  " })?;
                if column < self.left {
                    write!(f, "{field:<width$}")?;
                } else {
                    write!(f, "{field:>width$}")?;
                }
            }
            f.write_char('\n')?;
        }
        Ok(())
    }
}

/// Bytes as `hexdump -C` shows them, with a line of their length at the end.
pub(super) fn hexdump(bytes: &[u8]) -> String {
    const ROW: usize = 16;
    let mut text = String::new();
    let mut rows = bytes.chunks(ROW).zip((0_usize..).step_by(ROW)).peekable();
    let (mut last, mut starred) = (None, false);
    while let Some((row, offset)) = rows.next() {
        // The last row is always shown.
        if last == Some(row) && rows.peek().is_some() {
            if !starred {
                text.push_str("*\n");
            }
            starred = true;
            continue;
        }
        (last, starred) = (Some(row), false);
        let _ = write!(text, "{offset:08x} ");
        for place in 0..ROW {
            text.push_str(if place == 8 { " " } else { "" });
            match row.get(place) {
                Some(byte) => {
                    let _ = write!(text, " {byte:02x}");
                }
                None => text.push_str("   "),
            }
        }
        text.push_str("  |");
        text.extend(row.iter().map(|&byte| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '.',
        }));
        text.push_str("|\n");
    }
    if !bytes.is_empty() {
        let _ = writeln!(text, "{:08x}", bytes.len());
    }
    text
}

/// JSON with line breaks, indented as Ceph's is.
pub(super) fn pretty(value: &Value) -> String {
    let formatter = PrettyFormatter::with_indent(b"    ");
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, formatter);
    value.serialize(&mut serializer).expect("memory takes it");
    String::from_utf8(text).expect("JSON is text")
}

/// A name in a message, unless it is not for people.
pub(super) fn prettify(name: &[u8]) -> &str {
    match std::str::from_utf8(name) {
        Ok(text) if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => text,
        _ => "(binary key)",
    }
}

/// A time in the zone of this machine, as Ceph shows it: `2026-11-27T04:00:01.000000+0000`. What is earlier than
/// 1980 is a time's length to it, and none of a zone (`operator<<` of include/utime.h, 16.2.7).
pub(super) fn local_time(time: Utime) -> String {
    const YEARS: u32 = 10 * 365 * 24 * 60 * 60;
    if time.sec < YEARS {
        return format!("{}.{:06}", time.sec, time.nsec / 1000);
    }
    zoned(time).strftime("%Y-%m-%dT%H:%M:%S.%6f%z").to_string()
}

/// The time of now, as before a line of `bench`.
pub(super) fn local_now() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S.%6f%z").to_string()
}

/// A snapshot's time, as `lssnap` shows it.
pub(super) fn snap_time(time: Utime) -> String {
    zoned(time).strftime("%Y.%m.%d %H:%M:%S").to_string()
}

fn zoned(time: Utime) -> jiff::Zoned {
    // 32 bits of seconds, and nanoseconds that may be too many.
    let nanoseconds = i32::try_from(time.nsec.min(999_999_999)).unwrap_or(0);
    let timestamp = jiff::Timestamp::new(time.sec.into(), nanoseconds).unwrap_or_default();
    timestamp.to_zoned(jiff::tz::TimeZone::system())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_cephs() {
        // What `rados df` of 18.2.7 prints.
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1500, "1.5 KiB"),
            (10239, "10 KiB"),
            (1 << 20, "1 MiB"),
            (13_500_000, "13 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(ByteU(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_dump_leaves_out_what_repeats() {
        let mut bytes = vec![b'z'; 64];
        bytes.extend(b"end\x00");
        let text = hexdump(&bytes);
        let zs = "7a 7a 7a 7a 7a 7a 7a 7a  7a 7a 7a 7a 7a 7a 7a 7a  |zzzzzzzzzzzzzzzz|";
        let end = "65 6e 64 00                                       |end.|";
        assert_eq!(text, format!("00000000  {zs}\n*\n00000040  {end}\n00000044\n"));
        assert_eq!(hexdump(b""), "");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_field() {
        let mut table = Table::new(&["NAME", "USED"], 1);
        table.row(vec!["a".into(), "12 KiB".into()]);
        assert_eq!(table.to_string(), "NAME    USED\na     12 KiB\n");
    }

    #[test]
    fn binary_names_are_not_shown() {
        assert_eq!(prettify(b"name 1"), "name 1");
        assert_eq!(prettify(b"a\x00b"), "(binary key)");
        assert_eq!(prettify("ü".as_bytes()), "(binary key)");
    }
}
