//! `siphon rados` beside Ceph's own `rados`: the same arguments, the same output, the same exit code.

#[path = "../common/mod.rs"]
mod common;
mod habits;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use siphon_peers::{Cluster, ClusterOptions, Release, require};

#[test]
fn of_pacific() {
    all(Release::Pacific);
}

#[test]
fn of_reef() {
    all(Release::Reef);
}

#[test]
fn of_tentacle() {
    all(Release::Tentacle);
}

fn all(release: Release) {
    let config = ["mon_allow_pool_delete = true", "osd_max_object_size = 16777216"];
    let config = config.map(str::to_owned).to_vec();
    // Ceph's habits are the same in each release; for them an erasure-coded pool is made.
    let with_habits = release == Release::Pacific;
    let osds = if with_habits { 3 } else { 1 };
    let options = ClusterOptions { config, osds, ..ClusterOptions::default() };
    let Some(cluster) = require(Cluster::start(release, &options)) else { return };
    cluster.ceph(&["osd", "pool", "create", "data", "8"]).unwrap();
    let pair = Pair { cluster };
    objects(&pair);
    attributes_and_maps(&pair);
    refusals(&pair);
    snapshots(&pair);
    locks(&pair);
    notices(&pair);
    pools(&pair);
    if with_habits {
        habits::all(&pair);
    }
    benchmarks(&pair);
    an_interrupted_benchmark(&pair);
    memory(&pair);
    a_full_pool(&pair);
    println!("{}: the same", pair.cluster.version());
}

/// The two commands, each with a namespace of its own in the same pool.
struct Pair {
    cluster: Cluster,
}

impl Pair {
    fn ours(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_siphon"));
        command.args(["rados", "-p", "data", "-N", "ours", "-c"]).arg(self.cluster.client_conf());
        command.args(args).env_remove("CEPH_ARGS").env_remove("SIPHON_LOG");
        command
    }

    fn theirs(&self, args: &[&str]) -> Command {
        let mut command = self.cluster.program("rados");
        command.args(["-p", "data", "-N", "theirs"]).args(args);
        command
    }

    /// Both do the same, print the same, and end with the same code, which is 0; what they print.
    fn same(&self, args: &[&str], input: &[u8]) -> String {
        let (ours, theirs) = self.both(args, input);
        assert_eq!(ours.status.code(), Some(0), "{args:?}: {ours:?}");
        assert_eq!(theirs.status.code(), Some(0), "rados {args:?}: {theirs:?}");
        let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        // Theirs ends JSON without a line's end.
        assert_eq!(text(&ours).trim_end(), text(&theirs).trim_end(), "{args:?}");
        text(&ours)
    }

    /// Both fail, with the same code; what ours says of it.
    fn same_failure(&self, args: &[&str]) -> String {
        let (ours, theirs) = self.both(args, b"");
        assert_eq!(ours.status.code(), Some(1), "{args:?}: {ours:?}");
        assert_eq!(theirs.status.code(), Some(1), "rados {args:?}: {theirs:?}");
        String::from_utf8_lossy(&ours.stderr).into_owned()
    }

    fn both(&self, args: &[&str], input: &[u8]) -> (Output, Output) {
        (feed(self.ours(args), input), feed(self.theirs(args), input))
    }
}

