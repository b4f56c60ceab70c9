use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::TryFutureExt as _;
use siphon_messages::osd::OsdFlags;
use siphon_objecter::{Budget, Op, OpFuture, SnapContext, Target};
use siphon_osdmap::PoolFlags;
use siphon_wire::types::{ByteString, ObjectLocator, SnapId};

use crate::{Cluster, Error, ObjectOp, Outputs, Reading, Writing};

/// A pool of a cluster, and how its objects are reached: in which namespace, at which snapshot.
///
/// It is cheap to clone, and each clone can be set differently: Ceph's `IoCtx`. An operation on an object
/// is on its way when the call returns, whether or not its future is polled: those on one object take
/// effect in the order of the calls. What is an `async fn`, as watches, notifications and snapshots, and
/// what is a stream begins when it is first polled. Who drops a future gives up on the answer; the
/// operation may take effect or not, but never in part.
///
/// It keeps its cluster, and so do its streams and watches. What else is under way fails when the last
/// [`Cluster`] and `Pool` are dropped.
///
/// ```no_run
/// # async fn example(cluster: siphon_rados::Cluster) -> Result<(), siphon_rados::Error> {
/// use bytes::Bytes;
///
/// let pool = cluster.pool("data").await?.with_namespace("letters");
/// pool.write_full("first", Bytes::from_static(b"Dear reader")).await?;
/// assert_eq!(pool.read("first", 0, 4).await?, b"Dear");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pool {
    cluster: Cluster,
    id: i64,
    name: ByteString,
    namespace: ByteString,
    key: ByteString,
    snap: SnapId,
    snap_context: SnapContext,
}

impl Pool {
    pub(crate) fn new(cluster: Cluster, id: i64, name: ByteString) -> Self {
        Self {
            cluster,
            id,
            name,
            namespace: ByteString::new(),
            key: ByteString::new(),
            snap: SnapId::HEAD,
            snap_context: SnapContext::default(),
        }
    }

    /// The pool's number.
    ///
    /// ```no_run
    /// # fn example(pool: siphon_rados::Pool) {
    /// println!("{}", pool.id());
    /// # }
    /// ```
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The pool's name, as it was when it was looked up.
    ///
    /// ```no_run
    /// # fn example(pool: siphon_rados::Pool) {
    /// println!("{}", pool.name());
    /// # }
    /// ```
    pub fn name(&self) -> &ByteString {
        &self.name
    }

    /// The cluster that it belongs to.
    ///
    /// ```no_run
    /// # fn example(pool: siphon_rados::Pool) {
    /// println!("{}", pool.cluster().fsid());
    /// # }
    /// ```
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The namespace; empty unless set.
    ///
    /// ```no_run
    /// # fn example(pool: siphon_rados::Pool) {
    /// assert!(pool.namespace().is_empty());
    /// # }
    /// ```
    pub fn namespace(&self) -> &ByteString {
        &self.namespace
    }

    /// The snapshot that is read; [`SnapId::HEAD`] unless set.
    ///
    /// ```no_run
    /// # fn example(pool: siphon_rados::Pool) {
    /// use siphon_rados::types::SnapId;
    /// assert_eq!(pool.snap(), SnapId::HEAD);
    /// # }
    /// ```
    pub fn snap(&self) -> SnapId {
        self.snap
    }

