//! Advisory locks of an object: the class `lock` of OSDs.

use std::time::Duration;

use bytes::Bytes;
use siphon_messages::cls::lock::{
    AssertOp, BreakOp, GetInfoOp, LOCK_FLAG_MAY_RENEW, LOCK_FLAG_MUST_RENEW, ListLocksReply,
    LockInfo, LockOp, LockType, UnlockOp,
};
use siphon_messages::osd::decode_output;
use siphon_wire::Encode;
use siphon_wire::types::{ByteString, EntityName, Features, Utime};

use crate::{ObjectOp, Out, ReadOp, WriteOp};

const CLASS: &str = "lock";

/// A lock as its owner wants it.
///
/// ```
/// use std::time::Duration;
/// use siphon_rados::{Lock, WriteOp};
///
/// let lock = Lock::exclusive("leader").cookie("first").duration(Duration::from_secs(30));
/// let mut op = WriteOp::new();
/// op.lock(&lock);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    op: LockOp,
}

impl Lock {
    /// A lock that one owner has at once.
    ///
    /// ```
    /// let lock = siphon_rados::Lock::exclusive("leader");
    /// assert_eq!(*lock.name(), "leader");
    /// ```
    pub fn exclusive(name: impl Into<ByteString>) -> Self {
        Self::new(name.into(), LockType::EXCLUSIVE)
    }

    /// A lock that any number of owners have at once, who all have the same [`tag`](Self::tag).
    ///
    /// ```
    /// let lock = siphon_rados::Lock::shared("readers").tag("v1");
    /// ```
    pub fn shared(name: impl Into<ByteString>) -> Self {
        Self::new(name.into(), LockType::SHARED)
    }

    /// A lock that one owner has at once, and with which the object goes.
    ///
    /// ```
    /// let lock = siphon_rados::Lock::ephemeral("scratch");
    /// ```
    pub fn ephemeral(name: impl Into<ByteString>) -> Self {
        Self::new(name.into(), LockType::EXCLUSIVE_EPHEMERAL)
    }

    fn new(name: ByteString, kind: LockType) -> Self {
        Self { op: LockOp { name, kind, ..LockOp::default() } }
    }

    /// Which of this client's owners it is for; empty unless set.
    ///
    /// ```
    /// let lock = siphon_rados::Lock::exclusive("leader").cookie("thread 3");
    /// ```
    #[must_use]
    pub fn cookie(mut self, cookie: impl Into<ByteString>) -> Self {
        self.op.cookie = cookie.into();
        self
    }

    /// What all who take the lock must say alike; empty unless set.
    ///
    /// ```
    /// let lock = siphon_rados::Lock::shared("readers").tag("v1");
    /// ```
    #[must_use]
    pub fn tag(mut self, tag: impl Into<ByteString>) -> Self {
        self.op.tag = tag.into();
        self
    }

    /// For people.
    ///
    /// ```
    /// let lock = siphon_rados::Lock::exclusive("leader").description("the nightly job");
    /// ```
    #[must_use]
    pub fn description(mut self, description: impl Into<ByteString>) -> Self {
        self.op.description = description.into();
        self
    }

    /// After which time, by the OSD's clock, others may have the lock; for good unless set. What is
    /// longer than 136 years is for good.
    ///
    /// ```
    /// use std::time::Duration;
    /// let lock = siphon_rados::Lock::exclusive("leader").duration(Duration::from_secs(30));
    /// ```
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.op.duration = Utime::try_from(duration).unwrap_or_default();
        self
    }

    /// Lets the owner take the lock again, for another duration.
    ///
    /// ```
    /// let lock = siphon_rados::Lock::exclusive("leader").may_renew();
    /// ```
    #[must_use]
    pub fn may_renew(mut self) -> Self {
        self.op.flags = LOCK_FLAG_MAY_RENEW;
        self
    }

    /// Gives the lock only to who has it, for another duration; else the error is `ENOENT`.
    ///
    /// ```
    /// let lock = siphon_rados::Lock::exclusive("leader").must_renew();
    /// ```
    #[must_use]
    pub fn must_renew(mut self) -> Self {
        self.op.flags = LOCK_FLAG_MUST_RENEW;
        self
    }

    /// Its name.
    ///
    /// ```
    /// assert_eq!(*siphon_rados::Lock::exclusive("leader").name(), "leader");
    /// ```
    pub fn name(&self) -> &ByteString {
        &self.op.name
    }
}

impl WriteOp {
    /// Takes a lock; `EBUSY` if another has it, `EEXIST` if this owner has it.
    ///
    /// ```
    /// use siphon_rados::{Lock, WriteOp};
    /// let mut op = WriteOp::new();
    /// op.lock(&Lock::exclusive("leader"));
    /// ```
    pub fn lock(&mut self, lock: &Lock) -> &mut Self {
        self.locked("lock", &lock.op)
    }

    /// Lets a lock go; `ENOENT` if this owner does not have it.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.unlock("leader", "first");
    /// ```
    pub fn unlock(
        &mut self,
        name: impl Into<ByteString>,
        cookie: impl Into<ByteString>,
    ) -> &mut Self {
        self.locked("unlock", &UnlockOp { name: name.into(), cookie: cookie.into() })
    }

    /// Takes a lock from another client's owner; `ENOENT` if that does not have it.
    ///
    /// ```
    /// use siphon_rados::types::EntityName;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.break_lock("leader", EntityName::client(4123), "first");
    /// ```
    pub fn break_lock(
        &mut self,
        name: impl Into<ByteString>,
        locker: EntityName,
        cookie: impl Into<ByteString>,
    ) -> &mut Self {
        let input = BreakOp { name: name.into(), locker, cookie: cookie.into() };
        self.locked("break_lock", &input)
    }
}

impl<K> ObjectOp<K> {
    /// Goes on only if this client has `lock`, as it says; else the error is `EBUSY`.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use siphon_rados::{Lock, WriteOp};
    /// let mut op = WriteOp::new();
    /// op.assert_locked(&Lock::exclusive("leader")).write_full(Bytes::from_static(b"mine"));
    /// ```
    pub fn assert_locked(&mut self, lock: &Lock) -> &mut Self {
        let LockOp { name, kind, cookie, tag, .. } = lock.op.clone();
        self.locked("assert_locked", &AssertOp { name, kind, cookie, tag })
    }

    fn locked(&mut self, method: &str, input: &impl Encode) -> &mut Self {
        self.exec(CLASS, method, input.to_bytes(Features::ALL));
        self
    }
}

impl ReadOp {
    /// Who has a lock; nobody, if there is none of this name.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let info = op.lock_info("leader");
    /// # let _ = info;
    /// ```
    pub fn lock_info(&mut self, name: impl Into<ByteString>) -> Out<LockInfo> {
        let input = GetInfoOp { name: name.into() }.to_bytes(Features::ALL);
        self.call(CLASS, "get_info", input.into(), |op| decode_output(&op.data.to_bytes()))
    }

    /// The names of the object's locks.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let locks = op.list_locks();
    /// # let _ = locks;
    /// ```
    pub fn list_locks(&mut self) -> Out<Vec<ByteString>> {
        self.call(CLASS, "list_locks", Bytes::new().into(), |op| {
            decode_output::<ListLocksReply>(&op.data.to_bytes()).map(|reply| reply.locks)
        })
    }
}