fn feed(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it has an input");
    // Who does not read it has ended before.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn objects(pair: &Pair) {
    let long: Vec<u8> = (0..9_000_000_u32).map(|n| (n / 7 % 251) as u8).collect();
    pair.same(&["put", "long", "-"], &long);
    let (ours, theirs) = pair.both(&["get", "long", "-"], b"");
    assert!(ours.stdout == long && theirs.stdout == long);
    pair.same(&["-b", "65536", "get", "long", "-"], b"");
    pair.same(&["put", "small", "-"], b"hello");
    pair.same(&["put", "small", "-", "--offset", "10"], b"world");
    assert_eq!(pair.same(&["get", "small", "-"], b""), "hello\0\0\0\0\0world");
    pair.same(&["append", "small", "-"], b"!");
    pair.same(&["truncate", "small", "3"], b"");
    assert_eq!(pair.same(&["get", "small", "-"], b""), "hel");
    pair.same(&["put", "empty", "-"], b"");
    assert_eq!(pair.same(&["get", "empty", "-"], b""), "");
    pair.same(&["put", "hole", "-", "--offset", "5"], b"");
    assert_eq!(pair.same(&["get", "hole", "-"], b"").len(), 5);
    pair.same(&["create", "new"], b"");
    pair.same(&["touch", "small", "1500000000"], b"");
    let shown = pair.same(&["stat", "small"], b"");
    assert!(shown.starts_with("data/small mtime 2017-07-14T"), "{shown}");
    pair.same(&["stat2", "small"], b"");
    pair.same(&["cp", "small", "copy"], b"");
    // A copy stays in the namespace only if told so, as with Ceph's.
    pair.same(&["cp", "small", "copy", "--target-nspace", "elsewhere"], b"");
    pair.same(&["set-alloc-hint", "small", "4194304", "4096"], b"");
    let mut listed: Vec<_> =
        pair.same(&["-N", "ours", "ls"], b"").lines().map(str::to_owned).collect();
    listed.sort();
    assert_eq!(listed, ["empty", "hole", "long", "new", "small"]);
    pair.same(&["-N", "ours", "ls", "-f", "json"], b"");
    let mut theirs: Vec<_> =
        pair.same(&["-N", "theirs", "ls"], b"").lines().map(str::to_owned).collect();
    theirs.sort();
    assert_eq!(theirs, listed);
    pair.same(&["rm", "empty", "hole", "new", "long"], b"");
    pair.same(&["put", "--object-locator", "key", "placed", "-"], b"by a key");
    assert_eq!(pair.same(&["--object-locator", "key", "get", "placed", "-"], b""), "by a key");
    assert!(pair.same(&["-N", "ours", "ls"], b"").contains("placed\tkey\n"));
    pair.same(&["--object-locator", "key", "rm", "placed"], b"");
}

fn attributes_and_maps(pair: &Pair) {
    pair.same(&["setxattr", "small", "name", "value"], b"");
    pair.same(&["setxattr", "small", "binary"], b"\x00\xff\n");
    pair.same(&["listxattr", "small"], b"");
    assert_eq!(pair.same(&["getxattr", "small", "name"], b""), "value");
    pair.same(&["getxattr", "small", "binary"], b"");
    pair.same(&["rmxattr", "small", "name"], b"");

    for key in ["a", "b", "with a space"] {
        pair.same(
            &["setomapval", "small", key, "a value that is longer than a row of a dump"],
            b"",
        );
    }
    pair.same(&["setomapval", "small", "zs"], &[b'z'; 200]);
    pair.same(&["setomapval", "small", "binary"], &(0..=255).collect::<Vec<u8>>());
    pair.same(&["setomapval", "small", "\u{1}\u{fffd}", "not for people"], b"");
    pair.same(&["listomapkeys", "small"], b"");
    let shown = pair.same(&["listomapvals", "small"], b"");
    assert!(shown.contains("|zzzzzzzzzzzzzzzz|\n*\n"), "{shown}");
    pair.same(&["getomapval", "small", "a"], b"");
    pair.same(&["setomapheader", "small", "a header"], b"");
    pair.same(&["getomapheader", "small"], b"");
    pair.same(&["rmomapkey", "small", "a"], b"");
    pair.same(&["clearomap", "small"], b"");
    assert_eq!(pair.same(&["listomapkeys", "small"], b""), "");
}

fn refusals(pair: &Pair) {
    for args in [
        &["get", "missing", "-"][..],
        &["stat", "missing"],
        &["rm", "missing"],
        &["create", "small"],
        &["getxattr", "small", "missing"],
        &["getomapval", "small", "missing"],
        &["rollback", "small", "missing"],
        &["rmsnap", "missing"],
        &["listsnaps", "missing"],
        &["get", "small"],
        &["put"],
        &["truncate", "small", "many"],
        &["touch", "small", "today"],
        &["no-such-verb"],
        &["-s", "missing", "get", "small", "-"],
        &["lock", "break", "small", "l", "client.1"],
    ] {
        let told = pair.same_failure(args);
        assert!(told.starts_with("siphon: ") || told.starts_with("error: "), "{args:?}: {told}");
    }
    let told = pair.same_failure(&["-p", "missing", "ls"]);
    assert_eq!(told, "siphon: error opening pool missing: there is no pool missing\n");

    // Too long for an object: the error says what to do.
    let seventeen = vec![0; 17 << 20];
    let (ours, theirs) = pair.both(&["put", "too long", "-"], &seventeen);
    assert_eq!((ours.status.code(), theirs.status.code()), (Some(1), Some(1)));
    let told = String::from_utf8_lossy(&ours.stderr).into_owned();
    assert!(told.contains("osd_max_object_size") && told.contains("(27) File too large"), "{told}");
    pair.same(&["rm", "too long"], b"");
}

