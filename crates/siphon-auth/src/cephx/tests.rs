//! Both sides of cephx against each other, and against those who have no part in it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use siphon_wire::types::{AuthName, EntityType, Features};
use siphon_wire::{Decode as _, Decoder, Encode as _, Encoder};

use super::{envelope, wire};
use crate::env::tests::TestEnv;
use crate::*;

const CLIENT: PeerContext = PeerContext::new(EntityType::CLIENT);
const MON: PeerContext = PeerContext::new(EntityType::MON);
const OSD: PeerContext = PeerContext::new(EntityType::OSD);

struct World {
    env: Arc<TestEnv>,
    keys: Arc<KeyServer>,
    mon: CephxServer,
    osd: CephxServer,
    key: CryptoKey,
}

impl World {
    fn new(key_type: KeyType) -> Self {
        let env = Arc::new(TestEnv::new(1));
        let key = CryptoKey::generate(key_type, &*env).unwrap();
        let mut keyring = Keyring::default();
        let caps = [("mon", "allow r"), ("osd", "allow rw pool=data")];
        let caps = caps.map(|(service, caps)| (service.to_owned(), caps.to_owned())).into();
        keyring.insert(name("client.bob"), EntityAuth { key: key.clone(), caps });
        let options = KeyServerOptions {
            service_ticket_ttl: Duration::from_secs(100),
            service_key_type: key_type,
            ..KeyServerOptions::default()
        };
        let keys = Arc::new(KeyServer::new(keyring, options, env.clone()));
        let mon = CephxServer::for_monitor(keys.clone(), Modes::default());
        let modes = Modes::all(&ModeList::secure_first());
        let osd = CephxServer::for_service(EntityType::OSD, keys.clone(), modes, env.clone());
        Self { env, keys, mon, osd, key }
    }

    fn client(&self) -> CephxClient {
        self.client_with(self.key.clone())
    }

    fn client_with(&self, key: CryptoKey) -> CephxClient {
        let modes = Modes::all(&ModeList::secure_first());
        CephxClient::new(name("client.bob"), key, modes, self.env.clone())
    }

    /// A client that has been with the monitor.
    fn client_with_tickets(&self) -> CephxClient {
        let client = self.client();
        converse(&client, MON, &self.mon).unwrap();
        client
    }
}

fn name(text: &str) -> AuthName {
    text.parse().unwrap()
}

/// What both sides come to believe: the client's keys, and the server's with whom it sees.
type Agreed = (Keys, Keys, Identity);

fn converse(client: &CephxClient, peer: PeerContext, server: &CephxServer) -> Result<Agreed, i32> {
    converse_with(client, peer, server, |_, payload| payload)
}

/// Has both talk; `meddle` may change the n-th payload of either.
fn converse_with(
    client: &CephxClient,
    peer: PeerContext,
    server: &CephxServer,
    meddle: impl Fn(usize, Bytes) -> Bytes,
) -> Result<Agreed, i32> {
    const DISBELIEF: i32 = 0;
    let mut ours = client.begin(peer).map_err(|_| DISBELIEF)?;
    let mut theirs = server.begin(CLIENT);
    let mut request = ours.request().unwrap();
    request.payload = meddle(0, request.payload);
    let mut answer = theirs.request(&request);
    for step in (1..).step_by(2) {
        match answer {
            AuthServerAnswer::More(payload) => {
                let more = ours.reply_more(&meddle(step, payload)).map_err(|_| DISBELIEF)?;
                answer = theirs.request_more(&meddle(step + 1, more));
            }
            AuthServerAnswer::BadMethod(refusal) => {
                let result = refusal.result;
                ours.bad_method(refusal).unwrap_err();
                return Err(result);
            }
            AuthServerAnswer::Done { global_id, mode, payload, keys, identity } => {
                let done = ours.done(global_id, mode, &meddle(step, payload));
                return Ok((done.map_err(|_| DISBELIEF)?, keys, identity.unwrap()));
            }
        }
    }
    unreachable!()
}

