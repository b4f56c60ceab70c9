//! A rope on its way out.

use std::io::IoSlice;
use std::mem;

use bytes::Bytes;
use siphon_wire::buf::Rope;
use smallvec::SmallVec;

/// Most slices of one system call: Linux's `UIO_MAXIOV`.
pub(crate) const MAX_SLICES: usize = 1024;

/// The rope being sent and how far it is.
///
/// Invariant: with `remaining > 0`, `offset < rope.segments()[segment].len()`, and `remaining` is
/// what lies behind that position.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    rope: Rope,
    segment: usize,
    offset: usize,
    remaining: usize,
}

impl Outgoing {
    /// Whether all is out.
    pub(crate) fn is_empty(&self) -> bool {
        self.remaining == 0
    }

    /// Bytes that are not out.
    pub(crate) fn remaining(&self) -> usize {
        self.remaining
    }

    /// The segments that are not out, and how far the first of them is.
    pub(crate) fn segments(&self) -> (&[Bytes], usize) {
        let segments = if self.is_empty() { &[] } else { &self.rope.segments()[self.segment..] };
        (segments, self.offset)
    }

    /// Takes `rope`, leaving the empty one of the send before in its place.
    pub(crate) fn load(&mut self, rope: &mut Rope) {
        debug_assert!(self.rope.is_empty());
        mem::swap(&mut self.rope, rope);
        self.segment = 0;
        self.offset = 0;
        self.remaining = self.rope.len();
    }

    pub(crate) fn clear(&mut self) {
        self.rope.clear();
        self.remaining = 0;
    }

    /// Adds slices of what is to be sent, `limit` bytes at most. Gives their length in sum.
    pub(crate) fn slices<'a>(
        &'a self,
        limit: usize,
        slices: &mut SmallVec<[IoSlice<'a>; MAX_SLICES]>,
    ) -> usize {
        let mut asked = 0;
        let mut offset = self.offset;
        for segment in &self.rope.segments()[self.segment..] {
            if asked == limit || slices.len() == MAX_SLICES {
                break;
            }
            let end = segment.len().min(offset + (limit - asked));
            slices.push(IoSlice::new(&segment[offset..end]));
            asked += end - offset;
            offset = 0;
        }
        asked
    }

    /// Notes that `sent` more bytes, of those in [`slices`](Self::slices), are out.
    pub(crate) fn advance(&mut self, mut sent: usize) {
        self.remaining -= sent;
        while sent > 0 {
            let left = self.rope.segments()[self.segment].len() - self.offset;
            if sent < left {
                self.offset += sent;
                return;
            }
            sent -= left;
            self.segment += 1;
            self.offset = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outgoing_gives_every_byte_once_at_any_split() {
        for limit in 1..=9 {
            for sent in 1..=limit {
                let mut rope = Rope::new();
                for part in ["a", "bcd", "ef", "ghij"] {
                    rope.push(Bytes::from_static(part.as_bytes()));
                }
                let mut outgoing = Outgoing::default();
                outgoing.load(&mut rope);
                assert!(rope.is_empty());
                let mut out = Vec::new();
                while !outgoing.is_empty() {
                    let mut slices = SmallVec::new();
                    let asked = outgoing.slices(limit, &mut slices);
                    assert_eq!(asked, limit.min(outgoing.remaining()));
                    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                    drop(slices);
                    assert_eq!(bytes.len(), asked);
                    let sent = sent.min(asked);
                    out.extend_from_slice(&bytes[..sent]);
                    outgoing.advance(sent);
                }
                assert_eq!(out, b"abcdefghij");
            }
        }
    }
}
