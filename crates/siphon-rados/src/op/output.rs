use std::fmt;

use siphon_messages::osd::{OsdOp, OsdOpCode, decode_output};
use siphon_wire::types::{Errno, Version};
use siphon_wire::{Decode, DecodeError};

use crate::Error;

/// What a step will have read; [`Outputs::get`] has it when the operation was answered.
///
/// ```
/// let mut op = siphon_rados::ReadOp::new();
/// let owner = op.xattr("owner");
/// assert_eq!(format!("{owner:?}"), "Out(getxattr of step 0)");
/// ```
pub struct Out<T> {
    index: usize,
    code: OsdOpCode,
    decode: fn(&OsdOp) -> Result<T, DecodeError>,
}

impl<T> Out<T> {
    pub(super) const fn new(
        index: usize,
        code: OsdOpCode,
        decode: fn(&OsdOp) -> Result<T, DecodeError>,
    ) -> Self {
        Self { index, code, decode }
    }
}

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> fmt::Debug for Out<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Out({} of step {})", self.code, self.index)
    }
}

/// Reads a step's output as a `T`, to its last byte.
pub(super) fn value<T: Decode>(op: &OsdOp) -> Result<T, DecodeError> {
    decode_output(&op.data.to_bytes())
}

/// What came of an operation.
///
/// ```
/// use siphon_rados::{Outputs, ReadOp};
/// use siphon_rados::types::Version;
///
/// let mut op = ReadOp::new();
/// let data = op.read(0, 5);
/// // What an OSD answers: the same steps, with what came out of them.
/// let mut answer = op.into_ops().unwrap();
/// answer[0].data = bytes::Bytes::from_static(b"hello").into();
/// let outputs = Outputs::new(answer, Version(9));
/// assert_eq!(outputs.get(data).unwrap(), b"hello");
/// assert_eq!(outputs.version(), Version(9));
/// ```
#[derive(Clone, Debug)]
pub struct Outputs {
    ops: Vec<OsdOp>,
    version: Version,
}

impl Outputs {
    /// Those of the steps that an OSD answered, and the object's version.
    ///
    /// ```
    /// use siphon_rados::Outputs;
    /// use siphon_rados::types::Version;
    /// assert_eq!(Outputs::new(Vec::new(), Version(9)).version(), Version(9));
    /// ```
    pub fn new(ops: Vec<OsdOp>, version: Version) -> Self {
        Self { ops, version }
    }

    /// The object's version: what was read, or what was made.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.create(false);
    /// println!("{:?}", pool.operate("first", op).await?.version());
    /// # Ok(())
    /// # }
    /// ```
    pub fn version(&self) -> Version {
        self.version
    }

    /// What a step has read.
    ///
    /// # Errors
    /// The step failed, and was let fail; or the OSD answered what cannot be read, or to other steps
    /// than it was asked for.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let mut op = siphon_rados::ReadOp::new();
    /// let stat = op.stat();
    /// println!("{} bytes", pool.operate("first", op).await?.get(stat)?.size);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get<T>(&self, out: Out<T>) -> Result<T, Error> {
        let op = self.step(&out)?;
        if let Some(errno) = Errno::of_result(op.rval) {
            return Err(Error::Step { step: out.code, errno });
        }
        (out.decode)(op).map_err(|error| Error::Answer { step: out.code, error })
    }

    /// The result of a step: of a class's method, the number that it returned.
    ///
    /// # Errors
    /// The OSD answered to other steps than it was asked for.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let mut op = siphon_rados::WriteOp::new();
    /// let answer = op.exec("hello", "write_return_data", bytes::Bytes::new());
    /// op.return_outputs();
    /// println!("{}", pool.operate("first", op).await?.result(answer)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn result<T>(&self, out: Out<T>) -> Result<i32, Error> {
        self.step(&out).map(|op| op.rval)
    }

    fn step<T>(&self, out: &Out<T>) -> Result<&OsdOp, Error> {
        let step = self.ops.get(out.index).filter(|op| op.code == out.code);
        step.ok_or(Error::MissingAnswer { step: out.code })
    }
}