#[test]
fn a_key_opens_a_session_and_its_tickets_open_others() {
    for key_type in [KeyType::AES, KeyType::AES256K] {
        let world = World::new(key_type);
        let client = world.client();
        assert_eq!(converse(&client, OSD, &world.osd).unwrap_err(), 0, "no ticket yet");
        let (ours, theirs, identity) = converse(&client, MON, &world.mon).unwrap();
        assert_eq!(ours, theirs);
        assert!(ours.stream_keys().is_some(), "secure mode has something to seal with");
        assert_eq!((identity.name, &*identity.caps), (name("client.bob"), "allow r"));
        assert_eq!(client.global_id(), 4100);

        let (ours, theirs, identity) = converse(&client, OSD, &world.osd).unwrap();
        assert_eq!(ours, theirs);
        assert_eq!(&*identity.caps, "allow rw pool=data");
    }
}

#[test]
fn a_wrong_key_and_an_unknown_name_are_refused_alike() {
    let world = World::new(KeyType::AES);
    let wrong = CryptoKey::generate(KeyType::AES, &*world.env).unwrap();
    assert_eq!(converse(&world.client_with(wrong), MON, &world.mon).unwrap_err(), -13);
    let modes = Modes::default();
    let stranger =
        CephxClient::new(name("client.eve"), world.key.clone(), modes, world.env.clone());
    assert_eq!(converse(&stranger, MON, &world.mon).unwrap_err(), -13);
}

#[test]
fn a_monitor_without_the_key_is_not_believed() {
    for key_type in [KeyType::AES, KeyType::AES256K] {
        let world = World::new(key_type);
        // It has another key for that name, and somebody who gives the right answers with it.
        let other = CryptoKey::generate(key_type, &*world.env).unwrap();
        let caps = [("mon".to_owned(), "allow *".to_owned())].into();
        world.keys.insert(name("client.bob"), EntityAuth { key: other.clone(), caps });
        let accomplice = world.client_with(other);
        let mut other = accomplice.begin(MON).unwrap();
        other.request().unwrap();
        let other = std::cell::RefCell::new(other);
        let answer = std::cell::RefCell::new(None);
        let client = world.client();
        let outcome = converse_with(&client, MON, &world.mon, |step, payload| match step {
            1 => {
                *answer.borrow_mut() = Some(other.borrow_mut().reply_more(&payload).unwrap());
                payload
            }
            2 => answer.borrow_mut().take().unwrap(),
            _ => payload,
        });
        assert_eq!(outcome.unwrap_err(), 0, "the client does not believe it");
        assert!(!client.has_ticket(EntityType::AUTH));
        assert_eq!(client.global_id(), 0);
    }
}

#[test]
fn a_service_that_cannot_read_the_ticket_is_not_believed() {
    for key_type in [KeyType::AES, KeyType::AES256K] {
        let world = World::new(key_type);
        let client = world.client_with_tickets();
        let impostor = Err(AuthError::Cephx(CephxError::ImpostorService));
        // What the service said to another nonce, under the same session key.
        let recorded = std::cell::RefCell::new(Vec::new());
        converse_with(&client, OSD, &world.osd, |_, payload| {
            recorded.borrow_mut().push(payload.clone());
            payload
        })
        .unwrap();
        let recorded = recorded.into_inner();
        let mut ours = client.begin(OSD).unwrap();
        ours.request().unwrap();
        ours.reply_more(&recorded[1]).unwrap();
        assert_eq!(ours.done(4100, ConnectionMode::SECURE, &recorded[3]), impostor);
        // What somebody sealed who has another key.
        let other = CryptoKey::generate(key_type, &*world.env).unwrap();
        let reply = wire::AuthorizeReply::default();
        let sealed =
            envelope::seal(&other, KeyUsage::AUTHORIZE_REPLY, &reply, &*world.env).unwrap();
        let mut ours = client.begin(OSD).unwrap();
        ours.request().unwrap();
        let sealed = sealed.to_bytes(Features::ALL);
        assert_eq!(ours.done(4100, ConnectionMode::SECURE, &sealed), impostor);
    }
}

