use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{ConfigError, SyntaxRule};

/// The longest configuration file that is read: real ones have a few KiB.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration file in the form of `ceph.conf`, as Ceph reads it since release 15.
///
/// The grammar is that of Ceph's `common/ConfUtils.cc` (16.2.7), with what surprises in it: a comment
/// begins with `#` or `;` anywhere, also within quotes; a section is not indented; the last line ends
/// as the others do; a `-` in a name is no `_`. `\` stands before a character that shall mean nothing
/// special, and at the end of a line that goes on in the next. Blanks at both ends of a value go, also
/// in quotes.
///
/// ```
/// use siphon_common::config::ConfFile;
///
/// let file = ConfFile::parse(b"[global]\nmon host = 10.0.0.1 # the first\n[osd.0]\nhost = a\n")
///     .map_err(|(line, rule)| format!("line {line}: {rule}"))?;
/// let line = file.lookup(["osd.0", "osd", "global"], "mon_host").unwrap();
/// assert_eq!((line.value.as_str(), line.number), ("10.0.0.1", 2));
/// assert_eq!(file.sections().collect::<Vec<_>>(), ["global", "osd.0"]);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfFile {
    sections: BTreeMap<String, Vec<ConfLine>>,
}

/// One `name = value` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfLine {
    /// The name with `_` for blanks in it.
    pub name: String,
    /// The value, without quotes, escapes and comments.
    pub value: String,
    /// The line that it begins in, counted from 1.
    pub number: usize,
}

impl ConfFile {
    /// Reads a file. One that is no regular file, as `/dev/null`, may be one all the same.
    ///
    /// # Errors
    /// [`ConfigError::File`], [`ConfigError::FileTooLong`] and [`ConfigError::Syntax`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text))
            .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(ConfigError::FileTooLong { path: path.to_owned() });
        }
        Self::parse(&text).map_err(|(line, rule)| ConfigError::Syntax {
            path: path.to_owned(),
            line,
            rule,
        })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that breaks the grammar, counted from 1, and how.
    pub fn parse(text: &[u8]) -> Result<Self, (usize, SyntaxRule)> {
        let number = |at: usize| 1 + text[..at].iter().filter(|byte| **byte == b'\n').count();
        let text = std::str::from_utf8(text)
            .map_err(|error| (number(error.valid_up_to()), SyntaxRule::NotUtf8))?;
        if text.starts_with('\u{feff}') {
            return Err((1, SyntaxRule::ByteOrderMark));
        }
        let mut parser = Parser { text, at: 0, line: 1 };
        parser.file().map_err(|rule| (parser.line, rule))
    }

    /// The sections, by name.
    pub fn sections(&self) -> impl ExactSizeIterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// The lines of a section in their order, those that a later one replaces among them.
    pub fn lines(&self, section: &str) -> &[ConfLine] {
        self.sections.get(section).map_or(&[], Vec::as_slice)
    }

    /// The line that counts for a name, which may have blanks for `_`: the last one of the first
    /// section that has any.
    pub fn lookup<'a>(
        &self,
        sections: impl IntoIterator<Item = &'a str>,
        name: &str,
    ) -> Option<&ConfLine> {
        let name = normal_name(name);
        let of = |section| self.lines(section).iter().rev().find(|line| line.name == name);
        sections.into_iter().find_map(of)
    }
}

/// No blanks at the ends, and one `_` for those between.
fn normal_name(name: &str) -> String {
    let words: Vec<_> = name.split(is_space).filter(|word| !word.is_empty()).collect();
    words.join("_")
}

/// `isspace` of C.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// A recursive descent with the places of Ceph's grammar at which comments and lines that go on are
/// skipped: before each character of a name or a value, and not within quotes.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Of `at`, counted from 1.
    line: usize,
}

