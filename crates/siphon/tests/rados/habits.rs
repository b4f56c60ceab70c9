//! What people are used to from `rados`, and what they do to it.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::{Pair, common, feed};

pub(crate) fn all(pair: &Pair) {
    forms_of_json(pair);
    a_listing_at_a_snapshot(pair);
    a_file_that_there_is_no_object_for(pair);
    options_anywhere(pair);
    readers_that_leave(pair);
    as_many_objects_as_operations(pair);
    blocks_of_any_length(pair);
    of_newer_releases(pair);
    stripes(pair);
}

/// The forms of JSON are Ceph's to the space, and so are times: those long ago have no date there.
fn forms_of_json(pair: &Pair) {
    // Of several objects, and of none.
    for pool in ["data", "fresh"] {
        pair.same(&["-p", pool, "-N", "ours", "ls", "-f", "json-pretty"], b"");
    }
    pair.same(&["touch", "small", "100"], b"");
    assert_eq!(pair.same(&["stat", "small"], b""), "data/small mtime 100.000000, size 3\n");
    let lasting = ["lock", "get", "small", "lasting", "--lock-duration", "600"];
    assert!(feed(pair.ours(&lasting), b"").status.success());
    for form in ["json", "json-pretty"] {
        let info = pair.same(&["-N", "ours", "-f", form, "lock", "info", "small", "lasting"], b"");
        assert!(info.contains("\"expiration\":"), "{info}");
    }
}

/// OSDs list what there is now; a snapshot that was chosen is told, and changes nothing.
fn a_listing_at_a_snapshot(pair: &Pair) {
    assert!(feed(pair.ours(&["mksnap", "listed"]), b"").status.success());
    let listed = pair.same(&["-N", "ours", "-s", "listed", "ls"], b"");
    assert!(listed.starts_with("selected snap ") && listed.contains("small\n"), "{listed}");
    assert!(feed(pair.ours(&["rmsnap", "listed"]), b"").status.success());
}

/// `get` once emptied its file before it knew that there is no such object.
fn a_file_that_there_is_no_object_for(pair: &Pair) {
    let kept = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&kept, "kept").unwrap();
    let path = kept.path().to_str().unwrap();
    let got = feed(pair.ours(&["get", "missing", path]), b"");
    assert_eq!(got.status.code(), Some(1), "{got:?}");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "kept");
}

/// Before the verb, behind it, or in the environment.
fn options_anywhere(pair: &Pair) {
    pair.same(&["--lock-cookie", "c", "--lock-type=shared", "lock", "get", "small", "any"], b"");
    let (ours, theirs) = pair.both(&["lock", "info", "small", "any", "-f", "json"], b"");
    for info in [ours, theirs] {
        let info = String::from_utf8(info.stdout).unwrap();
        assert!(
            info.contains("\"type\":\"shared\"") && info.contains("\"cookie\":\"c\""),
            "{info}"
        );
    }
    pair.same(&["rm", "small"], b"");
    pair.same(&["put", "small", "-"], b"sma");
    let mut ours = common::siphon(["rados", "ls", "-c"]);
    ours.arg(pair.cluster.client_conf());
    let mut theirs = pair.cluster.program("rados");
    theirs.arg("ls");
    let [ours, theirs] = [ours, theirs].map(|mut command| {
        // What is of another verb is not for this one.
        command.env("CEPH_ARGS", "-p data --all --run-name r");
        feed(command, b"")
    });
    assert!(ours.status.success(), "{ours:?}");
    assert!(
        ours.stdout.starts_with(b"ours\t") || ours.stdout.windows(6).any(|it| it == b"\nours\t")
    );
    assert_eq!(ours.stdout, theirs.stdout);
}

