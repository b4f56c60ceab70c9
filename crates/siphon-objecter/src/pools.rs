//! What monitors do to pools and know of them, where the map has to follow.

use siphon_messages::mon::PoolStat;
use siphon_messages::{
    MGetPoolStats, MGetPoolStatsReply, MPoolOp, MPoolOpReply, MStatfs, MStatfsReply, PoolOpCode,
};
use siphon_wire::types::{ByteString, Errno, SnapId};

use crate::error::{BadReply, ObjecterError};
use crate::{Objecter, OpError};

/// ```no_run
/// # async fn snap(objecter: &siphon_objecter::Objecter) -> Result<(), siphon_objecter::ObjecterError> {
/// objecter.create_pool_snap(3, "today").await?;
/// println!("{:?}", objecter.map().pool(3).and_then(|pool| pool.snap_by_name(b"today")));
/// # Ok(())
/// # }
/// ```
///
/// Each of these waits until our map shows what was done, so that what is submitted next goes by it. How
/// long monitors have to answer is `rados_mon_op_timeout`.
impl Objecter {
    /// Makes a snapshot of a pool.
    ///
    /// # Errors
    /// `EEXIST` if it has one of that name, `EINVAL` if clients manage its snapshots, `ENOENT` if there is
    /// no such pool.
    pub async fn create_pool_snap(
        &self,
        pool: i64,
        name: impl Into<ByteString>,
    ) -> Result<(), ObjecterError> {
        let name = name.into();
        // To monitors it is done then (`preprocess_pool_op` of mon/OSDMonitor.cc, 16.2.7).
        if self.has_snap(pool, &name) {
            return Err(ObjecterError::Pool { errno: Errno::EEXIST });
        }
        let op = MPoolOp { name, op: PoolOpCode::CREATE_SNAP, ..MPoolOp::default() };
        self.pool_op(pool, op).await.map(drop)
    }

    /// Removes a snapshot of a pool.
    ///
    /// # Errors
    /// `ENOENT` if there is no such snapshot or pool.
    pub async fn delete_pool_snap(
        &self,
        pool: i64,
        name: impl Into<ByteString>,
    ) -> Result<(), ObjecterError> {
        let name = name.into();
        let op = MPoolOp { name: name.clone(), op: PoolOpCode::DELETE_SNAP, ..MPoolOp::default() };
        let had_it = self.has_snap(pool, &name);
        self.pool_op(pool, op).await?;
        // Nor is this an error to monitors.
        if had_it { Ok(()) } else { Err(ObjecterError::Pool { errno: Errno::ENOENT }) }
    }

    fn has_snap(&self, pool: i64, name: &ByteString) -> bool {
        self.map().pool(pool).is_some_and(|pool| pool.snap_by_name(name).is_some())
    }

    /// A number for a snapshot that clients manage.
    ///
    /// # Errors
    /// `EINVAL` if the pool has snapshots of its own, `ENOENT` if there is no such pool.
    pub async fn allocate_selfmanaged_snap(&self, pool: i64) -> Result<SnapId, ObjecterError> {
        let op = MPoolOp { op: PoolOpCode::CREATE_UNMANAGED_SNAP, ..MPoolOp::default() };
        let reply = self.pool_op(pool, op).await?;
        let number = reply.response_data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let missing = || OpError::from(BadReply::Content("it lacks the snapshot's number")).into();
        number.map(SnapId).ok_or_else(missing)
    }

    /// Removes a snapshot that clients manage: what only it has goes.
    ///
    /// # Errors
    /// `ENOENT` if there is no such pool.
    pub async fn delete_selfmanaged_snap(
        &self,
        pool: i64,
        snap: SnapId,
    ) -> Result<(), ObjecterError> {
        let op =
            MPoolOp { op: PoolOpCode::DELETE_UNMANAGED_SNAP, snapid: snap, ..MPoolOp::default() };
        self.pool_op(pool, op).await.map(drop)
    }

    async fn pool_op(&self, pool: i64, op: MPoolOp) -> Result<MPoolOpReply, ObjecterError> {
        let map = self.map();
        let no_pool = || ObjecterError::Op(OpError::NoSuchPool { pool });
        let number = u32::try_from(pool).map_err(|_| no_pool())?;
        let map = match map.pool(pool) {
            Some(_) => map,
            None => self.wait_for_latest_map(None).await?,
        };
        if map.pool(pool).is_none() {
            return Err(no_pool());
        }
        let question = MPoolOp { version: map.epoch.0.into(), fsid: map.fsid, pool: number, ..op };
        let reply: MPoolOpReply = self.mon().request(question, None).await?;
        match Errno::of_result(reply.reply_code) {
            Some(errno) => Err(ObjecterError::Pool { errno }),
            None => {
                self.wait_for_epoch(reply.epoch, None).await?;
                Ok(reply)
            }
        }
    }

    /// What there is in pools, by their names; those that do not exist are left out.
    ///
    /// # Errors
    /// If the monitors do not answer.
    pub async fn pool_stats(
        &self,
        pools: Vec<ByteString>,
    ) -> Result<MGetPoolStatsReply, ObjecterError> {
        let fsid = self.map().fsid;
        let question = MGetPoolStats { fsid, pools, ..MGetPoolStats::default() };
        Ok(self.mon().request(question, None).await?)
    }

    /// What there is in one pool; `None` if there is no such pool.
    ///
    /// # Errors
    /// If the monitors do not answer.
    pub async fn pool_stat(
        &self,
        pool: impl Into<ByteString>,
    ) -> Result<Option<PoolStat>, ObjecterError> {
        let name = pool.into();
        let mut reply = self.pool_stats(vec![name.clone()]).await?;
        Ok(reply.pool_stats.remove(&name))
    }

    /// The room that the cluster has, or that one pool of data has.
    ///
    /// # Errors
    /// If the monitors do not answer.
    pub async fn statfs(&self, data_pool: Option<i64>) -> Result<MStatfsReply, ObjecterError> {
        let question = MStatfs { fsid: self.map().fsid, data_pool, ..MStatfs::default() };
        Ok(self.mon().request(question, None).await?)
    }
}
