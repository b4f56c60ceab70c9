use bytes::Bytes;
use smallvec::SmallVec;

/// A byte sequence made of reference-counted segments: Ceph's `bufferlist`.
///
/// Invariants: no segment is empty, and `len` is the sum of the segments' lengths.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    segments: SmallVec<[Bytes; 1]>,
    len: usize,
}

impl Rope {
    /// An empty rope.
    pub fn new() -> Self {
        Self { segments: SmallVec::new(), len: 0 }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a segment without copying it.
    pub fn push(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.len += segment.len();
            self.segments.push(segment);
        }
    }

    /// The segments in order.
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }
}

impl From<Bytes> for Rope {
    fn from(segment: Bytes) -> Self {
        let mut rope = Self::new();
        rope.push(segment);
        rope
    }
}
