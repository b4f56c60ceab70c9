use bytes::Bytes;
use siphon_wire::Encoder;
use siphon_wire::types::Features;

use super::{OsdOp, OsdOpCode, WatchOp};

/// Operations of those who watch an object, or notify those who do.
impl OsdOp {
    /// Begins, renews, checks or ends the watch that has the client's number `cookie`.
    ///
    /// `generation` counts how often the watch was renewed; `timeout` is in seconds, after which an OSD
    /// that heard nothing gives it up, and 0 for the OSD's own (`osd_client_watch_timeout`).
    ///
    /// ```
    /// use siphon_messages::osd::{OsdOp, WatchOp};
    /// let op = OsdOp::watch(3, WatchOp::WATCH, 0, 30);
    /// assert_eq!(format!("{op:?}"), "watch watch cookie 3 (0 bytes of data) = 0");
    /// ```
    pub fn watch(cookie: u64, op: WatchOp, generation: u32, timeout: u32) -> Self {
        let mut watch = Self::new(OsdOpCode::WATCH);
        watch.args[..8].copy_from_slice(&cookie.to_le_bytes());
        watch.args[16] = op.0;
        watch.args[17..21].copy_from_slice(&generation.to_le_bytes());
        watch.args[21..25].copy_from_slice(&timeout.to_le_bytes());
        watch
    }

    /// Tells those who watch the object. `timeout` is in seconds, for how long the OSD waits for answers;
    /// 0 is for the OSD's own (`osd_default_notify_timeout`).
    pub fn notify(cookie: u64, timeout: u32, payload: &Bytes) -> Self {
        /// The version of what follows it.
        const VERSION: u32 = 1;
        let mut notify = Self::new(OsdOpCode::NOTIFY);
        notify.args[..8].copy_from_slice(&cookie.to_le_bytes());
        let mut enc = Encoder::new(Features::ALL);
        enc.u32(VERSION);
        enc.u32(timeout);
        enc.value(payload);
        notify.data = enc.finish().into();
        notify
    }

    /// Answers a notification that came for the watch `cookie`.
    pub fn notify_ack(notify_id: u64, cookie: u64, payload: &Bytes) -> Self {
        let mut enc = Encoder::new(Features::ALL);
        enc.u64(notify_id);
        enc.u64(cookie);
        enc.value(payload);
        Self { data: enc.finish().into(), ..Self::new(OsdOpCode::NOTIFY_ACK) }
    }
}
