//! cephx: its structures, and either side against peers that say anything, with and without keys.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use siphon_auth::cephx::wire::{
    AuthCaps, AuthTicket, Authenticate, Authorize, AuthorizeChallenge, AuthorizeReply,
    AuthorizerHead, ChallengeBlob, ExpiringCryptoKey, GET_AUTH_SESSION_KEY,
    GET_PRINCIPAL_SESSION_KEY, GET_ROTATING_KEY, RequestHeader, ResponseHeader, RotatingSecrets,
    ServerChallenge, ServiceTicket, ServiceTicketInfo, ServiceTicketRequest, StoredAuth,
    TicketBlob,
};
use siphon_auth::{
    AuthClient as _, AuthMethod, AuthRequest, AuthServer as _, AuthServerAnswer, BadMethod,
    ClientExchange, ConnectionMode, CryptoKey, KeyType, KeyUsage, Keys, PeerContext,
};
use siphon_fuzz::cephx::Cluster;
use siphon_fuzz::{Script, decode_and_back};
use siphon_wire::types::{EntityType, Features};
use siphon_wire::{Encode as _, Encoder};

const VALUES: [fn(&Bytes); 20] = [
    decode_and_back::<AuthCaps>,
    decode_and_back::<AuthTicket>,
    decode_and_back::<Authenticate>,
    decode_and_back::<Authorize>,
    decode_and_back::<AuthorizeChallenge>,
    decode_and_back::<AuthorizeReply>,
    decode_and_back::<AuthorizerHead>,
    decode_and_back::<ChallengeBlob>,
    decode_and_back::<CryptoKey>,
    decode_and_back::<ExpiringCryptoKey>,
    decode_and_back::<RequestHeader>,
    decode_and_back::<ResponseHeader>,
    decode_and_back::<RotatingSecrets>,
    decode_and_back::<ServerChallenge>,
    decode_and_back::<ServiceTicket>,
    decode_and_back::<ServiceTicketInfo>,
    decode_and_back::<ServiceTicketRequest>,
    decode_and_back::<StoredAuth>,
    decode_and_back::<TicketBlob>,
    open_with_any_key,
];

/// Longest run of an exchange.
const MAX_STEPS: usize = 8;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let what = script.byte();
    let key_type = if what & 4 == 0 { KeyType::AES } else { KeyType::AES256K };
    match what % 4 {
        0 | 1 => {
            let value = usize::from(script.byte()) % VALUES.len();
            VALUES[value](&Bytes::copy_from_slice(script.rest()));
        }
        2 => server(&Cluster::new(key_type), &mut script),
        _ => client(&Cluster::new(key_type), &mut script),
    }
});

/// What comes of a key, and of what is said to be sealed with it.
fn open_with_any_key(input: &Bytes) {
    let mut script = Script::new(input);
    let usage = KeyUsage(script.byte().into());
    let kind = KeyType((script.byte() % 4).into());
    let secret = script.take(40).to_vec();
    let Ok(key) = CryptoKey::new(kind, Default::default(), secret.into()) else {
        return;
    };
    assert_eq!(key.to_base64().parse(), Ok(key.clone()));
    let text = script.rest();
    let opened = key.open(usage, text);
    let cluster = Cluster::new(KeyType::AES);
    match key.seal(usage, text, &*cluster.env) {
        Ok(sealed) => {
            let back = key.open(usage, &sealed).expect("what was sealed opens");
            assert_eq!(back.expose(), text);
        }
        Err(_) => assert!(opened.is_err(), "what cannot seal cannot open"),
    }
}

/// A payload of any bytes.
fn raw(script: &mut Script<'_>) -> Bytes {
    let len = usize::from(script.byte()) * 2;
    Bytes::copy_from_slice(script.take(len))
}

/// Changes one byte, perhaps to what it was.
fn damage(payload: &Bytes, script: &mut Script<'_>) -> Bytes {
    let (at, change) = (usize::from(script.u16()), script.byte());
    let mut payload = payload.to_vec();
    if let Some(byte) = payload.get_mut(at) {
        *byte ^= change;
    }
    payload.into()
}

/// An authorizer of somebody who has the OSDs' secret, and may say in it what he likes.
fn authorizer(cluster: &Cluster, script: &mut Script<'_>) -> Option<Bytes> {
    let (secret_id, secret) = cluster.osd_secret()?;
    let info = match script.byte() % 2 {
        0 => raw(script),
        _ => ServiceTicketInfo { session_key: cluster.key.clone(), ..Default::default() }
            .to_bytes(Features::ALL),
    };
    let blob = cluster.sealed(&secret, KeyUsage::TICKET_INFO, &damage(&info, script));
    let ticket = TicketBlob { secret_id, blob };
    let mut enc = Encoder::new(Features::ALL);
    enc.value(&AuthorizerHead { global_id: 0, service: EntityType::OSD, ticket });
    enc.value(&cluster.sealed(&cluster.key, KeyUsage::AUTHORIZE, &raw(script)));
    Some(enc.finish())
}

