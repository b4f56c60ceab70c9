use std::sync::atomic::{AtomicU16, Ordering};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;

use crate::Config;
use crate::config::DebugLevels;

/// The target of lines that tell of a message each: they count as level 1, whatever their tracing level,
/// as in Ceph.
pub const MESSAGE_TARGET: &str = "siphon_msgr::message";

/// A subsystem, by Ceph's name, and the targets whose lines belong to it.
struct Subsystem {
    name: &'static str,
    /// By the beginning of their path.
    targets: &'static [&'static str],
    levels: fn(&Config) -> DebugLevels,
}

/// The first that fits counts.
static SUBSYSTEMS: [Subsystem; 7] = [
    Subsystem {
        name: "asok",
        targets: &["siphon_common::admin_socket"],
        levels: |it| it.debug_asok,
    },
    Subsystem {
        name: "ms",
        targets: &["siphon_msgr", "siphon_net", "siphon_proto", "siphon_verbs"],
        levels: |it| it.debug_ms,
    },
    Subsystem { name: "auth", targets: &["siphon_auth"], levels: |it| it.debug_auth },
    Subsystem { name: "monc", targets: &["siphon_monclient"], levels: |it| it.debug_monc },
    Subsystem { name: "objecter", targets: &["siphon_objecter"], levels: |it| it.debug_objecter },
    Subsystem { name: "rados", targets: &["siphon_rados"], levels: |it| it.debug_rados },
    Subsystem { name: "none", targets: &[""], levels: |it| it.debug_none },
];

/// The options that have the levels.
pub(super) const OPTIONS: [&str; 7] = [
    "debug_asok",
    "debug_ms",
    "debug_auth",
    "debug_monc",
    "debug_objecter",
    "debug_rados",
    "debug_none",
];

/// A subsystem by its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubsystemId(usize);

impl SubsystemId {
    pub(super) fn of(target: &str) -> Self {
        let fits =
            |subsystem: &Subsystem| subsystem.targets.iter().any(|it| target.starts_with(it));
        Self(SUBSYSTEMS.iter().position(fits).unwrap_or(SUBSYSTEMS.len() - 1))
    }

    pub(super) fn name(self) -> &'static str {
        SUBSYSTEMS[self.0].name
    }
}

/// Ceph's level of a line: -1 for errors, which are logged whatever the levels are.
pub(super) fn level_of(metadata: &Metadata<'_>) -> i8 {
    match *metadata.level() {
        _ if metadata.target() == MESSAGE_TARGET => 1,
        Level::ERROR => -1,
        Level::WARN => 0,
        Level::INFO => 1,
        Level::DEBUG => 5,
        Level::TRACE => 20,
    }
}

/// The levels of all subsystems, which any thread may look at.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// To log, and to remember.
    all: [AtomicU16; SUBSYSTEMS.len()],
}

impl Levels {
    /// Takes what the options say; whether any is another than before.
    pub(super) fn set(&self, config: &Config) -> bool {
        let mut changed = false;
        for (subsystem, levels) in SUBSYSTEMS.iter().zip(&self.all) {
            let DebugLevels { log, gather } = (subsystem.levels)(config);
            let now = u16::from_be_bytes([log, gather]);
            changed |= levels.swap(now, Ordering::Relaxed) != now;
        }
        changed
    }

    pub(super) fn of(&self, subsystem: SubsystemId) -> DebugLevels {
        let [log, gather] = self.all[subsystem.0].load(Ordering::Relaxed).to_be_bytes();
        DebugLevels::new(log, gather)
    }

    /// Whether a line is logged or remembered.
    pub(super) fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let levels = self.of(SubsystemId::of(metadata.target()));
        i16::from(level_of(metadata)) <= i16::from(levels.log.max(levels.gather))
    }

    /// The most verbose of tracing's levels that any line wanted can have.
    pub(super) fn hint(&self) -> LevelFilter {
        let all = self.all.iter().map(|it| it.load(Ordering::Relaxed).to_be_bytes());
        let most = all.map(|[log, gather]| log.max(gather)).max().unwrap_or_default();
        let ms = self.of(SubsystemId::of(MESSAGE_TARGET));
        match most {
            _ if ms.log.max(ms.gather) >= 1 => LevelFilter::TRACE, // for messages
            0 => LevelFilter::WARN,
            1..5 => LevelFilter::INFO,
            5..20 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        }
    }

    /// As a dump of recent entries tells them: `   1/ 5 auth`.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        (0..SUBSYSTEMS.len()).map(SubsystemId).map(|it| {
            let DebugLevels { log, gather } = self.of(it);
            format!("  {log:>2}/{gather:>2} {}", it.name())
        })
    }
}
