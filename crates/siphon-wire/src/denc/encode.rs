use std::cell::Cell;
use std::mem;

use bytes::Bytes;

use super::Fixed;
use crate::buf::{self, MAX_SHARED};
use crate::types::Features;

/// A value with a place in Ceph's wire format.
pub trait Encode {
    /// Appends the value, in the form that a peer with `enc.features()` understands.
    fn encode(&self, enc: &mut Encoder);

    /// The value alone, as bytes.
    fn to_bytes(&self, features: Features) -> Bytes {
        let mut enc = Encoder::new(features);
        self.encode(&mut enc);
        enc.finish()
    }
}

/// Appends encoded values to a growing buffer; knows the features of the peer it encodes for.
///
/// ```
/// use siphon_wire::{Encoder, types::Features};
/// let mut enc = Encoder::new(Features::ALL);
/// enc.versioned(2, 1, |enc| enc.u32(7));
/// assert_eq!(&enc.finish()[..], [2, 1, 4, 0, 0, 0, 7, 0, 0, 0]);
/// ```
#[derive(Debug)]
pub struct Encoder {
    buf: Vec<u8>,
    features: Features,
}

thread_local! {
    /// Where a thread encodes what is copied from there: boxed, so that it moves as one word.
    static SCRATCH: Cell<Option<Box<Encoder>>> = const { Cell::new(None) };
}

/// The longest memory that a thread keeps to encode in, in bytes: what is to be copied fits, however it grew.
const MAX_SCRATCH: usize = 2 * MAX_SHARED;

/// Room for what [`Encoder::fixed`] appends.
static ZEROS: [u8; 128] = [0; 128];

macro_rules! put {
    ($($name:ident: $ty:ty;)*) => {$(
        #[doc = concat!("Appends a little-endian `", stringify!($ty), "`.")]
        #[inline]
        pub fn $name(&mut self, value: $ty) {
            self.raw(&value.to_le_bytes());
        }
    )*};
}

impl Encoder {
    /// An empty encoder for a peer with `features`.
    pub fn new(features: Features) -> Self {
        Self::with_buffer(Vec::new(), features)
    }

    /// An encoder that appends to `buf`, which [`Encoder::into_buffer`] gives back.
    pub fn with_buffer(buf: Vec<u8>, features: Features) -> Self {
        Self { buf, features }
    }

    /// What `body` encodes, as bytes. Where that is short, it shares memory with what the thread encodes
    /// before and after it, so that encoding asks nothing of the allocator.
    ///
    /// ```
    /// use siphon_wire::{Encoder, types::Features};
    /// assert_eq!(Encoder::gathered(Features::ALL, |enc| enc.u16(7)), [7, 0][..]);
    /// ```
    pub fn gathered(features: Features, body: impl FnOnce(&mut Self)) -> Bytes {
        Self::in_scratch(features, body, |encoded| match encoded.len() {
            ..=MAX_SHARED => buf::copied(encoded),
            _ => mem::take(encoded).into(),
        })
    }

