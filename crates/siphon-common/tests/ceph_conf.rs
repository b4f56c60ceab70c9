//! Configuration files as the real `ceph-conf` of 16.2.15 and 20.2.4 reads them: whole files, single
//! options by section and entity, and the values of the options that Siphon honours.
//!
//! `SIPHON_CEPH_CONF_PAIRS=200` looks up so many pairs of each file, `SIPHON_CEPH_CONF_RANDOM=5000`
//! compares so many made-up files; otherwise a few of each.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use siphon_common::Config;
use siphon_common::config::{ConfFile, ConfigLoader, Source};
use siphon_peers::{CephTree, Release, require};

/// Entities whose sections are looked into.
const ENTITIES: [&str; 6] =
    ["client.admin", "osd.0", "mon.a", "mds.a", "client.radosgw.gateway", "osd.00"];

/// Files that make Ceph's parser abort (an assertion of Boost's, on a byte beyond ASCII in a name or a
/// value): ours reads them.
const CRASHES_CEPH: [&str; 3] = ["bom", "section_escapes", "utf8"];

/// One of Ceph's own.
struct CephConf {
    release: &'static str,
    make: Box<dyn Fn() -> Command>,
}

impl CephConf {
    /// Those that this machine has.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        if require(siphon_peers::ceph_conf()).is_some() {
            let make = || siphon_peers::ceph_conf().expect("it was there before");
            all.push(Self { release: "the system's", make: Box::new(make) });
        }
        if let Some(tree) = require(CephTree::of(Release::Tentacle)) {
            let make = move || tree.command("ceph-conf");
            all.push(Self { release: "tentacle", make: Box::new(make) });
        }
        all
    }

    fn run(&self, file: &Path, args: &[&str]) -> Output {
        let mut command = (self.make)();
        command.arg("-c").arg(file).args(args).env("PID", "4711").env_remove("NODE_NAME");
        command.output().unwrap()
    }

    /// What Ceph makes of a file, by section and name; `None` if it refuses it.
    fn parse(&self, file: &Path) -> Option<BTreeMap<String, BTreeMap<String, String>>> {
        let output = self.run(file, &["--show-conf"]);
        if output.status.code() == Some(1) {
            return None;
        }
        assert!(output.status.success(), "{} {}: {output:?}", self.release, file.display());
        let text = String::from_utf8(output.stderr).unwrap();
        // A complaint about names of sections comes before, and ends no line.
        let text = text.rsplit_once("include a period.").map_or(text.as_str(), |(_, rest)| rest);
        let mut sections = BTreeMap::new();
        let mut section = None;
        for line in text.split('\n') {
            if let Some(option) = line.strip_prefix('\t') {
                let (name, value) = option.split_once(" = \"").unwrap();
                let value = value.strip_suffix('"').unwrap();
                let section: &mut BTreeMap<_, _> =
                    sections.get_mut(section.as_ref().unwrap()).unwrap();
                section.insert(name.to_owned(), value.to_owned());
            } else if let Some(name) = line.strip_prefix('[') {
                let name = name.strip_suffix(']').unwrap().to_owned();
                sections.insert(name.clone(), BTreeMap::new());
                section = Some(name);
            }
        }
        Some(sections)
    }
}

/// What we make of a file, in the same form.
fn parse(text: &[u8]) -> Option<BTreeMap<String, BTreeMap<String, String>>> {
    let file = ConfFile::parse(text).ok()?;
    let lines = |section| {
        let line = |line: &siphon_common::config::ConfLine| (line.name.clone(), line.value.clone());
        file.lines(section).iter().map(line).collect()
    };
    Some(file.sections().map(|section| (section.to_owned(), lines(section))).collect())
}

/// The files of `tests/conf`, by name.
fn files() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conf");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    files.sort();
    files
}

fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) as usize) % end
    }
}

#[test]
fn whole_files_are_read_as_ceph_reads_them() {
    for ceph in CephConf::all() {
        let (mut same, mut refused) = (0, 0);
        for (name, path) in files() {
            if CRASHES_CEPH.contains(&name.as_str()) {
                continue;
            }
            let (theirs, ours) = (ceph.parse(&path), parse(&std::fs::read(&path).unwrap()));
            assert_eq!(ours, theirs, "{name}, {}", ceph.release);
            refused += usize::from(theirs.is_none());
            same += 1;
        }
        assert!(same >= 30 && refused >= 10, "{same} {refused}");
        println!("{}: {same} files are the same, {refused} of them refused", ceph.release);
    }
    for name in CRASHES_CEPH {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/conf/{name}.conf"));
        let ours = ConfFile::parse(&std::fs::read(path).unwrap());
        assert_eq!(ours.is_ok(), name != "bom", "{name}");
    }
}