/// A benchmark whose table was piped into `head` once left its objects in the pool.
fn readers_that_leave(pair: &Pair) {
    let mut bench = pair.ours(&["-N", "left", "bench", "3600", "write", "-b", "4096"]);
    let mut bench =
        bench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(bench.stdout.take().unwrap()).lines();
    let first_of_table = |line: &String| line.trim_start().starts_with("0 ");
    lines.by_ref().map(|line| line.unwrap()).find(first_of_table).expect("it has a table");
    drop(lines);
    let ended = bench.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(141), "{ended:?}");
    assert!(ended.stderr.is_empty(), "{ended:?}");
    let left = feed(pair.ours(&["-N", "left", "ls"]), b"");
    assert!(left.status.success() && left.stdout.is_empty(), "{left:?}");

    // The same of what is only read: nobody is told, and the code is that of who is ended by SIGPIPE.
    let (nobody, closed) = std::io::pipe().unwrap();
    drop(nobody);
    let mut list = pair.ours(&["ls"]);
    let list = list.stdin(Stdio::null()).stdout(closed).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((list.status.code(), list.stderr), (Some(141), Vec::new()));
}

/// Who ended while the first operations were begun took the number of one that was to be begun: there were fewer
/// objects than operations, and `seq` missed the last.
fn as_many_objects_as_operations(pair: &Pair) {
    let run = ["-N", "many", "bench", "0", "write", "-b", "64", "-t", "500"];
    let run = feed(pair.ours(&run), b"");
    let told = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success() && told.contains("Total writes made:      500\n"), "{run:?}");
    assert!(told.contains("Removed 500 objects\n"), "{told}");
}

/// A block that no memory has room for once ended the process by SIGABRT.
fn blocks_of_any_length(pair: &Pair) {
    let put = feed(pair.ours(&["-b", "1000G", "put", "blocks", "-"]), b"in one block");
    assert!(put.status.success(), "{put:?}");
    let got = feed(pair.ours(&["-b", "1000G", "get", "blocks", "-"]), b"");
    assert!(got.status.success() && got.stdout == b"in one block", "{got:?}");
    assert!(feed(pair.ours(&["rm", "blocks"]), b"").status.success());
}

/// What Ceph's own has in newer releases only: beside its older form.
fn of_newer_releases(pair: &Pair) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "a header").unwrap();
    let ours = |args: &[&str]| {
        let done = feed(pair.ours(args), b"0123456789");
        assert!(done.status.success(), "{args:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    ours(&["put", "ten", "-"]);
    for (offset, expected) in [("0", "0123456789"), ("7", "789"), ("10", ""), ("4K", "")] {
        for block in ["1", "3", "4M"] {
            assert_eq!(ours(&["get", "ten", "-", "--offset", offset, "-b", block]), expected);
        }
    }
    ours(&["setomapheader", "ten", "--input-file", file.path().to_str().unwrap()]);
    assert!(pair.same(&["-N", "ours", "getomapheader", "ten"], b"").contains("|a header|"));
    ours(&["bench", "max", "write", "--xattr", "-b", "64", "--max-objects", "1"]);
    ours(&["rm", "ten"]);
}

/// In an erasure-coded pool that takes no overwrites, what is longer than a block was cut where no stripe ends,
/// which the OSD refuses: the object was left with its first block.
fn stripes(pair: &Pair) {
    let ceph = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        pair.cluster.ceph(&words).unwrap();
    };
    ceph("osd erasure-code-profile set odd k=2 m=1 stripe_unit=12288 crush-failure-domain=osd");
    ceph("osd pool create striped 8 8 erasure odd");
    let long: Vec<u8> = (0..9_000_001_u32).map(|n| (n / 7 % 251) as u8).collect();
    pair.same(&["-p", "striped", "put", "long", "-"], &long);
    for (whose, namespace) in [("ours", "theirs"), ("theirs", "ours")] {
        let args = ["-p", "striped", "-N", namespace, "get", "long", "-"];
        let reader = if whose == "ours" { pair.ours(&args) } else { pair.theirs(&args) };
        let got = feed(reader, b"");
        assert!(got.status.success() && got.stdout == long, "{whose} reads {namespace}");
    }
    let (ours, theirs) = pair.both(&["-p", "striped", "-b", "5000", "put", "short", "-"], &long);
    assert!(ours.status.success(), "{ours:?}");
    assert_eq!(ours.stderr, theirs.stderr);
    assert_eq!(ours.stderr, b"INFO: op_size has been rounded to 24576\n");
    ceph("osd pool delete striped striped --yes-i-really-really-mean-it");
}
