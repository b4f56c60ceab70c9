use std::fmt;

use bytes::Bytes;
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::buf::Rope;
use siphon_wire::types::Features;

use super::{check_version, decode_front};
use crate::osd::WatchEventKind;
use crate::{TypedMessage, msg_type};

/// What an OSD tells a client that watches an object, or that has notified those who watch one.
///
/// Versions 1 to 3 of the encoding are read; 3 is written.
///
/// ```
/// use siphon_messages::osd::WatchEventKind;
/// use siphon_messages::{MWatchNotify, TypedMessage};
/// use siphon_wire::types::Features;
/// let event = MWatchNotify { cookie: 3, kind: WatchEventKind::NOTIFY, ..MWatchNotify::default() };
/// let message = event.to_message(Features::ALL);
/// assert_eq!(MWatchNotify::from_message(&message)?, event);
/// # Ok::<(), siphon_messages::MessageError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MWatchNotify {
    /// The client's number of the watch or the notification (`cookie`).
    pub cookie: u64,
    /// Not used (`ver`).
    pub version: u64,
    /// The OSD's number of the notification.
    pub notify_id: u64,
    /// What happened (`opcode`).
    pub kind: WatchEventKind,
    /// What the notifier sent (`bl`).
    pub payload: Bytes,
    /// What became of the notification: an error is negative, of Linux's numbers.
    pub return_code: i32,
    /// Who notified: the number of its `client` (`notifier_gid`).
    pub notifier_gid: u64,
    /// What watchers answered, of a notification that is complete (the message's data).
    pub answers: Rope,
}

impl TypedMessage for MWatchNotify {
    const TYPE: u16 = msg_type::CEPH_MSG_WATCH_NOTIFY;
    const NAME: &'static str = "watch-notify";
    const VERSION: u16 = 3;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            enc.u8(HAS_PAYLOAD);
            enc.u8(self.kind.0);
            enc.u64(self.cookie);
            enc.u64(self.version);
            enc.u64(self.notify_id);
            enc.value(&self.payload);
            enc.i32(self.return_code);
            enc.u64(self.notifier_gid);
        });
        payload.data = self.answers.clone();
    }

    fn decode_payload(header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MWatchNotify", |dec| {
            check_version(dec, header.version, 1, 3)?;
            let inner = dec.u8()?;
            Ok(Self {
                kind: WatchEventKind(dec.u8()?),
                cookie: dec.u64()?,
                version: dec.u64()?,
                notify_id: dec.u64()?,
                payload: if inner >= HAS_PAYLOAD { dec.value()? } else { Bytes::new() },
                return_code: if header.version >= 2 { dec.i32()? } else { 0 },
                notifier_gid: if header.version >= 3 { dec.u64()? } else { 0 },
                answers: payload.data.clone(),
            })
        })
    }

    fn print(&self, _header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cookie, notify_id, kind, return_code, .. } = self;
        let number = kind.0;
        write!(
            f,
            "watch-notify({kind} ({number}) cookie {cookie} notify {notify_id} ret {return_code})"
        )
    }
}

/// The version within the payload, beside that in the header: 0 had none.
const HAS_PAYLOAD: u8 = 1;
