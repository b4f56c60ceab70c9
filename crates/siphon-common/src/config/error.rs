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
    /// Ceph has the option, and Siphon does nothing with it.
    #[error("{name} is an option of Ceph's that has no effect here: {reason}")]
    NotHonoured {
        /// The option.
        name: &'static str,
        /// Why it has no effect.
        reason: &'static str,
    },
    /// The option is read when the program starts, and not again.
    #[error("{} may not be modified at runtime: start the program again with it", .option.name)]
    NeedsRestart {
        /// The option.
        option: &'static OptionInfo,
    },
    /// The name of an entity is none.
    #[error(
        "'{name}' is no entity's name: write TYPE.ID, as client.admin; types are auth, mon, osd, mds, mgr, client"
    )]
    BadName {
        /// What the user wrote.
        name: String,
    },
    /// Something else where only options can be.
    #[error("'{text}' is no option: write --name=value")]
    NotAnOption {
        /// What the user wrote.
        text: String,
    },
    /// None of the files that the user named can be read.
    #[error("no configuration file of {searched} can be opened")]
    NoFile {
        /// What the user wrote, several parted by commas.
        searched: String,
        /// What the system says of the last one.
        source: std::io::Error,
    },
    /// `$CEPH_CONF` names files of which none can be read: the program goes on without, as Ceph's do.
    #[error(
        "no configuration file of $CEPH_CONF, {searched}, can be opened ({source}): the defaults count"
    )]
    NoFileOfEnvironment {
        /// What the variable says, several parted by commas.
        searched: String,
        /// What the system says of the last one.
        source: std::io::Error,
    },
    /// A variable of the environment says something wrong.
    #[error("in ${variable}")]
    InEnvironment {
        /// Which.
        variable: &'static str,
        /// What is wrong.
        source: Box<Self>,
    },
    /// Of a file with so many mistakes not all are told.
    #[error("{count} more mistakes like these, which are not told one by one")]
    More {
        /// How many.
        count: usize,
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
    /// `-c` or another argument that says who reads what ends the command line.
    #[error("{flag} needs a value: -c a file, -n an entity as client.admin, --cluster a name")]
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
    /// A section that nobody looks into.
    #[error(
        "section [{name}] is for nobody: write [global], [TYPE] or [TYPE.ID], where types are mon, osd, mds, mgr, client"
    )]
    UnknownSection {
        /// The section.
        name: String,
    },
    /// A line of a configuration file says something wrong.
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

impl ConfigError {
    /// The number of the error by which Ceph answers over the admin socket: 2 (ENOENT) for an option
    /// that there is not, 1 (EPERM) for one that needs a restart, 22 (EINVAL) for anything else.
    pub const fn errno(&self) -> i32 {
        match self {
            Self::UnknownOption { .. } | Self::NotHonoured { .. } => 2,
            Self::NeedsRestart { .. } => 1,
            _ => 22,
        }
    }
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
    /// The file begins with U+FEFF, which is no blank to Ceph either.
    #[error(
        "the file begins with a byte order mark, which Ceph cannot read: save it as UTF-8 without (BOM)"
    )]
    ByteOrderMark,
    /// `[name` without its bracket, without a name, or with something behind it.
    #[error("a section is written [name], without # and ;")]
    BadSection,
    /// Blanks before a section.
    #[error("a section begins in the first column: take out the blanks before it")]
    IndentedSection,
    /// A line of blanks before the first section.
    #[error("a line of blanks before the first section: make it empty")]
    BlankFirst,
    /// An option before the first section.
    #[error("an option stands before the first section, such as [global]")]
    OutsideSection,
    /// Neither a section nor `name = value`.
    #[error("neither [section] nor name = value")]
    NoEquals,
    /// A quoted value that does not end on its line.
    #[error(
        "the quote is not closed, or something follows it; in quotes too, write \\# and \\; for # and ;"
    )]
    BadQuote,
    /// The last line has a value or a section, and no end.
    #[error("the last line does not end: put a newline behind it")]
    NoNewline,
    /// A byte that is not UTF-8.
    #[error("not UTF-8 text")]
    NotUtf8,
}

/// The candidate with the fewest edits from `name`; the table is never empty.
///
/// Of a name in other letters than ASCII it may be one that is nearly so near.
pub(super) fn nearest(name: &str, candidates: impl Iterator<Item = &'static str>) -> &'static str {
    let (mut best, mut fewest) = ("", usize::MAX);
    for candidate in candidates {
        // As many edits it takes at least.
        if candidate.len().abs_diff(name.len()) < fewest {
            let edits = edits(name, candidate);
            if edits < fewest {
                (best, fewest) = (candidate, edits);
            }
        }
    }
    best
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