    /// What `take` makes of what `body` encodes. Memory of no more than 2 KiB that it leaves there is kept for who
    /// encodes next on this thread, but not within `body`; so what is short is to be copied, and what is long to be
    /// taken.
    ///
    /// ```
    /// use siphon_wire::{Encoder, types::Features};
    /// let sum = |encoded: &mut Vec<u8>| encoded.iter().sum::<u8>();
    /// assert_eq!(Encoder::in_scratch(Features::ALL, |enc| enc.u16(0x0107), sum), 8);
    /// ```
    #[inline]
    pub fn in_scratch<T>(
        features: Features,
        body: impl FnOnce(&mut Self),
        take: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> T {
        // Within the body of another it is that one's; a thread that ends has none.
        let spare = SCRATCH.try_with(Cell::take).ok().flatten();
        let mut enc = spare.unwrap_or_else(|| Box::new(Self::new(features)));
        enc.features = features;
        body(&mut enc);
        let taken = take(&mut enc.buf);
        enc.buf.clear();
        if enc.buf.capacity() <= MAX_SCRATCH {
            let _ = SCRATCH.try_with(|scratch| scratch.set(Some(enc)));
        }
        taken
    }

    /// The features of the peer that will decode this.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    put! { u8: u8; u16: u16; u32: u32; u64: u64; i8: i8; i16: i16; i32: i32; i64: i64; f32: f32; f64: f64; }

    /// Appends a boolean: one byte, 0 or 1.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// Appends bytes as they are, without a count.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Appends values one behind the other, with one look at the room that there is.
    ///
    /// ```
    /// use siphon_wire::{Encoder, types::Features};
    /// let mut enc = Encoder::new(Features::ALL);
    /// enc.fixed((1_u8, 2_u16, *b"name"));
    /// assert_eq!(enc.finish(), b"\x01\x02\0name"[..]);
    /// ```
    #[inline]
    pub fn fixed<T: Fixed>(&mut self, values: T) {
        const { assert!(T::SIZE <= ZEROS.len(), "more than is appended at once") };
        // Where they belong: what is put together elsewhere, by pieces, is not there yet to be copied.
        let at = self.buf.len();
        self.raw(&ZEROS[..T::SIZE]);
        values.put(&mut self.buf[at..]);
    }

    /// Appends a container's element count.
    ///
    /// # Panics
    /// If there are more than 2^32 - 1 elements: no container of ours can get there.
    #[inline]
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("a container of fewer than 2^32 elements"));
    }

    /// Appends a counted byte sequence: Ceph's `bufferlist` or `std::string`.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// Appends any value.
    #[inline]
    pub fn value<T: Encode + ?Sized>(&mut self, value: &T) {
        value.encode(self);
    }

    /// Writes a versioned section around what `body` appends.
    ///
    /// # Panics
    /// If `body` appends 4 GiB or more.
    #[inline]
    pub fn versioned(&mut self, version: u8, compat: u8, body: impl FnOnce(&mut Self)) {
        self.fixed((version, compat, 0_u32));
        self.behind_length(body);
    }

    /// Writes what `body` appends behind its own length as a `u32`.
    ///
    /// # Panics
    /// If `body` appends 4 GiB or more.
    #[inline]
    pub fn length_prefixed(&mut self, body: impl FnOnce(&mut Self)) {
        self.u32(0);
        self.behind_length(body);
    }

    /// Sets the length that was written last to that of what `body` appends.
    #[inline]
    fn behind_length(&mut self, body: impl FnOnce(&mut Self)) {
        let at = self.buf.len();
        body(self);
        let length = u32::try_from(self.buf.len() - at).expect("a section under 4 GiB");
        self.buf[at - 4..at].copy_from_slice(&length.to_le_bytes());
    }

    /// What was written, as shared bytes.
    pub fn finish(self) -> Bytes {
        self.buf.into()
    }

    /// What was written, as a buffer that can grow further.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_sections_have_their_own_lengths() {
        let mut enc = Encoder::new(Features::ALL);
        enc.versioned(3, 2, |enc| {
            enc.u8(7);
            enc.versioned(1, 1, |enc| enc.bytes(b"x"));
        });
        let wire = b"\x03\x02\x0c\0\0\0\x07\x01\x01\x05\0\0\0\x01\0\0\0x";
        assert_eq!(&enc.finish()[..], wire);
    }

    #[test]
    fn what_is_gathered_is_what_was_encoded_at_any_length_and_within_another() {
        for len in [0, 1, 300, MAX_SHARED, MAX_SHARED + 1, 50_000] {
            for features in [Features::ALL, Features::NONE, Features::ALL] {
                let bytes = Encoder::gathered(features, |enc| {
                    assert!(enc.is_empty() && enc.features() == features);
                    enc.raw(&vec![9; len]);
                    let inner = Encoder::gathered(Features(7), |enc| {
                        assert!(enc.is_empty() && enc.features() == Features(7));
                        enc.u8(5);
                    });
                    assert_eq!(inner, [5][..]);
                });
                assert_eq!(bytes, vec![9; len]);
            }
        }
    }

    #[test]
    fn short_memory_is_used_again_and_long_memory_is_not_kept() {
        let place = |len| {
            let body = |enc: &mut Encoder| enc.raw(&vec![1; len]);
            Encoder::in_scratch(Features::ALL, body, |encoded| encoded.as_ptr().addr())
        };
        assert_eq!(place(100), place(50));
        place(1 << 20);
        assert!(SCRATCH.take().is_none());
    }

    #[test]
    fn a_given_buffer_is_appended_to() {
        let mut enc = Encoder::with_buffer(b"ab".to_vec(), Features::ALL);
        enc.length_prefixed(|enc| enc.bool(true));
        assert_eq!(enc.len(), 7);
        assert_eq!(&enc.into_buffer()[..], b"ab\x01\0\0\0\x01");
    }
}
