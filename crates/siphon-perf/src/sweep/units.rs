//! Numbers for people.

use crate::report::Bytes;

/// A number with three digits that count, and `k` or `M` where it is large.
pub(super) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        large if large >= 999_500.0 => (value / 1e6, "M"),
        middle if middle >= 999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    format!("{}{unit}", digits(value))
}

/// A number with three digits that count, but no digit before the point left out.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        small if small < 9.995 => format!("{value:.2}"),
        middle if middle < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Bytes with a binary unit: `4 KiB`.
pub(super) fn bytes(value: f64) -> String {
    Bytes(value).to_string()
}

/// A time that is given in microseconds, with the unit that suits it.
pub(super) fn time(us: f64) -> String {
    match us {
        small if small < 999.5 => format!("{} µs", digits(us)),
        middle if middle < 999_500.0 => format!("{} ms", digits(us / 1e3)),
        _ => format!("{} s", digits(us / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_count() {
        for (value, text) in [
            (0.126, "0.13"),
            (9.996, "10.0"),
            (1234.0, "1.23k"),
            (54_321.0, "54.3k"),
            (2e6, "2.00M"),
        ] {
            assert_eq!(short(value), text);
        }
        for (us, text) in [(7.0, "7.00 µs"), (1500.0, "1.50 ms"), (2.5e6, "2.50 s")] {
            assert_eq!(time(us), text);
        }
    }
}