#[test]
fn every_changed_byte_is_noticed_with_aes256k() {
    let world = World::new(KeyType::AES256K);
    let honest = converse(&world.client_with_tickets(), OSD, &world.osd).unwrap();
    for step in 0..4 {
        for at in 0..400 {
            let client = world.client_with_tickets();
            let changed = std::cell::Cell::new(false);
            let outcome = converse_with(&client, OSD, &world.osd, |n, payload| {
                let mut bytes = payload.to_vec();
                if n == step && at < bytes.len() {
                    bytes[at] ^= 4;
                    changed.set(true);
                }
                bytes.into()
            });
            // Only versions and what the client says of itself may differ; keys never do.
            if changed.get()
                && let Ok((ours, theirs, identity)) = outcome
            {
                assert_eq!(ours, theirs, "step {step}, byte {at}");
                assert_eq!(identity, honest.2);
            }
        }
    }
}

#[test]
fn a_recorded_authorizer_opens_nothing() {
    let world = World::new(KeyType::AES);
    let client = world.client_with_tickets();
    let mut recorded = Vec::new();
    let tape = std::cell::RefCell::new(&mut recorded);
    converse_with(&client, OSD, &world.osd, |step, payload| {
        if step % 2 == 0 {
            tape.borrow_mut().push(payload.clone());
        }
        payload
    })
    .unwrap();
    let mut replay = world.osd.begin(CLIENT);
    let request = AuthRequest {
        method: AuthMethod::CEPHX,
        preferred_modes: vec![ConnectionMode::CRC],
        payload: recorded[0].clone(),
    };
    assert!(matches!(replay.request(&request), AuthServerAnswer::More(_)), "challenged");
    let AuthServerAnswer::BadMethod(refusal) = replay.request_more(&recorded[1]) else {
        panic!("a replay was accepted");
    };
    assert_eq!(refusal.result, -13);
    // Nor does the second step open anything at first.
    let second = AuthRequest { payload: recorded[1].clone(), ..request };
    let answer = world.osd.begin(CLIENT).request(&second);
    assert!(matches!(answer, AuthServerAnswer::More(_)), "challenged as any other");
}

#[test]
fn a_reflected_authorizer_is_no_proof() {
    for key_type in [KeyType::AES, KeyType::AES256K] {
        let world = World::new(key_type);
        let client = world.client_with_tickets();
        // An authorizer ends with its sealed proof, behind the length of that: 27 bytes, padded or
        // with what proves their integrity.
        let sealed = if key_type == KeyType::AES { 32 } else { 16 + 27 + 24 };
        // What we sent comes back as the proof, and as the challenge.
        let mut ours = client.begin(OSD).unwrap();
        let request = ours.request().unwrap().payload;
        let reflected = request.slice(request.len() - sealed - 4..);
        assert_eq!(reflected[..4], (sealed as u32).to_le_bytes());
        let impostor = CephxError::ImpostorService;
        assert_eq!(ours.done(0, ConnectionMode::SECURE, &reflected), Err(impostor.clone().into()));
        let mut ours = client.begin(OSD).unwrap();
        let request = ours.request().unwrap().payload;
        let reflected = request.slice(request.len() - sealed..);
        assert_eq!(ours.reply_more(&reflected), Err(impostor.into()));
    }
}

