use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A clock: the time since 1970-01-01 in microseconds.
pub(super) type Clock = fn() -> u64;

#[expect(clippy::disallowed_methods, reason = "a log line is stamped with the wall clock")]
pub(super) fn system_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds since 1970-01-01, shown as Ceph shows them: in the time of the place and with its distance from
/// UTC, `2026-11-23T15:40:01.123+0000`; with `{:#}`, all six digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp(pub(super) u64);

impl Stamp {
    /// By the clocks of this place.
    fn here(self) -> Zoned {
        self.at(TimeZone::system())
    }

    fn at(self, zone: TimeZone) -> Zoned {
        let us = i64::try_from(self.0).unwrap_or(i64::MAX);
        Timestamp::from_microsecond(us).unwrap_or(Timestamp::MAX).to_zoned(zone)
    }

    /// As in syslog's messages: `Nov 23 15:40:01`.
    pub(super) fn syslog(self) -> String {
        self.here().strftime("%b %e %H:%M:%S").to_string()
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(&self.here(), f.alternate(), f)
    }
}

fn write(time: &Zoned, fine: bool, f: &mut impl fmt::Write) -> fmt::Result {
    let (year, month, day) = (time.year(), time.month(), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    let us = time.subsec_nanosecond() / 1000;
    write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.")?;
    match fine {
        true => write!(f, "{us:06}")?,
        false => write!(f, "{:03}", us / 1000)?,
    }
    let minutes = time.offset().seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    write!(f, "{sign}{:02}{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

#[cfg(test)]
mod tests {
    use jiff::tz::{Offset, offset};

    use super::*;

    fn written(stamp: Stamp, offset: Offset, fine: bool) -> String {
        let mut text = String::new();
        write(&stamp.at(TimeZone::fixed(offset)), fine, &mut text).unwrap();
        text
    }

    #[test]
    fn a_stamp_has_milliseconds_or_microseconds_and_the_distance_from_utc() {
        let stamp = Stamp(1_795_448_401_123_456);
        assert_eq!(written(stamp, Offset::UTC, false), "2026-11-23T15:40:01.123+0000");
        assert_eq!(written(stamp, Offset::UTC, true), "2026-11-23T15:40:01.123456+0000");
        assert_eq!(written(stamp, offset(9), false), "2026-11-24T00:40:01.123+0900");
        let west = Offset::from_seconds(-(3 * 3600 + 1800)).unwrap();
        assert_eq!(written(stamp, west, false), "2026-11-23T12:10:01.123-0330");
    }
}
