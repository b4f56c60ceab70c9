//! Attributes, and the maps of objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use siphon_wire::types::ByteString;

use super::args::Words;
use super::output::{hexdump, prettify};
use super::{Session, named, path, say, write_out};

/// Entries of a map that are asked for at once.
const PAGE: u64 = 4096;

impl Session {
    pub(super) async fn listxattr(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT"], 1)?);
        let answer = pool.xattrs(words[0].clone()).await;
        let found = answer
            .with_context(|| format!("error getting xattr set {}", named(&pool, &words[0])))?;
        found.keys().try_for_each(|name| line(name))
    }

    pub(super) async fn getxattr(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT", "NAME"], 2)?);
        let value = pool.xattr(words[0].clone(), words[1].clone()).await;
        let context = || format!("error getting xattr {}/{}", named(&pool, &words[0]), words[1]);
        write_out(&value.with_context(context)?)
    }

    pub(super) async fn setxattr(&self, words: Words) -> Result<()> {
        let pool = self.pool().await?;
        let words = self.words(words, &["OBJECT", "NAME", "VALUE"], 2)?;
        let value = match words.get(2) {
            Some(value) => value.clone().into_bytes(),
            None => read_stdin()?,
        };
        let done = pool.set_xattr(words[0].clone(), words[1].clone(), value).await;
        let context = || format!("error setting xattr {}/{}", named(&pool, &words[0]), words[1]);
        done.with_context(context).map(drop)
    }

    pub(super) async fn rmxattr(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT", "NAME"], 2)?);
        let done = pool.rm_xattr(words[0].clone(), words[1].clone()).await;
        let context = || format!("error removing xattr {}/{}", named(&pool, &words[0]), words[1]);
        done.with_context(context).map(drop)
    }

    pub(super) async fn listomapkeys(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT"], 1)?);
        let (mut after, mut more) = (ByteString::new(), true);
        while more {
            let answer = pool.omap_keys(words[0].clone(), after.clone(), PAGE).await;
            let part = answer.with_context(|| {
                format!("error getting omap key set {}", named(&pool, &words[0]))
            })?;
            part.entries.iter().try_for_each(|name| line(name))?;
            more = part.more;
            match part.entries.into_iter().next_back() {
                Some(last) => after = last,
                None => break,
            }
        }
        Ok(())
    }

    pub(super) async fn listomapvals(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT"], 1)?);
        let (mut after, mut more) = (ByteString::new(), true);
        while more {
            let answer = pool.omap_vals(words[0].clone(), after.clone(), "", PAGE).await;
            let part = answer
                .with_context(|| format!("error getting omap keys {}", named(&pool, &words[0])))?;
            for (key, value) in &part.entries {
                if prettify(key).as_bytes() == &key[..] {
                    line(key)?;
                } else {
                    say(&format!("key ({} bytes):\n{}\n", key.len(), hexdump(key)))?;
                }
                say(&format!("value ({} bytes) :\n{}\n", value.len(), hexdump(value)))?;
            }
            more = part.more;
            match part.entries.into_iter().next_back() {
                Some((last, _)) => after = last,
                None => break,
            }
        }
        Ok(())
    }

    pub(super) async fn getomapval(&self, words: Words) -> Result<()> {
        let pool = self.pool().await?;
        let words = self.words(words, &["OBJECT", "KEY", "FILE"], 2)?;
        let wanted = BTreeSet::from([words[1].clone()]);
        let answer = pool.omap_vals_by_keys(words[0].clone(), &wanted).await;
        let entry = format!("{}/{}", named(&pool, &words[0]), prettify(&words[1]));
        let found = answer.with_context(|| format!("error getting omap value {entry}"))?;
        match found.get(&words[1]) {
            Some(value) => dump("value", value, words.get(2)),
            None => {
                say(&format!("No such key: {entry}\n"))?;
                bail!("there is no such key");
            }
        }
    }

    pub(super) async fn setomapval(&self, words: Words) -> Result<()> {
        let pool = self.pool().await?;
        let words = self.words(words, &["OBJECT", "KEY", "VALUE"], 2)?;
        let value = match self.input()? {
            Some(value) => value,
            None => words.get(2).map_or_else(read_stdin, |word| Ok(word.clone().into_bytes()))?,
        };
        let entries = BTreeMap::from([(words[1].clone(), value)]);
        let done = pool.omap_set(words[0].clone(), &entries).await;
        let entry = || format!("{}/{}", named(&pool, &words[0]), prettify(&words[1]));
        done.with_context(|| format!("error setting omap value {}", entry())).map(drop)
    }

    pub(super) async fn rmomapkey(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT", "KEY"], 2)?);
        let done = pool.omap_rm_keys(words[0].clone(), &BTreeSet::from([words[1].clone()])).await;
        let entry = || format!("{}/{}", named(&pool, &words[0]), prettify(&words[1]));
        done.with_context(|| format!("error removing omap key {}", entry())).map(drop)
    }

    pub(super) async fn clearomap(&self, words: Words) -> Result<()> {
        let pool = self.pool().await?;
        for object in self.names(words)? {
            let done = pool.omap_clear(object.clone()).await;
            done.with_context(|| format!("error clearing omap keys {}", named(&pool, &object)))?;
        }
        Ok(())
    }

    pub(super) async fn getomapheader(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT", "FILE"], 1)?);
        let header = pool.omap_header(words[0].clone()).await;
        let header = header
            .with_context(|| format!("error getting omap header {}", named(&pool, &words[0])))?;
        dump("header", &header.to_bytes(), words.get(1))
    }

    pub(super) async fn setomapheader(&self, words: Words) -> Result<()> {
        let (pool, input) = (self.pool().await?, self.input()?);
        let least = if input.is_some() { 1 } else { 2 };
        let words = self.words(words, &["OBJECT", "VALUE"], least)?;
        let given = words.get(1).map(|word| word.clone().into_bytes());
        let header = input.or(given).unwrap_or_default();
        let done = pool.omap_set_header(words[0].clone(), header).await;
        done.with_context(|| format!("error setting omap header {}", named(&pool, &words[0])))
            .map(drop)
    }

    /// What the file of `--input-file` has, if there is one.
    fn input(&self) -> Result<Option<Bytes>> {
        let Some(file) = &self.options.input_file else { return Ok(None) };
        let read = fs::read(file).with_context(|| format!("error reading file {}", file.display()));
        read.map(|value| Some(value.into()))
    }
}

/// Shows bytes, or writes them into a file.
fn dump(what: &str, bytes: &[u8], file: Option<&ByteString>) -> Result<()> {
    let Some(file) = file else {
        return say(&format!("{what} ({} bytes) :\n{}\n", bytes.len(), hexdump(bytes)));
    };
    eprintln!("Writing to {file}");
    if *file == "-" {
        return write_out(bytes);
    }
    fs::write(path(file.clone()), bytes).with_context(|| format!("cannot write {file}"))
}

fn read_stdin() -> Result<Bytes> {
    let mut value = Vec::new();
    io::stdin().lock().read_to_end(&mut value).context("cannot read standard input")?;
    Ok(value.into())
}

/// A name as it is, and a line's end.
fn line(name: &[u8]) -> Result<()> {
    write_out(&[name, b"\n"].concat())
}