impl Parser<'_> {
    fn file(&mut self) -> Result<ConfFile, SyntaxRule> {
        let mut file = ConfFile::default();
        // A file that consists of one line with a value needs no section.
        if let Some(line) = self.key_value()? {
            file.sections.insert("global".to_owned(), vec![line]);
            return self.end(file, SyntaxRule::OutsideSection);
        }
        self.skip();
        while self.end_of_line() {
            self.skip();
        }
        while let Some(heading) = self.heading()? {
            let section = file.sections.entry(heading).or_default();
            while !self.is_heading()
                && let Some(line) = self.key_value()?
            {
                section.push(line);
            }
        }
        let rule = self.broken_rule(file.sections.is_empty());
        self.end(file, rule)
    }

    /// All must have been read.
    fn end(&mut self, file: ConfFile, rule: SyntaxRule) -> Result<ConfFile, SyntaxRule> {
        self.skip();
        if self.at == self.text.len() { Ok(file) } else { Err(rule) }
    }

    /// What is wrong with a line that is neither a section nor an option.
    fn broken_rule(&self, before_sections: bool) -> SyntaxRule {
        let line = self.rest().split(['\n', '\r']).next().unwrap_or_default();
        match line.trim_start() {
            "" => SyntaxRule::BlankFirst,
            section if section.starts_with('[') => SyntaxRule::IndentedSection,
            option if before_sections && option.contains('=') => SyntaxRule::OutsideSection,
            _ => SyntaxRule::NoEquals,
        }
    }

    fn is_heading(&mut self) -> bool {
        self.skip();
        self.peek() == Some('[')
    }

    fn heading(&mut self) -> Result<Option<String>, SyntaxRule> {
        if !self.is_heading() {
            return Ok(None);
        }
        self.bump();
        let mut name = String::new();
        loop {
            self.skip();
            match self.peek() {
                Some(']') => break,
                _ => name.push(self.text_char().ok_or(SyntaxRule::BadSection)?),
            }
        }
        self.bump();
        if name.is_empty() {
            return Err(SyntaxRule::BadSection);
        }
        match self.empty_lines() {
            true => Ok(Some(name)),
            false if self.at == self.text.len() => Err(SyntaxRule::NoNewline),
            _ => Err(SyntaxRule::BadSection),
        }
    }

    fn key_value(&mut self) -> Result<Option<ConfLine>, SyntaxRule> {
        let start = (self.at, self.line);
        self.blanks();
        self.skip();
        let number = self.line;
        let Some(name) = self.key() else {
            (self.at, self.line) = start;
            return Ok(None);
        };
        self.blanks();
        self.skip();
        if self.peek() != Some('=') {
            (self.at, self.line) = start;
            return Ok(None);
        }
        self.bump();
        self.blanks();
        let value = self.value()?;
        if !self.empty_lines() {
            let at_end = self.at == self.text.len();
            return Err(if at_end { SyntaxRule::NoNewline } else { SyntaxRule::BadQuote });
        }
        let value = value.trim_matches(is_space).to_owned();
        Ok(Some(ConfLine { name, value, number }))
    }

    /// Words with single blanks between; with their escapes, as they stand.
    fn key(&mut self) -> Option<String> {
        let begin = self.at;
        let mut end = (begin, self.line);
        loop {
            let word = self.at;
            loop {
                let before = (self.at, self.line);
                self.skip();
                let stops = self.peek().is_none_or(|c| "=[ ".contains(c));
                if stops || self.text_char().is_none() {
                    (self.at, self.line) = before;
                    break;
                }
            }
            if self.at == word {
                break;
            }
            end = (self.at, self.line);
            self.skip();
            while matches!(self.peek(), Some(' ' | '\t')) {
                self.bump();
                self.skip();
            }
        }
        (self.at, self.line) = end;
        (end.0 > begin).then(|| normal_name(&self.text[begin..end.0]))
    }

    fn value(&mut self) -> Result<String, SyntaxRule> {
        self.skip();
        let mut value = String::new();
        if let Some(quote @ ('"' | '\'')) = self.peek() {
            self.bump();
            while self.peek() != Some(quote) {
                value.push(self.text_char().ok_or(SyntaxRule::BadQuote)?);
            }
            self.bump();
            return Ok(value);
        }
        loop {
            self.skip();
            match self.text_char() {
                Some(c) => value.push(c),
                None => return Ok(value),
            }
        }
    }

    /// The end of this line, and all lines behind it that are empty; `false` if the line goes on.
    fn empty_lines(&mut self) -> bool {
        let mut any = false;
        loop {
            let before = (self.at, self.line);
            self.blanks();
            if !self.end_of_line() {
                if any {
                    (self.at, self.line) = before;
                }
                return any;
            }
            any = true;
        }
    }

    /// A character that means nothing special, or one behind `\`.
    fn text_char(&mut self) -> Option<char> {
        let mut chars = self.rest().chars();
        let first = chars.next()?;
        let escaped = chars.next().filter(|c| first == '\\' && !is_line_end(*c));
        if escaped.is_none() && (matches!(first, '#' | ';') || is_line_end(first)) {
            return None;
        }
        self.bump();
        if escaped.is_some() {
            self.bump();
        }
        escaped.or(Some(first))
    }

    fn blanks(&mut self) {
        self.skip();
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.bump();
        }
    }

    /// Passes over comments, with the blanks before them, and over `\` at the end of a line.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
            if rest[blanks..].starts_with(['#', ';']) {
                self.at += rest.find(is_line_end).unwrap_or(rest.len());
            } else if rest.starts_with('\\') && rest[1..].starts_with(is_line_end) {
                self.at += 1;
                self.end_of_line();
            } else {
                return;
            }
        }
    }

    /// `\n`, `\r` or both.
    fn end_of_line(&mut self) -> bool {
        let rest = self.rest();
        let len = match rest.as_bytes() {
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            _ => return false,
        };
        self.line += rest[..len].matches('\n').count();
        self.at += len;
        true
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Passes over a character, which is none that ends a line.
    fn bump(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_escaped_continued_and_commented() {
        let text = "[global]\na = \"x y\" # z\nb = x\\#y ; z\nc = x \\\n  y\nd =\n e f = ' q ' \r\n\
                    g\\\n = 1 # \\\n# h = 2\ng = 3\n";
        let file = ConfFile::parse(text.as_bytes()).unwrap();
        let lines = file.lines("global").iter();
        let got: Vec<_> =
            lines.map(|line| (line.number, line.name.as_str(), line.value.as_str())).collect();
        let want = [
            (2, "a", "x y"),
            (3, "b", "x#y"),
            (4, "c", "x   y"),
            (6, "d", ""),
            (7, "e_f", "q"),
            (8, "g", "1"),
            (11, "g", "3"),
        ];
        assert_eq!(got, want);
        assert_eq!(file.lookup(["global"], " g ").unwrap().value, "3");
    }

    #[test]
    fn a_broken_line_is_named() {
        for (text, line, rule) in [
            (&b"a = 1\nb = 2\n"[..], 2, SyntaxRule::OutsideSection),
            (b"\na = 1\n", 2, SyntaxRule::OutsideSection),
            (b"  \n[global]\n", 1, SyntaxRule::BlankFirst),
            (b"[global]\n [osd]\n", 2, SyntaxRule::IndentedSection),
            (b"\n[global\n", 2, SyntaxRule::BadSection),
            (b"[]\n", 1, SyntaxRule::BadSection),
            (b"[a] b\n", 1, SyntaxRule::BadSection),
            (b"[a]", 1, SyntaxRule::NoNewline),
            (b"\xef\xbb\xbf[global]\nms_type = x\n", 1, SyntaxRule::ByteOrderMark),
            (b"[global]\nms_type\n", 2, SyntaxRule::NoEquals),
            (b"[global]\nms_type = x", 2, SyntaxRule::NoNewline),
            (b"[global]\nms_type = \"x\n", 2, SyntaxRule::BadQuote),
            (b"[global]\nms_type = \"x # y\"\n", 2, SyntaxRule::BadQuote),
            (b"[global]\nms_type = 'x' y\n", 2, SyntaxRule::BadQuote),
            (b"[global]\n\xff = 1\n", 2, SyntaxRule::NotUtf8),
        ] {
            let name = String::from_utf8_lossy(text);
            assert_eq!(ConfFile::parse(text), Err((line, rule)), "{name}");
        }
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let error = ConfFile::read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, ConfigError::FileTooLong { .. }), "{error}");
    }
}
