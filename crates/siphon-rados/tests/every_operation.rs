//! Every operation of the API against real clusters, and each seen from the other side by `rados`.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use common::{MODES, RELEASES, World};
use siphon_messages::osd::{AllocHintFlags, Checksum, CmpOp, CmpValue, OsdFlags, OsdOpFlags};
use siphon_rados::{Error, Lock, Pool, ReadOp, Wait, WriteOp};
use siphon_wire::crc32c::crc32c;
use siphon_wire::types::{ByteString, EntityName, Errno, Utime, Version};

const PACIFIC: usize = 0;
const REEF: usize = 1;
const TENTACLE: usize = 2;

#[test]
fn of_pacific() {
    all(PACIFIC);
}

#[test]
fn of_reef() {
    all(REEF);
}

#[test]
fn of_tentacle() {
    all(TENTACLE);
}

/// What kind of pool it is: what OSDs can do with its objects.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Copies,
    /// No omap, and no change of what was written.
    Coded,
    /// No omap.
    Overwrites,
}

fn all(release: usize) {
    let Some(world) = World::start(RELEASES[release]) else { return };
    for mode in MODES {
        let cluster = world.connect(mode);
        for (name, kind) in
            [("copies", Kind::Copies), ("coded", Kind::Coded), ("overwrites", Kind::Overwrites)]
        {
            let pool = cluster.pool(name).wait().unwrap().with_namespace(mode);
            println!("{} {mode} {kind:?}", world.peers.version());
            whole_objects(&world, &pool);
            conditions(&pool);
            attributes(&world, &pool);
            locks(&world, &pool);
            sums_and_classes(&pool, kind);
            changes(&world, &pool, kind);
            maps(&world, &pool, kind);
            copies(&world, &pool);
            refusals(&pool);
        }
        cluster.shutdown().wait();
    }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn errno<T>(result: Result<T, Error>) -> Errno {
    result.map(drop).expect_err("this is refused").errno()
}

fn whole_objects(world: &World, pool: &Pool) {
    assert_eq!(errno(pool.stat("object").wait()), Errno::ENOENT);
    let first = pool.create("object", true).wait().unwrap();
    assert_eq!(errno(pool.create("object", true).wait()), Errno::EEXIST);
    pool.create("object", false).wait().unwrap();

    let second = pool.write_full("object", bytes("written by us")).wait().unwrap();
    assert!(first < second, "{first:?} {second:?}");
    let got = world.rados_with(pool, &["get", "object", "-"], b"");
    assert_eq!(got.stdout, b"written by us");
    let put = world.rados_with(pool, &["put", "object", "-"], b"written by rados");
    assert!(put.status.success(), "{put:?}");
    assert_eq!(pool.read("object", 0, 0).wait().unwrap(), b"written by rados");
    assert_eq!(pool.read("object", 8, 2).wait().unwrap(), b"by");
    assert_eq!(pool.read("object", 100, 2).wait().unwrap(), b"");
    let sparse = pool.sparse_read("object", 0, 100).wait().unwrap();
    assert_eq!((sparse.extents, &sparse.data[..]), (vec![(0, 16)], &b"written by rados"[..]));

    let long = Bytes::from(vec![7; 4 << 20]);
    pool.write_full("long", long.clone()).wait().unwrap();
    let read = pool.read("long", 0, 8 << 20).wait().unwrap();
    assert_eq!(read, long);
    let shown = world.rados(pool, &["stat", "long"]);
    assert!(shown.ends_with(", size 4194304\n"), "{shown}");

    let mut op = WriteOp::new();
    op.create(false).set_mtime(Utime::new(1_500_000_000, 250_000_000));
    pool.operate("object", op).wait().unwrap();
    let stat = pool.stat("object").wait().unwrap();
    assert_eq!((stat.size, stat.mtime), (16, Utime::new(1_500_000_000, 250_000_000)));

    for name in ["object", "long"] {
        pool.remove(name).wait().unwrap();
    }
    assert_eq!(errno(pool.remove("object").wait()), Errno::ENOENT);
    assert_eq!(world.rados(pool, &["ls"]), "");
}

fn conditions(pool: &Pool) {
    let mut op = WriteOp::new();
    op.assert_exists().remove();
    assert_eq!(errno(pool.operate("none", op).wait()), Errno::ENOENT);

    let version = pool.write_full("object", bytes("abcdef")).wait().unwrap();
    let at = |version: Version| {
        let mut op = ReadOp::new();
        op.assert_version(version);
        let data = op.read(0, 3);
        pool.operate("object", op).wait().and_then(|outputs| outputs.get(data))
    };
    assert_eq!(at(version).unwrap(), b"abc");
    assert_eq!(errno(at(Version(version.0 + 1))), Errno::EOVERFLOW);
    assert_eq!(errno(at(Version(version.0 - 1))), Errno::ERANGE);
    assert_eq!(errno(at(Version(0))), Errno::EINVAL);

    let compare = |offset, data: &'static str| {
        let mut op = WriteOp::new();
        op.cmp_ext(offset, bytes(data)).set_xattr("met", bytes("yes"));
        pool.operate("object", op).wait()
    };
    compare(2, "cdef").unwrap();
    let error = compare(2, "cdXf").unwrap_err();
    assert!(matches!(error, Error::Mismatch { offset: 2 }), "{error:?}");

    pool.set_xattr("object", "number", bytes("12")).wait().unwrap();
    let xattr = |op: CmpOp, value: CmpValue| {
        let mut read = ReadOp::new();
        read.cmp_xattr("number", op, value);
        pool.operate("object", read).wait()
    };
    xattr(CmpOp::Eq, CmpValue::Bytes(bytes("12"))).unwrap();
    xattr(CmpOp::Ne, CmpValue::Bytes(bytes("13"))).unwrap();
    // As a number 9 is less than 12, as text it is not.
    xattr(CmpOp::Lt, CmpValue::U64(9)).unwrap();
    xattr(CmpOp::Gte, CmpValue::U64(12)).unwrap();
    assert_eq!(errno(xattr(CmpOp::Lt, CmpValue::Bytes(bytes("9")))), Errno::ECANCELED);
    xattr(CmpOp::Gt, CmpValue::Bytes(bytes("9"))).unwrap();
    assert_eq!(errno(xattr(CmpOp::Eq, CmpValue::U64(13))), Errno::ECANCELED);

    // A step that is let fail keeps its error; the others are taken.
    let mut op = ReadOp::new();
    let missing = op.xattr("no such");
    op.fail_ok();
    let (stat, met) = (op.stat(), op.xattr("met"));
    let outputs = pool.operate("object", op).wait().unwrap();
    assert_eq!(errno(outputs.get(missing)), Errno::ENODATA);
    assert_eq!(outputs.get(stat).unwrap().size, 6);
    assert_eq!(outputs.get(met).unwrap(), "yes");
    pool.remove("object").wait().unwrap();
}

