//! Advisory locks.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use siphon_rados::{Error, Lock, Pool};
use siphon_wire::types::{ByteString, EntityAddr};

use super::Session;
use super::args::{LockArgs, LockType, LockVerb};
use super::output::local_time;

impl Session {
    pub(super) async fn lock(&self, args: LockArgs) -> Result<()> {
        let pool = self.pool().await?;
        match &args.verb {
            LockVerb::List { object } => self.list_locks(&pool, object).await,
            LockVerb::Info { object, lock } => self.lock_info(&pool, object, lock).await,
            LockVerb::Get { object, lock } => {
                let wanted = args.wanted(lock);
                let got = pool.lock(object.clone(), &wanted).await;
                got.map(drop).map_err(|error| failed("failed locking", error))
            }
            LockVerb::Break { object, lock, locker } => {
                let cookie = args.lock_cookie.clone().unwrap_or_default();
                let broken = pool.break_lock(object.clone(), lock.clone(), *locker, cookie).await;
                broken.map(drop).map_err(|error| failed("failed breaking lock", error))
            }
        }
    }

    async fn list_locks(&self, pool: &Pool, object: &ByteString) -> Result<()> {
        let answer = pool.list_locks(object.clone()).await;
        let locks = answer.map_err(|error| failed("rados_list_locks()", error))?;
        let locks: Vec<_> = locks.iter().map(|name| json!({ "name": name.to_string() })).collect();
        self.show(&json!({ "objname": object.to_string(), "locks": locks }))
    }

    async fn lock_info(&self, pool: &Pool, object: &ByteString, lock: &ByteString) -> Result<()> {
        let answer = pool.lock_info(object.clone(), lock.clone()).await;
        let info = answer.map_err(|error| failed("rados_lock_get_lock_info()", error))?;
        let lockers = info.lockers.iter().map(|(id, locker)| {
            json!({
                "name": id.locker.to_string(),
                "cookie": id.cookie.to_string(),
                "description": locker.description.to_string(),
                "expiration": local_time(locker.expiration),
                "addr": legacy(&locker.addr),
            })
        });
        self.show(&json!({
            "name": lock.to_string(),
            "type": info.kind.to_string(),
            "tag": info.tag.to_string(),
            "lockers": lockers.collect::<Vec<_>>(),
        }))
    }
}

impl LockArgs {
    fn wanted(&self, name: &ByteString) -> Lock {
        let mut lock = match self.lock_type {
            LockType::Exclusive => Lock::exclusive(name.clone()),
            LockType::Shared => Lock::shared(name.clone()),
        };
        if let Some(cookie) = &self.lock_cookie {
            lock = lock.cookie(cookie.clone());
        }
        if let Some(tag) = &self.lock_tag {
            lock = lock.tag(tag.clone());
        }
        if let Some(description) = &self.lock_description {
            lock = lock.description(description.clone());
        }
        if let Some(seconds) = self.lock_duration {
            lock = lock.duration(Duration::from_secs(seconds.into()));
        }
        lock
    }
}

/// An address without the protocol, as Ceph shows one to those who know no other.
pub(super) fn legacy(addr: &EntityAddr) -> String {
    match addr.socket_addr() {
        Some(socket) => format!("{socket}/{}", addr.nonce()),
        None => "-".to_owned(),
    }
}

/// An error in the words of Ceph's `rados`.
fn failed(what: &str, error: Error) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("ERROR: {what}"))
}
