//! Sessions in secure mode, over sockets.

mod common;

use std::sync::Arc;
use std::sync::mpsc::channel;

use common::{HUNG, Tell, context, message};
use siphon_auth::{AuthClient, ConnectionMode, CryptoKey, KeyType, ModeList, Modes, SharedSecret};
use siphon_msgr::{CloseReason, Messenger, Stack, SystemEnv};
use siphon_proto::{Policy, Protocol, ProtocolError};
use siphon_wire::types::{EntityAddr, EntityName, EntityType};

const MESSAGES: u64 = 20_000;

fn secret(key: &CryptoKey, modes: &str) -> SharedSecret {
    let modes = Modes::all(&modes.parse::<ModeList>().unwrap());
    SharedSecret::new(key.clone(), modes, Arc::new(SystemEnv))
}

fn loopback() -> EntityAddr {
    EntityAddr::msgr2(([127, 0, 0, 1], 0).into(), 0)
}

#[test]
fn a_session_goes_on_under_other_keys_and_loses_nothing() {
    for key_type in [KeyType::AES, KeyType::AES256K] {
        let key = CryptoKey::generate(key_type, &SystemEnv).unwrap();
        let secret = secret(&key, "secure");
        let context = context(|config| config.ms_inject_socket_failures = 500);
        let stack = Stack::new(&context).unwrap();
        let (sender, received) = channel();
        let osd = Messenger::builder(&context, &stack, EntityName::osd(0))
            .default_policy(Policy::STATEFUL_SERVER)
            .auth_server(Arc::new(secret.server(EntityType::OSD)))
            .dispatcher_tail(Arc::new(Tell(sender)))
            .start()
            .unwrap();
        let addrs = osd.bind(&[loopback()]).unwrap();
        let auth = secret.client("client.a".parse().unwrap(), EntityType::OSD).unwrap();
        let client = Messenger::builder(&context, &stack, EntityName::client(7))
            .default_policy(Policy::LOSSLESS_CLIENT)
            .auth_client(Arc::new(auth))
            .rekey_after(5000)
            .start()
            .unwrap();
        let connection = client.connect_to(EntityType::OSD, addrs);
        (1..=MESSAGES).for_each(|tid| connection.send(message(42, tid)).unwrap());
        for tid in 1..=MESSAGES {
            assert_eq!(received.recv_timeout(HUNG).unwrap(), tid, "once, and in order");
        }
        let peer = connection.peer().unwrap();
        assert_eq!(peer.mode, ConnectionMode::SECURE);
        let counts = client.session_counts();
        assert!(counts.resumed >= MESSAGES / 5000, "{counts:?}");
        pollster::block_on(client.shutdown());
        pollster::block_on(osd.shutdown());
    }
}

#[test]
fn msgr1_signs_messages_and_loses_nothing() {
    for key_type in [KeyType::AES, KeyType::AES256K] {
        let key = CryptoKey::generate(key_type, &SystemEnv).unwrap();
        let secret = secret(&key, "crc");
        let context = context(|config| config.ms_inject_socket_failures = 50);
        let stack = Stack::new(&context).unwrap();
        let (sender, received) = channel();
        let osd = Messenger::builder(&context, &stack, EntityName::osd(0))
            .default_policy(Policy::STATEFUL_SERVER)
            .auth_server(Arc::new(secret.server(EntityType::OSD)))
            .dispatcher_tail(Arc::new(Tell(sender)))
            .start()
            .unwrap();
        // It offers both; the client is told of the one.
        let v1 = EntityAddr::legacy(([127, 0, 0, 1], 0).into(), 0);
        let addrs = osd.bind(&[loopback(), v1]).unwrap();
        let v1 = addrs.legacy().unwrap();
        let auth = secret.client("client.a".parse().unwrap(), EntityType::OSD).unwrap();
        let client = Messenger::builder(&context, &stack, EntityName::client(7))
            .default_policy(Policy::LOSSLESS_CLIENT)
            .auth_client(Arc::new(auth))
            .start()
            .unwrap();
        let connection = client.connect_to(EntityType::OSD, v1.into());
        // As many as it takes until a link was lost, and another has gone on.
        for batch in 0..1000 {
            let tids = batch * 100 + 1..=batch * 100 + 100;
            tids.clone().for_each(|tid| connection.send(message(42, tid)).unwrap());
            for tid in tids {
                assert_eq!(received.recv_timeout(HUNG).unwrap(), tid, "once, and in order");
            }
            if batch >= 20 && client.session_counts().resumed > 0 {
                break;
            }
        }
        assert_eq!(connection.peer().unwrap().protocol, Protocol::Msgr1);
        assert!(client.session_counts().resumed > 0, "{:?}", client.session_counts());
        // Who knows both addresses speaks msgr2.
        let both = client.connect_to(EntityType::OSD, addrs);
        let peer = pollster::block_on(both.ready()).unwrap();
        assert_ne!(peer.protocol, Protocol::Msgr1);
        pollster::block_on(client.shutdown());
        pollster::block_on(osd.shutdown());
    }
}

