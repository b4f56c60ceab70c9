//! What a program of Siphon was built from, and what of it works on this machine.
//!
//! ```
//! let build = siphon_version::Build::this();
//! assert!(build.line("siphon").starts_with("siphon 0."));
//! println!("{}", siphon_version::Report::of("siphon"));
//! ```
//!
//! The build is known from its sources alone: commit and date are git's, or what `SIPHON_COMMIT` and
//! `SOURCE_DATE_EPOCH` said when it was built; without either they are unknown.
#![forbid(unsafe_code)]

use std::fmt;

use serde_json::json;
use siphon_common::admin_socket::{CommandSpec, Commands};
use siphon_net::StackKind;
use siphon_proto::Protocol;
use siphon_proto::v2::Revision;
use siphon_proto::v2::compression::Algorithm;
use siphon_wire::types::Release;

/// Digits of a commit that are told in one line.
const SHORT: usize = 12;

/// What a program was built from, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// The version, as `0.1.0`.
    pub version: &'static str,
    /// The commit in hexadecimal digits, if it is known.
    pub commit: Option<&'static str>,
    /// When the commit was made, or `SOURCE_DATE_EPOCH`: seconds since 1970, if it is known.
    pub time: Option<i64>,
    /// Cargo's profile: `release`, `debug`.
    pub profile: &'static str,
    /// The level of optimization: `0` to `3`, `s`, `z`.
    pub opt_level: &'static str,
    /// The platform that it is for, as `x86_64-unknown-linux-gnu`.
    pub target: &'static str,
    /// What the compiler calls itself.
    pub rustc: &'static str,
}

impl Build {
    /// How this program was built.
    pub fn this() -> Self {
        let known = |text: &'static str| (!text.is_empty()).then_some(text);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: known(env!("SIPHON_BUILD_COMMIT")),
            time: env!("SIPHON_BUILD_TIME").parse().ok(),
            profile: env!("SIPHON_BUILD_PROFILE"),
            opt_level: env!("SIPHON_BUILD_OPT_LEVEL"),
            target: env!("SIPHON_BUILD_TARGET"),
            rustc: env!("SIPHON_BUILD_RUSTC"),
        }
    }

    /// One line: `siphon 0.1.0 (131fa01b7c5e, release)`.
    pub fn line(&self, program: &str) -> String {
        format!("{program} {}", self.short())
    }

    /// The line without the program's name.
    pub fn short(&self) -> String {
        let commit = self.commit.map(|commit| commit.get(..SHORT).unwrap_or(commit));
        let commit = commit.map_or_else(String::new, |commit| format!("{commit}, "));
        format!("{} ({commit}{})", self.version, self.profile)
    }

    /// The day of [`time`](Self::time) in UTC: `2026-11-27`.
    pub fn date(&self) -> Option<String> {
        let time = jiff::Timestamp::from_second(self.time?).ok()?;
        Some(time.strftime("%Y-%m-%d").to_string())
    }
}

/// Has the admin socket tell what the program was built from, by `git_version`.
///
/// ```
/// let context = siphon_common::Context::default();
/// siphon_version::register(context.commands());
/// let answer = context.commands().execute("{\"prefix\": \"git_version\"}")?;
/// assert!(answer.contains("git_version"));
/// # Ok::<(), siphon_common::admin_socket::CommandError>(())
/// ```
pub fn register(commands: &Commands) {
    let spec = CommandSpec { prefix: "git_version", args: &[], help: "get git sha1" };
    commands.register(spec, |_| {
        Ok(json!({ "git_version": Build::this().commit.unwrap_or("unknown") }))
    });
}

/// A network stack, and why this machine does not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackHere {
    /// Which.
    pub kind: StackKind,
    /// What the system says, if it cannot be used.
    pub missing: Option<String>,
}

impl StackHere {
    /// All stacks that are compiled in, each tried: a driver of it is made and dropped.
    pub fn all() -> Vec<Self> {
        let tried = |kind: &StackKind| Self {
            kind: *kind,
            missing: kind.driver().err().map(|error| error.to_string()),
        };
        StackKind::ALL.iter().map(tried).collect()
    }
}