fn snapshots(pair: &Pair) {
    pair.same(&["put", "snapped", "-"], b"before");
    let made = feed(pair.ours(&["mksnap", "one"]), b"");
    assert_eq!(made.stdout, b"created pool data snap one\n", "{made:?}");
    pair.same(&["put", "snapped", "-"], b"and after");
    let made = feed(pair.theirs(&["mksnap", "two"]), b"");
    assert!(made.status.success(), "{made:?}");
    pair.same(&["lssnap"], b"");
    let (ours, theirs) = pair.both(&["listsnaps", "snapped"], b"");
    let lines = |output: Output| {
        let text = String::from_utf8(output.stdout).unwrap();
        // Newer releases also tell the newest snapshot that the object has seen.
        text.trim_end().replace("snapped (seq:1):", "snapped:")
    };
    let shown = lines(ours);
    assert_eq!(shown, lines(theirs));
    assert_eq!(shown.lines().count(), 4, "{shown}");
    let (ours, theirs) = pair.both(&["listsnaps", "snapped", "-f", "json"], b"");
    let [ours, theirs] = [ours, theirs].map(|output| {
        let mut value: Value = serde_json::from_slice(&output.stdout).unwrap();
        value.as_object_mut().unwrap().remove("seq");
        value
    });
    assert_eq!(ours, theirs);
    let got = pair.same(&["-s", "one", "get", "snapped", "-"], b"");
    assert!(got.ends_with("before"), "{got}");
    pair.same_failure(&["mksnap", "one"]);
    pair.same(&["rollback", "snapped", "one"], b"");
    assert_eq!(pair.same(&["get", "snapped", "-"], b""), "before");
    let removed = feed(pair.ours(&["rmsnap", "two"]), b"");
    assert_eq!(removed.stdout, b"removed pool data snap two\n", "{removed:?}");
    feed(pair.theirs(&["rmsnap", "one"]), b"");
    assert_eq!(pair.same(&["lssnap"], b""), "0 snaps\n");
}

fn locks(pair: &Pair) {
    let get = ["lock", "get", "small", "l", "--lock-cookie", "c", "--lock-tag", "t"];
    pair.same(&get, b"");
    // Another client has it.
    let told = pair.same_failure(&get);
    assert!(told.contains("(16) Device or resource busy"), "{told}");
    assert_eq!(
        pair.same(&["lock", "list", "small"], b""),
        "{\"objname\":\"small\",\"locks\":[{\"name\":\"l\"}]}\n"
    );
    let (ours, theirs) = pair.both(&["lock", "info", "small", "l"], b"");
    let [ours, theirs] = [ours, theirs].map(|output| {
        let mut info: Value = serde_json::from_slice(&output.stdout).unwrap();
        let locker = &mut info["lockers"][0];
        let name = locker["name"].take().as_str().unwrap().to_owned();
        assert!(locker["addr"].take().as_str().unwrap().starts_with("127.0.0.1:0/"), "{info}");
        (name, info)
    });
    assert_eq!(ours.1, theirs.1);
    for (command, locker) in [(pair.ours(&[]), &ours.0), (pair.theirs(&[]), &theirs.0)] {
        let mut command = command;
        command.args(["lock", "break", "small", "l", locker, "--lock-cookie", "c"]);
        let broken = feed(command, b"");
        assert_eq!(broken.status.code(), Some(0), "{broken:?}");
    }
    pair.same(
        &["lock", "get", "small", "s", "--lock-type", "shared", "--lock-duration", "60"],
        b"",
    );
    pair.same(&["lock", "get", "small", "s", "--lock-type", "shared"], b"");
}

fn notices(pair: &Pair) {
    // Ours watches and theirs notifies, then the other way round.
    for ours_watches in [true, false] {
        let namespace = if ours_watches { "ours" } else { "theirs" };
        let watch = |args: &[&str]| if ours_watches { pair.ours(args) } else { pair.theirs(args) };
        let mut watcher = watch(&["watch", "small"]);
        watcher.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut watcher = watcher.spawn().unwrap();
        let mut printed = BufReader::new(watcher.stdout.take().unwrap());
        let mut line = String::new();
        printed.read_line(&mut line).unwrap();
        assert_eq!(line, "press enter to exit...\n");
        let other = if ours_watches {
            pair.theirs(&["-N", namespace])
        } else {
            pair.ours(&["-N", namespace])
        };
        let mut listing = other;
        listing.args(["listwatchers", "small"]);
        let listed = feed(listing, b"");
        assert!(listed.stdout.starts_with(b"watcher=127.0.0.1:0/"), "{listed:?}");
        let mut notifier = if ours_watches {
            pair.theirs(&["-N", namespace])
        } else {
            pair.ours(&["-N", namespace])
        };
        notifier.args(["notify", "small", "hello"]);
        let notified = feed(notifier, b"");
        let told = String::from_utf8_lossy(&notified.stdout).into_owned();
        assert!(told.contains(" : 9 bytes\n") && told.contains("|....hello|"), "{notified:?}");
        watcher.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(watcher.wait().unwrap().success());
        let rest: String = printed.lines().map(|line| line.unwrap() + "\n").collect();
        assert!(rest.starts_with("NOTIFY cookie ") && rest.contains("|....hello|"), "{rest}");
    }
}

