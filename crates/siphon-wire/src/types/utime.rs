use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Decode, Encode};

/// A time since 1970, or a span (`utime_t`): seconds and nanoseconds, 32 bits each.
///
/// What a peer sent is kept as it is, also if it has a billion nanoseconds or more.
///
/// ```
/// use std::time::Duration;
/// use siphon_wire::types::Utime;
/// let time = Utime::new(1_500_000_000, 250_000_000);
/// assert_eq!(time.to_string(), "2017-07-14T02:40:00.250000Z");
/// assert_eq!(Duration::from(Utime::new(2, 5)), Duration::new(2, 5));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[denc(name = "utime_t", fixed)]
pub struct Utime {
    /// Whole seconds.
    pub sec: u32,
    /// Nanoseconds beyond them.
    pub nsec: u32,
}

/// Below ten years, Ceph takes a time for a span when it shows it.
const SPAN_MAX_SEC: u32 = 60 * 60 * 24 * 365 * 10;

impl Utime {
    /// `sec` seconds and `nsec` nanoseconds.
    pub const fn new(sec: u32, nsec: u32) -> Self {
        Self { sec, nsec }
    }

    /// Whether both parts are zero, which Ceph uses for "never".
    pub const fn is_zero(self) -> bool {
        self.sec == 0 && self.nsec == 0
    }
}

/// Spans of more than 136 years have no place in a [`Utime`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UtimeRangeError;

impl fmt::Display for UtimeRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the seconds do not fit into 32 bits")
    }
}

impl std::error::Error for UtimeRangeError {}

impl TryFrom<Duration> for Utime {
    type Error = UtimeRangeError;

    fn try_from(span: Duration) -> Result<Self, UtimeRangeError> {
        let sec = u32::try_from(span.as_secs()).map_err(|_| UtimeRangeError)?;
        Ok(Self { sec, nsec: span.subsec_nanos() })
    }
}

/// Times before 1970 are taken for 1970, those after 2106 for the last that there is.
impl From<SystemTime> for Utime {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::try_from(since).unwrap_or(Self { sec: u32::MAX, nsec: 999_999_999 })
    }
}

impl From<Utime> for Duration {
    fn from(time: Utime) -> Self {
        // Carries nanoseconds beyond a second; cannot overflow from 32-bit parts.
        Self::new(u64::from(time.sec), time.nsec)
    }
}

impl From<Utime> for SystemTime {
    fn from(time: Utime) -> Self {
        UNIX_EPOCH + Duration::from(time)
    }
}

/// A span as seconds, a time in ISO 8601 and UTC, both to the microsecond.
impl fmt::Display for Utime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usec = self.nsec / 1000;
        if self.sec < SPAN_MAX_SEC {
            return write!(f, "{}.{usec:06}", self.sec);
        }
        let (days, second) = (self.sec / 86_400, self.sec % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{usec:06}Z")
    }
}

impl fmt::Debug for Utime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.sec, self.nsec)
    }
}

/// The Gregorian date that is `days` after 1970-01-01.
fn civil(days: u32) -> (u32, u32, u32) {
    /// Days from 0000-03-01 to 1970-01-01. Years that begin in March end with the leap day.
    const EPOCH: u32 = 719_468;
    let days = days + EPOCH;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month =
        if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    (400 * era + year_of_era + u32::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Features;

    #[test]
    fn eight_bytes_little_endian() {
        let wire = Utime::new(1, 0x0203_0405).to_bytes(Features::ALL);
        assert_eq!(&wire[..], [1, 0, 0, 0, 5, 4, 3, 2]);
        assert_eq!(Utime::from_bytes(&wire), Ok(Utime::new(1, 0x0203_0405)));
    }

    #[test]
    fn dates() {
        let date = |sec| Utime::new(sec, 0).to_string();
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00.000000Z");
        assert_eq!(date(1_709_251_199), "2024-02-29T23:59:59.000000Z");
        assert_eq!(date(1_735_689_600), "2025-01-01T00:00:00.000000Z");
        assert_eq!(date(u32::MAX), "2106-02-07T06:28:15.000000Z");
        assert_eq!(Utime::new(12, 5_000).to_string(), "12.000005");
    }

    #[test]
    fn conversions() {
        let time = Utime::new(1_500_000_000, 7);
        assert_eq!(Utime::from(SystemTime::from(time)), time);
        assert_eq!(Utime::from(UNIX_EPOCH - Duration::from_secs(1)), Utime::default());
        assert_eq!(Utime::from(UNIX_EPOCH + Duration::from_secs(1 << 32)).sec, u32::MAX);
        assert_eq!(Utime::try_from(Duration::from_secs(1 << 32)), Err(UtimeRangeError));
        let carried = Duration::from(Utime::new(u32::MAX, u32::MAX));
        assert_eq!(carried.as_secs(), u64::from(u32::MAX) + 4);
    }
}
