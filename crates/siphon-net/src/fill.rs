//! A buffer to receive into, until the wire crate's own is there.

/// Initialised memory that is filled from the front.
#[derive(Debug)]
pub struct FillBuf {
    memory: Box<[u8]>,
    filled: usize,
}

impl FillBuf {
    /// A buffer of `len` zeroes, none of them filled.
    pub fn new(len: usize) -> Self {
        Self { memory: vec![0; len].into_boxed_slice(), filled: 0 }
    }

    /// The part not filled yet.
    pub fn unfilled(&mut self) -> &mut [u8] {
        &mut self.memory[self.filled..]
    }

    /// The part filled.
    pub fn filled(&self) -> &[u8] {
        &self.memory[..self.filled]
    }

    /// Counts `n` more bytes as filled.
    ///
    /// # Panics
    ///
    /// If there are fewer left.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.remaining(), "advanced beyond the end");
        self.filled += n;
    }

    /// How many bytes are missing.
    pub fn remaining(&self) -> usize {
        self.memory.len() - self.filled
    }

    /// Whether none is missing.
    pub fn is_full(&self) -> bool {
        self.remaining() == 0
    }
}
