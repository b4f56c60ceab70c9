//! Log lines on standard error, in the form of Ceph's:
//!
//! ```text
//! 2026-11-23T15:40:01.123+0000 msgr-worker-0 debug siphon_msgr::connection: accepted peer=…
//! ```
//!
//! Everything logs through [`tracing`]; a library user may install a subscriber of their own and
//! never call this module.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// The environment variable with the log's level or directives.
pub const ENV: &str = "SIPHON_LOG";

/// What is logged when nobody asks for anything else.
pub const DEFAULT_LEVEL: &str = "warn";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The directives cannot be parsed.
    #[error(
        "bad log level '{directives}': {source}; \
         it takes error, warn, info, debug, trace, off, or target=level, separated by commas"
    )]
    Directives {
        /// What the user wrote.
        directives: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a subscriber already.
    #[error("this process has installed a log before")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Makes the process log to standard error: at `level` if given, else as [`ENV`] says, else at
/// [`DEFAULT_LEVEL`].
///
/// A level is a word (`debug`) or directives by target (`info,siphon_msgr=trace`).
///
/// # Errors
/// The level cannot be understood, or a log is installed already.
///
/// ```
/// siphon_common::logging::install(Some("info,siphon_msgr=debug"))?;
/// tracing::info!(workers = 3, "started");
/// # Ok::<(), siphon_common::logging::LogError>(())
/// ```
pub fn install(level: Option<&str>) -> Result<(), LogError> {
    let from_env = std::env::var(ENV).ok().filter(|level| !level.is_empty());
    let level = level.or(from_env.as_deref()).unwrap_or(DEFAULT_LEVEL);
    tracing::subscriber::set_global_default(subscriber(level, std::io::stderr)?)?;
    Ok(())
}

/// The subscriber that [`install`] makes global, with another writer: for tests and for a log of
/// one scope.
///
/// # Errors
/// The level cannot be understood.
pub fn subscriber<W>(level: &str, writer: W) -> Result<impl Subscriber + use<W>, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(level)
        .map_err(|source| LogError::Directives { directives: level.to_owned(), source })?;
    Ok(tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .event_format(CephLine { clock: system_clock })
        .with_writer(writer)
        .finish())
}

/// A clock: the time since 1970-01-01 in milliseconds.
type Clock = fn() -> u64;

#[expect(clippy::disallowed_methods, reason = "a log line is stamped with the wall clock")]
fn system_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

struct CephLine {
    clock: Clock,
}

impl<S, N> FormatEvent<S, N> for CephLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let thread = std::thread::current();
        write!(writer, "{} ", Stamp((self.clock)()))?;
        match thread.name() {
            Some(name) => write!(writer, "{name}")?,
            None => write!(writer, "{:?}", thread.id())?,
        }
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG => "debug",
            tracing::Level::TRACE => "trace",
        };
        write!(writer, " {level:>5} {}: ", event.metadata().target())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Milliseconds since 1970-01-01, shown as `2026-11-23T15:40:01.123+0000`.
struct Stamp(u64);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        let (days, ms) = (self.0 / DAY_MS, self.0 % DAY_MS);
        let (year, month, day) = civil(days);
        let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
        let (second, milli) = (ms / 1000 % 60, ms % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}+0000")
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
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn a_line_has_time_thread_level_target_and_fields() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(CephLine { clock: || 1_795_448_401_123 })
            .with_writer(move || writer.clone())
            .finish();
        let log = || tracing::warn!(target: "siphon_msgr", peer = "osd.0", "gone");
        std::thread::Builder::new()
            .name("msgr-worker-0".to_owned())
            .spawn(move || tracing::subscriber::with_default(subscriber, log))
            .unwrap()
            .join()
            .unwrap();
        let want =
            "2026-11-23T15:40:01.123+0000 msgr-worker-0  warn siphon_msgr: gone peer=\"osd.0\"\n";
        assert_eq!(sink.text(), want);
    }

    #[test]
    fn a_level_is_by_target() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber("warn,loud=debug", move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "loud", "heard");
            tracing::debug!(target: "quiet", "not heard");
        });
        assert!(sink.text().contains("loud: heard") && !sink.text().contains("quiet"));
        assert!(matches!(super::subscriber("x=y", io::sink), Err(LogError::Directives { .. })));
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
