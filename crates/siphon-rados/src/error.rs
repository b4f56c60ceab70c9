use siphon_messages::osd::OsdOpCode;
use siphon_monclient::MonError;
use siphon_objecter::{ObjecterError, OpError};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Errno, PgId};

use crate::InvalidOp;

/// Why an operation did not succeed. Each has Ceph's number: [`Error::errno`].
///
/// ```no_run
/// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
/// use siphon_rados::Error;
///
/// match pool.read("first", 0, 0).await {
///     Ok(data) => println!("{} bytes", data.len()),
///     Err(error) if error.errno().name() == Some("ENOENT") => println!("nobody wrote it"),
///     Err(Error::Op(error)) => println!("the OSD: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An OSD refused, or could not be asked.
    #[error(transparent)]
    Op(OpError),
    /// The monitors refused.
    #[error("the monitors refused it: {errno}")]
    Refused {
        /// Their reason.
        errno: Errno,
    },
    /// The monitors refused a command.
    #[error("{status} {errno}")]
    Command {
        /// Their reason.
        errno: Errno,
        /// What they say of it.
        status: String,
    },
    /// The monitors could not be asked.
    #[error(transparent)]
    Monitors(Box<MonError>),
    /// The sessions with OSDs could not be begun.
    #[error(transparent)]
    Objecter(Box<ObjecterError>),
    /// A step failed, and was let fail.
    #[error("{step} failed: {errno}")]
    Step {
        /// The step.
        step: OsdOpCode,
        /// The OSD's reason.
        errno: Errno,
    },
    /// The object has other bytes than [`cmp_ext`](crate::ObjectOp::cmp_ext) was to find.
    #[error("the object differs from what it was compared with, first at byte {offset} of that")]
    Mismatch {
        /// The first byte that differs, counted from where the comparison began.
        offset: u64,
    },
    /// There is no pool of this name or number.
    #[error("there is no pool {name}")]
    NoSuchPool {
        /// The name.
        name: ByteString,
    },
    /// The pool has no such placement group.
    #[error("there is no placement group {pg}: the pool has {pg_num}")]
    NoSuchPg {
        /// The placement group.
        pg: PgId,
        /// How many the pool has.
        pg_num: u32,
    },
    /// The pool has no snapshot of this name.
    #[error("the pool has no snapshot {name}")]
    NoSuchSnap {
        /// The name.
        name: ByteString,
    },
    /// This pool's handle reads a snapshot, which nobody changes.
    #[error("what is read at a snapshot cannot be changed")]
    ReadOnly,
    /// The operation has a step that no OSD understands.
    #[error(transparent)]
    Invalid(#[from] InvalidOp),
    /// An OSD answered what cannot be read.
    #[error("what the OSD answers to {step} cannot be read")]
    Answer {
        /// The step.
        step: OsdOpCode,
        /// What is wrong with it.
        #[source]
        error: DecodeError,
    },
    /// An OSD did not answer to a step, or the operation had no such step.
    #[error("the OSD did not answer to {step}")]
    MissingAnswer {
        /// The step.
        step: OsdOpCode,
    },
    /// An OSD lists the same objects again and again.
    #[error("an OSD lists the same objects again and again")]
    ListStuck,
}

impl Error {
    /// The monitors' refusal.
    pub(crate) fn refused(errno: Errno) -> Self {
        Self::Refused { errno }
    }

    /// Ceph's number for it, as librados would return it.
    ///
    /// ```
    /// use siphon_rados::Error;
    /// use siphon_rados::types::Errno;
    /// assert_eq!(Error::NoSuchPool { name: "x".into() }.errno(), Errno::ENOENT);
    /// ```
    pub fn errno(&self) -> Errno {
        match self {
            Self::Op(error) => error.errno(),
            Self::Monitors(error) => error.errno(),
            Self::Objecter(error) => error.errno(),
            Self::Refused { errno } | Self::Command { errno, .. } | Self::Step { errno, .. } => {
                *errno
            }
            Self::Mismatch { offset } => {
                let offset = i32::try_from(*offset).unwrap_or(i32::MAX);
                Errno(Errno::MAX.saturating_add(offset))
            }
            Self::NoSuchPool { .. } | Self::NoSuchPg { .. } | Self::NoSuchSnap { .. } => {
                Errno::ENOENT
            }
            Self::ReadOnly => Errno::EROFS,
            Self::Invalid(_) => Errno::EINVAL,
            Self::Answer { .. } | Self::MissingAnswer { .. } | Self::ListStuck => Errno::EIO,
        }
    }
}

impl From<OpError> for Error {
    fn from(error: OpError) -> Self {
        // `finish_extent_cmp` of osd/PrimaryLogPG.cc, 16.2.7: beyond the numbers of errors is where
        // a comparison failed.
        match u64::try_from(error.errno().0.saturating_sub(Errno::MAX)) {
            Ok(offset) => Self::Mismatch { offset },
            Err(_) => Self::Op(error),
        }
    }
}

impl From<MonError> for Error {
    fn from(error: MonError) -> Self {
        Self::Monitors(Box::new(error))
    }
}

impl From<ObjecterError> for Error {
    fn from(error: ObjecterError) -> Self {
        match error {
            ObjecterError::Monitors(error) => error.into(),
            ObjecterError::Op(error) => error.into(),
            ObjecterError::Pool { errno } => Self::Refused { errno },
            other => Self::Objecter(Box::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use siphon_objecter::OpReply;

    use super::*;

    #[test]
    fn a_comparison_that_fails_tells_where() {
        let refused = |result| {
            Error::from(OpError::Refused(Box::new(OpReply { result, ..OpReply::default() })))
        };
        let error = refused(-4095 - 7);
        assert!(matches!(error, Error::Mismatch { offset: 7 }), "{error:?}");
        assert_eq!(error.errno().to_result(), -4102);
        assert!(matches!(refused(-4095), Error::Mismatch { offset: 0 }));
        assert!(matches!(refused(-1), Error::Op(_)));
    }
}
