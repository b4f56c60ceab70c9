//! Ceph's base types.

mod addr;
mod addrvec;
mod bytestring;
mod entity;
mod error;
mod features;
mod utime;

pub use addr::{AddrType, EntityAddr};
pub use addrvec::EntityAddrVec;
pub use bytestring::ByteString;
pub use entity::{AuthName, EntityName, EntityType};
pub use error::ParseError;
pub use features::Features;
pub use utime::Utime;