/// A padding oracle: behind a ticket that opens, somebody who has no key appends a block of his own
/// and one that he wants to read. Whether the whole opens tells him the last byte of that, and byte
/// for byte the session key of the one whose ticket he recorded.
#[test]
fn what_stands_behind_a_recorded_ticket_tells_nothing() {
    let world = World::new(KeyType::AES);
    let client = world.client_with_tickets();
    let payload = client.begin(OSD).unwrap().request().unwrap().payload;
    let mut dec = Decoder::new(&payload);
    let head: wire::AuthorizerHead = dec.value().unwrap();
    let proof = payload.slice(dec.offset()..);
    for last in 0..=255 {
        let mut blob = head.ticket.blob.to_vec();
        let target = blob[16..32].to_vec();
        blob.extend_from_slice(&[last; 16]);
        blob.extend_from_slice(&target);
        let mut asked = head.clone();
        asked.ticket.blob = blob.into();
        let mut enc = Encoder::new(Features::ALL);
        enc.value(&asked);
        enc.raw(&proof);
        let payload = enc.finish();
        let preferred_modes = vec![ConnectionMode::CRC, ConnectionMode::SECURE];
        let request = AuthRequest { method: AuthMethod::CEPHX, preferred_modes, payload };
        let answer = world.osd.begin(CLIENT).request(&request);
        assert!(matches!(answer, AuthServerAnswer::BadMethod(it) if it.result == -13), "{last}");
    }
}

/// A monitor said EPERM to who showed a ticket that opens and no proof, and EACCES to who showed
/// one that does not: an oracle for anybody, before any key was asked for.
#[test]
fn a_ticket_without_a_proof_is_refused_as_one_that_does_not_open() {
    let world = World::new(KeyType::AES);
    let client = world.client_with_tickets();
    world.env.pass(80);
    let asked = client.renewal().unwrap().expect("tickets are due");
    let mut dec = Decoder::new(&asked);
    dec.u16().unwrap();
    let _: wire::AuthorizerHead = dec.value().unwrap();
    let without_proof = asked.slice(..dec.offset());
    let mut changed = without_proof.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    for payload in [without_proof, changed.into()] {
        let stranger = world.client();
        let mut hello = world.mon.begin(CLIENT);
        hello.request(&stranger.begin(MON).unwrap().request().unwrap());
        let answer = hello.request_more(&payload);
        assert!(matches!(answer, AuthServerAnswer::BadMethod(it) if it.result == -13));
    }
}

#[test]
fn an_entity_without_a_key_lets_nobody_in() {
    let world = World::new(KeyType::AES);
    let caps = [("mon".to_owned(), "allow *".to_owned())].into();
    let auth = EntityAuth { caps, ..EntityAuth::default() };
    world.keys.insert(name("client.bob"), auth);
    let mut server = world.mon.begin(CLIENT);
    let request = world.client().begin(MON).unwrap().request().unwrap();
    let AuthServerAnswer::More(challenge) = server.request(&request) else {
        panic!("no challenge");
    };
    let challenge = wire::ServerChallenge::from_bytes(&challenge).unwrap();
    let blob =
        wire::ChallengeBlob { server_challenge: challenge.server_challenge, client_challenge: 7 };
    let digest = CryptoKey::default().hmac_sha256(&[&blob.to_bytes(Features::ALL)]);
    assert_eq!(
        envelope::answer(&CryptoKey::default(), &blob, &*world.env),
        Err(KeyError::Unusable(KeyType::NONE))
    );
    let mut enc = Encoder::new(Features::ALL);
    enc.value(&wire::RequestHeader { request_type: wire::GET_AUTH_SESSION_KEY });
    enc.value(&wire::Authenticate {
        client_challenge: 7,
        key: envelope::fold(&digest),
        ..Default::default()
    });
    let answer = server.request_more(&enc.finish());
    assert!(matches!(answer, AuthServerAnswer::BadMethod(it) if it.result == -13));
}

#[test]
fn tickets_end_and_are_renewed_before_they_do() {
    let world = World::new(KeyType::AES);
    let client = world.client();
    let mut session = opened_session(&world, &client);
    assert_eq!(client.renewal().unwrap(), None);
    world.env.pass(76); // three quarters of 100 s, and one
    let payload = client.renewal().unwrap().expect("tickets are due");
    let AuthServerAnswer::More(reply) = session.request_more(&payload) else {
        panic!("no tickets");
    };
    assert!(client.handle_reply(&reply).unwrap().is_none());
    assert_eq!(client.renewal().unwrap(), None);
    world.env.pass(76);
    converse(&client, OSD, &world.osd).expect("the new ticket is good for longer");
    world.env.pass(100);
    assert!(!client.has_ticket(EntityType::OSD));
    assert_eq!(converse(&client, OSD, &world.osd).unwrap_err(), 0, "we do not offer what ended");
}

