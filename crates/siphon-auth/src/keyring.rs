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

    /// The text of a keyring file, secrets and all.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(self.entities.len() * 512));
        for (name, auth) in &self.entities {
            // Writing to a string does not fail.
            let _ = write!(text, "[{name}]\n\tkey = {}\n", *auth.key.to_base64());
            for (service, caps) in &auth.caps {
                let _ = writeln!(text, "\tcaps {service} = \"{}\"", caps.replace('"', "\\\""));
            }
        }
        text
    }
}

impl std::str::FromStr for Keyring {
    type Err = KeyringError;

    fn from_str(text: &str) -> Result<Self, KeyringError> {
        let mut keyring = Self::default();
        let mut section = None;
        for (index, line) in text.lines().enumerate() {
            let fail = |rule| KeyringError { line: index + 1, rule };
            let line = line.split(['#', ';']).next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                let name = rest.strip_suffix(']').ok_or_else(|| fail(KeyringRule::Section))?;
                let name: AuthName = name.trim().parse().map_err(|_| fail(KeyringRule::Name))?;
                section = Some(name);
                continue;
            }
            let name = section.clone().ok_or_else(|| fail(KeyringRule::NoSection))?;
            let auth = keyring.entities.entry(name).or_default();
            let (field, value) = line.split_once('=').ok_or_else(|| fail(KeyringRule::Line))?;
            let field = field.trim().replace('_', " ");
            match field.split_whitespace().collect::<Vec<_>>()[..] {
                ["key"] => {
                    let parsed = unquoted(value).parse();
                    auth.key = parsed.map_err(|error| fail(KeyringRule::Key(error)))?;
                }
                ["caps", service] => {
                    auth.caps.insert(service.to_owned(), unquoted(value));
                }
                ["auid"] => {} // of old
                _ => return Err(fail(KeyringRule::Line)),
            }
        }
        Ok(keyring)
    }
}

fn unquoted(value: &str) -> String {
    let value = value.trim();
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(value).replace("\\\"", "\"")
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

    #[test]
    fn what_is_no_keyring_is_told_with_its_line() {
        let rows = [
            ("key = x", 1, KeyringRule::NoSection),
            ("\n[client.a\n", 2, KeyringRule::Section),
            ("[nobody]", 1, KeyringRule::Name),
            ("[client.a]\nkey = !", 2, KeyringRule::Key(KeyError::NotBase64)),
            ("[client.a]\nkey = AQBRlwhh", 2, KeyringRule::Key(KeyError::Truncated)),
            ("[client.a]\nnonsense", 2, KeyringRule::Line),
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