#[test]
fn another_key_and_another_mode_are_told_by_name() {
    let [key, other] = [0; 2].map(|_| CryptoKey::generate(KeyType::AES256K, &SystemEnv).unwrap());
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let osd = Messenger::builder(&context, &stack, EntityName::osd(0))
        .default_policy(Policy::STATELESS_SERVER)
        .auth_server(Arc::new(secret(&key, "secure").server(EntityType::OSD)))
        .start()
        .unwrap();
    let addrs = osd.bind(&[loopback()]).unwrap();
    let rows = [
        (secret(&other, "secure"), "wrong name, wrong key, or a ticket that ended"),
        (secret(&key, "crc"), "it allows connection modes: secure"),
    ];
    for (secret, expected) in rows {
        let auth = secret.client("client.a".parse().unwrap(), EntityType::OSD).unwrap();
        let client = Messenger::builder(&context, &stack, EntityName::client(7))
            .default_policy(Policy::LOSSY_CLIENT)
            .auth_client(Arc::new(auth))
            .start()
            .unwrap();
        let connection = client.connect_to(EntityType::OSD, addrs.clone());
        let reason = pollster::block_on(connection.attempt()).unwrap_err();
        assert!(
            matches!(reason, CloseReason::Protocol(ProtocolError::AuthRejected(_))),
            "{reason:?}"
        );
        assert!(reason.to_string().contains(expected), "{reason}");
        connection.mark_down();
        pollster::block_on(client.shutdown());
    }
    pollster::block_on(osd.shutdown());
}

/// Without keys there is no secure mode: who insists on it does not speak in the open instead, and who
/// has a key lets nobody in that has none.
#[test]
fn nobody_falls_back_to_method_none() {
    let secure_only = context(|config| config.ms_client_mode = "secure".to_owned());
    let plain = context(|_| {});
    let stack = Stack::new(&plain).unwrap();
    let osd = |auth: Option<Arc<dyn AuthClient>>| {
        let mut builder = Messenger::builder(&plain, &stack, EntityName::osd(0))
            .default_policy(Policy::STATELESS_SERVER);
        if let Some(auth) = auth {
            builder = builder.auth_client(auth);
        }
        let osd = builder.start().unwrap();
        let addrs = osd.bind(&[loopback()]).unwrap();
        (osd, addrs)
    };
    let key = CryptoKey::generate(KeyType::AES256K, &SystemEnv).unwrap();
    let secret = secret(&key, "secure");
    let with_key = secret.client("osd.0".parse().unwrap(), EntityType::OSD).unwrap();
    let rows = [(&secure_only, None, false), (&plain, Some(with_key), false), (&plain, None, true)];
    for (context, auth, is_let_in) in rows {
        let (osd, addrs) = osd(auth.map(|auth| Arc::new(auth) as Arc<dyn AuthClient>));
        let client = Messenger::builder(context, &stack, EntityName::client(7))
            .default_policy(Policy::LOSSY_CLIENT)
            .start()
            .unwrap();
        let attempt = pollster::block_on(client.connect_to(EntityType::OSD, addrs).attempt());
        assert_eq!(attempt.is_ok(), is_let_in, "{attempt:?}");
        if let Err(reason) = attempt {
            let is_auth = matches!(reason, CloseReason::Protocol(ProtocolError::AuthRejected(_)));
            assert!(is_auth, "{reason}");
        }
        pollster::block_on(client.shutdown());
        pollster::block_on(osd.shutdown());
    }
    let mut bad = siphon_common::Config::default();
    bad.ms_client_mode = "secret".to_owned();
    let bad = siphon_common::Context::new(bad);
    let error = Messenger::builder(&bad, &stack, EntityName::client(7)).start().unwrap_err();
    assert!(error.to_string().contains("secret"), "{error}");
}