/// A session with the monitor that is open already.
fn opened_session(world: &World, client: &CephxClient) -> Box<dyn ServerExchange> {
    let mut ours = client.begin(MON).unwrap();
    let mut session = world.mon.begin(CLIENT);
    let AuthServerAnswer::More(challenge) = session.request(&ours.request().unwrap()) else {
        panic!("no challenge");
    };
    let proof = ours.reply_more(&challenge).unwrap();
    let answer = session.request_more(&proof);
    let AuthServerAnswer::Done { global_id, mode, payload, .. } = answer else {
        panic!("not let in: {answer:?}");
    };
    ours.done(global_id, mode, &payload).unwrap();
    session
}

#[test]
fn an_ended_ticket_is_refused_by_the_service() {
    let world = World::new(KeyType::AES);
    let client = world.client_with_tickets();
    let mut ours = client.begin(OSD).unwrap();
    let request = ours.request().unwrap();
    world.env.pass(101);
    let AuthServerAnswer::BadMethod(refusal) = world.osd.begin(CLIENT).request(&request) else {
        panic!("an ended ticket was accepted");
    };
    assert_eq!(refusal.result, -13);
}

#[test]
fn a_global_id_comes_back_to_whoever_shows_its_ticket_only() {
    let world = World::new(KeyType::AES256K);
    let client = world.client_with_tickets();
    converse(&client, MON, &world.mon).unwrap();
    assert_eq!(client.global_id(), 4100, "the same as before");
    // Another with the same key claims it without the ticket.
    let thief = world.client();
    let outcome = converse_with(&thief, MON, &world.mon, |step, payload| {
        if step != 0 {
            return payload;
        }
        let mut hello = payload.to_vec();
        let at = hello.len() - 8;
        hello[at..].copy_from_slice(&4100u64.to_le_bytes());
        hello.into()
    });
    assert_eq!(outcome.unwrap_err(), -13);
}

#[test]
fn modes_are_agreed_or_refused_and_never_lowered() {
    let world = World::new(KeyType::AES);
    let secure = Modes::all(&ModeList::only(ConnectionMode::SECURE));
    let crc = Modes::all(&ModeList::only(ConnectionMode::CRC));
    let mon = CephxServer::for_monitor(world.keys.clone(), crc);
    let (bob, key) = (name("client.bob"), world.key.clone());
    let client = CephxClient::new(bob, key, secure, world.env.clone());
    assert_eq!(converse(&client, MON, &mon).unwrap_err(), -95);
    // A server that chooses what was not offered is not believed.
    let mut ours = client.begin(MON).unwrap();
    let mut theirs = world.mon.begin(CLIENT);
    let AuthServerAnswer::More(challenge) = theirs.request(&ours.request().unwrap()) else {
        panic!("no challenge");
    };
    let AuthServerAnswer::Done { global_id, payload, .. } =
        theirs.request_more(&ours.reply_more(&challenge).unwrap())
    else {
        panic!("not let in");
    };
    assert_eq!(
        ours.done(global_id, ConnectionMode::CRC, &payload),
        Err(AuthError::ModeNotOffered { mode: ConnectionMode::CRC })
    );
}

fn refusal(answer: AuthServerAnswer) -> i32 {
    match answer {
        AuthServerAnswer::BadMethod(refusal) => refusal.result,
        other => panic!("not refused: {other:?}"),
    }
}