fn attributes(world: &World, pool: &Pool) {
    pool.set_xattr("object", "ours", bytes("1")).wait().unwrap();
    assert_eq!(world.rados(pool, &["getxattr", "object", "ours"]), "1");
    world.rados(pool, &["setxattr", "object", "theirs", "2"]);
    assert_eq!(pool.xattr("object", "theirs").wait().unwrap(), "2");
    let binary = Bytes::from(vec![0, 255, 10]);
    pool.set_xattr("object", "binary", binary.clone()).wait().unwrap();
    let all = pool.xattrs("object").wait().unwrap();
    let expected =
        [("binary".into(), binary), ("ours".into(), bytes("1")), ("theirs".into(), bytes("2"))];
    assert_eq!(all, BTreeMap::from(expected));
    pool.rm_xattr("object", "ours").wait().unwrap();
    assert_eq!(world.rados(pool, &["listxattr", "object"]), "binary\ntheirs\n");
    assert_eq!(errno(pool.xattr("object", "ours").wait()), Errno::ENODATA);
    pool.rm_xattr("object", "ours").wait().unwrap(); // which OSDs take for done
    pool.remove("object").wait().unwrap();
}

fn locks(world: &World, pool: &Pool) {
    let me = EntityName::client(i64::try_from(pool.cluster().global_id()).unwrap());
    let lock = Lock::exclusive("l").cookie("c").tag("t").description("for a test");
    pool.lock("object", &lock).wait().unwrap();
    assert_eq!(errno(pool.lock("object", &lock).wait()), Errno::EEXIST);
    pool.lock("object", &lock.clone().may_renew().duration(Duration::from_secs(600)))
        .wait()
        .unwrap();
    pool.lock("object", &lock.clone().must_renew()).wait().unwrap();
    assert_eq!(errno(pool.lock("object", &lock.clone().cookie("d")).wait()), Errno::EBUSY);
    assert_eq!(errno(pool.lock("object", &Lock::shared("l").tag("t")).wait()), Errno::EBUSY);

    let info = world.rados(pool, &["lock", "info", "object", "l"]);
    for part in [r#""type":"exclusive""#, r#""tag":"t""#, r#""cookie":"c""#, &me.to_string()] {
        assert!(info.contains(part), "{part} in {info}");
    }
    let get = ["lock", "get", "object", "l", "--lock-tag", "t"];
    assert!(!world.rados_with(pool, &get, b"").status.success());

    let mut op = WriteOp::new();
    op.assert_locked(&lock).set_xattr("x", bytes("locked"));
    pool.operate("object", op).wait().unwrap();
    let mut op = WriteOp::new();
    op.assert_locked(&Lock::exclusive("other")).set_xattr("x", bytes("never"));
    assert_eq!(errno(pool.operate("object", op).wait()), Errno::EBUSY);

    pool.unlock("object", "l", "c").wait().unwrap();
    assert_eq!(errno(pool.unlock("object", "l", "c").wait()), Errno::ENOENT);
    world.rados(pool, &["lock", "get", "object", "shared", "--lock-type", "shared"]);
    pool.lock("object", &Lock::shared("shared")).wait().unwrap();
    let info = pool.lock_info("object", "shared").wait().unwrap();
    assert_eq!((info.kind.to_string(), info.lockers.len()), ("shared".to_owned(), 2));
    let mut names = pool.list_locks("object").wait().unwrap();
    names.retain(|name| *name != "l"); // OSDs may list one that nobody has
    assert_eq!(names, ["shared"]);
    for id in info.lockers.into_keys() {
        pool.break_lock("object", "shared", id.locker, id.cookie).wait().unwrap();
    }
    assert_eq!(pool.lock_info("object", "shared").wait().unwrap().lockers.len(), 0);

    pool.lock("gone with it", &Lock::ephemeral("l")).wait().unwrap();
    pool.unlock("gone with it", "l", "").wait().unwrap();
    assert_eq!(errno(pool.stat("gone with it").wait()), Errno::ENOENT);
    pool.remove("object").wait().unwrap();
}

