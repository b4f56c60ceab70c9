//! What can go wrong, when, and how often it did.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// One of the two ways of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the side that connected.
    ToServer,
    /// From the side that accepted.
    ToClient,
}

impl Direction {
    pub(super) fn index(self) -> usize {
        self as usize
    }

    pub(super) fn from_index(index: usize) -> Self {
        if index == 0 { Self::ToServer } else { Self::ToClient }
    }
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both sides are reset. What the direction's receiver has is still read; what comes the other
    /// way arrives all or is dropped.
    Cut,
    /// The direction's receiver reads the end of file; its sender's next send fails.
    Close,
    /// Nothing is delivered any more, in either direction, and nobody is told; sometimes one side
    /// is, later.
    HalfOpen,
    /// The direction pauses.
    Stall(Duration),
    /// Connecting is refused. Of a connection that is open, it is a cut.
    Refuse,
}

/// A fault that waits for its byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    /// What happens.
    pub fault: Fault,
    /// The way whose bytes count.
    pub direction: Direction,
    /// How many bytes are delivered before; 0 hits a connection as soon as it is open.
    pub after: u64,
}

macro_rules! fault_counts {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// How many faults took effect, by kind.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct FaultCounts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl FaultCounts {
            /// All of them.
            pub fn total(&self) -> u64 {
                0 $(+ self.$name)*
            }
        }

        impl Add for FaultCounts {
            type Output = Self;

            fn add(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)* }
            }
        }

        impl fmt::Display for FaultCounts {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} faults:", self.total())?;
                $(write!(f, " {} {}", self.$name, stringify!($name))?;)*
                Ok(())
            }
        }
    };
}

fault_counts! {
    /// Connections reset by [`Fault::Cut`].
    cuts;
    /// Connections ended in mid-stream by [`Fault::Close`].
    closes;
    /// Connections that fell silent by [`Fault::HalfOpen`].
    half_opens;
    /// Directions paused by [`Fault::Stall`].
    stalls;
    /// Partitions begun.
    partitions;
    /// Connects refused by a fault: the host is down, or [`Fault::Refuse`].
    refused;
    /// Connects that found no way until their time was out.
    timeouts;
    /// Hosts crashed.
    crashes;
}
