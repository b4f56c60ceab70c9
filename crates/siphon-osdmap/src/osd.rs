use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

use siphon_wire::types::{Epoch, Features, Utime};
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

/// Sets of bits with names.
macro_rules! bits {
    ($(#[$doc:meta])* $type:ident($inner:ty) { $($(#[$bit_doc:meta])* $bit:literal $name:ident $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Encode, Decode)]
        pub struct $type(pub $inner);

        impl $type {
            $($(#[$bit_doc])* pub const $name: Self = Self(1 << $bit);)*

            /// No bit.
            pub const NONE: Self = Self(0);

            /// Whether all bits of `other` are set.
            #[inline]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Ceph's names of the bits that are set and have one, from the lowest up.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                const NAMES: &[(u32, &str)] = &[$(($bit, $text),)*];
                let set = move |(bit, _): &&(u32, &str)| self.0 >> *bit & 1 == 1;
                NAMES.iter().filter(set).map(|(_, name)| *name)
            }
        }

        impl BitOr for $type {
            type Output = Self;
            #[inline]
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl BitOrAssign for $type {
            #[inline]
            fn bitor_assign(&mut self, other: Self) {
                self.0 |= other.0;
            }
        }

        impl BitAnd for $type {
            type Output = Self;
            #[inline]
            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }

        impl Not for $type {
            type Output = Self;
            #[inline]
            fn not(self) -> Self {
                Self(!self.0)
            }
        }

        /// The names, separated by commas.
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (index, name) in self.names().enumerate() {
                    write!(f, "{}{name}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}({self})", self.0)
            }
        }
    };
}

pub(crate) use bits;

bits! {
    /// What is known of an OSD (`CEPH_OSD_*`, `include/rados.h`).
    ///
    /// ```
    /// use siphon_osdmap::OsdState;
    /// let state = OsdState::EXISTS | OsdState::NEW;
    /// assert!(state.contains(OsdState::EXISTS) && !state.contains(OsdState::UP));
    /// assert_eq!(state.to_string(), "exists,new");
    /// ```
    OsdState(u32) {
        /// There is such an OSD.
        0 EXISTS "exists";
        /// It runs.
        1 UP "up";
        /// It was taken out because it was down.
        2 AUTOOUT "autoout";
        /// It was never taken in.
        3 NEW "new";
        /// Clients may not write to it.
        4 FULL "full";
        /// It warns of that.
        5 NEARFULL "nearfull";
        /// Nothing is moved to it.
        6 BACKFILLFULL "backfillfull";
        /// Its data are gone, its number stays.
        7 DESTROYED "destroyed";
        /// It may not come up.
        8 NOUP "noup";
        /// It may not be marked down.
        9 NODOWN "nodown";
        /// It may not be taken in.
        10 NOIN "noin";
        /// It may not be taken out.
        11 NOOUT "noout";
        /// It was stopped by hand.
        12 STOP "stop";
    }
}

/// Weight 1 of an OSD in the map: it is in (`CEPH_OSD_IN`). 0 is out.
pub const WEIGHT_IN: u32 = 0x1_0000;

/// The affinity of an OSD that is as likely to be primary as any (`CEPH_OSD_DEFAULT_PRIMARY_AFFINITY`,
/// and the maximum).
pub const DEFAULT_PRIMARY_AFFINITY: u32 = 0x1_0000;

/// When an OSD was up (`osd_info_t`), by epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OsdInfo {
    /// First epoch of the last interval that ended cleanly.
    pub last_clean_begin: Epoch,
    /// Last epoch of that interval.
    pub last_clean_end: Epoch,
    /// When it was marked up last.
    pub up_from: Epoch,
    /// Through when it is known to have been up.
    pub up_thru: Epoch,
    /// When it was marked down last.
    pub down_at: Epoch,
    /// When it was given up with its data.
    pub lost_at: Epoch,
}

impl Encode for OsdInfo {
    fn encode(&self, enc: &mut Encoder) {
        enc.u8(1);
        enc.value(&self.last_clean_begin);
        enc.value(&self.last_clean_end);
        enc.value(&self.up_from);
        enc.value(&self.up_thru);
        enc.value(&self.down_at);
        enc.value(&self.lost_at);
    }
}

impl Decode for OsdInfo {
    const MIN_SIZE: usize = 1 + 6 * 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("osd_info_t", |dec| {
            let _version = dec.u8()?;
            Ok(Self {
                last_clean_begin: dec.value()?,
                last_clean_end: dec.value()?,
                up_from: dec.value()?,
                up_thru: dec.value()?,
                down_at: dec.value()?,
                lost_at: dec.value()?,
            })
        })
    }
}

/// More about an OSD (`osd_xinfo_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OsdXinfo {
    /// When it was marked down.
    pub down_stamp: Utime,
    /// How likely it is slow rather than dead, as a fraction of 2^32 - 1.
    pub laggy_probability: u32,
    /// For how long it was slow, in seconds, on average.
    pub laggy_interval: u32,
    /// What it supports.
    pub features: Features,
    /// The weight that it had before it was taken out by itself.
    pub old_weight: u32,
    /// When its removed snapshots were looked for last.
    pub last_purged_snaps_scrub: Utime,
    /// Last epoch in which it was known to be dead for good.
    pub dead_epoch: Epoch,
}

impl Encode for OsdXinfo {
    fn encode(&self, enc: &mut Encoder) {
        let octopus = enc.features().has(Features::SERVER_OCTOPUS);
        enc.versioned(if octopus { 4 } else { 3 }, 1, |enc| {
            enc.value(&self.down_stamp);
            enc.u32(self.laggy_probability);
            enc.u32(self.laggy_interval);
            enc.value(&self.features);
            enc.u32(self.old_weight);
            if octopus {
                enc.value(&self.last_purged_snaps_scrub);
                enc.value(&self.dead_epoch);
            }
        });
    }
}

impl Decode for OsdXinfo {
    const MIN_SIZE: usize = 6 + 8 + 4 + 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("osd_xinfo_t", 4, |dec, version| {
            let mut info = Self {
                down_stamp: dec.value()?,
                laggy_probability: dec.u32()?,
                laggy_interval: dec.u32()?,
                ..Self::default()
            };
            if version >= 2 {
                info.features = dec.value()?;
            }
            if version >= 3 {
                info.old_weight = dec.u32()?;
            }
            if version >= 4 {
                info.last_purged_snaps_scrub = dec.value()?;
                info.dead_epoch = dec.value()?;
            }
            Ok(info)
        })
    }
}