fn sums_and_classes(pool: &Pool, kind: Kind) {
    let data: Bytes = (0..16384_u32).map(|n| (n % 251) as u8).collect();
    pool.write_full("object", data.clone()).wait().unwrap();
    let sums = pool.checksum("object", Checksum::Crc32c(!0), 0, 16384, 4096).wait().unwrap();
    let expected = data.chunks(4096).map(|chunk| crc32c(!0, chunk).into());
    assert_eq!(sums.values, expected.collect::<Vec<u64>>());
    let whole = pool.checksum("object", Checksum::Crc32c(0), 0, 0, 0).wait().unwrap();
    assert_eq!(whole.values, [u64::from(crc32c(0, &data))]);
    let narrow = pool.checksum("object", Checksum::XxHash32(1), 0, 0, 0).wait().unwrap();
    let wide = pool.checksum("object", Checksum::XxHash64(1), 0, 0, 0).wait().unwrap();
    assert!(narrow.values[0] <= u64::from(u32::MAX) && wide.values[0] > u64::from(u32::MAX));

    let greeting = pool.exec("object", "hello", "say_hello", bytes("Rust")).wait().unwrap();
    assert_eq!(greeting, b"Hello, Rust!");
    // Classes that an OSD is not told of it does not look for (`osd_class_load_list`).
    let unknown = pool.exec("object", "unknown", "method", Bytes::new()).wait();
    assert_eq!(errno(unknown), Errno::EPERM);
    let unknown = pool.exec("object", "hello", "unknown", Bytes::new()).wait();
    assert_eq!(errno(unknown), Errno::EOPNOTSUPP);
    if kind == Kind::Copies {
        let mut op = WriteOp::new();
        let answer = op.exec("hello", "write_return_data", Bytes::new());
        op.return_outputs();
        let outputs = pool.operate("object", op).wait().unwrap();
        assert_eq!(outputs.result(answer).unwrap(), 42);
        assert_eq!(outputs.get(answer).unwrap(), b"you might see this");
    }
    pool.remove("object").wait().unwrap();
}