    /// The same pool, in a namespace: objects of the same name in others are others.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let mail = pool.clone().with_namespace("mail");
    /// assert_eq!(*mail.namespace(), "mail");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<ByteString>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// The same pool, where `key` places every object in place of its name: objects of one key are on
    /// the same OSDs, and are found by this key only.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let together = pool.clone().with_locator("user 17");
    /// together.create("inbox", true).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_locator(mut self, key: impl Into<ByteString>) -> Self {
        self.key = key.into();
        self
    }

    /// The same pool, as it was at a snapshot: read only.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let yesterday = pool.clone().at_snap(pool.snap_by_name("yesterday")?);
    /// let data = yesterday.read("first", 0, 0).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn at_snap(mut self, snap: SnapId) -> Self {
        self.snap = snap;
        self
    }

    /// The same pool, where what is written knows these snapshots: for those that the application
    /// manages itself.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// use bytes::Bytes;
    /// use siphon_rados::SnapContext;
    ///
    /// let snap = pool.create_selfmanaged_snap().await?;
    /// let context = SnapContext { seq: snap, snaps: vec![snap] };
    /// let writer = pool.clone().with_snap_context(context);
    /// writer.write_full("first", Bytes::from_static(b"after the snapshot")).await?;
    /// let before = pool.at_snap(snap).read("first", 0, 0).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_snap_context(mut self, context: SnapContext) -> Self {
        self.snap_context = context;
        self
    }

    /// Where objects of this handle are, as [`WriteOp::copy_from`](crate::WriteOp::copy_from) wants it.
    ///
    /// ```no_run
    /// # fn example(pool: siphon_rados::Pool) {
    /// assert_eq!(pool.locator().pool, pool.id());
    /// # }
    /// ```
    pub fn locator(&self) -> ObjectLocator {
        ObjectLocator {
            key: self.key.clone(),
            namespace: self.namespace.clone(),
            ..ObjectLocator::new(self.id)
        }
    }

    /// Of how many bytes each write has to be a multiple, but for an object's last: of an erasure-coded
    /// pool that takes no overwrites (`allow_ec_overwrites`), a stripe's. `None` if of any number.
    ///
    /// # Errors
    /// [`Error::NoSuchPool`], if it is gone.
    ///
    /// ```no_run
    /// # fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let block = (4_u64 << 20).next_multiple_of(pool.required_alignment()?.unwrap_or(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn required_alignment(&self) -> Result<Option<u64>, Error> {
        let map = self.cluster.objecter().map();
        let pool = map.pool(self.id).ok_or_else(|| self.gone())?;
        // `requires_aligned_append` of osd/osd_types.h, 16.2.7.
        let aligned = pool.is_erasure() && !pool.flags.contains(PoolFlags::EC_OVERWRITES);
        Ok(Some(u64::from(pool.stripe_width)).filter(|&width| aligned && width > 0))
    }

    pub(crate) fn target(&self, object: ByteString) -> Target {
        Target::object(self.id, object)
            .in_namespace(self.namespace.clone())
            .with_key(self.key.clone())
    }

    /// Has an object's OSD take the steps of `op`: all or none.
    ///
    /// # Errors
    /// A step failed, or a condition was not met; the operation cannot be sent; or this handle reads a
    /// snapshot and `op` writes.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// use siphon_rados::ReadOp;
    ///
    /// let mut op = ReadOp::new();
    /// let (stat, data) = (op.stat(), op.read(0, 4096));
    /// let outputs = pool.operate("first", op).await?;
    /// println!("{} bytes: {:?}", outputs.get(stat)?.size, outputs.get(data)?.to_bytes());
    /// # Ok(())
    /// # }
    /// ```
    pub fn operate<K: Kind>(&self, object: impl Into<ByteString>, op: ObjectOp<K>) -> Operation {
        Operation { state: self.submit(object.into(), op).map_err(|error| Some(Box::new(error))) }
    }

    /// Waits until there is room for an operation of so many bytes among those under way
    /// (`objecter_inflight_op_bytes`): who reads a file into objects reads no more of it than can be sent. It is in
    /// line when the call returns; dropping the future leaves the line.
    ///
    /// # Errors
    /// The cluster's handle was shut down.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), Box<dyn std::error::Error>> {
    /// let budget = pool.reserve(4 << 20).await?;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.write_full(bytes::Bytes::from(std::fs::read("file")?));
    /// pool.operate_within(budget, "object", op).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reserve(
        &self,
        bytes: u64,
    ) -> impl Future<Output = Result<Budget, Error>> + Send + Unpin + use<> {
        self.cluster.objecter().reserve(bytes).map_err(Error::from)
    }

    /// As [`operate`](Self::operate), with room that was waited for before.
    ///
    /// # Errors
    /// As there.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let budget = pool.reserve(0).await?;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.remove();
    /// pool.operate_within(budget, "object", op).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn operate_within<K: Kind>(
        &self,
        budget: Budget,
        object: impl Into<ByteString>,
        op: ObjectOp<K>,
    ) -> Operation {
        let request = self.request(object.into(), op);
        let submit = |request| self.cluster.objecter().submit_within(budget, request);
        Operation { state: request.map(submit).map_err(|error| Some(Box::new(error))) }
    }

    fn submit<K: Kind>(&self, object: ByteString, op: ObjectOp<K>) -> Result<OpFuture, Error> {
        Ok(self.cluster.objecter().submit(self.request(object, op)?))
    }

    fn request<K: Kind>(&self, object: ByteString, op: ObjectOp<K>) -> Result<Op, Error> {
        if K::FLAG.contains(OsdFlags::WRITE) && self.snap != SnapId::HEAD {
            return Err(Error::ReadOnly);
        }
        let (flags, mtime) = (op.flags(), op.mtime());
        let ops = op.into_ops()?;
        let mut request = Op::read(self.target(object), ops);
        request.flags = K::FLAG | flags;
        request.snapid = self.snap;
        request.mtime = mtime;
        if K::FLAG.contains(OsdFlags::WRITE) {
            request.snapc = self.snap_context.clone();
        }
        Ok(request)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} {:?}", self.id, self.name)?;
        if !self.namespace.is_empty() {
            write!(f, ", namespace {:?}", self.namespace)?;
        }
        if self.snap != SnapId::HEAD {
            write!(f, ", at {}", self.snap)?;
        }
        f.write_str(")")
    }
}

/// Whether an [`ObjectOp`] reads or writes.
///
/// ```
/// fn count<K: siphon_rados::Kind>(op: &siphon_rados::ObjectOp<K>) -> usize {
///     op.len()
/// }
/// assert_eq!(count(&siphon_rados::ReadOp::new()), 0);
/// ```
pub trait Kind: sealed::Sealed {
    #[doc(hidden)]
    const FLAG: OsdFlags;
}

impl Kind for Reading {
    const FLAG: OsdFlags = OsdFlags::READ;
}

impl Kind for Writing {
    const FLAG: OsdFlags = OsdFlags::WRITE;
}

mod sealed {
    #[expect(unnameable_types, reason = "so that there are no other kinds")]
    pub trait Sealed {}

    impl Sealed for crate::Reading {}
    impl Sealed for crate::Writing {}
}

/// An operation under way; a future of its [`Outputs`].
///
/// ```no_run
/// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
/// let mut op = siphon_rados::WriteOp::new();
/// op.create(false);
/// let operation = pool.operate("first", op); // under way
/// let outputs = operation.await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "whether it succeeded is known when it is awaited"]
pub struct Operation {
    /// An error that is there already is taken once.
    state: Result<OpFuture, Option<Box<Error>>>,
}

impl Future for Operation {
    type Output = Result<Outputs, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            Ok(future) => Pin::new(future).poll(context).map(|result| match result {
                Ok(reply) => Ok(Outputs::new(reply.ops, reply.version)),
                Err(error) => Err(error.into()),
            }),
            Err(error) => Poll::Ready(Err(*error.take().expect("polled after it was ready"))),
        }
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.state.is_ok() { "Operation(under way)" } else { "Operation(not sent)" })
    }
}
