//! What OSDs and clients tell each other besides requests and replies.

use std::fmt;

macro_rules! codes {
    (
        $(#[$attr:meta])* $type:ident: $prefix:literal;
        $($number:literal $constant:ident $name:literal;)*
    ) => {
        $(#[$attr])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $type(pub u8);

        impl $type {
            $(
                #[doc = concat!("`", $prefix, stringify!($constant), "`.")]
                pub const $constant: Self = Self($number);
            )*

            /// Ceph's name for it, if we know it.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name().unwrap_or("???"))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}({})", self.0)
            }
        }
    };
}

codes! {
    /// What an [`MOSDBackoff`](crate::MOSDBackoff) is for (include/rados.h).
    BackoffOp: "CEPH_OSD_BACKOFF_OP_";
    1 BLOCK "block";
    2 ACK_BLOCK "ack-block";
    3 UNBLOCK "unblock";
}

codes! {
    /// What an [`MWatchNotify`](crate::MWatchNotify) tells (include/ceph_fs.h).
    WatchEventKind: "CEPH_WATCH_EVENT_";
    1 NOTIFY "notify";
    2 NOTIFY_COMPLETE "notify_complete";
    3 DISCONNECT "disconnect";
}

codes! {
    /// What an operation [`WATCH`](crate::osd::OsdOpCode::WATCH) does (include/rados.h).
    WatchOp: "CEPH_OSD_WATCH_OP_";
    0 UNWATCH "unwatch";
    1 LEGACY_WATCH "legacy_watch";
    3 WATCH "watch";
    5 RECONNECT "reconnect";
    7 PING "ping";
}
