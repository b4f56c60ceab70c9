use std::fmt;
use std::ops::{BitOr, BitOrAssign};

macro_rules! flags {
    (
        $(#[$attr:meta])* $type:ident: $prefix:literal;
        $($bit:literal $constant:ident $name:literal;)*
    ) => {
        $(#[$attr])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $type(pub u32);

        impl $type {
            /// None.
            pub const NONE: Self = Self(0);
            $(
                #[doc = concat!("`", $prefix, stringify!($constant), "`.")]
                pub const $constant: Self = Self(1 << $bit);
            )*

            /// Whether all flags of `other` are set.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            const fn name(bit: u32) -> &'static str {
                match bit {
                    $($bit => $name,)*
                    _ => "???",
                }
            }
        }

        impl BitOr for $type {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl BitOrAssign for $type {
            fn bitor_assign(&mut self, other: Self) {
                self.0 |= other.0;
            }
        }

        /// The names with `+` between them, or `-` if there are none.
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut plus = "";
                for bit in (0..u32::BITS).filter(|bit| self.0 >> bit & 1 != 0) {
                    write!(f, "{plus}{}", Self::name(bit))?;
                    plus = "+";
                }
                if self.0 == 0 { f.write_str("-") } else { Ok(()) }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

flags! {
    /// How a request to an OSD is to be treated (`CEPH_OSD_FLAG_*` of include/rados.h).
    OsdFlags: "CEPH_OSD_FLAG_";
    0 ACK "ack";
    1 ONNVRAM "onnvram";
    2 ONDISK "ondisk";
    3 RETRY "retry";
    4 READ "read";
    5 WRITE "write";
    6 ORDERSNAP "ordersnap";
    7 PEERSTAT_OLD "peerstat_old";
    8 BALANCE_READS "balance_reads";
    9 PARALLELEXEC "parallelexec";
    10 PGOP "pgop";
    11 EXEC "exec";
    12 EXEC_PUBLIC "exec_public";
    13 LOCALIZE_READS "localize_reads";
    14 RWORDERED "rwordered";
    15 IGNORE_CACHE "ignore_cache";
    16 SKIPRWLOCKS "skiprwlocks";
    17 IGNORE_OVERLAY "ignore_overlay";
    18 FLUSH "flush";
    19 MAP_SNAP_CLONE "map_snap_clone";
    20 ENFORCE_SNAPC "enforce_snapc";
    21 REDIRECTED "redirected";
    22 KNOWN_REDIR "known_if_redirected";
    23 FULL_TRY "full_try";
    24 FULL_FORCE "full_force";
    25 IGNORE_REDIRECT "ignore_redirect";
    26 RETURNVEC "returnvec";
}

flags! {
    /// How one operation of a request is to be treated (`CEPH_OSD_OP_FLAG_*` of include/rados.h).
    OsdOpFlags: "CEPH_OSD_OP_FLAG_";
    0 EXCL "excl";
    1 FAILOK "failok";
    2 FADVISE_RANDOM "fadvise_random";
    3 FADVISE_SEQUENTIAL "fadvise_sequential";
    4 FADVISE_WILLNEED "favise_willneed";
    5 FADVISE_DONTNEED "fadvise_dontneed";
    6 FADVISE_NOCACHE "fadvise_nocache";
    7 WITH_REFERENCE "with_reference";
    8 BYPASS_CLEAN_CACHE "bypass_clean_cache";
}

flags! {
    /// How an object will be used (`CEPH_OSD_ALLOC_HINT_FLAG_*` of include/rados.h).
    AllocHintFlags: "CEPH_OSD_ALLOC_HINT_FLAG_";
    0 SEQUENTIAL_WRITE "sequential_write";
    1 RANDOM_WRITE "random_write";
    2 SEQUENTIAL_READ "sequential_read";
    3 RANDOM_READ "random_read";
    4 APPEND_ONLY "append_only";
    5 IMMUTABLE "immutable";
    6 SHORTLIVED "shortlived";
    7 LONGLIVED "longlived";
    8 COMPRESSIBLE "compressible";
    9 INCOMPRESSIBLE "incompressible";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_by_bit() {
        let flags = OsdFlags::WRITE | OsdFlags::ONDISK | OsdFlags::KNOWN_REDIR;
        assert_eq!(flags.to_string(), "ondisk+write+known_if_redirected");
        assert_eq!(flags.0, 0x40_0024);
        assert_eq!(OsdFlags::NONE.to_string(), "-");
        assert_eq!(OsdOpFlags(1 << 31 | 1).to_string(), "excl+???");
    }
}