#[test]
fn made_up_files_are_read_as_ceph_reads_them() {
    let pieces = [
        "[global]\n",
        "[osd]\n",
        "e = f",
        "\n",
        "\ng = ",
        "a = 1\n",
        "b c = x y\n",
        "[",
        "]",
        "=",
        " = ",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\\",
        "\\\n",
        "#",
        ";",
        "# c\n",
        "\"",
        "'",
        "\"x\"",
        "a",
        "b",
        "$name",
        "\\#",
        "[mon.a]",
    ];
    let folder = tempfile::tempdir().unwrap();
    for ceph in CephConf::all() {
        let mut random = Random(0x5eed);
        let mut accepted = 0;
        let count = number("SIPHON_CEPH_CONF_RANDOM", 150);
        for _ in 0..count {
            let mut text = ["[global]\n", ""][usize::from(random.below(4) == 0)].to_owned();
            for _ in 0..random.below(16) {
                text.push_str(pieces[random.below(pieces.len())]);
            }
            if random.below(8) != 0 {
                text.push('\n');
            }
            let path = folder.path().join("made_up.conf");
            std::fs::write(&path, &text).unwrap();
            let (theirs, ours) = (ceph.parse(&path), parse(text.as_bytes()));
            assert_eq!(ours, theirs, "{text:?}, {}", ceph.release);
            accepted += usize::from(theirs.is_some());
        }
        assert!(accepted > count / 8, "{accepted}");
        println!("{}: {count} made-up files, {accepted} of them accepted", ceph.release);
    }
}

#[test]
fn options_are_looked_up_as_ceph_looks_them_up() {
    let pairs = number("SIPHON_CEPH_CONF_PAIRS", 8);
    let sample = debian_sample();
    let mut files = files();
    files.extend(sample.iter().map(|(_folder, path)| ("debian".to_owned(), path.clone())));
    for ceph in CephConf::all() {
        let (mut looked, mut found) = (0, 0);
        for (name, path) in &files {
            let text = std::fs::read(path).unwrap();
            let Ok(file) = ConfFile::parse(&text) else { continue };
            // What ceph-conf prints ends at a NUL.
            if CRASHES_CEPH.contains(&name.as_str()) || name == "nul" {
                continue;
            }
            let choices = choices(&file);
            let configs = ENTITIES.map(|entity| load(path, entity));
            let mut random = Random(name.len() as u64);
            for _ in 0..pairs.min(choices.len() * ENTITIES.len()) {
                let (section, option) = &choices[random.below(choices.len())];
                let who = random.below(ENTITIES.len());
                let entity = ENTITIES[who];
                let ours = lookup(&configs[who], &file, entity, section.as_deref(), option);
                let mut args = vec!["--name", entity, "--lookup", option];
                args.extend(section.iter().flat_map(|section| ["-s", section.as_str()]));
                let output = ceph.run(path, &args);
                let theirs = match output.status.code() {
                    Some(0) => Some(
                        String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned(),
                    ),
                    Some(1) => None,
                    _ => panic!("{name} {args:?}: {output:?}"),
                };
                assert_eq!(ours, theirs, "{name} {args:?}, {}", ceph.release);
                looked += 1;
                found += usize::from(theirs.is_some());
            }
        }
        assert!(looked >= 200 && found > looked / 4, "{looked} {found}");
        println!("{}: {looked} pairs are the same, {found} of them found", ceph.release);
    }
}

/// What can be asked of a file: each of its names in each of its sections and in none, and some names
/// that it has not. A name that looks like an argument cannot be asked for.
fn choices(file: &ConfFile) -> Vec<(Option<String>, String)> {
    let mut names: Vec<_> =
        file.sections().flat_map(|it| file.lines(it)).map(|line| line.name.clone()).collect();
    names.extend(["nothing", "mon host", "ms_type", "host"].map(str::to_owned));
    names.extend(names.clone().iter().map(|name| name.replace('_', " ")));
    names.retain(|name| !name.starts_with('-') && !name.contains('\0'));
    names.sort();
    names.dedup();
    let sections = std::iter::once(None).chain(file.sections().map(Some));
    let pairs = sections.flat_map(|section| names.iter().map(move |name| (section, name)));
    pairs.map(|(section, name)| (section.map(str::to_owned), name.clone())).collect()
}

