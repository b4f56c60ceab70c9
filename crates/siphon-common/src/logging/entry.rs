use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde_json::{Value, json};
use tracing::Event;
use tracing::field::{Field, Visit};

use super::stamp::Stamp;
use super::subsys::{SubsystemId, level_of};

/// A line before it is written anywhere.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    pub(super) thread: Arc<str>,
    pub(super) level: i8,
    pub(super) subsystem: SubsystemId,
    pub(super) text: String,
}

/// How an entry is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) json: bool,
    /// Microseconds, and not milliseconds.
    pub(super) fine: bool,
}

impl Entry {
    pub(super) fn of(event: &Event<'_>, stamp: Stamp) -> Self {
        let metadata = event.metadata();
        let mut text = Text(String::new());
        event.record(&mut text);
        Self {
            stamp,
            thread: thread_name(),
            level: level_of(metadata),
            subsystem: SubsystemId::of(metadata.target()),
            text: text.0,
        }
    }

    /// The line, without its end.
    pub(super) fn line(&self, format: Format) -> String {
        if format.json {
            return self.json(format).to_string();
        }
        let Self { thread, level, subsystem, text, .. } = self;
        format!("{} {thread} {level:>2} {}: {text}", self.stamp(format), subsystem.name())
    }

    /// The line of a dump, with the entry's distance from the last.
    pub(super) fn recent_json(&self, format: Format, number: i64) -> String {
        let mut fields = self.json(format);
        fields["recent"] = number.into();
        fields.to_string()
    }

    fn json(&self, format: Format) -> Value {
        json!({
            "time": self.stamp(format),
            "thread": &*self.thread,
            "level": self.level,
            "subsys": self.subsystem.name(),
            "message": self.text,
        })
    }

    fn stamp(&self, format: Format) -> String {
        match format.fine {
            true => format!("{:#}", self.stamp),
            false => self.stamp.to_string(),
        }
    }
}

/// The name of this thread, made once for each.
fn thread_name() -> Arc<str> {
    thread_local! {
        static NAME: Arc<str> = {
            let thread = std::thread::current();
            thread.name().map_or_else(|| format!("{:?}", thread.id()), str::to_owned).into()
        };
    }
    // A thread that ends may log when its own memory is gone.
    NAME.try_with(Arc::clone).unwrap_or_else(|_| "ending".into())
}

/// The message of an event, then its fields as `name=value`.
struct Text(String);

impl Text {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            let rest = std::mem::take(&mut self.0);
            // Writing to a string cannot fail.
            let _ = write!(self.0, "{value}");
            if !rest.is_empty() {
                let _ = write!(self.0, " {rest}");
            }
        } else {
            let blank = if self.0.is_empty() { "" } else { " " };
            let _ = write!(self.0, "{blank}{}={value}", field.name());
        }
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.add(field, format_args!("{value}")),
            _ => self.add(field, format_args!("{value:?}")),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, format_args!("{value}"));
    }
}
