//! `siphon rados`: objects in a cluster, as Ceph's `rados` has it.

mod args;
mod attributes;
mod bench;
mod copying;
mod locks;
mod notices;
mod objects;
mod order;
mod output;
mod pools;
mod snaps;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use siphon_common::Context;
use siphon_rados::{Cluster, Pool};
use siphon_wire::types::{ByteString, SnapId};

use crate::exit::Stdout;
use crate::options;
pub(crate) use args::Args;
use args::{Format, Options, Verb, Words};
pub(crate) use order::in_order;
use output::{prettify, pretty};

/// A failure of which no more is known than its number.
#[derive(Debug)]
struct Failed(siphon_wire::types::Errno);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Failed {}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    pollster::block_on(async {
        let cluster = connect(&args).await.context("couldn't connect to cluster")?;
        let Args { options, verb, .. } = args;
        let session = Session { cluster, options };
        let done = session.run(verb).await;
        session.cluster.shutdown().await;
        done
    })
}

async fn connect(args: &Args) -> Result<Cluster> {
    let mut builder = args.cluster.builder()?.timeout(args.cluster.timeout()?);
    if let Some(seconds) = args.options.op_timeout {
        builder = builder.set("rados_osd_op_timeout", &seconds.to_string());
    }
    let (config, name) = builder.configure()?;
    let context = Context::new(config);
    options::attend(&context);
    Ok(builder.connect_with(&context, name).await?)
}

/// A cluster, and what is asked of it.
struct Session {
    cluster: Cluster,
    options: Options,
}

impl Session {
    async fn run(&self, verb: Verb) -> Result<ExitCode> {
        if self.options.create {
            let Some(name) = &self.options.pool else {
                bail!("--create wants a pool: name it with -p");
            };
            let created = self.cluster.create_pool(name.clone()).await;
            created.with_context(|| format!("error creating pool {name}"))?;
        }
        match verb {
            Verb::Lspools => self.lspools(),
            Verb::Df => self.df().await,
            Verb::Cppool { source, target, yes_i_really_mean_it } => {
                self.cppool(source, target, yes_i_really_mean_it).await
            }
            Verb::Purge { purged, yes_i_really_really_mean_it } => {
                self.purge(purged, yes_i_really_really_mean_it).await
            }
            Verb::Ls { stdout } => self.ls(stdout).await,
            Verb::Lssnap => self.lssnap().await,
            Verb::Mksnap { snapshot } => self.mksnap(snapshot).await,
            Verb::Rmsnap { snapshot } => self.rmsnap(snapshot).await,
            Verb::Rollback { object, snapshot } => self.rollback(object, snapshot).await,
            Verb::Listsnaps(words) => self.listsnaps(words).await,
            Verb::Get(words) => self.get(words).await,
            Verb::Put(words) => self.put(words).await,
            Verb::Append(words) => self.append(words).await,
            Verb::Truncate(words) => self.truncate(words).await,
            Verb::Create(words) => self.create(words).await,
            Verb::Rm(words) => self.rm(words).await,
            Verb::Cp(words) => self.cp(words).await,
            Verb::Stat(words) => self.stat(words, false).await,
            Verb::Stat2(words) => self.stat(words, true).await,
            Verb::Touch(words) => self.touch(words).await,
            Verb::SetAllocHint(words) => self.set_alloc_hint(words).await,
            Verb::Listxattr(words) => self.listxattr(words).await,
            Verb::Getxattr(words) => self.getxattr(words).await,
            Verb::Setxattr(words) => self.setxattr(words).await,
            Verb::Rmxattr(words) => self.rmxattr(words).await,
            Verb::Listomapkeys(words) => self.listomapkeys(words).await,
            Verb::Listomapvals(words) => self.listomapvals(words).await,
            Verb::Getomapval(words) => self.getomapval(words).await,
            Verb::Setomapval(words) => self.setomapval(words).await,
            Verb::Rmomapkey(words) => self.rmomapkey(words).await,
            Verb::Clearomap(words) => self.clearomap(words).await,
            Verb::Getomapheader(words) => self.getomapheader(words).await,
            Verb::Setomapheader(words) => self.setomapheader(words).await,
            Verb::Watch(words) => self.watch(words).await,
            Verb::Notify(words) => self.notify(words).await,
            Verb::Listwatchers(words) => self.listwatchers(words).await,
            Verb::Lock(lock) => self.lock(lock).await,
            Verb::Bench(bench) => return self.bench(bench).await,
            Verb::Cleanup(cleanup) => self.cleanup(cleanup).await,
        }
        .map(|()| ExitCode::SUCCESS)
    }