/// Tickets are seen by others on their way. Who had one's ticket and a key of his own was given
/// one's global id, and tickets for services in it.
#[test]
fn anothers_ticket_does_not_bring_his_global_id() {
    let world = World::new(KeyType::AES256K);
    let bob = world.client_with_tickets();
    let renewal = {
        world.env.pass(80 * 3600);
        bob.renewal().unwrap().expect("all have ended")
    };
    let mut dec = Decoder::new(&renewal);
    dec.u16().unwrap();
    let seen: wire::Authenticate = dec.value().unwrap();

    let key = CryptoKey::generate(KeyType::AES256K, &*world.env).unwrap();
    let caps = [("mon".to_owned(), "allow r".to_owned())].into();
    world.keys.insert(name("client.eve"), EntityAuth { key: key.clone(), caps });
    let eve = CephxClient::new(name("client.eve"), key, Modes::default(), world.env.clone());
    for (claimed, ticket) in [(bob.global_id(), true), (bob.global_id(), false), (0, true)] {
        let outcome = converse_with(&eve, MON, &world.mon, |step, payload| match step {
            0 => {
                let at = payload.len() - 8;
                [&payload[..at], &claimed.to_le_bytes()].concat().into()
            }
            2 if ticket => {
                let mut dec = Decoder::new(&payload);
                dec.u16().unwrap();
                let mut asked: wire::Authenticate = dec.value().unwrap();
                asked.old_ticket = seen.old_ticket.clone();
                let mut enc = Encoder::new(Features::ALL);
                enc.value(&wire::RequestHeader { request_type: wire::GET_AUTH_SESSION_KEY });
                enc.value(&asked);
                enc.finish()
            }
            _ => payload,
        });
        let expected = if claimed == 0 { -22 } else { -13 };
        assert_eq!(outcome.unwrap_err(), expected, "{claimed}, {ticket}");
    }
}

#[test]
fn who_was_removed_gets_nothing_more() {
    let world = World::new(KeyType::AES);
    let client = world.client();
    let mut session = opened_session(&world, &client);
    world.env.pass(80);
    let renewal = client.renewal().unwrap().expect("tickets are due");
    assert!(world.keys.remove(&name("client.bob")).is_some());
    assert_eq!(refusal(session.request_more(&renewal)), -13);
    assert_eq!(converse(&client, MON, &world.mon).unwrap_err(), -13);
    // Nor does a ticket for monitors open what only the key opens.
    let mut by_ticket = client.begin_by_ticket(MON).unwrap();
    let answer = world.mon.begin(CLIENT).request(&by_ticket.request().unwrap());
    assert_eq!(refusal(answer), -13);
}

#[test]
fn a_service_that_we_do_not_know_keeps_nobody_out() {
    let world = World::new(KeyType::AES);
    let outcome = converse_with(&world.client(), MON, &world.mon, |step, payload| match step {
        2 => {
            let mut dec = Decoder::new(&payload);
            dec.u16().unwrap();
            let mut asked: wire::Authenticate = dec.value().unwrap();
            asked.other_keys = u32::MAX;
            let mut enc = Encoder::new(Features::ALL);
            enc.value(&wire::RequestHeader { request_type: wire::GET_AUTH_SESSION_KEY });
            enc.value(&asked);
            enc.finish()
        }
        _ => payload,
    });
    assert!(outcome.is_ok());
}

#[test]
fn a_client_gets_no_secrets_of_services() {
    let world = World::new(KeyType::AES);
    let client = world.client();
    let mut session = opened_session(&world, &client);
    let asked = client.ask_for_rotating_secrets();
    assert_eq!(refusal(session.request_more(&asked)), -13);
}

#[test]
fn secrets_change_however_short_their_time_and_however_long_nobody_asked() {
    let env = Arc::new(TestEnv::new(1));
    let options =
        KeyServerOptions { service_ticket_ttl: Duration::from_millis(1), ..Default::default() };
    let keys = KeyServer::new(Keyring::default(), options, env.clone());
    for sec in [0, 1, 1_000_000, u32::MAX - 2_000_000] {
        env.pass(sec);
        let found = keys.rotating_secrets(EntityType::OSD).unwrap();
        assert_eq!(found.secrets.len(), 3, "after {sec} s");
    }
}

