//! Keyrings: what is read is written and read again, and nothing in one becomes what it was not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siphon_auth::{CryptoKey, EntityAuth, KeyType, Keyring};
use siphon_fuzz::Script;
use siphon_wire::types::{AuthName, EntityType, Utime};

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    match script.byte() % 2 {
        0 => read(&String::from_utf8_lossy(script.rest())),
        _ => write(&mut script),
    }
});

fn read(text: &str) {
    let keyring: Keyring = match text.parse() {
        Ok(keyring) => keyring,
        Err(error) => return assert!((1..=text.lines().count()).contains(&error.line), "{error}"),
    };
    assert!(comes_back(&keyring) == keyring, "{text:?} became {:?}", *keyring.to_text());
}

/// A keyring that somebody put together, who may choose names and capabilities.
fn write(script: &mut Script<'_>) {
    let mut keyring = Keyring::default();
    while !script.is_empty() {
        let mut text = || {
            let len = usize::from(script.byte() % 64);
            String::from_utf8_lossy(script.take(len)).into_owned()
        };
        let (id, caps) = (text(), [(text(), text())]);
        let kind = [EntityType::CLIENT, EntityType::OSD, EntityType(0), EntityType(200)]
            [usize::from(script.byte() % 4)];
        let secret = vec![script.byte(); 16];
        let key = CryptoKey::new(KeyType::AES, Utime::default(), secret.into());
        let key = key.expect("16 bytes are a key");
        keyring.insert(AuthName::new(kind, id), EntityAuth { key, caps: caps.into() });
    }
    let read = comes_back(&keyring);
    for (name, auth) in read.iter() {
        let of = keyring.get(name).unwrap_or_else(|| panic!("{name} came from nowhere"));
        assert!(auth.key == of.key, "the key of {name}");
        for (service, caps) in &auth.caps {
            let of = of.caps.get(service).map(|caps| caps.replace(['\n', '\r'], " "));
            assert_eq!(of.as_ref(), Some(caps), "{name}, {service}");
        }
    }
    assert!(comes_back(&read) == read);
}

fn comes_back(keyring: &Keyring) -> Keyring {
    let text = keyring.to_text();
    text.parse().unwrap_or_else(|error| panic!("{:?} is no keyring: {error}", *text))
}
