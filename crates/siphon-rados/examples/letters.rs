//! A first look at objects: written, read, changed together with a condition, listed, removed.
//!
//! `cargo run --example letters -- POOL` runs it in the cluster of `/etc/ceph/ceph.conf`.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use siphon_rados::types::Errno;
use siphon_rados::{Cluster, ReadOp, WriteOp};

/// Does all of it in a pool, and leaves nothing behind.
///
/// # Errors
/// The first thing that the cluster refuses.
pub(crate) async fn run(cluster: &Cluster, pool: &str) -> Result<(), siphon_rados::Error> {
    let letters = cluster.pool(pool).await?.with_namespace("letters");

    // What one step does is a method.
    letters.write_full("first", "Dear reader,").await?;
    letters.append("first", " how are you?").await?;

    // Steps that belong together are one operation: all or none.
    let mut op = WriteOp::new();
    op.create(true); // an error if there is one
    op.write_full("I am well.");
    op.set_xattr("answers", Bytes::from_static(b"first"));
    let written = letters.operate("second", op).await?.version();

    // What a step reads is promised, and there when the operation is answered.
    let mut op = ReadOp::new();
    op.assert_version(written); // nobody changed it meanwhile
    let (text, answers) = (op.read(0, 0), op.xattr("answers"));
    let outputs = letters.operate("second", op).await?;
    assert_eq!(outputs.get(text)?, b"I am well.");
    assert_eq!(outputs.get(answers)?, "first");

    // Errors keep Ceph's numbers.
    let error = letters.read("third", 0, 0).await.expect_err("nobody wrote that");
    assert_eq!(error.errno(), Errno::ENOENT);

    let mut objects = letters.objects();
    while let Some(object) = objects.try_next().await? {
        let size = letters.stat(object.oid.clone()).await?.size;
        println!("{}: {size} bytes", object.oid);
        letters.remove(object.oid).await?;
    }
    Ok(())
}

#[allow(dead_code, reason = "a test runs it in clusters of its own")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use siphon_rados::Wait as _;

    let pool = std::env::args().nth(1).ok_or("which pool? letters POOL")?;
    let cluster = Cluster::connect().wait()?;
    run(&cluster, &pool).wait()?;
    cluster.shutdown().wait();
    Ok(())
}
