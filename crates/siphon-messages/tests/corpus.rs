//! Our messages, and what they carry, against the encodings of Ceph's own daemons.

#[path = "../../siphon-wire/tests/corpus_walk/mod.rs"]
mod corpus_walk;

use std::marker::PhantomData;

use corpus_walk::{Exact, check, row};
use siphon_messages::cls::lock::{
    AssertOp, BreakOp, GetInfoOp, ListLocksReply, LockInfo, LockOp, LockerId, LockerInfo, UnlockOp,
};
use siphon_messages::mon::{
    MgrMap, MonFeatures, MonInfo, MonMap, ObjectStatCollection, ObjectStatSum, PoolStat,
    StoreStatfs,
};
use siphon_messages::osd::{
    CloneInfo, ObjListSnapResponse, ObjListWatchResponse, PgNlsResponse, WatchItem,
};
use siphon_messages::{
    MAuth, MAuthReply, MCommand, MMonCommand, MMonCommandAck, MMonGetVersion, MMonGetVersionReply,
    MMonMap, MMonSubscribe, MOSDMap, MOSDOp, MOSDOpReply, MPing, MPoolOp, MPoolOpReply,
    MWatchNotify, MessageError, TypedMessage, msg_type,
};
use siphon_proto::{Message, MessageHeader, MessageParts, Payload, Priority};
use siphon_wire::types::{EntityName, Features};
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

/// For types that none of the corpus' releases encodes as we do.
const DECODED_ONLY: Exact = Exact::Since(u32::MAX, 0);

#[test]
fn monmaps_are_as_ceph_encodes_them() {
    check(&[
        row::<MonMap>("MonMap", Exact::Since(16, 0)),
        row::<MonInfo>("mon_info_t", Exact::Since(16, 0)),
        row::<MonFeatures>("mon_feature_t", Exact::Always),
    ]);
}

#[test]
fn maps_of_managers_and_statistics_are_as_ceph_encodes_them() {
    check(&[
        // What modules there are is passed over.
        row::<MgrMap>("MgrMap", DECODED_ONLY),
        row::<PoolStat>("pool_stat_t", Exact::Since(15, 0)),
        row::<ObjectStatCollection>("object_stat_collection_t", Exact::Since(15, 0)),
        row::<ObjectStatSum>("object_stat_sum_t", Exact::Since(15, 0)),
        row::<StoreStatfs>("store_statfs_t", Exact::Always),
    ]);
}

#[test]
fn messages_are_as_ceph_encodes_them() {
    check(&[
        row::<Dump<MPing>>("MPing", Exact::Always),
        row::<Dump<MOSDOp>>("MOSDOp", Exact::Always),
        row::<Dump<MWatchNotify>>("MWatchNotify", Exact::Always),
        row::<Dump<MAuth>>("MAuth", Exact::Always),
        row::<Dump<MAuthReply>>("MAuthReply", Exact::Always),
        row::<Dump<MCommand>>("MCommand", Exact::Always),
        row::<Dump<MMonCommand>>("MMonCommand", Exact::Always),
        row::<Dump<MMonCommandAck>>("MMonCommandAck", Exact::Always),
        row::<Dump<MMonGetVersion>>("MMonGetVersion", Exact::Always),
        row::<Dump<MMonGetVersionReply>>("MMonGetVersionReply", Exact::Always),
        row::<Dump<MPoolOpReply>>("MPoolOpReply", Exact::Always),
        row::<Dump<MPoolOp>>("MPoolOp", Exact::Always),
        // Before Luminous it did not end with removed snapshots.
        row::<Dump<MOSDMap>>("MOSDMap", DECODED_ONLY),
        // Before Nautilus a monitor's entry had fewer fields.
        row::<Dump<MMonMap>>("MMonMap", DECODED_ONLY),
        // Before Luminous there was no host name.
        row::<Dump<MMonSubscribe>>("MMonSubscribe", DECODED_ONLY),
        // Before Luminous there was no trace.
        row::<Dump<MOSDOpReply>>("MOSDOpReply", DECODED_ONLY),
    ]);
}

