//! Watching objects, and notifying those who do.

use std::time::Duration;

use bytes::Bytes;
use siphon_objecter::{NotifyReply, Op, Watch};
use siphon_wire::types::ByteString;

use crate::{Error, Pool};

impl Pool {
    /// Watches an object: a stream of what those who [notify](Self::notify) it say. The watch goes
    /// along with the object from OSD to OSD; if it is lost, its last event says so. An OSD that hears
    /// nothing of this client for `timeout` forgets it, by default for 30 s.
    ///
    /// # Errors
    /// The OSD refuses: `ENOENT` if there is no such object.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// use bytes::Bytes;
    /// use futures_util::StreamExt;
    /// use siphon_rados::WatchEvent;
    ///
    /// let mut watch = pool.watch("board", None).await?;
    /// while let Some(event) = watch.next().await {
    ///     if let WatchEvent::Notify(notice) = event {
    ///         println!("client.{} says {:?}", notice.notifier, notice.payload);
    ///         watch.acknowledge(&notice, &Bytes::from_static(b"seen")).await?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn watch(
        &self,
        object: impl Into<ByteString>,
        timeout: Option<Duration>,
    ) -> Result<Watch, Error> {
        let op = Op::write(self.target(object.into()), Vec::new());
        Ok(self.cluster().objecter().watch(op, timeout).await?)
    }

    /// Notifies all who watch an object, and waits until each has acknowledged, or for `timeout`, by
    /// default 10 s. Who did not acknowledge in time is told.
    ///
    /// # Errors
    /// The OSD refuses: `ENOENT` if there is no such object.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// use bytes::Bytes;
    ///
    /// let reply = pool.notify("board", Bytes::from_static(b"news"), None).await?;
    /// println!("{} heard it, {} did not", reply.answers.len(), reply.missed.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn notify(
        &self,
        object: impl Into<ByteString>,
        payload: impl Into<Bytes>,
        timeout: Option<Duration>,
    ) -> Result<NotifyReply, Error> {
        let op = Op::read(self.target(object.into()), Vec::new());
        Ok(self.cluster().objecter().notify(op, &payload.into(), timeout).await?)
    }
}
