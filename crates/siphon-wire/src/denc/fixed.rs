/// What takes the same number of bytes whatever its value: numbers, bytes, tuples of such, and structs with
/// `#[denc(fixed)]`.
///
/// [`Encoder::fixed`](super::Encoder::fixed) appends it with one look at the room that there is.
pub trait Fixed: Copy {
    /// How many bytes it takes.
    const SIZE: usize;

    /// Writes it to `out`, which has that many.
    fn put(self, out: &mut [u8]);

    /// It within a versioned section.
    ///
    /// ```
    /// use siphon_wire::{Encoder, Fixed, types::Features};
    /// let mut enc = Encoder::new(Features::ALL);
    /// enc.fixed((7_u16, 8_u8).section(2, 1));
    /// assert_eq!(enc.finish(), [2, 1, 3, 0, 0, 0, 7, 0, 8][..]);
    /// ```
    #[inline]
    fn section(self, version: u8, compat: u8) -> (u8, u8, u32, Self) {
        (version, compat, Self::SIZE as u32, self)
    }
}

macro_rules! numbers {
    ($($ty:ty)*) => {$(
        impl Fixed for $ty {
            const SIZE: usize = size_of::<Self>();

            #[inline]
            fn put(self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

numbers! { u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 }

impl<const N: usize> Fixed for &[u8; N] {
    const SIZE: usize = N;

    #[inline]
    fn put(self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }
}

impl<const N: usize> Fixed for [u8; N] {
    const SIZE: usize = N;

    #[inline]
    fn put(self, out: &mut [u8]) {
        out.copy_from_slice(&self);
    }
}

macro_rules! tuples {
    ($(($($ty:ident $index:tt),+))*) => {$(
        impl<$($ty: Fixed),+> Fixed for ($($ty,)+) {
            const SIZE: usize = 0 $(+ $ty::SIZE)+;

            #[inline]
            fn put(self, out: &mut [u8]) {
                $(let (at, out) = out.split_at_mut($ty::SIZE);
                self.$index.put(at);)+
                debug_assert!(out.is_empty(), "it is as long as it says");
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
}
