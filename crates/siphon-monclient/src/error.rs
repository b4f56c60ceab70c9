use std::fmt;
use std::io;
use std::time::Duration;

use siphon_auth::AuthError;
use siphon_messages::MessageError;
use siphon_msgr::{CloseReason, CredentialsError, SendError};
use siphon_proto::ProtocolError;
use siphon_wire::types::{EntityAddrVec, Errno, Uuid};

/// What became of an attempt to open a session.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The daemon: `mon.a`, or `mon.noname-a` of one that is known by its address only.
    pub name: String,
    /// Where it was looked for.
    pub addrs: EntityAddrVec,
    /// Why there is no session; nothing if there is no answer yet.
    pub reason: Option<CloseReason>,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: ", self.name, self.addrs)?;
        match &self.reason {
            Some(reason) => write!(f, "{reason}"),
            None => f.write_str("no answer"),
        }
    }
}

/// Why the monitors or the manager did not answer.
///
/// A command that they answered with an error is no error of this kind: see
/// [`CommandOutput::code`](crate::CommandOutput).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MonError {
    /// No monitor opened a session with us in time.
    #[error("no monitor let us in within {after:?}{}", Attempts(tried))]
    NoMonitor {
        /// How long we looked.
        after: Duration,
        /// With whom, and why not.
        tried: Vec<Tried>,
    },
    /// The monitors know who we say we are, and don't believe us; or they want another method.
    #[error(
        "{mon} does not let us in: {source}; check the name (-n, --id) and its key (--keyring), \
         and that the name may ask monitors (caps mon)"
    )]
    Denied {
        /// The monitor.
        mon: String,
        /// What it said.
        source: AuthError,
    },
    /// The monitors are of another cluster than the configuration names.
    #[error(
        "{mon} is of the cluster {found}, but fsid in the configuration is {expected}; correct fsid or mon_host"
    )]
    WrongFsid {
        /// The monitor.
        mon: String,
        /// What the configuration says.
        expected: Uuid,
        /// What it is.
        found: Uuid,
    },
    /// There is a session, and no answer in time.
    #[error("no answer to {what} from {from} within {after:?}{}", Quorum(from))]
    TimedOut {
        /// What was asked.
        what: String,
        /// Whom: `mon.a`.
        from: String,
        /// How long we waited.
        after: Duration,
    },
    /// There was no manager that takes commands, or it could not be reached, in time.
    #[error("no manager is active that could answer {what} (waited {after:?}){}", Attempts(tried))]
    NoManager {
        /// What was asked.
        what: String,
        /// How long we waited.
        after: Duration,
        /// The manager that the map names, if there is one.
        tried: Vec<Tried>,
    },
    /// No monitor has this name or rank.
    #[error("there is no monitor {name}; there are: {known}")]
    NoSuchMonitor {
        /// The name or rank.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The one monitor that was meant cannot be reached.
    #[error("cannot reach {}", .0)]
    Unreachable(Tried),
    /// So many questions wait for an answer already.
    #[error("{max} questions to the monitors wait for an answer already")]
    TooMany {
        /// How many may.
        max: usize,
    },
    /// A question that cannot be sent: its input is too long.
    #[error("cannot send {what}: {source}")]
    Unsendable {
        /// What was asked.
        what: String,
        /// Why.
        source: SendError,
    },
    /// An answer that is malformed.
    #[error("{from} answers what cannot be read: {source}")]
    Malformed {
        /// Who.
        from: String,
        /// What is wrong.
        source: MessageError,
    },
    /// The client was shut down.
    #[error("the monitor client was shut down")]
    Shutdown,
}

impl MonError {
    /// The error number that librados would give.
    ///
    /// ```
    /// use siphon_monclient::MonError;
    /// use siphon_wire::types::Errno;
    /// assert_eq!(MonError::Shutdown.errno(), Errno::ESHUTDOWN);
    /// ```
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoMonitor { .. } | Self::TimedOut { .. } | Self::NoManager { .. } => {
                Errno::ETIMEDOUT
            }
            Self::Denied { .. } => Errno::EACCES,
            Self::WrongFsid { .. } => Errno::EINVAL,
            Self::NoSuchMonitor { .. } => Errno::ENOENT,
            Self::Unreachable(_) => Errno::ENXIO,
            Self::TooMany { .. } => Errno::EAGAIN,
            Self::Unsendable { .. } => Errno::E2BIG,
            Self::Malformed { .. } => Errno::EIO,
            Self::Shutdown => Errno::ESHUTDOWN,
        }
    }
}

/// The attempts behind an error, and what they have in common.
struct Attempts<'a>(&'a [Tried]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, tried) in self.0.iter().enumerate() {
            write!(f, "{} {tried}", if n == 0 { ":" } else { ";" })?;
        }
        // A monitor out of quorum has no global ids to give (`AuthMonitor::assign_global_id`).
        let hung_up = |tried: &Tried| {
            matches!(tried.reason, Some(CloseReason::PeerClosed { stage: "authenticating" }))
        };
        if self.0.iter().any(hung_up) {
            f.write_str(" (a monitor that hangs up while it authenticates us has no quorum)")?;
        }
        Ok(())
    }
}

/// Why a monitor may be silent.
struct Quorum<'a>(&'a str);

impl fmt::Display for Quorum<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.starts_with("mon.") {
            f.write_str("; perhaps the monitors have no quorum")
        } else {
            Ok(())
        }
    }
}

/// What authentication said, if that is why a link was lost.
pub(crate) fn denial(reason: &CloseReason) -> Option<&AuthError> {
    match reason {
        CloseReason::Protocol(ProtocolError::AuthRejected(error)) => Some(error),
        _ => None,
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Nothing says where the monitors are.
    #[error("no monitors are known: give mon_host in ceph.conf (-c FILE), or -m ADDRESS{}", Dns(.dns.as_deref()))]
    NoMonitors {
        /// Why DNS did not help.
        dns: Option<String>,
    },
    /// A part of `mon_host` that is neither an address nor a host's name.
    #[error("\"{entry}\" in mon_host: {why}")]
    MonHost {
        /// The part.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// An `fsid` that is none.
    #[error("\"{fsid}\" is not an fsid, as 8c1b24f6-…: 32 hexadecimal digits in five groups")]
    Fsid {
        /// What is written.
        fsid: String,
    },
    /// There is no key.
    #[error("no key for {name}")]
    Credentials {
        /// Who we are.
        name: String,
        /// Why.
        source: CredentialsError,
    },
    /// The system gives no thread or socket.
    #[error("cannot start the client")]
    System(#[from] io::Error),
}

struct Dns<'a>(Option<&'a str>);

impl fmt::Display for Dns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(why) => write!(f, "; DNS has none either: {why}"),
            None => Ok(()),
        }
    }
}