#[test]
fn outputs_of_operations_are_as_ceph_encodes_them() {
    check(&[
        row::<WatchItem>("watch_item_t", Exact::Always),
        row::<ObjListWatchResponse>("obj_list_watch_response_t", Exact::Always),
        row::<CloneInfo>("clone_info", Exact::Always),
        row::<ObjListSnapResponse>("obj_list_snap_response_t", Exact::Always),
        row::<PgNlsResponse>("pg_nls_response_t", Exact::Always),
    ]);
}

#[test]
fn locks_are_as_ceph_encodes_them() {
    check(&[
        row::<LockOp>("cls_lock_lock_op", Exact::Always),
        row::<UnlockOp>("cls_lock_unlock_op", Exact::Always),
        row::<BreakOp>("cls_lock_break_op", Exact::Always),
        row::<GetInfoOp>("cls_lock_get_info_op", Exact::Always),
        row::<LockInfo>("cls_lock_get_info_reply", Exact::Always),
        row::<LockInfo>("lock_info_t", Exact::Always),
        row::<LockerId>("rados::cls::lock::locker_id_t", Exact::Always),
        row::<LockerInfo>("rados::cls::lock::locker_info_t", Exact::Always),
        row::<ListLocksReply>("cls_lock_list_locks_reply", Exact::Always),
        row::<AssertOp>("cls_lock_assert_op", Exact::Always),
    ]);
}

/// A message as `encode_message` of Ceph's `msg/Message.cc` stores it: a header, the footer of
/// before messages were signed, and the three parts as byte sequences.
struct Dump<M> {
    message: Message,
    source: EntityName,
    /// Not part of a [`Message`], nor are the footer's checksums and flags.
    reserved_and_crc: [u8; 6],
    footer: [u8; 13],
    typed: PhantomData<M>,
}

impl<M: TypedMessage> Decode for Dump<M> {
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let seq = dec.u64()?;
        let tid = dec.u64()?;
        let msg_type = dec.u16()?;
        let priority = Priority(dec.u16()?);
        let version = dec.u16()?;
        let _lengths = [dec.u32()?, dec.u32()?, dec.u32()?];
        let data_off = dec.u16()?;
        let source = dec.value()?;
        let compat_version = dec.u16()?;
        let header = MessageHeader { msg_type, tid, priority, version, compat_version, data_off };
        let reserved_and_crc = dec.array()?;
        let footer = dec.array()?;
        let payload =
            Payload { front: dec.bytes()?.into(), middle: dec.bytes()?, data: dec.value()? };
        let mut message = Message::new(header, payload);
        message.seq = seq;
        let typed = match M::from_message(&message) {
            Ok(typed) => typed,
            Err(MessageError::Decode { error, .. }) => return Err(error),
            Err(error) => panic!("a {} that is not one: {error}", M::NAME),
        };
        let recoded = typed.to_message(peer(&message));
        message.payload = recoded.payload.clone();
        Ok(Self { message, source, reserved_and_crc, footer, typed: PhantomData })
    }
}

impl<M> Encode for Dump<M> {
    fn encode(&self, enc: &mut Encoder) {
        let MessageParts { header, payload, seq, .. } = &*self.message;
        enc.u64(*seq);
        enc.u64(header.tid);
        enc.u16(header.msg_type);
        enc.u16(header.priority.0);
        enc.u16(header.version);
        for part in [payload.front.len(), payload.middle.len(), payload.data.len()] {
            enc.count(part);
        }
        enc.u16(header.data_off);
        enc.value(&self.source);
        enc.u16(header.compat_version);
        enc.raw(&self.reserved_and_crc);
        enc.raw(&self.footer);
        enc.bytes(&payload.front);
        enc.value(&payload.middle);
        enc.value(&payload.data);
    }
}

/// The features of the peer that a message was encoded for: a request to an OSD ends with them.
fn peer(message: &Message) -> Features {
    match message.payload.front.last_chunk() {
        Some(features) if message.header.msg_type == msg_type::CEPH_MSG_OSD_OP => {
            Features(u64::from_le_bytes(*features))
        }
        _ => Features::ALL,
    }
}
