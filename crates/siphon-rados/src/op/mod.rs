//! Operations on an object, built before they are sent.

mod output;
mod read;
mod shared;
mod write;

use std::fmt;
use std::marker::PhantomData;

use siphon_messages::osd::{OsdFlags, OsdOp, OsdOpFlags};
use siphon_wire::DecodeError;
use siphon_wire::types::Utime;

pub use output::{Out, Outputs};

/// Several steps on one object, which an OSD takes all or none of, and nothing else between them.
///
/// [`ReadOp`] has the steps that read, [`WriteOp`] those that change the object, and both have
/// conditions: if one is not met, no step is taken. Whatever a step reads is promised as an [`Out`],
/// which [`Outputs`] keep.
///
/// ```
/// use siphon_rados::ReadOp;
/// use siphon_rados::types::Version;
///
/// let mut op = ReadOp::new();
/// op.assert_version(Version(7));
/// let stat = op.stat();
/// let data = op.read(0, 4096);
/// assert_eq!(format!("{op:?}"), "[assert-version v7,stat,read 0~4096]");
/// # let _ = (stat, data);
/// ```
#[derive(Clone)]
pub struct ObjectOp<K> {
    ops: Vec<OsdOp>,
    flags: OsdFlags,
    mtime: Option<Utime>,
    invalid: Option<InvalidOp>,
    kind: PhantomData<fn() -> K>,
}

/// The kind of [`ReadOp`]s.
///
/// ```
/// let op: siphon_rados::ObjectOp<siphon_rados::Reading> = siphon_rados::ReadOp::new();
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Reading {}

/// The kind of [`WriteOp`]s.
///
/// ```
/// let op: siphon_rados::ObjectOp<siphon_rados::Writing> = siphon_rados::WriteOp::new();
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Writing {}

/// Steps that read an object.
///
/// ```
/// let mut op = siphon_rados::ReadOp::new();
/// let (stat, data) = (op.stat(), op.read(0, 4096));
/// assert_eq!(op.len(), 2);
/// # let _ = (stat, data);
/// ```
pub type ReadOp = ObjectOp<Reading>;

/// Steps that change an object.
///
/// ```
/// use bytes::Bytes;
/// use siphon_rados::WriteOp;
///
/// let mut op = WriteOp::new();
/// op.create(true);
/// op.write_full(Bytes::from_static(b"content"));
/// op.set_xattr("owner", Bytes::from_static(b"me"));
/// assert_eq!(op.len(), 3);
/// ```
pub type WriteOp = ObjectOp<Writing>;

/// A step that no OSD would understand, or that cannot be encoded.
///
/// ```
/// use siphon_rados::{InvalidOp, WriteOp};
/// let mut op = WriteOp::new();
/// op.write_same(0, 5, bytes::Bytes::from_static(b"xy"));
/// assert_eq!(op.into_ops().unwrap_err(), InvalidOp::WriteSame { length: 5, pattern: 2 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOp {
    /// Names of classes and methods have a byte for their length.
    #[error("the name of a class or a method has {len} bytes, {max} at most are possible", max = OsdOp::MAX_CLASS_NAME)]
    ClassName {
        /// Its length in bytes.
        len: usize,
    },
    /// What is written again and again must fit in whole.
    #[error(
        "{length} bytes cannot be filled with copies of {pattern}: the length must be a multiple"
    )]
    WriteSame {
        /// How many bytes are to be written.
        length: u64,
        /// How many are given.
        pattern: usize,
    },
    /// Sums are of whole chunks.
    #[error(
        "{length} bytes are no whole chunks of {chunk_size}: the length must be a multiple, and not 0"
    )]
    Chunks {
        /// How many bytes are to be summed.
        length: u64,
        /// How many are a chunk.
        chunk_size: u32,
    },
    /// A request has a 16-bit count of steps.
    #[error("{count} steps, {max} at most are possible: send them in several operations", max = u16::MAX)]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// There is nothing to do.
    #[error("an operation without steps")]
    Empty,
}