#[test]
fn a_secret_that_was_replaced_opens_nothing() {
    let world = World::new(KeyType::AES);
    let client = world.client_with_tickets();
    let mut ours = client.begin(OSD).unwrap();
    let request = ours.request().unwrap();
    let oldest =
        *world.keys.rotating_secrets(EntityType::OSD).unwrap().secrets.keys().next().unwrap();
    let known = || cephx::ServiceSecrets::secret(&*world.keys, EntityType::OSD, oldest);
    assert!(known().is_some());
    world.env.pass(400);
    assert!(known().is_none(), "though nobody asked for a ticket since");
    assert_eq!(refusal(world.osd.begin(CLIENT).request(&request)), -13);
}

/// Who looks for a monitor asks several. The second to be challenged was answered with the ticket
/// that the first had brought meanwhile, though it had claimed no global id: EINVAL; and the
/// challenge of a monitor that never let us in was kept for renewals at the one that did.
#[test]
fn several_monitors_are_asked_at_once() {
    let world = World::new(KeyType::AES);
    let client = world.client();
    let challenged = || {
        let (mut ours, mut theirs) = (client.begin(MON).unwrap(), world.mon.begin(CLIENT));
        let AuthServerAnswer::More(challenge) = theirs.request(&ours.request().unwrap()) else {
            panic!("no challenge");
        };
        (ours, theirs, challenge)
    };
    let finish = |(mut ours, mut theirs, challenge): (
        Box<dyn ClientExchange>,
        Box<dyn ServerExchange>,
        Bytes,
    )| {
        let answer = theirs.request_more(&ours.reply_more(&challenge).unwrap());
        let AuthServerAnswer::Done { global_id, mode, payload, .. } = answer else {
            panic!("not let in: {answer:?}");
        };
        ours.done(global_id, mode, &payload).unwrap();
        theirs
    };
    let (first, second) = (challenged(), challenged());
    finish(first);
    let mut session = finish(second);
    assert_eq!(client.global_id(), 4101, "the last that let us in");
    // Both claim the same id now; each new ticket is under the session key of the one shown.
    let (first, second) = (challenged(), challenged());
    finish(first);
    finish(second);
    let (mut third, _, challenge) = challenged();
    third.reply_more(&challenge).unwrap();
    drop(third);
    world.env.pass(60 * 3600);
    let renewal = client.renewal().unwrap().expect("all are due");
    assert_eq!(refusal(session.request_more(&renewal)), -13, "a challenge of another session");
    let mut session = opened_session(&world, &client);
    let (mut other, _, challenge) = challenged();
    other.reply_more(&challenge).unwrap();
    world.env.pass(60 * 3600);
    let renewal = client.renewal().unwrap().expect("all are due");
    let AuthServerAnswer::Done { payload, .. } = session.request_more(&renewal) else {
        panic!("the challenge of the session's own monitor was not kept");
    };
    client.handle_reply(&payload).unwrap();
    assert_eq!(client.renewal().unwrap(), None);
}

/// A reply that breaks off left the ticket in place and no global id, and every further attempt
/// was refused for showing a ticket that was not asked for.
#[test]
fn half_a_reply_counts_for_nothing() {
    for key_type in [KeyType::AES, KeyType::AES256K] {
        let world = World::new(key_type);
        let client = world.client();
        let whole = std::cell::Cell::new(0);
        converse_with(&world.client(), MON, &world.mon, |step, payload| {
            whole.set(if step == 3 { payload.len() } else { whole.get() });
            payload
        })
        .unwrap();
        for cut in (1..whole.get()).step_by(7) {
            let outcome = converse_with(&client, MON, &world.mon, |step, payload| match step {
                3 => payload.slice(..payload.len() - cut),
                _ => payload,
            });
            assert_eq!(outcome.unwrap_err(), 0, "{cut} bytes less");
            assert!(!client.has_ticket(EntityType::AUTH) && client.global_id() == 0);
        }
        converse(&client, MON, &world.mon).unwrap();
    }
}

