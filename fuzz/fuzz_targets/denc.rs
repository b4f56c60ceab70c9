//! Values in Ceph's encoding: base types, maps, and messages of any version.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use siphon_fuzz::{Script, decode_and_back};
use siphon_messages::mon::{MonInfo, MonMap};
use siphon_messages::{
    MMonGetMap, MMonMap, MMonSubscribe, MMonSubscribeAck, MOSDOp, MOSDOpReply, MPing, TypedMessage,
    describe,
};
use siphon_proto::{Message, MessageHeader, Payload};
use siphon_wire::types::{
    AuthName, EntityAddr, EntityAddrVec, EntityName, Features, HObject, ObjectLocator, ReqId,
    RequestRedirect, SpgId,
};

/// Values that stand alone.
const VALUES: [fn(&Bytes); 11] = [
    decode_and_back::<EntityAddr>,
    decode_and_back::<EntityAddrVec>,
    decode_and_back::<EntityName>,
    decode_and_back::<AuthName>,
    decode_and_back::<HObject>,
    decode_and_back::<ObjectLocator>,
    decode_and_back::<ReqId>,
    decode_and_back::<RequestRedirect>,
    decode_and_back::<SpgId>,
    decode_and_back::<MonInfo>,
    decode_and_back::<MonMap>,
];

/// Messages, whose header says of which version they are.
const MESSAGES: [fn(MessageHeader, Payload); 7] = [
    message::<MPing>,
    message::<MMonGetMap>,
    message::<MMonMap>,
    message::<MMonSubscribe>,
    message::<MMonSubscribeAck>,
    message::<MOSDOp>,
    message::<MOSDOpReply>,
];

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let which = usize::from(script.byte()) % (VALUES.len() + MESSAGES.len());
    match which.checked_sub(VALUES.len()) {
        None => VALUES[which](&Bytes::copy_from_slice(script.rest())),
        Some(which) => {
            let header = MessageHeader { version: script.byte().into(), ..Default::default() };
            let length = script.u16().into();
            let front = Bytes::copy_from_slice(script.take(length));
            let data = Bytes::copy_from_slice(script.rest()).into();
            MESSAGES[which](header, Payload { front: front.into(), data, ..Payload::default() });
        }
    }
});

/// What decodes must encode for any peer, and come back from what a new one gets.
fn message<M: TypedMessage + PartialEq>(header: MessageHeader, payload: Payload) {
    let header = MessageHeader { version: header.version, compat_version: 1, ..M::header() };
    let message = Message::new(header, payload);
    let read = M::from_message(&message);
    assert!(describe(&message).contains(M::NAME));
    if let Ok(typed) = read {
        typed.to_message(Features::NONE);
        let sent = typed.to_message(Features::ALL);
        match M::from_message(&sent) {
            Ok(again) => assert_eq!(again, typed),
            Err(error) => panic!("{typed:?} does not come back: {error}"),
        }
    }
}