fn changes(world: &World, pool: &Pool, kind: Kind) {
    if kind == Kind::Coded {
        pool.write_full("object", bytes("abc")).wait().unwrap();
        assert_eq!(errno(pool.write("object", 1, bytes("X")).wait()), Errno::EOPNOTSUPP);
        pool.remove("object").wait().unwrap();
        return;
    }
    pool.write("object", 2, bytes("cdef")).wait().unwrap();
    pool.append("object", bytes("gh")).wait().unwrap();
    pool.zero("object", 3, 2).wait().unwrap();
    let content = world.rados_with(pool, &["get", "object", "-"], b"").stdout;
    assert_eq!(content, b"\0\0c\0\0fgh");
    pool.truncate("object", 3).wait().unwrap();
    pool.truncate("object", 5).wait().unwrap();
    assert_eq!(pool.read("object", 0, 0).wait().unwrap(), b"\0\0c\0\0");
    pool.write_same("object", 1, 4, bytes("xy")).wait().unwrap();
    assert_eq!(pool.read("object", 0, 0).wait().unwrap(), b"\0xyxy");

    // All in one: none is taken if the last cannot be.
    let mut op = WriteOp::new();
    op.set_alloc_hint(4 << 20, 4096, AllocHintFlags::RANDOM_WRITE);
    op.write(0, bytes("AB")).hint(OsdOpFlags::FADVISE_DONTNEED);
    op.set_xattr("a", bytes("1"));
    op.create(true);
    assert_eq!(errno(pool.operate("object", op).wait()), Errno::EEXIST);
    assert_eq!(pool.read("object", 0, 2).wait().unwrap(), b"\0x");
    let mut op = WriteOp::new();
    op.write(0, bytes("AB")).set_xattr("a", bytes("1")).append(bytes("!"));
    pool.operate("object", op).wait().unwrap();
    assert_eq!(pool.read("object", 0, 0).wait().unwrap(), b"AByxy!");

    let mut op = ReadOp::new();
    let data = op.read(0, 2);
    op.set_flags(OsdFlags::BALANCE_READS);
    let outputs = pool.operate("object", op).wait().unwrap();
    assert_eq!(outputs.get(data).unwrap(), b"AB");
    pool.remove("object").wait().unwrap();
}

fn maps(world: &World, pool: &Pool, kind: Kind) {
    let entries: BTreeMap<ByteString, Bytes> =
        (0..10).map(|n| (format!("key {n}").into(), format!("value {n}").into())).collect();
    if kind != Kind::Copies {
        let set = pool.omap_set("object", &entries).wait();
        assert_eq!(errno(set), Errno::EOPNOTSUPP);
        return;
    }
    pool.omap_set("object", &entries).wait().unwrap();
    pool.omap_set_header("object", bytes("header")).wait().unwrap();
    let keys = world.rados(pool, &["listomapkeys", "object"]);
    assert_eq!(keys.lines().count(), 10);
    let value = world.rados(pool, &["getomapval", "object", "key 3"]);
    assert!(value.contains("|value 3|"), "{value}");
    let header = world.rados(pool, &["getomapheader", "object"]);
    assert!(header.contains("|header|"), "{header}");
    world.rados(pool, &["setomapval", "object", "theirs", "of rados"]);
    let wanted = BTreeSet::from(["theirs".into(), "key 0".into(), "no such".into()]);
    let found = pool.omap_vals_by_keys("object", &wanted).wait().unwrap();
    let expected = [("key 0".into(), bytes("value 0")), ("theirs".into(), bytes("of rados"))];
    assert_eq!(found, BTreeMap::from(expected));
    assert_eq!(pool.omap_header("object").wait().unwrap(), b"header");

    let part = pool.omap_keys("object", "key 3", 2).wait().unwrap();
    assert_eq!((part.entries, part.more), (BTreeSet::from(["key 4".into(), "key 5".into()]), true));
    let part = pool.omap_vals("object", "", "key", 100).wait().unwrap();
    assert_eq!((part.entries.len(), part.more), (10, false));

    let compare = |op: CmpOp, value: &'static str| {
        let mut read = ReadOp::new();
        read.omap_cmp(&BTreeMap::from([("key 5".into(), (bytes(value), op))]));
        pool.operate("object", read).wait()
    };
    compare(CmpOp::Eq, "value 5").unwrap();
    compare(CmpOp::Gt, "value 4").unwrap();
    compare(CmpOp::Lt, "value 6").unwrap();
    assert_eq!(errno(compare(CmpOp::Eq, "value 6")), Errno::ECANCELED);

    pool.omap_rm_keys("object", &BTreeSet::from(["theirs".into()])).wait().unwrap();
    pool.omap_rm_range("object", "key 2", "key 8").wait().unwrap();
    assert_eq!(world.rados(pool, &["listomapkeys", "object"]), "key 0\nkey 1\nkey 8\nkey 9\n");
    pool.omap_clear("object").wait().unwrap();
    assert_eq!(pool.omap_keys("object", "", 10).wait().unwrap().entries.len(), 0);
    assert_eq!(pool.omap_header("object").wait().unwrap(), b"");
    pool.remove("object").wait().unwrap();
}

