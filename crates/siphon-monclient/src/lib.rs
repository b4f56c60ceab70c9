//! A client's session with the monitors of a Ceph cluster, and with its manager.
//!
//! A [`MonClient`] finds a monitor among several, authenticates, follows the maps that are subscribed to,
//! renews tickets, and asks: commands, versions of maps, and whatever else monitors answer. When its
//! monitor goes, it looks for another, and what waits for an answer goes again.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use siphon_common::Context;
//! use siphon_common::config::ConfigLoader;
//! use siphon_monclient::{Command, MonClient};
//!
//! let config = ConfigLoader::new().load(["-n", "client.admin"])?.config;
//! let mon = MonClient::builder(&Context::new(config)).start()?;
//! let timeout = Duration::from_secs(10);
//! pollster::block_on(async {
//!     mon.authenticate(timeout).await?;
//!     let output = mon.command(Command::new("osd tree"), Some(timeout)).await?;
//!     print!("{}", output.text());
//!     mon.shutdown().await;
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod auth;
mod builder;
mod client;
mod command;
mod core;
mod dns;
mod error;
mod front;
mod monitors;
mod shell;

pub use builder::MonClientBuilder;
pub use client::MonClient;
pub use command::{Command, CommandOutput, CommandSyntaxError};
pub use core::MonTarget;
pub use error::{MonError, StartError, Tried};
pub use monitors::initial_monmap;
