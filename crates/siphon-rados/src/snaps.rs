//! Snapshots: those of a whole pool, and those that an application manages itself.

use siphon_osdmap::{PoolFlags, PoolSnap};
use siphon_wire::types::{ByteString, SnapId};

use crate::{Error, Pool};

impl Pool {
    /// The pool's snapshots, by their numbers.
    ///
    /// # Errors
    /// [`Error::NoSuchPool`], if it is gone.
    ///
    /// ```no_run
    /// # fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// for snap in pool.snaps()? {
    ///     println!("{} {} of {}", snap.id.0, snap.name, snap.stamp);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn snaps(&self) -> Result<Vec<PoolSnap>, Error> {
        let map = self.cluster().objecter().map();
        let pool = map.pool(self.id()).ok_or_else(|| self.gone())?;
        Ok(pool.snaps.values().cloned().collect())
    }

    /// The number of a pool's snapshot.
    ///
    /// # Errors
    /// [`Error::NoSuchSnap`]; [`Error::NoSuchPool`], if the pool is gone.
    ///
    /// ```no_run
    /// # fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let before = pool.clone().at_snap(pool.snap_by_name("before")?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn snap_by_name(&self, name: impl Into<ByteString>) -> Result<SnapId, Error> {
        let (name, map) = (name.into(), self.cluster().objecter().map());
        let pool = map.pool(self.id()).ok_or_else(|| self.gone())?;
        pool.snap_by_name(&name).ok_or(Error::NoSuchSnap { name })
    }

    /// Whether an application manages the pool's snapshots itself; a pool has one kind only.
    ///
    /// # Errors
    /// [`Error::NoSuchPool`], if it is gone.
    ///
    /// ```no_run
    /// # fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// println!("{}", pool.has_selfmanaged_snaps()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn has_selfmanaged_snaps(&self) -> Result<bool, Error> {
        let map = self.cluster().objecter().map();
        let pool = map.pool(self.id()).ok_or_else(|| self.gone())?;
        Ok(pool.flags.contains(PoolFlags::SELFMANAGED_SNAPS))
    }

    /// Takes a snapshot of the whole pool.
    ///
    /// # Errors
    /// The monitors refuse: `EEXIST` if there is one of this name, `EINVAL` if an application manages
    /// the pool's snapshots.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let snap = pool.create_snap("before").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_snap(&self, name: impl Into<ByteString>) -> Result<SnapId, Error> {
        let name = name.into();
        self.cluster().objecter().create_pool_snap(self.id(), name.clone()).await?;
        self.snap_by_name(name)
    }

    /// Removes a snapshot of the whole pool. OSDs take their time to give its space back.
    ///
    /// # Errors
    /// The monitors refuse: `ENOENT` if there is none of this name.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.remove_snap("before").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove_snap(&self, name: impl Into<ByteString>) -> Result<(), Error> {
        Ok(self.cluster().objecter().delete_pool_snap(self.id(), name).await?)
    }

    /// A number for a snapshot that the application manages itself: it goes into the
    /// [`SnapContext`](crate::SnapContext) of what is written from then on.
    ///
    /// # Errors
    /// The monitors refuse: `EINVAL` if the pool has snapshots of its own.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let snap = pool.create_selfmanaged_snap().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_selfmanaged_snap(&self) -> Result<SnapId, Error> {
        Ok(self.cluster().objecter().allocate_selfmanaged_snap(self.id()).await?)
    }

    /// Removes a snapshot that the application manages itself. Write with a context without it from
    /// then on.
    ///
    /// # Errors
    /// The monitors refuse.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let snap = pool.create_selfmanaged_snap().await?;
    /// pool.remove_selfmanaged_snap(snap).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove_selfmanaged_snap(&self, snap: SnapId) -> Result<(), Error> {
        Ok(self.cluster().objecter().delete_selfmanaged_snap(self.id(), snap).await?)
    }

    pub(crate) fn gone(&self) -> Error {
        Error::NoSuchPool { name: self.name().clone() }
    }
}