impl<K> ObjectOp<K> {
    /// No steps yet.
    ///
    /// ```
    /// assert!(siphon_rados::ReadOp::new().is_empty());
    /// ```
    pub fn new() -> Self {
        Self {
            ops: Vec::new(),
            flags: OsdFlags::NONE,
            mtime: None,
            invalid: None,
            kind: PhantomData,
        }
    }

    /// How many steps there are.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.create(true).truncate(0);
    /// assert_eq!(op.len(), 2);
    /// ```
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    ///
    /// ```
    /// assert!(siphon_rados::WriteOp::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Gives the last step hints on how what it touches will be used.
    ///
    /// ```
    /// use siphon_rados::types::OsdOpFlags;
    /// let mut op = siphon_rados::ReadOp::new();
    /// op.read(0, 4096);
    /// op.hint(OsdOpFlags::FADVISE_SEQUENTIAL);
    /// assert_eq!(format!("{op:?}"), "[read 0~4096 [fadvise_sequential]]");
    /// ```
    ///
    /// # Panics
    /// If there is no step.
    pub fn hint(&mut self, flags: OsdOpFlags) -> &mut Self {
        self.ops.last_mut().expect("a hint follows a step").flags |= flags;
        self
    }

    /// Lets the steps behind the last one be taken although it fails; its [`Out`] has the error.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let owner = op.xattr("owner");
    /// op.fail_ok();
    /// let stat = op.stat();
    /// # let _ = (owner, stat);
    /// ```
    ///
    /// # Panics
    /// If there is no step.
    pub fn fail_ok(&mut self) -> &mut Self {
        self.hint(OsdOpFlags::FAILOK)
    }

    /// Adds flags of the whole operation, such as [`OsdFlags::BALANCE_READS`], or
    /// [`OsdFlags::FULL_TRY`] for what is to be tried although the pool is full.
    ///
    /// ```
    /// use siphon_rados::types::OsdFlags;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.remove().set_flags(OsdFlags::FULL_TRY);
    /// assert_eq!(op.flags(), OsdFlags::FULL_TRY);
    /// ```
    pub fn set_flags(&mut self, flags: OsdFlags) -> &mut Self {
        self.flags |= flags;
        self
    }

    /// The flags that were added.
    ///
    /// ```
    /// use siphon_rados::types::OsdFlags;
    /// assert_eq!(siphon_rados::ReadOp::new().flags(), OsdFlags::NONE);
    /// ```
    pub fn flags(&self) -> OsdFlags {
        self.flags
    }

    /// The time that was set.
    ///
    /// ```
    /// assert_eq!(siphon_rados::WriteOp::new().mtime(), None); // that of sending
    /// ```
    pub fn mtime(&self) -> Option<Utime> {
        self.mtime
    }

    /// The steps as they go to an OSD.
    ///
    /// # Errors
    /// The first step that cannot go.
    ///
    /// ```
    /// let error = siphon_rados::WriteOp::new().into_ops().unwrap_err();
    /// assert_eq!(error.to_string(), "an operation without steps");
    /// ```
    pub fn into_ops(self) -> Result<Vec<OsdOp>, InvalidOp> {
        match self.invalid {
            Some(invalid) => Err(invalid),
            None if self.ops.is_empty() => Err(InvalidOp::Empty),
            None if self.ops.len() > usize::from(u16::MAX) => {
                Err(InvalidOp::TooMany { count: self.ops.len() })
            }
            None => Ok(self.ops),
        }
    }

    fn push(&mut self, op: OsdOp) -> &mut Self {
        self.ops.push(op);
        self
    }

    /// Adds a step with an output.
    fn promise<T>(&mut self, op: OsdOp, decode: fn(&OsdOp) -> Result<T, DecodeError>) -> Out<T> {
        let out = Out::new(self.ops.len(), op.code, decode);
        self.ops.push(op);
        out
    }

    /// Remembers the first mistake.
    fn reject(&mut self, invalid: InvalidOp) {
        self.invalid.get_or_insert(invalid);
    }
}

impl<K> Default for ObjectOp<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// The steps as Ceph's logs show them.
impl<K> fmt::Debug for ObjectOp<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (n, op) in self.ops.iter().enumerate() {
            write!(f, "{}{op}", if n == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}