fn pools(pair: &Pair) {
    assert!(pair.same(&["lspools"], b"").contains("data\n"));
    let keys = |output: &Output| {
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        (of(&value), of(&value["pools"][0]))
    };
    let (ours, theirs) = pair.both(&["df", "-f", "json"], b"");
    assert_eq!(keys(&ours), keys(&theirs));
    let heads = |output: Output| {
        let text = String::from_utf8(output.stdout).unwrap();
        let heading =
            text.lines().next().unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let totals = text.lines().filter(|line| line.starts_with("total_"));
        let totals =
            totals.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
        (heading, totals)
    };
    let (ours, theirs) = pair.both(&["df"], b"");
    assert_eq!(heads(ours), heads(theirs));

    let created = feed(pair.ours(&["-C", "-p", "fresh", "ls"]), b"");
    assert!(created.status.success(), "{created:?}");
    assert!(pair.same(&["lspools"], b"").contains("fresh\n"));
    pools_emptied_and_filled(pair);
}

/// The two options that say that somebody is sure, which once were taken without their dashes only.
fn pools_emptied_and_filled(pair: &Pair) {
    pair.same(&["-p", "fresh", "-N", "n", "put", "name", "-"], b"content");
    // What was copied before is copied over.
    pair.same(&["cppool", "fresh", "data"], b"");
    pair.same(&["cppool", "fresh", "data", "--yes-i-really-mean-it"], b"");
    assert_eq!(pair.same(&["-N", "n", "get", "name", "-"], b""), "content");
    assert!(feed(pair.ours(&["-N", "n", "rm", "name"]), b"").status.success());
    let told = pair.same_failure(&["purge", "fresh"]);
    assert!(told.contains("say --yes-i-really-really-mean-it"), "{told}");
    let purged = feed(pair.ours(&["purge", "fresh", "--yes-i-really-really-mean-it"]), b"");
    assert!(purged.status.success(), "{purged:?}");
    assert_eq!(purged.stdout, b"Removed 1 object\nsuccessfully purged pool fresh\n");
    assert_eq!(pair.same(&["-p", "fresh", "ls", "--all"], b""), "");
}

