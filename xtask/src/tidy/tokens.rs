//! A file as the compiler reads it: comments and texts cannot be mistaken for code, nor code in a
//! macro be missed.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A file's tokens.
pub(super) struct Code(Vec<TokenTree>);

/// A path as written or imported, such as `std::net::IpAddr`.
pub(super) struct Place {
    pub(super) path: String,
    pub(super) line: usize,
}

impl Code {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let tokens: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
        Ok(Self(tokens.into_iter().collect()))
    }

    /// The lines with this identifier or keyword.
    pub(super) fn words(&self, word: &str) -> Vec<usize> {
        let mut lines = Vec::new();
        walk(&self.0, &mut |tokens| {
            let hits = tokens.iter().filter(|token| is_word(token, word));
            lines.extend(hits.map(line));
        });
        lines
    }

    /// The lines on which this macro is called.
    pub(super) fn macros(&self, name: &str) -> Vec<usize> {
        let mut lines = Vec::new();
        walk(&self.0, &mut |tokens| {
            let calls = tokens.windows(3).filter(|window| {
                is_word(&window[0], name)
                    && is_punct(&window[1], '!')
                    && matches!(window[2], TokenTree::Group(_))
            });
            lines.extend(calls.map(|window| line(&window[0])));
        });
        lines
    }

    /// Whether the file begins with `#![forbid(unsafe_code)]` or has it among its attributes.
    pub(super) fn forbids_unsafe(&self) -> bool {
        self.0.windows(3).any(|window| {
            is_punct(&window[0], '#')
                && is_punct(&window[1], '!')
                && window[2].to_string().replace(' ', "").starts_with("[forbid(unsafe_code")
        })
    }

    /// Every path, and every leaf of a `use` tree, up to the module of tests that ends a file.
    pub(super) fn paths_before_tests(&self) -> Vec<Place> {
        let end = self.0.windows(5).position(|window| {
            is_punct(&window[0], '#')
                && window[1].to_string().replace(' ', "") == "[cfg(test)]"
                && is_word(&window[2], "mod")
                && matches!(window[4], TokenTree::Group(_))
        });
        let mut places = Vec::new();
        walk(&self.0[..end.unwrap_or(self.0.len())], &mut |tokens| {
            let mut rest = tokens;
            while !rest.is_empty() {
                rest = &rest[path(rest, "", &mut places)..];
            }
        });
        places.sort_by_key(|place| place.line);
        places
    }
}

/// Reads one path behind `prefix`; returns how many tokens it has, at least one.
fn path(tokens: &[TokenTree], prefix: &str, places: &mut Vec<Place>) -> usize {
    let TokenTree::Ident(first) = &tokens[0] else { return 1 };
    let mut path = format!("{prefix}{first}");
    let mut used = 1;
    while let [colon, second, next, ..] = &tokens[used..]
        && is_punct(colon, ':')
        && is_punct(second, ':')
    {
        match next {
            TokenTree::Ident(name) => {
                path = format!("{path}::{name}");
                used += 3;
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                leaves(group.stream(), &format!("{path}::"), places);
                return used + 3;
            }
            _ => break,
        }
    }
    places.push(Place { path, line: line(&tokens[0]) });
    used
}

/// The branches of a `use` tree.
fn leaves(tree: TokenStream, prefix: &str, places: &mut Vec<Place>) {
    let tokens: Vec<TokenTree> = tree.into_iter().collect();
    for branch in tokens.split(|token| is_punct(token, ',')).filter(|branch| !branch.is_empty()) {
        path(branch, prefix, places);
    }
}

/// Calls `visit` with the tokens of each level.
fn walk(tokens: &[TokenTree], visit: &mut impl FnMut(&[TokenTree])) {
    visit(tokens);
    for token in tokens {
        if let TokenTree::Group(group) = token {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            walk(&inner, visit);
        }
    }
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

fn is_punct(token: &TokenTree, punct: char) -> bool {
    matches!(token, TokenTree::Punct(found) if found.as_char() == punct)
}

fn line(token: &TokenTree) -> usize {
    token.span().start().line
}
