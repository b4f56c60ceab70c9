use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use siphon_wire::types::AuthName;
use zeroize::Zeroizing;

use crate::{CryptoKey, KeyError};

/// What somebody may do, by the service it is asked of: `mon` → `allow r`.
pub type Caps = BTreeMap<String, String>;

/// The key of somebody, and what a monitor lets it do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntityAuth {
    /// The key.
    pub key: CryptoKey,
    /// Its capabilities.
    pub caps: Caps,
}

/// Keys by whose they are: the text file that Ceph calls a keyring.
///
/// ```
/// use siphon_auth::Keyring;
/// let keyring: Keyring = "\
/// [client.admin]
///     key = AQBRlwhhAAAAABAA6ZQPdGcyCtGm2z+KcnYZyA==
///     caps mon = \"allow *\"
/// ".parse()?;
/// let admin = "client.admin".parse()?;
/// assert_eq!(keyring.get(&admin).unwrap().caps["mon"], "allow *");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    entities: BTreeMap<AuthName, EntityAuth>,
}

/// A line of a keyring that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyringError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub rule: KeyringRule,
}

/// What a line of a keyring has to keep to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyringRule {
    /// A section is an entity's name.
    Name,
    /// A section begins with `[` and ends with `]`.
    Section,
    /// A line belongs to a section.
    NoSection,
    /// A line is `key = …` or `caps SERVICE = "…"`.
    Line,
    /// What begins with a quotation mark ends with one, and nothing but a comment stands behind it.
    Quotes,
    /// The key is one.
    Key(KeyError),
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the keyring: ", self.line)?;
        match &self.rule {
            KeyringRule::Name => f.write_str("a section names an entity, such as [client.admin]"),
            KeyringRule::Section => f.write_str("a section's name ends with ]"),
            KeyringRule::NoSection => f.write_str("a section such as [client.admin] comes first"),
            KeyringRule::Line => f.write_str("expected: key = …, or caps SERVICE = \"…\""),
            KeyringRule::Quotes => f.write_str("a quoted value ends with its quotation mark"),
            KeyringRule::Key(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for KeyringError {}

impl Keyring {
    /// The entry of `name`.
    pub fn get(&self, name: &AuthName) -> Option<&EntityAuth> {
        self.entities.get(name)
    }

    /// Adds an entry, or replaces it.
    pub fn insert(&mut self, name: AuthName, auth: EntityAuth) {
        self.entities.insert(name, auth);
    }

    /// Removes an entry.
    pub fn remove(&mut self, name: &AuthName) -> Option<EntityAuth> {
        self.entities.remove(name)
    }

    /// All entries, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&AuthName, &EntityAuth)> {
        self.entities.iter()
    }

    /// The text of a keyring file, secrets and all, which Ceph reads as well.
    ///
    /// A line break in capabilities becomes a blank, which means the same there. An entity whose name
    /// has one, or that is no text, has no place in such a file and is left out; so are capabilities
    /// for what cannot be a service.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(self.text_capacity()));
        for (name, auth) in &self.entities {
            let Some(name) = section_name(name) else {
                continue;
            };
            // Writing to a string does not fail.
            let _ = write!(text, "[{name}]\n\tkey = {}\n", *auth.key.to_base64());
            for (service, caps) in auth.caps.iter().filter(|(service, _)| is_service(service)) {
                let _ = writeln!(text, "\tcaps {service} = \"{}\"", escaped(caps, '"'));
            }
        }
        text
    }

    /// Enough bytes that the text never grows, which would leave keys behind: each character may be
    /// escaped.
    fn text_capacity(&self) -> usize {
        let entries = self.entities.iter().map(|(name, auth)| {
            let caps = auth.caps.iter().map(|(service, caps)| service.len() + 2 * caps.len() + 16);
            2 * name.id.len() + auth.key.to_base64().len() + 64 + caps.sum::<usize>()
        });
        entries.sum()
    }
}

impl std::str::FromStr for Keyring {
    type Err = KeyringError;

