use siphon_messages::osd::OsdOpCode;
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Errno};

use crate::InvalidOp;

/// Why an operation did not succeed. Each has Ceph's number: [`Error::errno`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An OSD or a monitor refused.
    #[error("{errno}")]
    Refused {
        /// Its reason.
        errno: Errno,
    },
    /// The object has other bytes than [`cmp_ext`](crate::ObjectOp::cmp_ext) was to find.
    #[error("the object differs from what it was compared with, first at byte {offset} of that")]
    Mismatch {
        /// The first byte that differs, counted from where the comparison began.
        offset: u64,
    },
    /// There is no pool of this name.
    #[error("there is no pool {name:?}")]
    NoSuchPool {
        /// The name.
        name: ByteString,
    },
    /// The pool has no snapshot of this name.
    #[error("the pool has no snapshot {name:?}")]
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
}

impl Error {
    /// The error of a request's result: `errno` is what Ceph has.
    pub(crate) fn refused(errno: Errno) -> Self {
        // `finish_extent_cmp` of osd/PrimaryLogPG.cc, 16.2.7.
        match u64::try_from(errno.0.saturating_sub(Errno::MAX)) {
            Ok(offset) => Self::Mismatch { offset },
            Err(_) => Self::Refused { errno },
        }
    }

    /// Ceph's number for it, as librados would return it.
    ///
    /// ```
    /// use siphon_rados::Error;
    /// use siphon_wire::types::Errno;
    /// assert_eq!(Error::NoSuchPool { name: "x".into() }.errno(), Errno::ENOENT);
    /// ```
    pub fn errno(&self) -> Errno {
        match self {
            Self::Refused { errno } => *errno,
            Self::Mismatch { offset } => {
                let offset = i32::try_from(*offset).unwrap_or(i32::MAX);
                Errno(Errno::MAX.saturating_add(offset))
            }
            Self::NoSuchPool { .. } | Self::NoSuchSnap { .. } => Errno::ENOENT,
            Self::ReadOnly => Errno::EROFS,
            Self::Invalid(_) => Errno::EINVAL,
            Self::Answer { .. } | Self::MissingAnswer { .. } => Errno::EIO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_that_fails_tells_where() {
        let error = Error::refused(Errno::of_result(-4095 - 7).unwrap());
        assert!(matches!(error, Error::Mismatch { offset: 7 }), "{error:?}");
        assert_eq!(error.errno().to_result(), -4102);
        assert!(matches!(Error::refused(Errno(4095)), Error::Mismatch { offset: 0 }));
        assert!(matches!(Error::refused(Errno::EPERM), Error::Refused { errno: Errno::EPERM }));
    }
}
