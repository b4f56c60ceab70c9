//! How options change, and what is told of them.

use serde_json::{Map, Value};

use super::error::{ConfigError, nearest};
use super::info::OptionInfo;
use super::table::SECRET;
use super::value::OptionKind;
use super::values::{Place, Setting, Source};
use super::{Config, known, metavariables};

/// What stands for a value that nobody shall read.
const HIDDEN: &str = "(not shown)";

/// An option that was given a value: what it was given, and by whom.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OptionDiff {
    /// The option.
    pub option: &'static OptionInfo,
    /// The default of the table, with its metavariables.
    pub default: String,
    /// From the weakest source to the strongest.
    pub settings: Vec<Setting>,
    /// The value that counts.
    pub value: String,
}

impl OptionDiff {
    /// As Ceph's `config diff` tells it: each source that says something, and what counts, by the option's type.
    pub fn to_json(&self) -> Value {
        let kind = self.option.kind;
        let mut sources = Map::new();
        sources.insert("default".to_owned(), kind.to_json(&self.default));
        for setting in &self.settings {
            let shown = match kind {
                OptionKind::Text => setting.text.clone(), // with its metavariables
                _ => self.option.shown(&setting.text).unwrap_or_else(|| setting.text.clone()),
            };
            sources.insert(setting.source.name().to_owned(), kind.to_json(&shown));
        }
        sources.insert("final".to_owned(), kind.to_json(&self.value));
        Value::Object(sources)
    }
}

impl OptionInfo {
    /// A value that a user wrote as it is shown: `64K` as `65536`. None if it is none.
    fn shown(&self, text: &str) -> Option<String> {
        let mut scratch = Config::default();
        let slot = scratch.slot_mut(self.name)?;
        slot.parse(self.kind, text.trim()).ok()?;
        Some(slot.render(self.kind))
    }
}