#[test]
fn a_reply_without_a_ticket_opens_no_session() {
    let world = World::new(KeyType::AES);
    let client = world.client_with_tickets();
    let outcome = converse_with(&client, MON, &world.mon, |step, payload| match step {
        3 => [&payload[..6], &[1, 0, 0, 0, 0]].concat().into(),
        _ => payload,
    });
    assert_eq!(outcome.unwrap_err(), 0, "the session key of before proves nothing");
}

/// A client whose ticket had ended for the monitors, after a long sleep, was refused for ever.
#[test]
fn who_is_refused_its_global_id_asks_for_another() {
    let world = World::new(KeyType::AES);
    let client = world.client_with_tickets();
    assert_eq!(client.global_id(), 4100);
    world.env.pass(1000 * 3600);
    assert_eq!(converse(&client, MON, &world.mon).unwrap_err(), -13);
    converse(&client, MON, &world.mon).unwrap();
    assert!(client.global_id() > 4100);
    converse(&client, OSD, &world.osd).expect("with tickets of the new id");
}

#[test]
fn a_refusal_leaves_the_tickets_for_services() {
    let world = World::new(KeyType::AES);
    let client = world.client_with_tickets();
    let mut ours = client.begin(MON).unwrap();
    ours.request().unwrap();
    let (method, result) = (AuthMethod::CEPHX, -13);
    let (allowed_methods, allowed_modes) = (vec![method], vec![ConnectionMode::SECURE]);
    ours.bad_method(BadMethod { method, result, allowed_methods, allowed_modes }).unwrap_err();
    converse(&client, OSD, &world.osd).unwrap();
}

/// Over msgr v1 a peer that is told to try again is challenged again, by a server that has
/// forgotten the first time.
#[test]
fn a_service_may_challenge_again_but_not_for_ever() {
    let world = World::new(KeyType::AES);
    let client = world.client_with_tickets();
    let mut ours = client.begin(OSD).unwrap();
    let mut request = ours.request().unwrap();
    for _ in 0..16 {
        let mut theirs = world.osd.begin(CLIENT);
        let AuthServerAnswer::More(challenge) = theirs.request(&request) else {
            panic!("no challenge");
        };
        request.payload = ours.reply_more(&challenge).unwrap();
        let answer = theirs.request_more(&request.payload);
        assert!(matches!(answer, AuthServerAnswer::Done { .. }));
    }
    let AuthServerAnswer::More(challenge) = world.osd.begin(CLIENT).request(&request) else {
        panic!("no challenge");
    };
    assert_eq!(
        ours.reply_more(&challenge),
        Err(AuthError::UnexpectedStep { method: AuthMethod::CEPHX })
    );
}

#[test]
fn of_several_monitors_only_the_session_that_is_taken_counts() {
    let world = World::new(KeyType::AES);
    let client = world.client();
    let (first, second) = (client.fork(), client.fork());
    let mut session = opened_session(&world, &first);
    drop(opened_session(&world, &second));
    assert_eq!([client.global_id(), first.global_id(), second.global_id()], [0, 4100, 4101]);
    client.adopt(&first);
    assert_eq!(client.global_id(), 4100);
    converse(&client, OSD, &world.osd).unwrap();
    // The renewal goes on with the challenge of that session.
    world.env.pass(54 * 3600 + 1); // three quarters of 72 hours, and a second
    let renewal = client.renewal().unwrap().unwrap();
    let payload = match session.request_more(&renewal) {
        AuthServerAnswer::Done { payload, .. } | AuthServerAnswer::More(payload) => payload,
        refused => panic!("not renewed: {refused:?}"),
    };
    client.handle_reply(&payload).unwrap();
    assert_eq!(client.renewal().unwrap(), None);
}