fn benchmarks(pair: &Pair) {
    let shared = |command: Command, args: &[&str]| {
        let mut command = command;
        command.args(["-N", "bench"]).args(args);
        let output = feed(command, b"");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {output:?}");
        text
    };
    let (ours, theirs) = (
        |args: &[&str]| shared(pair.ours(&[]), args),
        |args: &[&str]| shared(pair.theirs(&[]), args),
    );
    let write = ["bench", "1", "write", "--no-cleanup", "-b", "4096", "-O", "16384", "-t", "4"];
    for (writer, reader) in [
        (&ours as &dyn Fn(&[&str]) -> String, &theirs as &dyn Fn(&[&str]) -> String),
        (&theirs, &ours),
    ] {
        let text = writer(&write);
        assert!(text.contains("Total writes made:      "), "{text}");
        // Each compares what it reads with what the other has written.
        for read in ["seq", "rand"] {
            let text = reader(&["bench", "1", read, "-t", "4"]);
            assert!(text.contains("Total reads made:     "), "{text}");
            assert!(!text.contains("is not correct"), "{text}");
        }
        let text = reader(&["cleanup"]);
        assert!(text.contains("Removed "), "{text}");
        assert_eq!(writer(&["ls"]), "");
    }
    let json = ours(&["bench", "1", "write", "-b", "4096", "-f", "json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["op_size"], 4096);
    assert!(report["latency_percentiles"]["99"].as_f64().is_some_and(|latency| latency > 0.0));
    assert!(report["datas"].as_array().is_some_and(|lines| !lines.is_empty()));
    assert_eq!(ours(&["ls"]), "", "it cleans up after itself");
    let none = feed(pair.ours(&["bench", "1", "seq"]), b"");
    assert_eq!(none.status.code(), Some(1), "{none:?}");
    assert!(String::from_utf8_lossy(&none.stderr).contains("Must write data before"), "{none:?}");
}

/// What was measured is told, and nothing is left in the pool.
fn an_interrupted_benchmark(pair: &Pair) {
    let mut bench = pair.ours(&["-N", "interrupted", "bench", "3600", "write", "-b", "4096"]);
    let mut bench = bench.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(bench.stdout.take().unwrap()).lines();
    // Second, operations under way, started, finished.
    let has_written = |line: &String| {
        let number = line.split_whitespace().nth(3).and_then(|word| word.parse().ok());
        number.is_some_and(|finished: u64| finished > 0)
    };
    lines.by_ref().map(|line| line.unwrap()).find(has_written).expect("it writes");
    let kill = Command::new("kill").args(["-s", "INT", &bench.id().to_string()]).status();
    assert!(kill.unwrap().success());
    let rest: Vec<String> = lines.map(|line| line.unwrap()).collect();
    assert_eq!(bench.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.starts_with("Total writes made:")), "{rest:?}");
    let left = feed(pair.ours(&["-N", "interrupted", "ls"]), b"");
    assert!(left.status.success() && left.stdout.is_empty(), "{left:?}");
}

/// `rados` says nothing and waits; so does ours, unless it is told how long.
fn a_full_pool(pair: &Pair) {
    pair.cluster.ceph(&["osd", "pool", "set-quota", "data", "max_objects", "1"]).unwrap();
    let is_full = || {
        let pools = pair.cluster.json(&["osd", "pool", "ls", "detail"]).unwrap();
        let named = |pool: &&Value| pool["pool_name"] == "data";
        let flags = pools.as_array().unwrap().iter().find(named).unwrap()["flags_names"].clone();
        flags.as_str().unwrap().contains("full_quota")
    };
    while !is_full() {}
    let put = feed(pair.ours(&["--op-timeout", "1", "put", "one more", "-"]), b"content");
    let told = String::from_utf8_lossy(&put.stderr).into_owned();
    assert_eq!(put.status.code(), Some(1), "{told}");
    assert!(told.contains("full, or at its quota: what is written waits for room"), "{told}");
    pair.same(&["rm", "small", "--force-full"], b"");
}

const MIB: u64 = 1 << 20;

/// The most memory that a process has had while it ran, in bytes.
fn peak_memory(mut command: Command, input: Option<std::fs::File>) -> u64 {
    command.stdin(input.map_or(Stdio::null(), Stdio::from)).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{command:?}: {status}");
            return peak;
        }
        std::thread::yield_now();
    }
}

/// However many operations are asked for at once, and however long: what of them is in memory is bounded by
/// the maximum of bytes under way, and a tenth.
fn memory(pair: &Pair) {
    const LIMIT: u64 = 8 * MIB;
    const BLOCK: u64 = 4 * MIB;
    /// What one run takes more than another of the same.
    const SPREAD: u64 = 2 * MIB;
    /// Buffers that workers keep for what comes next.
    const KEPT: u64 = 20 * MIB;
    let (limit, block) = (format!("objecter_inflight_op_bytes={LIMIT}"), BLOCK.to_string());
    let run = |args: &[&str], input| {
        let args = [&["--set", &limit], args].concat();
        peak_memory(pair.ours(&args), input)
    };
    let file = |length: u64| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        Some(file)
    };
    let nothing = run(&["-b", &block, "put", "tiny", "-"], file(1));
    let allowed = nothing + LIMIT + LIMIT / 10 + SPREAD;
    // Four blocks go at once where there is room for them.
    let put = run(&["-b", &block, "put", "large", "-"], file(4 * BLOCK));
    let objects = ["-b", &block, "-O", &block, "-t", "32", "--max-objects", "16"];
    let write = run(&[&["bench", "60", "write", "--no-cleanup"], &objects[..]].concat(), None);
    let read = run(&["bench", "1", "rand", "-t", "32"], None);
    let clean = feed(pair.ours(&["cleanup"]), b"");
    assert!(clean.status.success(), "{clean:?}");
    assert!(feed(pair.ours(&["rm", "tiny", "large"]), b"").status.success());
    println!(
        "most memory: {nothing} to put nothing, {put} to put, {write} to write, {read} to read"
    );
    for (verb, peak) in [("put", put), ("write", write)] {
        assert!(peak <= allowed, "{verb} took {peak} bytes, {nothing} are taken by nothing");
    }
    assert!(read <= allowed + KEPT, "read took {read} bytes, {nothing} are taken by nothing");
}
