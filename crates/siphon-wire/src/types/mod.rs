//! Ceph's base types.

mod addr;
mod addrvec;
mod bytestring;
mod entity;
mod errno;
mod error;
mod features;
mod hobject;
mod object;
mod pg;
mod release;
mod trace;
mod utime;
mod uuid;
mod version;

pub use addr::{AddrType, EntityAddr};
pub use addrvec::EntityAddrVec;
pub use bytestring::ByteString;
pub use entity::{AuthName, EntityName, EntityType};
pub use errno::Errno;
pub use error::ParseError;
pub use features::Features;
pub use hobject::HObject;
pub use object::{ObjectLocator, ReqId, RequestRedirect, SnapId};
pub use pg::{PgId, ShardId, SpgId};
pub use release::Release;
pub use trace::BlkinTrace;
pub use utime::{Utime, UtimeRangeError};
pub use uuid::{CephFsid, Uuid};
pub use version::{EVersion, Epoch, Version};
