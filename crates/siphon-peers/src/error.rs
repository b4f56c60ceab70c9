use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why there is no peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// This machine cannot have it: the test is skipped, except in CI.
    #[error("{0}")]
    Unavailable(#[from] Missing),
    /// It is there but does not work: the test fails.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        output: String,
    },
    /// It does not become ready, or does not end.
    #[error("{program} is not {wanted} after {after:?}: {output}")]
    TimedOut {
        /// The program.
        program: String,
        /// What was waited for.
        wanted: &'static str,
        /// For how long.
        after: Duration,
        /// The end of what it wrote.
        output: String,
    },
    /// The system refuses a file, process or socket.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl PeerError {
    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }
}

/// What a machine lacks to have a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Missing {
    /// A program that a package brings.
    #[error("{program} is not installed (package {package}; `cargo xtask peers` installs it)")]
    Program {
        /// The program's name.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// Packages come from the host's Debian mirror.
    #[error("no Debian mirror among apt's sources: Ceph's tools are unpacked from there")]
    Mirror,
    /// The rights of root.
    #[error("{0}, which takes root")]
    Root(&'static str),
    /// No known Debian architecture.
    #[error("Debian's Ceph is not tried on {0}")]
    Architecture(&'static str),
    /// Unpacking did not work: no network, no rights.
    #[error("cannot unpack Debian's packages into {}: {reason}", .dir.display())]
    Unpack {
        /// Where they were to be.
        dir: PathBuf,
        /// The unpacker's last words.
        reason: String,
    },
}

/// The peer, or `None` if this machine cannot have it: the caller, a test, then returns.
///
/// A skipped test says so on standard error. Where the environment variable `CI` is set, nothing
/// may be skipped.
///
/// # Panics
/// The peer is there but does not work; or it is missing and `CI` is set.
pub fn require<T>(peer: Result<T, PeerError>) -> Option<T> {
    match peer {
        Ok(peer) => Some(peer),
        Err(PeerError::Unavailable(missing)) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: {missing}");
            None
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            panic!("{error} {}", source.unwrap_or_default())
        }
    }
}
