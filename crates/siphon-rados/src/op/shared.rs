//! Conditions, and what else both kinds of operations have.

use std::collections::BTreeMap;

use bytes::Bytes;
use siphon_messages::osd::{CmpOp, CmpValue, OsdOp};
use siphon_wire::buf::Rope;
use siphon_wire::types::{ByteString, Version};

use super::{InvalidOp, ObjectOp, Out};

impl<K> ObjectOp<K> {
    /// Goes on only if the object exists; else the error is `ENOENT`.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.assert_exists().append(bytes::Bytes::from_static(b"more"));
    /// ```
    pub fn assert_exists(&mut self) -> &mut Self {
        self.push(OsdOp::stat())
    }

    /// Goes on only if the object is at `version`; else the error is `ERANGE` if the object is beyond
    /// it, `EOVERFLOW` if it is not there yet. No object is at version 0: `EINVAL`.
    ///
    /// ```
    /// use siphon_rados::types::Version;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.assert_version(Version(7)).write_full(bytes::Bytes::from_static(b"eighth"));
    /// ```
    pub fn assert_version(&mut self, version: Version) -> &mut Self {
        self.push(OsdOp::assert_version(version))
    }

    /// Goes on only if `value` compares so with the attribute: [`CmpOp::Gt`] if `value` is the
    /// greater one. A missing attribute is empty. Else the error is `ECANCELED`.
    ///
    /// ```
    /// use siphon_rados::types::{CmpOp, CmpValue};
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.cmp_xattr("generation", CmpOp::Gt, CmpValue::U64(12)).remove();
    /// ```
    pub fn cmp_xattr(
        &mut self,
        name: impl Into<ByteString>,
        op: CmpOp,
        value: CmpValue,
    ) -> &mut Self {
        self.push(OsdOp::cmpxattr(&name.into(), op, value))
    }

    /// Goes on only if each of these entries of the object's map compares so with the bytes:
    /// [`CmpOp::Gt`] if the entry is the greater one. A missing entry is empty. Else the error is
    /// `ECANCELED`. OSDs know `Eq`, `Lt` and `Gt`.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use bytes::Bytes;
    /// use siphon_rados::types::CmpOp;
    /// let mut op = siphon_rados::WriteOp::new();
    /// let entries = BTreeMap::from([("state".into(), (Bytes::from_static(b"new"), CmpOp::Eq))]);
    /// op.omap_cmp(&entries).omap_clear();
    /// ```
    pub fn omap_cmp(&mut self, entries: &BTreeMap<ByteString, (Bytes, CmpOp)>) -> &mut Self {
        self.push(OsdOp::omap_cmp(entries))
    }

    /// Goes on only if the object has these bytes at `offset`; what is behind its end is zero. Else
    /// the error is [`Error::Mismatch`](crate::Error::Mismatch).
    ///
    /// ```
    /// use bytes::Bytes;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.cmp_ext(0, Bytes::from_static(b"old")).write(0, Bytes::from_static(b"new"));
    /// ```
    pub fn cmp_ext(&mut self, offset: u64, data: impl Into<Rope>) -> &mut Self {
        self.push(OsdOp::cmpext(offset, data.into()))
    }

    /// Calls a method of an object class. A [`WriteOp`](super::WriteOp) brings its output back only
    /// after [`return_outputs`](super::WriteOp::return_outputs).
    ///
    /// ```
    /// use bytes::Bytes;
    /// let mut op = siphon_rados::ReadOp::new();
    /// let greeting = op.exec("hello", "say_hello", Bytes::from_static(b"world"));
    /// # let _ = greeting;
    /// ```
    pub fn exec(&mut self, class: &str, method: &str, input: impl Into<Rope>) -> Out<Rope> {
        self.call(class, method, input.into(), |op| Ok(op.data.clone()))
    }

    /// The same, with a typed output.
    pub(crate) fn call<T>(
        &mut self,
        class: &str,
        method: &str,
        input: Rope,
        decode: fn(&OsdOp) -> Result<T, siphon_wire::DecodeError>,
    ) -> Out<T> {
        let len = class.len().max(method.len());
        if len > OsdOp::MAX_CLASS_NAME {
            self.reject(InvalidOp::ClassName { len });
            return self.promise(OsdOp::call("", "", Rope::new()), decode);
        }
        self.promise(OsdOp::call(class, method, input), decode)
    }
}