fn copies(world: &World, pool: &Pool) {
    pool.write_full("original", bytes("to be copied")).wait().unwrap();
    pool.set_xattr("original", "a", bytes("1")).wait().unwrap();
    let other = pool.clone().with_namespace("copies").with_locator("somewhere");
    other.copy_from("copy", pool, "original").wait().unwrap();
    assert_eq!(other.read("copy", 0, 0).wait().unwrap(), b"to be copied");
    assert_eq!(other.xattr("copy", "a").wait().unwrap(), "1");
    // Who does not know the key looks elsewhere, unless it happens to be the same place.
    let got = world.rados(&other, &["--object-locator", "somewhere", "get", "copy", "-"]);
    assert_eq!(got, "to be copied");
    assert_eq!(errno(other.copy_from("copy", pool, "no such").wait()), Errno::ENOENT);
    other.remove("copy").wait().unwrap();
    pool.remove("original").wait().unwrap();
}

/// Bad input gets errors that say what is wrong, and comes back at once.
fn refusals(pool: &Pool) {
    let long = "n".repeat(4096);
    assert_eq!(errno(pool.write_full(&long[..], bytes("x")).wait()), Errno::ENAMETOOLONG);
    let odd = "with\0a NUL\n\u{7f}";
    pool.write_full(odd, bytes("odd")).wait().unwrap();
    assert_eq!(pool.read(odd, 0, 0).wait().unwrap(), b"odd");
    pool.remove(odd).wait().unwrap();
    let binary = ByteString::from(vec![0xff, 0, 0x80]);
    pool.write_full(binary.clone(), bytes("odd")).wait().unwrap();
    pool.remove(binary).wait().unwrap();

    // `osd_max_object_size` is 16 MiB here.
    let beyond = pool.write("far", 16 << 20, bytes("x")).wait();
    let found = errno(beyond);
    assert!([Errno::EFBIG, Errno::EOPNOTSUPP].contains(&found), "{found}");
    pool.write_full("far", bytes("x")).wait().unwrap();
    let longer = errno(pool.truncate("far", 1 << 40).wait());
    assert!([Errno::EFBIG, Errno::EOPNOTSUPP].contains(&longer), "{longer}");
    pool.remove("far").wait().unwrap();

    let at_snap = pool.clone().at_snap(siphon_wire::types::SnapId(1));
    assert!(matches!(at_snap.remove("x").wait(), Err(Error::ReadOnly)));
    let no_steps = pool.operate("x", WriteOp::new()).wait().unwrap_err();
    assert_eq!(no_steps.errno(), Errno::EINVAL);
    let class = "c".repeat(256);
    let error = pool.exec("x", &class, "m", Bytes::new()).wait().unwrap_err();
    assert!(error.to_string().contains("256 bytes, 255 at most"), "{error}");
    let odd_length = pool.write_same("x", 0, 5, bytes("xy")).wait().unwrap_err();
    assert!(odd_length.to_string().contains("must be a multiple"), "{odd_length}");
    let missing = pool.cluster().pool("no such pool").wait().unwrap_err();
    assert_eq!(missing.to_string(), "there is no pool no such pool");
}
