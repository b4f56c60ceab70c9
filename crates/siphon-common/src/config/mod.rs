//! Ceph's options: one typed table, and the ways in which a user sets them.
//!
//! The table stands in one place (`table.rs`); [`Config`] has a typed field for each of its rows.
//! Names, defaults, units and ranges are Ceph's own (`src/common/options.cc`, 16.2.7).
//!
//! ```
//! use siphon_common::Config;
//!
//! let mut config = Config::default();
//! let args = ["--ms-type", "async+posix", "--ms_tcp_rcvbuf=64K", "127.0.0.1:6800", "1"];
//! let rest = config.take_args("client.admin", args)?;
//! assert_eq!(config.ms_tcp_rcvbuf, 64 << 10);
//! assert_eq!(rest, ["127.0.0.1:6800", "1"]);
//!
//! let error = config.set("ms_asynch_op_threads", "4").unwrap_err();
//! assert!(error.to_string().contains("ms_async_op_threads"));
//! # Ok::<(), siphon_common::ConfigError>(())
//! ```

mod args;
mod error;
mod file;
mod table;
mod value;

pub use error::{ConfigError, SyntaxRule, ValueError};
pub use file::{MAX_FILE_BYTES, default_files};
pub use table::{Config, OptionInfo};
pub use value::OptionKind;
