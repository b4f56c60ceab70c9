//! For programs that wait on threads.

use futures_util::{Stream, StreamExt as _};

/// Waits on this thread for a future: what is asynchronous here can be used without a runtime.
///
/// ```no_run
/// use siphon_rados::{Cluster, Wait};
///
/// let cluster = Cluster::connect().wait()?;
/// let pool = cluster.pool("data").wait()?;
/// pool.write_full("first", bytes::Bytes::from_static(b"content")).wait()?;
/// for object in pool.objects().wait_each() {
///     println!("{}", object?.oid);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Not on a runtime's own thread, which others wait for.
pub trait Wait {
    /// The result, when it is there.
    ///
    /// ```
    /// use siphon_rados::Wait;
    /// assert_eq!(std::future::ready(7).wait(), 7);
    /// ```
    fn wait(self) -> Self::Output
    where
        Self: Future + Sized,
    {
        pollster::block_on(self)
    }

    /// The items of a stream, each when it is there.
    ///
    /// ```
    /// use siphon_rados::Wait;
    /// let items = futures_util::stream::iter([1, 2]);
    /// assert_eq!(items.wait_each().collect::<Vec<_>>(), [1, 2]);
    /// ```
    fn wait_each(self) -> impl Iterator<Item = Self::Item>
    where
        Self: Stream + Sized,
    {
        let mut stream = Box::pin(self);
        std::iter::from_fn(move || pollster::block_on(stream.next()))
    }
}

impl<T> Wait for T {}
