use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Where the value of an option comes from, the weakest first (the levels of Ceph's
/// `common/config.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The table, or what the program has in its place.
    Default,
    /// The monitors' central configuration.
    Mon,
    /// A configuration file.
    File,
    /// The environment: `$CEPH_ARGS`, `$CEPH_KEYRING`.
    Env,
    /// The command line, or the program that assigned it.
    CommandLine,
    /// A change while the program runs.
    Override,
}

impl Source {
    /// Ceph's word, as `config diff` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Mon => "mon",
            Self::File => "file",
            Self::Env => "env",
            Self::CommandLine => "cmdline",
            Self::Override => "override",
        }
    }
}

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// Counted from 1.
    pub line: usize,
}

/// A value that an option was given, not all of which count: that of the strongest source does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Who gave it.
    pub source: Source,
    /// As it was written, with its metavariables.
    pub text: String,
    /// Where, if in a file.
    pub place: Option<Place>,
}

/// All values that options were given, by the option's name.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    settings: BTreeMap<&'static str, Vec<Setting>>,
    /// What a field had when it was last filled from here, so that an assignment is noticed.
    pub(super) applied: BTreeMap<&'static str, String>,
    /// What a file says of options that we don't honour, but others may refer to by `$name`.
    pub(super) others: BTreeMap<String, String>,
}

impl Values {
    /// From the weakest source to the strongest, at most one of each.
    pub(super) fn of(&self, name: &str) -> &[Setting] {
        self.settings.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn strongest(&self, name: &str) -> Option<&Setting> {
        self.of(name).last()
    }

    pub(super) fn put(&mut self, name: &'static str, setting: Setting) {
        let settings = self.settings.entry(name).or_default();
        match settings.binary_search_by_key(&setting.source, |it| it.source) {
            Ok(at) => settings[at] = setting,
            Err(at) => settings.insert(at, setting),
        }
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, name: &str, source: Source) -> bool {
        let Some(settings) = self.settings.get_mut(name) else { return false };
        let before = settings.len();
        settings.retain(|it| it.source != source);
        settings.len() < before
    }

    /// The options that were given a value.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.settings.iter().filter(|(_, settings)| !settings.is_empty()).map(|(name, _)| *name)
    }
}