    fn from_str(text: &str) -> Result<Self, KeyringError> {
        let mut keyring = Self::default();
        let mut section = Section::None;
        for (index, line) in text.lines().enumerate() {
            let fail = |rule| KeyringError { line: index + 1, rule };
            let line = line.trim();
            if line.contains(LINE_BREAKS) {
                return Err(fail(KeyringRule::Line)); // a carriage return within
            }
            if line.is_empty() || line.starts_with(COMMENT) {
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                section = Section::parse(rest).map_err(fail)?;
                continue;
            }
            let name = match &section {
                Section::None => return Err(fail(KeyringRule::NoSection)),
                Section::Global => continue,
                Section::Of(name) => name.clone(),
            };
            let auth = keyring.entities.entry(name).or_default();
            auth.set(line).map_err(fail)?;
        }
        Ok(keyring)
    }
}

/// What ends a line.
const LINE_BREAKS: [char; 2] = ['\n', '\r'];
/// What begins a comment, unless it is quoted or escaped.
const COMMENT: [char; 2] = ['#', ';'];

/// The entity that lines belong to.
enum Section {
    None,
    /// Of no entity: Ceph passes over it.
    Global,
    Of(AuthName),
}

impl Section {
    /// A section's name, behind its opening bracket.
    fn parse(rest: &str) -> Result<Self, KeyringRule> {
        let (name, rest) = until(rest, |c| c == ']').ok_or(KeyringRule::Section)?;
        if !is_comment(rest) {
            return Err(KeyringRule::Section);
        }
        match name.trim() {
            "global" => Ok(Self::Global),
            name => name.parse().map(Self::Of).map_err(|_| KeyringRule::Name),
        }
    }
}

impl EntityAuth {
    fn set(&mut self, line: &str) -> Result<(), KeyringRule> {
        let (field, value) = line.split_once('=').ok_or(KeyringRule::Line)?;
        let field = field.replace('_', " ");
        match field.split_whitespace().collect::<Vec<_>>()[..] {
            ["key"] => self.key = unquoted(value)?.parse().map_err(KeyringRule::Key)?,
            ["caps", service] if is_service(service) => {
                self.caps.insert(service.to_owned(), unquoted(value)?.to_string());
            }
            ["auid"] => {} // of old
            _ => return Err(KeyringRule::Line),
        }
        Ok(())
    }
}

/// A value without its quotation marks, and without a comment behind it. It may be a key.
fn unquoted(value: &str) -> Result<Zeroizing<String>, KeyringRule> {
    let value = value.trim();
    match value.chars().next() {
        Some(mark @ ('"' | '\'')) => {
            let (value, rest) = until(&value[1..], |c| c == mark).ok_or(KeyringRule::Quotes)?;
            if is_comment(rest) { Ok(value) } else { Err(KeyringRule::Quotes) }
        }
        _ => {
            // A line that ends with its escape goes on in Ceph; nobody writes keyrings so.
            let (mut value, _) = until_end_or(value, |c| COMMENT.contains(&c));
            let len = value.trim_end().len();
            value.truncate(len);
            Ok(value)
        }
    }
}

/// What stands before the first character that `ends` and is not escaped, without escapes, and what
/// stands behind that.
fn until(text: &str, ends: impl Fn(char) -> bool) -> Option<(Zeroizing<String>, &str)> {
    let (value, rest) = until_end_or(text, ends);
    Some((value, rest?))
}

/// The same; all of it, if nothing ends it.
fn until_end_or(text: &str, ends: impl Fn(char) -> bool) -> (Zeroizing<String>, Option<&str>) {
    let mut value = Zeroizing::new(String::with_capacity(text.len()));
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if ends(c) {
            return (value, text.get(at + c.len_utf8()..));
        }
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, None)
}

fn is_comment(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with(COMMENT)
}

/// A section's name as it is written, if it can be.
fn section_name(name: &AuthName) -> Option<String> {
    let text = name.to_string();
    let comes_back = text.parse().as_ref() == Ok(name) && text.trim() == text;
    (comes_back && !text.contains(LINE_BREAKS)).then(|| escaped(&text, ']'))
}

