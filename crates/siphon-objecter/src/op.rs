use std::time::Duration;

use siphon_messages::osd::{OsdFlags, OsdOp};
use siphon_messages::{MOSDOp, MOSDOpReply};
use siphon_wire::types::{
    ByteString, EVersion, Epoch, HObject, ObjectLocator, SnapId, SpgId, Utime, Version,
};

/// What an operation is for: an object, or a placement group by a hash.
///
/// ```
/// use siphon_objecter::Target;
/// let object = Target::object(3, "name").in_namespace("ns").with_key("placed as this");
/// assert_eq!(object.pool, 3);
/// assert_eq!(Target::pg(3, 0x1f).hash, Some(0x1f));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The pool's id.
    pub pool: i64,
    /// The namespace within it; empty for the default one.
    pub namespace: ByteString,
    /// The object's name: any bytes. Empty for a placement group.
    pub object: ByteString,
    /// What is hashed in place of the name, if it is not empty (a locator key).
    pub key: ByteString,
    /// A hash in place of any name: its placement group is meant.
    pub hash: Option<u32>,
}

impl Target {
    /// An object of a pool.
    pub fn object(pool: i64, name: impl Into<ByteString>) -> Self {
        Self { pool, object: name.into(), ..Self::default() }
    }

    /// The placement group of a pool in which objects of this hash are: for listings. Cache tiers are
    /// passed by.
    pub fn pg(pool: i64, hash: u32) -> Self {
        Self { pool, hash: Some(hash), ..Self::default() }
    }

    /// The same in a namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<ByteString>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// The same, placed as an object of another name would be.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<ByteString>) -> Self {
        self.key = key.into();
        self
    }

    pub(crate) fn locator(&self) -> ObjectLocator {
        ObjectLocator {
            pool: self.pool,
            // As Ceph has it: such a key places nothing elsewhere, and OSDs don't know it.
            key: if self.key == self.object { ByteString::default() } else { self.key.clone() },
            namespace: self.namespace.clone(),
            hash: self.hash.map_or(-1, i64::from),
        }
    }
}

/// The snapshots that there are of what is written (`SnapContext`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapContext {
    /// The newest one's number, or that of the last removal.
    pub seq: SnapId,
    /// All that there are, newest first.
    pub snaps: Vec<SnapId>,
}

/// A request to an OSD: several operations on one object, of which all happen or none.
///
/// ```
/// use siphon_messages::osd::OsdOp;
/// use siphon_objecter::{Op, Target};
/// use siphon_wire::buf::Rope;
/// let data = Rope::from(bytes::Bytes::from_static(b"content"));
/// let write = Op::write(Target::object(1, "name"), vec![OsdOp::write_full(data)]);
/// let read = Op::read(Target::object(1, "name"), vec![OsdOp::read(0, 4096)]);
/// ```
#[derive(Clone, Debug)]
pub struct Op {
    /// What it is for.
    pub target: Target,
    /// What to do, in order.
    pub ops: Vec<OsdOp>,
    /// How to treat it: [`READ`](OsdFlags::READ), [`WRITE`](OsdFlags::WRITE) or both are among them, and
    /// the others that applications set (`BALANCE_READS`, `LOCALIZE_READS`, `RWORDERED`, `FULL_TRY`,
    /// `FULL_FORCE`, `IGNORE_OVERLAY`, `IGNORE_CACHE`, `SKIPRWLOCKS`, `ORDERSNAP`, `ENFORCE_SNAPC`,
    /// `RETURNVEC`, …).
    pub flags: OsdFlags,
    /// The snapshot to read.
    pub snapid: SnapId,
    /// The existing snapshots, for changes.
    pub snapc: SnapContext,
    /// When the change was made; the time of submission if not set.
    pub mtime: Option<Utime>,
    /// After how long to give it up; `rados_osd_op_timeout` if not set. Whether a change that is given up
    /// was made is not known.
    pub timeout: Option<Duration>,
    /// How urgent it is; `osd_client_op_priority` if not set.
    pub priority: Option<u16>,
}

impl Op {
    /// Operations that read.
    pub fn read(target: Target, ops: Vec<OsdOp>) -> Self {
        Self::new(target, ops, OsdFlags::READ)
    }

    /// Operations that change.
    pub fn write(target: Target, ops: Vec<OsdOp>) -> Self {
        Self::new(target, ops, OsdFlags::WRITE)
    }

    fn new(target: Target, ops: Vec<OsdOp>, flags: OsdFlags) -> Self {
        Self {
            target,
            ops,
            flags,
            snapid: SnapId::HEAD,
            snapc: SnapContext::default(),
            mtime: None,
            timeout: None,
            priority: None,
        }
    }

    /// Bytes that it counts for while it is under way: those that it sends, and those that it may bring.
    pub(crate) fn bytes(&self) -> u64 {
        self.ops.iter().map(op_bytes).fold(0, u64::saturating_add)
    }

    /// The request, without what depends on the map.
    pub(crate) fn into_message(self, client_inc: u32) -> MOSDOp {
        let locator = self.target.locator();
        let mut message = MOSDOp::new(client_inc, HObject::min(), SpgId::default());
        message.flags = self.flags | OsdFlags::KNOWN_REDIR | OsdFlags::ONDISK;
        if self.target.hash.is_some() {
            message.flags |= OsdFlags::IGNORE_OVERLAY;
        }
        message.mtime = self.mtime.unwrap_or_default();
        message.locator = locator;
        message.oid = self.target.object;
        message.ops = self.ops;
        message.snapid = self.snapid;
        message.snap_seq = self.snapc.seq;
        message.snaps = self.snapc.snaps;
        message
    }
}

fn op_bytes(op: &OsdOp) -> u64 {
    let sent = op.data.len() as u64;
    let brought = match op.as_extent() {
        Some(extent) if op.code.reads() => extent.length,
        _ => 0,
    };
    sent.saturating_add(brought)
}

/// What an OSD answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpReply {
    /// The object's version, as users see it.
    pub version: Version,
    /// The version in the placement group's log, for changes.
    pub replay_version: EVersion,
    /// The OSD's map.
    pub epoch: Epoch,
    /// The result of all: negative for an error, of Linux's numbers.
    pub result: i32,
    /// The operations with their results (`rval`) and what came out (`data`), as many as were sent.
    pub ops: Vec<OsdOp>,
}

impl From<MOSDOpReply> for OpReply {
    fn from(reply: MOSDOpReply) -> Self {
        Self {
            version: reply.user_version,
            replay_version: reply.replay_version,
            epoch: reply.osdmap_epoch,
            result: reply.result,
            ops: reply.ops,
        }
    }
}
