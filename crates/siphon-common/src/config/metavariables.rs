use super::{Config, known};

/// What `$name` and the like mean.
///
/// As `md_config_t::_expand_meta` of Ceph's `common/config.cc` (16.2.7): a name has the letters `a` to
/// `z` and `_`; besides the special ones, it is any option's. What is unknown stays as it is. `$home`
/// replaces all that is before it.
pub(super) fn expand(config: &Config, text: &str, within: Option<&str>) -> String {
    let mut stack: Vec<String> = within.map(str::to_owned).into_iter().collect();
    expand_in(config, text, &mut stack).unwrap_or_else(|looped| looped)
}

/// `Err` is what a reference that leads to itself comes to: the variable, and nothing around it.
fn expand_in(config: &Config, text: &str, stack: &mut Vec<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let reference = Reference::read(&rest[at..]);
        rest = reference.behind;
        match reference.name {
            "" => out.push('$'),
            // Ceph's own: what was before it is gone.
            "home" => out = std::env::var("HOME").unwrap_or_default(),
            name => match special(config, name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&option(config, name, reference.text, stack)?),
            },
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// `$name` or `${name}` at the beginning of a text.
struct Reference<'a> {
    /// Empty: a `$` that means nothing.
    name: &'a str,
    text: &'a str,
    behind: &'a str,
}

impl<'a> Reference<'a> {
    fn read(text: &'a str) -> Self {
        let braced = text[1..].starts_with('{');
        let begin = if braced { 2 } else { 1 };
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let end = text[begin..].find(|c| !is_name(c)).map(|at| begin + at);
        let at = end.unwrap_or(text.len());
        match (braced, end) {
            (false, _) => Self { name: &text[begin..at], text: &text[..at], behind: &text[at..] },
            (true, Some(end)) if text[end..].starts_with('}') => {
                Self { name: &text[begin..end], text: &text[..=end], behind: &text[end + 1..] }
            }
            // Not closed: what could have been its name is lost.
            (true, _) => Self { name: "", text: &text[..at], behind: &text[at..] },
        }
    }
}

fn special(config: &Config, name: &str) -> Option<String> {
    Some(match name {
        "type" => config.identity.kind().to_owned(),
        "cluster" => config.identity.cluster.clone(),
        "name" => config.identity.name(),
        "id" | "num" => config.identity.id().to_owned(),
        "host" if config.host.is_empty() => short_host_name(),
        "host" => config.host.clone(),
        "pid" => std::env::var("PID").unwrap_or_else(|_| std::process::id().to_string()),
        "cctid" => config.identity.cctid().to_string(),
        _ => return None,
    })
}

/// An option's value; `text` if there is no such option.
fn option(
    config: &Config,
    name: &str,
    text: &str,
    stack: &mut Vec<String>,
) -> Result<String, String> {
    let Some(raw) = raw(config, name) else { return Ok(text.to_owned()) };
    if stack.iter().any(|open| open == name) {
        return Err(format!("${name}"));
    }
    stack.push(name.to_owned());
    Ok(match expand_in(config, &raw, stack) {
        Ok(value) => {
            stack.pop();
            value
        }
        // A loop further in ends here, and in Ceph the option counts as open from then on.
        Err(looped) => looped,
    })
}

/// The value of an option of ours, or of another of Ceph's, before its metavariables are replaced.
fn raw(config: &Config, name: &str) -> Option<String> {
    if let Some(option) = Config::option_exactly(name) {
        return Some(config.raw_of(option));
    }
    let known = known::find(name)?;
    match config.values.others.get(name) {
        Some(value) => Some(value.clone()),
        // Without knowing its default we leave the reference as it is.
        None => known.default.map(str::to_owned),
    }
}

/// The host's name up to its first dot; `$NODE_NAME` comes before it (Ceph's `common/hostname.cc`).
fn short_host_name() -> String {
    let full = std::env::var("NODE_NAME")
        .unwrap_or_else(|_| rustix::system::uname().nodename().to_string_lossy().into_owned());
    full.split('.').next().unwrap_or_default().to_owned()
}
