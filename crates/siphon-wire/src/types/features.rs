/// A set of Ceph feature bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features(pub u64);
impl Features {
    /// All that this crate encodes for.
    pub const ALL: Self = Self(0x3f01_cfbf_fffd_ffff);
}
