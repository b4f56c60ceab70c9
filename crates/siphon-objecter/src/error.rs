use std::fmt;
use std::time::Duration;

use siphon_messages::MessageError;
use siphon_monclient::MonError;
use siphon_wire::types::Errno;

use crate::OpReply;

/// Why an operation failed.
///
/// ```
/// use siphon_objecter::OpError;
/// use siphon_wire::types::Errno;
/// let error = OpError::NoSuchPool { pool: 7 };
/// assert_eq!(error.errno(), Errno::ENOENT);
/// assert_eq!(error.to_string(), "there is no pool with the id 7");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OpError {
    /// The OSD refused it. The reply says why, and for which of the operations.
    Refused(Box<OpReply>),
    /// The cluster has shut this client out: nothing that it sends is taken any more.
    Blocklisted,
    /// There is no such pool, or no more.
    NoSuchPool {
        /// The pool's id.
        pool: i64,
    },
    /// The pool is set to fail everything (its flag `eio`).
    PoolFails {
        /// The pool's id.
        pool: i64,
    },
    /// There is no such OSD.
    NoSuchOsd {
        /// Its number.
        osd: i32,
    },
    /// The OSD that a command is for does not run.
    OsdDown {
        /// Its number.
        osd: i32,
    },
    /// It took too long (`rados_osd_op_timeout`, or the operation's own). Whether a change was made is not
    /// known.
    TimedOut {
        /// What it was given.
        after: Duration,
    },
    /// The OSD's reply cannot be used: the OSD errs. Whether a change was made is not known.
    BadReply(BadReply),
    /// OSDs sent it from one object to another, again and again.
    TooManyRedirects,
    /// Nothing is to be done, or more than a request can have.
    OpCount {
        /// How many operations it has.
        count: usize,
        /// How many it may have.
        limit: usize,
    },
    /// It carries more than a message can.
    TooLong {
        /// The bytes that it carries.
        bytes: u64,
        /// How many there may be.
        limit: u64,
    },
    /// A watch does not exist any more: notifications may have been missed. Watch anew.
    WatchLost {
        /// What the OSD answered, or that it cut us off (`ENOTCONN`).
        errno: Errno,
    },
    /// The client was shut down.
    Shutdown,
}

/// Why something besides operations failed: what monitors are asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum ObjecterError {
    /// No monitor has let the client in.
    NotAuthenticated,
    /// The client of the monitors has an objecter already.
    Taken,
    /// The monitors did not answer, or refused.
    Monitors(MonError),
    /// An operation, or a wait for a map, failed.
    Op(OpError),
    /// The monitors refused a change of a pool.
    Pool {
        /// Why.
        errno: Errno,
    },
}

impl ObjecterError {
    /// What Ceph's own library would return.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotAuthenticated => Errno::ENOTCONN,
            Self::Taken => Errno::EBUSY,
            Self::Monitors(error) => error.errno(),
            Self::Op(error) => error.errno(),
            Self::Pool { errno } => *errno,
        }
    }
}

impl fmt::Display for ObjecterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAuthenticated => {
                f.write_str("no monitor has let this client in yet: authenticate first")
            }
            Self::Taken => {
                f.write_str("this client of monitors has an objecter already: clone that")
            }
            Self::Monitors(error) => write!(f, "{error}"),
            Self::Op(error) => write!(f, "{error}"),
            Self::Pool { errno } => write!(f, "the monitors refused it: {errno}"),
        }
    }
}

impl std::error::Error for ObjecterError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Monitors(error) => std::error::Error::source(error),
            Self::Op(error) => std::error::Error::source(error),
            _ => None,
        }
    }
}

impl From<MonError> for ObjecterError {
    fn from(error: MonError) -> Self {
        Self::Monitors(error)
    }
}

impl From<OpError> for ObjecterError {
    fn from(error: OpError) -> Self {
        Self::Op(error)
    }
}

/// What is wrong with a reply.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BadReply {
    /// It cannot be read.
    Malformed(MessageError),
    /// It is not of as many operations as were sent.
    OpCount {
        /// How many were sent.
        sent: usize,
        /// How many came back.
        came: usize,
    },
    /// It lacks what it should have.
    Content(&'static str),
}

impl OpError {
    /// What Ceph's own library would return.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Refused(reply) => Errno::of_result(reply.result).unwrap_or(Errno::EIO),
            Self::Blocklisted => Errno::ESHUTDOWN,
            Self::NoSuchPool { .. } | Self::NoSuchOsd { .. } => Errno::ENOENT,
            Self::PoolFails { .. } => Errno::EIO,
            Self::OsdDown { .. } => Errno::ENXIO,
            Self::TimedOut { .. } => Errno::ETIMEDOUT,
            Self::BadReply(_) => Errno::EBADMSG,
            Self::TooManyRedirects => Errno::ELOOP,
            Self::OpCount { .. } => Errno::EINVAL,
            Self::TooLong { .. } => Errno::EMSGSIZE,
            Self::WatchLost { errno } => *errno,
            Self::Shutdown => Errno::ECANCELED,
        }
    }

    /// The OSD's reply, if it was one that refused.
    pub fn reply(&self) -> Option<&OpReply> {
        match self {
            Self::Refused(reply) => Some(reply),
            _ => None,
        }
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_) => write!(f, "the OSD refused it: {}", self.errno()),
            Self::Blocklisted => f.write_str(
                "this client is on the cluster's blocklist: connect anew, or see `ceph osd blocklist ls`",
            ),
            Self::NoSuchPool { pool } => write!(f, "there is no pool with the id {pool}"),
            Self::PoolFails { pool } => {
                write!(f, "pool {pool} is set to fail everything (`ceph osd pool set … eio`)")
            }
            Self::NoSuchOsd { osd } => write!(f, "there is no osd.{osd}"),
            Self::OsdDown { osd } => write!(f, "osd.{osd} is down"),
            Self::TimedOut { after } => write!(
                f,
                "no answer within {} s; whether a change was made is not known",
                after.as_secs_f64()
            ),
            Self::BadReply(bad) => write!(f, "the OSD's reply cannot be used: {bad}"),
            Self::TooManyRedirects => f.write_str("OSDs redirect the request again and again"),
            Self::OpCount { count, limit } => {
                write!(f, "a request of {count} operations; there are 1 to {limit} in one")
            }
            Self::TooLong { bytes, limit } => {
                write!(f, "a request of {bytes} bytes, of {limit} at most: write in several")
            }
            Self::WatchLost { errno } => {
                write!(f, "the watch is lost ({errno}), and notifications may be: watch anew")
            }
            Self::Shutdown => f.write_str("the client was shut down"),
        }
    }
}

impl std::error::Error for OpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::BadReply(BadReply::Malformed(error)) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(_) => f.write_str("it is malformed"),
            Self::OpCount { sent, came } => {
                write!(f, "it is of {came} operations, where {sent} were sent")
            }
            Self::Content(what) => f.write_str(what),
        }
    }
}

impl From<BadReply> for OpError {
    fn from(bad: BadReply) -> Self {
        Self::BadReply(bad)
    }
}
