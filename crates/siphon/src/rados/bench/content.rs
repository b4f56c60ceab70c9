//! What is written, and so what is to be read.

use bytes::{Bytes, BytesMut};
use siphon_wire::buf::Rope;

/// The bytes of all operations of a length: a text with the operation's number, a NUL, and z's, which
/// all share.
pub(super) struct Content {
    zs: Bytes,
}

impl Content {
    pub(super) fn new(length: usize) -> Self {
        Self { zs: vec![b'z'; length].into() }
    }

    fn head(&self, number: u64) -> Bytes {
        let mut head = BytesMut::from(format!("I'm the {number:16}th op!").as_bytes());
        // Ceph's cuts what does not fit, the NUL included.
        head.truncate(self.zs.len().saturating_sub(1));
        head.extend_from_slice(b"\0");
        head.freeze()
    }

    /// What operation `number` writes.
    pub(super) fn of(&self, number: u64) -> Rope {
        let head = self.head(number);
        let rest = self.zs.slice(head.len()..);
        [head, rest].into_iter().collect()
    }

    /// Whether `data` is what operation `number` wrote.
    pub(super) fn is(&self, number: u64, data: &Rope) -> bool {
        self.of(number) == *data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_differ_by_their_number() {
        let content = Content::new(64);
        let text = content.of(7).to_bytes();
        assert_eq!(text.len(), 64);
        assert_eq!(&text[..36], b"I'm the                7th op!\0zzzzz");
        assert!(content.is(7, &text.clone().into()) && !content.is(8, &text.slice(..).into()));
        assert!(!content.is(7, &text.slice(..63).into()));
        // Short ones have no room for their number.
        assert_eq!(Content::new(4).of(1), b"I'm\0");
        assert_eq!(Content::new(1).of(1), b"\0");
    }
}
