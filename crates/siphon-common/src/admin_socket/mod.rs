//! The admin socket: a UNIX socket at which a process answers questions about itself, as Ceph's daemons
//! do. The real `ceph daemon SOCKET COMMAND` speaks to ours, and [`ask`] to theirs.
//!
//! ```
//! use siphon_common::admin_socket::{AdminSocket, ask};
//! use siphon_common::{Config, Context};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("client.asok");
//! let context = Context::new(Config::default());
//! let _socket = AdminSocket::listen(&path, context.commands())?;
//! let answer = ask(&path, &["perf", "dump"], None)?;
//! assert_eq!(answer, b"{}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! On the wire a request is text that ends with NUL (or a line feed), nearly always JSON with the command as
//! `prefix` and its arguments beside it; the answer is a length of four bytes, the highest first, and so
//! many bytes (`AdminSocket::do_accept` of Ceph's `common/admin_socket.cc`). One request a connection.

mod client;
mod command;
mod configuration;
mod server;
mod standard;

pub use client::{AskError, PATIENCE, ask, ask_within, request, request_within};
pub use command::{Arg, CommandError, CommandSpec, Commands, Registration, Request};
pub(crate) use configuration::register as register_configuration;
pub use server::{AdminSocket, ListenError};
pub(crate) use standard::register as register_standard;
