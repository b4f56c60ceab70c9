//! A cephx cluster of two, for a target to interfere with: a monitor and an OSD, and a client that
//! has been with the monitor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use siphon_auth::{
    AuthClient as _, AuthEnv, AuthServer as _, AuthServerAnswer, CephxClient, CephxServer,
    CryptoKey, EntityAuth, KeyServer, KeyServerOptions, KeyType, KeyUsage, Keyring, Modes,
    PeerContext,
};
use siphon_wire::types::{AuthName, EntityType, Utime};

/// `AUTH_ENC_MAGIC` behind the version, which stand before everything that cephx seals.
const HEAD: [u8; 9] = [1, 0x55, 0xaa, 0x26, 0x88, 0xad, 0x9c, 0x00, 0xff];

/// A clock that a target sets, and numbers that repeat from run to run.
#[derive(Debug)]
pub struct Env {
    sec: AtomicU32,
    state: AtomicU64,
}

impl Env {
    /// Lets time pass; it ends in 2106.
    pub fn pass(&self, sec: u32) {
        let now = self.sec.load(Ordering::Relaxed);
        self.sec.store(now.saturating_add(sec), Ordering::Relaxed);
    }
}

impl AuthEnv for Env {
    fn now(&self) -> Utime {
        Utime::new(self.sec.load(Ordering::Relaxed), 0)
    }

    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let state = self.state.load(Ordering::Relaxed);
            self.state.store(
                state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1),
                Ordering::Relaxed,
            );
            *byte = (state >> 56) as u8;
        }
    }
}

/// All who take part.
#[derive(Debug)]
pub struct Cluster {
    /// The time.
    pub env: Arc<Env>,
    /// What the monitor knows.
    pub keys: Arc<KeyServer>,
    /// The monitor.
    pub mon: CephxServer,
    /// A service.
    pub osd: CephxServer,
    /// A client with tickets for all services.
    pub client: CephxClient,
    /// Its key.
    pub key: CryptoKey,
}

impl Cluster {
    /// With keys of this type.
    ///
    /// # Panics
    /// If the client is not let in: then nothing else can be tried.
    pub fn new(key_type: KeyType) -> Self {
        let env = Arc::new(Env { sec: 1_000_000.into(), state: 1.into() });
        let key = CryptoKey::generate(key_type, &*env).expect("a type that has keys");
        let name = AuthName::new(EntityType::CLIENT, "a");
        let caps = ["mon", "osd"].map(|service| (service.to_owned(), "allow r".to_owned()));
        let mut keyring = Keyring::default();
        keyring.insert(name.clone(), EntityAuth { key: key.clone(), caps: caps.into() });
        let options = KeyServerOptions { service_key_type: key_type, ..Default::default() };
        let keys = Arc::new(KeyServer::new(keyring, options, env.clone()));
        let modes = Modes::default();
        let mon = CephxServer::for_monitor(keys.clone(), modes.clone());
        let osd =
            CephxServer::for_service(EntityType::OSD, keys.clone(), modes.clone(), env.clone());
        let client = CephxClient::new(name, key.clone(), modes, env.clone());
        let cluster = Self { env, keys, mon, osd, client, key };
        cluster.open_session();
        cluster
    }

    /// The secret that the OSD's next ticket is sealed with, and its id.
    pub fn osd_secret(&self) -> Option<(u64, CryptoKey)> {
        let secrets = self.keys.rotating_secrets(EntityType::OSD).ok()?.secrets;
        secrets.into_iter().nth(1).map(|(id, secret)| (id, secret.key))
    }

    /// What somebody who has the key makes of any bytes.
    pub fn sealed(&self, key: &CryptoKey, usage: KeyUsage, content: &[u8]) -> Bytes {
        let plain = [&HEAD[..], content].concat();
        key.seal(usage, &plain, &*self.env).unwrap_or_default().into()
    }

    fn open_session(&self) {
        let mut ours = self.client.begin(PeerContext::new(EntityType::MON)).expect("a key");
        let mut theirs = self.mon.begin(PeerContext::new(EntityType::CLIENT));
        let request = ours.request().expect("a request");
        let AuthServerAnswer::More(challenge) = theirs.request(&request) else {
            panic!("no challenge");
        };
        let proof = ours.reply_more(&challenge).expect("an answer");
        let AuthServerAnswer::Done { global_id, mode, payload, .. } = theirs.request_more(&proof)
        else {
            panic!("not let in");
        };
        ours.done(global_id, mode, &payload).expect("an honest monitor");
    }
}
