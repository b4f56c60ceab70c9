use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use super::identity::Identity;
use super::info::{BASIC, DEV, More, OptionInfo, RUNTIME};
use super::value::{DebugLevels, OptionKind, OptionValue, words_of};
use super::values::Values;

/// Makes [`Config`], its defaults and the table of [`OptionInfo`] from rows of the form
/// `name: type = default, kind, description;`, with a [`More`] behind the description if there is more
/// to say.
macro_rules! options {
    ($($name:ident: $type:ty = $default:expr, $kind:expr, $description:literal $(, $more:expr)?;)*) => {
        /// The options, each a typed field under Ceph's name; [`Config::options`] has the table.
        ///
        /// A field may be assigned: that counts as if the command line had said it.
        #[derive(Clone)]
        #[non_exhaustive]
        pub struct Config {
            $(#[doc = $description] pub $name: $type,)*
            pub(super) identity: Identity,
            pub(super) values: Values,
        }

        /// Two that have the same options, wherever they come from.
        impl PartialEq for Config {
            fn eq(&self, other: &Self) -> bool {
                self.identity == other.identity $(&& self.$name == other.$name)*
            }
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $($name: $default,)*
                    identity: Identity::default(),
                    values: Values::default(),
                }
            }
        }

        impl fmt::Debug for Config {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut shown = f.debug_struct("Config");
                $(match SECRET == stringify!($name) {
                    true => shown.field(stringify!($name), &format_args!("(not shown)")),
                    false => shown.field(stringify!($name), &self.$name),
                };)*
                shown.finish()
            }
        }

        static TABLE: &[OptionInfo] = &[$(
            OptionInfo::new(stringify!($name), $kind, $description, More::NONE $(.and($more))?),
        )*];

        impl Config {
            pub(super) fn slot_mut(&mut self, name: &str) -> Option<&mut dyn OptionValue> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }

            pub(super) fn slot(&self, name: &str) -> Option<&dyn OptionValue> {
                match name {
                    $(stringify!($name) => Some(&self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

/// The option whose value nobody shall read in a log.
pub(super) const SECRET: &str = "key";
/// No wait that an option sets is longer than this: 30 days, in seconds.
const MAX_SECONDS: u64 = 30 * 24 * 3600;
const MAX_SIZE: u64 = 1 << 40;
/// As `ceph_entity_type_name` of Ceph's `common/ceph_strings.cc` has them.
const ENTITY_TYPES: &[&str] = &["mon", "osd", "mds", "mgr", "client"];
/// Connection modes (`_parse_mode_list` of Ceph's `auth/AuthRegistry.cc`).
const MODES: OptionKind = OptionKind::Words(&["crc", "secure"]);
const PORT: OptionKind = OptionKind::Integer { min: 0, max: 65535 };
const MULTIPLE: OptionKind = OptionKind::Number { min: 1, max: 1000 };
const SECONDS: OptionKind = OptionKind::Seconds { min: 0, max: MAX_SECONDS };

const WHOLE_SECONDS: OptionKind = OptionKind::WholeSeconds { min: 0, max: MAX_SECONDS };
const FOR_NEW: More = RUNTIME.note("A change counts for connections that are made afterwards");
const FOR_NEW_DEV: More =
    DEV.runtime().note("A change counts for sessions that are opened afterwards");
const FOR_BIND: More = RUNTIME.note("A change counts when a messenger binds next");

/// As Ceph's own.
const DEFAULT_KEYRINGS: &str = "/etc/ceph/$cluster.$name.keyring,/etc/ceph/$cluster.keyring,\
                                /etc/ceph/keyring,/etc/ceph/keyring.bin";

options! {
    ms_type: String = "async+posix".to_owned(), OptionKind::Text,
        "Messenger implementation to use: async+ and a network stack, posix, uring (io_uring) or rdma";
    ms_public_type: String = String::new(), OptionKind::Text,
        "Messenger implementation for the public network; if empty, ms_type is used";
    ms_learn_addr_from_peer: bool = true, OptionKind::Bool,
        "Take as our own IP address the one from which our first peer sees us connect", FOR_NEW;
    ms_tcp_nodelay: bool = true, OptionKind::Bool,
        "Send at once what is queued (TCP_NODELAY: no Nagle's algorithm)", FOR_NEW;
    ms_tcp_rcvbuf: u64 = 0, OptionKind::Size { min: 0, max: i32::MAX as u64 },
        "Receive buffer of a TCP socket (SO_RCVBUF); 0 leaves it to the system", FOR_NEW;
    ms_tcp_congestion_control: String = String::new(), OptionKind::Text,
        "Algorithm by which TCP sends (TCP_CONGESTION), as cubic; if empty, the system's", FOR_NEW;
    ms_tcp_listen_backlog: u32 = 512, OptionKind::Integer { min: 1, max: i32::MAX as u64 },
        "Connections that may wait to be accepted, see listen(2)", FOR_BIND;
    ms_crc_data: bool = true, OptionKind::Bool,
        "Send and verify CRC-32C checksums of a message's front, middle and data",
        DEV.runtime().note("A change counts for connections that are made afterwards");
    ms_dispatch_throttle_bytes: u64 = 100 << 20, OptionKind::Size { min: 0, max: MAX_SIZE },
        "Messages that may be received but not yet handled, in bytes; 0 means no limit";
    ms_bind_port_min: u16 = 6800, PORT,
        "Lowest port that a daemon binds to; 0, with ms_bind_port_max, leaves the choice to the system",
        FOR_BIND;
    ms_bind_port_max: u16 = 7300, PORT,
        "Highest port that a daemon binds to",
        RUNTIME.note("7568 by default in Ceph from release 18 on. A change counts when a messenger binds next");
    ms_bind_retry_count: u32 = 3, OptionKind::Integer { min: 0, max: 1000 },
        "Further attempts to bind when every port is taken", FOR_BIND;
    ms_bind_retry_delay: Duration = Duration::from_secs(5), WHOLE_SECONDS,
        "Wait between attempts to bind", FOR_BIND;
    ms_initial_backoff: Duration = Duration::from_millis(200), SECONDS,
        "Wait before the second attempt to connect; doubled for each further one", FOR_NEW;
    ms_max_backoff: Duration = Duration::from_secs(15), SECONDS,
        "Longest wait between two attempts to connect", FOR_NEW;
    ms_connection_ready_timeout: Duration = Duration::from_secs(10), WHOLE_SECONDS,
        "A connection that is not ready after this time is dead", FOR_NEW;
    ms_connection_idle_timeout: Duration = Duration::from_secs(900), WHOLE_SECONDS,
        "A connection on which nothing arrived for this time is closed", FOR_NEW;
    ms_pq_max_tokens_per_priority: u64 = 16 << 20, OptionKind::Integer { min: 0, max: MAX_SIZE },
        "What a priority that waits may save up, in bytes; see ms_pq_min_cost", DEV;
    ms_pq_min_cost: u64 = 64 << 10, OptionKind::Size { min: 0, max: MAX_SIZE },
        "What a message costs its priority at least, in bytes", DEV;
    ms_inject_socket_failures: u32 = 0, OptionKind::Integer { min: 0, max: u32::MAX as u64 },
        "For tests: break a connection at one in so many socket operations; 0 breaks none", DEV;
    ms_inject_delay_type: String = String::new(), OptionKind::Words(ENTITY_TYPES),
        "For tests: delay messages from peers of these types", FOR_NEW_DEV;
    ms_inject_delay_max: Duration = Duration::from_secs(1), SECONDS,
        "For tests: longest delay of a message", FOR_NEW_DEV;
    ms_inject_delay_probability: f64 = 0.0, OptionKind::Probability,
        "For tests: how likely a message is delayed", FOR_NEW_DEV;
    ms_inject_internal_delays: Duration = Duration::ZERO, SECONDS,
        "For tests: time that a worker loses at each step of opening a session", FOR_NEW_DEV;
    ms_blackhole_osd: bool = false, OptionKind::Bool,
        "For tests: drop messages from and to OSDs", FOR_NEW_DEV;
    ms_blackhole_mon: bool = false, OptionKind::Bool,
        "For tests: drop messages from and to monitors", FOR_NEW_DEV;
    ms_blackhole_mds: bool = false, OptionKind::Bool,
        "For tests: drop messages from and to metadata servers", FOR_NEW_DEV;
    ms_blackhole_mgr: bool = false, OptionKind::Bool,
        "For tests: drop messages from and to managers", FOR_NEW_DEV;
    ms_blackhole_client: bool = false, OptionKind::Bool,
        "For tests: drop messages from and to clients", FOR_NEW_DEV;
    ms_mon_cluster_mode: String = "secure crc".to_owned(), MODES,
        "Connection modes between monitors or managers and daemons, the preferred one first", BASIC;
    ms_mon_service_mode: String = "secure crc".to_owned(), MODES,
        "Connection modes that monitors and managers allow to clients", BASIC;
    ms_mon_client_mode: String = "secure crc".to_owned(), MODES,
        "Connection modes of clients with monitors and managers, the preferred one first", BASIC;
    ms_cluster_mode: String = "crc secure".to_owned(), MODES,
        "Connection modes between OSDs and metadata servers, the preferred one first", BASIC;
    ms_service_mode: String = "crc secure".to_owned(), MODES,
        "Connection modes that OSDs and metadata servers allow to clients", BASIC;
    ms_client_mode: String = "crc secure".to_owned(), MODES,
        "Connection modes of clients with OSDs and metadata servers, the preferred one first",
        BASIC;
    ms_osd_compress_mode: String = "none".to_owned(), OptionKind::Words(&["none", "force"]),
        "Whether to compress what is sent between OSDs", FOR_NEW;
    ms_osd_compress_min_size: u64 = 1 << 10, OptionKind::Size { min: 0, max: MAX_SIZE },
        "Frames with less than this are not compressed, in bytes", FOR_NEW;
    ms_osd_compression_algorithm: String = "snappy".to_owned(),
        OptionKind::Words(&["snappy", "zlib", "zstd", "lz4"]),
        "How to compress, the preferred algorithm first", FOR_NEW;
    ms_compress_secure: bool = false, OptionKind::Bool,
        "Compress in secure mode too: the length of what is sealed then tells of its content",
        FOR_NEW;
    exporter_addr: String = "127.0.0.1".to_owned(), OptionKind::Text,
        "Address at which the process serves its counters to Prometheus";
    exporter_port: u16 = 0, PORT,
        "Port for that; 0 serves nothing";
    admin_socket: String = String::new(), OptionKind::Text,
        "Socket at which the process answers `ceph daemon` and `siphon daemon`; if empty, there is none",
        More::NONE.daemon("$run_dir/$cluster-$name.asok").see(&["run_dir"]);
    keyring: String = DEFAULT_KEYRINGS.to_owned(), OptionKind::Text,
        "Files with keys, separated by commas: the first that is there is read";
    keyfile: String = String::new(), OptionKind::Text,
        "A file with a key and nothing else; comes before keyring";
    key: String = String::new(), OptionKind::Text,
        "A key, in base64; comes before keyfile, and is seen by whoever may list processes";
    fsid: String = String::new(), OptionKind::Text,
        "The cluster's id; if empty, whichever cluster the monitors are of", BASIC;
    mon_host: String = String::new(), OptionKind::Text,
        "The monitors: addresses and host names, parted by commas, blanks or semicolons", BASIC;
    mon_dns_srv_name: String = "ceph-mon".to_owned(), OptionKind::Text,
        "The DNS service that names the monitors where mon_host is empty, also as SERVICE_DOMAIN";
    auth_client_required: String = "cephx, none".to_owned(), OptionKind::Words(&["cephx", "none"]),
        "Methods by which a client may authenticate";
    client_mount_timeout: Duration = Duration::from_secs(300), WHOLE_SECONDS,
        "How long to look for a monitor that lets us in";
    rados_mon_op_timeout: Duration = Duration::ZERO, WHOLE_SECONDS,
        "How long to wait for the monitors' and the manager's answer; 0 means as long as it takes";
    mon_client_hunt_parallel: u32 = 3, OptionKind::Integer { min: 0, max: 100 },
        "Monitors that are tried at once; 0 means all";
    mon_client_hunt_interval: Duration = Duration::from_secs(3), SECONDS,
        "After which time others are tried";
    mon_client_hunt_interval_backoff: f64 = 1.5, MULTIPLE,
        "By what that time grows with each session that is lost";
    mon_client_hunt_interval_min_multiple: f64 = 1.0, MULTIPLE,
        "The least multiple of that time";
    mon_client_hunt_interval_max_multiple: f64 = 10.0, MULTIPLE,
        "The greatest multiple of that time";
    mon_client_ping_interval: Duration = Duration::from_secs(10), SECONDS,
        "How often the monitor is asked for a sign of life";
    mon_client_ping_timeout: Duration = Duration::from_secs(30), SECONDS,
        "After which silence of the monitor another is looked for; 0 means never";
    mon_client_directed_command_retry: u32 = 2, OptionKind::Integer { min: 1, max: 100 },
        "How often a command to one certain monitor is tried", DEV;
    objecter_inflight_ops: u64 = 1024, OptionKind::Integer { min: 0, max: u32::MAX as u64 },
        "Operations on objects that may be under way at once; others wait; 0 means any number";
    objecter_inflight_op_bytes: u64 = 100 << 20, OptionKind::Size { min: 0, max: MAX_SIZE },
        "Bytes that they may carry and bring at once; 0 means any number";
    objecter_tick_interval: Duration = Duration::from_secs(5), SECONDS,
        "How often watches are checked, and late operations are looked for", DEV;
    objecter_timeout: Duration = Duration::from_secs(10), SECONDS,
        "After which time an operation is late: its connection is probed, and a newer map asked for";
    rados_osd_op_timeout: Duration = Duration::ZERO, WHOLE_SECONDS,
        "After which time an operation fails; 0 means never";
    osd_client_op_priority: u32 = 63, OptionKind::Integer { min: 1, max: 255 },
        "How urgent operations on objects are to OSDs";
    crush_location: String = String::new(), OptionKind::Text,
        "Where we are, as host=a rack=b: reads of the nearest copy go by it";
    ms_async_rdma_device_name: String = String::new(), OptionKind::Text,
        "RDMA device; if empty, the first that has an active port and an address";
    ms_async_rdma_enable_hugepage: bool = false, OptionKind::Bool,
        "Register huge pages for RDMA, as far as there are any";
    ms_async_rdma_buffer_size: u64 = 128 << 10, OptionKind::Size { min: 4096, max: 16 << 20 },
        "Bytes of a buffer, and of the longest message of RDMA; both sides need the same";
    ms_async_rdma_send_buffers: u32 = 1 << 10, OptionKind::Integer { min: 2, max: 1 << 20 },
        "Buffers that each worker sends from, at most";
    ms_async_rdma_receive_buffers: u32 = 32 << 10, OptionKind::Integer { min: 0, max: 1 << 20 },
        "Buffers that each worker receives into, at most; 0 means no limit";
    ms_async_rdma_receive_queue_len: u32 = 4 << 10, OptionKind::Integer { min: 8, max: 1 << 20 },
        "Buffers that each worker has posted to receive into, at most";
    ms_async_rdma_support_srq: bool = true, OptionKind::Bool,
        "Queue pairs share a receive queue, where the device can";
    ms_async_rdma_port_num: u32 = 1, OptionKind::Integer { min: 1, max: 255 },
        "Port of the RDMA device";
    ms_async_rdma_polling_us: u32 = 1000, OptionKind::Integer { min: 0, max: 1_000_000 },
        "How long a worker polls before it sleeps, in microseconds";
    ms_async_rdma_gid_idx: Option<u16> = None, OptionKind::Integer { min: 0, max: 255 },
        "Index of our GID; if not set, that of an IP address, by RoCE v2 if possible",
        More::NONE.note("0 by default in Ceph, which means the first GID");
    ms_async_rdma_local_gid: String = String::new(), OptionKind::Text,
        "Our GID, or the IP address that it is of; comes before the index";
    ms_async_rdma_roce_ver: u32 = 1, OptionKind::Integer { min: 0, max: 1 },
        "With ms_async_rdma_local_gid: 0 is RoCE v1, 1 is RoCE v2";
    ms_async_rdma_sl: u32 = 3, OptionKind::Integer { min: 0, max: 15 },
        "Service level of packets";
    ms_async_rdma_dscp: u32 = 96, OptionKind::Integer { min: 0, max: 255 },
        "Traffic class of packets: DSCP in the upper six bits, ECN below";
    ms_async_rdma_cm: bool = false, OptionKind::Bool,
        "Connect by RDMA-CM, and not by an exchange over TCP";
    ms_async_rdma_type: String = "ib".to_owned(), OptionKind::Words(&["ib", "iwarp"]),
        "Kind of RDMA: ib is InfiniBand or RoCE; iwarp connects by RDMA-CM always";
    ms_async_op_threads: u32 = 3, OptionKind::Integer { min: 1, max: 24 },
        "Workers (threads with an event center each) of a network stack",
        More::NONE.note("Where it is not set, no more than the process has processors");
    ms_async_affinity_cores: Vec<u32> = Vec::new(), OptionKind::Integers { min: 0, max: 1023 },
        "Processors that the workers stay on, one each, in turn; any if empty";
    ms_async_busy_poll_us: u32 = 0, OptionKind::Integer { min: 0, max: 1_000_000 },
        "How long a worker looks for work before it sleeps, in microseconds; a processor is busy then";
    host: String = String::new(), OptionKind::Text,
        "What $host stands for; if empty, the host's name up to its first dot", BASIC;
    pid_file: String = String::new(), OptionKind::Text,
        "File that has the process's id while it runs; if empty, there is none";
    run_dir: String = "/var/run/ceph".to_owned(), OptionKind::Text,
        "Folder of sockets and pid files";
    log_file: String = String::new(), OptionKind::Text,
        "File to log to; if empty, there is none",
        BASIC.runtime().daemon("/var/log/ceph/$cluster-$name.log").see(&["log_to_file"]);
    log_to_file: bool = true, OptionKind::Bool,
        "Log to log_file", BASIC.runtime().see(&["log_file"]);
    log_to_stderr: bool = true, OptionKind::Bool,
        "Log to standard error", BASIC.runtime().daemon("false").see(&["err_to_stderr"]);
    err_to_stderr: bool = false, OptionKind::Bool,
        "Log errors to standard error", BASIC.runtime().daemon("true").see(&["log_to_stderr"]);
    log_stderr_prefix: String = String::new(), OptionKind::Text,
        "What stands before each line on standard error", RUNTIME;
    log_to_syslog: bool = false, OptionKind::Bool,
        "Log to syslog", BASIC.runtime().see(&["err_to_syslog"]);
    err_to_syslog: bool = false, OptionKind::Bool,
        "Log errors to syslog", BASIC.runtime().see(&["log_to_syslog"]);
    log_to_journald: bool = false, OptionKind::Bool,
        "Log to journald, each line with its fields", BASIC.runtime().see(&["err_to_journald"]);
    err_to_journald: bool = false, OptionKind::Bool,
        "Log errors to journald", BASIC.runtime().see(&["log_to_journald"]);
    log_max_recent: u32 = 500, OptionKind::Integer { min: 0, max: 1_000_000 },
        "Entries kept in memory, to be dumped when the program panics or somebody asks",
        RUNTIME.daemon("10000");
    log_max_new: u32 = 1000, OptionKind::Integer { min: 1, max: 1_000_000 },
        "Entries that wait to be written; who logs more waits", RUNTIME;
    log_coarse_timestamps: bool = true, OptionKind::Bool,
        "Stamp lines with milliseconds, and not with microseconds", RUNTIME;
    log_format: String = "ceph".to_owned(), OptionKind::Words(&["ceph", "json"]),
        "Form of lines in log_file: Ceph's, or a JSON object each", RUNTIME;
    debug_none: DebugLevels = DebugLevels::new(0, 5), OptionKind::DebugLevels,
        "Levels of what belongs to no other subsystem", RUNTIME;
    debug_ms: DebugLevels = DebugLevels::new(0, 0), OptionKind::DebugLevels,
        "Levels of the messenger: from 1 on, each message", RUNTIME;
    debug_auth: DebugLevels = DebugLevels::new(1, 5), OptionKind::DebugLevels,
        "Levels of authentication", RUNTIME;
    debug_monc: DebugLevels = DebugLevels::new(0, 10), OptionKind::DebugLevels,
        "Levels of the client of monitors", RUNTIME;
    debug_objecter: DebugLevels = DebugLevels::new(0, 1), OptionKind::DebugLevels,
        "Levels of operations on objects", RUNTIME;
    debug_rados: DebugLevels = DebugLevels::new(0, 5), OptionKind::DebugLevels,
        "Levels of the client of clusters", RUNTIME;
    debug_asok: DebugLevels = DebugLevels::new(1, 5), OptionKind::DebugLevels,
        "Levels of the admin socket", RUNTIME;
}

impl Config {
    /// The table of all options.
    ///
    /// ```
    /// for option in siphon_common::Config::options() {
    ///     println!("--{} {}: {}", option.name, option.kind, option.description);
    /// }
    /// ```
    pub fn options() -> impl ExactSizeIterator<Item = &'static OptionInfo> {
        TABLE.iter()
    }

    /// The row of an option, whose name may have `-` or spaces for `_`.
    pub fn option(name: &str) -> Option<&'static OptionInfo> {
        let name = normalize(name);
        Self::option_exactly(&name)
    }

    /// The row of an option by its name in the table.
    pub(super) fn option_exactly(name: &str) -> Option<&'static OptionInfo> {
        TABLE.iter().find(|option| option.name == name)
    }

    /// Whether messages from peers of a type, as `osd`, may be delayed (`ms_inject_delay_type`).
    pub fn delays_messages_from(&self, entity_type: &str) -> bool {
        words_of(&self.ms_inject_delay_type).any(|word| word == entity_type)
    }

    /// An option's value as text that [`Config::set`] takes; `None` if there is no such option.
    pub fn value(&self, name: &str) -> Option<String> {
        self.value_of(Self::option(name)?)
    }

    /// The same, of a row of the table.
    pub(crate) fn value_of(&self, option: &OptionInfo) -> Option<String> {
        self.slot(option.name).map(|slot| slot.render(option.kind))
    }
}

/// A default of the table as text.
pub(super) fn default_text(name: &str) -> &'static str {
    static TEXTS: LazyLock<BTreeMap<&'static str, String>> = LazyLock::new(|| {
        let defaults = Config::default();
        let text = |option: &OptionInfo| defaults.value(option.name).unwrap_or_default();
        TABLE.iter().map(|option| (option.name, text(option))).collect()
    });
    TEXTS.get(name).map_or("", String::as_str)
}