/// All that is told of a program: its build, what it speaks, its stacks on this machine.
#[derive(Clone, Debug)]
pub struct Report {
    /// The program's name.
    pub program: String,
    /// How it was built.
    pub build: Build,
    /// The oldest and the newest release of Ceph with which it was tried.
    pub releases: [Release; 2],
    /// The protocols that it speaks, the newest first.
    pub protocols: [Protocol; 3],
    /// How frames can be protected.
    pub modes: [&'static str; 2],
    /// By what frames can be compressed.
    pub compression: &'static [Algorithm],
    /// How peers can be authenticated.
    pub authentication: [&'static str; 2],
    /// Its stacks.
    pub stacks: Vec<StackHere>,
}

impl Report {
    /// What is known of this program. Stacks are tried, which takes a few milliseconds.
    pub fn of(program: &str) -> Self {
        let msgr2 = [Revision::Rev1, Revision::Rev0].map(Protocol::Msgr2);
        Self {
            program: program.to_owned(),
            build: Build::this(),
            releases: [Release::NAUTILUS, Release::TENTACLE],
            protocols: [msgr2[0], msgr2[1], Protocol::Msgr1],
            modes: ["crc", "secure"],
            compression: &Algorithm::ALL,
            authentication: ["none", "cephx"],
            stacks: StackHere::all(),
        }
    }
}

/// Several lines, the first of which is [`Build::line`].
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let build = &self.build;
        let unknown = || "unknown".to_owned();
        writeln!(f, "{}", build.line(&self.program))?;
        writeln!(f, "commit:         {}", build.commit.unwrap_or("unknown"))?;
        writeln!(f, "date:           {}", build.date().unwrap_or_else(unknown))?;
        writeln!(f, "profile:        {}, optimization {}", build.profile, build.opt_level)?;
        writeln!(f, "target:         {}", build.target)?;
        writeln!(f, "compiler:       {}", build.rustc)?;
        let [oldest, newest] = self.releases;
        writeln!(f, "Ceph:           {oldest} to {newest}")?;
        writeln!(f, "protocols:      {}", list(&self.protocols))?;
        writeln!(f, "modes:          {}", list(&self.modes))?;
        writeln!(f, "compression:    {}", list(self.compression))?;
        writeln!(f, "authentication: {}", list(&self.authentication))?;
        writeln!(f, "stacks, as this machine has them:")?;
        for stack in &self.stacks {
            let name = stack.kind.name();
            match &stack.missing {
                None => writeln!(f, "  {name:<14}usable")?,
                Some(reason) => writeln!(f, "  {name:<14}not usable: {reason}")?,
            }
        }
        Ok(())
    }
}

fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILD: Build = Build {
        version: "1.2.3",
        commit: Some("0123456789abcdef0123456789abcdef01234567"),
        time: Some(1_700_000_000),
        profile: "release",
        opt_level: "3",
        target: "x86_64-unknown-linux-gnu",
        rustc: "rustc 1.92.0",
    };

    #[test]
    fn a_build_is_told_in_a_line_with_or_without_a_commit() {
        assert_eq!(BUILD.line("siphon"), "siphon 1.2.3 (0123456789ab, release)");
        assert_eq!(BUILD.date().as_deref(), Some("2023-11-14"));
        let unknown = Build { commit: None, time: None, ..BUILD };
        assert_eq!(unknown.line("siphon"), "siphon 1.2.3 (release)");
        assert_eq!(unknown.date(), None);
    }

    #[test]
    fn this_build_knows_its_compiler_and_the_stacks_are_tried() {
        let report = Report::of("siphon");
        assert!(report.build.rustc.starts_with("rustc 1."), "{report}");
        assert!(!report.build.profile.is_empty(), "{report}");
        let posix = StackHere { kind: StackKind::Posix, missing: None };
        assert_eq!(report.stacks[0], posix);
        assert_eq!(report.stacks.len(), StackKind::ALL.len());
    }

    #[test]
    fn a_report_says_what_is_missing() {
        let missing = Some("no RDMA device".to_owned());
        let stacks = vec![StackHere { kind: StackKind::Rdma, missing }];
        let text = Report { build: BUILD, stacks, ..Report::of("x") }.to_string();
        assert!(text.ends_with("  rdma          not usable: no RDMA device\n"), "{text}");
        assert!(text.contains("msgr2.1, msgr2.0, msgr1\n"), "{text}");
    }
}
