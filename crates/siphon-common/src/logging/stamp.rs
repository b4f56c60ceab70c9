use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A clock: the time since 1970-01-01 in microseconds.
pub(super) type Clock = fn() -> u64;

#[expect(clippy::disallowed_methods, reason = "a log line is stamped with the wall clock")]
pub(super) fn system_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds since 1970-01-01, shown as `2026-11-23T15:40:01.123+0000`; with `{:#}`, all six digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp(pub(super) u64);

impl Stamp {
    /// Year, month, day, hour, minute, second, microsecond.
    fn parts(self) -> [u64; 7] {
        const DAY_US: u64 = 24 * 3600 * 1_000_000;
        let (days, us) = (self.0 / DAY_US, self.0 % DAY_US);
        let (year, month, day) = civil(days);
        let seconds = us / 1_000_000;
        [year, month, day, seconds / 3600, seconds / 60 % 60, seconds % 60, us % 1_000_000]
    }

    /// As in syslog's messages: `Nov 23 15:40:01`.
    pub(super) fn syslog(self) -> String {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let [_, month, day, hour, minute, second, _] = self.parts();
        let month = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
        format!("{month} {day:>2} {hour:02}:{minute:02}:{second:02}")
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [year, month, day, hour, minute, second, us] = self.parts();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match f.alternate() {
            true => write!(f, ".{us:06}+0000"),
            false => write!(f, ".{:03}+0000", us / 1000),
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that a leap day is a year's last day, and in eras of 400 years,
/// which all have the same number of days.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097; // days in 400 years
    const EPOCH: u64 = 719_468; // days from 0000-03-01 to 1970-01-01
    let day = days + EPOCH;
    let (era, day_of_era) = (day / ERA, day % ERA);
    let leaps = day_of_era / 1460 + day_of_era / (ERA - 1);
    let year_of_era = (day_of_era + day_of_era / 36_524 - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March have 153 days in each five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_has_milliseconds_or_microseconds() {
        let stamp = Stamp(1_795_448_401_123_456);
        assert_eq!(stamp.to_string(), "2026-11-23T15:40:01.123+0000");
        assert_eq!(format!("{stamp:#}"), "2026-11-23T15:40:01.123456+0000");
        assert_eq!(stamp.syslog(), "Nov 23 15:40:01");
    }

    #[test]
    fn days_become_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (20_088, (2024, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date);
        }
    }
}
