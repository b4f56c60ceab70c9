//! Whatever an OSD answers, it is an output or an error.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use siphon_messages::osd::{Checksum, OsdOp};
use siphon_rados::{Error, Out, Outputs, ReadOp, WriteOp};
use siphon_wire::types::Version;

/// Asks for everything that has an output, and gives what each becomes of an answer.
fn every_output(answer: impl Fn(Vec<OsdOp>) -> Vec<OsdOp>) -> Vec<Result<(), Error>> {
    let mut op = ReadOp::new();
    let data = op.read(0, 100);
    let rest = (
        op.stat(),
        op.sparse_read(0, 100),
        op.checksum(Checksum::Crc32c(0), 0, 100, 10),
        op.checksum(Checksum::XxHash64(0), 0, 0, 0),
        op.xattrs(),
        op.omap_keys("", 10),
        op.omap_vals("", "", 10),
        op.omap_vals_by_keys(&BTreeSet::new()),
    );
    let last = (op.list_watchers(), op.list_snaps(), op.lock_info("l"), op.list_locks());
    let outputs = Outputs::new(answer(op.into_ops().unwrap()), Version(1));
    fn tell<T>(outputs: &Outputs, out: Out<T>) -> Result<(), Error> {
        outputs.get(out).map(drop)
    }
    vec![
        tell(&outputs, data),
        tell(&outputs, rest.0),
        tell(&outputs, rest.1),
        tell(&outputs, rest.2),
        tell(&outputs, rest.3),
        tell(&outputs, rest.4),
        tell(&outputs, rest.5),
        tell(&outputs, rest.6),
        tell(&outputs, rest.7),
        tell(&outputs, last.0),
        tell(&outputs, last.1),
        tell(&outputs, last.2),
        tell(&outputs, last.3),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_an_output_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        rval in any::<i32>(),
    ) {
        let bytes = Bytes::from(bytes);
        let results = every_output(|mut ops| {
            for op in &mut ops {
                op.data = bytes.clone().into();
                op.rval = rval;
            }
            ops
        });
        if rval < 0 {
            let told = results.iter().all(|result| matches!(result, Err(Error::Step { .. })));
            prop_assert!(told, "a step that failed has no output");
        } else {
            prop_assert!(results[0].is_ok(), "data may be any bytes");
        }
    }

    /// Counts that announce more than there is are refused before memory is taken for them.
    #[test]
    fn huge_counts_are_errors(count in 1_000_000_u32..) {
        let results = every_output(|mut ops| {
            for op in &mut ops {
                op.data = Bytes::copy_from_slice(&count.to_le_bytes()).into();
            }
            ops
        });
        prop_assert!(results[1..].iter().all(Result::is_err));
    }
}

#[test]
fn answers_to_other_steps_are_errors() {
    for answer in [
        (|ops: Vec<OsdOp>| ops.into_iter().rev().collect()) as fn(Vec<OsdOp>) -> Vec<OsdOp>,
        |_| Vec::new(),
        |mut ops| ops.split_off(1),
    ] {
        let results = every_output(answer);
        let missing = results.iter().filter(|it| matches!(it, Err(Error::MissingAnswer { .. })));
        // Two steps of one kind are one behind the other, and cannot be told apart.
        assert!(missing.count() >= results.len() - 2);
    }
    // A promise of another operation is none of this one.
    let mut other = WriteOp::new();
    other.create(false);
    let foreign = other.exec("class", "method", Bytes::new());
    let mut op = ReadOp::new();
    let _ = op.stat();
    let outputs = Outputs::new(op.into_ops().unwrap(), Version(1));
    assert!(matches!(outputs.get(foreign), Err(Error::MissingAnswer { .. })));
}
