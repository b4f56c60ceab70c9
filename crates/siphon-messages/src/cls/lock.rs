//! The class `lock`: advisory locks of an object (cls/lock/cls_lock_types.h, cls_lock_ops.h, 16.2.7).

use std::collections::BTreeMap;
use std::fmt;

use siphon_wire::types::{ByteString, EntityAddr, EntityName, Utime};
use siphon_wire::{Decode, Encode};

/// Who may have a lock at once (`ClsLockType`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct LockType(pub u8);

impl LockType {
    /// Nobody has it.
    pub const NONE: Self = Self(0);
    /// One.
    pub const EXCLUSIVE: Self = Self(1);
    /// Any number.
    pub const SHARED: Self = Self(2);
    /// One, and the object goes when the lock is let go.
    pub const EXCLUSIVE_EPHEMERAL: Self = Self(3);
}

/// As Ceph's tools show it.
impl fmt::Display for LockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match *self {
            Self::NONE => "none",
            Self::EXCLUSIVE => "exclusive",
            Self::SHARED => "shared",
            Self::EXCLUSIVE_EPHEMERAL => "exclusive-ephemeral",
            _ => "<unknown>",
        })
    }
}

impl fmt::Debug for LockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// [`LockOp::flags`]: whoever has the lock already has it again, for another `duration`.
pub const LOCK_FLAG_MAY_RENEW: u8 = 1;
/// [`LockOp::flags`]: only who has the lock already gets it.
pub const LOCK_FLAG_MUST_RENEW: u8 = 2;

/// Input of `lock`: takes a lock (`cls_lock_lock_op`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "cls_lock_lock_op")]
pub struct LockOp {
    /// The lock's name.
    pub name: ByteString,
    /// Who may have it at once.
    pub kind: LockType,
    /// Which of this client's owners takes it.
    pub cookie: ByteString,
    /// What all who take the lock must say alike.
    pub tag: ByteString,
    /// For people.
    pub description: ByteString,
    /// After which it ends; zero if never.
    pub duration: Utime,
    /// `LOCK_FLAG_*`.
    pub flags: u8,
}

/// Input of `unlock`: lets a lock go (`cls_lock_unlock_op`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "cls_lock_unlock_op")]
pub struct UnlockOp {
    /// The lock's name.
    pub name: ByteString,
    /// Which of this client's owners has it.
    pub cookie: ByteString,
}

/// Input of `break_lock`: takes a lock from another (`cls_lock_break_op`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "cls_lock_break_op")]
pub struct BreakOp {
    /// The lock's name.
    pub name: ByteString,
    /// Who has it.
    pub locker: EntityName,
    /// Which of that client's owners.
    pub cookie: ByteString,
}

/// Input of `get_info` (`cls_lock_get_info_op`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "cls_lock_get_info_op")]
pub struct GetInfoOp {
    /// The lock's name.
    pub name: ByteString,
}

/// Who has a lock (`locker_id_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[denc(version = 1, name = "locker_id_t")]
pub struct LockerId {
    /// The client.
    pub locker: EntityName,
    /// Which of its owners.
    pub cookie: ByteString,
}

/// What is known of who has a lock (`locker_info_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "locker_info_t")]
pub struct LockerInfo {
    /// When the lock ends, by the OSD's clock; zero if never.
    pub expiration: Utime,
    /// The client's address.
    pub addr: EntityAddr,
    /// For people.
    pub description: ByteString,
}

/// Output of `get_info` (`cls_lock_get_info_reply`), and how the lock is stored (`lock_info_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "cls_lock_get_info_reply")]
pub struct LockInfo {
    /// Who has it.
    pub lockers: BTreeMap<LockerId, LockerInfo>,
    /// Who may have it at once.
    pub kind: LockType,
    /// What all who take it must say alike.
    pub tag: ByteString,
}

/// Output of `list_locks` (`cls_lock_list_locks_reply`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "cls_lock_list_locks_reply")]
pub struct ListLocksReply {
    /// Names of locks.
    pub locks: Vec<ByteString>,
}

/// Input of `assert_locked`: goes on only if this client has the lock (`cls_lock_assert_op`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "cls_lock_assert_op")]
pub struct AssertOp {
    /// The lock's name.
    pub name: ByteString,
    /// As it was taken.
    pub kind: LockType,
    /// Which of this client's owners.
    pub cookie: ByteString,
    /// As it was taken.
    pub tag: ByteString,
}

#[cfg(test)]
mod tests {
    use siphon_wire::types::Features;

    use super::*;

    #[test]
    fn a_lock_is_asked_for() {
        let op = LockOp {
            name: "n".into(),
            kind: LockType::EXCLUSIVE,
            cookie: "c".into(),
            duration: Utime::new(9, 0),
            flags: LOCK_FLAG_MAY_RENEW,
            ..LockOp::default()
        };
        let wire = b"\x01\x01\x1c\0\0\0\x01\0\0\0n\x01\x01\0\0\0c\0\0\0\0\0\0\0\0\
            \x09\0\0\0\0\0\0\0\x01";
        assert_eq!(&op.to_bytes(Features::ALL)[..], wire);
        assert_eq!(LockType(9).to_string(), "<unknown>");
    }
}
