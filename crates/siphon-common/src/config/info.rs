use serde_json::{Value, json};

use super::known;
use super::value::OptionKind;

/// For whom an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum OptionLevel {
    /// For everybody who runs a cluster.
    Basic,
    /// For those who know what it changes.
    Advanced,
    /// For developers and tests.
    Dev,
}

impl OptionLevel {
    /// Ceph's word: `basic`, `advanced`, `dev`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Advanced => "advanced",
            Self::Dev => "dev",
        }
    }
}

/// One row of the option table.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct OptionInfo {
    /// Ceph's name, with underscores.
    pub name: &'static str,
    /// Type, unit and range.
    pub kind: OptionKind,
    /// What it does, in a sentence.
    pub description: &'static str,
    /// For whom it is.
    pub level: OptionLevel,
    /// Whether it changes while the program runs; from when on it counts then, in `note`.
    pub runtime: bool,
    /// What a daemon has by default, as text, if that is something else.
    pub daemon_default: Option<&'static str>,
    /// What else there is to know: when a change counts, what other releases have. May be empty.
    pub note: &'static str,
    /// Names of options that belong to it.
    pub see_also: &'static [&'static str],
}

/// Options that no monitor says, as it takes them to come to one (`FLAG_NO_MON_UPDATE` of Ceph's
/// `common/options.cc`).
const NOT_OF_MONITORS: [&str; 6] = ["host", "fsid", "mon_host", "key", "keyfile", "keyring"];

/// Whether the monitors have a say in it.
pub(crate) fn is_of_monitors(name: &str) -> bool {
    !NOT_OF_MONITORS.contains(&name)
}

impl OptionInfo {
    pub(super) const fn new(
        name: &'static str,
        kind: OptionKind,
        description: &'static str,
        more: More,
    ) -> Self {
        let More { level, runtime, daemon_default, note, see_also } = more;
        Self { name, kind, description, level, runtime, daemon_default, note, see_also }
    }

    /// The default, as `config show` tells it and with its metavariables: of a daemon or of a client.
    pub fn default_text(&self, daemon: bool) -> &'static str {
        match self.daemon_default {
            Some(text) if daemon => text,
            _ => super::table::default_text(self.name),
        }
    }

    /// The first of Ceph's releases 14, 16, 18 and 20 that has it (14 also stands for what is older);
    /// `None` if it is Siphon's own.
    pub fn since(&self) -> Option<u8> {
        known::find(self.name).map(|known| known.first)
    }

    /// As Ceph's `config help` tells it (`Option::dump` of 16.2.7), and `since` behind that; the default is that of a
    /// daemon or of a client. What Ceph has for its own ends, tags and services, is empty.
    pub fn to_json(&self, daemon: bool) -> Value {
        let limit = |limit: fn((u64, u64)) -> u64| match self.kind.range().map(limit) {
            Some(limit) => self.kind.to_json(&limit.to_string()),
            None => "".into(),
        };
        let default = |text: Option<&str>| text.map_or("".into(), |text| self.kind.to_json(text));
        let mut option = json!({
            "name": self.name,
            "type": self.type_name(),
            "level": self.level.name(),
            "desc": self.description,
            "long_desc": self.note,
            "default": default(Some(self.default_text(daemon))),
            "daemon_default": default(self.daemon_default),
            "tags": [],
            "services": [],
            "see_also": self.see_also,
        });
        if self.type_name() == "str" {
            option["enum_values"] = match self.kind {
                OptionKind::Words(words) => json!(words),
                _ => json!([]),
            };
        }
        option["min"] = limit(|range| range.0);
        option["max"] = limit(|range| range.1);
        option["can_update_at_runtime"] = json!(self.runtime);
        let flags = [("runtime", self.runtime), ("no_mon_update", !is_of_monitors(self.name))];
        option["flags"] = flags.iter().filter(|flag| flag.1).map(|flag| flag.0).collect();
        option["since"] = json!(self.since());
        option
    }

    /// Ceph's word for its type: `str`, `bool`, `uint`, `size`, `float`.
    pub const fn type_name(&self) -> &'static str {
        self.kind.type_name()
    }
}

/// What a row of the table says beyond the usual: advanced, not changed at run time, and nothing else.
#[derive(Clone, Copy)]
pub(super) struct More {
    level: OptionLevel,
    runtime: bool,
    daemon_default: Option<&'static str>,
    note: &'static str,
    see_also: &'static [&'static str],
}

/// An advanced option that changes at run time.
pub(super) const RUNTIME: More = More { runtime: true, ..More::NONE };
/// An option for everybody.
pub(super) const BASIC: More = More { level: OptionLevel::Basic, ..More::NONE };
/// An option for developers.
pub(super) const DEV: More = More { level: OptionLevel::Dev, ..More::NONE };

impl More {
    pub(super) const NONE: Self = Self {
        level: OptionLevel::Advanced,
        runtime: false,
        daemon_default: None,
        note: "",
        see_also: &[],
    };

    /// What the row says, in place of the usual.
    pub(super) const fn and(self, row: Self) -> Self {
        let _ = self;
        row
    }

    pub(super) const fn runtime(self) -> Self {
        Self { runtime: true, ..self }
    }

    pub(super) const fn note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    pub(super) const fn daemon(self, text: &'static str) -> Self {
        Self { daemon_default: Some(text), ..self }
    }

    pub(super) const fn see(self, see_also: &'static [&'static str]) -> Self {
        Self { see_also, ..self }
    }
}
