use std::collections::BTreeMap;
use std::fmt;

use siphon_messages::mon::PoolStat;
use siphon_messages::{MPoolOp, MPoolOpReply, MStatfsReply, PoolOpCode};
use siphon_monclient::{Command, CommandOutput, MonClient};
use siphon_objecter::Objecter;
use siphon_wire::types::{ByteString, Errno, Uuid};

use crate::conf::ClusterBuilder;
use crate::{ConnectError, Error, Pool};

/// A Ceph cluster, and this client's sessions with its daemons. Clones are the same.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use siphon_rados::Cluster;
///
/// let cluster = Cluster::connect().await?; // as Ceph's tools: /etc/ceph/ceph.conf, client.admin
/// for (id, name) in cluster.pools() {
///     println!("{id} {name}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cluster {
    mon: MonClient,
    objecter: Objecter,
}

/// What a cluster holds.
///
/// ```no_run
/// # async fn example(cluster: siphon_rados::Cluster) -> Result<(), siphon_rados::Error> {
/// let stat = cluster.stat().await?;
/// println!("{} of {} KiB used", stat.kb_used, stat.kb);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterStat {
    /// All that there is, in KiB.
    pub kb: u64,
    /// What is used, in KiB.
    pub kb_used: u64,
    /// What is free, in KiB.
    pub kb_avail: u64,
    /// How many objects there are.
    pub num_objects: u64,
}

/// What a pool holds, and what was done with it.
///
/// ```no_run
/// # async fn example(cluster: siphon_rados::Cluster) -> Result<(), siphon_rados::Error> {
/// for (name, usage) in cluster.pool_stats().await? {
///     println!("{name} takes {} bytes", usage.bytes_used);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct PoolUsage {
    /// Bytes that it takes of OSDs, copies and all.
    pub bytes_used: u64,
    /// Counts by what is counted.
    pub stat: PoolStat,
}

