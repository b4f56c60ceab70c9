use std::path::PathBuf;

use super::{MAX_FILE_BYTES, OptionInfo};

/// Why an option was not taken. Each is the user's to mend.
///
/// A cause is in `source` and not in the text: print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no option of that name.
    #[error("no option is called '{name}'; did you mean '{nearest}'?")]
    UnknownOption {
        /// What the user wrote.
        name: String,
        /// The option whose name comes nearest.
        nearest: &'static str,
    },
    /// The option ends the command line, but takes a value.
    #[error("--{} needs a value: {}", .option.name, .option.kind)]
    MissingValue {
        /// The option.
        option: &'static OptionInfo,
    },
    /// The value does not fit the option.
    #[error("{} = '{value}': {reason}; it takes {}", .option.name, .option.kind)]
    BadValue {
        /// The option.
        option: &'static OptionInfo,
        /// What the user wrote.
        value: String,
        /// What is wrong with it.
        reason: ValueError,
    },
    /// `-c` or `--conf` ends the command line.
    #[error("{flag} needs the path of a configuration file")]
    MissingFile {
        /// The flag as the user wrote it.
        flag: String,
    },
    /// A configuration file cannot be read.
    #[error("cannot read the configuration file {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A configuration file is longer than any real one.
    #[error("the configuration file {} is longer than {MAX_FILE_BYTES} bytes", .path.display())]
    FileTooLong {
        /// The file.
        path: PathBuf,
    },
    /// A line of a configuration file breaks its grammar.
    #[error("in {} line {line}: {rule}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The rule that it breaks.
        rule: SyntaxRule,
    },
    /// An option that we know has a bad value in a configuration file.
    #[error("in {} line {line}", .path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: Box<Self>,
    },
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Text where a number must be.
    #[error("not a number")]
    NotANumber,
    /// A suffix that is none of Ceph's.
    #[error("unknown unit")]
    UnknownUnit,
    /// A number beyond the option's range.
    #[error("out of range")]
    OutOfRange,
    /// Neither true nor false.
    #[error("neither true nor false")]
    NotABool,
    /// Not among the words that an option knows.
    #[error("no such word")]
    UnknownWord,
}

/// The rules of a configuration file that a line can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyntaxRule {
    /// `[name` without its bracket, or with something behind it.
    #[error("a section is written [name]")]
    BadSection,
    /// An option before the first section.
    #[error("an option stands before the first section, such as [global]")]
    OutsideSection,
    /// Neither a section nor `name = value`.
    #[error("neither [section] nor name = value")]
    NoEquals,
    /// A quoted value that does not end on its line.
    #[error("the quote is not closed, or something follows it")]
    BadQuote,
    /// A byte that is not UTF-8.
    #[error("not UTF-8 text")]
    NotUtf8,
}

/// The candidate with the fewest edits from `name`; the table is never empty.
pub(super) fn nearest(name: &str, candidates: impl Iterator<Item = &'static str>) -> &'static str {
    candidates.min_by_key(|candidate| edits(name, candidate)).unwrap_or_default()
}

/// Levenshtein's distance, in one row.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_count_insertions_removals_and_replacements() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("ms_type", "ms_type"), 0);
        assert_eq!(nearest("ms_typ", ["ms_x", "ms_type"].into_iter()), "ms_type");
    }
}
