//! The Ceph messenger: connections, dispatchers, policies.
//!
//! A [`Stack`] has worker threads. [`Messenger`]s are entities over it; each [`Connection`] belongs
//! to one worker for life, and whatever is done to it goes through that worker's mailbox. What
//! arrives goes to the messenger's [`Dispatcher`]s, or to an [`Inbox`] that can be awaited.

mod bind;
mod connection;
mod credentials;
mod dispatch_queue;
mod dispatch_throttle;
mod dispatcher;
mod dump;
mod error;
mod inbox;
mod messenger;
mod rdma_counters;
mod stack;
mod throttle_counters;
mod trace;
mod worker;

pub use connection::Connection;
pub use credentials::{
    CredentialsError, SystemEnv, cephx_client, load_key, load_keyring, modes, save_keyring,
    save_secret,
};
pub use dispatcher::Dispatcher;
pub use error::{BindError, CloseReason, SendError};
pub use inbox::{Inbox, InboxEvent};
pub use messenger::{Messenger, MessengerBuilder};
pub use siphon_proto::SessionCounts;
pub use stack::{Stack, SteppedWorker};
