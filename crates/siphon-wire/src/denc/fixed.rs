/// What takes the same number of bytes whatever its value: numbers, bytes, and tuples of such.
///
/// [`Encoder::fixed`](super::Encoder::fixed) appends it with one look at the room that there is.
pub trait Fixed: Copy {
    /// How many bytes it takes.
    const SIZE: usize;

    /// Writes it to `out`, which has that many.
    fn put(self, out: &mut [u8]);
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
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
}