/// Whether a service can be named so in a keyring.
fn is_service(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

/// What [`until`] this mark gives back.
fn escaped(text: &str, mark: char) -> String {
    let mut out = String::with_capacity(2 * text.len());
    for c in text.chars() {
        if c == mark || c == '\\' || COMMENT.contains(&c) {
            out.push('\\');
        }
        out.push(if LINE_BREAKS.contains(&c) { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[client.admin]\n\tkey = AQBRlwhhAAAAABAA6ZQPdGcyCtGm2z+KcnYZyA==\n\
        \tcaps mds = \"allow *\"\n\tcaps mon = \"allow command \\\"auth get\\\"\"\n";

    #[test]
    fn a_keyring_comes_out_as_it_went_in() {
        let keyring: Keyring = TEXT.parse().unwrap();
        assert_eq!(*keyring.to_text(), TEXT);
        let caps = &keyring.get(&"client.admin".parse().unwrap()).unwrap().caps;
        assert_eq!(caps["mon"], "allow command \"auth get\"");
    }

    /// What a `#` or a `;` stood in was cut there, unquoted by half and granted so.
    #[test]
    fn capabilities_are_read_as_ceph_reads_them() {
        let rows = [
            ("\"allow r; allow w pool=a#b\"", "allow r; allow w pool=a#b"),
            ("\"allow r\" # a comment", "allow r"),
            ("'allow \"r\"'; a comment", "allow \"r\""),
            ("allow r # a comment", "allow r"),
            ("allow r\\; allow w", "allow r; allow w"),
            ("\"allow \\\\ \\\"\"", "allow \\ \""),
            ("", ""),
        ];
        for (written, expected) in rows {
            let text = format!("[client.a]\ncaps_osd = {written}");
            let keyring: Keyring = text.parse().unwrap();
            let auth = keyring.get(&"client.a".parse().unwrap()).unwrap();
            assert_eq!(auth.caps["osd"], expected, "{written}");
            assert_eq!(keyring.to_text().parse::<Keyring>().unwrap(), keyring);
        }
        for written in ["\"allow r", "'allow r\"", "\"allow r\" allow w"] {
            let error = format!("[client.a]\ncaps osd = {written}").parse::<Keyring>().unwrap_err();
            assert_eq!(error.rule, KeyringRule::Quotes, "{written}");
        }
    }

    #[test]
    fn nobody_writes_himself_a_second_entry() {
        let caps = "allow r\"\n[client.admin]\n\tcaps mon = \"allow *\\";
        let names = ["client.a]b\\c#", "client.a]\n[client.admin", " client.a"];
        let mut keyring = Keyring::default();
        for name in names {
            let name = AuthName::new(siphon_wire::types::EntityType::CLIENT, &name[7..]);
            let services = ["osd", "mon = x\n[client.admin]\ncaps mds"];
            let caps = services.map(|service| (service.to_owned(), caps.to_owned())).into();
            keyring.insert(name, EntityAuth { caps, ..EntityAuth::default() });
        }
        // A key that is none is still none when it comes back.
        let key = "AQBRlwhhAAAAABAA6ZQPdGcyCtGm2z+KcnYZyA==";
        keyring.entities.values_mut().for_each(|auth| auth.key = key.parse().unwrap());
        let read: Keyring = keyring.to_text().parse().unwrap();
        assert_eq!(read.get(&"client.admin".parse().unwrap()), None);
        let auth = read.get(&"client.a]b\\c#".parse().unwrap()).unwrap();
        assert_eq!(auth.caps.len(), 1);
        assert_eq!(auth.caps["osd"], caps.replace('\n', " "));
    }

    #[test]
    fn what_is_of_no_entity_is_passed_over() {
        let text = format!("[global]\n\tfsid = 1\n{TEXT}");
        assert_eq!(text.parse::<Keyring>(), TEXT.parse::<Keyring>());
    }

    #[test]
    fn what_is_no_keyring_is_told_with_its_line() {
        let rows = [
            ("key = x", 1, KeyringRule::NoSection),
            ("\n[client.a\n", 2, KeyringRule::Section),
            ("[nobody]", 1, KeyringRule::Name),
            ("[client.a]\nkey = !", 2, KeyringRule::Key(KeyError::NotBase64)),
            ("[client.a]\nkey = AQBRlwhh", 2, KeyringRule::Key(KeyError::Truncated)),
            ("[client.a]\nnonsense", 2, KeyringRule::Line),
            ("[client.a]\ncaps a b = x", 2, KeyringRule::Line),
            ("[client.a] nonsense", 1, KeyringRule::Section),
        ];
        for (text, line, rule) in rows {
            assert_eq!(text.parse::<Keyring>(), Err(KeyringError { line, rule }), "{text}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let keyring: Keyring = TEXT.parse().unwrap();
        assert!(!format!("{keyring:?}").contains("RlwhhAAAAABAA6"));
    }
}
