//! What this crate takes and gives that others define: programs need none of those by name.
//!
//! ```
//! use siphon_rados::types::{OsdFlags, SnapId, Version};
//! use siphon_rados::{ReadOp, WriteOp};
//!
//! let mut op = ReadOp::new();
//! op.assert_version(Version(7));
//! let mut op = WriteOp::new();
//! op.rollback(SnapId(3)).set_flags(OsdFlags::FULL_TRY);
//! ```

pub use siphon_common::{Config, ConfigError, Context};
pub use siphon_messages::cls::lock::{LockInfo, LockType, LockerId, LockerInfo};
pub use siphon_messages::mon::PoolStat;
pub use siphon_messages::osd::{
    AllocHintFlags, Checksum, Checksums, CloneInfo, CmpOp, CmpValue, ObjListSnapResponse,
    ObjectStat, OmapPart, OsdFlags, OsdOp, OsdOpCode, OsdOpFlags, SparseData, WatchItem,
};
pub use siphon_monclient::{MonClient, MonError, StartError};
pub use siphon_objecter::{BadReply, Objecter, ObjecterError, OpError, OpReply};
pub use siphon_wire::DecodeError;
pub use siphon_wire::buf::Rope;
pub use siphon_wire::types::{
    AuthName, ByteString, EVersion, EntityAddr, EntityName, Epoch, Errno, ObjectLocator,
    ParseError, PgId, SnapId, Utime, Uuid, Version,
};