impl Cluster {
    /// Opens a session with the cluster that Ceph's tools would take, as `client.admin`.
    ///
    /// # Errors
    /// As [`ClusterBuilder::connect`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), siphon_rados::ConnectError> {
    /// let cluster = siphon_rados::Cluster::connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect() -> Result<Self, ConnectError> {
        Self::builder().connect().await
    }

    /// For another cluster, or another user.
    ///
    /// ```
    /// let builder = siphon_rados::Cluster::builder().set("mon_host", "10.0.0.1");
    /// ```
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    pub(crate) fn new(mon: MonClient, objecter: Objecter) -> Self {
        Self { mon, objecter }
    }

    /// What speaks with the monitors.
    ///
    /// ```no_run
    /// # fn example(cluster: siphon_rados::Cluster) {
    /// println!("{:?}", cluster.mon_client().monitor());
    /// # }
    /// ```
    pub fn mon_client(&self) -> &MonClient {
        &self.mon
    }

    /// What speaks with the OSDs.
    ///
    /// ```no_run
    /// # fn example(cluster: siphon_rados::Cluster) {
    /// println!("epoch {}", cluster.objecter().map().epoch.0);
    /// # }
    /// ```
    pub fn objecter(&self) -> &Objecter {
        &self.objecter
    }

    /// The cluster's id.
    ///
    /// ```no_run
    /// # fn example(cluster: siphon_rados::Cluster) {
    /// println!("{}", cluster.fsid());
    /// # }
    /// ```
    pub fn fsid(&self) -> Uuid {
        self.mon.fsid().unwrap_or_default()
    }

    /// This client's number, as others see it: who watches, who locks.
    ///
    /// ```no_run
    /// # fn example(cluster: siphon_rados::Cluster) {
    /// println!("client.{}", cluster.global_id());
    /// # }
    /// ```
    pub fn global_id(&self) -> u64 {
        self.mon.messenger().name().num.try_into().unwrap_or(0)
    }

    /// The pools, by their numbers.
    ///
    /// ```no_run
    /// # fn example(cluster: siphon_rados::Cluster) {
    /// for (id, name) in cluster.pools() {
    ///     println!("{id} {name}");
    /// }
    /// # }
    /// ```
    pub fn pools(&self) -> Vec<(i64, ByteString)> {
        let map = self.objecter.map();
        map.pool_names.iter().map(|(id, name)| (*id, name.clone())).collect()
    }

    /// The pool of a name. If there is none, the newest map is asked for.
    ///
    /// # Errors
    /// [`Error::NoSuchPool`].
    ///
    /// ```no_run
    /// # async fn example(cluster: siphon_rados::Cluster) -> Result<(), siphon_rados::Error> {
    /// let pool = cluster.pool("data").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn pool(&self, name: impl Into<ByteString>) -> Result<Pool, Error> {
        let name = name.into();
        let mut id = self.objecter.map().pool_by_name(&name);
        if id.is_none() {
            id = self.objecter.wait_for_latest_map(None).await?.pool_by_name(&name);
        }
        match id {
            Some(id) => Ok(Pool::new(self.clone(), id, name)),
            None => Err(Error::NoSuchPool { name }),
        }
    }

    /// The pool of a number.
    ///
    /// # Errors
    /// [`Error::NoSuchPool`].
    ///
    /// ```no_run
    /// # fn example(cluster: siphon_rados::Cluster) -> Result<(), siphon_rados::Error> {
    /// let pool = cluster.pool_by_id(3)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn pool_by_id(&self, id: i64) -> Result<Pool, Error> {
        match self.objecter.map().pool_names.get(&id) {
            Some(name) => Ok(Pool::new(self.clone(), id, name.clone())),
            None => Err(Error::NoSuchPool { name: id.to_string().into() }),
        }
    }

    /// Creates a replicated pool as the cluster's defaults have it. For others, there is the command
    /// `osd pool create`.
    ///
    /// # Errors
    /// The monitors refuse: `EEXIST` if it exists, `EPERM` if this client may not.
    ///
    /// ```no_run
    /// # async fn example(cluster: siphon_rados::Cluster) -> Result<(), siphon_rados::Error> {
    /// let pool = cluster.create_pool("data").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_pool(&self, name: impl Into<ByteString>) -> Result<Pool, Error> {
        let name = name.into();
        // To monitors an existing pool is no error (OSDMonitor::prepare_pool_op_create).
        if self.objecter.wait_for_latest_map(None).await?.pool_by_name(&name).is_some() {
            return Err(Error::refused(Errno::EEXIST));
        }
        let (name_of_op, crush_rule) = (name.clone(), -1);
        let op =
            MPoolOp { op: PoolOpCode::CREATE, name: name_of_op, crush_rule, ..Default::default() };
        self.pool_op(op).await?;
        self.pool(name).await
    }

    /// Removes a pool and all that it holds.
    ///
    /// # Errors
    /// [`Error::NoSuchPool`]; the monitors refuse: `EPERM` unless `mon_allow_pool_delete` is set.
    ///
    /// ```no_run
    /// # async fn example(cluster: siphon_rados::Cluster) -> Result<(), siphon_rados::Error> {
    /// cluster.delete_pool("scratch").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete_pool(&self, name: impl Into<ByteString>) -> Result<(), Error> {
        let pool = self.pool(name).await?;
        // Ids count up from 1, so that one of more bits is no pool's.
        let number = u32::try_from(pool.id()).map_err(|_| pool.gone())?;
        // Without a name: if it were that of any pool, monitors would say that it is done, and do
        // nothing (`preprocess_pool_op` of mon/OSDMonitor.cc, 16.2.7).
        let op = MPoolOp { op: PoolOpCode::DELETE, pool: number, ..Default::default() };
        self.pool_op(op).await
    }

    /// Asks the monitors for a change to a pool, and waits for the map that has it.
    async fn pool_op(&self, op: MPoolOp) -> Result<(), Error> {
        let version = u64::from(self.objecter.map().epoch.0);
        let op = MPoolOp { fsid: self.fsid(), version, ..op };
        let reply: MPoolOpReply = self.mon.request(op, None).await?;
        if let Some(errno) = Errno::of_result(reply.reply_code) {
            return Err(Error::refused(errno));
        }
        self.objecter.wait_for_epoch(reply.epoch, None).await?;
        Ok(())
    }

    /// What the cluster holds.
    ///
    /// # Errors
    /// The monitors do not answer in time, if `rados_mon_op_timeout` sets one.
    ///
    /// ```no_run
    /// # async fn example(cluster: siphon_rados::Cluster) -> Result<(), siphon_rados::Error> {
    /// println!("{} KiB free", cluster.stat().await?.kb_avail);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stat(&self) -> Result<ClusterStat, Error> {
        let MStatfsReply { kb, kb_used, kb_avail, num_objects, .. } =
            self.objecter.statfs(None).await?;
        Ok(ClusterStat { kb, kb_used, kb_avail, num_objects })
    }

    /// What each pool holds, by its name. It lags behind by seconds, and a new pool may be missing.
    ///
    /// # Errors
    /// The monitors do not answer in time, if `rados_mon_op_timeout` sets one.
    ///
    /// ```no_run
    /// # async fn example(cluster: siphon_rados::Cluster) -> Result<(), siphon_rados::Error> {
    /// for (name, usage) in cluster.pool_stats().await? {
    ///     println!("{name}: {} objects", usage.stat.stats.sum.num_objects);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn pool_stats(&self) -> Result<BTreeMap<ByteString, PoolUsage>, Error> {
        let pools = self.pools().into_iter().map(|(_, name)| name).collect();
        let answer = self.objecter.pool_stats(pools).await?;
        let usage = |stat: PoolStat| {
            // `get_allocated_data_bytes`, `get_allocated_omap_bytes` of osd/osd_types.h, 16.2.7.
            let used = match answer.per_pool {
                true => stat.store_stats.allocated.saturating_add(stat.store_stats.omap_allocated),
                false => {
                    let sum = &stat.stats.sum;
                    sum.num_bytes.saturating_add(sum.num_bytes_hit_set_archive)
                }
            };
            PoolUsage { bytes_used: u64::try_from(used).unwrap_or(0), stat }
        };
        Ok(answer.pool_stats.into_iter().map(|(name, stat)| (name, usage(stat))).collect())
    }

    /// Has the monitors do a command; what they refuse is an error.
    ///
    /// # Errors
    /// [`Error::Command`] with what the monitors say.
    ///
    /// ```no_run
    /// # async fn example(cluster: siphon_rados::Cluster) -> Result<(), siphon_rados::Error> {
    /// use siphon_rados::Command;
    ///
    /// let command = Command::new("osd pool create").arg("pool", "data").arg("pg_num", 32);
    /// println!("{}", cluster.command(command).await?.status);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn command(&self, command: Command) -> Result<CommandOutput, Error> {
        let output = self.mon.command(command, None).await?;
        match Errno::of_result(output.code) {
            Some(errno) => Err(Error::Command { errno, status: output.status }),
            None => Ok(output),
        }
    }

    /// Closes the sessions, for all clones: what is under way fails, and what is asked from now on.
    ///
    /// ```no_run
    /// # async fn example(cluster: siphon_rados::Cluster) {
    /// cluster.shutdown().await;
    /// # }
    /// ```
    pub async fn shutdown(&self) {
        self.objecter.shutdown();
        self.mon.shutdown().await;
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({}, client.{})", self.fsid(), self.global_id())
    }
}
