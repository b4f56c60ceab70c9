use std::fmt;

/// What an operation on an object does (`CEPH_OSD_OP_*`).
///
/// The number's upper half says how the operation treats the object (`0x1000` reads, `0x2000`
/// writes) and of which family it is.
///
/// ```
/// use siphon_messages::osd::OsdOpCode;
/// assert_eq!(OsdOpCode::WRITE.to_string(), "write");
/// assert!(OsdOpCode::WRITE.writes() && !OsdOpCode::WRITE.reads());
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OsdOpCode(pub u16);

const MODE_READ: u16 = 0x1000;
const MODE_WRITE: u16 = 0x2000;
const TYPE: u16 = 0x0f00;
const TYPE_DATA: u16 = 0x0200;
const TYPE_ATTR: u16 = 0x0300;
const TYPE_EXEC: u16 = 0x0400;
const TYPE_PG: u16 = 0x0500;

macro_rules! op_codes {
    ($($code:literal $constant:ident $name:literal;)*) => {
        impl OsdOpCode {
            $(
                #[doc = concat!("`CEPH_OSD_OP_", stringify!($constant), "`.")]
                pub const $constant: Self = Self($code);
            )*

            /// Ceph's name for it, if we know it.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

// `__CEPH_FORALL_OSD_OPS` of Ceph's include/rados.h.
op_codes! {
    0x1201 READ "read";
    0x1202 STAT "stat";
    0x1203 MAPEXT "mapext";
    0x121f CHECKSUM "checksum";
    0x1204 MASKTRUNC "masktrunc";
    0x1205 SPARSE_READ "sparse-read";
    0x1206 NOTIFY "notify";
    0x1207 NOTIFY_ACK "notify-ack";
    0x1208 ASSERT_VER "assert-version";
    0x1209 LIST_WATCHERS "list-watchers";
    0x120a LIST_SNAPS "list-snaps";
    0x120b SYNC_READ "sync_read";
    0x2201 WRITE "write";
    0x2202 WRITEFULL "writefull";
    0x2203 TRUNCATE "truncate";
    0x2204 ZERO "zero";
    0x2205 DELETE "delete";
    0x2206 APPEND "append";
    0x2207 STARTSYNC "startsync";
    0x2208 SETTRUNC "settrunc";
    0x2209 TRIMTRUNC "trimtrunc";
    0x320a TMAPUP "tmapup";
    0x220b TMAPPUT "tmapput";
    0x120c TMAPGET "tmapget";
    0x220d CREATE "create";
    0x220e ROLLBACK "rollback";
    0x220f WATCH "watch";
    0x1211 OMAPGETKEYS "omap-get-keys";
    0x1212 OMAPGETVALS "omap-get-vals";
    0x1213 OMAPGETHEADER "omap-get-header";
    0x1214 OMAPGETVALSBYKEYS "omap-get-vals-by-keys";
    0x2215 OMAPSETVALS "omap-set-vals";
    0x2216 OMAPSETHEADER "omap-set-header";
    0x2217 OMAPCLEAR "omap-clear";
    0x2218 OMAPRMKEYS "omap-rm-keys";
    0x222c OMAPRMKEYRANGE "omap-rm-key-range";
    0x1219 OMAP_CMP "omap-cmp";
    0x221a COPY_FROM "copy-from";
    0x222d COPY_FROM2 "copy-from2";
    0x221c UNDIRTY "undirty";
    0x121d ISDIRTY "isdirty";
    0x121e COPY_GET "copy-get";
    0x821f CACHE_FLUSH "cache-flush";
    0x8220 CACHE_EVICT "cache-evict";
    0x8221 CACHE_TRY_FLUSH "cache-try-flush";
    0x3222 TMAP2OMAP "tmap2omap";
    0x2223 SETALLOCHINT "set-alloc-hint";
    0x2224 CACHE_PIN "cache-pin";
    0x2225 CACHE_UNPIN "cache-unpin";
    0x2226 WRITESAME "write-same";
    0x1220 CMPEXT "cmpext";
    0x2227 SET_REDIRECT "set-redirect";
    0x8228 SET_CHUNK "set-chunk";
    0x2229 TIER_PROMOTE "tier-promote";
    0x222a UNSET_MANIFEST "unset-manifest";
    0x822b TIER_FLUSH "tier-flush";
    0x822c TIER_EVICT "tier-evict";
    0x1301 GETXATTR "getxattr";
    0x1302 GETXATTRS "getxattrs";
    0x1303 CMPXATTR "cmpxattr";
    0x2301 SETXATTR "setxattr";
    0x2302 SETXATTRS "setxattrs";
    0x2303 RESETXATTRS "resetxattrs";
    0x2304 RMXATTR "rmxattr";
    0x4001 PULL "pull";
    0x4002 PUSH "push";
    0x4003 BALANCEREADS "balance-reads";
    0x4004 UNBALANCEREADS "unbalance-reads";
    0x4005 SCRUB "scrub";
    0x4006 SCRUB_RESERVE "scrub-reserve";
    0x4007 SCRUB_UNRESERVE "scrub-unreserve";
    0x4009 SCRUB_MAP "scrub-map";
    0x1401 CALL "call";
    0x1501 PGLS "pgls";
    0x1502 PGLS_FILTER "pgls-filter";
    0x1503 PG_HITSET_LS "pg-hitset-ls";
    0x1504 PG_HITSET_GET "pg-hitset-get";
    0x1505 PGNLS "pgnls";
    0x1506 PGNLS_FILTER "pgnls-filter";
    0x1507 SCRUBLS "scrubls";
}

impl OsdOpCode {
    /// Whether it may read the object. A class method's own flags say that, not this.
    pub fn reads(self) -> bool {
        self.0 & MODE_READ != 0 && self != Self::CALL
    }

    /// Whether it may change the object. A class method's own flags say that, not this.
    pub const fn writes(self) -> bool {
        self.0 & MODE_WRITE != 0
    }

    /// Whether it is about an object's data.
    pub const fn is_data(self) -> bool {
        self.0 & TYPE == TYPE_DATA
    }

    /// Whether it is about an object's attributes.
    pub const fn is_attr(self) -> bool {
        self.0 & TYPE == TYPE_ATTR
    }

    /// Whether it calls a class method.
    pub const fn is_exec(self) -> bool {
        self.0 & TYPE == TYPE_EXEC
    }

    /// Whether it is about a placement group.
    pub const fn is_pg(self) -> bool {
        self.0 & TYPE == TYPE_PG
    }

    /// Whether its arguments are an [`Extent`](super::Extent).
    pub const fn has_extent(self) -> bool {
        matches!(
            self,
            Self::READ
                | Self::MAPEXT
                | Self::MASKTRUNC
                | Self::SPARSE_READ
                | Self::SYNC_READ
                | Self::WRITE
                | Self::WRITEFULL
                | Self::TRUNCATE
                | Self::ZERO
                | Self::APPEND
                | Self::TRIMTRUNC
                | Self::CMPEXT
        )
    }
}

impl fmt::Display for OsdOpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name().unwrap_or("???"))
    }
}

impl fmt::Debug for OsdOpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "OsdOpCode({:#06x})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_cephs() {
        for (code, number, name) in [
            (OsdOpCode::READ, 0x1201, "read"),
            (OsdOpCode::WRITE, 0x2201, "write"),
            (OsdOpCode::CALL, 0x1401, "call"),
            (OsdOpCode::SETXATTR, 0x2301, "setxattr"),
            (OsdOpCode::PGNLS, 0x1505, "pgnls"),
            (OsdOpCode::COPY_FROM2, 0x222d, "copy-from2"),
        ] {
            assert_eq!((code.0, code.name()), (number, Some(name)));
        }
        assert_eq!(OsdOpCode(0xffff).to_string(), "???");
    }

    #[test]
    fn modes_and_families() {
        assert!(OsdOpCode::TMAPUP.reads() && OsdOpCode::TMAPUP.writes());
        assert!(!OsdOpCode::CALL.reads() && OsdOpCode::CALL.is_exec());
        assert!(OsdOpCode::GETXATTR.is_attr() && OsdOpCode::PGLS.is_pg());
        assert!(OsdOpCode::STAT.is_data() && !OsdOpCode::STAT.has_extent());
    }
}