    /// The pool of `-p`, as the options say how it is to be reached.
    async fn pool(&self) -> Result<Pool> {
        let options = &self.options;
        let Some(name) = &options.pool else { bail!("which pool? name it with -p") };
        let pool = self.cluster.pool(name.clone()).await;
        let mut pool = pool.with_context(|| format!("error opening pool {name}"))?;
        if let Some(namespace) = &options.namespace {
            pool = pool.with_namespace(namespace.clone());
        }
        if let Some(key) = &options.object_locator {
            pool = pool.with_locator(key.clone());
        }
        let chosen = match (&options.snap, options.snapid) {
            (Some(snap), _) => Some((pool.snap_by_name(snap.clone())?, snap.clone())),
            (None, Some(id)) => {
                let known = pool.snaps()?.into_iter().find(|snap| snap.id == SnapId(id));
                let known = known.ok_or_else(|| {
                    anyhow!("snapid {id} doesn't exist in pool {name}: see lssnap")
                })?;
                Some((known.id, known.name))
            }
            (None, None) => None,
        };
        if let Some((id, name)) = chosen {
            say(&format!("selected snap {} '{name}'\n", id.0))?;
            pool = pool.at_snap(id);
        }
        Ok(pool)
    }

    /// The words of a verb, with what files give in place of them; the first is the object.
    fn words(&self, words: Words, wanted: &[&str], least: usize) -> Result<Vec<ByteString>> {
        let from_file = |path: &std::path::Path| {
            fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let mut given: Vec<ByteString> = words.words.into_iter().map(args::bytes).collect();
        if let Some(path) = &self.options.obj_name_file {
            given.insert(0, from_file(path)?.into());
        }
        if let Some(path) = &self.options.omap_key_file
            && wanted.get(1) == Some(&"KEY")
        {
            let place = given.len().min(1);
            given.insert(place, from_file(path)?.into());
        }
        if let Some(missing) = wanted[..least].get(given.len()) {
            bail!("{missing} is missing; wanted are {}", wanted.join(" "));
        }
        if let Some(surplus) = given.get(wanted.len()) {
            bail!("\"{surplus}\" is too much; wanted are {}", wanted.join(" "));
        }
        Ok(given)
    }

    /// The objects of a verb that takes any number.
    fn names(&self, words: Words) -> Result<Vec<ByteString>> {
        let mut names: Vec<_> = words.words.into_iter().map(args::bytes).collect();
        if let Some(path) = &self.options.obj_name_file {
            let name = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            names.push(name.into());
        }
        if names.is_empty() {
            bail!("OBJECT is missing");
        }
        Ok(names)
    }

    /// Whether JSON is wanted; and if so, whether with line breaks.
    fn json(&self) -> Option<bool> {
        match self.options.format {
            Some(Format::Json) => Some(self.options.pretty_format),
            Some(Format::JsonPretty) => Some(true),
            Some(Format::Plain) => None,
            None => self.options.json.then_some(self.options.pretty_format),
        }
    }

    /// Shows JSON as it is wanted.
    fn show(&self, value: &Value) -> Result<()> {
        match self.json() {
            Some(true) => say(&format!("{}\n", pretty(value))),
            _ if self.options.pretty_format => say(&format!("{}\n", pretty(value))),
            _ => say(&format!("{value}\n")),
        }
    }
}

/// An object in an error, as Ceph's `rados` names it.
fn named(pool: &Pool, object: &[u8]) -> String {
    format!("{}/{}", pool.name(), prettify(object))
}

/// A number among the words.
fn number<T: std::str::FromStr>(word: &[u8], what: &str) -> Result<T> {
    let text = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| anyhow!("Invalid value for {what}: '{}'", prettify(word)))
}

/// Where to write a word's file.
fn path(word: ByteString) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    OsString::from_vec(word.to_vec()).into()
}

/// Writes to standard output.
fn say(text: &str) -> Result<()> {
    write_out(text.as_bytes())
}

fn write_out(bytes: &[u8]) -> Result<()> {
    let mut stdout = Stdout::lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).context("cannot write standard output")
}