/// A server is spoken to. Whoever has no key is let in never.
fn server(cluster: &Cluster, script: &mut Script<'_>) {
    let flags = script.byte();
    let (to, server) = match flags % 2 {
        0 => (EntityType::MON, &cluster.mon),
        _ => (EntityType::OSD, &cluster.osd),
    };
    let mut server = server.begin(PeerContext::new(EntityType(script.byte())));
    let mut honest = cluster.client.begin(PeerContext::new(to)).expect("there are tickets");
    let (mut has_key, mut challenge) = (false, None);
    for _ in 0..MAX_STEPS {
        let step = script.byte();
        let payload = match step % 4 {
            0 => raw(script),
            1 | 2 => {
                has_key = true;
                let said = match challenge.take() {
                    None => honest.request().map(|request| request.payload),
                    Some(challenge) => honest.reply_more(&challenge),
                };
                let Ok(said) = said else {
                    return;
                };
                if step % 4 == 1 { said } else { damage(&said, script) }
            }
            _ => {
                has_key = true;
                let Some(payload) = authorizer(cluster, script) else {
                    return;
                };
                payload
            }
        };
        let answer = if step & 0x80 == 0 {
            let method = if step & 0x40 == 0 { AuthMethod::CEPHX } else { AuthMethod(1) };
            let modes = [ConnectionMode::CRC, ConnectionMode::SECURE, ConnectionMode(7)];
            let bits = script.byte();
            let wanted = modes.into_iter().filter(|mode| bits & (1 << mode.0) != 0);
            server.request(&AuthRequest { method, preferred_modes: wanted.collect(), payload })
        } else {
            server.request_more(&payload)
        };
        match answer {
            AuthServerAnswer::More(payload) => challenge = Some(payload),
            AuthServerAnswer::BadMethod(refusal) => assert!(refusal.result < 0),
            AuthServerAnswer::Done { mode, keys, identity, .. } => {
                assert!(has_key && identity.is_some(), "let in without a key");
                let secure = mode == ConnectionMode::SECURE;
                assert_eq!(keys.stream_keys().is_some(), secure);
            }
        }
        cluster.env.pass(u32::from(step & 0x20) << 8);
    }
}

/// A client is spoken to. It believes nobody without a key, and what it knew it knows then still.
fn client(cluster: &Cluster, script: &mut Script<'_>) {
    let to = [EntityType::MON, EntityType::OSD][usize::from(script.byte() % 2)];
    let mut client = cluster.client.begin(PeerContext::new(to)).expect("there are tickets");
    client.request().expect("a request");
    let (mut has_key, mut refused) = (false, false);
    for _ in 0..MAX_STEPS {
        let step = script.byte();
        let payload = match step % 4 {
            0 | 1 => raw(script),
            2 => {
                let server_challenge = script.byte().into();
                ServerChallenge { server_challenge }.to_bytes(Features::ALL)
            }
            _ => {
                has_key = true;
                monitors_reply(cluster, script)
            }
        };
        match step >> 5 {
            0 => {
                refused = true;
                let result = -i32::from(script.byte() % 100);
                let (method, allowed_modes) = (AuthMethod::CEPHX, Vec::new());
                let allowed_methods = vec![AuthMethod::CEPHX];
                let refusal = BadMethod { method, result, allowed_methods, allowed_modes };
                client.bad_method(refusal).expect_err("there is one method");
            }
            1 | 2 => drop(client.reply_more(&payload)),
            3 | 4 => drop(cluster.client.handle_reply(&payload)),
            _ => done(&mut *client, script, &payload, has_key),
        }
        let _ = (cluster.client.renewal(), cluster.client.renew_at());
        cluster.env.pass(u32::from(step & 0x10) << 12);
    }
    assert!(has_key || refused || cluster.client.global_id() == 4100);
}

fn done(client: &mut dyn ClientExchange, script: &mut Script<'_>, payload: &Bytes, has_key: bool) {
    let mode = ConnectionMode((script.byte() % 4).into());
    match client.done(script.byte().into(), mode, payload) {
        Ok(Keys::Session(_)) => assert!(has_key, "believed somebody without a key"),
        Ok(keys) => panic!("cephx without {keys:?}"),
        Err(error) => drop(error.to_string()),
    }
}

/// What a monitor may say, which knows the client's key.
fn monitors_reply(cluster: &Cluster, script: &mut Script<'_>) -> Bytes {
    let types = [GET_AUTH_SESSION_KEY, GET_PRINCIPAL_SESSION_KEY, GET_ROTATING_KEY];
    let request_type = types[usize::from(script.byte()) % types.len()];
    let mut enc = Encoder::new(Features::ALL);
    enc.value(&ResponseHeader { request_type, status: 0 });
    if request_type == GET_ROTATING_KEY {
        enc.value(&cluster.sealed(&cluster.key, KeyUsage::ROTATING_SECRET, &raw(script)));
        return enc.finish();
    }
    enc.u8(1);
    let count = script.byte() % 4;
    enc.u32(count.into());
    for _ in 0..count {
        enc.u32(1 << (script.byte() % 8));
        enc.u8(1);
        let validity = siphon_wire::types::Utime::new(u32::from(script.u16()) << 16, 0);
        let ticket = ServiceTicket { session_key: cluster.key.clone(), validity };
        let ticket = damage(&ticket.to_bytes(Features::ALL), script);
        enc.value(&cluster.sealed(&cluster.key, KeyUsage::TICKET_SESSION_KEY, &ticket));
        enc.u8(script.byte() % 2);
        match script.byte() % 2 {
            0 => enc.value(&TicketBlob::default().to_bytes(Features::ALL)),
            _ => enc.value(&raw(script)),
        }
    }
    let secret = cluster.sealed(&cluster.key, KeyUsage::CONNECTION_SECRET, &raw(script));
    enc.length_prefixed(|enc| enc.value(&secret));
    enc.value(&raw(script));
    enc.finish()
}
