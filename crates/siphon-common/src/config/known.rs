//! The names of Ceph's options, so that a real file gives no false alarm.

use std::sync::LazyLock;

use super::Config;

/// The options that ceph-conf of 14.2.21, 16.2.15, 18.2.7 or 20.2.4 shows, by name, four a line: the
/// first and the last of these releases, then `bool`, or a default that is a path.
static LIST: &str = include_str!("known_options.txt");

/// Whose an option is, by the beginning of its name; the first that fits counts.
static REASONS: &[(&str, &str)] = &[
    ("ms_dpdk_", "Siphon has no DPDK stack"),
    ("ms_bind_", "addresses are given to the messenger, which binds to those and no others"),
    ("ms_die_on_", "Siphon ends the connection, and not the process"),
    ("ms_crc_header", "headers and preambles always have a checksum"),
    ("ms_", "Siphon's messenger has nothing that it would change"),
    ("debug_", "Siphon has no such subsystem"),
    ("log_graylog", "Siphon logs to files, stderr, syslog and journald"),
    ("log_to_graylog", "Siphon logs to files, stderr, syslog and journald"),
    ("err_to_graylog", "Siphon logs to files, stderr, syslog and journald"),
    ("cephx_", "Siphon signs and seals whatever its peer can"),
    ("auth_", "how a program authenticates is the program's to say"),
    ("osd_", "it is for OSDs"),
    ("bluestore_", "it is for OSDs"),
    ("bluefs_", "it is for OSDs"),
    ("bdev_", "it is for OSDs"),
    ("filestore_", "it is for OSDs"),
    ("journal_", "it is for OSDs"),
    ("rocksdb_", "it is for OSDs and monitors"),
    ("mon_client_", "Siphon's monitor client has nothing that it would change"),
    ("mon_", "it is for monitors"),
    ("paxos_", "it is for monitors"),
    ("mgr_", "it is for managers"),
    ("mds_", "it is for metadata servers"),
    ("rgw_", "it is for object gateways"),
    ("rbd_", "it is for block devices"),
    ("client_", "it is for clients of the file system"),
    ("fuse_", "it is for clients of the file system"),
    ("", "Siphon has nothing that it would change"),
];

/// An option of Ceph's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: &'static str,
    /// The first of the releases 14, 16, 18, 20 that has it.
    pub(super) first: u8,
    /// The last one.
    pub(super) last: u8,
    pub(super) is_bool: bool,
    /// The default of a daemon, if it is a path.
    pub(super) default: Option<&'static str>,
}

/// The option of that name, which has underscores.
pub(super) fn find(name: &str) -> Option<Known> {
    let is_it = |entry: &&str| entry.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
    entries().find(is_it).map(read)
}

/// All names: Ceph's, then those that are Siphon's only.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    static OURS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        Config::options().map(|option| option.name).filter(|name| find(name).is_none()).collect()
    });
    entries().map(|entry| read(entry).name).chain(OURS.iter().copied())
}

/// Why Siphon does not honour an option.
pub(super) fn reason(name: &str) -> &'static str {
    let found = REASONS.iter().find(|(prefix, _)| name.starts_with(prefix));
    found.map_or("", |(_, reason)| reason)
}

fn entries() -> impl Iterator<Item = &'static str> {
    LIST.lines().flat_map(|line| line.split(", "))
}

fn read(entry: &'static str) -> Known {
    let mut words = entry.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (name, first, last, more) = (word(), word(), word(), word());
    let release = |text: &str| text.parse().unwrap_or_default();
    let is_bool = more == "bool";
    let default = Some(more).filter(|more| !more.is_empty() && !is_bool);
    Known { name, first: release(first), last: release(last), is_bool, default }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_each_entry_can_be_read() {
        let names: Vec<_> = entries().map(|entry| read(entry).name).collect();
        assert!(names.is_sorted() && names.len() > 2000, "{}", names.len());
        for entry in entries() {
            let known = read(entry);
            let releases = [14, 16, 18, 20];
            assert!(releases.contains(&known.first) && releases.contains(&known.last), "{entry}");
            assert!(known.first <= known.last, "{entry}");
        }
    }

    #[test]
    fn an_option_is_found_by_its_whole_name() {
        let osd_data = find("osd_data").unwrap();
        assert_eq!(osd_data.default, Some("/var/lib/ceph/osd/$cluster-$id"));
        assert!(find("ms_crc_data").unwrap().is_bool);
        assert_eq!(find("log_to_journald").unwrap().first, 18);
        assert_eq!(find("osd_dat"), None);
        assert_eq!(reason("osd_data"), "it is for OSDs");
    }
}