impl Config {
    /// Sets an option from text, as a user wrote it on the command line.
    ///
    /// # Errors
    /// [`ConfigError::UnknownOption`], [`ConfigError::NotHonoured`] and [`ConfigError::BadValue`]; the
    /// option keeps its value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        self.set_from(Source::CommandLine, name, value)
    }

    /// Sets a default other than the table's: what a user says anywhere comes before it.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_default(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        self.set_from(Source::Default, name, value)
    }

    pub(super) fn set_from(
        &mut self,
        source: Source,
        name: &str,
        value: &str,
    ) -> Result<(), ConfigError> {
        let option = Self::honoured(name)?;
        self.absorb();
        self.put(source, option, value, None)
    }

    /// Takes back what a source said; whether it had said something.
    pub(crate) fn unset(&mut self, source: Source, option: &'static OptionInfo) -> bool {
        let was_set = self.values.remove(option.name, source);
        if was_set {
            self.apply(option).expect("a value that was taken before is taken again");
            self.apply_references(option);
        }
        was_set
    }

    /// The option that a user names, which may be one that Siphon does not honour, or none.
    pub(crate) fn honoured(name: &str) -> Result<&'static OptionInfo, ConfigError> {
        Self::option(name).ok_or_else(|| unknown(name))
    }

    /// Notes a value and, if none is stronger, takes it.
    pub(crate) fn put(
        &mut self,
        source: Source,
        option: &'static OptionInfo,
        value: &str,
        place: Option<Place>,
    ) -> Result<(), ConfigError> {
        let bad = |reason| ConfigError::BadValue { option, value: value.to_owned(), reason };
        // Tried aside first: it may be bad although a stronger one hides it.
        let mut scratch = Self::default();
        let text = self.expanded(option, value);
        let slot = scratch.slot_mut(option.name).expect("a row of the table has a field");
        slot.parse(option.kind, text.trim()).map_err(bad)?;
        self.values.put(option.name, Setting { source, text: value.to_owned(), place });
        self.apply(option).map_err(bad)?;
        self.apply_references(option);
        Ok(())
    }

    /// Fills a field with what counts of all that was said.
    fn apply(&mut self, option: &'static OptionInfo) -> Result<(), super::ValueError> {
        let raw = match self.values.strongest(option.name) {
            Some(setting) => setting.text.clone(),
            None => option.default_text(self.identity.daemon).to_owned(),
        };
        let text = self.expanded(option, &raw);
        let slot = self.slot_mut(option.name).expect("a row of the table has a field");
        slot.parse(option.kind, text.trim())?;
        let applied = slot.render(option.kind);
        self.values.applied.insert(option.name, applied);
        Ok(())
    }

    fn expanded(&self, option: &OptionInfo, text: &str) -> String {
        match option.kind {
            OptionKind::Text if text.contains('$') => {
                metavariables::expand(self, text, Some(option.name))
            }
            _ => text.to_owned(),
        }
    }

    /// Fills again what refers to others, when one that can be referred to has changed.
    fn apply_references(&mut self, changed: &OptionInfo) {
        if changed.kind == OptionKind::Text {
            self.expand_all();
        }
    }

    /// Replaces metavariables wherever there are any.
    pub(super) fn expand_all(&mut self) {
        for option in Self::options().filter(|option| option.kind == OptionKind::Text) {
            if self.raw_of(option).contains('$') {
                // Text of any kind is a value.
                let _ = self.apply(option);
            }
        }
    }

    /// Takes note of fields that were assigned, and replaces metavariables.
    pub(crate) fn finish(&mut self) {
        self.absorb();
        self.expand_all();
    }

    /// Notes what was assigned to fields as if the command line had said it.
    pub(super) fn absorb(&mut self) {
        for option in Self::options() {
            let Some(shown) = self.value_of(option) else { continue };
            if shown != self.last_applied(option) {
                let setting =
                    Setting { source: Source::CommandLine, text: shown.clone(), place: None };
                self.values.put(option.name, setting);
                self.values.applied.insert(option.name, shown);
            }
        }
    }

    fn last_applied(&self, option: &OptionInfo) -> &str {
        match self.values.applied.get(option.name) {
            Some(text) => text,
            None => option.default_text(false),
        }
    }

    /// The value that counts, with its metavariables.
    pub(super) fn raw_of(&self, option: &OptionInfo) -> String {
        match (self.value_of(option), self.values.strongest(option.name)) {
            (Some(shown), _) if shown != self.last_applied(option) => shown,
            (_, Some(setting)) => setting.text.clone(),
            _ => option.default_text(self.identity.daemon).to_owned(),
        }
    }

    /// The value that counts of an option, with its metavariables as they were written; empty if there is no such
    /// option.
    ///
    /// ```
    /// let mut config = siphon_common::Config::default();
    /// config.set("admin_socket", "/run/$name.$pid.asok")?;
    /// assert_eq!(config.raw("admin_socket"), "/run/$name.$pid.asok");
    /// # Ok::<(), siphon_common::ConfigError>(())
    /// ```
    pub fn raw(&self, name: &str) -> String {
        Self::option(name).map_or_else(String::new, |option| self.raw_of(option))
    }

    /// A text with its metavariables, as `$cluster` and `$name`, replaced by what they stand for here.
    pub fn expand(&self, text: &str) -> String {
        metavariables::expand(self, text, None)
    }

    /// Replaces the metavariables in an option's value as they are for another entity, as
    /// `client.admin`, than this configuration's: for who authenticates as several.
    ///
    /// # Errors
    /// [`ConfigError::BadName`] and [`ConfigError::UnknownOption`].
    pub fn value_for(&self, entity: &str, name: &str) -> Result<String, ConfigError> {
        let option = Self::honoured(name)?;
        let mut other = self.clone();
        other.identity.set_name(entity)?;
        Ok(other.expanded(option, &self.raw_of(option)))
    }

    /// All options with the values that count, by name, as `config show` tells them; before them the
    /// entity's `name` and `cluster`. A key is not shown.
    pub fn show(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let mut options: Vec<_> = Self::options().collect();
        options.sort_unstable_by_key(|option| option.name);
        let who = [("name", self.name()), ("cluster", self.cluster().to_owned())];
        let shown = |option: &'static OptionInfo| (option.name, self.shown(option));
        who.into_iter().chain(options.into_iter().map(shown))
    }

    fn shown(&self, option: &OptionInfo) -> String {
        match self.value_of(option) {
            Some(value) if option.name == SECRET && !value.is_empty() => HIDDEN.to_owned(),
            value => value.unwrap_or_default(),
        }
    }

    /// The options that were given a value, by name, and what they were given.
    pub fn diff(&self) -> impl Iterator<Item = OptionDiff> + '_ {
        self.values.names().filter_map(Self::option_exactly).map(|option| {
            let hide = |setting: &Setting| Setting {
                text: if option.name == SECRET { HIDDEN.to_owned() } else { setting.text.clone() },
                ..setting.clone()
            };
            OptionDiff {
                option,
                default: option.default_text(self.identity.daemon).to_owned(),
                settings: self.values.of(option.name).iter().map(hide).collect(),
                value: self.shown(option),
            }
        })
    }

    /// What an option was given, from the weakest source to the strongest; nothing if it has its
    /// default.
    pub fn settings(&self, name: &str) -> &[Setting] {
        Self::option(name).map_or(&[], |option| self.values.of(option.name))
    }

    /// Who reads this configuration: `client.admin`, `osd.0`.
    pub fn name(&self) -> String {
        self.identity.name()
    }

    /// The cluster's name, usually `ceph`.
    pub fn cluster(&self) -> &str {
        &self.identity.cluster
    }

    /// Says who reads this configuration.
    ///
    /// # Errors
    /// [`ConfigError::BadName`], and nothing has changed.
    pub fn set_name(&mut self, name: &str) -> Result<(), ConfigError> {
        self.absorb();
        self.identity.set_name(name)?;
        self.expand_all();
        Ok(())
    }

    /// Takes the defaults of a daemon where they differ, as `log_file`, or of a client.
    pub fn set_daemon(&mut self, daemon: bool) {
        self.absorb();
        self.identity.daemon = daemon;
        for option in Self::options().filter(|option| option.daemon_default.is_some()) {
            self.apply(option).expect("a default is a value");
        }
    }
}

/// The error for a name that is not in the table.
pub(super) fn unknown(name: &str) -> ConfigError {
    let normal = super::table::normalize(name);
    match known::find(&normal) {
        Some(known) => {
            ConfigError::NotHonoured { name: known.name, reason: known::reason(known.name) }
        }
        None => {
            let nearest = nearest(&normal, known::names());
            ConfigError::UnknownOption { name: name.to_owned(), nearest }
        }
    }
}
