//! What is wrong in a file, of all that it says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::changes::unknown;
use super::identity::TYPES;
use super::load::ConfigWarning;
use super::values::{Place, Source};
use super::{ConfFile, Config, ConfigError, OptionInfo, known};

/// Warnings of one file, of further ones their number; looking for the nearest of all names takes its time.
pub(super) const MAX_WARNINGS: usize = 100;

impl Config {
    /// Looks for whatever is wrong in a file, in the sections of everybody, by lines: names that are
    /// no option's, sections that are nobody's, bad values of options that Siphon honours. Of what is beyond a
    /// hundred the number is told, as the last ([`ConfigError::More`]).
    ///
    /// # Errors
    /// It cannot be read, or breaks the grammar.
    ///
    /// ```
    /// let warnings = siphon_common::Config::check_file("/dev/null")?;
    /// assert!(warnings.is_empty());
    /// # Ok::<(), siphon_common::ConfigError>(())
    /// ```
    pub fn check_file(path: impl Into<PathBuf>) -> Result<Vec<ConfigWarning>, ConfigError> {
        let path: PathBuf = path.into();
        let file = ConfFile::read(&path)?;
        let path: Arc<Path> = path.into();
        let (mut found, mut more) = (Vec::new(), 0);
        for section in file.sections() {
            let lines = file.lines(section);
            let first = lines.first().map_or(0, |line| line.number);
            let warn = |line, error| ConfigWarning {
                place: Some(Place { path: Arc::clone(&path), line }),
                error,
            };
            if !is_section(section) && found.len() < MAX_WARNINGS {
                found.push(warn(first, ConfigError::UnknownSection { name: section.to_owned() }));
            } else if !is_section(section) {
                more += 1;
            }
            for line in lines {
                let is_told = found.len() < MAX_WARNINGS;
                let problem = match Self::option_exactly(&line.name) {
                    Some(option) => {
                        Self::default().put(Source::File, option, &line.value, None).err()
                    }
                    None if known::find(&line.name).is_some() => None,
                    None if is_told => Some(unknown_line(&line.name)),
                    None => {
                        more += 1;
                        None
                    }
                };
                match problem {
                    Some(error) if is_told => found.push(warn(line.number, error)),
                    problem => more += usize::from(problem.is_some()),
                }
            }
        }
        found.sort_by_key(|warning| warning.place.as_ref().map(|place| place.line));
        found.extend(further(more));
        Ok(found)
    }
}

/// What is told of warnings that are not.
pub(super) fn further(count: usize) -> Option<ConfigWarning> {
    (count > 0).then_some(ConfigWarning { place: None, error: ConfigError::More { count } })
}

/// A file has `_` or blanks in names, and no `-`.
pub(super) fn unknown_line(name: &str) -> ConfigError {
    match Config::option(name) {
        Some(OptionInfo { name: nearest, .. }) => {
            ConfigError::UnknownOption { name: name.to_owned(), nearest }
        }
        None => match unknown(name) {
            ConfigError::NotHonoured { name: nearest, .. } => {
                ConfigError::UnknownOption { name: name.to_owned(), nearest }
            }
            error => error,
        },
    }
}

fn is_section(name: &str) -> bool {
    let (kind, id) = name.split_once('.').map_or((name, None), |(kind, id)| (kind, Some(id)));
    (name == "global" || TYPES.contains(&kind)) && id != Some("")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of any length was checked up to its hundredth mistake, and said no word of the others.
    #[test]
    fn mistakes_beyond_a_hundred_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.conf");
        let unknown: String = (0..150).map(|number| format!("no_such_{number} = 1\n")).collect();
        let bad = "ms_crc_data = perhaps\nms_type = x\n".repeat(7);
        std::fs::write(&path, format!("[global]\n{unknown}{bad}")).unwrap();
        let found = Config::check_file(&path).unwrap();
        assert_eq!(found.len(), 101);
        assert!(found[99].place.as_ref().is_some_and(|place| place.line == 101));
        assert!(matches!(found[100].error, ConfigError::More { count: 57 }), "{}", found[100]);
        // Whoever reads it is told the same, but for bad values, which end that.
        std::fs::write(&path, format!("[global]\n{unknown}")).unwrap();
        let args = ["-c", path.to_str().unwrap()];
        let loader = super::super::ConfigLoader::new().without_environment();
        let warnings = loader.load(args).unwrap().warnings;
        assert!(matches!(warnings[100].error, ConfigError::More { count: 50 }));
    }
}
