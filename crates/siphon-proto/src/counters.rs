use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($name:ident, $doc:literal;)*) => {
        /// How often what happened to sessions; shared by the connections of a messenger. On the
        /// way of a message nothing is counted but what is sent again or compressed, and once for each
        /// receive what was copied.
        #[derive(Debug, Default)]
        pub struct SessionCounters {
            $($name: AtomicU64,)*
        }

        /// The state of [`SessionCounters`] at a time.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct SessionCounts {
            $(#[doc = $doc] pub $name: u64,)*
        }

        impl SessionCounters {
            $(pub(crate) fn $name(&self, count: u64) {
                self.$name.fetch_add(count, Ordering::Relaxed);
            })*

            /// What was counted until now.
            pub fn counts(&self) -> SessionCounts {
                SessionCounts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl SessionCounts {
            /// Each counter by its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        impl std::ops::AddAssign for SessionCounts {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    opened, "Sessions opened, at either end.";
    resumed, "Sessions that went on over a new link.";
    faults, "Links lost or given up.";
    reconnects, "Attempts to connect again.";
    standbys, "Sessions that had to wait for the peer or for something to send.";
    resets, "Sessions of which all was dropped, since the peer had forgotten them.";
    races_won, "Attempts of a peer that came first to its end, both having connected.";
    races_lost, "Attempts of a peer that was told to wait for ours.";
    retries, "Answers that made a peer ask again with higher numbers.";
    superseded, "Lossy sessions that ended for a newer one of the same peer.";
    replayed, "Messages sent again over a new link.";
    repeated, "Messages that arrived again and were dropped.";
    compressed, "Frames that were sent compressed.";
    compressed_from, "Bytes that the segments of these had.";
    compressed_to, "Bytes that they were compressed to.";
    incompressible, "Frames that compression would not have made shorter, and that went as they are.";
    decompressed, "Frames that came compressed.";
    copied, "Bytes of messages' parts that were copied from where they arrived.";
}

impl fmt::Display for SessionCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, count)| format!("{name} {count}"));
        f.write_str(&shown.collect::<Vec<_>>().join(", "))
    }
}
