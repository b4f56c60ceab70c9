//! Logs, in the form of Ceph's and by its options.
//!
//! Everything logs through [`tracing`]; a library user may install a subscriber of their own and
//! never call this module. A program's log is [`Log`]: Ceph's with all its options, and, if somebody gives
//! tracing's directives, lines on standard error by these:
//!
//! ```text
//! 2026-11-23T15:40:01.123+0000 msgr-worker-0  1 ms: accepted peer=…
//! 2026-11-23T15:40:01.123+0000 msgr-worker-0 debug siphon_msgr::connection: accepted peer=…
//! ```
//!
//! A line has the time (UTC), the thread's name, its level, and whose it is: a subsystem of Ceph's, or a
//! module. Ceph's levels are -1 for errors, 0 for warnings, 1 for information and for messages, 5 for
//! what helps to find a mistake, and 20 for every detail.

mod entry;
mod log;
mod sinks;
mod stamp;
mod subsys;

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt as lines};

pub use self::log::{Log, LogBuilder};
use self::stamp::{Clock, Stamp, system_clock};
pub use self::subsys::MESSAGE_TARGET;

/// The environment variable with the log's level or directives.
pub const ENV: &str = "SIPHON_LOG";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The directives cannot be parsed.
    #[error(
        "bad log level '{directives}': \
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
    /// There is no thread to write it.
    #[error("the system gives no thread for the log")]
    Thread(#[from] std::io::Error),
}

/// Lines by directives, `debug` or `info,siphon_msgr=trace`, for a writer of one's own: for tests and for a log
/// of one scope.
///
/// # Errors
/// The level cannot be understood.
pub fn subscriber<W>(level: &str, writer: W) -> Result<impl Subscriber + use<W>, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Ok(tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_ansi(false)
        .event_format(CephLine { clock: system_clock })
        .with_writer(writer)
        .finish())
}

fn filter(directives: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .parse(directives)
        .map_err(|source| LogError::Directives { directives: directives.to_owned(), source })
}

/// Lines on standard error by directives, beside others.
fn directive_layer<S>(directives: &str) -> Result<impl Layer<S> + use<S>, LogError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = lines::layer().with_ansi(false).event_format(CephLine { clock: system_clock });
    Ok(layer.with_writer(std::io::stderr).with_filter(filter(directives)?))
}

/// What the environment says, if anything: [`ENV`].
pub fn directives_of_environment() -> Option<String> {
    std::env::var(ENV).ok().filter(|level| !level.is_empty())
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
            .event_format(CephLine { clock: || 1_795_448_401_123_456 })
            .with_writer(move || writer.clone())
            .finish();
        let log = || tracing::warn!(target: "siphon_msgr", peer = "osd.0", "gone");
        std::thread::Builder::new()
            .name("msgr-worker-0".to_owned())
            .spawn(move || tracing::subscriber::with_default(subscriber, log))
            .unwrap()
            .join()
            .unwrap();
        let stamp = Stamp(1_795_448_401_123_456);
        let want = format!("{stamp} msgr-worker-0  warn siphon_msgr: gone peer=\"osd.0\"\n");
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
}
