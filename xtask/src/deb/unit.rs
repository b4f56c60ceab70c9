//! A service of systemd, as far as starting its program goes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// The value of a key of the section `[Service]`, which has it once.
pub(super) fn value<'a>(unit: &'a str, key: &str) -> Result<&'a str> {
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().with_context(|| format!("the unit has no {key}"))?;
    ensure!(values.next().is_none(), "the unit has more than one {key}");
    Ok(value)
}

/// The variables of an EnvironmentFile of plain values, which may have quotes around them.
pub(super) fn environment(file: &str) -> BTreeMap<&str, &str> {
    let lines = file.lines().filter(|line| !line.starts_with(['#', ';']));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key, value.trim_matches('"')))
        .collect()
}

/// A command line with its variables put in, as systemd.service(5) has it: `${NAME}` is one word or a part
/// of one, `$NAME` as many as it has.
pub(super) fn words(line: &str, variables: &BTreeMap<&str, &str>) -> Result<Vec<String>> {
    let find = |name: &str| {
        variables.get(name).copied().with_context(|| format!("no variable is called {name}"))
    };
    let mut words = Vec::new();
    for word in line.split_whitespace() {
        if let Some((before, (name, after))) =
            word.split_once("${").and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
        {
            words.push(format!("{before}{}{after}", find(name)?));
        } else if let Some(name) = word.strip_prefix('$') {
            words.extend(find(name)?.split_whitespace().map(str::to_owned));
        } else {
            words.push(word.to_owned());
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_put_together_as_systemd_does() {
        let unit = "[Service]\nExecStart=/bin/a ${ONE} --x=${ONE} $TWO\nExecStartPre=b\n";
        let variables = environment("# c\nONE=1 1\nTWO=\"2 3\"\nNONE=\n");
        let words = words(value(unit, "ExecStart").unwrap(), &variables).unwrap();
        assert_eq!(words, ["/bin/a", "1 1", "--x=1 1", "2", "3"]);
        assert!(super::words("$NONE", &variables).unwrap().is_empty());
        super::words("$THREE", &variables).unwrap_err();
        value(unit, "ExecReload").unwrap_err();
    }
}