fn lookup(
    config: &Config,
    file: &ConfFile,
    entity: &str,
    section: Option<&str>,
    option: &str,
) -> Option<String> {
    let kind = entity.split_once('.').unwrap().0;
    let sections = section.into_iter().chain([entity, kind, "global"]);
    let line = file.lookup(sections, option)?;
    // Ours tells its own process.
    let value = config.expand(&line.value).replace(&std::process::id().to_string(), "4711");
    Some(value.trim_end_matches('\n').to_owned())
}

fn load(path: &Path, entity: &str) -> Config {
    let mut daemon = Config::default();
    daemon.set_daemon(true); // as ceph-conf takes itself for one
    let loader = ConfigLoader::of(daemon).without_environment();
    loader.load(["-c", path.to_str().unwrap(), "-n", entity]).unwrap().config
}

/// The sample that Debian has in its package, and the folder that it is unpacked in.
fn debian_sample() -> Option<(tempfile::TempDir, PathBuf)> {
    let tree = require(CephTree::of(Release::Nautilus))?;
    let packed = tree.root().join("usr/share/doc/ceph/sample.ceph.conf.gz");
    let packed = std::fs::File::open(packed).ok()?;
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.conf");
    std::fs::write(&path, &text).unwrap();
    Some((folder, path))
}

#[test]
fn debian_s_sample_is_read_as_ceph_reads_it() {
    let Some((_folder, path)) = debian_sample() else { return };
    let text = std::fs::read_to_string(&path).unwrap();
    // All of it is commented out: once as it is, and once as somebody would use it.
    let used: Vec<_> = text
        .lines()
        .map(|line| match line.trim_start().strip_prefix(';') {
            Some(option) if option.contains('=') => option,
            _ => line,
        })
        .collect();
    let used_path = path.with_file_name("used.conf");
    std::fs::write(&used_path, used.join("\n") + "\n").unwrap();
    for ceph in CephConf::all() {
        for path in [&path, &used_path] {
            let ours = parse(&std::fs::read(path).unwrap());
            assert_eq!(ours, ceph.parse(path), "{}, {}", path.display(), ceph.release);
        }
    }
    assert!(parse(&std::fs::read(&used_path).unwrap()).is_some_and(|it| !it["global"].is_empty()));
    // No false alarm: every name in it is Ceph's.
    let warnings = Config::check_file(&path).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// Options whose default is not Ceph's, or not that of every release; docs/configuration.md says why.
const OTHER_DEFAULTS: [&str; 7] = [
    "exporter_addr",
    "fsid",
    "host",
    "keyring",
    "log_to_file", // ceph-conf's own default
    "ms_async_rdma_gid_idx",
    "ms_bind_port_max",
];

#[test]
fn values_are_what_ceph_makes_of_them() {
    for ceph in CephConf::all() {
        let mut compared = 0;
        for name in ["typed", "metavariables", "loops", "cluster", "names", "empty", "minimal"] {
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/conf/{name}.conf"));
            for entity in ENTITIES {
                let config = load(&path, entity);
                let output = ceph.run(&path, &["--name", entity, "--show-config"]);
                assert!(output.status.success(), "{output:?}");
                let text = String::from_utf8(output.stdout).unwrap();
                let theirs: BTreeMap<_, _> =
                    text.lines().filter_map(|line| line.split_once(" = ")).collect();
                for (option, ours) in config.show() {
                    let is_set = config.settings(option).iter().any(|it| it.source == Source::File);
                    let Some(theirs) = theirs.get(option) else { continue };
                    if option == "host" && ceph.release == "tentacle" {
                        continue; // it takes the machine's name, whatever a file says
                    }
                    if is_set || !OTHER_DEFAULTS.contains(&option) {
                        let ours = ours.replace(&std::process::id().to_string(), "4711");
                        assert_eq!(ours, *theirs, "{name} {entity} {option}, {}", ceph.release);
                        compared += 1;
                    }
                }
            }
        }
        assert!(compared > 2000, "{compared}");
        println!("{}: {compared} values are the same", ceph.release);
    }
}