/// Ceph's normal form of a name: no space around it, and `_` for each inner run of spaces and each
/// `-`.
pub(super) fn normalize(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join("_").replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_lies_in_its_own_range() {
        let mut defaults = Config::default();
        defaults.finish();
        for option in Config::options() {
            let mut config = defaults.clone();
            let text = defaults.value(option.name).unwrap();
            config.set(option.name, &text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config, defaults, "{}: {text}", option.name);
        }
    }

    #[test]
    fn a_name_may_have_dashes_or_spaces() {
        let mut config = Config::default();
        config.set("ms-tcp-rcvbuf", "1K").unwrap();
        assert_eq!(config.ms_tcp_rcvbuf, 1024);
        config.set("ms tcp  rcvbuf", "2Ki").unwrap();
        assert_eq!(config.value("ms_tcp_rcvbuf").as_deref(), Some("2048"));
    }

    #[test]
    fn a_bad_value_says_type_unit_and_range_and_changes_nothing() {
        let mut config = Config::default();
        for (name, value, words) in [
            ("ms_async_op_threads", "25", ["integer", "1 to 24"]),
            ("ms_async_op_threads", "-1", ["integer", "1 to 24"]),
            ("ms_async_affinity_cores", "0,1024", ["integers", "0 to 1023"]),
            ("ms_bind_port_max", "65536", ["integer", "0 to 65535"]),
            ("ms_tcp_rcvbuf", "64Q", ["bytes", "unit"]),
            ("ms_bind_retry_delay", "soon", ["seconds", "0 to 2592000"]),
            ("ms_bind_retry_delay", "nan", ["seconds", "0 to 2592000"]),
            ("ms_crc_data", "yes", ["true", "false"]),
            ("mon_client_hunt_interval_backoff", "0.5", ["number", "1 to 1000"]),
            ("ms_inject_delay_probability", "1.5", ["probability", "0 to 1"]),
            ("ms_inject_delay_type", "osd, moon", ["no such word", "mon, osd, mds, mgr, client"]),
        ] {
            let text = config.set(name, value).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains(value), "{text}");
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
        assert_eq!(config, Config::default());
    }

    #[test]
    fn a_key_is_not_shown() {
        let config = Config { key: "AQAAAAAAAAAAABAAsecret".to_owned(), ..Config::default() };
        let text = format!("{config:?}");
        assert!(!text.contains("AQAAA"), "{text}");
        assert!(text.contains("ms_type"));
    }
}
